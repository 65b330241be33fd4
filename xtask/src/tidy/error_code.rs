//! Error codes and their pages: each code has a page, each page a code.
//!
//! A code is a `&'static str` wherever an error is made, so that it stands as a literal somewhere in these sources. Every
//! literal that looks like one is taken for one, unless the table below says what it is: what is new is not missed.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use crate::source::{RustFile, Tree, line_of};

/// Where errors are made that somebody outside reads. Names of fields in records are not for outside.
const WITHIN: [&str; 4] = ["actors/src/", "agent/src/", "cli/src/", "server/src/"];
const EXCEPT: [&str; 2] = ["agent/src/record/", "server/src/record/"];

/// Where the pages lie.
const PAGES: &str = "docs/errors/";

/// Codes of one word.
const WORDS: [&str; 2] = ["interrupted", "usage"];

/// What looks like a code and is none: names of files by their ends, and fields of requests by their beginnings.
const FILE_ENDS: [&str; 15] = [
    ".crt", ".groups", ".json", ".key", ".log", ".new", ".out", ".part", ".pub", ".root", ".sh", ".so", ".sock",
    ".toml", ".trust",
];
const FIELDS: [&str; 3] = ["facts.", "signed_manifest.", "targets."];
/// Codes that end as files do.
const CODES: [&str; 2] = ["agent.key", "sim.out"];
/// Texts with something to fill in that make no code.
const TEMPLATES: [&str; 3] = ["spool.{workload}", "workload.{workload}.environment.{name}", "{table}.{name}"];

/// What a page says, besides its title.
const SECTIONS: [&str; 4] = ["\n## Why\n", "\n## What to do\n", "\nExit code: ", "\nChanged: "];
/// Lines of a page: who reads it has something else to do.
const PAGE_LINES_MAX: usize = 24;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut codes: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    for file in tree.rust.iter().filter(|file| is_within(&file.path)) {
        for (line, literal) in literals(file) {
            if TEMPLATES.contains(&literal) || is_named_otherwise(literal) {
                continue;
            }
            if literal.contains('{') && is_code(&literal.replace(['{', '}'], "")) {
                let what = format!("the code {literal:?} is put together");
                findings.push(Finding::new(&file.path, line, what, "write each code out, so that it can be found"));
            } else if WORDS.contains(&literal) || is_code(literal) {
                codes.entry(literal).or_insert((&file.path, line));
            }
        }
    }
    let page_of = |path: &str| path.strip_prefix(PAGES)?.strip_suffix(".md").map(str::to_owned);
    let pages: BTreeSet<String> = tree.texts.iter().filter_map(|file| page_of(&file.path)).collect();
    for (code, (path, line)) in &codes {
        if !pages.contains(*code) {
            let what = format!("the code {code:?} has no page");
            findings.push(Finding::new(path, *line, what, format!("write {PAGES}{code}.md")));
        }
    }
    for file in &tree.texts {
        let Some(code) = page_of(&file.path) else { continue };
        if !codes.contains_key(code.as_str()) {
            findings.push(Finding::new(&file.path, 1, "no error has this code", "remove the page, or rename it"));
        }
        findings.extend(check_page(&file.path, &code, &file.text));
    }
    findings
}

fn is_within(path: &str) -> bool {
    let starts = |beginnings: &[&str]| beginnings.iter().any(|beginning| path.starts_with(beginning));
    let is_of_tests = ["tests", "fuzz"]
        .iter()
        .any(|module| path.ends_with(&format!("/{module}.rs")) || path.contains(&format!("/{module}/")));
    starts(&WITHIN) && !starts(&EXCEPT) && !is_of_tests
}

/// Small words with points between them.
fn is_code(text: &str) -> bool {
    let is_word = |word: &str| {
        let rest = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit() || character == '_';
        word.starts_with(|first: char| first.is_ascii_lowercase()) && word.chars().all(rest)
    };
    text.contains('.') && text.split('.').all(is_word)
}

fn is_named_otherwise(text: &str) -> bool {
    !CODES.contains(&text)
        && (FILE_ENDS.iter().any(|end| text.ends_with(end)) || FIELDS.iter().any(|field| text.starts_with(field)))
}

/// The literals of a file up to its tests, each with its line.
fn literals(file: &RustFile) -> Vec<(usize, &str)> {
    let product = file.text.find("#[cfg(test)]\nmod tests {").unwrap_or(file.text.len());
    let mut literals = Vec::new();
    let mut opened = None;
    // Both views have the same characters in the same places, though not the same bytes.
    for ((at, _), _) in file.text.char_indices().zip(file.code.chars()).filter(|(_, seen)| *seen == '"') {
        match opened.take() {
            None if at >= product => break,
            None => opened = Some(at),
            Some(from) => {
                let literal = file.text.get(from..at).and_then(|literal| literal.split_once('"'));
                literals.extend(literal.map(|(_, inside)| (line_of(&file.text, from), inside.trim_end_matches('"'))));
            }
        }
    }
    literals
}

fn check_page(path: &str, code: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with(&format!("# {code}\n\n")) {
        findings.push(Finding::new(path, 1, "the title is not the code", format!("begin with `# {code}`")));
    }
    for section in SECTIONS.iter().filter(|section| !text.contains(**section)) {
        let what = format!("{:?} is missing", section.trim());
        findings.push(Finding::new(path, 1, what, "say what a reader wants to know"));
    }
    let lines = text.lines().count();
    if lines > PAGE_LINES_MAX {
        let what = format!("the page has {lines} lines");
        findings.push(Finding::new(path, 1, what, format!("say it in {PAGE_LINES_MAX}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# a.b\n\nIt is.\n\n## Why\n\nSo.\n\n## What to do\n\nThat.\n\nExit code: 1.\nChanged: nothing.\n";

    fn found(rust: &str, page: (&str, &str)) -> Vec<String> {
        let tree = Tree::sample(&[("cli/src/a.rs", rust), page]);
        check(&tree).into_iter().map(|finding| format!("{}:{} {}", finding.path, finding.line, finding.what)).collect()
    }

    #[test]
    fn a_code_without_a_page_and_a_page_without_a_code_are_found() {
        let page = ("docs/errors/a.b.md", PAGE);
        let error = "// é \"x.y\"\nfn f() { new(\"a.b\", \"Not. this\", \"a.toml\", \"facts.os\", '\"'); }\n";
        assert_eq!(found(error, page), Vec::<String>::new());
        let tests = format!("{error}#[cfg(test)]\nmod tests {{\n    const A: &str = \"c.d\";\n}}\n");
        assert_eq!(found(&tests, page), Vec::<String>::new());
        let two = found("fn f() {\n    new(\"c.d\");\n    new(\"usage\")\n}", page);
        let expected = [
            "cli/src/a.rs:2 the code \"c.d\" has no page",
            "cli/src/a.rs:3 the code \"usage\" has no page",
            "docs/errors/a.b.md:1 no error has this code",
        ];
        assert_eq!(two, expected);
    }

    #[test]
    fn a_code_that_is_put_together_is_found() {
        let page = ("docs/errors/a.b.md", PAGE);
        let made = found("fn f() { new(\"a.b\"); format!(\"rpc.{words}\") }", page);
        assert_eq!(made, ["cli/src/a.rs:1 the code \"rpc.{words}\" is put together"]);
    }

    #[test]
    fn a_page_that_says_too_little_or_too_much_is_found() {
        let page = |text: &str| found("const A: &str = \"a.b\";", ("docs/errors/a.b.md", text));
        assert_eq!(page("# a.c\n").len(), 5);
        assert_eq!(page(&format!("{PAGE}{}", "more\n".repeat(20))), ["docs/errors/a.b.md:1 the page has 34 lines"]);
    }
}
