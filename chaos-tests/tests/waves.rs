//! A server that is killed while a rollout goes on wave by wave: it goes on, and no device is asked twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetd_chaos_tests::cluster::{Cluster, PATIENCE, with_cluster};
use fleetd_chaos_tests::process::within;
use serde_json::Value;

use crate::material::{COUNTING, next_random, random};

/// Time that a wave bakes, as it is said and as it is.
const BAKE: (&str, Duration) = ("2s", Duration::from_secs(2));
/// Time in which a release has to stay alive to be healthy.
const GRACE: (&str, Duration) = ("1s", Duration::from_secs(1));
/// How exactly the kernel notes when a process was started.
///
/// # Source
/// proc(5): ticks of `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);
/// The longest time between the end of one server and the next kill.
const NEXT_KILL_MS_MAX: u64 = 3000;

#[test]
fn a_server_killed_three_times_at_random_in_waves_of_ten_agents_goes_on() {
    kill_at_random(10, 3);
}

#[test]
#[ignore = "the same for long: `cargo xtask soak rollout`"]
fn a_server_killed_fifty_times_at_random_in_waves_of_twenty_agents_goes_on() {
    kill_at_random(20, 50);
}

#[test]
#[ignore = "every phase, which takes a minute: `cargo xtask soak rollout`"]
fn a_server_killed_in_each_phase_of_a_rollout_to_twenty_agents_goes_on() {
    kill_in_each_phase(20);
}

#[test]
fn who_watches_a_rollout_is_told_nothing_twice_when_the_server_comes_back() {
    with_cluster(|cluster| {
        prepare(cluster, 5)?;
        push(cluster, "1.1.0", "")?;
        let (rollout, waves) = start(cluster, "1.1.0", &["--approve-waves"])?;
        let path = cluster.path("watched.json");
        let mut command = cluster.command();
        command.args(["--json", "rollout", "watch", &rollout]).stdin(Stdio::null()).stdout(File::create(&path)?);
        let mut watch = command.spawn()?;
        let told = || -> anyhow::Result<Vec<Value>> {
            let text = fs::read_to_string(&path)?;
            Ok(text.split_inclusive('\n').filter_map(|line| serde_json::from_str(line).ok()).collect())
        };
        let is_waiting =
            |entry: &Value| entry["rollout"]["waves"][0]["state"] == "ROLLOUT_WAVE_STATE_AWAITING_APPROVAL";
        within(PATIENCE, "the watch to tell of a wave that waits", || {
            Ok(told()?.iter().any(is_waiting).then_some(()))
        })?;
        let before = told()?;
        ensure!(before.iter().filter(|entry| entry["device"].is_object()).count() >= 5, "{before:#?}");

        again(cluster)?;
        let is_whole = |entry: &Value| entry["snapshotComplete"].is_object();
        let after = within(PATIENCE, "the watch to go on", || {
            let after: Vec<Value> = told()?.split_off(before.len());
            Ok(after.iter().any(is_whole).then_some(after))
        })?;
        let devices: Vec<_> = after.iter().filter(|entry| entry["device"].is_object()).collect();
        ensure!(devices.is_empty(), "it told again of {devices:#?}");

        for wave in 2..=waves.len() {
            let waits = format!("wave {wave} to wait");
            cluster.until_rollout(&rollout, &waits, |show| {
                show["rollout"]["waves"][wave - 2]["state"] == "ROLLOUT_WAVE_STATE_AWAITING_APPROVAL"
            })?;
            cluster.json(&["rollout", "approve", &rollout])?;
        }
        check_end(cluster, &rollout, &waves, 1)?;
        ensure!(watch.wait()?.success(), "the watch of a rollout that succeeded fails");
        let last = told()?;
        let last = last.iter().rev().find(|entry| entry["rollout"].is_object()).context("it told of no rollout")?;
        ensure!(last["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED", "{last:#}");
        Ok(())
    });
}

/// Rolls releases out in waves, one after the other, until the server was killed so many times.
fn kill_at_random(agents: usize, kills: u32) {
    with_cluster(|cluster| {
        prepare(cluster, agents)?;
        let (mut killed, mut number, mut state) = (0, 0, random());
        while killed < kills {
            number += 1;
            let version = format!("1.{number}.0");
            push(cluster, &version, "")?;
            let (rollout, waves) = start(cluster, &version, &[])?;
            // A rollout has a beginning, a middle and an end; each kill finds it somewhere else.
            for _kill in 0..3.min(kills - killed) {
                state = next_random(state);
                std::thread::sleep(Duration::from_millis(state % NEXT_KILL_MS_MAX));
                again(cluster)?;
                killed += 1;
            }
            check_end(cluster, &rollout, &waves, number)?;
        }
        Ok(())
    });
}

/// Kills the server in each phase of one rollout that ends well, and of one that stops itself.
fn kill_in_each_phase(agents: usize) {
    with_cluster(|cluster| {
        prepare(cluster, agents)?;
        push(cluster, "1.1.0", "")?;
        let (rollout, waves) = start(cluster, "1.1.0", &["--approve-waves"])?;
        let wave = |show: &Value, number: usize| show["rollout"]["waves"][number - 1]["state"].clone();
        let until = |cluster: &Cluster, awaited: &str, is_so: &dyn Fn(&Value) -> bool| {
            cluster.until_rollout(&rollout, awaited, is_so)
        };
        // Before anybody has acknowledged.
        again(cluster)?;
        until(cluster, "devices to be at work", &|show| count(show, "installing") > 0)?;
        again(cluster)?;
        until(cluster, "the first wave to bake", &|show| wave(show, 1) == "ROLLOUT_WAVE_STATE_BAKING")?;
        again(cluster)?;
        let waits = |show: &Value| wave(show, 1) == "ROLLOUT_WAVE_STATE_AWAITING_APPROVAL";
        until(cluster, "somebody to be asked", &waits)?;
        again(cluster)?;
        let show = cluster.json(&["rollout", "show", &rollout])?;
        ensure!(waits(&show) && started(cluster, 1)?.len() == waves[&1].len(), "it did not wait: {show:#}");
        cluster.json(&["rollout", "approve", &rollout])?;
        again(cluster)?;
        cluster.json(&["rollout", "pause", &rollout, "--reason", "to see"])?;
        again(cluster)?;
        let show = cluster.json(&["rollout", "show", &rollout])?;
        ensure!(show["rollout"]["state"] == "ROLLOUT_STATE_PAUSED", "the pause is forgotten: {show:#}");
        cluster.json(&["rollout", "resume", &rollout])?;
        again(cluster)?;
        until(cluster, "the second wave to end", &|show| wave(show, 2) == "ROLLOUT_WAVE_STATE_AWAITING_APPROVAL")?;
        cluster.json(&["rollout", "approve", &rollout])?;
        check_end(cluster, &rollout, &waves, 1)?;

        cluster.push("1.2.0", b"#!/bin/sh\nexit 3\n", &["--grace", GRACE.0])?;
        let (bad, waves) = start(cluster, "1.2.0", &[])?;
        let is_halted = |show: &Value| show["rollout"]["state"] == "ROLLOUT_STATE_HALTED";
        cluster.until_rollout(&bad, "the bad release to be stopped", is_halted)?;
        again(cluster)?;
        std::thread::sleep(BAKE.1 + GRACE.1);
        let show = cluster.json(&["rollout", "show", &bad])?;
        let reached = count(&show, "restored") + count(&show, "failed");
        ensure!(is_halted(&show) && reached <= waves[&1].len(), "it went on after the halt: {show:#}");
        Ok(())
    });
}

fn prepare(cluster: &mut Cluster, agents: usize) -> anyhow::Result<()> {
    cluster.delegate()?;
    (0..agents).try_for_each(|_| cluster.add_agent().map(drop))
}

fn push(cluster: &Cluster, version: &str, more: &str) -> anyhow::Result<()> {
    let program = format!("{COUNTING}# {version} {more}\n");
    cluster.push(version, program.as_bytes(), &["--grace", GRACE.0, "--stop-grace", "1s"])
}

/// Kills the server, and starts it again.
fn again(cluster: &mut Cluster) -> anyhow::Result<()> {
    cluster.kill_server()?;
    cluster.start_server()
}

/// Starts a rollout in three waves; gives its id, and the agents of each wave as the plan has them.
fn start(cluster: &Cluster, version: &str, flags: &[&str]) -> anyhow::Result<(String, BTreeMap<u64, Vec<usize>>)> {
    let release = format!("coffee@{version}");
    let plan = ["rollout", "plan", &release, "--all", "--wave", "2", "--wave", "30%", "--wave", "rest"];
    let bake = ["--bake", BAKE.0, "--max-failed", "0"];
    let plan = cluster.json(&plan.iter().chain(&bake).chain(flags).copied().collect::<Vec<_>>())?;
    let devices = cluster.devices()?;
    let mut waves = BTreeMap::<u64, Vec<usize>>::new();
    for planned in plan["devices"].as_array().context("a plan without devices")? {
        let device = devices.iter().find(|device| device["name"] == planned["name"]).context("a planned stranger")?;
        let place = device["labels"]["place"].as_str().context("a device without its place")?.parse()?;
        waves.entry(planned["wave"].as_u64().unwrap_or_default()).or_default().push(place);
    }
    ensure!(waves.keys().eq(&[1, 2, 3]), "the plan has the waves {waves:?}");
    let plan = plan["plan"]["id"].as_str().context("a plan without an id")?;
    let started = cluster.json(&["rollout", "start", plan])?;
    Ok((started["id"].as_str().context("a rollout without an id")?.to_owned(), waves))
}

/// The agents on which the program was started so many times, with the time at which that was last, since the machine's start.
fn started(cluster: &Cluster, times: usize) -> anyhow::Result<BTreeMap<usize, Duration>> {
    let mut found = BTreeMap::new();
    for (number, agent) in cluster.agents.iter().enumerate() {
        let path = agent.workload_directory().join("started");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        ensure!(text.lines().count() <= times, "agent {number} started it too often: {text}");
        if text.lines().count() == times {
            let process = text.lines().last().unwrap_or_default();
            found.insert(number, process_start(process).with_context(|| format!("agent {number}'s {process}"))?);
        }
    }
    Ok(found)
}

/// Waits for the rollout's good end, and asks the devices' own disks: each started the release once, and each wave after
/// the one before it was healthy and had baked.
fn check_end(cluster: &Cluster, rollout: &str, waves: &BTreeMap<u64, Vec<usize>>, starts: usize) -> anyhow::Result<()> {
    let show = cluster.until_rollout(rollout, "it to end well", |show| {
        show["rollout"]["state"] == "ROLLOUT_STATE_SUCCEEDED" && count(show, "healthy") == cluster.agents.len()
    })?;
    ensure!(show["rollout"]["attempt"] == 1, "it was tried again: {show:#}");
    let started = started(cluster, starts)?;
    ensure!(started.len() == cluster.agents.len(), "only {started:?} run it");
    let mut last: Option<Duration> = None;
    for (wave, agents) in waves {
        for agent in agents {
            let since = last.map(|last| started[agent].saturating_sub(last));
            let is_after = since.is_none_or(|since| since + TICK >= BAKE.1 + GRACE.1);
            ensure!(is_after, "agent {agent} of wave {wave} began {since:?} after the last of the wave before");
        }
        last = agents.iter().map(|agent| started[agent]).max();
    }
    Ok(())
}

/// When a process was started, by the kernel's word: when it comes to say so itself depends on what else the machine does.
fn process_start(process: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is a name in brackets, which may hold anything; the start is the twenty-second.
    let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).context("a start")?;
    Ok(TICK * field.parse::<u32>()?)
}

fn count(show: &Value, what: &str) -> usize {
    show["rollout"]["counts"][what].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
}
