//! What may stand in `Cargo.lock`: one version of what matters, nothing banned, one place that crates come from.

use std::collections::BTreeMap;

use super::Finding;
use crate::source::Tree;

/// Crates of which two versions would be two protocols, two runtimes or two trust stores in one process.
const ONE_VERSION: [&str; 21] = [
    "automerge",
    "blake3",
    "bytes",
    "ed25519-dalek",
    "fjall",
    "h2",
    "http",
    "hyper",
    "opentelemetry",
    "opentelemetry_sdk",
    "prost",
    "prost-types",
    "quinn",
    "ractor",
    "rcgen",
    "ring",
    "rustls",
    "tokio",
    "tonic",
    "webpki-roots",
    "zstd",
];

/// Crates that must not be in the graph, each with the reason.
const BANNED: [(&str, &str); 8] = [
    ("aws-lc-rs", "ring is the one provider: with two, rustls cannot choose and panics"),
    ("aws-lc-sys", "ring is the one provider, and it needs no cmake"),
    ("native-tls", "TLS is rustls, with the provider ring"),
    ("openssl", "TLS is rustls: a device image need not carry OpenSSL"),
    ("openssl-sys", "TLS is rustls: a device image need not carry OpenSSL"),
    ("ractor_cluster", "nodes speak fleetd's own protocol over QUIC"),
    ("reqwest", "HTTP is hyper, which tonic brings already"),
    ("rusqlite", "the one storage engine is fjall"),
];

/// The only place that crates come from.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

const PATH: &str = "Cargo.lock";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(PATH) else {
        return vec![Finding::new(PATH, 1, "the file is missing", "commit it: every build uses the same versions")];
    };
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for (at, line) in text.lines().enumerate() {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let value = value.trim_matches('"');
        match key {
            "name" => {
                name = value;
                if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| *banned == value) {
                    findings.push(Finding::new(PATH, at + 1, format!("crate `{value}` is banned"), *reason));
                }
            }
            "version" => versions.entry(name).or_default().push(value),
            "source" if value != SOURCE => {
                let what = format!("crate `{name}` comes from {value}");
                findings.push(Finding::new(PATH, at + 1, what, "take crates from crates.io only"));
            }
            _ => {}
        }
    }
    for name in ONE_VERSION {
        if let Some(found) = versions.get(name).filter(|found| found.len() > 1) {
            let what = format!("`{name}` is there in versions {}", found.join(", "));
            findings.push(Finding::new(
                PATH,
                1,
                what,
                "align the pins in the root Cargo.toml; `cargo tree -i` shows who asks",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_banned_here_is_banned_for_cargo_deny_too() {
        let deny = std::fs::read_to_string(crate::ci::root().join("deny.toml")).unwrap();
        let denied: Vec<&str> =
            deny.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next()).collect();
        assert_eq!(denied, BANNED.map(|(name, _)| name));
    }

    fn findings(lock: &str) -> Vec<String> {
        check(&Tree::sample(&[("Cargo.lock", lock)])).iter().map(ToString::to_string).collect()
    }

    fn package(name: &str, version: &str, source: &str) -> String {
        format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{source}\"\n\n")
    }

    #[test]
    fn a_lock_with_one_version_of_each_is_fine() {
        let lock =
            package("tonic", "0.14.9", SOURCE) + &package("syn", "2.0.0", SOURCE) + &package("syn", "3.0.0", SOURCE);
        assert!(findings(&lock).is_empty());
    }

    #[test]
    fn second_versions_banned_crates_and_foreign_sources_are_found() {
        let lock = package("tonic", "0.14.9", SOURCE)
            + &package("tonic", "0.15.0", SOURCE)
            + &package("openssl-sys", "0.9.0", SOURCE)
            + &package("bytes", "1.0.0", "registry+https://mirror.example/index");
        let found = findings(&lock);
        assert_eq!(found.len(), 3);
        assert!(found.iter().any(|line| line.contains("0.14.9, 0.15.0")));
        assert!(found.iter().any(|line| line.contains("`openssl-sys` is banned")));
        assert!(found.iter().any(|line| line.contains("mirror.example")));
    }

    #[test]
    fn a_missing_lock_is_found() {
        assert_eq!(check(&Tree::sample(&[])).len(), 1);
    }
}
