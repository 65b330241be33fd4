//! How long files and functions may get before they must be split by concept.

use super::Finding;
use crate::source::{RustFile, Tree, line_of};

/// A file that is longer holds more than one concept.
const FILE_LINES_MAX: usize = 800;

/// A function that is longer does not fit one screen, and so no reader's eye.
const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().flat_map(|file| long_file(file).into_iter().chain(long_functions(file))).collect()
}

fn long_file(file: &RustFile) -> Option<Finding> {
    let lines = file.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        let what = format!("the file has {lines} lines, at most {FILE_LINES_MAX} are allowed");
        Finding::new(&file.path, 1, what, "split it by concept, into `name.rs` and `name/`")
    })
}

fn long_functions(file: &RustFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, first, last) in functions(&file.code) {
        let lines = last - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let what = format!("function `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX} are allowed");
            findings.push(Finding::new(&file.path, first, what, "give its parts names of their own"));
        }
    }
    findings
}

/// Returns each function that has a body, with its first and last line counted from 1.
fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut functions = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let (before, from) = code.split_at(at);
        if before.ends_with(|character: char| character.is_alphanumeric() || character == '_') {
            continue;
        }
        let name: String = from
            .chars()
            .skip(3)
            .take_while(|character| character.is_alphanumeric() || "_#$".contains(*character))
            .collect();
        if name.is_empty() {
            continue;
        }
        if let Some(bytes) = body_end(from) {
            functions.push((name, line_of(code, at), line_of(code, at + bytes)));
        }
    }
    functions
}

/// Returns where the brace is that closes the body of the function that `text` starts with, if it has a body.
fn body_end(text: &str) -> Option<usize> {
    let (mut brackets, mut braces) = (0_usize, 0_usize);
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            ';' if brackets == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str) -> Vec<(String, usize)> {
        functions(&RustFile::new("sample.rs", text).code)
            .into_iter()
            .map(|(name, first, last)| (name, last - first + 1))
            .collect()
    }

    #[test]
    fn functions_are_counted_from_their_name_to_their_brace() {
        let text = "pub(crate) async fn first(\n    a: [u8; 4],\n) -> u8\nwhere\n    A: B,\n{\n    \"}\"; // }\n    a\n}\n\nfn second() {}\n";
        assert_eq!(lengths(text), [("first".to_owned(), 9), ("second".to_owned(), 1)]);
    }

    #[test]
    fn declarations_and_pointers_are_no_functions() {
        assert_eq!(
            lengths("trait T {\n    fn a(\n        b: u8,\n    );\n}\ntype F = fn (u8);\nfn $name() {}\n"),
            [("$name".to_owned(), 1)]
        );
    }

    #[test]
    fn a_long_file_and_a_long_function_are_found() {
        let body = "    work();\n".repeat(FUNCTION_LINES_MAX - 1);
        let fits = format!("fn fits() {{\n{}}}\n", "    work();\n".repeat(FUNCTION_LINES_MAX - 2));
        let text = format!("{fits}fn long() {{\n{body}}}\n{}", "\n".repeat(FILE_LINES_MAX));
        let findings = check(&Tree::sample(&[("a/src/b.rs", &text), ("a/src/c.rs", &fits)]));
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, FUNCTION_LINES_MAX + 1]);
    }
}
