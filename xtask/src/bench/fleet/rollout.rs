//! What a server pays to bring a release to ten thousand devices.

use std::fs;
use std::time::{Duration, Instant};

use super::goosebit;
use super::server::{Server, text_at};
use super::{Bench, PATIENCE};
use crate::bench::{Peer, Row, Target};

/// Devices of the rollout.
const DEVICES: u32 = 10_000;
/// Bytes of the artifact.
const ARTIFACT_BYTES: usize = 1024;
/// Time after which nothing is left of the connecting.
const SETTLED: Duration = Duration::from_secs(45);
/// Devices that are away on a bad day, and on which of them the release fails.
const AWAY: u32 = 1000;
const FAILING_EVERY: &str = "100";
/// Time between two looks at a rollout that is to be interrupted.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `rollout_10k_cpu`.
pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let server = Server::found(&bench.workshop, "rollout")?;
    let mut devices = server.devices("devices", DEVICES, &[])?;
    devices.live(DEVICES, PATIENCE)?;
    let plan = plan(&server, &[])?;
    std::thread::sleep(SETTLED);
    let before = server.process()?.cpu_seconds()?;
    // It follows the rollout as an operator does, and answers when every device has said that it is well.
    server.operate_to_the_end(&["rollout", "start", &plan, "--wait=30m"])?;
    let paid = server.process()?.cpu_seconds()? - before;
    let healthy = server.operate(&["rollout", "list"])?;
    anyhow::ensure!(healthy.to_string().contains("SUCCEEDED"), "the rollout did not succeed: {healthy}");
    let mut row = Row::new("rollout_10k_cpu", paid, "CPU-s, 1 KiB artifact", Target::AtMost(20.0));
    row.rss_mb = Some(server.process()?.memory_bytes_at_most()? / 1e6);
    drop((devices, server));
    if !bench.with_peers {
        return Ok(vec![row]);
    }
    row.peers.push(match goosebit::measure(bench, ARTIFACT_BYTES) {
        Ok((name, paid)) => Peer::measured(&name, paid.update * f64::from(DEVICES)),
        Err(error) => Peer::skipped(goosebit::PACKAGE, &error),
    });
    Ok(vec![row])
}

/// `rollout_10k_bad_day`: one device in ten is away, the release fails on one in a hundred, and the server is killed when
/// half of the devices are done. What the second server pays for nine thousand devices that come back is counted.
pub(super) fn bad_day(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut server = Server::found(&bench.workshop, "bad-day")?;
    let mut devices = server.devices("devices", DEVICES, &["--failing-every", FAILING_EVERY])?;
    devices.live(DEVICES, PATIENCE)?;
    devices.ask("stop")?;
    devices.live(DEVICES - AWAY, PATIENCE)?;
    let plan = plan(&server, &["--max-failed", "2%"])?;
    std::thread::sleep(SETTLED);
    let before = server.process()?.cpu_seconds()?;
    let started = server.operate(&["rollout", "start", &plan])?;
    let rollout = text_at(&started, "/id")?;
    let healthy = |server: &Server| -> anyhow::Result<(u64, String)> {
        let shown = server.operate(&["rollout", "show", &rollout, "--state", "failed"])?;
        let healthy = shown.pointer("/rollout/counts/healthy").and_then(serde_json::Value::as_u64);
        Ok((healthy.unwrap_or_default(), text_at(&shown, "/rollout/state")?))
    };
    let begin = Instant::now();
    while healthy(&server)?.0 < u64::from(DEVICES / 2) {
        anyhow::ensure!(begin.elapsed() < PATIENCE, "half of the devices were never done: {:?}", healthy(&server)?);
        std::thread::sleep(LOOK_AGAIN);
    }
    let memory = server.process()?.memory_bytes_at_most()?;
    let first = server.kill_and_start()? - before;
    server.operate_to_the_end(&["rollout", "watch", &rollout, "--timeout", "30m"])?;
    let (done, state) = healthy(&server)?;
    let expected = u64::from((DEVICES - AWAY) / 100 * 99);
    anyhow::ensure!(done == expected, "{done} devices are healthy, not {expected}; the rollout is {state}");
    let paid = first + server.process()?.cpu_seconds()?;
    let mut row = Row::new("rollout_10k_bad_day", paid, "CPU-s, both servers", Target::AtMost(20.0));
    row.rss_mb = Some(memory.max(server.process()?.memory_bytes_at_most()?) / 1e6);
    Ok(vec![row])
}

/// Pushes a release, and plans to bring it to all. Returns the plan.
fn plan(server: &Server, flags: &[&str]) -> anyhow::Result<String> {
    let release = push(server)?;
    let plan: Vec<&str> = ["rollout", "plan", &release, "--all"].iter().chain(flags).copied().collect();
    text_at(&server.operate(&plan)?, "/plan/id")
}

/// Pushes a release, and says which.
pub(super) fn push(server: &Server) -> anyhow::Result<String> {
    let path = |name: &str| server.path(name).display().to_string();
    let (key, public, program) = (path("release.key"), path("release.pub"), path("program"));
    let mut content = b"#!/bin/sh\n# ".to_vec();
    content.resize(ARTIFACT_BYTES, b'x');
    fs::write(&program, content)?;
    server.operate(&["key", "create", &key])?;
    let root = server.root_key();
    server.operate(&["trust", "delegate", &public, "--role", "release", "--workload", "coffee", "--root", root])?;
    let artifact = format!("linux/amd64={program}");
    server.operate(&[
        "release",
        "push",
        "coffee@1.0.0",
        "--artifact",
        &artifact,
        "--key",
        &key,
        "--probe",
        "notify",
    ])?;
    Ok("coffee@1.0.0".to_owned())
}
