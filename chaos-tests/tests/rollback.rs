//! Ways back with a real server and real agents: from the disk alone, while one is away, and under a stop of the fleet.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, with_cluster};
use serde_json::Value;

use crate::material::COUNTING;

const GRACE: &str = "1s";

#[test]
fn agents_go_back_from_their_disks_and_a_stopped_fleet_changes_nothing() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        (0..2).try_for_each(|_| cluster.add_agent().map(drop))?;
        push(cluster, "1.0.0")?;
        roll_out(cluster, "1.0.0")?;
        push(cluster, "2.0.0")?;
        let second = roll_out(cluster, "2.0.0")?;

        // Nobody can fetch the first release any more: whoever goes back has it on the disk.
        let artifact = find(&cluster.path("server"), &program("1.0.0"))?.context("the server has no artifact")?;
        fs::remove_file(artifact)?;

        // One is away when the way back starts, and the fleet is stopped in between.
        cluster.kill_agent(1)?;
        let stop = cluster.json(&["rollout", "stop", "--all", "--reason", "smoke"])?;
        let hold = stop["holdId"].as_str().context("a stop without a hold")?.to_owned();
        // What is planned meanwhile says so, and is a plan all the same.
        let dry = cluster.json(&["rollout", "rollback", &second, "--dry-run"])?;
        let planned = cluster.json(&["rollout", "plan", "coffee@2.0.0", "--all"])?;
        for told in [&dry, &planned] {
            ensure!(told["fleetStops"][0]["holdId"] == hold.as_str(), "the stop is not told: {told:#}");
        }
        ensure!(planned["canStart"] == false && planned["plan"]["id"].is_string(), "{planned:#}");
        let refused = cluster.run(&["rollout", "rollback", &second, "--yes"])?;
        let told = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
        ensure!(!refused.status.success() && told.contains("rollout.standstill") && told.contains(&hold), "{told}");
        cluster.kill_server()?;
        cluster.start_server()?;
        let list = cluster.json(&["rollout", "list"])?;
        ensure!(list["fleetStops"][0]["holdId"] == hold.as_str(), "a restart forgot the stop: {list:#}");
        cluster.json(&["rollout", "stop", "--lift", &hold])?;

        let dry = cluster.json(&["rollout", "rollback", &second, "--dry-run"])?;
        ensure!(dry["plans"][0]["version"] == "1.0.0", "{dry:#}");
        let back = cluster.json(&["rollout", "rollback", &second, "--yes"])?;
        let back = back["rollouts"][0]["id"].as_str().context("a way back without an id")?.to_owned();
        cluster.until_rollout(&back, "the one that is there to go back", |show| healthy(show) == 1)?;
        cluster.start_agent(1)?;
        cluster.until_rollout(&back, "the one that was away to follow", |show| healthy(show) == 2)?;
        for device in cluster.devices()? {
            ensure!(device["workloads"][0]["actualRelease"] == "1.0.0", "the server's row says otherwise: {device:#}");
        }
        Ok(())
    });
}

#[test]
fn one_wave_goes_back_then_one_device_and_who_was_to_follow_gets_nothing_any_more() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        (0..3).try_for_each(|_| cluster.add_agent().map(drop))?;
        push(cluster, "1.0.0")?;
        roll_out_to(cluster, "1.0.0", &[], 3)?;
        push(cluster, "2.0.0")?;
        let waves = roll_out_to(cluster, "2.0.0", &["--wave", "1", "--wave", "rest"], 3)?;
        let by_wave = |wave: u64| move |device: &&Value| device["wave"] == wave;
        let shown = cluster.json(&["rollout", "show", &waves])?;
        let devices = shown["devices"].as_array().context("a rollout without devices")?;
        let name = |device: &Value| device["name"].as_str().unwrap_or_default().to_owned();
        let canary = devices.iter().find(by_wave(1)).map(name).context("nobody is in the first wave")?;
        let rest: Vec<String> = devices.iter().filter(by_wave(2)).map(name).collect();

        let back = roll_back(cluster, &waves, &["--wave", "1"])?;
        cluster.until_rollout(&back, "the first wave to go back", |show| healthy(show) == 1)?;
        ensure!(
            running(cluster)?
                == [(canary.clone(), "1.0.0"), (rest[0].clone(), "2.0.0"), (rest[1].clone(), "2.0.0")].map(own).into(),
            "{:?}",
            running(cluster)?
        );
        let back = roll_back(cluster, &waves, &["--device", &rest[0]])?;
        cluster.until_rollout(&back, "the one device to go back", |show| healthy(show) == 1)?;
        ensure!(
            running(cluster)?
                == [(canary, "1.0.0"), (rest[0].clone(), "1.0.0"), (rest[1].clone(), "2.0.0")].map(own).into(),
            "{:?}",
            running(cluster)?
        );

        // One is away whose turn comes when it is back, the rollout ends without it, and then all of it is taken back.
        push(cluster, "3.0.0")?;
        cluster.kill_agent(1)?;
        let capped = roll_out_to(cluster, "3.0.0", &["--max-unavailable", "1"], 2)?;
        cluster.until_rollout(&capped, "it to end", |show| show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED")?;
        let back = cluster.json(&["rollout", "rollback", &capped, "--yes"])?;
        ensure!(back["rollouts"].as_array().is_some_and(|rollouts| !rollouts.is_empty()), "{back:#}");
        let shown = cluster.json(&["rollout", "show", &capped])?;
        let counts = &shown["rollout"]["counts"];
        ensure!(counts["skipped"] == 1 && counts["waiting"] == 0, "somebody would still get it: {shown:#}");
        Ok(())
    });
}

fn own((device, version): (String, &str)) -> (String, String) {
    (device, version.to_owned())
}

/// What each device runs, by its own word.
fn running(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let devices = cluster.devices()?;
    Ok(devices.iter().map(|device| (text(&device["name"]), text(&device["workloads"][0]["actualRelease"]))).collect())
}

fn roll_back(cluster: &Cluster, rollout: &str, part: &[&str]) -> anyhow::Result<String> {
    let back = cluster.json(&[&["rollout", "rollback", rollout, "--yes"], part].concat())?;
    Ok(back["rollouts"][0]["id"].as_str().context("a way back without an id")?.to_owned())
}

fn program(version: &str) -> Vec<u8> {
    format!("{COUNTING}# {version}\n").into_bytes()
}

fn push(cluster: &Cluster, version: &str) -> anyhow::Result<()> {
    cluster.push(version, &program(version), &["--grace", GRACE, "--stop-grace", "1s"])
}

fn roll_out(cluster: &Cluster, version: &str) -> anyhow::Result<String> {
    roll_out_to(cluster, version, &[], 2)
}

fn roll_out_to(cluster: &Cluster, version: &str, flags: &[&str], devices: u64) -> anyhow::Result<String> {
    let release = format!("coffee@{version}");
    let plan = cluster.json(&[&["rollout", "plan", &release, "--all"], flags].concat())?;
    let started = cluster.json(&["rollout", "start", plan["plan"]["id"].as_str().context("a plan without an id")?])?;
    let rollout = started["id"].as_str().context("a rollout without an id")?.to_owned();
    cluster.until_rollout(&rollout, "all to have it", |show| healthy(show) == devices)?;
    Ok(rollout)
}

fn healthy(show: &Value) -> u64 {
    show["rollout"]["counts"]["healthy"].as_u64().unwrap_or_default()
}

/// The file below a folder that has this content.
fn find(folder: &Path, content: &[u8]) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, content)? {
                return Ok(Some(found));
            }
        } else if fs::read(&path).is_ok_and(|found| found == content) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
