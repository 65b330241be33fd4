//! The rules of the house that `buf lint` does not know. Each returns one line for each fault.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, EnumDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor};
use protox::prost::Message as _;
use protox::prost_reflect::prost_types::method_options::IdempotencyLevel;

/// A rule of the house, and what it is called in a failure.
pub(crate) type Rule = fn(&DescriptorPool) -> Vec<String>;

/// Every rule, by its name.
pub(crate) const RULES: [(&str, Rule); 9] = [
    ("one_service_a_package", one_service_a_package),
    ("requests_and_responses_are_named_after_their_rpc", requests_and_responses_are_named_after_their_rpc),
    ("reads_say_so_and_mutations_carry_a_request_id", reads_say_so_and_mutations_carry_a_request_id),
    ("lists_page", lists_page),
    ("enums_go_in_steps_of_ten", enums_go_in_steps_of_ten),
    ("go_packages_follow_their_package", go_packages_follow_their_package),
    ("everything_is_commented", everything_is_commented),
    ("services_show_an_example", services_show_an_example),
    ("wire_numbers_are_dense", wire_numbers_are_dense),
];

/// Packages whose numbers are dense, since they are sent often.
const DENSE: [&str; 2] = ["fleetd.sync.v1.", "fleetd.record.v1.Log"];

/// The files that are ours: not the well-known types, and not the copied health protocol.
fn files(pool: &DescriptorPool) -> impl Iterator<Item = FileDescriptor> + '_ {
    pool.files().filter(|file| !file.package_name().starts_with("google.") && file.package_name() != "grpc.health.v1")
}

fn services(pool: &DescriptorPool) -> impl Iterator<Item = ServiceDescriptor> + '_ {
    files(pool).flat_map(|file| file.services().collect::<Vec<_>>())
}

fn methods(pool: &DescriptorPool) -> impl Iterator<Item = MethodDescriptor> + '_ {
    services(pool).flat_map(|service| service.methods().collect::<Vec<_>>())
}

fn is_read(method: &MethodDescriptor) -> bool {
    let options = method.method_descriptor_proto().options.clone().unwrap_or_default();
    options.idempotency_level() == IdempotencyLevel::NoSideEffects
}

fn one_service_a_package(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    let mut of_package: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for service in services(pool) {
        let file = service.parent_file();
        of_package.entry(file.package_name().to_owned()).or_default().push(service.name().to_owned());
        if !service.name().ends_with("Service") {
            faults.push(format!("{} does not end in Service", service.full_name()));
        }
        let expected = snake(service.name());
        if !file.name().ends_with(&format!("/{expected}.proto")) {
            faults.push(format!("{} lies in {}, not in {expected}.proto", service.full_name(), file.name()));
        }
    }
    faults.extend(
        of_package
            .into_iter()
            .filter(|(_, names)| names.len() > 1)
            .map(|(package, names)| format!("{package} has {names:?}")),
    );
    faults
}

/// Writes `RolloutService` as `rollout_service`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (index, character) in name.char_indices() {
        if character.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

fn requests_and_responses_are_named_after_their_rpc(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    for method in methods(pool) {
        for (message, suffix) in [(method.input(), "Request"), (method.output(), "Response")] {
            let expected = format!("{}{suffix}", method.name());
            if message.name() != expected || message.package_name() != method.parent_service().package_name() {
                faults.push(format!("{} uses {}, not its own {expected}", method.full_name(), message.full_name()));
            }
        }
    }
    faults
}

fn reads_say_so_and_mutations_carry_a_request_id(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    for method in methods(pool) {
        let carries = method.input().get_field_by_name("request_id").is_some_and(|field| field.number() == 1);
        match (is_read(&method), carries) {
            (true, true) => faults.push(format!("{} only reads, and carries a request_id", method.full_name())),
            (false, false) => {
                faults.push(format!("{} has neither NO_SIDE_EFFECTS nor request_id = 1", method.full_name()));
            }
            (true, false) | (false, true) => {}
        }
    }
    faults
}

fn lists_page(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    for method in methods(pool).filter(|method| method.name().starts_with("List")) {
        for (message, field) in
            [(method.input(), "page_size"), (method.input(), "page_token"), (method.output(), "next_page_token")]
        {
            if message.get_field_by_name(field).is_none() {
                faults.push(format!("{} has no {field}", message.full_name()));
            }
        }
    }
    faults
}

fn enums_go_in_steps_of_ten(pool: &DescriptorPool) -> Vec<String> {
    let ours = |found: &EnumDescriptor| files(pool).any(|file| file.name() == found.parent_file().name());
    let mut faults = Vec::new();
    for found in pool.all_enums().filter(ours) {
        let numbers: Vec<i32> = found.values().map(|value| value.number()).collect();
        if numbers.iter().any(|number| number % 10 != 0) || !numbers.is_sorted() {
            faults.push(format!("{} has {numbers:?}", found.full_name()));
        }
        let first = found.default_value();
        if first.number() != 0 || !first.name().ends_with("_UNSPECIFIED") {
            faults.push(format!("{} begins with {} = {}", found.full_name(), first.name(), first.number()));
        }
    }
    faults
}

fn go_packages_follow_their_package(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files(pool) {
        let path = file.package_name().replace('.', "/");
        let domain = file.package_name().split('.').nth(1).unwrap_or_default().to_owned();
        let expected = format!("fleetd.sh/gen/{path};{domain}pb");
        let found = file.file_descriptor_proto().options.clone().unwrap_or_default().go_package().to_owned();
        if found != expected {
            faults.push(format!("{} has go_package {found:?}, not {expected:?}", file.name()));
        }
    }
    faults
}

/// The elements of a file that a path of source information can lead to, with their comments.
fn elements(file: &FileDescriptor) -> Vec<(Vec<i32>, String)> {
    let source = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default();
    source
        .location
        .into_iter()
        .filter(|location| is_element(&location.path))
        .map(|location| (location.path.clone(), location.leading_comments().trim().to_owned()))
        .collect()
}

/// Says whether a path leads to a message, field, oneof, enum, value, service or method. Numbers are those of the
/// fields of `google.protobuf.FileDescriptorProto` and below.
fn is_element(path: &[i32]) -> bool {
    match path {
        [4..=6, _] | [5, _, 2, _] | [6, _, 2, _] => true,
        [4, _, rest @ ..] => is_in_message(rest),
        _ => false,
    }
}

fn is_in_message(path: &[i32]) -> bool {
    match path {
        [2 | 3 | 4 | 8, _] | [4, _, 2, _] => true,
        [3, _, rest @ ..] => is_in_message(rest),
        _ => false,
    }
}

fn everything_is_commented(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files(pool) {
        let elements = elements(&file);
        if elements.is_empty() {
            faults.push(format!("{} has nothing in it, or was compiled without its comments", file.name()));
        }
        for (path, comment) in elements {
            if comment.is_empty() {
                faults.push(format!("{} has no comment at {path:?}", file.name()));
            }
        }
    }
    faults
}

fn services_show_an_example(pool: &DescriptorPool) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files(pool) {
        let elements = elements(&file);
        for (number, service) in (0_i32..).zip(file.services()) {
            let comment = elements.iter().find(|(path, _)| *path == [6, number]);
            if !comment.is_some_and(|(_, comment)| comment.contains("Example:") && comment.contains("curl ")) {
                faults.push(format!("{} shows no example", service.full_name()));
            }
        }
    }
    faults
}

fn wire_numbers_are_dense(pool: &DescriptorPool) -> Vec<String> {
    let is_dense = |name: &str| DENSE.iter().any(|prefix| name.starts_with(prefix));
    let mut faults = Vec::new();
    for message in pool.all_messages().filter(|message| is_dense(message.full_name()) && !message.is_map_entry()) {
        let numbers: Vec<u32> = message.fields().map(|field| field.number()).collect();
        if !numbers.iter().copied().eq(1..=u32::try_from(numbers.len()).expect("a message has few fields")) {
            faults.push(format!("{} has fields {numbers:?}", message.full_name()));
        }
    }
    faults
}

/// Decodes a pool from what a compiler wrote, comments included.
pub(crate) fn pool_of(compiler: &protox::Compiler) -> DescriptorPool {
    let bytes = compiler.file_descriptor_set().encode_to_vec();
    DescriptorPool::decode(bytes.as_slice()).expect("a compiled set is a valid one")
}
