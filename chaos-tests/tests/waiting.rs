//! Commands that wait for a rollout: when they stop waiting, they say so by their exit code, and it goes on.

use std::fs;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, with_cluster};
use fleetd_chaos_tests::process::{Process, within};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::material::brewing;

#[test]
fn a_rollout_outlives_every_command_that_waited_for_it() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        // The rollout goes on for as long as the test wants.
        let ready = cluster.path("ready");
        let probe = format!("exec:test -e {}", ready.display());
        cluster.push("1.0.0", &brewing("1.0.0"), &["--probe", &probe, "--grace", "1h"])?;
        cluster.add_agent()?;
        let plan = cluster.json(&["rollout", "plan", "coffee@1.0.0", "--all"])?;
        let plan = plan["plan"]["id"].as_str().context("a plan without an id")?.to_owned();

        let output = cluster.run(&["rollout", "start", &plan, "--wait=1s"])?;
        ensure!(output.status.code() == Some(7), "it ended with {}", output.status);
        let error = last_error(&output.stderr)?;
        ensure!(error["code"] == "rollout.wait_expired" && error["exitCode"] == 7, "{error:#}");
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        let first: Value = serde_json::from_str(seen.lines().next().context("nothing was seen of it")?)?;
        let rollout = first["rollout"]["id"].as_str().with_context(|| format!("no rollout in {first:#}"))?.to_owned();
        let again = format!("fleetd rollout watch {rollout}");
        ensure!(error["nextCommand"] == again.as_str(), "{error:#}");

        let (status, error) = interrupted(cluster, &["rollout", "watch", &rollout])?;
        ensure!(status.code() == Some(130), "it ended with {status}");
        ensure!(error["code"] == "interrupted" && error["nextCommand"] == again.as_str(), "{error:#}");
        let show = cluster.json(&["rollout", "show", &rollout])?;
        ensure!(show["rollout"]["state"] == "ROLLOUT_STATE_RUNNING", "it does not go on: {show:#}");

        fs::write(&ready, "")?;
        let watched = cluster.run(&["rollout", "watch", &rollout])?;
        ensure!(watched.status.code() == Some(0), "{}", String::from_utf8_lossy(&watched.stderr));
        let show = cluster.json(&["rollout", "show", &rollout])?;
        ensure!(show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED", "it did not end well: {show:#}");

        fs::remove_file(&ready)?;
        cluster.push("1.1.0", &brewing("1.1.0"), &["--probe", &probe, "--grace", "1h"])?;
        let plan = cluster.json(&["rollout", "plan", "coffee@1.1.0", "--all"])?;
        let plan = plan["plan"]["id"].as_str().context("a plan without an id")?.to_owned();
        let (status, error) = interrupted(cluster, &["rollout", "start", &plan, "--wait"])?;
        ensure!(status.code() == Some(130), "it ended with {status}");
        let again = error["nextCommand"].as_str().and_then(|next| next.strip_prefix("fleetd rollout watch "));
        let second = again.with_context(|| format!("it does not say how to go on: {error:#}"))?;
        let show = cluster.json(&["rollout", "show", second])?;
        ensure!(show["rollout"]["state"] == "ROLLOUT_STATE_RUNNING", "it does not go on: {show:#}");
        Ok(())
    });
}

/// Presses Ctrl-C as soon as a command has told what it waits for; gives its end and its error.
fn interrupted(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<(ExitStatus, Value)> {
    let (told, errors) = (cluster.path("told"), cluster.path("errors"));
    let mut command = cluster.command();
    command.arg("--json").args(arguments).stdin(Stdio::null());
    command.stdout(fs::File::create(&told)?).stderr(fs::File::create(&errors)?);
    let mut process = Process::start("a command that waits", &mut command)?;
    within(PATIENCE, "it to tell how the rollout stands", || Ok(has_snapshot(&told)?.then_some(())))?;
    process.signal(Signal::SIGINT)?;
    let status = process.ended(PATIENCE)?;
    Ok((status, last_error(&fs::read(&errors)?)?))
}

fn has_snapshot(told: &Path) -> anyhow::Result<bool> {
    Ok(fs::read_to_string(told)?.contains("snapshotComplete"))
}

fn last_error(said: &[u8]) -> anyhow::Result<Value> {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().rev().find(|line| line.starts_with('{')).with_context(|| format!("no error: {said}"))?;
    Ok(serde_json::from_str::<Value>(line)?["error"].take())
}
