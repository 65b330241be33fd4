//! Shrinks a failing run: fewer faults, then fewer acts, then fewer devices, then less time, for as long as the run
//! still fails in the same way.
//!
//! Which candidates there are is decided here; whoever shrinks says how they are run, one after the other or many at
//! once. Of the candidates of a step the first that fails is taken, in their order, so that both end alike.
//!
//! # Source
//! Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28 (2002): `ddmin`.

mod ddmin;
mod fleet_size;
mod span;

use std::ops::ControlFlow;
use std::time::Duration;

use crate::checker::{Checker, Violation};
use crate::fleet::ScenarioError;
use crate::run::{Extras, Failure, Outcome, RunPlan, run_with};
use crate::scenario::Scenario;

/// Rounds over all that can become less: a shorter time may make another fault needless, rarely more than once.
const ROUNDS_MAX: usize = 4;
/// Virtual time beyond a failure in which a candidate may still show it: with less around it, it often comes later.
const SLACK_PARTS: u32 = 4;
/// The least such time.
const SLACK_MIN: Duration = Duration::from_secs(60);

/// How candidates are run.
pub trait Trials {
    /// Runs candidates, and gives the number of the first, in their order, that fails as it should, and its failure.
    ///
    /// # Errors
    /// [`Over`] when nobody wants to wait any longer.
    fn first_failing(&mut self, candidates: &[RunPlan]) -> Result<Option<(usize, Failure)>, Over>;

    /// Hears of each smaller run that was found.
    fn found(&mut self, smaller: &Shrunk);
}

/// Nobody wants to wait any longer: what was found so far is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over;

/// A failing run, as small as it has become.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The run.
    pub plan: RunPlan,
    /// How it fails.
    pub failure: Failure,
    /// Candidates that were run.
    pub tried: usize,
    /// Whether somebody lost patience before nothing more could be taken away.
    pub is_partial: bool,
}

impl Shrunk {
    /// The scenario that fails with the run's seed, its faults and no others.
    #[must_use]
    pub fn scenario(&self) -> Scenario {
        let mut scenario = self.plan.scenario.clone();
        scenario.faults.clone_from(&self.plan.faults);
        scenario
    }
}

/// Whether one failure is the other again: of the same checker, and for assertions with the same words.
#[must_use]
pub fn is_same(one: &Violation, other: &Violation) -> bool {
    let words = |text: &str| {
        let is_word = |word: &&str| word.chars().all(char::is_alphabetic);
        text.split_whitespace().filter(is_word).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    one.checker == other.checker && (one.checker != "assertion" || words(&one.seen) == words(&other.seen))
}

/// Takes away from a failing run whatever it fails without.
pub fn shrink(plan: RunPlan, failure: Failure, trials: &mut dyn Trials) -> Shrunk {
    let mut shrinking = Shrinking { best: Shrunk { plan, failure, tried: 0, is_partial: false }, trials };
    if shrinking.all().is_err() {
        shrinking.best.is_partial = true;
    }
    // The run that is handed on ends by its failure, not because nobody looked any further.
    shrinking.best.plan.until = None;
    shrinking.best
}

/// What takes parts away, one kind of part after the other.
pub(crate) struct Shrinking<'a> {
    pub(crate) best: Shrunk,
    trials: &'a mut dyn Trials,
}

impl Shrinking<'_> {
    fn all(&mut self) -> Result<(), Over> {
        self.drop_the_future();
        for _ in 0..ROUNDS_MAX {
            let before = (self.best.plan.faults.clone(), self.best.plan.scenario.clone());
            self.faults()?;
            self.acts()?;
            self.devices()?;
            self.time()?;
            if (&self.best.plan.faults, &self.best.plan.scenario) == (&before.0, &before.1) {
                break;
            }
        }
        Ok(())
    }

    /// Drops what begins only after the failure: that needs no trial. The draw is replaced by what was drawn.
    fn drop_the_future(&mut self) {
        let plan = &mut self.best.plan;
        plan.scenario.swarm.clear();
        plan.scenario.faults.clear();
        let failed = Duration::from_millis(self.best.failure.at_ms);
        plan.faults.retain(|fault| fault.at <= failed);
        plan.scenario.acts.retain(|act| act.at <= failed);
    }

    fn faults(&mut self) -> Result<(), Over> {
        let faults = self.best.plan.faults.clone();
        ddmin::minimise(faults, &mut |lists: &[Vec<_>]| {
            let plan = self.best.plan.clone();
            self.take(lists.iter().map(|faults| RunPlan { faults: faults.clone(), ..plan.clone() }).collect())
        })
    }

    fn acts(&mut self) -> Result<(), Over> {
        let acts = self.best.plan.scenario.acts.clone();
        ddmin::minimise(acts, &mut |lists: &[Vec<_>]| {
            let plan = self.best.plan.clone();
            let with = |acts: &Vec<_>| {
                let mut smaller = plan.clone();
                smaller.scenario.acts.clone_from(acts);
                smaller
            };
            self.take(lists.iter().map(with).collect())
        })
    }

    /// Runs candidates, and keeps the first that fails as the best so far. Gives its number.
    pub(crate) fn take(&mut self, mut candidates: Vec<RunPlan>) -> Result<Option<usize>, Over> {
        let until = self.until();
        candidates.iter_mut().for_each(|candidate| candidate.until = until);
        let found = self.trials.first_failing(&candidates)?;
        self.best.tried += found.as_ref().map_or(candidates.len(), |(index, _)| index + 1);
        let Some((index, failure)) = found else { return Ok(None) };
        let Some(plan) = candidates.into_iter().nth(index) else { return Ok(None) };
        (self.best.plan, self.best.failure) = (plan, failure);
        self.trials.found(&self.best);
        Ok(Some(index))
    }

    /// Until when a candidate is run. A fleet that does not converge shows that at the end of its deadline only.
    fn until(&self) -> Option<Duration> {
        let failed = Duration::from_millis(self.best.failure.at_ms);
        let is_early = self.best.failure.violation.checker != "liveness";
        is_early.then(|| failed + (failed / SLACK_PARTS).max(SLACK_MIN))
    }
}

/// Runs candidates one after the other, in this process.
pub struct InProcess<'a> {
    /// The failure that is to be seen again.
    pub original: Violation,
    /// The checkers of each run besides those of every run.
    pub checkers: Box<dyn Fn() -> Vec<Box<dyn Checker>> + 'a>,
}

impl InProcess<'_> {
    /// Runs one.
    ///
    /// # Errors
    /// [`ScenarioError`] when it cannot be run.
    pub fn outcome(&self, plan: RunPlan) -> Result<Outcome, ScenarioError> {
        let extras = Extras { checkers: (self.checkers)(), ..Extras::default() };
        run_with(plan, extras, &mut |_| ControlFlow::Continue(()))
    }
}

impl Trials for InProcess<'_> {
    fn first_failing(&mut self, candidates: &[RunPlan]) -> Result<Option<(usize, Failure)>, Over> {
        let failing = candidates.iter().enumerate().find_map(|(index, candidate)| {
            // A candidate that cannot be run at all does not fail in the same way.
            let failure = self.outcome(candidate.clone()).ok()?.violation?;
            is_same(&self.original, &failure.violation).then_some((index, failure))
        });
        Ok(failing)
    }

    fn found(&mut self, _smaller: &Shrunk) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(checker: &str, seen: &str) -> Violation {
        Violation { invariant: 0, checker: checker.to_owned(), node: String::new(), seen: seen.to_owned() }
    }

    #[test]
    fn assertions_are_told_apart_by_their_words_and_not_by_their_numbers() {
        let first = violation("assertion", "coffee was started twice on device-3");
        assert!(is_same(&first, &violation("assertion", "coffee was started twice on device-4")));
        assert!(!is_same(&first, &violation("assertion", "the clock would pass over an event")));
        assert!(is_same(&violation("position", "a"), &violation("position", "b")));
        assert!(!is_same(&violation("position", "a"), &violation("liveness", "a")));
    }
}
