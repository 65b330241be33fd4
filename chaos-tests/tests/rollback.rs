//! Ways back with a real server and real agents: from the disk alone, while one is away, and under a stop of the fleet.

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

fn program(version: &str) -> Vec<u8> {
    format!("{COUNTING}# {version}\n").into_bytes()
}

fn push(cluster: &Cluster, version: &str) -> anyhow::Result<()> {
    cluster.push(version, &program(version), &["--grace", GRACE, "--stop-grace", "1s"])
}

fn roll_out(cluster: &Cluster, version: &str) -> anyhow::Result<String> {
    let plan = cluster.json(&["rollout", "plan", &format!("coffee@{version}"), "--all"])?;
    let started = cluster.json(&["rollout", "start", plan["plan"]["id"].as_str().context("a plan without an id")?])?;
    let rollout = started["id"].as_str().context("a rollout without an id")?.to_owned();
    cluster.until_rollout(&rollout, "both to have it", |show| healthy(show) == 2)?;
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
