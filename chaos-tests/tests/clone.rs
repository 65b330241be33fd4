//! Two machines with one key: somebody copied a disk.

use std::process::Command;

use anyhow::ensure;
use fleetd_chaos_tests::cluster::{is_online, with_cluster};
use serde_json::Value;

#[test]
fn a_copied_disk_is_noticed_and_device_why_says_what_it_is_and_what_to_do() {
    with_cluster(|cluster| {
        let original = cluster.add_agent()?;
        let other = cluster.add_agent()?;
        cluster.kill_agent(original)?;
        let token = cluster.token(&[])?;
        let copy = cluster.prepare_agent(&token)?;
        let from = cluster.agent(original)?.data_directory();
        let to = cluster.agent(copy)?.data_directory();
        ensure!(Command::new("cp").arg("-a").args([&from, &to]).status()?.success(), "the disk was not copied");
        // One alone is no clone: a disk may move to another machine.
        cluster.start_agent(copy)?;
        cluster.until_device(original, "the copy to be taken for the device", is_online)?;
        cluster.start_agent(original)?;
        let is_quarantined = |device: &Value| device["state"] == "DEVICE_STATE_QUARANTINED";
        let device = cluster.until_device(original, "the clone to be proven", is_quarantined)?;

        let name = device["name"].as_str().unwrap_or_default();
        let why = cluster.json(&["device", "why", name])?;
        let summary = why["summary"].as_str().unwrap_or_default();
        ensure!(summary.contains("two hold its key"), "{why:#}");
        let reason = &why["reasons"][0];
        ensure!(reason["kind"] == "REASON_KIND_MEMBERSHIP", "{why:#}");
        ensure!(reason["nextCommand"] == format!("fleetd device revoke {name}"), "{why:#}");
        let events = why["events"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(events.iter().any(|event| event["kind"] == "forked"), "{why:#}");
        ensure!(is_online(&cluster.device(other)?), "it concerns nobody else");
        Ok(())
    });
}
