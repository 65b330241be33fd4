//! Draws a run's faults from its seed: first how often each kind happens in this run, then when and on whom.
//!
//! # Source
//! Groce et al., "Swarm Testing", ISSTA 2012: runs that each lack some features find more than runs that have all.

use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;

use crate::fault::{Fault, FaultKind, Target};
use crate::rehearsal;
use crate::scenario::{Scenario, SwarmRange, SwarmTargets};
use crate::world::World;

/// One run in so many has no fault of a kind at all.
const OFF_ONE_IN: u64 = 4;
const DAY_MS: u128 = 86_400_000;

/// Bits of a seed that say how often each kind of fault happens; those above them only when.
const BASE_BITS: u32 = 32;

/// The seed whose faults are as often as another's.
#[must_use]
pub const fn base_of(seed: u64) -> u64 {
    seed & ((1 << BASE_BITS) - 1)
}

/// A seed whose faults are as often as those of `base`, at other times and on others.
#[must_use]
pub const fn neighbour(base: u64, variation: u64) -> u64 {
    base_of(base) | (variation << BASE_BITS)
}

/// The faults of a seed. Neighbours share how often each kind happens, and nothing else.
#[must_use]
pub fn draw_of_seed(scenario: &Scenario, seed: u64) -> Vec<Fault> {
    let base = base_of(seed);
    let (often, when) = (World::new(base).entropy("swarm"), World::new(seed).entropy("swarm"));
    draw_from(scenario, &often, (base != seed).then_some(&when))
}

/// The faults of a run. They depend on the scenario and the seed alone, and each kind on its own stream.
#[must_use]
pub fn draw(scenario: &Scenario, entropy: &Entropy) -> Vec<Fault> {
    draw_from(scenario, entropy, None)
}

/// Draws how often from `entropy`, and when from a stream of its own if there is one.
fn draw_from(scenario: &Scenario, entropy: &Entropy, when: Option<&Entropy>) -> Vec<Fault> {
    if !scenario.faults.is_empty() {
        return scenario.faults.clone();
    }
    if let Some(rehearsal) = &scenario.rehearsal {
        return rehearsal::draw::faults(rehearsal, scenario.duration, when.unwrap_or(entropy));
    }
    let mut faults = Vec::new();
    for (kind, range) in &scenario.swarm {
        let purpose = format!("swarm {kind:?}");
        let mut stream = entropy.stream(&purpose);
        if stream.below(OFF_ONE_IN) > 0 {
            let per_day = between(range.per_day, &mut stream);
            let mut stream = when.map_or(stream, |when| when.stream(&purpose));
            draw_kind(scenario, *kind, per_day, &mut stream, &mut faults);
        }
    }
    faults.sort();
    faults
}

/// How many faults a seed of the scenario draws at most; those that it names itself, or that a rehearsal has, are not
/// drawn.
#[must_use]
pub fn faults_most(scenario: &Scenario) -> u64 {
    scenario.swarm.values().fold(0, |most, range| most.saturating_add(most_of_kind(scenario, range)))
}

/// How many faults of one kind a seed draws at most.
pub(crate) fn most_of_kind(scenario: &Scenario, range: &SwarmRange) -> u64 {
    let expected_parts =
        u128::from(range.per_day[1]) * u128::from(targets(scenario, range)) * scenario.duration.as_millis();
    u64::try_from(expected_parts.div_ceil(DAY_MS)).unwrap_or(u64::MAX)
}

/// How many there are that a kind may hit.
const fn targets(scenario: &Scenario, range: &SwarmRange) -> u32 {
    match range.on {
        SwarmTargets::Devices => scenario.devices,
        SwarmTargets::Sites => scenario.sites,
        SwarmTargets::Server => 1,
    }
}

fn draw_kind(scenario: &Scenario, kind: FaultKind, per_day: u64, entropy: &mut Entropy, faults: &mut Vec<Fault>) {
    let Some(range) = scenario.swarm.get(&kind) else { return };
    let targets = targets(scenario, range);
    let duration_ms = scenario.duration.as_millis();
    // The fraction that is left decides by a draw, so that a rare fault is rare and not absent.
    let expected_parts = u128::from(per_day) * u128::from(targets) * duration_ms;
    let whole = u64::try_from(expected_parts / DAY_MS).unwrap_or(u64::MAX);
    let rest = u64::try_from(expected_parts % DAY_MS).unwrap_or(0);
    let extra = u64::from(entropy.below(u64::try_from(DAY_MS).unwrap_or(u64::MAX)) < rest);
    for _ in 0..whole.saturating_add(extra) {
        let at = Duration::from_millis(entropy.below(u64::try_from(duration_ms).unwrap_or(u64::MAX)));
        let number = usize::try_from(entropy.below(u64::from(targets))).unwrap_or(0);
        let on = match range.on {
            SwarmTargets::Devices => Target::Device(number),
            SwarmTargets::Sites => Target::Site(number),
            SwarmTargets::Server => Target::Server,
        };
        let lasting = Duration::from_secs(between(range.lasting_s, entropy));
        faults.push(Fault { at, on, kind, lasting, value: between(range.value, entropy) });
    }
}

fn between([from, to]: [u64; 2], entropy: &mut Entropy) -> u64 {
    from + entropy.below((to - from).saturating_add(1))
}
