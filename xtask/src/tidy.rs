//! Holds the tree to its shape: what depends on what, how long things get, which words stand where, what the
//! documents promise.
//!
//! Rules are tables, one module a subject. A rule never fixes anything: it says where, what, and what to do
//! instead. Each is tested on a small sample that breaks it, so that a rule which cannot fail is noticed.

mod bad_input;
mod demo;
mod document;
mod error_code;
mod graph;
mod length;
mod lock;
mod manifest;
mod name;
mod test_root;
mod word;

use std::path::Path;

use anyhow::Context;

use crate::source::Tree;

/// One place where the tree is not as it should be.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The file, relative to the root.
    path: String,
    /// The line, counted from 1.
    line: usize,
    /// What is wrong.
    what: String,
    /// What to do instead.
    instead: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), instead: instead.into() }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}; {}", self.path, self.line, self.what, self.instead)
    }
}

/// Checks the workspace and prints what it found.
///
/// # Errors
/// When something is untidy, or the tree or cargo's metadata cannot be read.
pub(crate) fn run() -> anyhow::Result<()> {
    let findings = check(crate::ci::root())?;
    for finding in &findings {
        println!("{finding}");
    }
    anyhow::ensure!(findings.is_empty(), "{} untidy places", findings.len());
    println!("tidy: nothing to say");
    Ok(())
}

/// Returns everything untidy below `root`, sorted by place.
///
/// # Errors
/// When the tree or cargo's metadata cannot be read.
fn check(root: &Path) -> anyhow::Result<Vec<Finding>> {
    let tree = Tree::read(root)?;
    let metadata =
        cargo_metadata::MetadataCommand::new().current_dir(root).no_deps().exec().context("run `cargo metadata`")?;
    let mut findings = Vec::new();
    findings.extend(bad_input::check(&tree));
    findings.extend(demo::check(&tree));
    findings.extend(document::check(&tree));
    findings.extend(error_code::check(&tree));
    findings.extend(graph::check(&graph::crates_of(root, &metadata)));
    findings.extend(length::check(&tree));
    findings.extend(lock::check(&tree));
    findings.extend(manifest::check(&tree));
    findings.extend(name::check(&tree));
    findings.extend(test_root::check(&tree, &test_root::roots_of(root, &metadata)));
    findings.extend(word::check(&tree));
    findings.sort();
    findings.dedup();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let findings = check(crate::ci::root()).unwrap();
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "untidy:\n{}", lines.join("\n"));
    }
}
