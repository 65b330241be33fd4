//! A set of seeds that ran one scenario, and what it came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::crypto::Crypto;
use crate::origin::Build;
use crate::run::{Failure, Outcome};
use crate::scenario::Scenario;

/// What a set of seeds came to. It is the JSON report, and what the page is made from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SetReport {
    /// The build that ran it.
    pub build: Build,
    /// The engine that ran it.
    pub engine: String,
    /// What became of signatures.
    pub crypto: Crypto,
    /// What was run, with everything that the caller changed.
    pub scenario: Scenario,
    /// Seeds that were asked for.
    pub seeds_asked: usize,
    /// Whether somebody stopped it before its end.
    pub is_partial: bool,
    /// How long it took by the clock on the wall, in milliseconds.
    pub wall_ms: u64,
    /// What all seeds took of the machine.
    pub spent: Spent,
    /// Events of all seeds.
    pub events: u64,
    /// Events in a second, all processes together.
    pub events_per_second: u64,
    /// What failed, in the order of the seeds.
    pub failures: Vec<SeedFailure>,
    /// Seeds that could not be run, and why.
    pub unrun: Vec<UnrunSeed>,
    /// The marks that were reached.
    pub marks: Vec<MarkCount>,
    /// The marks that no seed reached.
    pub never_reached: Vec<String>,
    /// Which inputs machines were given in the middle of what.
    pub coverage: Vec<PairCount>,
    /// Every run, in the order of the seeds.
    pub runs: Vec<Outcome>,
}

/// What runs took of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// Time of processors, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory that a process of one run held at once.
    pub rss_peak_bytes: u64,
}

impl Spent {
    /// This, and what another run took.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { cpu_ms: self.cpu_ms + other.cpu_ms, rss_peak_bytes: self.rss_peak_bytes.max(other.rss_peak_bytes) }
    }
}

/// A seed that failed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeedFailure {
    /// The seed.
    pub seed: u64,
    /// The command that runs it again.
    pub replay: String,
    /// The command that makes it smaller.
    pub shrink: String,
    /// The first device that is not as it should be, where one is.
    pub first_diverging: Option<String>,
    /// What went wrong.
    #[serde(flatten)]
    pub failure: Failure,
}

/// A seed that could not be run.
#[derive(Clone, Debug, Serialize)]
pub struct UnrunSeed {
    /// The seed.
    pub seed: u64,
    /// Why.
    pub why: String,
}

/// How often a mark was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarkCount {
    /// The mark.
    pub mark: String,
    /// Seeds in which it was reached.
    pub seeds: usize,
    /// How often, in all of them.
    pub count: u64,
}

/// In how many seeds a machine was given an input in the middle of something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PairCount {
    /// The machine, what it was in the middle of, and the input.
    pub pair: String,
    /// Seeds in which it was seen.
    pub seeds: usize,
}

/// What has to be known of a set besides its runs.
#[derive(Clone, Debug)]
pub struct SetFacts<'a> {
    /// The build.
    pub build: Build,
    /// What ran the actors.
    pub engine: String,
    /// What became of signatures.
    pub crypto: Crypto,
    /// What was run.
    pub scenario: Scenario,
    /// Seeds that were asked for.
    pub seeds_asked: usize,
    /// Whether somebody stopped it.
    pub is_partial: bool,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
    /// Seeds that could not be run.
    pub unrun: Vec<UnrunSeed>,
    /// What all seeds took of the machine.
    pub spent: Spent,
    /// The flags that a command needs besides the seed, with a blank before them.
    pub flags: &'a str,
    /// Every mark that there is.
    pub marks_known: &'a [&'a str],
}

impl SetReport {
    /// Adds runs up.
    #[must_use]
    pub fn new(facts: SetFacts<'_>, mut runs: Vec<Outcome>) -> Self {
        runs.sort_by_key(|run| run.seed);
        // They serve to compare two runs, and would be most of a report that compares none.
        runs.iter_mut().for_each(|run| run.checkpoints.clear());
        let coverage = coverage(&mut runs);
        let events = runs.iter().map(|run| run.events).sum::<u64>();
        let marks = marks(&runs);
        let is_reached = |known: &&&str| marks.iter().any(|reached| reached.mark == **known);
        let never = facts.marks_known.iter().filter(|known| !is_reached(known));
        let never_reached = never.map(|mark| (*mark).to_owned()).collect();
        let failures = runs.iter().filter_map(|run| failure(run, &facts)).collect();
        Self {
            engine: facts.engine,
            crypto: facts.crypto,
            events_per_second: events.saturating_mul(1000) / facts.wall_ms.max(1),
            events,
            failures,
            coverage,
            marks,
            never_reached,
            build: facts.build,
            scenario: facts.scenario,
            seeds_asked: facts.seeds_asked,
            is_partial: facts.is_partial,
            wall_ms: facts.wall_ms,
            unrun: facts.unrun,
            spent: facts.spent,
            runs,
        }
    }

    /// The runs that went on to their own end.
    pub fn finished(&self) -> impl Iterator<Item = &Outcome> {
        self.runs.iter().filter(|run| !run.is_partial)
    }

    /// Events in a second of one processor: what can be compared between machines that have other work too.
    #[must_use]
    pub fn events_per_cpu_second(&self) -> u64 {
        self.events.saturating_mul(1000) / self.spent.cpu_ms.max(1)
    }

    /// How long healed fleets took to converge, in milliseconds, the shortest first.
    #[must_use]
    pub fn convergence_ms(&self) -> Vec<u64> {
        let mut took: Vec<u64> = self.runs.iter().filter_map(|run| run.converged_after_ms).collect();
        took.sort_unstable();
        took
    }
}

fn marks(runs: &[Outcome]) -> Vec<MarkCount> {
    let mut marks: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for (mark, count) in runs.iter().flat_map(|run| &run.marks) {
        let (seeds, all) = marks.entry(mark).or_default();
        *seeds += 1;
        *all += count;
    }
    marks.into_iter().map(|(mark, (seeds, count))| MarkCount { mark: mark.to_owned(), seeds, count }).collect()
}

/// Adds up what every run has shown, and takes it out of them: it would be most of a report.
fn coverage(runs: &mut [Outcome]) -> Vec<PairCount> {
    let mut pairs: BTreeMap<String, usize> = BTreeMap::new();
    for pair in runs.iter_mut().flat_map(|run| std::mem::take(&mut run.coverage)) {
        *pairs.entry(pair).or_default() += 1;
    }
    pairs.into_iter().map(|(pair, seeds)| PairCount { pair, seeds }).collect()
}

fn failure(run: &Outcome, facts: &SetFacts<'_>) -> Option<SeedFailure> {
    let failure = run.violation.clone()?;
    let name = facts.build.name_of(run.seed);
    let node = &failure.violation.node;
    let first_diverging = Some(node.clone()).filter(|node| node.starts_with("device-"));
    let first_diverging = first_diverging.or_else(|| run.laggards.first().map(|(device, _)| device.clone()));
    Some(SeedFailure {
        seed: run.seed,
        replay: format!("fleetd sim replay {name}{}", facts.flags),
        shrink: format!("fleetd sim shrink {name}{}", facts.flags),
        first_diverging,
        failure,
    })
}
