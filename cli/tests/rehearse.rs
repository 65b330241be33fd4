//! `rollout rehearse`, as far as it comes without a server: what is wrong is told before anybody is asked.

use std::path::Path;
use std::process::{Command, Output};

use fleetd::context::{Context, ContextFile};
use fleetd_sync_core::id::ArtifactDigest;

use crate::server::{Fleet, nobody};

/// A plan that means no device.
const PLAN: &str = "fleetd plan 1\nplan pln_9d1f3h5k7n9q1s3v\nworkload coffee\nversion 1.0.0\nmanifest MANIFEST\n\
    attempt 1\nfailures-max 0\ntarget all\n";

fn rehearse(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetd"));
    command.args(["rollout", "rehearse"]).args(arguments).current_dir(folder).env_clear();
    command.env("FLEETD_CONFIG_DIR", folder.join("config")).output().unwrap()
}

/// Checks how it ended, and gives what it said.
fn refused(folder: &Path, arguments: &[&str], exit: i32) -> String {
    let output = rehearse(folder, arguments);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {words}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "nothing was rehearsed");
    words
}

fn plan() -> String {
    let body = PLAN.replace("MANIFEST", &ArtifactDigest::of(b"a manifest").to_string());
    let digest = ArtifactDigest::of(body.as_bytes());
    format!("{body}digest {digest}\n")
}

#[test]
fn a_plan_that_is_none_is_told_from_one_that_was_edited() {
    let folder = tempfile::tempdir().unwrap();
    let words = refused(folder.path(), &["p.json"], 1);
    assert!(words.contains("error[rollout.plan_unreadable]: \"p.json\" is neither a plan's id nor a file"), "{words}");
    for (text, cause) in [
        ("{}".to_owned(), "this is no plan: it does not begin with \"fleetd plan \""),
        (plan().replace("attempt 1", "attempt 2"), "the plan was edited"),
        (plan().replace("fleetd plan 1", "fleetd plan 9"), "the plan has layout \"9\""),
    ] {
        std::fs::write(folder.path().join("p.json"), text).unwrap();
        let words = refused(folder.path(), &["p.json"], 1);
        let flat = words.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            flat.contains("error[rollout.plan_unreadable]: \"p.json\" is no plan that can be rehearsed"),
            "{words}"
        );
        assert!(flat.contains(cause) && words.contains("help:  fleetd rollout plan"), "{words}");
    }
}

#[test]
fn shares_and_rates_that_are_none_are_refused_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, told) in [
        (["--offline", "20"], "`20` is no share: write it in percent, as `20%` or `0.5%`"),
        (["--fail", "120%"], "`120%` is more than all: a share goes from 0% to 100%"),
        (["--bandwidth", "fast"], "`fast` is no bandwidth: write it as `256KB/s`, `2MB/s` or `10Mbit/s`"),
        (["--seeds", "0"], "0 is not in 1.."),
        (["--jobs", "0"], "it is no number from 1"),
    ] {
        let words = refused(folder.path(), &[&["p.json"], &arguments[..]].concat(), 2);
        assert!(words.contains(told), "{words}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let words = refused(folder.path(), &["pln_9d1f3h5k7n9q1s3v"], 4);
    assert!(words.contains("help:  fleetd login"), "{words}");

    let fleet = Fleet::new(1);
    let mut contexts = ContextFile::open_at(&folder.path().join("config/contexts.toml")).unwrap();
    let url = format!("https://{}", nobody());
    let token = Some("secret".to_owned());
    contexts.put("shop", Context { url, fleet: fleet.id.to_string(), token, ca_certificate_pem: fleet.ca.pem.clone() });
    contexts.make_current("shop").unwrap();
    contexts.save().unwrap();
    std::fs::write(folder.path().join("p.json"), plan()).unwrap();
    for asked in ["p.json", "pln_9d1f3h5k7n9q1s3v"] {
        let words = refused(folder.path(), &[asked, "--save-fleet", "f.toml", "--report", "r.html"], 1);
        assert!(words.contains("error[server.unreachable]"), "{words}");
    }
    assert!(!folder.path().join("f.toml").exists() && !folder.path().join("r.html").exists());
}
