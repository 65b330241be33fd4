//! How fast an index over a million devices says which of them are meant.

use std::process::Command;

use super::process::Clients;
use super::{Bench, MATCHING};
use crate::bench::{Row, Target};
use crate::ci::root;

const DEVICES: u32 = 1_000_000;
/// A selector that means a quarter of one region in fifty.
const SELECTOR: &str = "channel in (stable,beta), region=region-7, rack!=3";
/// Conditions that no index serves: each asks for two attributes at once, so that every device is looked at.
const CONDITIONS: [&str; 3] = [
    "facts.memory_bytes * 16 > facts.disk_bytes",
    "labels.channel + '-' + labels.region == 'beta-region-7'",
    "facts.model.startsWith('model-2') || labels.owner == 'team-3'",
];
/// So many times each is asked: the kernel counts hundredths of a second.
const TIMES_SELECTOR: u32 = 100;
const TIMES_CONDITION: u32 = 2;

/// `match_1m`, and `match_1m_cel` of the slowest of some conditions.
pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let directory = bench.workshop.empty_directory("matching")?;
    let mut index = Clients::start(&mut Command::new(root().join(MATCHING)), &directory.join("index.log"))?;
    let filled = index.ask(&format!("fill {DEVICES}"))?.live;
    anyhow::ensure!(filled == DEVICES, "the index has {filled} devices");
    let memory = index.process().memory_bytes("Rss")? / 1e6;
    let mut paid = |kind: &str, times: u32, text: &str| -> anyhow::Result<f64> {
        let before = index.process().cpu_seconds()?;
        let meant = index.ask(&format!("{kind} {times} {text}"))?.live;
        anyhow::ensure!(0 < meant && meant < DEVICES, "`{text}` means {meant} devices");
        Ok((index.process().cpu_seconds()? - before) / f64::from(times))
    };
    let selector = paid("selector", TIMES_SELECTOR, SELECTOR)? * 1000.0;
    let mut slowest = 0.0_f64;
    for condition in CONDITIONS {
        slowest = slowest.max(paid("condition", TIMES_CONDITION, condition)?);
    }
    let mut selector = Row::new("match_1m", selector, "CPU-ms, a selector", Target::AtMost(50.0));
    let mut condition = Row::new("match_1m_cel", slowest, "CPU-s, the slowest of 3", Target::AtMost(3.0));
    (selector.rss_mb, condition.rss_mb) = (Some(memory), Some(memory));
    Ok(vec![selector, condition])
}
