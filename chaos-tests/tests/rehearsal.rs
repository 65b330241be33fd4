//! A rehearsal of a plan for a real fleet: it names its devices, changes nothing, and notices what has changed.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, runs, with_cluster};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::material::brewing;

const SEEDS: [&str; 6] = ["--seed", "1", "--seeds", "3", "--for", "10m"];

#[test]
fn a_plan_is_rehearsed_on_a_copy_of_its_fleet_and_replayed_from_a_file() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s"])?;
        cluster.push("2.0.0", &brewing("2.0.0"), &["--grace", "1s"])?;
        let numbers = [cluster.add_agent()?, cluster.add_agent()?];
        cluster.roll_out("1.0.0")?;
        for number in numbers {
            cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        }
        // One that runs nothing yet, and one that may not be touched.
        cluster.add_agent()?;
        let held = name_of(&cluster.device(numbers[1])?)?;
        cluster.json(&["device", "hold", &held, "--reason", "the shop is open"])?;

        let path = cluster.path("p.json").display().to_string();
        let plan = cluster.json(&["rollout", "plan", "coffee@2.0.0", "--all", "--out", &path])?;
        let before = cluster.devices()?;
        let (saved, page) = (cluster.path("fleet.toml"), cluster.path("rehearsal.html"));
        let files = ["--save-fleet", &saved.display().to_string(), "--report", &page.display().to_string()];
        let report = cluster.json(&[&["rollout", "rehearse", &path], &SEEDS[..], &files[..]].concat())?;

        ensure!(report["planId"] == plan["plan"]["id"] && report["seeds"] == 3, "{report:#}");
        let counts = &report["counts"];
        ensure!(counts["update"] == 1 && counts["install"] == 1 && counts["blocked"] == 1, "{report:#}");
        ensure!(report["ends"][0]["phase"] == "succeeded" && report["ends"][0]["seeds"] == 3, "{report:#}");
        ensure!(report["update"]["healthy"]["low"] == 2, "{report:#}");
        ensure!(report["blocked"][0]["name"] == held.as_str(), "{report:#}");
        ensure!(report["blocked"][0]["reason"] == "held: the shop is open", "{report:#}");
        let late = report["late"].as_array().context("nobody is named")?;
        let named: Vec<&str> = late.iter().filter_map(|device| device["name"].as_str()).collect();
        for device in before.iter().filter(|device| device["name"] != held.as_str()) {
            ensure!(named.contains(&name_of(device)?.as_str()), "{named:?}");
        }
        let page = fs::read_to_string(page)?;
        ensure!(page.contains(&held) && page.contains("Rehearsal of coffee 2.0.0"), "the page names nobody");
        ensure!(revisions(&cluster.devices()?) == revisions(&before), "the rehearsal changed a device");

        let seed = format!("2@{}", report["build"]["commit"].as_str().context("no commit")?);
        let replay = ["sim", "replay", &seed, "--scenario", &saved.display().to_string()];
        let replayed = cluster.json(&replay)?;
        ensure!(replayed["trace"] == report["runs"][1]["trace"], "{replayed:#}");
        check_interrupted(cluster, &path)?;
        check_stale(cluster, &path, &held)
    });
}

/// Ctrl-C ends the seeds that run, and tells what there was.
fn check_interrupted(cluster: &Cluster, path: &str) -> anyhow::Result<()> {
    let mut child = cluster.spawn(&["rollout", "rehearse", path, "--seed", "1", "--seeds", "100000", "--jobs", "1"])?;
    let mut notes = BufReader::new(child.stderr.take().context("it has no standard error")?);
    let mut line = String::new();
    while !line.starts_with("seed 1: succeeded") {
        line.clear();
        ensure!(notes.read_line(&mut line)? > 0, "it ended before a seed was over");
    }
    let pid = i32::try_from(child.id())?;
    kill(Pid::from_raw(pid), Signal::SIGINT)?;
    let mut rest = String::new();
    notes.read_to_string(&mut rest)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.code() == Some(130) && rest.contains("error[interrupted]"), "{output:?} {rest}");
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains("of 100000 seeds") && text.contains("it was stopped before its end"), "{text}");
    ensure!(text.contains("2 of 2 devices get it"), "{text}");
    Ok(())
}

/// What has changed since makes the plan stale, as for a start of it; and nobody rehearses what somebody edited.
fn check_stale(cluster: &Cluster, path: &str, held: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(path)?;
    fs::write(path, text.replace("attempt 1", "attempt 7"))?;
    let error = refused(cluster, path, 1)?;
    ensure!(error["code"] == "rollout.plan_unreadable", "{error:#}");
    fs::write(path, text)?;

    let device = cluster.json(&["device", "show", held])?;
    let hold = device["holds"][0]["id"].as_str().context("it has no hold")?;
    cluster.json(&["device", "lift", held, hold])?;
    let error = refused(cluster, path, 6)?;
    ensure!(error["code"] == "rollout.plan_stale", "{error:#}");
    let cause = error["cause"].as_str().unwrap_or_default();
    ensure!(
        cause.contains(&format!("{held}: planned was blocked: held: the shop is open, now it is update")),
        "{cause}"
    );
    let start = cluster.run(&["rollout", "start", path])?;
    ensure!(start.status.code() == Some(6), "a start of it is refused too");
    let start: Value = serde_json::from_slice(&start.stderr)?;
    ensure!(start["error"]["cause"] == error["cause"], "{start:#} {error:#}");
    Ok(())
}

fn refused(cluster: &Cluster, path: &str, exit: i32) -> anyhow::Result<Value> {
    let output = cluster.run(&["rollout", "rehearse", path])?;
    ensure!(output.status.code() == Some(exit), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stderr)?;
    Ok(error["error"].clone())
}

fn name_of(device: &Value) -> anyhow::Result<String> {
    Ok(device["name"].as_str().context("a device without a name")?.to_owned())
}

fn revisions(devices: &[Value]) -> Vec<(Value, Value)> {
    devices.iter().map(|device| (device["name"].clone(), device["revision"].clone())).collect()
}
