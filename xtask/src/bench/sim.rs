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

/// The row that is measured without a scenario.
const QUIC: &str = "sim_quic";

/// One measurement: what is run, and the row that comes of it.
struct Measurement {
    name: &'static str,
    flags: &'static str,
    row: fn(&Report) -> Row,
}

const MEASUREMENTS: [Measurement; 5] = [
    Measurement {
        name: "sim_direct",
        flags: "--scenario calm --devices 100000 --seeds 1 --crypto counted",
        row: |report| {
            Row::new("sim_direct", report.events_per_cpu_second(), "events/CPU-s", Target::AtLeast(2_000_000.0))
        },
    },
    Measurement {
        name: "sim_direct_1m",
        flags: "--scenario calm --devices 1000000 --seeds 1 --crypto counted",
        row: |report| Row::new("sim_direct_1m", report.rss_gib(), "GiB", Target::AtMost(2.0)),
    },
    Measurement {
        name: "sim_ractor",
        flags: "--scenario calm --devices 10000 --seeds 1 --engine ractor --crypto counted",
        row: |report| {
            Row::new("sim_ractor", report.events_per_cpu_second(), "events/CPU-s", Target::AtLeast(450_000.0))
        },
    },
    Measurement {
        name: "sim_ractor_100k",
        flags: "--scenario calm --devices 100000 --seeds 1 --engine ractor --crypto counted",
        row: |report| Row::new("sim_ractor_100k", report.rss_gib(), "GiB", Target::AtMost(1.2)),
    },
    Measurement {
        name: "sim_seeds",
        flags: "--scenario day --devices 100 --seeds 20 --seed 1",
        row: |report| Row::new("sim_seeds", report.seeds_per_cpu_minute(), "seeds/CPU-minute", Target::AtLeast(1000.0)),
    },
];

/// Measures the rows that `only` names, or all of them.
pub(super) fn run(only: &[String], print: &mut dyn FnMut(&Row) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let known: Vec<&str> = MEASUREMENTS.iter().map(|measurement| measurement.name).chain([QUIC]).collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        anyhow::bail!("there is no row `{unknown}`; the rows are: {}", known.join(", "));
    }
    let shell = Shell::new().context("find the working folder")?;
    shell.change_dir(root());
    cmd!(shell, "cargo build --release").run()?;
    let is_wanted = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    for measurement in MEASUREMENTS.iter().filter(|measurement| is_wanted(measurement.name)) {
        let flags = measurement.flags.split_whitespace();
        let json = cmd!(shell, "target/release/fleetd sim run --json --jobs 1 {flags...}").quiet().read()?;
        let report: Report = serde_json::from_str(&json).context("read what the simulator reports")?;
        anyhow::ensure!(
            report.failures.is_empty() && report.unrun.is_empty() && !report.runs.is_empty(),
            "{}: the run failed; see `fleetd sim run {}`",
            measurement.name,
            measurement.flags
        );
        print(&(measurement.row)(&report))?;
    }
    if is_wanted(QUIC) {
        let json = cmd!(shell, "target/release/fleetd --json sim bench-quic").quiet().read()?;
        let found: Handshakes = serde_json::from_str(&json).context("read what the simulator reports")?;
        anyhow::ensure!(found.connected == found.connections, "{QUIC}: not every device was answered: {found:?}");
        print(&Row::new(QUIC, found.per_cpu_second, "handshakes/CPU-s", Target::AtLeast(1200.0)))?;
    }
    Ok(())
}
