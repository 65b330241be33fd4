//! The root leaves the server: its keys lie on machines of their own, and records travel as files.

use std::fs;
use std::process::Output;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, is_online, runs, with_cluster};
use serde_json::Value;

use crate::material::brewing;

/// Whom a root of three has.
const PEOPLE: [&str; 3] = ["anna", "ben", "cleo"];

#[test]
fn a_root_of_two_out_of_three_signs_by_files_and_the_servers_own_key_is_worth_nothing_then() {
    with_cluster(|cluster| {
        let [here, away] = [cluster.add_agent()?, cluster.add_agent()?];
        for number in [here, away] {
            cluster.until_device(number, "it to join", is_online)?;
        }
        cluster.kill_agent(away)?;

        rotate(cluster)?;
        check_old_root(cluster)?;
        delegate(cluster)?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s"])?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(here, "a release of the new root's key to run", |device| runs(device, "1.0.0"))?;
        // It knows the first root only, and follows the chain from there.
        cluster.start_agent(away)?;
        cluster.until_device(away, "it to run there too", |device| runs(device, "1.0.0"))?;

        cluster.kill_server()?;
        cluster.start_server()?;
        let trust = cluster.json(&["trust", "show"])?;
        ensure!(trust["threshold"] == 2 && trust["version"] == "3", "{trust:#}");
        let said = fs::read_to_string(cluster.path("serve.json"))?;
        let announced: Value = serde_json::from_str(said.lines().next().context("nothing was announced")?)?;
        ensure!(announced["rootKey"] == "spent", "{announced:#}");
        Ok(())
    });
}

/// Gives the root three keys, of which two must sign: drafted beside the server, signed where there is none.
fn rotate(cluster: &Cluster) -> anyhow::Result<()> {
    for person in PEOPLE {
        offline(cluster, &["key", "create", &file(cluster, &format!("{person}.key"))])?;
    }
    let public = PEOPLE.map(|person| file(cluster, &format!("{person}.pub")));
    let (draft, copy) = (file(cluster, "rotate.record"), file(cluster, "copy.record"));
    let keys = public.each_ref().map(String::as_str);
    let root = cluster.root_key_path().to_owned();
    let flags = ["--threshold", "2", "--root", &root, "--draft", &draft];
    let drafted = cluster.json(&[&["trust", "rotate"][..], &keys, &flags].concat())?;
    ensure!(drafted["changes"][0].as_str().is_some_and(|change| change.contains("the root is 2 of")), "{drafted:#}");

    // Too few have signed: nothing is sent.
    refused(&cluster.run(&["trust", "submit", &draft])?, "trust.threshold", 2)?;
    fs::copy(&draft, &copy)?;
    let signed = offline(cluster, &["trust", "sign", &draft, "--root", &file(cluster, "anna.key"), "--yes"])?;
    ensure!(signed["missing"].is_string(), "{signed:#}");
    offline(cluster, &["trust", "sign", &copy, "--root", &file(cluster, "cleo.key"), "--yes"])?;
    // Whoever does not say yes has signed nothing.
    let unsure = offline_output(cluster, &["trust", "sign", &copy, "--root", &file(cluster, "ben.key")])?;
    refused(&unsure, "confirm.missing", 2)?;

    let trust = cluster.json(&["trust", "submit", &draft, &copy])?;
    ensure!(trust["threshold"] == 2 && trust["rootKeyIds"].as_array().is_some_and(|keys| keys.len() == 3), "{trust:#}");
    Ok(())
}

/// The key that the server made is no key of the root any more.
fn check_old_root(cluster: &Cluster) -> anyhow::Result<()> {
    let (key, public) = (file(cluster, "release.key"), file(cluster, "release.pub"));
    cluster.json(&["key", "create", &key])?;
    let root = cluster.root_key_path().to_owned();
    let flags = ["--role", "release", "--workload", "coffee", "--root", &root];
    refused(&cluster.run(&[&["trust", "delegate", &public], &flags[..]].concat())?, "trust.not_root", 1)
}

/// Lets the release key sign, by two of the three.
fn delegate(cluster: &Cluster) -> anyhow::Result<()> {
    let [draft, late] = ["delegate.record", "late.record"].map(|name| file(cluster, name));
    let public = file(cluster, "release.pub");
    for (draft, workload) in [(&draft, "coffee"), (&late, "tea")] {
        let flags = ["--role", "release", "--workload", workload, "--draft", draft];
        cluster.json(&[&["trust", "delegate", &public], &flags[..]].concat())?;
        for person in ["ben", "cleo"] {
            let key = file(cluster, &format!("{person}.key"));
            offline(cluster, &["trust", "sign", draft, "--root", &key, "--yes"])?;
        }
    }
    cluster.json(&["trust", "submit", &draft])?;
    let again = cluster.json(&["trust", "submit", &draft])?;
    ensure!(again["version"] == "3", "the same again changes nothing: {again:#}");
    refused(&cluster.run(&["trust", "submit", &late])?, "trust.draft_stale", 1)
}

/// Runs a command that knows no server, as on a machine without a network.
fn offline(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Value> {
    let output = offline_output(cluster, arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn offline_output(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = cluster.command();
    command.env("FLEETD_CONFIG_DIR", cluster.path("elsewhere")).arg("--json").args(arguments);
    Ok(command.output()?)
}

fn refused(output: &Output, code: &str, exit: i32) -> anyhow::Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    let error = said.lines().find_map(|line| serde_json::from_str::<Value>(line).ok()?.get("error").cloned());
    let error = error.with_context(|| format!("no error: {said}"))?;
    ensure!(error["code"] == code && output.status.code() == Some(exit), "{error:#}");
    Ok(())
}

fn file(cluster: &Cluster, name: &str) -> String {
    cluster.path(name).display().to_string()
}
