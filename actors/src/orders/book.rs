//! The machine that keeps the orders: one for the whole fleet.

use std::sync::Arc;

use fleetd_sync_core::id::{ArtifactDigest, HoldId, OperationId};
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::time::{Monotonic, Now};

use super::{Denial, FleetStop, Orders};

/// Keeps what stands over the whole fleet.
#[derive(Debug)]
pub struct OrderBook {
    orders: Orders,
    announced: bool,
}

/// What can happen to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Stop the whole fleet.
    Stop {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// The stop.
        stop: Box<FleetStop>,
    },
    /// End a stop.
    Lift {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// Its hold.
        hold: HoldId,
    },
    /// Deny a release. One that is denied already stays so, for its first reason.
    Deny {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// The denial.
        denial: Box<Denial>,
    },
    /// Allow a release again.
    Allow {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// The digest of its manifest.
        manifest: ArtifactDigest,
    },
}

/// What must be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A stop stands.
    Stopped(Box<FleetStop>),
    /// A stop has ended.
    Lifted(HoldId),
    /// A release is denied.
    Denied(Box<Denial>),
    /// A release is allowed again.
    Allowed(ArtifactDigest),
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell everybody what stands now.
    Announce(Arc<Orders>),
    /// A request is done, durably, or refused.
    Answer {
        /// The request's operation.
        operation: OperationId,
        /// What came of it.
        result: Result<(), OrderError>,
    },
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no such stop.
    #[error("no stop of the whole fleet has the hold {hold}")]
    NoStop {
        /// The hold.
        hold: HoldId,
    },
    /// The release is not denied.
    #[error("the release is not denied")]
    NotDenied,
}

impl OrderBook {
    /// Takes up what is stored.
    #[must_use]
    pub const fn load(orders: Orders) -> Self {
        Self { orders, announced: false }
    }

    /// What stands now.
    #[must_use]
    pub const fn orders(&self) -> &Orders {
        &self.orders
    }
}

impl Machine for OrderBook {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, _now: Now, input: Input, turn: &mut Turn<Record, Effect>) {
        let (operation, result) = match input {
            Input::Stop { operation, stop } => (operation, Ok(self.stop(*stop))),
            Input::Lift { operation, hold } => (operation, self.lift(hold)),
            Input::Deny { operation, denial } => (operation, Ok(self.deny(*denial))),
            Input::Allow { operation, manifest } => (operation, self.allow(manifest)),
        };
        let result = result.map(|record| {
            if let Some(record) = record {
                turn.persist(record);
                // Before the answer: whoever has it finds the order in force.
                turn.effect(Effect::Announce(Arc::new(self.orders.clone())));
            }
        });
        turn.effect(Effect::Answer { operation, result });
    }

    fn handle_timeout(&mut self, _now: Now, turn: &mut Turn<Record, Effect>) {
        if !std::mem::replace(&mut self.announced, true) {
            turn.effect(Effect::Announce(Arc::new(self.orders.clone())));
        }
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        None
    }
}

impl OrderBook {
    fn stop(&mut self, stop: FleetStop) -> Option<Record> {
        if self.orders.stops.contains_key(&stop.hold) {
            return None;
        }
        self.orders.stops.insert(stop.hold, stop.clone());
        Some(Record::Stopped(Box::new(stop)))
    }

    fn lift(&mut self, hold: HoldId) -> Result<Option<Record>, OrderError> {
        self.orders.stops.remove(&hold).ok_or(OrderError::NoStop { hold })?;
        Ok(Some(Record::Lifted(hold)))
    }

    fn deny(&mut self, denial: Denial) -> Option<Record> {
        if self.orders.denials.contains_key(&denial.manifest) {
            return None;
        }
        self.orders.denials.insert(denial.manifest, denial.clone());
        Some(Record::Denied(Box::new(denial)))
    }

    fn allow(&mut self, manifest: ArtifactDigest) -> Result<Option<Record>, OrderError> {
        self.orders.denials.remove(&manifest).ok_or(OrderError::NotDenied)?;
        Ok(Some(Record::Allowed(manifest)))
    }
}
