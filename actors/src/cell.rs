//! One machine with its driver: the part of an actor that is the same under every engine.

use std::fmt;

use fleetd_sync_core::commit::{ActorKey, Batch};
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::{Monotonic, Now};

use crate::driver::Driver;
use crate::release_queue::{ReleaseQueue, TurnNumber};

/// A turn's mutations on their way to the group commit. The engine reports the outcome with [`Cell::committed`], or
/// drops the cell and loads it anew when the commit failed.
#[derive(Debug)]
pub struct Submission {
    /// The turn that waits for them.
    pub turn: TurnNumber,
    /// The mutations.
    pub batch: Batch,
}

/// Runs one machine: collects its turns, stores their records, and starts their effects when they may happen.
pub struct Cell<M: Machine, D: Driver<M>> {
    key: ActorKey,
    machine: M,
    driver: D,
    queue: ReleaseQueue<M::Effect>,
}

impl<M: Machine + fmt::Debug, D: Driver<M>> fmt::Debug for Cell<M, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("key", &self.key).field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl<M: Machine, D: Driver<M>> Cell<M, D> {
    /// Joins a loaded machine to its driver. Call [`Cell::handle_timeout`] once: it emits what is still owed.
    pub fn new(key: ActorKey, machine: M, driver: D) -> Self {
        Self { key, machine, driver, queue: ReleaseQueue::default() }
    }

    /// Gives the machine one input. What it returns must be submitted before the next input is given.
    pub fn handle(&mut self, now: Now, input: M::Input) -> Option<Submission> {
        let mut turn = Turn::new();
        self.driver.witness_step(now, Some(&input));
        self.machine.handle(now, input, &mut turn);
        self.end_turn(now, turn)
    }

    /// Lets the machine do everything due at `now`.
    pub fn handle_timeout(&mut self, now: Now) -> Option<Submission> {
        let mut turn = Turn::new();
        self.driver.witness_step(now, None);
        self.machine.handle_timeout(now, &mut turn);
        self.end_turn(now, turn)
    }

    /// Notes that a turn is durable, and starts every effect that may now happen.
    pub fn committed(&mut self, now: Now, turn: TurnNumber) {
        self.queue.mark_durable(turn);
        self.release(now);
    }

    /// Returns when [`Cell::handle_timeout`] next has work.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        self.machine.poll_timeout()
    }

    /// Says whether the actor can be put to rest: nothing unreleased, nothing open, nothing due later.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_waiting() && self.machine.poll_timeout().is_none() && self.machine.is_idle()
    }

    /// Says whether the actor waits for nothing but its next input or its time: nothing is unreleased. Its machine may
    /// still know what no store does.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.queue.is_empty()
    }

    /// Gives up the room that turns took, before it waits for long.
    pub fn shrink(&mut self) {
        self.queue.shrink();
    }

    /// The machine, for checkers and reports.
    #[must_use]
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    fn end_turn(&mut self, now: Now, turn: Turn<M::Record, M::Effect>) -> Option<Submission> {
        self.driver.witness_turn(&self.machine, &turn);
        let (records, mut effects) = turn.into_parts();
        let mut mutations = Vec::new();
        for record in records {
            self.driver.store(record, &mut mutations);
        }
        if mutations.is_empty() {
            if !effects.is_empty() {
                self.queue.push_durable(effects);
                self.release(now);
            }
            return None;
        }
        self.driver.accompany(&effects, &mut mutations);
        let is_early = is_planted(Bug::EffectBeforeRecord)
            || (is_planted(Bug::AckBeforeAppend) && self.key.as_str().starts_with("log"));
        let early = if is_early { std::mem::take(&mut effects) } else { Vec::new() };
        early.into_iter().for_each(|effect| self.driver.start(now, effect));
        let turn = self.queue.push_pending(effects);
        Some(Submission { turn, batch: Batch { actor: self.key.clone(), mutations } })
    }

    fn release(&mut self, now: Now) {
        while let Some(effects) = self.queue.pop_ready() {
            for effect in effects {
                self.driver.start(now, effect);
            }
        }
    }
}
