//! Stores that are damaged, or of a later version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, is_online, runs, with_cluster, workload};
use fleetd_chaos_tests::process::{is_alive, within};
use serde_json::Value;

use crate::material::{COUNTING, brewing};

#[test]
fn a_damaged_store_of_an_agent_takes_no_workload_away() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s", "--stop-grace", "1s"])?;
        cluster.push("1.1.0", &brewing("1.1.0"), &["--grace", "1s", "--stop-grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;

        cluster.kill_agent(number)?;
        let data = cluster.agent(number)?.data_directory();
        damage(&store_below(&data)?)?;
        cluster.start_agent(number)?;
        cluster.until_device(number, "it to be back", |device| is_online(device) && runs(device, "1.0.0"))?;
        ensure!(is_quarantined_below(&data)?, "the damaged store was not put aside");
        cluster.roll_out("1.1.0")?;
        cluster.until_device(number, "it to run 1.1.0", |device| runs(device, "1.1.0"))?;
        Ok(())
    });
}

#[test]
fn an_agent_that_lost_its_store_and_its_root_records_tries_no_failed_release_again_and_needs_no_token() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s", "--stop-grace", "1s"])?;
        cluster.push("1.1.0", b"#!/bin/sh\necho tried >> tried\nexit 3\n", &["--grace", "10s"])?;
        cluster.push("1.2.0", &brewing("1.2.0"), &["--grace", "1s", "--stop-grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        cluster.roll_out("1.1.0")?;
        let is_restored = |device: &Value| {
            let workload = workload(device);
            workload["phase"] == "WORKLOAD_PHASE_RESTORED" && workload["actualRelease"] == "1.0.0"
        };
        cluster.until_device(number, "1.0.0 to be restored", is_restored)?;
        let tried = cluster.agent(number)?.workload_directory().join("tried");
        ensure!(fs::read_to_string(&tried)? == "tried\n");

        cluster.kill_agent(number)?;
        let data = cluster.agent(number)?.data_directory();
        damage(&store_below(&data)?)?;
        for copy in ["a", "b"] {
            // The newer one of the two is always there; the other one only after a second record.
            let _absent = fs::remove_file(data.join("identity").join(format!("root-chain.{copy}")));
        }
        let path = cluster.agent(number)?.configuration();
        let text = fs::read_to_string(&path)?;
        let tokenless: Vec<_> = text.lines().filter(|line| !line.starts_with("enroll-token")).collect();
        fs::write(&path, tokenless.join("\n"))?;
        cluster.start_agent(number)?;
        cluster.until_device(number, "it to be back", |device| is_online(device) && is_restored(device))?;
        ensure!(is_quarantined_below(&data)?, "the damaged store was not put aside");
        // It acts on its documents again, and by then has looked at what failed.
        cluster.roll_out("1.2.0")?;
        cluster.until_device(number, "it to run 1.2.0", |device| runs(device, "1.2.0"))?;
        ensure!(fs::read_to_string(&tried)? == "tried\n", "what failed was tried again");
        Ok(())
    });
}

#[test]
fn devices_of_a_damaged_store_come_back_to_the_server_and_take_rollouts_once_they_are_approved() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", COUNTING.as_bytes(), &["--grace", "1s", "--stop-grace", "1s"])?;
        let numbers = [cluster.add_agent()?, cluster.add_agent()?];
        cluster.roll_out("1.0.0")?;
        let (mut names, mut before) = (Vec::new(), Vec::new());
        for number in numbers {
            let device = cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
            names.push(device["localId"].as_str().context("a device has no local id")?.to_owned());
            before.push(fs::read_to_string(started(cluster, number)?)?);
        }
        let trust = cluster.json(&["trust", "show"])?;

        cluster.kill_server()?;
        let data = cluster.path("server");
        damage(&store_below(&data)?)?;
        cluster.start_server()?;
        ensure!(is_quarantined_below(&data)?, "the damaged store was not put aside");
        let after = cluster.json(&["trust", "show"])?;
        ensure!(after == trust, "{after:#} is not {trust:#}");
        for name in &names {
            within(PATIENCE, "the device to come back", || {
                let device = cluster.devices()?.into_iter().find(|device| device["localId"] == **name);
                let is_back = |device: &Value| {
                    device["state"] == "DEVICE_STATE_RECOVERED" && is_online(device) && runs(device, "1.0.0")
                };
                Ok(device.filter(is_back))
            })?;
        }
        // What the release's key signs counts without another word of the root; what devices should do waits for one.
        cluster.push("1.1.0", &brewing("1.1.0"), &["--grace", "1s", "--stop-grace", "1s"])?;
        let planned = cluster.json(&["rollout", "plan", "coffee@1.1.0", "--all"])?;
        ensure!(planned["plan"]["counts"]["blocked"] == 2, "{planned:#}");
        for (number, before) in numbers.into_iter().zip(&before) {
            ensure!(fs::read_to_string(started(cluster, number)?)? == *before, "the workload was started again");
            ensure!(is_alive(before.trim().parse()?), "the workload is gone");
        }
        let approved = cluster.json(&["enroll", "approve", "--all-recovered"])?;
        ensure!(approved["devices"].as_array().is_some_and(|devices| devices.len() == 2), "{approved:#}");
        let rollout = cluster.roll_out("1.1.0")?;
        cluster.until_rollout(&rollout, "it to succeed", |rollout| {
            rollout["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED"
        })?;
        let devices = cluster.devices()?;
        ensure!(devices.len() == 2 && devices.iter().all(|device| runs(device, "1.1.0")), "{devices:#?}");
        // It goes on with new devices, too.
        let other = cluster.add_agent()?;
        cluster.until_device(other, "it to be online", is_online)?;
        Ok(())
    });
}

/// Where the workload of an agent writes its process id when it starts.
fn started(cluster: &mut Cluster, number: usize) -> anyhow::Result<PathBuf> {
    Ok(cluster.agent(number)?.workload_directory().join("started"))
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    with_cluster(|cluster| {
        let number = cluster.add_agent()?;
        cluster.kill_agent(number)?;
        let store = store_below(&cluster.agent(number)?.data_directory())?;
        let written = later_format(&store)?;
        cluster.start_agent(number)?;
        let ended = cluster.agent(number)?.process()?.ended(PATIENCE)?;
        let log = cluster.log_of(number);
        ensure!(!ended.success() && log.contains("newer") && log.contains("9"), "it ended with {ended}:\n{log}");
        ensure!(fs::read_to_string(store.join("FORMAT"))? == written, "it was changed");

        cluster.kill_server()?;
        let data = cluster.path("server");
        let store = store_below(&data)?;
        let written = later_format(&store)?;
        let data = data.display().to_string();
        let free = "127.0.0.1:0";
        let output = cluster.run(&["serve", "--data", &data, "--api-address", free, "--sync-address", free])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && said.contains("newer"), "it ended with {}: {said}", output.status);
        ensure!(fs::read_to_string(store.join("FORMAT"))? == written, "it was changed");
        Ok(())
    });
}

/// The folder with a `FORMAT` file in a data directory.
fn store_below(data: &Path) -> anyhow::Result<PathBuf> {
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        if path.join("FORMAT").is_file() {
            return Ok(path);
        }
    }
    anyhow::bail!("there is no store in {}", data.display())
}

/// Overwrites every file of a store but its `FORMAT`.
fn damage(store: &Path) -> anyhow::Result<()> {
    let mut folders = vec![store.to_owned()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != "FORMAT") {
                fs::write(&path, [0xa5; 4096])?;
                count += 1;
            }
        }
    }
    ensure!(count > 0, "there was nothing to damage in {}", store.display());
    Ok(())
}

fn is_quarantined_below(data: &Path) -> anyhow::Result<bool> {
    for entry in fs::read_dir(data)? {
        if entry?.file_name().to_string_lossy().contains(".quarantined-") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lets a store say that a later version wrote it; answers with what its `FORMAT` file says now.
fn later_format(store: &Path) -> anyhow::Result<String> {
    let path = store.join("FORMAT");
    let text = fs::read_to_string(&path)?;
    let line = text.lines().find(|line| line.starts_with("format ")).context("FORMAT names no format")?;
    let later = text.replace(line, "format 9");
    fs::write(&path, &later)?;
    Ok(later)
}
