//! A server that comes back from an old backup, among devices that have moved on since.

use std::fs;
use std::process::Output;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, WORKLOAD, is_online, runs, with_cluster, workload};
use fleetd_chaos_tests::process::within;
use serde_json::Value;

use crate::material::COUNTING;

/// Devices of the fleet.
const DEVICES: usize = 20;

#[test]
fn an_old_backup_comes_back_while_twenty_agents_have_moved_on() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", COUNTING.as_bytes(), &["--grace", "1s", "--stop-grace", "1s"])?;
        cluster.push("2.0.0", format!("{COUNTING}# 2\n").as_bytes(), &["--grace", "1s", "--stop-grace", "1s"])?;
        for _device in 0..DEVICES {
            cluster.add_agent()?;
        }
        cluster.roll_out("1.0.0")?;
        until_all(cluster, "run 1.0.0", |device| runs(device, "1.0.0"))?;
        let first = cluster.lines(0)?;
        ensure!(!first.is_empty(), "nothing was logged before the backup");

        let backup = cluster.path("fleet.backup").display().to_string();
        let written = cluster.json(&["backup", "--out", &backup])?;
        ensure!(
            written["bytes"].as_u64().is_some_and(|bytes| bytes == fs::metadata(&backup).map_or(0, |file| file.len()))
        );
        let acked = cluster.lines(0)?;
        // By which a server without a record of it knows a device, too.
        let local = cluster.device(0)?["localId"].as_str().context("it has no local id")?.to_owned();

        // What happens after a backup is what a restored server does not know.
        let name = name_of(&cluster.device(1)?)?;
        cluster.json(&["device", "hold", &name, "--reason", "after the backup"])?;
        let rollout = cluster.roll_out("2.0.0")?;
        cluster.until_rollout(&rollout, "it to get to all but one", |show| {
            show["rollout"]["counts"]["healthy"] == DEVICES - 1
        })?;
        within(PATIENCE, "more lines to be acknowledged", || {
            Ok(entries(cluster, &local)?.len().gt(&(acked.len() + 10)).then_some(()))
        })?;

        check_refusals(cluster, &backup)?;
        let server = cluster.path("server");
        cluster.kill_server()?;
        fs::rename(server.join("store"), cluster.path("lost-store"))?;
        fs::remove_dir_all(server.join("artifacts"))?;
        let data = server.display().to_string();
        // Two programs, and a signed manifest for each.
        let restored = cluster.json(&["restore", &backup, "--data", &data])?;
        ensure!(restored["contents"]["artifacts"] == 4, "{restored:#}");
        cluster.start_server()?;

        let hold = check_fleet(cluster, &name)?;
        check_logs(cluster, &local, &first)?;
        // The server decides again, and each device follows: no position was used twice.
        cluster.json(&["device", "lift", &name, &hold])?;
        cluster.push("3.0.0", format!("{COUNTING}# 3\n").as_bytes(), &["--grace", "1s", "--stop-grace", "1s"])?;
        let rollout = cluster.roll_out("3.0.0")?;
        cluster
            .until_rollout(&rollout, "it to succeed", |show| show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED")?;
        until_all(cluster, "run 3.0.0", |device| runs(device, "3.0.0"))?;

        // The same with nothing but the keys.
        cluster.kill_server()?;
        fs::remove_dir_all(server.join("store"))?;
        fs::remove_dir_all(server.join("artifacts"))?;
        cluster.start_server()?;
        until_all(cluster, "come back to an empty store", |device| {
            device["state"] == "DEVICE_STATE_RECOVERED" && is_online(device) && runs(device, "3.0.0")
        })?;
        cluster.json(&["enroll", "approve", "--all-recovered"])?;
        cluster.push("4.0.0", format!("{COUNTING}# 4\n").as_bytes(), &["--grace", "1s", "--stop-grace", "1s"])?;
        cluster.roll_out("4.0.0")?;
        until_all(cluster, "run 4.0.0", |device| runs(device, "4.0.0"))?;
        check_logs(cluster, &local, &[])?;
        check_no_fork(cluster)
    });
}

/// Every device comes back by itself, enrolled, with what it was told last, the hold included; gives the hold.
fn check_fleet(cluster: &Cluster, held: &str) -> anyhow::Result<String> {
    until_all(cluster, "be back as it was", |device| {
        let version = if device["name"] == *held { "1.0.0" } else { "2.0.0" };
        device["state"] == "DEVICE_STATE_ENROLLED" && is_online(device) && runs(device, version)
    })?;
    let devices = cluster.devices()?;
    let device = devices.iter().find(|device| device["name"] == *held).context("the held device is gone")?;
    let hold = device["holds"][0]["id"].as_str().with_context(|| format!("the hold is lost: {device:#}"))?;
    ensure!(devices.iter().all(|device| workload(device)["conflict"] == false), "authorities disagree");
    Ok(hold.to_owned())
}

/// What was acknowledged before the backup is there; a gap marks what was acknowledged after it; ingest goes on.
fn check_logs(cluster: &Cluster, local: &str, before: &[String]) -> anyhow::Result<()> {
    let mut told = Vec::new();
    let all = within(PATIENCE, "lines to come in behind the gap", || {
        told = entries(cluster, local)?;
        let gap = told.iter().rposition(|entry| entry["gap"].is_object());
        Ok(gap.is_some_and(|gap| told.len() > gap + 20).then(|| told.clone()))
    });
    let all =
        all.with_context(|| format!("{} entries, from {:?}", told.len(), told.iter().take(3).collect::<Vec<_>>()))?;
    let lines: Vec<&str> = all.iter().filter_map(|entry| entry["line"]["line"].as_str()).collect();
    let kept: Vec<&str> = before.iter().map(String::as_str).collect();
    ensure!(lines.starts_with(&kept), "lines of before the backup are missing");
    let gaps: Vec<&Value> = all.iter().map(|entry| &entry["gap"]).filter(|gap| gap.is_object()).collect();
    ensure!(gaps.len() == 1, "{gaps:#?}");
    Ok(())
}

/// Nobody has shown that two write with one key. These are the words of a server and of an agent for it.
fn check_no_fork(cluster: &Cluster) -> anyhow::Result<()> {
    let said = cluster.logs();
    for forked in ["fork", "two hold", "two servers write", "is held twice"] {
        ensure!(!said.contains(forked), "a lane has forked:\n{said}");
    }
    Ok(())
}

/// What cannot be backed up or restored says so, and changes nothing.
fn check_refusals(cluster: &mut Cluster, backup: &str) -> anyhow::Result<()> {
    let refused = |output: Output, code: &str| -> anyhow::Result<()> {
        ensure!(!output.status.success(), "{code} did not happen: {}", String::from_utf8_lossy(&output.stdout));
        let said: Value = serde_json::from_slice(&output.stderr)?;
        ensure!(said["error"]["code"] == code, "{said:#}");
        Ok(())
    };
    refused(cluster.run(&["backup", "--out", backup])?, "backup.unwritten")?;
    let data = cluster.path("server").display().to_string();
    refused(cluster.run(&["restore", backup, "--data", &data])?, "restore.exists")?;

    let empty = cluster.path("empty");
    fs::create_dir(&empty)?;
    let (empty, text) = (empty.clone(), empty.display().to_string());
    refused(cluster.run(&["restore", backup, "--data", &text])?, "restore.no_keys")?;
    fs::create_dir(empty.join("keys"))?;
    fs::copy(cluster.path("server/keys/fleet.root"), empty.join("keys/fleet.root"))?;
    let whole = fs::read(backup)?;
    let cut = cluster.path("cut.backup").display().to_string();
    for length in [0, 1, whole.len() / 3, whole.len() - 1] {
        fs::write(&cut, whole.get(..length).unwrap_or_default())?;
        refused(cluster.run(&["restore", &cut, "--data", &text])?, "restore.no_backup")?;
    }
    let mut changed = whole;
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&cut, changed)?;
    refused(cluster.run(&["restore", &cut, "--data", &text])?, "restore.no_backup")?;
    let left: Vec<_> =
        fs::read_dir(&empty)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    ensure!(left == ["keys"], "{left:?} was left behind");
    Ok(())
}

fn name_of(device: &Value) -> anyhow::Result<String> {
    Ok(device["name"].as_str().context("a device without a name")?.to_owned())
}

fn until_all(cluster: &Cluster, awaited: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let mut unlike = Value::Null;
    let seen = within(2 * PATIENCE, &format!("all devices to {awaited}"), || {
        let devices = cluster.devices()?;
        unlike = devices.iter().find(|device| !is_so(device)).cloned().unwrap_or_default();
        Ok((devices.len() == DEVICES && unlike.is_null()).then_some(()))
    });
    seen.with_context(|| format!("one that does not: {unlike:#}"))
}

/// Lines and gaps of a device, in their order, as far as the server has them durably.
fn entries(cluster: &Cluster, local: &str) -> anyhow::Result<Vec<Value>> {
    let output = cluster.run(&["logs", &format!("{local}/{WORKLOAD}")])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
