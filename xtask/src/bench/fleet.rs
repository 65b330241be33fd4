//! The numbers of a fleet: what the real server pays for real devices, and a device for its agent, each beside a peer
//! that can be had by the name of its package.
//!
//! A server is measured from outside, by `/proc`, and serves devices that are in another process. Start reading at
//! [`idle`].

mod agent;
mod broker;
mod change;
mod goosebit;
mod idle;
mod matching;
mod process;
mod registered;
mod rehearsal;
mod rollout;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use xshell::{Shell, cmd};

use super::Row;
use crate::ci::root;

/// The server under test, relative to the root.
const FLEETD: &str = "target/release/fleetd";
/// Its devices: `agent/examples/many_devices`.
const DEVICES: &str = "target/release/examples/many_devices";
/// An index over made-up devices: `actors/examples/match_devices.rs`.
const MATCHING: &str = "target/release/examples/match_devices";
/// Where servers and peers keep what they keep, relative to the root.
const WORKSHOP: &str = "target/bench";
/// Time in which thousands must have connected on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Time in which a process that says nothing of it surely listens.
const SOON: Duration = Duration::from_secs(2);

/// What measurements have in common.
struct Bench {
    shell: Shell,
    workshop: Workshop,
    /// Whether peers are measured too.
    with_peers: bool,
}

/// The place of all files that measurements leave, so that a failed one can be looked into.
struct Workshop(PathBuf);

impl Workshop {
    /// A directory in it, with nothing of an earlier measurement.
    fn empty_directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let directory = self.0.join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(directory)
    }
}

/// One measurement, and the rows that come of it.
pub(super) struct Measurement {
    names: &'static [&'static str],
    rows: fn(&Bench) -> anyhow::Result<Vec<Row>>,
}

/// `cargo xtask bench main`.
pub(super) const MAIN: [Measurement; 5] = [
    Measurement {
        names: &[
            "ram_per_idle_device",
            "connected_per_core",
            "enroll_per_cpu_second",
            "idle_bytes_nat",
            "reconnect_bytes",
        ],
        rows: idle::rows,
    },
    Measurement { names: &["idle_bytes_lan"], rows: idle::lan },
    Measurement { names: &["change_bytes", "change_latency"], rows: change::rows },
    Measurement { names: &["rollout_10k_cpu"], rows: rollout::rows },
    Measurement { names: &["agent_rss", "agent_shims", "agent_binary", "agent_flash_day"], rows: agent::rows },
];

/// `cargo xtask bench rollout`.
pub(super) const ROLLOUT: [Measurement; 5] = [
    Measurement { names: &["match_1m", "match_1m_cel"], rows: matching::rows },
    Measurement { names: &["idle_100k", "plan_100k_first", "plan_100k"], rows: registered::rows },
    Measurement { names: &["rehearse_10k"], rows: rehearsal::rows },
    Measurement { names: &["rollout_10k_cpu"], rows: rollout::rows },
    Measurement { names: &["rollout_10k_bad_day"], rows: rollout::bad_day },
];

/// Measures the rows that `only` names, or all of them.
pub(super) fn run(
    measurements: &[Measurement],
    only: &[String],
    with_peers: bool,
    print: &mut dyn FnMut(&Row) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let known: Vec<&str> = measurements.iter().flat_map(|measurement| measurement.names).copied().collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!("there is no row `{unknown}`; the rows are: {}", known.join(", "));
    }
    let shell = Shell::new().context("find the working folder")?;
    shell.change_dir(root());
    let packages = ["--package", "fleetd", "--package", "fleetd-agent", "--package", "fleetd-actors"];
    let examples = ["--bin", "fleetd", "--example", "many_devices", "--example", "match_devices"];
    cmd!(shell, "cargo build --release {packages...} --features fleetd-actors/cel {examples...}").run()?;
    let bench = Bench { shell, workshop: Workshop(root().join(WORKSHOP)), with_peers };
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    for measurement in measurements.iter().filter(|measurement| measurement.names.iter().any(|name| is_wanted(name))) {
        let rows = (measurement.rows)(&bench).with_context(|| format!("measure {}", measurement.names.join(", ")))?;
        for row in rows.iter().filter(|row| is_wanted(row.name)) {
            print(row)?;
        }
    }
    Ok(())
}
