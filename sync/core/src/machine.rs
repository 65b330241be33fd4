//! A machine decides and never acts.
//!
//! One input makes one *turn*: records to persist, then effects in order. Whoever runs a machine stores a turn's
//! records first and carries out its effects only once they are durable, so that nothing is revealed that a power
//! cut could take back. Machines are stepped by a ractor shell in the product and bare in the simulator; they
//! cannot tell the difference.

use std::fmt;

use crate::time::{Monotonic, Now};

/// A state machine that decides and never acts. It can be looked at before and after an input, and compared.
pub trait Machine: fmt::Debug + Send + 'static {
    /// What can happen to it.
    type Input: fmt::Debug + Send + 'static;
    /// What it must remember.
    type Record: Send + 'static;
    /// What it wants done.
    type Effect: Send + 'static;

    /// Takes one input and appends what it decides to `turn`.
    fn handle(&mut self, now: Now, input: Self::Input, turn: &mut Turn<Self::Record, Self::Effect>);

    /// Does everything due at `now`; called once after any load, when it emits what is still owed.
    fn handle_timeout(&mut self, now: Now, turn: &mut Turn<Self::Record, Self::Effect>);

    /// Returns when `handle_timeout` next has work.
    fn poll_timeout(&self) -> Option<Monotonic>;

    /// What it is in the middle of, in a word: by this and its inputs is counted what a simulated run has shown.
    fn phase(&self) -> &'static str {
        ""
    }

    /// Says whether the machine has no operation open, so that it may be put to rest until its next input.
    fn is_idle(&self) -> bool {
        false
    }
}

/// What one input led to: records first, then effects in the order in which they must happen.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn<R, E> {
    records: Vec<R>,
    effects: Vec<E>,
}

impl<R, E> Default for Turn<R, E> {
    fn default() -> Self {
        Self { records: Vec::new(), effects: Vec::new() }
    }
}

impl<R, E> Turn<R, E> {
    /// Starts an empty turn.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a record that must be durable before any effect of this turn happens.
    pub fn persist(&mut self, record: R) {
        self.records.push(record);
    }

    /// Appends an effect.
    pub fn effect(&mut self, effect: E) {
        self.effects.push(effect);
    }

    /// The records so far.
    #[must_use]
    pub fn records(&self) -> &[R] {
        &self.records
    }

    /// The effects so far.
    #[must_use]
    pub fn effects(&self) -> &[E] {
        &self.effects
    }

    /// Says whether the turn decided nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.effects.is_empty()
    }

    /// Takes the turn apart into its records and its effects.
    #[must_use]
    pub fn into_parts(self) -> (Vec<R>, Vec<E>) {
        (self.records, self.effects)
    }
}
