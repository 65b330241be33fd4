//! One integration binary a crate, and no test file that no binary reaches.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;
use crate::source::{RustFile, Tree};

/// Takes from cargo's metadata the root file of every integration test binary, by the folder of its crate.
pub(super) fn roots_of(root: &Path, metadata: &cargo_metadata::Metadata) -> Vec<(String, Vec<String>)> {
    let relative = |path: &cargo_metadata::camino::Utf8Path| path.strip_prefix(root).unwrap_or(path).to_string();
    let roots = |package: &cargo_metadata::Package| {
        let tests = package.targets.iter().filter(|target| target.is_test());
        let folder = package.manifest_path.parent().map(relative).unwrap_or_default();
        (folder, tests.map(|target| relative(&target.src_path)).collect())
    };
    metadata.packages.iter().map(roots).collect()
}

pub(super) fn check(tree: &Tree, crates: &[(String, Vec<String>)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, roots) in crates {
        for second in roots.iter().skip(1) {
            let instead = "make it a module of the crate's one runner: each binary is linked anew";
            findings.push(Finding::new(second, 1, format!("`{folder}` has {} test binaries", roots.len()), instead));
        }
        let mut reached = BTreeSet::new();
        for root in roots {
            reach(tree, root, true, &mut reached);
        }
        let tests = format!("{folder}/tests/");
        for file in tree.rust.iter().filter(|file| file.path.starts_with(&tests) && !reached.contains(&file.path)) {
            let instead = "declare it with `mod` in the runner, or delete it";
            findings.push(Finding::new(&file.path, 1, "no test binary reaches this file", instead));
        }
    }
    findings
}

/// Follows the `mod` lines from `path`, which is a crate's root file or a module's.
fn reach(tree: &Tree, path: &str, is_root: bool, reached: &mut BTreeSet<String>) {
    let Some(file) = tree.rust.iter().find(|file| file.path == path) else { return };
    if !reached.insert(path.to_owned()) {
        return;
    }
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let folder = if is_root { parent } else { stem };
    for (name, at_path) in modules(file) {
        match at_path {
            Some(at_path) => reach(tree, &format!("{parent}/{at_path}"), false, reached),
            None => reach(tree, &format!("{folder}/{name}.rs"), false, reached),
        }
    }
}

/// Returns the modules that a file declares without a body, with the text of their `#[path]`. A module inside one
/// that has its body here is named by both (`outer/inner`), as its file is.
fn modules(file: &RustFile) -> Vec<(String, Option<String>)> {
    let mut modules = Vec::new();
    let mut around: Vec<(usize, &str)> = Vec::new();
    let mut at_path = None;
    for (code, text) in file.code.lines().zip(file.text.lines()) {
        let indent = code.len() - code.trim_start().len();
        let code = code.trim();
        if code.starts_with('}') && around.last().is_some_and(|(opened, _)| *opened == indent) {
            around.pop();
        }
        if code.starts_with("#[path") {
            at_path = text.split('"').nth(1).map(ToOwned::to_owned);
        }
        let declared = code.split_once("mod ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        let Some((_, declared)) = declared else { continue };
        if let Some(name) = declared.strip_suffix(" {") {
            around.push((indent, name));
        } else if let Some(name) = declared.strip_suffix(';') {
            let path: String = around.iter().flat_map(|(_, outer)| [*outer, "/"]).chain([name]).collect();
            modules.push((path, at_path.take()));
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], roots: &[&str]) -> Vec<String> {
        let roots = roots.iter().map(|root| (*root).to_owned()).collect();
        check(&Tree::sample(files), &[("a".to_owned(), roots)]).into_iter().map(|finding| finding.path).collect()
    }

    #[test]
    fn files_are_reached_through_modules_of_modules() {
        let files = [
            ("a/tests/runner.rs", "mod lane;\nmod trust {\n    mod chain;\n}\n#[path = \"odd/name.rs\"]\nmod other;\n"),
            ("a/tests/trust/chain.rs", ""),
            ("a/tests/lane.rs", "mod order;\n"),
            ("a/tests/lane/order.rs", ""),
            ("a/tests/odd/name.rs", ""),
        ];
        assert_eq!(found(&files, &["a/tests/runner.rs"]), Vec::<String>::new());
    }

    #[test]
    fn orphans_and_second_binaries_are_found() {
        let files = [
            ("a/tests/runner.rs", "// mod lane;\n"),
            ("a/tests/lane.rs", ""),
            ("a/tests/second.rs", ""),
            ("b/tests/other.rs", ""),
        ];
        assert_eq!(
            found(&files, &["a/tests/runner.rs", "a/tests/second.rs"]),
            ["a/tests/second.rs", "a/tests/lane.rs"]
        );
    }
}
