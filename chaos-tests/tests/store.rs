//! Stores that are damaged, or of a later version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{PATIENCE, is_online, runs, with_cluster, workload};
use fleetd_chaos_tests::process::is_alive;
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
fn a_damaged_store_of_a_server_takes_neither_its_fleet_nor_a_workload_away() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", COUNTING.as_bytes(), &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let fleet = cluster.json(&["trust", "show"])?;
        let started = cluster.agent(number)?.workload_directory().join("started");
        let before = fs::read_to_string(&started)?;

        cluster.kill_server()?;
        let data = cluster.path("server");
        damage(&store_below(&data)?)?;
        cluster.start_server()?;
        ensure!(is_quarantined_below(&data)?, "the damaged store was not put aside");
        // Its keys lie apart, and with them the fleet; and it can go on with new devices.
        let after = cluster.json(&["trust", "show"])?;
        ensure!(fleet["fleetId"].is_string() && after["fleetId"] == fleet["fleetId"], "{after:#} is not {fleet:#}");
        let other = cluster.token(&["--label", "place=1"])?;
        let other = cluster.prepare_agent(&other)?;
        cluster.start_agent(other)?;
        cluster.until_device(other, "it to be online", is_online)?;
        ensure!(fs::read_to_string(&started)? == before, "the workload was started again");
        ensure!(is_alive(before.trim().parse()?), "the workload is gone");
        Ok(())
    });
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
