//! What each crate's manifest says: lints and versions come from the workspace, and pure crates repeat its bans.

use super::Finding;
use crate::source::Tree;

/// Folders of the pure crates; clippy reads one `clippy.toml` a crate, so theirs must repeat the root's lines.
const PURE_FOLDERS: [&str; 2] = ["sync/core", "actors"];

/// Keys of `[package]` that have one value for the whole workspace.
const PACKAGE_KEYS: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

/// Features that would make a product unsafe, and the only crate that may turn them on.
const SIMULATED_FEATURES: [(&str, &str); 1] = [("counted-crypto", "simulator/Cargo.toml")];

/// The feature that plants bugs, and the only two places that may name it: where the bugs are, and the program that
/// `cargo xtask findability` builds.
const PLANTED: &str = "planted-bugs";
const PLANTED_PLACES: [(&str, &str); 2] = [
    ("sync/core/Cargo.toml", "planted-bugs = []"),
    ("cli/Cargo.toml", "planted-bugs = [\"fleetd-sync-core/planted-bugs\"]"),
];

const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.texts.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        match file.text.parse::<toml::Table>() {
            Ok(table) => findings.extend(check_crate(&file.path, &file.text, &table)),
            Err(error) => findings.push(Finding::new(&file.path, 1, error.message(), "write valid TOML")),
        }
    }
    findings.extend(check_clippy(tree));
    findings.extend(check_planted(tree));
    findings
}

/// Nothing that is shipped has bugs that were planted: no manifest may turn them on.
fn check_planted(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.texts.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        for (index, line) in file.text.lines().enumerate() {
            let is_its_place = PLANTED_PLACES.contains(&(file.path.as_str(), line));
            if line.contains(PLANTED) && !is_its_place {
                let what = format!("`{PLANTED}` may be turned on here");
                findings.push(Finding::new(
                    &file.path,
                    index + 1,
                    what,
                    "only `cargo xtask findability` builds with it",
                ));
            }
        }
    }
    findings
}

fn check_crate(path: &str, text: &str, manifest: &toml::Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !from_workspace(manifest.get("lints")) {
        let what = "the crate does not take the workspace's lints";
        findings.push(Finding::new(path, 1, what, "add `[lints]` with `workspace = true`"));
    }
    let package = manifest.get("package").and_then(toml::Value::as_table);
    for key in PACKAGE_KEYS {
        if !from_workspace(package.and_then(|package| package.get(key))) {
            let what = format!("`package.{key}` is not the workspace's");
            findings.push(Finding::new(path, 1, what, format!("write `{key}.workspace = true`")));
        }
    }
    findings.extend(check_dependencies(path, text, manifest));
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    for target in targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table) {
        findings.extend(check_dependencies(path, text, target));
    }
    findings
}

fn check_dependencies(path: &str, text: &str, manifest: &toml::Table) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, value) in DEPENDENCY_TABLES
        .iter()
        .filter_map(|key| manifest.get(*key).and_then(toml::Value::as_table))
        .flat_map(toml::Table::iter)
    {
        let line = text.lines().position(|line| line.starts_with(name.as_str())).map_or(1, |at| at + 1);
        if !from_workspace(Some(value)) {
            let what = format!("`{name}` names a version or path of its own");
            findings.push(Finding::new(
                path,
                line,
                what,
                "name it in the root's [workspace.dependencies], and here with `workspace = true`",
            ));
        }
        let features = value.get("features").and_then(toml::Value::as_array);
        let is_on = |feature: &str| features.into_iter().flatten().any(|on| on.as_str() == Some(feature));
        for (feature, home) in SIMULATED_FEATURES.iter().filter(|(feature, home)| is_on(feature) && path != *home) {
            let what = format!("`{name}` is asked for its feature `{feature}`");
            findings.push(Finding::new(path, line, what, format!("only {home} may turn it on: it is no product's")));
        }
        if features.is_some() && !name.starts_with("fleetd-") {
            let what = format!("`{name}` asks for features of its own");
            findings.push(Finding::new(path, line, what, "name features in the root's [workspace.dependencies] only"));
        }
    }
    findings
}

fn from_workspace(value: Option<&toml::Value>) -> bool {
    let workspace = value.and_then(|value| value.get("workspace"));
    workspace.and_then(toml::Value::as_bool) == Some(true)
}

fn check_clippy(tree: &Tree) -> Vec<Finding> {
    let root = tree.text("clippy.toml").unwrap_or_default();
    let mut findings = Vec::new();
    for folder in PURE_FOLDERS {
        let path = format!("{folder}/clippy.toml");
        let text = tree.text(&path).unwrap_or_default();
        for line in root.lines().filter(|line| !text.lines().any(|ours| ours == *line)) {
            let what = format!("the root's line `{line}` is missing");
            findings.push(Finding::new(&path, 1, what, "repeat it: clippy reads one file a crate"));
        }
        for ban in ["disallowed-methods", "disallowed-types"].iter().filter(|ban| !text.contains(**ban)) {
            findings.push(Finding::new(
                &path,
                1,
                format!("`{ban}` is missing"),
                "ban clocks, threads and unordered maps",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "[package]\nname = \"a\"\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\
        [lints]\nworkspace = true\n[dependencies]\nbytes.workspace = true\n\
        fleetd-proto = { workspace = true, features = [\"rpc\"] }\ntokio = { workspace = true, optional = true }\n";

    fn found(manifest: &str) -> Vec<String> {
        let clippy = "disallowed-methods = []\ndisallowed-types = []\n";
        let tree = Tree::sample(&[
            ("a/Cargo.toml", manifest),
            ("sync/core/clippy.toml", clippy),
            ("actors/clippy.toml", clippy),
        ]);
        check(&tree).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_manifest_that_takes_all_from_the_workspace_is_fine() {
        assert_eq!(found(FINE), Vec::<String>::new());
    }

    #[test]
    fn own_versions_and_features_are_found() {
        let own = found(&FINE.replace("bytes.workspace = true", "bytes = \"1\""));
        assert_eq!(own.len(), 1);
        assert!(own.iter().all(|line| line.starts_with("a/Cargo.toml:11: `bytes` names a version")));
        assert_eq!(found(&format!("{FINE}prost = {{ workspace = true, features = [\"x\"] }}\n")).len(), 1);
        assert_eq!(found(&format!("{FINE}[target.'cfg(unix)'.dependencies]\nnix = \"1\"\n")).len(), 1);
        assert_eq!(found(&FINE.replace("edition.workspace = true", "edition = \"2024\"")).len(), 1);
        assert_eq!(found(&FINE.replace("[lints]\nworkspace = true\n", "")).len(), 1);
        assert_eq!(found("[package").len(), 1);
    }

    #[test]
    fn only_the_simulator_may_count_signatures() {
        let counting = FINE.replace("\"rpc\"", "\"counted-crypto\"");
        assert_eq!(found(&counting).len(), 1);
        let tree = Tree::sample(&[("simulator/Cargo.toml", counting.as_str())]);
        let own = check(&tree).into_iter().filter(|finding| finding.path == "simulator/Cargo.toml");
        assert_eq!(own.count(), 0);
    }

    #[test]
    fn a_manifest_that_turns_planted_bugs_on_is_found() {
        let planted = |text: &str| check_planted(&Tree::sample(&[("cli/Cargo.toml", text)])).len();
        assert_eq!(planted("[features]\nplanted-bugs = [\"fleetd-sync-core/planted-bugs\"]\n"), 0);
        assert_eq!(planted("[features]\ndefault = [\"planted-bugs\"]\n"), 1);
        let dependency = "fleetd-sync-core = { workspace = true, features = [\"planted-bugs\"] }\n";
        assert_eq!(planted(dependency), 1);
    }

    #[test]
    fn a_pure_crate_that_forgets_a_line_of_the_root_is_found() {
        let tree = Tree::sample(&[
            ("clippy.toml", "allow-unwrap-in-tests = true\n"),
            ("sync/core/clippy.toml", "allow-unwrap-in-tests = true\ndisallowed-methods = []\n"),
        ]);
        let found = check(&tree);
        assert_eq!(found.iter().filter(|finding| finding.path == "sync/core/clippy.toml").count(), 1);
        assert_eq!(found.iter().filter(|finding| finding.path == "actors/clippy.toml").count(), 3);
    }
}
