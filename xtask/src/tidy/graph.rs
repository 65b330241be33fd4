//! Which crate may depend on which, and what the pure ones may depend on at all.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;

/// Every crate of the workspace with the crates of the workspace that it may depend on.
const EDGES: [(&str, &[&str]); 12] = [
    ("fleetd-proto", &[]),
    ("fleetd-sync-core", &[]),
    ("fleetd-actors", &["fleetd-sync-core"]),
    ("fleetd-sync-transport", &["fleetd-proto", "fleetd-sync-core"]),
    ("fleetd-sync-store", &["fleetd-proto", "fleetd-sync-core"]),
    ("fleetd-agent", BELOW_NODES),
    ("fleetd-server", BELOW_NODES),
    (
        "fleetd-simulator",
        &[
            "fleetd-proto",
            "fleetd-sync-core",
            "fleetd-actors",
            "fleetd-sync-transport",
            "fleetd-sync-store",
            "fleetd-agent",
            "fleetd-server",
        ],
    ),
    // Preloaded into processes, and linked with none.
    ("fleetd-simulator-shim", &[]),
    ("fleetd-chaos-tests", &["fleetd-proto", "fleetd-sync-core", "fleetd-simulator"]),
    // The CLI signs releases and reads keys itself, which is why it sees the core besides its neighbours.
    ("fleetd", &["fleetd-proto", "fleetd-sync-core", "fleetd-server", "fleetd-agent", "fleetd-simulator"]),
    ("fleetd-xtask", &[]),
];

/// What both kinds of node stand on; an agent never sees a server, nor a server an agent.
const BELOW_NODES: &[&str] =
    &["fleetd-proto", "fleetd-sync-core", "fleetd-actors", "fleetd-sync-transport", "fleetd-sync-store"];

/// The pure crates, each with the foreign crates that it may use. Adding one here is a decision, not a formality:
/// it must do no IO, read no clock, draw no randomness and iterate no map in an order of its own.
const PURE: [(&str, &[&str]); 2] = [
    ("fleetd-sync-core", &["automerge", "blake3", "data-encoding", "ed25519-dalek", "thiserror"]),
    ("fleetd-actors", &["blake3", "cel", "croner", "jiff", "thiserror", "winnow"]),
];

/// What a pure crate may use for its tests besides.
const PURE_TESTS: [&str; 3] = ["bolero", "expect-test", "proptest"];

/// What `fleetd-actors` may use behind its feature `shell`, and only there.
const SHELL: [&str; 3] = ["ractor", "tokio", "tracing"];

/// One crate of the workspace, as far as these rules care.
pub(super) struct Crate {
    name: String,
    manifest: String,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    optional: bool,
    for_tests: bool,
}

/// Takes from cargo's metadata what the rules look at.
pub(super) fn crates_of(root: &Path, metadata: &cargo_metadata::Metadata) -> Vec<Crate> {
    let take = |package: &cargo_metadata::Package| Crate {
        name: package.name.to_string(),
        manifest: package.manifest_path.strip_prefix(root).unwrap_or(&package.manifest_path).to_string(),
        dependencies: package
            .dependencies
            .iter()
            .map(|dependency| Dependency {
                name: dependency.name.clone(),
                optional: dependency.optional,
                for_tests: dependency.kind == cargo_metadata::DependencyKind::Development,
            })
            .collect(),
    };
    metadata.packages.iter().map(take).collect()
}

pub(super) fn check(crates: &[Crate]) -> Vec<Finding> {
    let ours: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    let mut findings = Vec::new();
    for package in crates {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
            let what = format!("crate `{}` has no place in the house", package.name);
            findings.push(Finding::new(&package.manifest, 1, what, "say in the table of edges what it may depend on"));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if ours.contains(name) {
                if !allowed.contains(&name) {
                    let what = format!("`{}` depends on `{name}`", package.name);
                    let instead = format!("it may depend on: {}", list(allowed));
                    findings.push(Finding::new(&package.manifest, 1, what, instead));
                }
            } else {
                findings.extend(check_pure(package, dependency));
            }
        }
    }
    findings
}

fn check_pure(package: &Crate, dependency: &Dependency) -> Option<Finding> {
    let (_, allowed) = PURE.iter().find(|(name, _)| *name == package.name)?;
    let name = dependency.name.as_str();
    let in_shell = package.name == "fleetd-actors" && SHELL.contains(&name);
    let fine = allowed.contains(&name)
        || (dependency.for_tests && (PURE_TESTS.contains(&name) || in_shell))
        || (dependency.optional && in_shell);
    (!fine).then(|| {
        let what = format!("the pure crate `{}` depends on `{name}`", package.name);
        Finding::new(&package.manifest, 1, what, "decide here, act in a driver: IO, time and randomness are handed in")
    })
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "no crate of the workspace".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, dependencies: &[(&str, bool, bool)]) -> Crate {
        Crate {
            name: name.to_owned(),
            manifest: format!("{name}/Cargo.toml"),
            dependencies: dependencies
                .iter()
                .map(|(name, optional, for_tests)| Dependency {
                    name: (*name).to_owned(),
                    optional: *optional,
                    for_tests: *for_tests,
                })
                .collect(),
        }
    }

    fn found(package: Crate) -> usize {
        check(&[package]).len()
    }

    #[test]
    fn edges_of_the_house_are_fine_and_others_are_found() {
        assert_eq!(found(sample("fleetd-agent", &[("fleetd-actors", false, false), ("tokio", false, false)])), 0);
        assert_eq!(found(sample("fleetd-agent", &[("fleetd-server", false, false)])), 1);
        assert_eq!(found(sample("fleetd-server", &[("fleetd-agent", false, true)])), 1, "tests are held to it too");
        assert_eq!(found(sample("fleetd-sync-core", &[("fleetd-proto", false, false)])), 1);
        assert_eq!(found(sample("fleetd-attic", &[])), 1, "a crate that nobody placed");
    }

    #[test]
    fn pure_crates_use_only_what_is_listed() {
        assert_eq!(found(sample("fleetd-sync-core", &[("blake3", false, false), ("proptest", false, true)])), 0);
        assert_eq!(found(sample("fleetd-sync-core", &[("tokio", true, false)])), 1);
        assert_eq!(found(sample("fleetd-sync-core", &[("proptest", false, false)])), 1);
        assert_eq!(found(sample("fleetd-actors", &[("ractor", true, false), ("tokio", true, true)])), 0);
        assert_eq!(found(sample("fleetd-actors", &[("ractor", false, false)])), 1, "only behind the feature `shell`");
    }

    #[test]
    fn edges_lead_one_way() {
        for (name, allowed) in EDGES {
            let (_, position) = order(name);
            for dependency in allowed {
                assert!(order(dependency).1 < position, "{name} -> {dependency}");
            }
        }
    }

    #[test]
    fn nothing_of_the_simulator_is_in_an_agent_or_a_server() {
        let mut reached = vec!["fleetd-agent", "fleetd-server"];
        let mut next = 0;
        while let Some(name) = reached.get(next).copied() {
            let allowed = EDGES.iter().filter(|(of, _)| *of == name).flat_map(|(_, allowed)| allowed.iter().copied());
            let new: Vec<&str> = allowed.filter(|name| !reached.contains(name)).collect();
            reached.extend(new);
            next += 1;
        }
        assert!(reached.contains(&"fleetd-sync-core"), "the edges are followed to the bottom");
        assert!(!reached.contains(&"fleetd-simulator"));
    }

    /// Ranks the crates from the bottom of the house to its roof.
    fn order(name: &str) -> (&str, usize) {
        let storeys: [&[&str]; 6] = [
            &["fleetd-proto", "fleetd-sync-core"],
            &["fleetd-actors", "fleetd-sync-transport", "fleetd-sync-store"],
            &["fleetd-agent", "fleetd-server"],
            &["fleetd-simulator", "fleetd-simulator-shim"],
            &["fleetd-chaos-tests", "fleetd"],
            &["fleetd-xtask"],
        ];
        (name, storeys.iter().position(|storey| storey.contains(&name)).unwrap())
    }
}
