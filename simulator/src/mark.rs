//! Marks: things that ought to happen in some run of a set. A set in which one never did proves less than it seems.
//!
//! Each mark says what a scenario must have for it to be reached at all, so that a set is asked only for what it can
//! show. They are reached from checkers, by what was seen at the seams: nothing in the product knows of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::scenario::{Act, ActStrategy, Program, Scenario, SwarmTargets};

/// What ought to happen sometimes.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// What it is called, which says what happened.
    pub name: &'static str,
    /// Rollouts that an operator has to start.
    acts: usize,
    /// Whether one of them has to bring a program that fails.
    fails: bool,
    /// Whether programs have to write lines.
    lines: bool,
    /// What one of the rollouts has to be like.
    like: Option<fn(&Act) -> bool>,
    /// The kinds of faults, as scenario files call them, of which one has to be possible; none is needed when empty.
    faults: &'static [&'static str],
    /// Whom they have to hit.
    on: Whom,
}

/// Whom a fault has to hit for a mark to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Anybody,
    Devices,
    Server,
}

impl Mark {
    const fn after(name: &'static str, acts: usize) -> Self {
        Self { name, acts, fails: false, lines: false, like: None, faults: &[], on: Whom::Anybody }
    }

    const fn failing(self) -> Self {
        Self { fails: true, ..self }
    }

    const fn with_lines(self) -> Self {
        Self { lines: true, ..self }
    }

    const fn with(self, like: fn(&Act) -> bool) -> Self {
        Self { like: Some(like), ..self }
    }

    const fn under(self, faults: &'static [&'static str]) -> Self {
        Self { faults, ..self }
    }

    const fn on(self, on: Whom) -> Self {
        Self { on, ..self }
    }

    /// Says whether some seed of a scenario can reach it.
    #[must_use]
    pub fn is_reachable(&self, scenario: &Scenario) -> bool {
        let fails = |program: Program| program != Program::Good;
        let has_program = !self.fails || scenario.acts.iter().any(|act| fails(act.program));
        let has_fault = self.faults.is_empty()
            || scenario.swarm.iter().any(|(kind, range)| {
                let hits = match self.on {
                    Whom::Anybody => true,
                    Whom::Devices => range.on != SwarmTargets::Server,
                    Whom::Server => range.on == SwarmTargets::Server,
                };
                hits && range.per_day[1] > 0 && self.faults.contains(&kind.to_string().as_str())
            });
        let has_lines = !self.lines || scenario.lines_per_hour > 0;
        let has_rollout = self.like.is_none_or(|like| scenario.acts.iter().any(like));
        scenario.acts.len() >= self.acts && has_rollout && has_program && has_fault && has_lines
    }
}

fn strategy_is(act: &Act, like: impl Fn(&ActStrategy) -> bool) -> bool {
    act.strategy.as_ref().is_some_and(like)
}

fn has_windows(act: &Act) -> bool {
    strategy_is(act, |strategy| !strategy.windows.is_empty())
}

fn is_by_sites(act: &Act) -> bool {
    strategy_is(act, |strategy| strategy.site_quorum.is_some())
}

fn is_bounded(act: &Act) -> bool {
    strategy_is(act, |strategy| strategy.max_unavailable.is_some() || strategy.max_unavailable_per_site.is_some())
}

fn is_approved(act: &Act) -> bool {
    strategy_is(act, |strategy| strategy.approve_after.is_some())
}

fn has_limit(act: &Act) -> bool {
    strategy_is(act, |strategy| strategy.veto_limit.is_some())
}

const fn is_planned_ahead(act: &Act) -> bool {
    act.planned_ahead.is_some()
}

const fn is_of_another_workload(act: &Act) -> bool {
    act.workload.is_some()
}

/// Faults by which a node's process ends and starts again.
const RESTARTS: &[&str] = &["crash", "power_cut", "site_outage", "store_torn", "store_fails"];
/// Faults by which a node's store goes back to what it was, or to nothing.
const SETBACKS: &[&str] = &["store_lost", "store_old_image"];
/// Faults by which a device cannot be reached for a while.
const ABSENCES: &[&str] = &["link_cut", "power_cut", "link_cut_one_way", "link_deaf", "site_outage", "link_flaps"];

/// Every mark.
pub const ALL: [Mark; 48] = [
    Mark::after("two nodes agreed at the same heads", 1),
    Mark::after("a release proved itself", 1),
    Mark::after("a rollout succeeded", 1),
    Mark::after("a release took the place of another", 2),
    Mark::after("a release was restored", 2).failing(),
    Mark::after("a rollout failed on more devices than it may", 1).failing(),
    Mark::after("a lane began a further epoch", 0).under(RESTARTS),
    Mark::after("a writer took its lane over under a new stamp", 0).under(RESTARTS),
    Mark::after("an opener let what was below it be forgotten", 0).under(RESTARTS),
    Mark::after("a device died while a release was on its way in", 1).under(RESTARTS).on(Whom::Devices),
    Mark::after("a device died while a release was on watch", 1).under(RESTARTS).on(Whom::Devices),
    Mark::after("a program outlived its agent", 1).under(&["crash", "store_fails"]).on(Whom::Devices),
    Mark::after("the server died in the middle of a rollout", 1).under(RESTARTS).on(Whom::Server),
    Mark::after("a device followed after its rollout had ended", 1).under(ABSENCES).on(Whom::Devices),
    Mark::after("a later rollout overtook a device", 2).under(ABSENCES).on(Whom::Devices),
    Mark::after("a device fell silent in the middle of a rollout", 1).under(ABSENCES).on(Whom::Devices),
    Mark::after("a commit failed, and its actor was loaded again", 0).under(&["store_fails", "store_full"]),
    Mark::after("a store was set back", 0).under(SETBACKS),
    Mark::after("a writer got its own lane back from a peer", 1).under(SETBACKS),
    Mark::after("a hold beat an assignment", 1).under(&["operator_holds"]),
    Mark::after("a rollout left a held device out", 1).under(&["operator_holds"]),
    Mark::after("a rollout was aborted", 1).under(&["operator_aborts"]),
    Mark::after("a rollout was paused", 1).under(&["operator_pauses"]),
    Mark::after("a rollout halted before more devices failed", 1).failing().under(&["operator_pauses"]),
    Mark::after("a rollout's next wave began", 1).under(&["operator_pauses"]),
    Mark::after("a device switched in its window", 1).with(has_windows),
    Mark::after("a device switched with its site", 1).with(is_by_sites),
    Mark::after("a site was given up", 1).with(is_by_sites),
    Mark::after("a rollout took the place of another on a device", 2),
    Mark::after("a device began as one of a bounded number", 1).with(is_bounded),
    Mark::after("a wave began that somebody approved", 1).with(is_approved),
    Mark::after("a workload switched before another of its device", 2).with(is_of_another_workload),
    Mark::after("somebody at a device put its updates off", 1).under(&["user_defers"]),
    Mark::after("a device switched whose limit was used up", 1)
        .with(has_limit)
        .under(&["user_defers", "program_locks"]),
    Mark::after("a rollout was taken back", 2).under(&["operator_rolls_back"]),
    Mark::after("a plan of before was started", 1).with(is_planned_ahead),
    Mark::after("a stale plan was refused", 2).with(is_planned_ahead),
    Mark::after("the whole fleet was stopped", 0).under(&["operator_stops_all"]),
    Mark::after("a release was denied", 1).under(&["operator_denies"]),
    Mark::after("a key was revoked", 0).under(&["operator_revokes"]),
    Mark::after("a program that ended by itself was started again", 1).under(&["program_dies"]),
    Mark::after("a device asked for a certificate in place of one that had run out", 0)
        .under(&["clock_ahead"])
        .on(Whom::Server),
    Mark::after("a cloned key was proven", 1).under(&["hostile_clone"]),
    Mark::after("a line was spooled", 1).with_lines(),
    Mark::after("lines were acknowledged", 1).with_lines(),
    Mark::after("acknowledged lines were dropped", 1).with_lines(),
    Mark::after("a spool kept lines through its device's end", 1).with_lines().under(RESTARTS).on(Whom::Devices),
    Mark::after("a gap stands for lines that are gone", 1).with_lines().under(SETBACKS).on(Whom::Server),
];

/// The marks that some seed of a scenario can reach.
#[must_use]
pub fn reachable(scenario: &Scenario) -> Vec<&'static str> {
    ALL.iter().filter(|mark| mark.is_reachable(scenario)).map(|mark| mark.name).collect()
}

/// How often each mark was reached. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    reached: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Marks {
    /// Notes that something happened that ought to happen sometimes.
    ///
    /// # Panics
    /// In a debug build, when there is no such mark.
    pub fn reach(&self, mark: &'static str) {
        debug_assert!(ALL.iter().any(|known| known.name == mark), "`{mark}` is no mark");
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner).entry(mark).or_default() += 1;
    }

    /// How often each was reached.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::builtin;

    #[test]
    fn a_scenario_is_asked_only_for_what_it_can_show() {
        let calm = reachable(&builtin("calm").unwrap());
        assert!(calm.contains(&"a release proved itself"), "{calm:?}");
        assert!(!calm.contains(&"a lane began a further epoch"), "nothing of it restarts");
        assert!(!calm.contains(&"lines were acknowledged"), "its programs write nothing");
        let day = reachable(&builtin("day").unwrap());
        assert!(day.contains(&"a release was restored"), "{day:?}");
        assert!(day.contains(&"the server died in the middle of a rollout"), "{day:?}");
    }

    #[test]
    fn no_two_marks_have_one_name() {
        let mut names: Vec<_> = ALL.iter().map(|mark| mark.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
