//! Stepping through what a node recorded: its own machine, from the state that it was in, with the inputs that it took.

use std::fmt::Debug;
use std::panic::{self, AssertUnwindSafe};

pub use fleetd_actors::flight::Start;
use fleetd_actors::flight::{Leg, Mark, Recorded, Step};
pub use fleetd_actors::rollout::Rollout;
pub use fleetd_actors::workload::Workload;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::time::Now;
use serde::Serialize;

use crate::watch::lines_changed;

/// One step, as it was replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Which one it is of the recording, counted from 1.
    pub number: usize,
    /// Why a leg begins with it, if one does.
    pub begins: Option<Start>,
    /// When, by the node's clocks.
    pub now: Now,
    /// The input; `None` when the machine looked at what was due.
    pub input: Option<String>,
    /// What the machine was in the middle of before, and since.
    pub phases: (String, String),
    /// What it changed in the machine's state, as lines that begin with `-` or `+`.
    pub changes: Vec<String>,
    /// What the machine wanted done.
    pub effects: Vec<String>,
    /// How it ended.
    pub end: End,
}

/// How a replayed step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum End {
    /// As the node noted.
    Same,
    /// Otherwise: what the node noted, and what came here.
    Differs {
        /// What the node noted.
        noted: String,
        /// What came here.
        here: String,
    },
    /// The node did not note how it ended, since the machine was at it, or failed.
    Unnoted,
    /// The machine failed here: an assertion of its own.
    Failed {
        /// What it said.
        message: String,
    },
}

/// What a replay came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayedFlight {
    /// Steps that were replayed.
    pub steps: usize,
    /// The first step that did not come to what the node noted.
    pub first_difference: Option<usize>,
    /// Steps at which the machine failed.
    pub failures: Vec<usize>,
}

/// The legs of a recording of `M`.
pub type Legs<M> = [Leg<<M as Recorded>::State, <M as Machine>::Input>];

/// Steps through a recording, and shows each step behind the first `passed`: what a step changed is costly to tell of
/// a machine with a large state.
pub fn replay<M>(legs: &Legs<M>, passed: usize, mut show: impl FnMut(Replayed)) -> ReplayedFlight
where
    M: Recorded,
    M::Input: Clone,
    M::Effect: Debug,
{
    let mut replayed = ReplayedFlight::default();
    let mut before: Option<M> = None;
    for leg in legs {
        let is_joined = leg.start != Start::Continued
            || before.as_ref().is_none_or(|machine| machine.snapshot().as_ref() == Some(&leg.state));
        if !is_joined {
            replayed.first_difference.get_or_insert(replayed.steps);
        }
        before = replay_leg(leg, passed, &mut replayed, &mut show);
    }
    replayed
}

/// Steps through one leg; gives the machine as it is at its end, unless it failed.
fn replay_leg<M>(
    leg: &Leg<M::State, M::Input>,
    passed: usize,
    replayed: &mut ReplayedFlight,
    show: &mut impl FnMut(Replayed),
) -> Option<M>
where
    M: Recorded,
    M::Input: Clone,
    M::Effect: Debug,
{
    let mut machine = M::restore(leg.state.clone());
    for (place, step) in leg.steps.iter().enumerate() {
        replayed.steps += 1;
        let number = replayed.steps;
        let is_shown = number > passed;
        let look = |machine: &M| if is_shown { format!("{machine:#?}") } else { String::new() };
        let (phase, state) = (machine.phase().to_owned(), look(&machine));
        let taken = panic::catch_unwind(AssertUnwindSafe(|| take(&mut machine, step)));
        let (end, effects) = match taken {
            Ok((here, effects)) => (end(step.mark.as_ref(), &here), effects),
            Err(cause) => (End::Failed { message: words_of(cause.as_ref()) }, Vec::new()),
        };
        match &end {
            End::Differs { .. } => _ = replayed.first_difference.get_or_insert(number),
            End::Failed { .. } => replayed.failures.push(number),
            End::Same | End::Unnoted => {}
        }
        let is_over = matches!(end, End::Failed { .. });
        if is_shown {
            show(Replayed {
                number,
                begins: (place == 0).then_some(leg.start),
                now: step.now,
                input: step.input.as_ref().map(|input| format!("{input:?}")),
                phases: (phase, machine.phase().to_owned()),
                changes: lines_changed(&state, &look(&machine)),
                effects,
                end,
            });
        }
        if is_over {
            return None;
        }
    }
    Some(machine)
}

/// Gives the machine one step's input; says what that came to.
fn take<M>(machine: &mut M, step: &Step<M::Input>) -> (Mark, Vec<String>)
where
    M: Recorded,
    M::Input: Clone,
    M::Effect: Debug,
{
    let mut turn = Turn::new();
    match &step.input {
        Some(input) => machine.handle(step.now, input.clone(), &mut turn),
        None => machine.handle_timeout(step.now, &mut turn),
    }
    let mark = Mark::of(machine, &turn);
    (mark, turn.effects().iter().map(|effect| format!("{effect:?}")).collect())
}

fn end(noted: Option<&Mark>, here: &Mark) -> End {
    match noted {
        None => End::Unnoted,
        Some(noted) if noted == here => End::Same,
        Some(noted) => End::Differs { noted: words(noted), here: words(here) },
    }
}

fn words(mark: &Mark) -> String {
    let wakes = mark.wakes_at.map_or_else(|| "no timer".to_owned(), |at| format!("a timer at {} ns", at.0));
    format!("{}, {} records, {} effects, {wakes}", mark.phase, mark.records, mark.effects)
}

fn words_of(cause: &(dyn std::any::Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no words".to_owned())
}

#[cfg(test)]
mod tests {
    use fleetd_actors::workload::{Child, Found, Input, Run, Snapshot, WorkloadRecord};
    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_core::id::OperationId;

    use super::*;

    /// What a device would note of a workload that is loaded and finds no run.
    fn flight() -> Vec<Leg<Snapshot, Input>> {
        let (name, platform) = ("coffee".parse().unwrap(), "linux/arm64".parse().unwrap());
        let record = WorkloadRecord::default();
        let mut machine = Workload::new(name, platform, record, Entropy::from_seed([5; 32]));
        let mut leg = Leg { start: Start::Loaded, state: machine.snapshot().unwrap(), steps: Vec::new() };
        let mut note = |machine: &mut Workload, input: Option<Input>| {
            let mut step = Step { now: Now::default(), input, mark: None };
            step.mark = Some(take(machine, &step).0);
            leg.steps.push(step);
        };
        note(&mut machine, None);
        let &Child::Attaching { operation } = machine.child() else { panic!("it looks for no run") };
        note(&mut machine, Some(Input::Attached { operation, found: Found::Gone }));
        let next =
            Leg { start: Start::Continued, state: machine.snapshot().unwrap(), steps: vec![leg.steps[0].clone()] };
        let mut next = next;
        next.steps[0].mark = Some(take(&mut machine, &next.steps[0]).0);
        vec![leg, next]
    }

    fn steps(legs: &Legs<Workload>) -> (Vec<Replayed>, ReplayedFlight) {
        let mut steps = Vec::new();
        let replayed = replay::<Workload>(legs, 0, |step| steps.push(step));
        (steps, replayed)
    }

    #[test]
    fn steps_that_nobody_wants_to_see_are_taken_all_the_same() {
        let mut shown = Vec::new();
        let replayed = replay::<Workload>(&flight(), 2, |step| shown.push(step.number));
        assert_eq!((replayed.steps, shown), (3, vec![3]));
    }

    #[test]
    fn each_step_shows_what_it_changed_and_comes_to_what_was_noted() {
        let (steps, replayed) = steps(&flight());
        assert_eq!(replayed, ReplayedFlight { steps: 3, ..ReplayedFlight::default() });
        assert!(steps.iter().all(|step| step.end == End::Same));
        assert_eq!(steps[0].phases, ("unknown".to_owned(), "attaching".to_owned()));
        assert!(steps[0].effects[0].starts_with("Attach"), "{:?}", steps[0].effects);
        assert!(steps[0].changes.iter().any(|line| line.contains("+    child: Attaching")), "{:?}", steps[0].changes);
        assert_eq!(steps[2].begins, Some(Start::Continued));
    }

    #[test]
    fn a_step_that_comes_to_something_else_is_named_with_both() {
        let mut other = flight();
        other[0].steps[1].mark.as_mut().unwrap().effects += 1;
        other[0].steps[0].mark = None;
        let (steps, replayed) = steps(&other);
        assert_eq!(replayed.first_difference, Some(2));
        assert_eq!(steps[0].end, End::Unnoted);
        assert!(matches!(&steps[1].end, End::Differs { noted, here } if noted != here));
    }

    #[test]
    fn a_leg_that_does_not_follow_the_one_before_is_a_difference() {
        let mut torn = flight();
        torn[1].state.restart_asked = true;
        assert_eq!(steps(&torn).1.first_difference, Some(2));
    }

    #[test]
    fn a_machine_that_fails_fails_here_too_and_its_leg_ends() {
        let mut broken = flight();
        let operation = OperationId::from_bytes([1; 8]);
        let run = Run { operation, manifest: None, stop_grace: std::time::Duration::ZERO, stopping: false };
        broken[1].state.record.run = Some(run);
        broken[1].start = Start::Resumed;
        let (steps, replayed) = steps(&broken);
        assert_eq!((replayed.failures, replayed.steps), (vec![3], 3));
        let End::Failed { message } = &steps[2].end else { panic!("{:?}", steps[2].end) };
        assert!(message.contains("a run is remembered"), "{message}");
    }
}
