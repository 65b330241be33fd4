//! Sites whose devices switch together, with a real server and real agents, and a device that says "not now".

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, is_online, runs, with_cluster, workload};
use serde_json::Value;

use crate::material::COUNTING;

const SITE: &str = "line-1";

#[test]
fn a_site_waits_for_the_one_that_says_not_now_and_switches_together_or_not_at_all() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        for number in 0..2 {
            let token = cluster.token(&["--site", SITE, "--label", &format!("place={number}")])?;
            let number = cluster.prepare_agent(&token)?;
            cluster.start_agent(number)?;
            cluster.until_device(number, "it to be online", is_online)?;
        }
        push(cluster, "1.0.0")?;
        let first = start(cluster, "1.0.0", &[])?;
        cluster.until_rollout(&first, "both to have the first release", |show| healthy(show) == 2)?;

        // The second workload asks to wait, as a program does that must not be interrupted. The server dies meanwhile.
        push(cluster, "2.0.0")?;
        let lock = lock(cluster, 1)?;
        fs::write(&lock, "")?;
        let second = start(cluster, "2.0.0", &["--site-atomic", "--deadline", "10m"])?;
        cluster.until_rollout(&second, "the one to be ready, and the other locked", |show| {
            says(show, "waits for the other devices of its site") && says(show, "by its lock")
        })?;
        let why = cluster.run(&["rollout", "why", &second])?;
        let told = String::from_utf8_lossy(&why.stdout).into_owned();
        ensure!(told.contains("ready and waiting for the other devices of its site"), "{told}");
        cluster.kill_server()?;
        cluster.start_server()?;
        for number in 0..2 {
            let device = cluster.until_device(number, "it to be back", is_online)?;
            ensure!(workload(&device)["actualRelease"] == "1.0.0", "it has switched by itself: {device:#}");
        }
        fs::remove_file(&lock)?;
        cluster.until_rollout(&second, "both to switch", |show| healthy(show) == 2)?;

        // One that does not give way in time keeps the other from switching.
        push(cluster, "3.0.0")?;
        fs::write(&lock, "")?;
        let third = start(cluster, "3.0.0", &["--site-atomic", "--deadline", "12s"])?;
        let ended = cluster.until_rollout(&third, "it to give the site up", |show| {
            show["rollout"]["state"] == "ROLLOUT_STATE_FAILED"
        })?;
        let reason = "too few devices of its site were ready in time, so that none of them switched";
        let devices = ended["devices"].as_array().context("a rollout without devices")?;
        ensure!(devices.len() == 2 && devices.iter().all(|device| device["reason"] == reason), "{ended:#}");
        fs::remove_file(&lock)?;
        for number in 0..2 {
            cluster.until_device(number, "it to run what it ran", |device| runs(device, "2.0.0"))?;
        }
        Ok(())
    });
}

fn push(cluster: &Cluster, version: &str) -> anyhow::Result<()> {
    let program = format!("{COUNTING}# {version}\n").into_bytes();
    cluster.push(version, &program, &["--grace", "1s", "--stop-grace", "1s"])
}

fn start(cluster: &Cluster, version: &str, flags: &[&str]) -> anyhow::Result<String> {
    let release = format!("coffee@{version}");
    let plan = cluster.json(&[&["rollout", "plan", &release, "--all"], flags].concat())?;
    let started = cluster.json(&["rollout", "start", plan["plan"]["id"].as_str().context("a plan without an id")?])?;
    Ok(started["id"].as_str().context("a rollout without an id")?.to_owned())
}

/// Where the workload of an agent puts its lock: what `FLEETD_UPDATE_LOCK` names.
fn lock(cluster: &mut Cluster, number: usize) -> anyhow::Result<PathBuf> {
    Ok(cluster.agent(number)?.workload_directory().join("update-lock"))
}

fn says(show: &Value, words: &str) -> bool {
    let devices = show["devices"].as_array();
    devices.is_some_and(|devices| {
        devices.iter().any(|device| device["reason"].as_str().is_some_and(|reason| reason.contains(words)))
    })
}

fn healthy(show: &Value) -> u64 {
    show["rollout"]["counts"]["healthy"].as_u64().unwrap_or_default()
}
