//! One change on its way to a device, in virtual time: the rows that no machine's speed has a part in.

use anyhow::Context as _;
use serde::Deserialize;
use xshell::cmd;

use super::Bench;
use crate::bench::{Row, Target};

/// What `simulator/examples/one_change.rs` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    latency_ms: f64,
    frame_bytes: f64,
}

/// `change_bytes`, `change_latency`.
pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    // The profile of the tests does: the world's time does not pass while processors work.
    let json = cmd!(bench.shell, "cargo run --quiet --package fleetd-simulator --example one_change").read()?;
    let change: Change = serde_json::from_str(&json).context("read what the simulator reports")?;
    Ok(vec![
        Row::new("change_bytes", change.frame_bytes, "B, one signed change", Target::AtMost(190.0)),
        Row::new("change_latency", change.latency_ms, "ms, 50 ms one way", Target::AtMost(50.0)),
    ])
}
