//! The index over a large fleet, for measuring how fast it says which devices are meant: `cargo xtask bench rollout`
//! steers it, and reads what the process pays.
//!
//! The devices are made up; the index, selectors and conditions are the product's. It reads commands from standard
//! input, a line each, and answers each with a line of JSON: how many devices are meant, or there, as `live`.
//!
//! - `fill N`: puts devices into the index until there are `N`.
//! - `selector K TEXT`: asks `K` times which devices a selector means.
//! - `condition K TEXT`: asks it of a condition.
//!
//! It ends with its input.

#![expect(clippy::print_stdout, reason = "it answers who steers it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;

use fleetd_actors::targeting::index::TargetIndex;
use fleetd_actors::targeting::{Chosen, Condition, DeviceRow, Targets};
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::id::{DeviceId, LocalId};

/// Whatever ends the program: who steers it reads it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const CHANNELS: [&str; 4] = ["stable", "beta", "canary", "lab"];
const PLATFORMS: [&str; 3] = ["linux/arm64", "linux/amd64", "linux/riscv64"];
/// Devices of one site, and sites of one region.
const PER_SITE: u64 = 200;

fn main() -> Result<(), Failure> {
    let mut index = TargetIndex::default();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let said = match line.split_once(' ').unwrap_or((&line, "")) {
            ("fill", count) => {
                for number in index.len() as u64..count.parse()? {
                    index.put(&row(number)?);
                }
                index.len()
            }
            ("selector", rest) => {
                let (times, text) = rest.split_once(' ').ok_or("no selector")?;
                ask(&index, times.parse()?, Chosen { selector: Some(text.parse()?), ..Chosen::default() })?
            }
            ("condition", rest) => {
                let (times, text) = rest.split_once(' ').ok_or("no condition")?;
                let condition: Condition = text.parse()?;
                ask(&index, times.parse()?, Chosen { condition: Some(condition), ..Chosen::default() })?
            }
            _ => return Err(format!("`{line}` is no command").into()),
        };
        println!("{{\"live\":{said}}}");
    }
    Ok(())
}

/// Asks so many times which devices are meant, and returns how many are.
fn ask(index: &TargetIndex, times: u32, chosen: Chosen) -> Result<usize, Failure> {
    let targets = Targets::Some(chosen);
    let mut meant = None;
    for _ in 0..times {
        let found = index.select(&targets, &|_| false).meant.len();
        if meant.replace(found).is_some_and(|before| before != found) {
            return Err("the same question had two answers".into());
        }
    }
    meant.ok_or_else(|| "nothing was asked".into())
}

/// A device of the kind that a large fleet has many of: five labels, and the facts that agents send.
fn row(number: u64) -> Result<DeviceRow, Failure> {
    let pick = |among: &[&'static str]| {
        let place = usize::try_from(number)? % among.len();
        Ok::<_, Failure>((*among.get(place).ok_or("there is nothing to pick from")?).to_owned())
    };
    let platform = pick(&PLATFORMS)?;
    let site = number / PER_SITE;
    let labels = [
        ("channel", pick(&CHANNELS)?),
        ("site", format!("site-{site}")),
        ("region", format!("region-{}", site % 50)),
        ("rack", (number % 40).to_string()),
        ("owner", format!("team-{}", number % 7)),
    ];
    let facts = [
        ("platform", platform.clone()),
        ("memory_bytes", (256_u64 << (20 + number % 4)).to_string()),
        ("disk_bytes", (8_u64 << (30 + number % 3)).to_string()),
        ("cpu_cores", (1_u64 << (number % 4)).to_string()),
        ("model", format!("model-{}", number % 30)),
        ("serial", format!("SN-{number:09}")),
        ("hostname", format!("host-{number}")),
        ("agent_version", format!("0.{}.0", number % 5)),
    ];
    let mut local = [0; 16];
    // As the hashes that ids are: spread, so that neighbours in time are none in the order of ids.
    local[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let mut device = [0; 10];
    device[..8].copy_from_slice(&number.to_be_bytes());
    Ok(DeviceRow {
        local: LocalId::from_bytes(local),
        device: DeviceId::from_bytes(device),
        name: format!("otter-{number}").parse()?,
        site: format!("site-{site}"),
        labels: labels
            .into_iter()
            .map(|(key, value)| Ok((key.parse()?, value.parse()?)))
            .collect::<Result<_, Failure>>()?,
        facts: facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        platform: Some(platform.parse()?),
        free_bytes: None,
        releases: BTreeMap::new(),
        barred: None,
        refused: None,
        holds: Vec::new(),
        conflicts: BTreeSet::new(),
        rollouts: BTreeMap::new(),
        offline_since: None,
        revision: Revision::default(),
    })
}
