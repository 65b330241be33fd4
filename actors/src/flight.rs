//! The flight recorder: a machine's last steps, kept in memory, so that what a device did can be stepped through
//! elsewhere.
//!
//! A recording is a row of *legs*. Each begins with a machine's whole state and goes on with the inputs that it took
//! since: a machine is pure, so state and inputs bring back every step. A new leg begins when the machine is loaded,
//! and when the one before is long; the oldest go. What a step came to is noted in a few numbers, by which a replay
//! sees whether it is still the same flight.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::time::{Monotonic, Now};

/// Steps that are kept of a machine whose state is small: a crash loop's last hour, or half an hour of a workload that
/// is probed each 15 s, in 64 KiB.
pub const STEPS_MAX: usize = 256;
/// Legs that are kept: a machine that fails at each load leaves short ones.
pub const LEGS_MAX: usize = 8;

/// A machine that can be recorded: its whole state can be had, and taken up again.
pub trait Recorded: Machine {
    /// Its state between two turns.
    type State: Clone + Debug + PartialEq + Send + 'static;

    /// The machine's state; `None` while it cannot be had, or is too large to be kept.
    fn snapshot(&self) -> Option<Self::State>;

    /// Takes a machine up in a state in which one was. It is the same from then on.
    fn restore(state: Self::State) -> Self;

    /// How much is kept of it now.
    fn extent(&self) -> Extent {
        Extent::default()
    }
}

/// How much a recorder keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Steps after which a leg ends where the machine's state can be had. Taking the state costs as much as it has
    /// parts, so that a leg should have about as many steps.
    pub leg_steps: usize,
    /// Steps that are kept.
    pub steps_max: usize,
    /// Legs that are kept, each with a whole state.
    pub legs_max: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self { leg_steps: STEPS_MAX / 4, steps_max: STEPS_MAX, legs_max: LEGS_MAX }
    }
}

/// What a step came to, in what is cheap to note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What the machine is in the middle of since.
    pub phase: Cow<'static, str>,
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
            phase: machine.phase().into(),
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
    /// The machine was loaded: at a start of its program, or after it had failed.
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
    extent: Extent,
    /// The last leg is as long as it may be, and steps have been left out behind it.
    is_cut: bool,
}

impl<S, I> Default for FlightRecorder<S, I> {
    fn default() -> Self {
        Self { ring: Mutex::new(Ring { legs: VecDeque::new(), extent: Extent::default(), is_cut: false }) }
    }
}

impl<S: Clone, I: Clone> FlightRecorder<S, I> {
    /// The machine has come back from a step with `turn`.
    pub fn witness<M: Recorded<State = S, Input = I>>(&self, machine: &M, turn: &Turn<M::Record, M::Effect>) {
        self.stepped(Mark::of(machine, turn), machine.extent(), || machine.snapshot());
    }

    /// The machine was loaded with this state, where that can be told.
    pub fn loaded(&self, state: Option<S>) {
        let mut ring = self.ring();
        match state {
            Some(state) => ring.begin(Start::Loaded, state),
            // What it does now does not follow from what it did before.
            None => ring.is_cut = true,
        }
    }

    /// The machine is about to take an input, or to look at what is due.
    pub fn step(&self, now: Now, input: Option<&I>) {
        let mut ring = self.ring();
        let (steps_max, is_cut) = (ring.extent.steps_max, ring.is_cut);
        let Some(leg) = ring.legs.back_mut() else { return };
        if !is_cut && leg.steps.len() < steps_max {
            leg.steps.push(Step { now, input: input.cloned(), mark: None });
        } else {
            ring.is_cut = true;
        }
    }

    /// The machine has come back from that; `state` is what it is in since, where that can be told.
    pub fn stepped(&self, mark: Mark, extent: Extent, state: impl FnOnce() -> Option<S>) {
        let mut ring = self.ring();
        ring.extent = extent;
        let is_cut = ring.is_cut;
        let Some(leg) = ring.legs.back_mut() else { return };
        if let Some(last) = leg.steps.last_mut().filter(|_| !is_cut) {
            last.mark = Some(mark);
        }
        if (is_cut || leg.steps.len() >= extent.leg_steps)
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
        let Extent { leg_steps, steps_max, legs_max } = self.extent;
        let room = steps_max.saturating_sub(leg_steps);
        while self.legs.len() > legs_max || self.legs.iter().map(|leg| leg.steps.len()).sum::<usize>() > room {
            self.legs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { phase: Cow::default(), records: 0, effects: 0, wakes_at: None }
    }

    fn take(recorder: &FlightRecorder<usize, usize>, inputs: std::ops::Range<usize>, knows_state: bool) {
        for input in inputs {
            recorder.step(Now::default(), Some(&input));
            recorder.stepped(mark(), Extent::default(), || knows_state.then_some(input + 1));
        }
    }

    fn inputs(legs: &[Leg<usize, usize>]) -> Vec<usize> {
        legs.iter().flat_map(|leg| &leg.steps).filter_map(|step| step.input).collect()
    }

    #[test]
    fn the_last_steps_are_kept_each_leg_beginning_where_the_one_before_ends() {
        let recorder = FlightRecorder::default();
        recorder.loaded(Some(0));
        let step_bytes = size_of::<Step<crate::workload::Input>>();
        assert!(step_bytes * STEPS_MAX <= 64 << 10, "a step of a workload has {step_bytes} bytes");
        take(&recorder, 0..10 * STEPS_MAX + 7, true);
        let legs = recorder.legs();
        let kept = inputs(&legs);
        assert!(kept.len() <= STEPS_MAX && kept.len() >= STEPS_MAX - 2 * Extent::default().leg_steps, "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert_eq!(kept.last(), Some(&(10 * STEPS_MAX + 6)));
        for leg in legs {
            assert_eq!((leg.start, leg.steps[0].input), (Start::Continued, Some(leg.state)));
        }
    }

    #[test]
    fn steps_left_out_are_never_joined_to_what_comes_after_them() {
        let recorder = FlightRecorder::default();
        recorder.loaded(Some(0));
        take(&recorder, 0..2 * STEPS_MAX, false);
        assert_eq!(inputs(&recorder.legs()), (0..STEPS_MAX).collect::<Vec<_>>());
        take(&recorder, 2 * STEPS_MAX..2 * STEPS_MAX + 2, true);
        let legs = recorder.legs();
        let last = legs.last().unwrap();
        assert_eq!((last.start, last.state), (Start::Resumed, 2 * STEPS_MAX + 1));
        assert_eq!(inputs(std::slice::from_ref(last)), [2 * STEPS_MAX + 1]);
    }

    #[test]
    fn a_machine_with_a_large_state_has_long_legs_and_few() {
        let recorder = FlightRecorder::default();
        let extent = Extent { leg_steps: 1000, steps_max: 4000, legs_max: 2 };
        recorder.loaded(Some(0));
        for input in 0..10_500 {
            recorder.step(Now::default(), Some(&input));
            recorder.stepped(mark(), extent, || Some(input + 1));
        }
        let legs = recorder.legs();
        assert_eq!(legs.iter().map(|leg| leg.steps.len()).collect::<Vec<_>>(), [1000, 500]);
        assert_eq!(inputs(&legs), (9000..10_500).collect::<Vec<_>>());
    }

    #[test]
    fn what_follows_a_load_in_no_known_state_is_not_taken_for_more_of_the_leg_before() {
        let recorder = FlightRecorder::default();
        recorder.loaded(Some(0));
        take(&recorder, 0..3, true);
        recorder.loaded(None);
        take(&recorder, 50..52, false);
        assert_eq!(inputs(&recorder.legs()), [0, 1, 2]);
        take(&recorder, 52..54, true);
        let legs = recorder.legs();
        assert_eq!((legs[1].start, legs[1].state, inputs(&legs)), (Start::Resumed, 53, vec![0, 1, 2, 53]));
    }

    #[test]
    fn a_machine_that_fails_at_each_load_leaves_its_last_legs_with_the_step_that_it_did_not_survive() {
        let recorder = FlightRecorder::<usize, usize>::default();
        for load in 0..3 * LEGS_MAX {
            recorder.loaded(Some(load));
            recorder.step(Now::default(), None);
        }
        let legs = recorder.legs();
        assert_eq!(legs.len(), LEGS_MAX);
        assert!(legs.iter().all(|leg| leg.start == Start::Loaded && leg.steps[0].mark.is_none()));
    }
}
