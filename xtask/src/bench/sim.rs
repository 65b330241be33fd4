//! The simulator's numbers.

use anyhow::Context as _;
use serde::Deserialize;
use xshell::{Shell, cmd};

use super::{Row, Target};
use crate::ci::root;

/// What `fleetd sim run --json` says of a set of runs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    events: u64,
    spent: Spent,
    failures: Vec<serde_json::Value>,
    unrun: Vec<serde_json::Value>,
    runs: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spent {
    cpu_ms: f64,
    rss_peak_bytes: f64,
}

impl Report {
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    fn events_per_cpu_second(&self) -> f64 {
        self.events as f64 * 1000.0 / self.spent.cpu_ms.max(1.0)
    }

    fn rss_gib(&self) -> f64 {
        self.spent.rss_peak_bytes / f64::from(1 << 30)
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    fn seeds_per_cpu_minute(&self) -> f64 {
        self.runs.len() as f64 * 60_000.0 / self.spent.cpu_ms.max(1.0)
    }
}

/// What `fleetd sim bench-quic --json` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handshakes {
    connections: u32,
    connected: u32,
    per_cpu_second: f64,
}

/// What `fleetd sim bench-rehearsal --json` says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wave {
    devices: usize,
    healthy: usize,
    cpu_seconds: f64,
}

/// The rows that are measured by commands of their own.
const QUIC: &str = "sim_quic";
const REHEARSAL: &str = "sim_rehearsal";

/// One measurement: what is run, and the rows that come of it.
struct Measurement {
    names: &'static [&'static str],
    flags: &'static str,
    rows: fn(&Report) -> Vec<Row>,
}

/// Devices of the large runs. A simulated device has a whole node, store and disk, so that the design's hundred thousand
/// and a million do not fit the machines that this runs on: what those would hold is told from these.
const DEVICES: f64 = 10_000.0;

const MEASUREMENTS: [Measurement; 4] = [
    Measurement {
        names: &["sim_direct", "sim_direct_1m"],
        flags: "--scenario calm --devices 10000 --seeds 1 --seed 1 --crypto counted",
        rows: |report| {
            let (events, memory) = (report.events_per_cpu_second(), report.rss_gib() * 1_000_000.0 / DEVICES);
            vec![
                Row::new("sim_direct", events, "events/CPU-s, 10,000", Target::AtLeast(2_000_000.0)),
                Row::new("sim_direct_1m", memory, "GiB, told from 10,000", Target::AtMost(2.0)),
            ]
        },
    },
    Measurement {
        names: &["sim_ractor", "sim_ractor_100k"],
        flags: "--scenario calm --devices 10000 --seeds 1 --seed 1 --engine ractor --crypto counted",
        rows: |report| {
            let (events, memory) = (report.events_per_cpu_second(), report.rss_gib() * 100_000.0 / DEVICES);
            vec![
                Row::new("sim_ractor", events, "events/CPU-s", Target::AtLeast(450_000.0)),
                Row::new("sim_ractor_100k", memory, "GiB, told from 10,000", Target::AtMost(1.2)),
            ]
        },
    },
    Measurement {
        names: &["sim_seeds"],
        flags: "--scenario day --devices 100 --seeds 20 --seed 1",
        rows: |report| {
            vec![Row::new("sim_seeds", report.seeds_per_cpu_minute(), "seeds/CPU-minute", Target::AtLeast(1000.0))]
        },
    },
    Measurement {
        names: &["sim_seeds_counted"],
        flags: "--scenario day --devices 100 --seeds 20 --seed 1 --crypto counted",
        rows: |report| {
            let seeds = report.seeds_per_cpu_minute();
            vec![Row::new("sim_seeds_counted", seeds, "seeds/CPU-minute", Target::AtLeast(1000.0))]
        },
    },
];

/// Measures the rows that `only` names, or all of them.
pub(super) fn run(only: &[String], print: &mut dyn FnMut(&Row) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let known: Vec<&str> =
        MEASUREMENTS.iter().flat_map(|measurement| measurement.names).copied().chain([REHEARSAL, QUIC]).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!("there is no row `{unknown}`; the rows are: {}", known.join(", "));
    }
    let shell = Shell::new().context("find the working folder")?;
    shell.change_dir(root());
    cmd!(shell, "cargo build --release").run()?;
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    for measurement in &MEASUREMENTS {
        if !measurement.names.iter().any(|name| is_wanted(name)) {
            continue;
        }
        let flags = measurement.flags.split_whitespace();
        let json = cmd!(shell, "target/release/fleetd sim run --json --jobs 1 {flags...}").quiet().read()?;
        let report: Report = serde_json::from_str(&json).context("read what the simulator reports")?;
        anyhow::ensure!(
            report.failures.is_empty() && report.unrun.is_empty() && !report.runs.is_empty(),
            "{}: the run failed; see `fleetd sim run {}`",
            measurement.names.join(", "),
            measurement.flags
        );
        for row in (measurement.rows)(&report).iter().filter(|row| is_wanted(row.name)) {
            print(row)?;
        }
    }
    if is_wanted(REHEARSAL) {
        let json = cmd!(shell, "target/release/fleetd --json sim bench-rehearsal --crypto counted").quiet().read()?;
        let found: Wave = serde_json::from_str(&json).context("read what the simulator reports")?;
        anyhow::ensure!(found.healthy == found.devices, "{REHEARSAL}: not every device was updated: {found:?}");
        print(&Row::new(REHEARSAL, found.cpu_seconds, "CPU-s, a wave over 10,000", Target::AtMost(30.0)))?;
    }
    if is_wanted(QUIC) {
        let json = cmd!(shell, "target/release/fleetd --json sim bench-quic").quiet().read()?;
        let found: Handshakes = serde_json::from_str(&json).context("read what the simulator reports")?;
        anyhow::ensure!(found.connected == found.connections, "{QUIC}: not every device was answered: {found:?}");
        print(&Row::new(QUIC, found.per_cpu_second, "handshakes/CPU-s", Target::AtLeast(1200.0)))?;
    }
    Ok(())
}
