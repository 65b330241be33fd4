//! The table of bad input: each test that it names exists, in the file that it names.

use super::Finding;
use crate::source::{RustFile, Tree};

/// The table. Its last column holds paths and, behind each, the tests in that file.
const TABLE: &str = "docs/bad-input.md";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(TABLE) else {
        return vec![Finding::new(TABLE, 1, "the table is missing", "say there which test holds which refusal")];
    };
    let mut findings = Vec::new();
    let rows = text.lines().enumerate().filter(|(_, line)| line.starts_with("| ") && !line.starts_with("| input "));
    for (at, row) in rows {
        findings.extend(check_row(tree, at + 1, row));
    }
    findings
}

fn check_row(tree: &Tree, line: usize, row: &str) -> Vec<Finding> {
    let column = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
    let (mut findings, mut file, mut count): (_, Option<&RustFile>, _) = (Vec::new(), None, 0);
    for word in column.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            file = tree.rust.iter().find(|file| file.path == word);
            if file.is_none() {
                let what = format!("`{word}` is no file of tests");
                findings.push(Finding::new(TABLE, line, what, "name the file in which the test is now"));
            }
            continue;
        }
        count += 1;
        if file.is_some_and(|file| !has_test(file, word)) {
            let what = format!("there is no test `{word}` in the file before it");
            findings.push(Finding::new(TABLE, line, what, "name the test that holds this now, or write it"));
        }
    }
    if count == 0 {
        findings.push(Finding::new(TABLE, line, "the row names no test", "write one that shows the refusal"));
    }
    findings
}

/// Says whether a function stands right below a test attribute.
fn has_test(file: &RustFile, name: &str) -> bool {
    let mut is_test = false;
    file.code.lines().map(str::trim).any(|line| {
        let starts = ["fn ", "async fn "].iter().any(|word| {
            line.strip_prefix(word).and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
        });
        if line.starts_with("#[") {
            is_test |= matches!(line, "#[test]" | "#[tokio::test]") || line.starts_with("#[tokio::test(");
            return false;
        }
        let found = starts && is_test;
        is_test = is_test && line.is_empty();
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(row: &str) -> Vec<String> {
        let table = format!("| input | what happens | tests |\n|---|---|---|\n| {row} |\n");
        let tests = "#[test]\nfn a_wrong_token_is_refused() {}\nfn helps_it() {}\n\
            #[tokio::test]\nasync fn a_stale_plan_is_refused() {}\n// #[test]\nfn says_nothing() {}\n";
        let tree = Tree::sample(&[(TABLE, &table), ("a/tests/a.rs", tests)]);
        check(&tree).into_iter().map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn a_test_that_is_gone_is_found() {
        let good = "token | refused | `a/tests/a.rs` `a_wrong_token_is_refused` `a_stale_plan_is_refused`";
        assert_eq!(found(good), Vec::<String>::new());
        for name in ["helps_it", "says_nothing", "a_wrong_token", "gone"] {
            let expected = format!("3: there is no test `{name}` in the file before it");
            assert_eq!(found(&format!("`token` | refused | `a/tests/a.rs` `{name}`")), [expected]);
        }
        assert_eq!(found("token | refused | `a/tests/b.rs` `gone`"), ["3: `a/tests/b.rs` is no file of tests"]);
        assert_eq!(found("token `x` | refused | nothing"), ["3: the row names no test"]);
        assert_eq!(check(&Tree::sample(&[])).len(), 1);
    }
}
