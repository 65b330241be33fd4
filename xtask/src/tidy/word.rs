//! Which words may stand where: the seams of the house, as absences.

use super::Finding;
use crate::source::{RustFile, Tree, line_of, lines_with_word};

/// What part of a Rust file a rule reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comments,
}

/// Words that may stand only in some places.
struct Rule {
    words: &'static [&'static str],
    part: Part,
    /// Beginnings of the paths that the rule is about.
    within: &'static [&'static str],
    /// Beginnings of the paths where the words may stand all the same, or endings after a `*`.
    except: &'static [&'static str],
    instead: &'static str,
}

const PURE: &[&str] = &["sync/core/src/", "actors/src/"];

/// The one impure corner of `actors`, behind its feature `shell`.
const SHELL: &[&str] = &["actors/src/shell.rs", "actors/src/shell/"];

const EVERYWHERE: &[&str] = &[""];

const RULES: [Rule; 12] = [
    Rule {
        words: &["automerge"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &["sync/core/src/view.rs", "sync/core/src/view/"],
        instead: "Automerge is a view of signed lanes: ask `sync/core/src/view.rs`",
    },
    Rule {
        words: &["fleetd_proto"],
        part: Part::Code,
        within: EVERYWHERE,
        except: PROTO_READERS,
        instead: "convert at the edge, in a codec, record or rpc file, and use our own types inside",
    },
    Rule {
        words: &["ractor"],
        part: Part::Code,
        within: EVERYWHERE,
        except: SHELL,
        instead: "write a machine and let the shell run it",
    },
    Rule {
        words: &["HashMap", "HashSet"],
        part: Part::Code,
        within: PURE,
        except: &[],
        instead: "use BTreeMap or BTreeSet: their order is the same in every process",
    },
    Rule {
        words: &["Instant::now", "SystemTime", "thread::spawn", "getrandom", "rand"],
        part: Part::Code,
        within: PURE,
        except: &[],
        instead: "time is `Now` and randomness is `Entropy`, both handed in",
    },
    Rule {
        words: &["Instant::now", "SystemTime::now"],
        part: Part::Code,
        within: &["agent/src/", "server/src/", "sync/store/src/", "sync/transport/src/"],
        except: &["*/clock.rs", "agent/src/shim", "agent/src/runner/process"],
        instead: "ask the node's `Clock`, so that a simulated node sees simulated time",
    },
    Rule {
        words: &["#[allow(", "#![allow("],
        part: Part::Code,
        within: EVERYWHERE,
        except: &["proto/src/lib.rs"],
        instead: "write `#[expect(…, reason = \"…\")]`, which tells when it is no longer needed",
    },
    Rule {
        words: &[
            "tokio",
            "futures",
            "async fn",
            ".await",
            "std::fs",
            "TcpStream",
            "UdpSocket",
            "ToSocketAddrs",
            "std::env",
            "std::process",
            "Instant",
        ],
        part: Part::Code,
        within: PURE,
        except: SHELL,
        instead: "decide here and act in a driver: this crate does no IO and never waits",
    },
    Rule {
        words: &["serde", "serde_json", "prost", "tonic"],
        part: Part::Code,
        within: PURE,
        except: &[],
        instead: "machines know no encoding: convert in a codec, record or rpc file",
    },
    Rule {
        words: &["anyhow"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &["agent/src/main.rs", "cli/src/main.rs", "chaos-tests/", "xtask/"],
        instead: "give the operation an error enum of its own with `thiserror`",
    },
    Rule {
        words: &["dbg!", "todo!", "unimplemented!", "#[ignore]"],
        part: Part::Code,
        within: EVERYWHERE,
        except: &[],
        instead: "finish it; a test that is ignored says why: `#[ignore = \"…\"]`",
    },
    Rule {
        words: &["FIXME", "XXX", "HACK", "TODO"],
        part: Part::Comments,
        within: EVERYWHERE,
        except: &[],
        instead: "finish it, or say in a sentence what is missing and why that is right",
    },
];

/// Where generated messages may be named: codecs and frames, records, rpc and its conversions, and API clients.
const PROTO_READERS: &[&str] = &[
    "proto/",
    "sync/store/src/record",
    "sync/transport/src/codec",
    "sync/transport/src/frame",
    "agent/src/codec",
    "agent/src/local_api",
    "agent/src/record",
    "server/src/codec",
    "server/src/connect",
    "server/src/record",
    "server/src/access.rs",
    "server/src/rpc",
    "server/tests/",
    "cli/src/client",
    "cli/src/command",
    "cli/src/demo",
    "chaos-tests/",
];

/// Beginnings of absolute paths that exist on somebody's machine only. Written apart, lest they be found here.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/"), concat!("/", "Users/")];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = tree.rust.iter().flat_map(check_rust).collect();
    let rust = tree.rust.iter().map(|file| (&file.path, &file.text));
    for (path, text) in rust.chain(tree.texts.iter().map(|file| (&file.path, &file.text))) {
        findings.extend(machine_paths(path, text));
    }
    findings
}

fn check_rust(file: &RustFile) -> Vec<Finding> {
    let starts = |patterns: &[&str]| patterns.iter().copied().any(|pattern| is_at(&file.path, pattern));
    let mut findings = unreasoned(file);
    for rule in RULES.iter().filter(|rule| starts(rule.within) && !starts(rule.except)) {
        let text = if rule.part == Part::Code { &file.code } else { &file.comments };
        for word in rule.words {
            for line in lines_with_word(text, word) {
                findings.push(Finding::new(&file.path, line, format!("`{word}` stands here"), rule.instead));
            }
        }
    }
    findings
}

fn is_at(path: &str, pattern: &str) -> bool {
    pattern.strip_prefix('*').map_or_else(|| path.starts_with(pattern), |ending| path.ends_with(ending))
}

/// Finds exceptions to a lint that do not say why.
fn unreasoned(file: &RustFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let plain = file.code.match_indices("#[expect(");
    for (at, _) in plain.chain(file.code.match_indices("#![expect(")) {
        let attribute = file.code.split_at(at).1;
        let attribute = attribute.split_at(attribute.find(")]").unwrap_or(attribute.len())).0;
        if !attribute.contains("reason =") {
            let what = "the exception does not say why it holds";
            findings.push(Finding::new(&file.path, line_of(&file.code, at), what, "add `reason = \"…\"`"));
        }
    }
    findings
}

fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for machine_path in MACHINE_PATHS {
            let absolute = line.match_indices(machine_path).any(|(start, _)| {
                let before = line.split_at(start).0;
                !before.ends_with(|character: char| character.is_alphanumeric() || "._-{}*/".contains(character))
            });
            if absolute {
                let what = format!("`{machine_path}` is a path of one machine");
                findings.push(Finding::new(path, at + 1, what, "use a relative path, or one that the user gives"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn found(path: &str, text: &str) -> Vec<usize> {
        let mut lines: Vec<usize> =
            check(&Tree::sample(&[(path, text)])).into_iter().map(|finding| finding.line).collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn automerge_is_named_in_its_view_only() {
        assert_eq!(found("sync/core/src/lane.rs", "//! Not automerge.\nuse automerge::ReadDoc;\n"), [2]);
        assert_eq!(found("sync/core/src/view.rs", "use automerge::ReadDoc;\n"), NONE);
    }

    #[test]
    fn generated_messages_are_named_at_the_edges_only() {
        assert_eq!(found("server/src/node.rs", "use fleetd_proto::fleetd;\n"), [1]);
        assert_eq!(found("server/src/rpc/convert/device.rs", "use fleetd_proto::fleetd;\n"), NONE);
    }

    #[test]
    fn pure_crates_have_no_clock_no_threads_and_no_unordered_maps() {
        let text = "use std::collections::HashMap;\nlet a = std::time::Instant::now();\nlet b = SystemTime::now();\n\
            std::thread::spawn(f);\nlet c = d.await;\nlet e: BTreeMap<u8, u8>;\nlet random = operand;\n";
        assert_eq!(found("sync/core/src/lane.rs", text), [1, 2, 2, 3, 4, 5]);
        assert_eq!(found("actors/src/device.rs", text), [1, 2, 2, 3, 4, 5]);
        assert_eq!(found("actors/src/shell/directory.rs", text), [1, 2, 3, 4], "the shell may wait");
        assert_eq!(found("cli/src/output.rs", text), NONE);
    }

    #[test]
    fn pure_crates_know_no_encoding_and_only_the_shell_knows_ractor() {
        assert_eq!(found("actors/src/device.rs", "use serde::Serialize;\nuse prost::Message;\n"), [1, 2]);
        assert_eq!(found("actors/src/device.rs", "use ractor::Actor;\n"), [1]);
        assert_eq!(found("server/src/node.rs", "use ractor::Actor;\n"), [1]);
        assert_eq!(found("actors/src/shell.rs", "use ractor::Actor;\n"), NONE);
    }

    #[test]
    fn nodes_ask_their_clock() {
        assert_eq!(found("agent/src/driver.rs", "let a = Instant::now();\n"), [1]);
        assert_eq!(found("server/src/driver/clock.rs", "let a = Instant::now();\n"), NONE);
    }

    #[test]
    fn exceptions_to_lints_say_why() {
        assert_eq!(found("a/src/b.rs", "#[allow(unused)]\n#[expect(unused)]\n#![expect(\n    unused\n)]\n"), [1, 2, 3]);
        assert_eq!(
            found("a/src/b.rs", "#[expect(\n    unused,\n    reason = \"x\"\n)]\nlet a = vec![expect(b)];\n"),
            NONE
        );
    }

    #[test]
    fn unfinished_work_is_found() {
        assert_eq!(
            found("a/src/b.rs", "dbg!(x);\n#[ignore]\n#[ignore = \"slow\"]\n// FIXME: x\nlet s = \"FIXME\";\n"),
            [1, 2, 4]
        );
        assert_eq!(found("a/src/b.rs", "use anyhow::Context;\n"), [1]);
        assert_eq!(found("cli/src/main.rs", "use anyhow::Context;\n"), NONE);
    }

    #[test]
    fn paths_of_one_machine_are_found_in_every_file() {
        for machine_path in MACHINE_PATHS {
            assert_eq!(found("docs/a.md", &format!("see\n`{machine_path}x`\n")), [2]);
            assert_eq!(found("a/src/b.rs", &format!("let a = \"{machine_path}x\";\n")), [1]);
            assert_eq!(found("docs/a.md", &format!("net{machine_path}x and ./{machine_path}y\n")), NONE);
        }
    }
}
