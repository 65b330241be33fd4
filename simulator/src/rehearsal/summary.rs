//! What many seeds of a rehearsal come to: the answers that an operator wants before a rollout is started.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_actors::rollout::plan::{Plan, Verdict};
use fleetd_actors::rollout::status::RolloutPhase;
use fleetd_sync_core::counted::Counted;
use serde::Serialize;

use super::course::{DeviceCourse, DeviceEnd, Rehearsed};
use super::gates::{self, Halts, Stopped, WaveFigures};
use super::{Rehearsal, RehearsalError, Share};
use crate::clock::new_year_2026;
use crate::fault::Target;
use crate::origin::Build;
use crate::report::band::percentile;
use crate::report::markup::span;
use crate::run::{Failure, Outcome};
use crate::scenario::Scenario;
use crate::set::UnrunSeed;

/// Devices that are named as late: the rest is in the runs.
const LATE_MAX: usize = 10;
/// The window in which traffic is called busy, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// A number in many seeds: the middle of them, and where nine of ten lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// One seed in twenty has less.
    pub low: u64,
    /// The median.
    pub median: u64,
    /// One seed in twenty has more.
    pub high: u64,
}

impl Spread {
    /// The spread of some numbers; nothing of none.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut numbers: Vec<u64> = numbers.into_iter().collect();
        numbers.sort_unstable();
        let at = |percent| percentile(&numbers, percent);
        Some(Self { low: at(5)?, median: at(50)?, high: at(95)? })
    }
}

/// What a rehearsal came to. It is the JSON answer, and what words and page are made from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalReport {
    /// The plan.
    pub plan_id: String,
    /// The workload that it brings.
    pub workload: String,
    /// The version.
    pub version: String,
    /// The build that ran it.
    pub build: Build,
    /// What was assumed.
    pub assumed: Assumed,
    /// Seeds that were asked for.
    pub seeds_asked: usize,
    /// Seeds that were rehearsed to their end.
    pub seeds: usize,
    /// Whether somebody stopped it before its end.
    pub is_partial: bool,
    /// How long it took by the clock on the wall, in milliseconds.
    pub wall_ms: u64,
    /// Devices that were copied.
    pub devices: usize,
    /// What the plan means for how many.
    pub counts: Counts,
    /// Who is left out, and why.
    pub blocked: Vec<Blocked>,
    /// How the rollout ends, in how many seeds, the most frequent first.
    pub ends: Vec<End>,
    /// When it ends, in milliseconds after its start.
    pub ended_ms: Option<Spread>,
    /// Each wave, and how likely the gate behind it is to halt.
    pub waves: Vec<WaveFigures>,
    /// All halts together, and how far the release had come by then.
    pub halts: Halts,
    /// What an operator's stop of the whole fleet comes to, if it was asked for.
    pub stopped: Option<Stopped>,
    /// When devices have the release.
    pub update: Update,
    /// What a release that crashes does, if it was asked for.
    pub bad: Option<Bad>,
    /// What is carried between the server and devices.
    pub traffic: Traffic,
    /// Devices that have the release last, or not at all, the latest first.
    pub late: Vec<Late>,
    /// What follows from the numbers, if something does.
    pub advice: Option<String>,
    /// What broke.
    pub failures: Vec<RehearsalFailure>,
    /// Seeds that could not be run, and why.
    pub unrun: Vec<UnrunSeed>,
    /// Every seed.
    pub runs: Vec<SeedLine>,
}

/// What was assumed of the world.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assumed {
    /// The date at which the rollout starts, by every clock of the copy, in milliseconds since 1970.
    pub starts_at_ms: i64,
    /// How long was looked, at most, in milliseconds.
    pub for_ms: u64,
    /// When an operator stops the whole fleet, in milliseconds after the start, if somebody does.
    pub stop_after_ms: Option<u64>,
    /// How long it takes until somebody approves a wave, in milliseconds; nothing where nobody has to.
    pub approve_after_ms: Option<u64>,
    /// Which of the devices that can be reached go away.
    pub offline: Share,
    /// On which devices the release crashes.
    pub fail: Share,
    /// How many frames are lost, from and to.
    pub loss: [Share; 2],
    /// How long a frame takes one way, from and to, in milliseconds.
    pub latency_ms: [u64; 2],
    /// What a device's link carries, in bytes a second.
    pub bandwidth: Option<u64>,
}

/// What a plan means for how many devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All that are meant.
    pub matched: usize,
    /// Those that get the release in place of another one.
    pub update: usize,
    /// Those that get the workload for the first time.
    pub install: usize,
    /// Those that have the release.
    pub unchanged: usize,
    /// Those that are left out.
    pub blocked: usize,
    /// Among update and install: those that cannot be reached now.
    pub offline: usize,
}

/// A device that is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Blocked {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Why, in a word.
    pub by: String,
    /// The same for people.
    pub reason: String,
}

/// How a rollout ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// `succeeded`, `failed`, or `running` where it had not ended.
    pub phase: String,
    /// In how many seeds.
    pub seeds: usize,
    /// Why, in the words of one of them.
    pub reason: String,
}

/// When devices have the release.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// How many have it at the end.
    pub healthy: Spread,
    /// Within which time half of all devices of all seeds have it; nothing when they never do.
    pub median_ms: Option<u64>,
    /// The same of 95 of 100.
    pub p95_ms: Option<u64>,
    /// How many of 100 devices of all seeds have it at the end.
    pub percent: u64,
    /// How many are still away at the end, and follow.
    pub following: Spread,
    /// How many went away while they were at work, so that the rollout counted them as failed.
    pub silent: Spread,
    /// How many hold it, and do not run it until an operator lets them.
    pub stopped: Spread,
}

/// What a release that crashes does.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bad {
    /// On how many devices it ran.
    pub ran: Spread,
    /// How many have the one before it again.
    pub restored: Spread,
    /// How many have nothing that runs, since they had nothing before it.
    pub broken: Spread,
    /// How long a device ran it, until it was known to be over, in milliseconds.
    pub exposed_ms: Option<Spread>,
    /// The most devices that ran it at once.
    pub at_once: Spread,
}

/// What is carried between the server and devices.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// In all, artifacts with their real size.
    pub total_bytes: Spread,
    /// In the busiest minute.
    pub busiest_minute_bytes: Spread,
    /// When that begins, in milliseconds after the start.
    pub busiest_minute_at_ms: Spread,
}

/// A device that has the release late.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Late {
    /// Its name.
    pub name: String,
    /// Its site.
    pub site: String,
    /// Seeds in which it has the release at the end.
    pub seeds: usize,
    /// Seeds that could have brought it: those that did not make the release crash there.
    pub of: usize,
    /// When, in the median of those.
    pub median_ms: Option<u64>,
    /// For how long it has not been heard, in milliseconds, if it is away now.
    pub away_ms: Option<u64>,
}

/// A seed in which something broke.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RehearsalFailure {
    /// The seed.
    pub seed: u64,
    /// The command that runs it again.
    pub replay: String,
    /// The device that it is about, by its name in the fleet.
    pub device: Option<String>,
    /// What went wrong.
    #[serde(flatten)]
    pub failure: Failure,
}

/// One seed in a line.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeedLine {
    /// The seed.
    pub seed: u64,
    /// How the rollout ended.
    pub phase: String,
    /// When, in milliseconds after its start.
    pub ended_ms: Option<u64>,
    /// Devices that have the release.
    pub healthy: usize,
    /// Devices that are away, and follow.
    pub following: usize,
    /// Devices that have the release before it again.
    pub restored: usize,
    /// Bytes between server and devices.
    pub traffic_bytes: u64,
    /// Events of the run.
    pub events: u64,
    /// The hash over all of them.
    pub trace: String,
}

/// What has to be known of a rehearsal besides its runs.
#[derive(Clone, Debug)]
pub struct RehearsalFacts<'a> {
    /// The build.
    pub build: Build,
    /// What was run.
    pub scenario: &'a Scenario,
    /// Seeds that were asked for.
    pub seeds_asked: usize,
    /// Whether somebody stopped it.
    pub is_partial: bool,
    /// How long it took, in milliseconds.
    pub wall_ms: u64,
    /// Seeds that could not be run.
    pub unrun: Vec<UnrunSeed>,
    /// The flags that a replay needs besides the seed, with a blank before them.
    pub flags: &'a str,
}

/// One finished seed.
pub(crate) struct Seed<'a> {
    pub(crate) outcome: &'a Outcome,
    pub(crate) rehearsed: &'a Rehearsed,
}

/// The seeds that were rehearsed to their end.
pub(crate) fn finished(runs: &[Outcome]) -> Vec<Seed<'_>> {
    let ended = runs.iter().filter(|run| !run.is_partial && run.violation.is_none());
    ended.filter_map(|outcome| Some(Seed { outcome, rehearsed: outcome.rehearsed.as_ref()? })).collect()
}

impl Seed<'_> {
    pub(super) fn count(&self, is_so: impl Fn(&DeviceCourse) -> bool) -> u64 {
        u64::try_from(self.rehearsed.devices.iter().filter(|course| is_so(course)).count()).unwrap_or(u64::MAX)
    }

    fn ended(&self, end: DeviceEnd) -> u64 {
        self.count(|course| course.end == end)
    }

    /// Those that have not come to an end, and whose rollout goes on or has ended well: a halt keeps them from it.
    fn following(&self) -> u64 {
        let is_kept = self.rehearsed.phase == RolloutPhase::Halted.to_string();
        self.count(|course| !(course.end.is_final() || (is_kept && course.end == DeviceEnd::Waiting)))
    }

    fn total_bytes(&self) -> u64 {
        self.rehearsed.traffic_bytes.values().sum()
    }

    /// The busiest minute: its bytes, and when it begins.
    fn busiest_minute(&self) -> (u64, u64) {
        let slot_ms = self.rehearsed.slot_ms.max(1);
        let slots = (MINUTE_MS / slot_ms).max(1);
        let traffic = &self.rehearsed.traffic_bytes;
        let minute =
            |first: u64| traffic.range(first..first.saturating_add(slots)).map(|(_, bytes)| bytes).sum::<u64>();
        let minutes = traffic.keys().map(|first| (minute(*first), *first));
        // Of equal ones the first.
        let busiest = minutes.max_by_key(|(bytes, first)| (*bytes, std::cmp::Reverse(*first))).unwrap_or_default();
        (busiest.0, busiest.1 * slot_ms)
    }

    /// The most devices that ran a release at once that crashes.
    fn bad_at_once(&self) -> u64 {
        let mut changes: Vec<(u64, i64)> = Vec::new();
        for course in self.rehearsed.devices.iter().filter(|course| course.is_bad) {
            let Some(ran_ms) = course.ran_ms else { continue };
            changes.push((ran_ms, 1));
            if let Some(end_ms) = course.end_ms.filter(|_| course.end.is_final()) {
                changes.push((end_ms, -1));
            }
        }
        changes.sort_unstable();
        let mut running = 0_i64;
        let most = changes
            .into_iter()
            .map(|(_, change)| {
                running += change;
                running
            })
            .max();
        u64::try_from(most.unwrap_or(0)).unwrap_or(0)
    }
}

impl RehearsalReport {
    /// Adds runs up.
    ///
    /// # Errors
    /// [`RehearsalError`] when the scenario is no rehearsal whose plan can be read.
    pub fn new(facts: RehearsalFacts<'_>, runs: &mut [Outcome]) -> Result<Self, RehearsalError> {
        runs.sort_by_key(|run| run.seed);
        let none = RehearsalError::Scenario { key: "rehearsal", problem: "is missing".to_owned() };
        let rehearsal = facts.scenario.rehearsal.as_ref().ok_or(none)?;
        let plan = rehearsal.read_plan()?;
        let seeds = finished(runs);
        let spread = |value: &dyn Fn(&Seed<'_>) -> u64| Spread::of(seeds.iter().map(value)).unwrap_or_default();
        let mut report = Self {
            plan_id: plan.id.to_string(),
            workload: plan.release.workload.to_string(),
            version: plan.release.version.to_string(),
            assumed: Assumed {
                starts_at_ms: facts.scenario.begins().unwrap_or_else(new_year_2026).0,
                for_ms: milliseconds(facts.scenario.duration),
                stop_after_ms: rehearsal.stop_after.map(milliseconds),
                approve_after_ms: plan.strategy.approve_waves.then(|| milliseconds(rehearsal.approve_after)),
                offline: rehearsal.offline,
                fail: rehearsal.fail,
                loss: rehearsal.loss,
                latency_ms: facts.scenario.latency_ms,
                bandwidth: rehearsal.bandwidth,
            },
            seeds_asked: facts.seeds_asked,
            seeds: seeds.len(),
            is_partial: facts.is_partial,
            wall_ms: facts.wall_ms,
            devices: rehearsal.devices.len(),
            counts: counts(&plan),
            blocked: blocked(&plan),
            ends: ends(&seeds),
            ended_ms: Spread::of(seeds.iter().filter_map(|seed| seed.rehearsed.ended_ms)),
            waves: gates::waves(&plan, &seeds),
            halts: gates::halts(&seeds),
            stopped: gates::stopped(&seeds),
            update: update(&seeds),
            bad: (!rehearsal.fail.is_none() && !seeds.is_empty()).then(|| bad(&seeds)),
            traffic: Traffic {
                total_bytes: spread(&|seed| seed.total_bytes()),
                busiest_minute_bytes: spread(&|seed| seed.busiest_minute().0),
                busiest_minute_at_ms: spread(&|seed| seed.busiest_minute().1),
            },
            late: late(rehearsal, &seeds),
            advice: None,
            failures: failures(rehearsal, &facts, runs),
            unrun: facts.unrun,
            runs: seeds.iter().map(line).collect(),
            build: facts.build,
        };
        report.advice = advice(&report, rehearsal, &seeds);
        Ok(report)
    }

    /// How many devices the plan assigns the release to.
    #[must_use]
    pub const fn assigned(&self) -> usize {
        self.counts.update + self.counts.install
    }

    /// In how many seeds the rollout ends like this.
    #[must_use]
    pub fn seeds_with(&self, phase: &str) -> usize {
        self.ends.iter().filter(|end| end.phase == phase).map(|end| end.seeds).sum()
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn counts(plan: &Plan) -> Counts {
    let counts = plan.counts();
    Counts {
        matched: counts.matched,
        update: counts.update,
        install: counts.install,
        unchanged: counts.unchanged,
        blocked: counts.blocked,
        offline: counts.offline,
    }
}

fn blocked(plan: &Plan) -> Vec<Blocked> {
    let left_out = plan.devices.iter().filter_map(|device| match &device.verdict {
        Verdict::Blocked { by, reason } => Some(Blocked {
            name: device.name.to_string(),
            site: device.site.clone(),
            by: by.as_str().to_owned(),
            reason: reason.clone(),
        }),
        Verdict::Update { .. } | Verdict::Install | Verdict::Unchanged => None,
    });
    let mut left_out: Vec<_> = left_out.collect();
    left_out.sort_by(|one, other| (&one.by, &one.name).cmp(&(&other.by, &other.name)));
    left_out
}

fn ends(seeds: &[Seed<'_>]) -> Vec<End> {
    let mut ends: BTreeMap<&str, End> = BTreeMap::new();
    for seed in seeds {
        let (phase, reason) = (&seed.rehearsed.phase, &seed.rehearsed.reason);
        let new = || End { phase: phase.clone(), seeds: 0, reason: reason.clone() };
        ends.entry(phase).or_insert_with(new).seeds += 1;
    }
    let mut ends: Vec<End> = ends.into_values().collect();
    ends.sort_by_key(|end| std::cmp::Reverse(end.seeds));
    ends
}

fn update(seeds: &[Seed<'_>]) -> Update {
    let courses = || seeds.iter().flat_map(|seed| &seed.rehearsed.devices);
    // Who never has it has it last.
    let mut times: Vec<u64> = courses()
        .map(|course| course.end_ms.filter(|_| course.end == DeviceEnd::Healthy).unwrap_or(u64::MAX))
        .collect();
    times.sort_unstable();
    let within = |percent| percentile(&times, percent).filter(|time| *time < u64::MAX);
    let having = times.partition_point(|time| *time < u64::MAX);
    let silent = seeds.iter().map(|seed| seed.count(|course| course.silent_ms.is_some()));
    Update {
        percent: u64::try_from(having * 100 / times.len().max(1)).unwrap_or(0),
        silent: Spread::of(silent).unwrap_or_default(),
        healthy: Spread::of(seeds.iter().map(|seed| seed.ended(DeviceEnd::Healthy))).unwrap_or_default(),
        median_ms: within(50),
        p95_ms: within(95),
        following: Spread::of(seeds.iter().map(Seed::following)).unwrap_or_default(),
        stopped: Spread::of(seeds.iter().map(|seed| seed.ended(DeviceEnd::Stopped))).unwrap_or_default(),
    }
}

fn bad(seeds: &[Seed<'_>]) -> Bad {
    let spread = |value: &dyn Fn(&Seed<'_>) -> u64| Spread::of(seeds.iter().map(value)).unwrap_or_default();
    let courses = seeds.iter().flat_map(|seed| &seed.rehearsed.devices).filter(|course| course.is_bad);
    let exposed =
        courses.filter(|course| course.end.is_final()).filter_map(|course| course.end_ms?.checked_sub(course.ran_ms?));
    Bad {
        ran: spread(&|seed| seed.count(|course| course.is_bad && course.ran_ms.is_some())),
        restored: spread(&|seed| seed.ended(DeviceEnd::Restored)),
        broken: spread(&|seed| seed.ended(DeviceEnd::Failed)),
        exposed_ms: Spread::of(exposed),
        at_once: spread(&|seed| seed.bad_at_once()),
    }
}

fn late(rehearsal: &Rehearsal, seeds: &[Seed<'_>]) -> Vec<Late> {
    let mut times: BTreeMap<usize, (usize, Vec<u64>)> = BTreeMap::new();
    // Who never has the release since it crashes there is not late.
    for course in seeds.iter().flat_map(|seed| &seed.rehearsed.devices).filter(|course| !course.is_bad) {
        let (of, times) = times.entry(course.device).or_default();
        *of += 1;
        times.extend(course.end_ms.filter(|_| course.end == DeviceEnd::Healthy));
    }
    let mut late: Vec<Late> = times
        .into_iter()
        .filter_map(|(number, (of, mut times))| {
            times.sort_unstable();
            let device = rehearsal.devices.get(number)?;
            let away_ms = device.offline_since_ms.map(|since| rehearsal.copied_at_ms.saturating_sub(since));
            let away_ms = away_ms.and_then(|away| u64::try_from(away).ok());
            let (name, site) = (device.name.clone(), device.site.clone());
            Some(Late { name, site, seeds: times.len(), of, median_ms: percentile(&times, 50), away_ms })
        })
        .collect();
    late.sort_by_key(|device| std::cmp::Reverse((device.of - device.seeds, device.median_ms)));
    late.truncate(LATE_MAX);
    late
}

fn failures(rehearsal: &Rehearsal, facts: &RehearsalFacts<'_>, runs: &[Outcome]) -> Vec<RehearsalFailure> {
    let failed = runs.iter().filter_map(|run| Some((run, run.violation.clone()?)));
    failed
        .map(|(run, failure)| RehearsalFailure {
            seed: run.seed,
            replay: format!("fleetd sim replay {}{}", facts.build.name_of(run.seed), facts.flags),
            device: name_of(rehearsal, &failure.violation.node),
            failure,
        })
        .collect()
}

/// The name in the fleet of what traces call `device-3`.
fn name_of(rehearsal: &Rehearsal, node: &str) -> Option<String> {
    let Target::Device(number) = node.parse().ok()? else { return None };
    rehearsal.devices.get(number).map(|device| device.name.clone())
}

fn line(seed: &Seed<'_>) -> SeedLine {
    let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
    SeedLine {
        seed: seed.outcome.seed,
        phase: seed.rehearsed.phase.clone(),
        ended_ms: seed.rehearsed.ended_ms,
        healthy: count(seed.ended(DeviceEnd::Healthy)),
        following: count(seed.following()),
        restored: count(seed.ended(DeviceEnd::Restored)),
        traffic_bytes: seed.total_bytes(),
        events: seed.outcome.events,
        trace: seed.outcome.trace.clone(),
    }
}

/// What an operator may do better, if the numbers say so: at most one thing, the weightiest.
fn advice(report: &RehearsalReport, rehearsal: &Rehearsal, seeds: &[Seed<'_>]) -> Option<String> {
    smaller_first(report, rehearsal, seeds).or_else(|| wait_for_nobody(report))
}

/// Where a release crashes, one site alone would have shown it.
fn smaller_first(report: &RehearsalReport, rehearsal: &Rehearsal, seeds: &[Seed<'_>]) -> Option<String> {
    let ran = report.bad.as_ref().map(|bad| bad.ran.median).filter(|ran| *ran > 0)?;
    let mut sites: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (place, seed) in seeds.iter().enumerate() {
        for course in &seed.rehearsed.devices {
            let site = rehearsal.devices.get(course.device).map_or("", |device| device.site.as_str());
            let by_seed = sites.entry(site).or_insert_with(|| vec![0; seeds.len()]);
            if let Some(ran) = by_seed.get_mut(place).filter(|_| course.is_bad && course.ran_ms.is_some()) {
                *ran += 1;
            }
        }
    }
    sites.remove("");
    // It has to show there in every second seed at least, and to hurt less than half as many.
    let median = |mut ran: Vec<u64>| {
        ran.sort_unstable();
        percentile(&ran, 50)
    };
    let shows = sites.into_iter().filter_map(|(site, ran)| Some((median(ran)?, site)));
    let (fewest, site) = shows.filter(|(fewest, _)| *fewest > 0 && *fewest * 2 < ran).min()?;
    let devices = Counted(usize::try_from(fewest).unwrap_or(usize::MAX), "device");
    Some(format!(
        "Site {site} alone would have shown that the release crashes, on {devices} instead of {ran}: plan it first."
    ))
}

/// Who is away in nearly every seed is not worth waiting for.
fn wait_for_nobody(report: &RehearsalReport) -> Option<String> {
    let (seeds, following) = (report.seeds, report.update.following.median);
    if seeds == 0 || following == 0 || report.seeds_with("succeeded") < seeds {
        return None;
    }
    let within = span(report.assumed.for_ms);
    let ended = span(report.ended_ms?.high);
    let follow = if following == 1 { "is not back" } else { "are not back" };
    let devices = Counted(usize::try_from(following).unwrap_or(usize::MAX), "device");
    Some(format!("Wait for the rollout ({ended}) and not for every device: {devices} {follow} within {within}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_minute_slides_over_slots() {
        let traffic_bytes = BTreeMap::from([(0, 5), (50, 10), (70, 10), (200, 12)]);
        let rehearsed = Rehearsed { slot_ms: 1000, traffic_bytes, ..Rehearsed::default() };
        let outcome = Outcome::default();
        let seed = Seed { outcome: &outcome, rehearsed: &rehearsed };
        assert_eq!(seed.busiest_minute(), (20, 50_000));
        assert_eq!(seed.total_bytes(), 37);
    }

    #[test]
    fn devices_that_run_a_bad_release_are_counted_while_they_do() {
        let course = |ran_ms, end_ms| DeviceCourse {
            end: DeviceEnd::Restored,
            end_ms: Some(end_ms),
            ran_ms: Some(ran_ms),
            is_bad: true,
            ..DeviceCourse::default()
        };
        let devices = vec![course(0, 10), course(5, 12), course(10, 20), course(11, 15)];
        let rehearsed = Rehearsed { devices, ..Rehearsed::default() };
        let outcome = Outcome::default();
        assert_eq!(Seed { outcome: &outcome, rehearsed: &rehearsed }.bad_at_once(), 3);
    }
}
