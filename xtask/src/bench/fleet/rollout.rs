//! What a server pays to bring a release to ten thousand devices.

use std::fs;
use std::time::Duration;

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

/// `rollout_10k_cpu`.
pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let server = Server::found(&bench.workshop, "rollout")?;
    let mut devices = server.devices("devices", DEVICES, &[])?;
    devices.live(DEVICES, PATIENCE)?;
    let plan = release(&server)?;
    std::thread::sleep(SETTLED);
    let before = server.process()?.cpu_seconds()?;
    // It follows the rollout as an operator does, and answers when every device has said that it is well.
    server.operate_to_the_end(&["rollout", "start", &plan, "--wait=30m"])?;
    let paid = server.process()?.cpu_seconds()? - before;
    let healthy = server.operate(&["rollout", "list"])?;
    anyhow::ensure!(healthy.to_string().contains("SUCCEEDED"), "the rollout did not succeed: {healthy}");
    let mut row = Row::new("rollout_10k_cpu", paid, "CPU-s, 1 KiB artifact", Target::AtMost(20.0));
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

/// Pushes a release, and plans to bring it to all. Returns the plan.
fn release(server: &Server) -> anyhow::Result<String> {
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
    let plan = server.operate(&["rollout", "plan", "coffee@1.0.0", "--all"])?;
    text_at(&plan, "/plan/id")
}
