//! What a device writes down of itself for those who help from afar, and what they see of it.

use std::fs;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, is_online, runs, with_cluster, workload};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::trust::read_armour;
use serde_json::Value;

use crate::material::brewing;

#[test]
fn a_failed_install_is_stepped_through_from_a_support_bundle_as_it_happened() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s"])?;
        cluster.push("2.0.0", b"#!/bin/sh\nexit 3\n", &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        cluster.roll_out("2.0.0")?;
        let restored = |device: &Value| {
            let workload = workload(device);
            workload["phase"] == "WORKLOAD_PHASE_RESTORED"
                && workload["actualRelease"] == "1.0.0"
                && workload["runState"] == "RUN_STATE_RUNNING"
        };
        cluster.until_device(number, "it to be back at 1.0.0", restored)?;

        let steps = check_bundle(cluster, number, "failed.tar")?;
        let all = |field: &str| steps.iter().map(|step| step[field].to_string()).collect::<String>();
        for effect in ["Fetch {", "Stage {", "Switch {", "Start {"] {
            ensure!(all("effects").contains(effect), "no step asks for {effect}");
        }
        ensure!(all("input").contains("Exited(Code(3))"), "no step tells how it ended");
        ensure!(steps.iter().any(|step| step["phase"] == "watch"), "no step watches");
        ensure!(steps[0]["begins"] == "loaded" && all("changes").contains("+"), "{:#}", steps[0]);

        // After a death of the agent the story begins with the run that outlived it.
        cluster.kill_agent(number)?;
        cluster.start_agent(number)?;
        cluster.until_device(number, "it to be back", |device| is_online(device) && restored(device))?;
        let steps = check_bundle(cluster, number, "again.tar")?;
        ensure!(steps.iter().any(|step| step["input"].to_string().contains("found: Running")), "it found no run");

        check_refusals(cluster, number)
    });
}

/// Has the agent write a bundle, and steps through it: every step comes to what the device noted.
fn check_bundle(cluster: &mut Cluster, number: usize, name: &str) -> anyhow::Result<Vec<Value>> {
    let (path, configuration) = (cluster.path(name).display().to_string(), configuration(cluster, number)?);
    let written = cluster.json(&["agent", "support-bundle", "--config", &configuration, "--out", &path])?;
    ensure!(written["workloads"] == serde_json::json!(["coffee"]) && written["agentRuns"] == true, "{written:#}");
    check_secrets(cluster, number, &fs::read(&path)?)?;

    let output = cluster.run(&["support", "replay", &path])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    let mut steps: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let end = steps.pop().context("nothing was printed")?;
    ensure!(end["summary"]["firstDifference"].is_null(), "{end:#}");
    ensure!(end["summary"]["steps"] == steps.len() && end["summary"]["failures"] == serde_json::json!([]), "{end:#}");
    for step in &steps {
        ensure!(step["end"]["kind"] == "same", "{step:#}");
    }
    Ok(steps)
}

/// Neither the device's key nor its token may be in what leaves it.
fn check_secrets(cluster: &mut Cluster, number: usize, bundle: &[u8]) -> anyhow::Result<()> {
    let agent = cluster.agent(number)?;
    let file = fs::read(agent.data_directory().join("identity").join("device-key.a"))?;
    // In PKCS#8 a key of Ed25519 is an octet string of 32 bytes in another one.
    let at = file.windows(4).position(|bytes| bytes == [4, 34, 4, 32]).context("there is no key in the file")? + 4;
    let key = file.get(at..at + 32).context("the key is cut")?;
    let configured = fs::read_to_string(agent.configuration())?;
    let line = configured.lines().find_map(|line| line.strip_prefix("enroll-token = "));
    let token = line.context("the agent has no token")?.trim_matches('"');
    for secret in [key, token.as_bytes()] {
        ensure!(!bundle.windows(secret.len()).any(|window| window == secret), "a secret is in the bundle");
    }
    Ok(())
}

#[test]
fn a_rollout_is_stepped_through_from_a_servers_support_bundle_as_it_happened() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s"])?;
        cluster.push("2.0.0", b"#!/bin/sh\nexit 3\n", &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        let first = cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let second = cluster.roll_out("2.0.0")?;
        cluster.until_rollout(&second, "it to fail", |show| show["rollout"]["counts"]["restored"] == 1)?;

        let steps = check_server_bundle(cluster, number, "server.tar", &[&first, &second])?;
        let of = |rollout: &str| steps.iter().filter(|step| step["rollout"] == rollout).cloned().collect::<Vec<_>>();
        let all = |steps: &[Value], field: &str| steps.iter().map(|step| step[field].to_string()).collect::<String>();
        let failed = of(&second);
        ensure!(
            all(&failed, "input").contains("Start {") && all(&failed, "effects").contains("Assign {"),
            "{failed:#?}"
        );
        ensure!(all(&failed, "input").contains("phase: Some(Restored)"), "no step tells of the restored release");
        ensure!(all(&failed, "changes").contains("status: Restored("), "no step changes what is known of the device");
        ensure!(failed.last().is_some_and(|step| step["phase"] == "failed"), "{failed:#?}");

        // After a death of the server the story begins with what it had stored.
        cluster.kill_server()?;
        check_folder_bundle(cluster)?;
        cluster.start_server()?;
        cluster.until_device(number, "it to be back", is_online)?;
        let third = cluster.roll_out("1.0.0")?;
        cluster.until_rollout(&third, "it to end", |show| show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED")?;
        check_server_bundle(cluster, number, "again.tar", &[&third])?;
        Ok(())
    });
}

/// Has the server give a bundle, and steps through it: every step comes to what the server noted.
fn check_server_bundle(
    cluster: &mut Cluster,
    number: usize,
    name: &str,
    rollouts: &[&str],
) -> anyhow::Result<Vec<Value>> {
    let path = cluster.path(name).display().to_string();
    let written = cluster.json(&["support", "bundle", "--out", &path])?;
    for rollout in rollouts {
        let recorded = written["rollouts"].as_array().is_some_and(|recorded| recorded.iter().any(|one| one == rollout));
        ensure!(recorded, "{rollout} is not recorded: {written:#}");
    }
    check_server_secrets(cluster, number, &fs::read(&path)?)?;
    let output = cluster.run(&["support", "replay", &path])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    let lines: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let (summaries, steps): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line["summary"].is_object());
    ensure!(summaries.len() >= rollouts.len() && !steps.is_empty(), "{summaries:#?}");
    for summary in &summaries {
        let summary = &summary["summary"];
        ensure!(summary["firstDifference"].is_null() && summary["failures"] == serde_json::json!([]), "{summary:#}");
    }
    for step in &steps {
        ensure!(step["end"]["kind"] == "same", "{step:#}");
    }
    Ok(steps)
}

/// Of a server that does not run there is a bundle too, without recordings.
fn check_folder_bundle(cluster: &Cluster) -> anyhow::Result<()> {
    let (path, data) = (cluster.path("folder.tar").display().to_string(), cluster.path("server").display().to_string());
    let written = cluster.json(&["support", "bundle", "--data", &data, "--out", &path])?;
    ensure!(written["rollouts"] == serde_json::json!([]), "{written:#}");
    let bundle = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
    ensure!(bundle.contains("events.json") && bundle.contains("restored"), "what happened is not in it");
    let output = cluster.run(&["support", "replay", &path])?;
    ensure!(String::from_utf8_lossy(&output.stderr).contains("support.no_recording"), "{output:?}");
    Ok(())
}

/// No key of the server, no token and no key of a device may be in what leaves it.
fn check_server_secrets(cluster: &mut Cluster, number: usize, bundle: &[u8]) -> anyhow::Result<()> {
    check_secrets(cluster, number, bundle)?;
    let mut secrets = Vec::new();
    for name in ["root.key", "ca.key", "authority.key", "server.key"] {
        let text = fs::read_to_string(cluster.path("server/keys").join(name))?;
        let key: SecretKey = read_armour(&text)?;
        secrets.push(key.to_bytes().to_vec());
        secrets.extend(text.lines().filter(|line| !line.starts_with('-')).map(|line| line.as_bytes().to_vec()));
    }
    let contexts = fs::read_to_string(cluster.path("config/contexts.toml"))?;
    let token = contexts.lines().find_map(|line| line.strip_prefix("token = ")).context("nobody is logged in")?;
    secrets.push(token.trim_matches('"').as_bytes().to_vec());
    for secret in secrets.into_iter().filter(|secret| secret.len() >= 16) {
        ensure!(!bundle.windows(secret.len()).any(|window| window == secret), "a secret is in the bundle");
    }
    Ok(())
}

/// What cannot be done says so, and leaves nothing behind.
fn check_refusals(cluster: &mut Cluster, number: usize) -> anyhow::Result<()> {
    let (path, configuration) = (cluster.path("again.tar").display().to_string(), configuration(cluster, number)?);
    let refused = |output: std::process::Output, code: &str, exit: i32| -> anyhow::Result<()> {
        let said: Value = serde_json::from_slice(&output.stderr)?;
        ensure!(said["error"]["code"] == code && output.status.code() == Some(exit), "{said:#}");
        Ok(())
    };
    let again = ["agent", "support-bundle", "--config", &configuration, "--out", &path];
    refused(cluster.run(&again)?, "support.exists", 1)?;
    refused(cluster.run(&["support", "replay", &path, "--workload", "tea"])?, "support.no_recording", 1)?;
    refused(cluster.run(&["support", "replay", &configuration])?, "support.no_bundle", 2)?;

    cluster.kill_agent(number)?;
    let alone = cluster.path("alone.tar").display().to_string();
    let written = cluster.json(&["agent", "support-bundle", "--config", &configuration, "--out", &alone])?;
    ensure!(written["agentRuns"] == false && written["note"].is_string(), "{written:#}");
    refused(cluster.run(&["support", "replay", &alone])?, "support.no_recording", 1)
}

fn configuration(cluster: &mut Cluster, number: usize) -> anyhow::Result<String> {
    Ok(cluster.agent(number)?.configuration().display().to_string())
}
