//! What the documents promise: paths that exist, links that lead somewhere, and a word list that is whole.

use super::Finding;
use crate::source::{TextFile, Tree};

/// Documents whose every path in backticks must exist.
const MAPS: [&str; 2] = ["ARCHITECTURE.md", "README.md"];

const GLOSSARY: &str = "docs/glossary.md";

/// The words that the code uses, and no synonyms of them. Each has a heading in the glossary.
const WORDS: [&str; 34] = [
    "ack",
    "actual",
    "artifact",
    "authority",
    "bundle",
    "capsule",
    "cell",
    "desired",
    "device",
    "device id",
    "driver",
    "envelope",
    "epoch",
    "fleet",
    "gate",
    "hold",
    "lane",
    "lift",
    "local id",
    "machine",
    "plan",
    "relay",
    "release",
    "rollout",
    "seam",
    "shell",
    "site",
    "spool",
    "stamp",
    "turn",
    "wave",
    "workload",
    "record",
    "effect",
];

/// Endings by which a word in backticks is taken for a file.
const FILE_ENDINGS: [&str; 9] = [".rs", ".md", ".toml", ".proto", ".binpb", ".yaml", ".yml", ".lock", ".json"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.texts.iter().filter(|file| file.path.ends_with(".md")) {
        findings.extend(check_links(tree, file));
    }
    for path in MAPS {
        match tree.texts.iter().find(|file| file.path == path) {
            Some(file) => findings.extend(check_paths(tree, file)),
            None => findings.push(Finding::new(path, 1, "the document is missing", "write it: newcomers start here")),
        }
    }
    findings.extend(check_glossary(tree.text(GLOSSARY).unwrap_or_default()));
    findings
}

fn check_glossary(text: &str) -> Vec<Finding> {
    let headings: Vec<String> = text.lines().filter_map(heading).map(str::to_lowercase).collect();
    let explains =
        |word: &str| headings.iter().any(|heading| heading.split([',', '/']).any(|part| part.trim() == word));
    WORDS
        .iter()
        .filter(|word| !explains(word))
        .map(|word| {
            Finding::new(GLOSSARY, 1, format!("`{word}` is not explained"), format!("add a heading `### {word}`"))
        })
        .collect()
}

fn check_paths(tree: &Tree, file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in prose(&file.text) {
        for word in text.split('`').skip(1).step_by(2).filter(|word| is_path(word)) {
            if !tree.paths.contains(word.trim_end_matches('/')) {
                let instead = "name a path from the root that exists; folders end in `/`";
                findings.push(Finding::new(&file.path, line, format!("`{word}` is not in the tree"), instead));
            }
        }
    }
    findings
}

/// Says whether a word in backticks is meant as a path of this tree.
fn is_path(word: &str) -> bool {
    let plain = word.chars().all(|character| character.is_ascii_alphanumeric() || "/._-".contains(character));
    let starts = word.starts_with(|character: char| character.is_ascii_alphanumeric() || character == '.');
    plain
        && starts
        && !word.starts_with("./")
        && (word.ends_with('/') || FILE_ENDINGS.iter().any(|ending| word.ends_with(ending)))
}

fn check_links(tree: &Tree, file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (line, text) in prose(&file.text) {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let resolved = if path.is_empty() { Some(file.path.clone()) } else { resolve(folder, path) };
            let exists = resolved.as_ref().is_some_and(|path| path.is_empty() || tree.paths.contains(path));
            if !exists {
                let what = format!("the link to `{target}` leads nowhere");
                findings.push(Finding::new(
                    &file.path,
                    line,
                    what,
                    "mend the path, which starts at this file's folder",
                ));
            } else if !anchor.is_empty() && !resolved.is_some_and(|path| has_anchor(tree, &path, anchor)) {
                let what = format!("no heading answers to `{target}`");
                findings.push(Finding::new(
                    &file.path,
                    line,
                    what,
                    "use the heading's words in lower case, joined by hyphens",
                ));
            }
        }
    }
    findings
}

/// Joins a relative link to the folder that it stands in; `None` when it leaves the tree.
fn resolve(folder: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn has_anchor(tree: &Tree, path: &str, anchor: &str) -> bool {
    let slug = |heading: &str| -> String {
        let kept = heading.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    tree.text(path)
        .is_some_and(|text| prose(text).any(|(_, line)| heading(line).is_some_and(|heading| slug(heading) == anchor)))
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (text.len() < line.len()).then_some(text)?.strip_prefix(' ').map(str::trim)
}

/// Returns the lines outside fenced blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((at + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)], about: &str) -> Vec<String> {
        let findings = check(&Tree::sample(files)).into_iter().filter(|finding| finding.path == about);
        findings.map(|finding| format!("{}: {}", finding.line, finding.what)).collect()
    }

    #[test]
    fn a_path_that_rotted_is_found() {
        let map = "`a/src/lane.rs` and `a/src/` and `fleetd/1` and `x.y()`\n`a/src/gone.rs`\n```\n`a/src/gone.rs`\n```\n`attic/`\n";
        let files = [("ARCHITECTURE.md", map), ("a/src/lane.rs", "")];
        assert_eq!(
            found(&files, "ARCHITECTURE.md"),
            ["2: `a/src/gone.rs` is not in the tree", "6: `attic/` is not in the tree"]
        );
        assert_eq!(found(&files, "README.md"), ["1: the document is missing"]);
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "[a](../README.md) [b](design/one.md#the-goal) [c](https://x.example/y) [d](#top-of-it)\n\
            # Top of it\n[e](two.md)\n[f](design/one.md#gone)\n[g](../../x.md)\n";
        let files = [("docs/a.md", text), ("README.md", ""), ("docs/design/one.md", "## The goal\n")];
        assert_eq!(
            found(&files, "docs/a.md"),
            [
                "3: the link to `two.md` leads nowhere",
                "4: no heading answers to `design/one.md#gone`",
                "5: the link to `../../x.md` leads nowhere"
            ]
        );
    }

    #[test]
    fn a_word_without_a_heading_is_found() {
        let glossary = WORDS.map(|word| format!("### {word}\n")).concat();
        assert_eq!(found(&[(GLOSSARY, &glossary)], GLOSSARY), Vec::<String>::new());
        let short = glossary.replace("### lane\n", "lane\n").replace("### hold\n### lane", "### hold / lane");
        assert_eq!(found(&[(GLOSSARY, &short)], GLOSSARY), ["1: `lane` is not explained"]);
        let joined = glossary.replace("### hold\n", "### Hold, lift\n").replace("### lift\n", "");
        assert_eq!(found(&[(GLOSSARY, &joined)], GLOSSARY), Vec::<String>::new());
    }
}
