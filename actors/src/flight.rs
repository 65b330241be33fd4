//! The flight recorder: a machine's last steps, kept in memory, so that what a device did can be stepped through
//! elsewhere.
//!
//! A recording is a row of *legs*. Each begins with a machine's whole state and goes on with the inputs that it took
//! since: a machine is pure, so state and inputs bring back every step. A new leg begins when the machine is loaded,
//! and when the one before is long; the oldest go. What a step came to is noted in a few numbers, by which a replay
//! sees whether it is still the same flight.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::time::{Monotonic, Now};

/// Steps after which a leg ends where the machine's state can be had: a quarter of what is kept.
const LEG_STEPS: usize = STEPS_MAX / 4;
/// Steps that are kept: a crash loop's last hour, or half an hour of a workload that is probed each 15 s, in 64 KiB.
pub const STEPS_MAX: usize = 256;
/// Legs that are kept: a machine that fails at each load leaves short ones.
pub const LEGS_MAX: usize = 8;

/// What a step came to, in what is cheap to note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What the machine is in the middle of since.
    pub phase: String,
    /// Records that it wanted to be kept.
    pub records: usize,
    /// Effects that it wanted.
    pub effects: usize,
    /// When it next wants to be woken.
    pub wakes_at: Option<Monotonic>,
}

impl Mark {
    /// What a turn of `machine` has come to.
    #[must_use]
    pub fn of<M: Machine>(machine: &M, turn: &Turn<M::Record, M::Effect>) -> Self {
        Self {
            phase: machine.phase().to_owned(),
            records: turn.records().len(),
            effects: turn.effects().len(),
            wakes_at: machine.poll_timeout(),
        }
    }
}

/// One input, or one look at what is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<I> {
    /// When.
    pub now: Now,
    /// What the machine took; `None` when it looked at what was due.
    pub input: Option<I>,
    /// What came of it; `None` when the machine has not come back from it: an assertion failed, or it is at it now.
    pub mark: Option<Mark>,
}

/// Why a leg begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The machine was loaded: at a start of the agent, or after it had failed.
    Loaded,
    /// The leg before was long enough, and nothing happened between them.
    Continued,
    /// Steps were left out before it: for too long the machine's state could not be had.
    Resumed,
}

/// A machine's state, and the steps that it took since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg<S, I> {
    /// Why it begins.
    pub start: Start,
    /// The machine's state before the first step.
    pub state: S,
    /// The steps, in order.
    pub steps: Vec<Step<I>>,
}

/// Keeps one machine's last steps, whatever becomes of the machine.
#[derive(Debug)]
pub struct FlightRecorder<S, I> {
    ring: Mutex<Ring<S, I>>,
}

#[derive(Debug)]
struct Ring<S, I> {
    legs: VecDeque<Leg<S, I>>,
    /// The last leg is as long as it may be, and steps have been left out behind it.
    is_cut: bool,
}

impl<S, I> Default for FlightRecorder<S, I> {
    fn default() -> Self {
        Self { ring: Mutex::new(Ring { legs: VecDeque::new(), is_cut: false }) }
    }
}

impl<S: Clone, I: Clone> FlightRecorder<S, I> {
    /// The machine was loaded with this state.
    pub fn loaded(&self, state: S) {
        self.ring().begin(Start::Loaded, state);
    }

    /// The machine is about to take an input, or to look at what is due.
    pub fn step(&self, now: Now, input: Option<&I>) {
        let mut ring = self.ring();
        let Some(leg) = ring.legs.back_mut() else { return };
        if leg.steps.len() < STEPS_MAX {
            leg.steps.push(Step { now, input: input.cloned(), mark: None });
        } else {
            ring.is_cut = true;
        }
    }

    /// The machine has come back from that; `state` is what it is in since, where that can be told.
    pub fn stepped(&self, mark: Mark, state: impl FnOnce() -> Option<S>) {
        let mut ring = self.ring();
        let is_cut = ring.is_cut;
        let Some(leg) = ring.legs.back_mut() else { return };
        if let Some(last) = leg.steps.last_mut().filter(|_| !is_cut) {
            last.mark = Some(mark);
        }
        if leg.steps.len() >= LEG_STEPS
            && let Some(state) = state()
        {
            ring.begin(if is_cut { Start::Resumed } else { Start::Continued }, state);
        }
    }

    /// What is kept, the oldest first.
    #[must_use]
    pub fn legs(&self) -> Vec<Leg<S, I>> {
        self.ring().legs.iter().cloned().collect()
    }

    fn ring(&self) -> MutexGuard<'_, Ring<S, I>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, I> Ring<S, I> {
    fn begin(&mut self, start: Start, state: S) {
        self.is_cut = false;
        self.legs.push_back(Leg { start, state, steps: Vec::new() });
        let room = STEPS_MAX - LEG_STEPS;
        while self.legs.len() > LEGS_MAX || self.legs.iter().map(|leg| leg.steps.len()).sum::<usize>() > room {
            self.legs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { phase: String::new(), records: 0, effects: 0, wakes_at: None }
    }

    fn take(recorder: &FlightRecorder<usize, usize>, inputs: std::ops::Range<usize>, knows_state: bool) {
        for input in inputs {
            recorder.step(Now::default(), Some(&input));
            recorder.stepped(mark(), || knows_state.then_some(input + 1));
        }
    }

    fn inputs(legs: &[Leg<usize, usize>]) -> Vec<usize> {
        legs.iter().flat_map(|leg| &leg.steps).filter_map(|step| step.input).collect()
    }

    #[test]
    fn the_last_steps_are_kept_each_leg_beginning_where_the_one_before_ends() {
        let recorder = FlightRecorder::default();
        recorder.loaded(0);
        let step_bytes = size_of::<Step<crate::workload::Input>>();
        assert!(step_bytes * STEPS_MAX <= 64 << 10, "a step of a workload has {step_bytes} bytes");
        take(&recorder, 0..10 * STEPS_MAX + 7, true);
        let legs = recorder.legs();
        let kept = inputs(&legs);
        assert!(kept.len() <= STEPS_MAX && kept.len() >= STEPS_MAX - 2 * LEG_STEPS, "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert_eq!(kept.last(), Some(&(10 * STEPS_MAX + 6)));
        for leg in legs {
            assert_eq!((leg.start, leg.steps[0].input), (Start::Continued, Some(leg.state)));
        }
    }

    #[test]
    fn steps_left_out_are_never_joined_to_what_comes_after_them() {
        let recorder = FlightRecorder::default();
        recorder.loaded(0);
        take(&recorder, 0..2 * STEPS_MAX, false);
        assert_eq!(inputs(&recorder.legs()), (0..STEPS_MAX).collect::<Vec<_>>());
        take(&recorder, 2 * STEPS_MAX..2 * STEPS_MAX + 2, true);
        let legs = recorder.legs();
        let last = legs.last().unwrap();
        assert_eq!((last.start, last.state), (Start::Resumed, 2 * STEPS_MAX + 1));
        assert_eq!(inputs(std::slice::from_ref(last)), [2 * STEPS_MAX + 1]);
    }

    #[test]
    fn a_machine_that_fails_at_each_load_leaves_its_last_legs_with_the_step_that_it_did_not_survive() {
        let recorder = FlightRecorder::<usize, usize>::default();
        for load in 0..3 * LEGS_MAX {
            recorder.loaded(load);
            recorder.step(Now::default(), None);
        }
        let legs = recorder.legs();
        assert_eq!(legs.len(), LEGS_MAX);
        assert!(legs.iter().all(|leg| leg.start == Start::Loaded && leg.steps[0].mark.is_none()));
    }
}
