//! The tree as tidy sees it: text files by path, and Rust files with their code apart from comments and literals.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Folders that hold nothing written by hand.
const FOLDERS_SKIPPED: [&str; 4] = [".git", "target", "node_modules", "__fuzz__"];

/// Rust that a tool writes: it is held to its own rules.
const GENERATED: &str = "proto/src/gen/";

/// The files of a tree.
pub(crate) struct Tree {
    /// Rust files, without generated ones.
    pub(crate) rust: Vec<RustFile>,
    /// Every other file that is text.
    pub(crate) texts: Vec<TextFile>,
    /// The path of every file and folder, relative to the root.
    pub(crate) paths: BTreeSet<String>,
}

/// A file that is no hand-written Rust.
pub(crate) struct TextFile {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) text: String,
}

/// A Rust file in three views of the same lines.
pub(crate) struct RustFile {
    /// Relative to the root, with forward slashes.
    pub(crate) path: String,
    /// What it holds.
    pub(crate) text: String,
    /// The text with comments and the insides of literals turned into spaces.
    pub(crate) code: String,
    /// The text with everything but comments turned into spaces.
    pub(crate) comments: String,
}

impl RustFile {
    /// Takes a file apart.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut lexer = Lexer { rest: text, code: String::new(), comments: String::new() };
        lexer.run();
        Self { path: path.to_owned(), text: text.to_owned(), code: lexer.code, comments: lexer.comments }
    }
}

impl Tree {
    /// Reads every file below `root`.
    ///
    /// # Errors
    /// When a folder or file cannot be read.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut tree = Self { rust: Vec::new(), texts: Vec::new(), paths: BTreeSet::new() };
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    /// Makes a tree of samples, for the tests of the rules.
    #[cfg(test)]
    pub(crate) fn sample(files: &[(&str, &str)]) -> Self {
        let mut tree = Self { rust: Vec::new(), texts: Vec::new(), paths: BTreeSet::new() };
        for (path, text) in files {
            for (at, _) in path.match_indices('/') {
                tree.paths.insert(path.split_at(at).0.to_owned());
            }
            tree.add(path, text);
        }
        tree
    }

    /// Returns the text file at `path`.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    fn read_folder(&mut self, root: &Path, folder: &str) -> anyhow::Result<()> {
        let directory = root.join(folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        for name in names.iter().filter(|name| !FOLDERS_SKIPPED.contains(&name.as_str())) {
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let full: PathBuf = root.join(&path);
            if full.is_dir() {
                self.paths.insert(path.clone());
                self.read_folder(root, &path)?;
                continue;
            }
            // A colleague's editor may take a file away between the listing and this line.
            let Ok(bytes) = fs::read(&full) else { continue };
            match String::from_utf8(bytes) {
                Ok(text) => self.add(&path, &text),
                Err(_) => {
                    self.paths.insert(path);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, text: &str) {
        self.paths.insert(path.to_owned());
        if path.ends_with(".rs") && !path.starts_with(GENERATED) {
            self.rust.push(RustFile::new(path, text));
        } else {
            self.texts.push(TextFile { path: path.to_owned(), text: text.to_owned() });
        }
    }
}

/// Returns the line numbers, counted from 1, on which `word` stands in `text` as a whole word.
pub(crate) fn lines_with_word(text: &str, word: &str) -> Vec<usize> {
    let mut lines: Vec<usize> = text
        .match_indices(word)
        .filter(|(at, _)| is_whole_word(text, *at, word))
        .map(|(at, _)| line_of(text, at))
        .collect();
    lines.dedup();
    lines
}

/// Returns the number, counted from 1, of the line that byte `at` is on.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn is_whole_word(text: &str, at: usize, word: &str) -> bool {
    let inside = |character: char| character.is_alphanumeric() || character == '_';
    let (before, from) = text.split_at(at);
    let after = from.strip_prefix(word).unwrap_or(from);
    let opens = word.starts_with(inside) && before.ends_with(inside);
    let goes_on = word.ends_with(inside) && after.starts_with(inside);
    !opens && !goes_on
}

/// Which view a piece of a Rust file belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Code,
    Comment,
    Literal,
}

/// Splits Rust text into code, comments and literals; it knows no more of the language than that.
struct Lexer<'text> {
    rest: &'text str,
    code: String,
    comments: String,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(first) = self.rest.chars().next() {
            if self.rest.starts_with("//") {
                self.put(self.rest.find('\n').unwrap_or(self.rest.len()), View::Comment);
            } else if self.rest.starts_with("/*") {
                self.put(block_comment_bytes(self.rest), View::Comment);
            } else if let Some(bytes) = literal_bytes(self.rest) {
                self.put(bytes, View::Literal);
            } else if first.is_alphanumeric() || first == '_' {
                let ends = |character: char| !(character.is_alphanumeric() || character == '_');
                self.put(self.rest.find(ends).unwrap_or(self.rest.len()), View::Code);
            } else {
                self.put(first.len_utf8(), View::Code);
            }
        }
    }

    fn put(&mut self, bytes: usize, view: View) {
        let (head, tail) = self.rest.split_at(bytes);
        for (at, character) in head.char_indices() {
            let edge = at == 0 || at + character.len_utf8() == head.len();
            let (code, comment) = match view {
                _ if character == '\n' => ('\n', '\n'),
                View::Code => (character, ' '),
                View::Comment => (' ', character),
                // The quotes stay, so that `#[ignore = "…"]` still shows that it has a reason.
                View::Literal if edge => ('"', ' '),
                View::Literal => (' ', ' '),
            };
            self.code.push(code);
            self.comments.push(comment);
        }
        self.rest = tail;
    }
}

fn block_comment_bytes(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Returns how long the literal is that `text` starts with, if it starts with one.
fn literal_bytes(text: &str) -> Option<usize> {
    let unprefixed = text.strip_prefix(['b', 'c']).unwrap_or(text);
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let quoted = raw.trim_start_matches('#');
        let hashes = raw.len() - quoted.len();
        let inside = quoted.strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(hashes));
        let length = inside.find(&close).map_or(inside.len(), |at| at + close.len());
        return Some(text.len() - inside.len() + length);
    }
    let start = text.len() - unprefixed.len() + 1;
    if let Some(inside) = unprefixed.strip_prefix('"') {
        return Some(start + escaped_bytes(inside, '"'));
    }
    let inside = unprefixed.strip_prefix('\'')?;
    let mut characters = inside.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => Some(start + escaped_bytes(inside, '\'')),
        (Some(only), Some('\'')) => Some(start + only.len_utf8() + 1),
        _ => None,
    }
}

fn escaped_bytes(inside: &str, close: char) -> usize {
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == close {
            return at + character.len_utf8();
        }
    }
    inside.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        RustFile::new("sample.rs", text).code
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        assert_eq!(code("a // b\nc"), "a     \nc");
        assert_eq!(code("a /* b /* c */ d */ e"), format!("a{}e", " ".repeat(19)));
        assert_eq!(code(r#"f("x\"{", y)"#), r#"f("    ", y)"#);
        assert_eq!(code("f(r#\"x\"{\"#, y)"), "f(\"      \", y)");
        assert_eq!(code("b\"{\" b'{' '{'"), "\"  \" \"  \" \" \"");
        assert_eq!(code("'\\'' '{'"), "\"  \" \" \"");
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        assert_eq!(code("&'a str, r#type, x<'_>"), "&'a str, r#type, x<'_>");
    }

    #[test]
    fn comments_keep_their_lines() {
        let file = RustFile::new("sample.rs", "a\n// b \"c\nd \"// e\"");
        assert_eq!(file.comments, " \n// b \"c\n        ");
        assert_eq!(file.code, "a\n       \nd \"    \"");
    }

    #[test]
    fn words_are_found_whole_and_once_a_line() {
        assert_eq!(lines_with_word("ractor::x ractor\nractor_cluster\nuse ractor;", "ractor"), [1, 3]);
        assert_eq!(lines_with_word("a.await\nawaits", ".await"), [1]);
    }
}
