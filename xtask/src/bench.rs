//! `cargo xtask bench`: the numbers of the design, measured on a release build of this tree.
//!
//! A row is `{name, value, unit, target, met}`, with `peers` where others were measured beside it, and `rss_mb` where the
//! server's memory counts. Speeds are per second of processor time, which other work on the machine changes little. Nothing here is a test: a row that misses its target is printed as a miss, and the command
//! fails only when something could not be measured.

mod fleet;
mod sim;

use clap::ValueEnum;
use serde::Serialize;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Server and agent: memory, processor time and bytes, beside peers.
    Main,
    /// Rollouts: which devices are meant, plans, a rehearsal, and ten thousand devices, also on a bad day.
    Rollout,
    /// The simulator: events, memory, handshakes and seeds.
    Sim,
}

/// On which side of its target a value has to lie.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

/// One number.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: &'static str,
    value: f64,
    unit: &'static str,
    target: String,
    met: bool,
    /// The most memory that the server held meanwhile, where that is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_mb: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peers: Vec<Peer>,
}

/// The same number of somebody else's software, measured by the same run.
#[derive(Clone, Debug, Serialize)]
struct Peer {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

impl Peer {
    fn measured(name: &str, value: f64) -> Self {
        Self { name: name.to_owned(), value: Some(value), skipped: None }
    }

    fn skipped(name: &str, reason: &anyhow::Error) -> Self {
        Self { name: name.to_owned(), value: None, skipped: Some(format!("{reason:#}")) }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.value, &self.skipped) {
            (Some(value), _) => write!(f, "{}: {}", self.name, rounded(value)),
            (None, reason) => write!(f, "{}: skipped, {}", self.name, reason.as_deref().unwrap_or("no value")),
        }
    }
}

impl Row {
    fn new(name: &'static str, value: f64, unit: &'static str, target: Target) -> Self {
        let told = match target {
            Target::AtLeast(least) => format!(">= {}", rounded(least)),
            Target::AtMost(most) => format!("<= {}", rounded(most)),
        };
        Self { name, value, unit, target: told, met: target.is_met(value), rss_mb: None, peers: Vec::new() }
    }
}

/// Measures, and prints a table, or one JSON object a line.
///
/// # Errors
/// When something could not be built or measured.
pub(crate) fn run(what: What, only: &[String], is_json: bool, with_peers: bool) -> anyhow::Result<()> {
    let print = |row: &Row| -> anyhow::Result<()> {
        if is_json {
            println!("{}", serde_json::to_string(row)?);
        } else {
            let verdict = if row.met { "met" } else { "MISSED" };
            println!("{:<22} {:>12} {:<28} {:>14}  {verdict}", row.name, rounded(row.value), row.unit, row.target);
            row.rss_mb
                .iter()
                .for_each(|rss| println!("{:<22} {:>12} MB, the server's memory at most", "", rounded(*rss)));
            row.peers.iter().for_each(|peer| println!("{:<22} {peer}", ""));
        }
        Ok(())
    };
    match what {
        What::Main => fleet::run(&fleet::MAIN, only, with_peers, &mut { print }),
        What::Rollout => fleet::run(&fleet::ROLLOUT, only, with_peers, &mut { print }),
        What::Sim => sim::run(only, &mut { print }),
    }
}

/// A number as people write it: three digits that count.
fn rounded(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_its_target_is_met() {
        assert!(Row::new("a", 2.0, "s", Target::AtLeast(2.0)).met);
        assert!(!Row::new("a", 2.1, "s", Target::AtMost(2.0)).met);
        assert_eq!(Row::new("a", 1.0, "s", Target::AtMost(0.45)).target, "<= 0.45");
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(rounded(123_456.7), "123457");
        assert_eq!(rounded(12.345), "12.3");
        assert_eq!(rounded(0.457), "0.46");
    }
}
