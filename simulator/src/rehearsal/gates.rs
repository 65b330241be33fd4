//! How likely each gate is to halt, and how far a bad release comes before it does.
//!
//! A share of so many seeds is said as what it is, "3 of 20 seeds", and never as a percentage: nobody should read more
//! from it than there is.

use fleetd_actors::rollout::plan::Plan;
use serde::Serialize;

use super::course::{DeviceCourse, WaveCourse};
use super::summary::Seed;
use crate::report::band::percentile;

/// A number in many seeds: the middle of them, and the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// The median.
    pub median: u64,
    /// The largest.
    pub worst: u64,
}

impl Extent {
    /// The extent of some numbers; nothing of none.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut numbers: Vec<u64> = numbers.into_iter().collect();
        numbers.sort_unstable();
        Some(Self { median: percentile(&numbers, 50)?, worst: *numbers.last()? })
    }
}

/// One wave, and the gate behind it, in all seeds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveFigures {
    /// Which, from 1.
    pub wave: u32,
    /// Its devices.
    pub devices: usize,
    /// Seeds in which it began.
    pub began: usize,
    /// Seeds in which the next one began after it, or in which the rollout succeeded with it.
    pub passed: usize,
    /// Seeds in which the rollout halted in it, or failed at its end.
    pub halted: usize,
    /// From its beginning until it was passed, in milliseconds: bakes, approvals and windows are in it.
    pub takes_ms: Option<Extent>,
    /// From the rollout's start until it was passed, in milliseconds.
    pub passed_at_ms: Option<Extent>,
    /// What the release had done when the rollout halted in it.
    pub reach: Option<Reach>,
}

/// How far a release had come when its rollout halted, in those seeds in which it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reach {
    /// On how many devices it ran, those included that were on their way to it and could not be stopped any more.
    pub ran: Extent,
    /// On how many of these it crashed.
    pub crashed: Extent,
}

/// Every halt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Halts {
    /// Seeds in which the rollout halted, or failed.
    pub seeds: usize,
    /// How far the release had come by then.
    pub reach: Option<Reach>,
}

/// What an operator's stop of the whole fleet comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// Seeds in which the rollout had not ended when it came.
    pub seeds: usize,
    /// On how many devices the release had run by then.
    pub ran_before: Extent,
    /// On how many more it ran after that, since they had switched when they heard of it, or could not be told.
    pub ran_after: Extent,
    /// How long after the stop the last of them began to run it, in milliseconds.
    pub quiet_after_ms: Extent,
}

/// The waves of a plan, each in all seeds.
pub(super) fn waves(plan: &Plan, seeds: &[Seed<'_>]) -> Vec<WaveFigures> {
    let counts = plan.counts_by_wave();
    let waves = (1..).zip(counts).enumerate().map(|(place, (wave, counts))| {
        let courses: Vec<(&Seed<'_>, WaveCourse)> =
            seeds.iter().filter_map(|seed| Some((seed, *seed.rehearsed.waves.get(place)?))).collect();
        let number = |is_so: fn(&WaveCourse) -> bool| courses.iter().filter(|(_, course)| is_so(course)).count();
        let passed = || courses.iter().filter_map(|(_, course)| Some((course.began_ms?, course.passed_ms?)));
        let halted = courses.iter().filter(|(_, course)| course.halted_ms.is_some());
        WaveFigures {
            wave,
            devices: counts.update + counts.install,
            began: number(|course| course.began_ms.is_some()),
            passed: number(|course| course.passed_ms.is_some()),
            halted: number(|course| course.halted_ms.is_some()),
            takes_ms: Extent::of(passed().map(|(began, passed)| passed.saturating_sub(began))),
            passed_at_ms: Extent::of(passed().map(|(_, passed)| passed)),
            reach: reach(halted.map(|(seed, _)| *seed)),
        }
    });
    waves.collect()
}

/// All halts of all seeds.
pub(super) fn halts(seeds: &[Seed<'_>]) -> Halts {
    let halted: Vec<&Seed<'_>> =
        seeds.iter().filter(|seed| seed.rehearsed.waves.iter().any(|wave| wave.halted_ms.is_some())).collect();
    Halts { seeds: halted.len(), reach: reach(halted.into_iter()) }
}

/// What the stop comes to, in those seeds in which there was something to stop.
pub(super) fn stopped(seeds: &[Seed<'_>]) -> Option<Stopped> {
    let cut = seeds.iter().filter_map(|seed| {
        let stopped_ms = seed.rehearsed.stopped_ms?;
        let is_late = seed.rehearsed.ended_ms.is_some_and(|ended_ms| ended_ms < stopped_ms);
        (!is_late).then_some((seed, stopped_ms))
    });
    let cut: Vec<_> = cut.collect();
    let ran = |is_so: fn(u64, u64) -> bool| {
        let counts = cut.iter().map(|(seed, at)| seed.count(|course| course.ran_ms.is_some_and(|ran| is_so(ran, *at))));
        Extent::of(counts)
    };
    let last = cut.iter().map(|(seed, at)| {
        let ran = seed.rehearsed.devices.iter().filter_map(|course| course.ran_ms?.checked_sub(*at));
        ran.max().unwrap_or(0)
    });
    Some(Stopped {
        seeds: cut.len(),
        ran_before: ran(|ran, at| ran <= at)?,
        ran_after: ran(|ran, at| ran > at)?,
        quiet_after_ms: Extent::of(last)?,
    })
}

fn reach<'a>(halted: impl Iterator<Item = &'a Seed<'a>> + Clone) -> Option<Reach> {
    let ran = |course: &DeviceCourse| course.ran_ms.is_some();
    let has_crashed = |course: &DeviceCourse| course.is_bad && course.ran_ms.is_some();
    Some(Reach {
        ran: Extent::of(halted.clone().map(|seed| seed.count(ran)))?,
        crashed: Extent::of(halted.map(|seed| seed.count(has_crashed)))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::course::Rehearsed;
    use crate::run::Outcome;

    #[test]
    fn a_halt_tells_on_how_many_devices_the_release_ran_and_crashed() {
        let course = |ran_ms, is_bad| DeviceCourse { ran_ms, is_bad, ..DeviceCourse::default() };
        let outcome = Outcome::default();
        let halted = WaveCourse { began_ms: Some(0), passed_ms: None, halted_ms: Some(9) };
        let passed = WaveCourse { began_ms: Some(0), passed_ms: Some(5), halted_ms: None };
        let rehearsed = |devices, waves| Rehearsed { devices, waves, ..Rehearsed::default() };
        let runs = [
            rehearsed(vec![course(Some(1), true), course(Some(2), false), course(None, true)], vec![halted]),
            rehearsed(vec![course(Some(1), true), course(None, true)], vec![halted]),
            rehearsed(vec![course(Some(1), false); 9], vec![passed]),
        ];
        let seeds: Vec<_> = runs.iter().map(|rehearsed| Seed { outcome: &outcome, rehearsed }).collect();
        let (ran, crashed) = (Extent { median: 2, worst: 2 }, Extent { median: 1, worst: 1 });
        assert_eq!(halts(&seeds), Halts { seeds: 2, reach: Some(Reach { ran, crashed }) });
        assert_eq!(halts(&seeds[2..]), Halts { seeds: 0, reach: None });
    }
}
