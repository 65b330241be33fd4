//! Writes into the program which code it was built from, so that a seed of another build is not taken for one of its
//! own: the commit, and a mark of what was changed since.

use std::env;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What a run depends on. A change elsewhere leaves every run as it is.
const SOURCES: [&str; 8] = ["Cargo.lock", "actors", "agent", "cli", "proto", "server", "simulator", "sync"];
/// Letters of a commit that name it.
const COMMIT_CHARS: usize = 12;
/// Letters that tell one change from another.
const CHANGE_CHARS: usize = 6;

fn main() {
    println!("cargo:rerun-if-env-changed=FLEETD_COMMIT");
    // Who builds without a repository says what is built.
    let commit = env::var("FLEETD_COMMIT").ok().or_else(named_by_git).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=FLEETD_COMMIT={commit}");
    println!("cargo:rustc-env=FLEETD_ARCH={}", env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default());
    println!("cargo:rustc-env=FLEETD_PROFILE={}", env::var("PROFILE").unwrap_or_default());
}

fn named_by_git() -> Option<String> {
    let root = git(&["rev-parse", "--show-toplevel"])?;
    // A build for development is named after the sources that it last saw change: a commit alone compiles nothing anew.
    let names = if env::var("PROFILE").is_ok_and(|profile| profile == "release") { 2 } else { 0 };
    for name in ["HEAD", git(&["symbolic-ref", "-q", "HEAD"]).unwrap_or_default().as_str()].into_iter().take(names) {
        if let Some(path) =
            git(&["rev-parse", "--path-format=absolute", "--git-path", name]).filter(|_| !name.is_empty())
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    for source in SOURCES {
        println!("cargo:rerun-if-changed={root}/{source}");
    }
    let commit: String = git(&["rev-parse", "HEAD"])?.chars().take(COMMIT_CHARS).collect();
    let with = |arguments: &[&str]| {
        let mut all = vec!["-C", root.as_str()];
        all.extend(arguments);
        all.push("--");
        all.extend(SOURCES);
        git(&all)
    };
    let changes = with(&["diff", "HEAD"])? + &with(&["ls-files", "--others", "--exclude-standard"])?;
    if changes.is_empty() {
        return Some(commit);
    }
    let hash: String = hash(&changes)?.chars().take(CHANGE_CHARS).collect();
    Some(format!("{commit}+{hash}"))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

/// The hash that git gives a text.
fn hash(text: &str) -> Option<String> {
    let mut child = Command::new("git")
        .args(["hash-object", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(text.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
