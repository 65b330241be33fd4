//! The schemas keep every rule, every rule can be broken, and the committed descriptors hold what is served.

use std::path::{Path, PathBuf};

use prost_reflect::DescriptorPool;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::rule::{RULES, pool_of};

/// Compiles every schema of this crate, comments included.
fn schemas() -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = protox::Compiler::new([root]).expect("the folder is there");
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(schema_files(root)).expect("the schemas compile");
    pool_of(&compiler)
}

fn schema_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            files.extend(schema_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files
}

/// One schema that is no file.
struct Text(&'static str, String);

impl FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == self.0 { File::from_source(name, &self.1) } else { Err(protox::Error::file_not_found(name)) }
    }
}

/// Compiles one file that is given as text.
fn compile(name: &'static str, text: String) -> DescriptorPool {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Text(name, text));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file(name).expect("the text compiles");
    pool_of(&compiler)
}

/// A schema that keeps every rule.
const GOOD: &str = r#"
syntax = "proto3";
package fleetd.cup.v1;
option go_package = "fleetd.sh/gen/fleetd/cup/v1;cuppb";
// Example: curl it.
service CupService {
  // Lists.
  rpc ListCups(ListCupsRequest) returns (ListCupsResponse) { option idempotency_level = NO_SIDE_EFFECTS; }
  // Fills.
  rpc FillCup(FillCupRequest) returns (FillCupResponse);
}
// Asks.
message ListCupsRequest {
  // Size.
  uint32 page_size = 1;
  // Token.
  string page_token = 2;
}
// Answers.
message ListCupsResponse {
  // Token.
  string next_page_token = 2;
}
// Asks.
message FillCupRequest {
  // Id.
  string request_id = 1;
}
// Answers.
message FillCupResponse {
  // Kind.
  Cup cup = 1;
}
// Kinds.
enum Cup {
  // None.
  CUP_UNSPECIFIED = 0;
  // Small.
  CUP_SMALL = 10;
}
"#;

/// Breaks one rule of the good schema, and expects that this rule and no other sees it.
#[track_caller]
fn check_seen(rule: &str, from: &str, to: &str) {
    assert!(GOOD.contains(from), "the good schema has no {from:?}");
    let pool = compile("fleetd/cup/v1/cup_service.proto", GOOD.replacen(from, to, 1));
    let seen: Vec<&str> = RULES.iter().filter(|(_, check)| !check(&pool).is_empty()).map(|(name, _)| *name).collect();
    assert_eq!(seen, [rule]);
}

#[test]
fn schemas_keep_every_rule() {
    let pool = schemas();
    assert!(pool.services().len() > 10, "the schemas were found");
    for (name, rule) in RULES {
        assert_eq!(rule(&pool), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_good_schema_breaks_no_rule() {
    let pool = compile("fleetd/cup/v1/cup_service.proto", GOOD.to_owned());
    for (name, rule) in RULES {
        assert_eq!(rule(&pool), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_service_of_another_name_is_seen() {
    check_seen("one_service_a_package", "service CupService", "service Cups");
}

#[test]
fn a_second_service_is_seen() {
    check_seen("one_service_a_package", "// Kinds.", "// Example: curl it.\nservice MugService {}\n// Kinds.");
}

#[test]
fn a_borrowed_response_is_seen() {
    check_seen(
        "requests_and_responses_are_named_after_their_rpc",
        "returns (FillCupResponse)",
        "returns (ListCupsResponse)",
    );
}

#[test]
fn a_mutation_without_a_request_id_is_seen() {
    check_seen("reads_say_so_and_mutations_carry_a_request_id", "string request_id = 1;", "string id = 1;");
}

#[test]
fn a_list_without_pages_is_seen() {
    check_seen("lists_page", "uint32 page_size = 1;", "uint32 size = 1;");
}

#[test]
fn an_enum_value_between_the_tens_is_seen() {
    check_seen("enums_go_in_steps_of_ten", "CUP_SMALL = 10;", "CUP_SMALL = 1;");
}

#[test]
fn a_foreign_go_package_is_seen() {
    check_seen("go_packages_follow_their_package", ";cuppb", ";cup");
}

#[test]
fn a_missing_comment_is_seen() {
    check_seen("everything_is_commented", "// Small.", "");
}

#[test]
fn a_service_without_example_is_seen() {
    check_seen("services_show_an_example", "// Example: curl it.", "// Cups.");
}

#[test]
fn a_gap_in_wire_numbers_is_seen() {
    let text = r#"
syntax = "proto3";
package fleetd.sync.v1;
option go_package = "fleetd.sh/gen/fleetd/sync/v1;syncpb";
// A frame.
message Frame {
  // One.
  uint32 one = 1;
  // Three.
  uint32 three = 3;
}
"#;
    let pool = compile("fleetd/sync/v1/frame.proto", text.to_owned());
    let (_, rule) = RULES.iter().find(|(name, _)| *name == "wire_numbers_are_dense").expect("the rule is there");
    assert_eq!(rule(&pool).len(), 1);
}

#[test]
fn descriptors_hold_every_service() {
    let committed = DescriptorPool::decode(fleetd_proto::DESCRIPTORS).expect("they are a valid set");
    let names = |pool: &DescriptorPool| {
        let mut names: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&committed), names(&schemas()));
    assert!(committed.get_service_by_name("grpc.health.v1.Health").is_some());
}

#[test]
fn a_hello_that_finds_nothing_changed_takes_at_most_48_bytes() {
    use fleetd_proto::fleetd::sync::v1::{Frame, Hello, frame::Kind};

    let hello = Hello {
        version_max: 1,
        capabilities: 0x7f,
        boot: vec![0xff; 16],
        trust_version: 100,
        digest: vec![0xff; 16],
        ..Hello::default()
    };
    let frame = Frame { kind: Some(Kind::Hello(hello)) };
    assert!(frame.encoded_len_with_prefix() <= 48, "{} bytes", frame.encoded_len_with_prefix());
}

/// The length of a message behind its varint length, as it travels.
trait Prefixed: prost::Message {
    fn encoded_len_with_prefix(&self) -> usize {
        let length = self.encoded_len();
        length + prost::length_delimiter_len(length)
    }
}

impl<M: prost::Message> Prefixed for M {}
