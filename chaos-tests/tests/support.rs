//! What a device writes down of itself for those who help from afar, and what they see of it.

use std::fs;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, is_online, runs, with_cluster, workload};
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
