//! What somebody at the device sees and does, and what becomes of a device whose disk fails.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, is_online, runs, with_cluster, workload};
use fleetd_chaos_tests::process::{is_alive, within};
use serde_json::Value;

use crate::material::{COUNTING, brewing};

#[test]
fn a_stop_at_the_device_shows_in_the_servers_timeline() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", &brewing("1.0.0"), &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        let device = cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let name = device["name"].as_str().context("a device without a name")?.to_owned();
        let cases =
            [("stop", "RUN_STATE_STOPPED", "stopped_locally"), ("start", "RUN_STATE_RUNNING", "started_locally")];
        for (command, state, kind) in cases {
            at_the_device(cluster, number, &["agent", command, "coffee"])?;
            cluster.until_device(number, "the server to know", |device| workload(device)["runState"] == state)?;
            let why = cluster.json(&["device", "why", &format!("{name}/coffee")])?;
            let newest = &why["events"][0];
            ensure!(newest["kind"] == kind && newest["workload"] == "coffee", "{why:#}");
            let reason = &why["reasons"][0];
            let is_given = reason["kind"] == "REASON_KIND_STOPPED_LOCALLY" && reason["since"].is_string();
            ensure!(is_given == (command == "stop"), "{why:#}");
        }
        Ok(())
    });
}

#[test]
fn a_workload_is_given_what_its_manifest_declares_and_the_device_configures() {
    with_cluster(|cluster| {
        let program = "#!/bin/sh\nenv > given\nwhile :; do sleep 1; done\n";
        cluster.delegate()?;
        let environment = ["--env", "ROAST", "--env", "PORT=80", "--env", "SUGAR"];
        cluster.push("1.0.0", program.as_bytes(), &[["--grace", "1s"].as_slice(), &environment].concat())?;
        let number = cluster.add_agent()?;
        cluster.kill_agent(number)?;
        let path = cluster.agent(number)?.configuration();
        let text = fs::read_to_string(&path)?;
        let table = "[workload.coffee.environment]\nROAST = 'dark secret'\nPORT = '81'\nLD_PRELOAD = '/evil.so'\n";
        fs::write(&path, format!("{text}\n{table}"))?;
        cluster.start_agent(number)?;
        cluster.roll_out("1.0.0")?;
        cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let given = fs::read_to_string(cluster.agent(number)?.workload_directory().join("given"))?;
        let has = |line: &str| given.lines().any(|given| given == line);
        ensure!(has("ROAST=dark secret") && has("PORT=80"), "it was given:\n{given}");
        ensure!(!given.contains("LD_PRELOAD") && !given.contains("SUGAR="), "it was given:\n{given}");
        let log = cluster.log_of(number);
        ensure!(["LD_PRELOAD", "PORT", "SUGAR"].iter().all(|name| log.contains(name)), "nobody was warned:\n{log}");
        ensure!(!log.contains("dark secret") && !log.contains("evil"), "the log tells a value:\n{log}");

        let shown = at_the_device(cluster, number, &["agent", "config", "show", "--origin"])?;
        let values = shown["values"].as_array().context("no values")?;
        let roast = values.iter().find(|value| value["key"] == "workload.coffee.environment.ROAST");
        let roast = roast.with_context(|| format!("{shown:#}"))?;
        let origin = roast["origin"].as_str().unwrap_or_default();
        ensure!(roast["value"] == "set" && origin.contains("agent.toml:"), "{roast:#}");
        Ok(())
    });
}

#[test]
fn an_agent_that_is_cut_off_says_why_and_when_it_dials_again() {
    with_cluster(|cluster| {
        let number = cluster.add_agent()?;
        let status = at_the_device(cluster, number, &["agent", "status"])?;
        ensure!(status["link"] == "live" && status.get("lastFailure").is_none(), "{status:#}");
        ensure!(status["trustVersion"].as_u64() >= Some(1) && status["fleetId"].is_string(), "{status:#}");
        let proxy = cluster.agent(number)?.link.address().to_string();
        ensure!(status["serverAddress"] == proxy.as_str(), "{status:#}");
        cluster.agent(number)?.link.cut();
        // A new process, since the old one notices a silent link only after a while.
        cluster.kill_agent(number)?;
        cluster.start_agent(number)?;
        let status = within(PATIENCE, "the agent to have given up once", || {
            let status = at_the_device(cluster, number, &["agent", "status"]).unwrap_or_default();
            Ok(status["nextDialAt"].is_string().then_some(status).filter(|status| status["lastFailure"].is_object()))
        })?;
        let failure = &status["lastFailure"];
        ensure!(failure["code"] == "timeout" && failure["serverAddress"] == proxy.as_str(), "{status:#}");
        ensure!(status["linkReason"] == failure["message"] && failure["failedAt"].is_string(), "{status:#}");
        Ok(())
    });
}

#[test]
fn an_agent_whose_disk_fails_says_so_and_ends_and_its_workload_runs_on() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.push("1.0.0", COUNTING.as_bytes(), &["--grace", "1s"])?;
        let number = cluster.add_agent()?;
        cluster.roll_out("1.0.0")?;
        let device = cluster.until_device(number, "it to run 1.0.0", |device| runs(device, "1.0.0"))?;
        let name = device["name"].as_str().context("a device without a name")?.to_owned();
        let started = cluster.agent(number)?.workload_directory().join("started");
        let pid: u32 = fs::read_to_string(&started)?.trim().parse()?;

        // Each write to a file fails from here on, as it does on a medium that is gone.
        cluster.kill_agent(number)?;
        cluster.start_agent_without_file_size_signal(number)?;
        cluster.until_device(number, "it to be back", is_online)?;
        let agent = cluster.agent(number)?.process()?.id();
        let limited = Command::new("prlimit").args(["--pid", &agent.to_string(), "--fsize=0"]).status()?;
        ensure!(limited.success(), "prlimit ended with {limited}");
        let hold = cluster.json(&["device", "hold", &name, "--reason", "descaling"])?;
        let ended = cluster.agent(number)?.process()?.ended(PATIENCE)?;
        ensure!(ended.code() == Some(1), "it ended with {ended}:\n{}", cluster.log_of(number));
        within(PATIENCE, "its last words", || Ok(cluster.log_of(number).contains("agent.store_failed").then_some(())))?;
        ensure!(is_alive(pid), "the workload died with its agent");

        cluster.start_agent(number)?;
        cluster.until_device(number, "it to be back on a good disk", is_online)?;
        within(PATIENCE, "the hold to be kept", || {
            let status = at_the_device(cluster, number, &["agent", "status"])?;
            let held = status["workloads"][0]["held"] == true && status["workloads"][0]["pid"] == pid;
            Ok(held.then_some(()))
        })
        .with_context(|| format!("held by {hold:#}"))?;
        ensure!(fs::read_to_string(&started)?.trim() == pid.to_string(), "the workload was started again");
        Ok(())
    });
}

#[test]
fn an_agent_whose_log_cannot_be_written_runs_on() {
    with_cluster(|cluster| {
        let number = cluster.add_agent()?;
        cluster.kill_agent(number)?;
        cluster.start_agent_with_log(number, fs::File::options().write(true).open("/dev/full")?.into())?;
        within(PATIENCE, "the agent to be live", || {
            let status = at_the_device(cluster, number, &["agent", "status"]).unwrap_or_default();
            Ok((status["link"] == "live").then_some(()))
        })?;
        ensure!(cluster.agent(number)?.process()?.is_running()?, "it ended for want of a log");
        Ok(())
    });
}

/// Runs a command at the device of an agent.
fn at_the_device(cluster: &Cluster, number: usize, arguments: &[&str]) -> anyhow::Result<Value> {
    let configuration = cluster.agents[number].configuration().display().to_string();
    cluster.json(&[arguments, &["--config", &configuration]].concat())
}
