//! What the demo may see: only what a user of the API sees, besides starting processes and cutting a proxy.

use super::Finding;
use crate::source::{RustFile, Tree, line_of};

/// The demo's own files.
const DEMO: [&str; 2] = ["cli/src/demo.rs", "cli/src/demo/"];

/// Modules of the CLI that the demo may name: itself, the public API client, processes, the proxy and output.
const MODULES: [&str; 5] = ["client", "demo", "output", "process", "proxy"];

/// Crates of the workspace that the demo may name; the API's messages are as public as its client.
const CRATES: [&str; 1] = ["fleetd_proto"];

const INSTEAD: &str = "go through the public API client, so that the demo shows what a user can do";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().filter(|file| DEMO.iter().any(|path| file.path.starts_with(path))).flat_map(check_file).collect()
}

fn check_file(file: &RustFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, word) in words(&file.code) {
        let after = file.code.split_at(at + word.len()).1;
        let refused = match word {
            "crate" => after.strip_prefix("::").is_some_and(|path| !leads_to_allowed(path)),
            "super" => {
                after.starts_with("::super") || (after.starts_with("::") && !file.path.starts_with("cli/src/demo/"))
            }
            _ => word.starts_with("fleetd_") && after.starts_with("::") && !CRATES.contains(&word),
        };
        if refused {
            let target: String = after.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
            let what = format!("the demo names `{word}{target}`");
            findings.push(Finding::new(&file.path, line_of(&file.code, at), what, INSTEAD));
        }
    }
    findings
}

fn leads_to_allowed(path: &str) -> bool {
    let first: String = path.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
    // A group at the crate's root would hide its modules from this check.
    MODULES.contains(&first.as_str())
}

fn words(code: &str) -> Vec<(usize, &str)> {
    let inside = |character: char| character.is_alphanumeric() || character == '_';
    let mut words = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(inside) {
        let from = rest.split_at(start).1;
        let (word, tail) = from.split_at(from.find(|character| !inside(character)).unwrap_or(from.len()));
        words.push((code.len() - from.len(), word));
        rest = tail;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::sample(&[(path, text)])).len()
    }

    #[test]
    fn the_public_way_is_fine() {
        let text = "use crate::client::Client;\nuse crate::{};\nuse fleetd_proto::fleetd::device::v1 as device;\n";
        assert_eq!(found("cli/src/demo.rs", &text.replace("use crate::{};\n", "")), 0);
        assert_eq!(found("cli/src/demo.rs", text), 1, "a group at the root hides what it names");
        assert_eq!(found("cli/src/demo/story.rs", "use super::Step;\npub(super) fn go() {}\n"), 0);
        assert_eq!(found("cli/src/command/device.rs", "use fleetd_server::node;\n"), 0, "only the demo is held to it");
    }

    #[test]
    fn short_cuts_are_found() {
        assert_eq!(found("cli/src/demo.rs", "use fleetd_server::node;\n"), 1);
        assert_eq!(found("cli/src/demo/story.rs", "let x = crate::command::rollout::start();\n"), 1);
        assert_eq!(found("cli/src/demo/story.rs", "use super::super::command;\n"), 1);
        assert_eq!(found("cli/src/demo.rs", "use super::command;\n"), 1);
    }
}
