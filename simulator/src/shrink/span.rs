//! Less time: what happens comes sooner, closer together and at round times, and what lasts is over sooner.

use std::time::Duration;

use super::{Over, Shrinking};
use crate::run::RunPlan;

/// Spans that are tried in place of a longer one, shortest first.
const SPANS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(1800),
];

/// One entry of a plan's timetable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Act(usize),
    Fault(usize),
}

impl Shrinking<'_> {
    /// Shortens the run. Its deadline stays: a shorter one would fail by itself.
    pub(super) fn time(&mut self) -> Result<(), Over> {
        for index in 0..self.best.plan.faults.len() {
            self.shorten_fault(index)?;
        }
        for place in 0..timetable(&self.best.plan).len() {
            self.close_gap(place)?;
        }
        self.shorten_duration()
    }

    fn shorten_fault(&mut self, index: usize) -> Result<(), Over> {
        let plan = self.best.plan.clone();
        let Some(lasting) = plan.faults.get(index).map(|fault| fault.lasting) else { return Ok(()) };
        let shorter = |span: &Duration| {
            let mut shorter = plan.clone();
            shorter.faults.get_mut(index)?.lasting = *span;
            Some(shorter)
        };
        self.take_any(SPANS.iter().filter(|span| **span < lasting).filter_map(shorter).collect())
    }

    /// Brings an entry of the timetable, and all that follow it, closer to the one before.
    fn close_gap(&mut self, place: usize) -> Result<(), Over> {
        let plan = self.best.plan.clone();
        let timetable = timetable(&plan);
        let Some((at, _)) = timetable.get(place).copied() else { return Ok(()) };
        let before =
            place.checked_sub(1).and_then(|before| timetable.get(before)).map_or(Duration::ZERO, |(at, _)| *at);
        let gap = at.saturating_sub(before);
        let closer = |span: &Duration| {
            let sooner = gap - *span;
            let mut closer = plan.clone();
            for (_, entry) in timetable.iter().skip(place) {
                match *entry {
                    Entry::Act(index) => closer.scenario.acts.get_mut(index)?.at -= sooner,
                    Entry::Fault(index) => closer.faults.get_mut(index)?.at -= sooner,
                }
            }
            Some(closer)
        };
        self.take_any(SPANS.iter().filter(|span| **span < gap).filter_map(closer).collect())
    }

    fn shorten_duration(&mut self) -> Result<(), Over> {
        let plan = self.best.plan.clone();
        let last = timetable(&plan).last().map_or(Duration::ZERO, |(at, _)| *at);
        let shorter = |span: &Duration| {
            let mut shorter = plan.clone();
            shorter.scenario.duration = last + *span;
            shorter
        };
        let is_shorter = |span: &&Duration| last + **span < plan.scenario.duration;
        self.take_any(SPANS.iter().filter(is_shorter).map(shorter).collect())
    }

    fn take_any(&mut self, candidates: Vec<RunPlan>) -> Result<(), Over> {
        if !candidates.is_empty() {
            self.take(candidates)?;
        }
        Ok(())
    }
}

/// What a plan says to do, in order of time.
fn timetable(plan: &RunPlan) -> Vec<(Duration, Entry)> {
    let acts = plan.scenario.acts.iter().enumerate().map(|(index, act)| (act.at, Entry::Act(index)));
    let faults = plan.faults.iter().enumerate().map(|(index, fault)| (fault.at, Entry::Fault(index)));
    let mut timetable: Vec<_> = acts.chain(faults).collect();
    timetable.sort_by_key(|(at, _)| *at);
    timetable
}
