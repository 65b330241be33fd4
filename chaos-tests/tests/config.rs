//! Configurations with a real server and a real agent: the program has them, and goes back with them.

use std::fs;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, is_online, with_cluster, workload};
use fleetd_chaos_tests::process::within;
use serde_json::Value;

/// Writes down what it was given, and is well unless the roast is burnt.
const TASTING: &str = "#!/bin/sh\n{ echo \"$ROAST\"; cat \"$MENU\"; } > seen 2>&1\n\
    [ \"$ROAST\" = burnt ] && rm -f well || touch well\nwhile :; do sleep 0.2; done\n";
/// The probe of that program.
const PROBE: [&str; 8] = ["--probe", "exec:test -e well", "--grace", "2s", "--stop-grace", "1s", "--env", "ROAST"];

#[test]
fn a_program_gets_its_configuration_and_a_bad_one_gives_way_to_the_one_before_it() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        let number = cluster.add_agent()?;
        cluster.push("1.0.0", TASTING.as_bytes(), &[&PROBE[..], &["--env", "MENU"]].concat())?;
        let first = cluster.roll_out("1.0.0")?;
        cluster.until_rollout(&first, "the release to be healthy", succeeded)?;

        push(cluster, "roast-1", "light", "espresso")?;
        let plan = plan(cluster, &["--config", "roast-1"])?;
        let device = &plan["devices"][0];
        ensure!(device["verdict"] == "VERDICT_UPDATE" && device["fromVersion"] == "1.0.0", "{plan:#}");
        ensure!(device["fromConfiguration"] == "" && plan["plan"]["configuration"] == "roast-1", "{plan:#}");
        ensure!(plan["plan"]["trafficBytes"] == "9", "a device that has the release fetches the file alone: {plan:#}");
        let light = start(cluster, &plan)?;
        cluster.until_rollout(&light, "the configuration to be healthy", succeeded)?;
        cluster.until_device(number, "it to have roast-1", |device| has(device, "roast-1"))?;
        until_seen(cluster, number, "light\nespresso\n")?;
        ensure!(
            self::plan(cluster, &["--config", "roast-1"])?["devices"][0]["verdict"] == "VERDICT_UNCHANGED",
            "what it has is no change"
        );

        // The server is away while it fails: going back is the device's own business.
        push(cluster, "roast-2", "burnt", "ashes")?;
        let burnt = start(cluster, &self::plan(cluster, &["--config", "roast-2"])?)?;
        until_seen(cluster, number, "burnt\nashes\n")?;
        cluster.kill_server()?;
        until_seen(cluster, number, "light\nespresso\n")?;
        cluster.start_server()?;
        let show = cluster.until_rollout(&burnt, "it to be restored", |show| count(show, "restored") == 1)?;
        ensure!(show["rollout"]["configuration"] == "roast-2", "{show:#}");
        let device = cluster.until_device(number, "it to be back", |device| {
            is_online(device) && workload(device)["actualConfiguration"] == "roast-1"
        })?;
        ensure!(workload(&device)["phase"] == "WORKLOAD_PHASE_RESTORED", "{device:#}");
        let name = device["name"].as_str().context("a device without a name")?.to_owned();
        let why = cluster.json(&["device", "why", &name])?.to_string();
        ensure!(why.contains("1.0.0 with roast-1 runs again"), "{why}");

        check_way_back(cluster, number)?;
        check_folder_alone(cluster, number)
    });
}

/// A good one is taken back as a whole; without a configuration the device has the release alone.
fn check_way_back(cluster: &Cluster, number: usize) -> anyhow::Result<()> {
    push(cluster, "roast-3", "dark", "espresso")?;
    let dark = start(cluster, &plan(cluster, &["--config", "roast-3"])?)?;
    cluster.until_rollout(&dark, "roast-3 to be healthy", succeeded)?;
    until_seen(cluster, number, "dark\nespresso\n")?;
    let back = cluster.json(&["rollout", "rollback", &dark, "--yes"])?;
    let id = back["rollouts"][0]["id"].as_str().context("a way back without an id")?.to_owned();
    ensure!(back["rollouts"][0]["configuration"] == "roast-1", "{back:#}");
    cluster.until_rollout(&id, "it to go back", succeeded)?;
    until_seen(cluster, number, "light\nespresso\n")?;

    let bare = plan(cluster, &[])?;
    let device = &bare["devices"][0];
    ensure!(device["verdict"] == "VERDICT_UPDATE" && device["fromConfiguration"] == "roast-1", "{bare:#}");
    Ok(())
}

/// An agent that lost its database finds release and configuration in the workload's folder.
fn check_folder_alone(cluster: &mut Cluster, number: usize) -> anyhow::Result<()> {
    cluster.kill_agent(number)?;
    let data = cluster.agent(number)?.data_directory();
    fs::remove_dir_all(data.join("store"))?;
    cluster.start_agent(number)?;
    let has_it = |device: &Value| is_online(device) && has(device, "roast-1");
    cluster.until_device(number, "it to have roast-1 still", has_it)?;
    Ok(())
}

#[test]
fn what_is_no_configuration_of_the_workload_is_refused_with_its_reason() {
    with_cluster(|cluster| {
        cluster.delegate()?;
        cluster.add_agent()?;
        cluster.push("1.0.0", TASTING.as_bytes(), &PROBE)?;
        let config = |name: &str, more: &[&str]| cluster.run(&[&["config", "push", "coffee", name], more].concat());
        let refused = |output: std::process::Output, code: &str, said: &str| -> anyhow::Result<()> {
            let error: Value = serde_json::from_slice(&output.stderr)?;
            ensure!(error["error"]["code"] == code && error.to_string().contains(said), "{error:#}");
            Ok(())
        };
        ensure!(config("roast-1", &["--value", "ROAST=light"])?.status.success(), "it is not taken");
        ensure!(config("roast-1", &["--value", "ROAST=light"])?.status.success(), "the same again is no error");
        refused(config("roast-1", &["--value", "ROAST=dark"])?, "configuration.duplicate", "roast-1")?;
        refused(
            config("roast-2", &["--value", &format!("ROAST={}", "x".repeat(1025))])?,
            "configuration.invalid",
            "1024",
        )?;
        refused(config("roast-2", &["--value", "RO AST=x"])?, "configuration.invalid", "RO AST")?;
        refused(config("roast-2", &["--file", "MENU=/nowhere"])?, "configuration.unreadable", "/nowhere")?;
        ensure!(config("odd", &["--value", "SUGAR=much", "--value", "ROAST=x"])?.status.success(), "it is not taken");
        let plan = |name: &str| cluster.run(&["rollout", "plan", "coffee@1.0.0", "--all", "--config", name]);
        refused(plan("odd")?, "configuration.undeclared", "odd fills SUGAR")?;
        refused(plan("roast-9")?, "configuration.unknown", "roast-9")
    });
}

fn push(cluster: &Cluster, name: &str, roast: &str, menu: &str) -> anyhow::Result<()> {
    let path = cluster.path(&format!("menu-{name}"));
    fs::write(&path, format!("{menu}\n"))?;
    let (value, file) = (format!("ROAST={roast}"), format!("MENU={}", path.display()));
    let pushed = cluster.json(&["config", "push", "coffee", name, "--value", &value, "--file", &file])?;
    ensure!(pushed["complete"] == true && pushed["name"] == name, "{pushed:#}");
    Ok(())
}

fn plan(cluster: &Cluster, flags: &[&str]) -> anyhow::Result<Value> {
    cluster.json(&[&["rollout", "plan", "coffee@1.0.0", "--all"], flags].concat())
}

fn start(cluster: &Cluster, plan: &Value) -> anyhow::Result<String> {
    let started = cluster.json(&["rollout", "start", plan["plan"]["id"].as_str().context("a plan without an id")?])?;
    Ok(started["id"].as_str().context("a rollout without an id")?.to_owned())
}

fn succeeded(show: &Value) -> bool {
    show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED" && count(show, "healthy") == 1
}

fn count(show: &Value, what: &str) -> u64 {
    show["rollout"]["counts"][what].as_u64().unwrap_or_default()
}

fn has(device: &Value, name: &str) -> bool {
    let workload = workload(device);
    workload["actualConfiguration"] == name && workload["phase"] == "WORKLOAD_PHASE_HEALTHY"
}

/// Waits until the program has written down that it was given this.
fn until_seen(cluster: &Cluster, number: usize, expected: &str) -> anyhow::Result<()> {
    let path = cluster.agents[number].workload_directory().join("seen");
    within(PATIENCE, &format!("the program to see {expected:?}"), || {
        Ok((fs::read_to_string(&path).ok().as_deref() == Some(expected)).then_some(()))
    })
}
