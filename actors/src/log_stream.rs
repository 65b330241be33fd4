//! The server's side of one workload's logs on one device: each record is stored exactly once, in order, and only
//! then acknowledged.
//!
//! A batch is stored if its numbers follow what is stored of its stream; what overlaps is cut off, and what is known
//! already is only acknowledged again. A batch that would leave a hole is not stored: the ack says where the stream
//! stands, and the device goes on from there, with gaps for what it has no more. So a server that was restored from a
//! backup goes on too. Whoever follows the log gets its batches once they are durable.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::id::{BootId, OperationId, Stamp};
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::session::{LogPosition, LogStream};
use fleetd_sync_core::time::{Monotonic, Now};

use crate::log_record::LogBatch;

/// Numberings that are remembered, each one start of an agent: a device keeps far fewer unacknowledged.
const NUMBERINGS_KEPT: usize = 64;

/// How far one numbering of the log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// The boot of the device.
    pub boot: BootId,
    /// The spool's stamp.
    pub stamp: Stamp,
    /// The last number that is stored.
    pub sequence: u64,
    /// The log's entry that brought it, by which the numbering used longest ago is found.
    pub entry: u64,
}

/// One workload's log on one device.
#[derive(Debug)]
pub struct LogStore {
    workload: WorkloadName,
    numberings: BTreeMap<(BootId, Stamp), Numbering>,
    next_entry: u64,
    followers: BTreeSet<OperationId>,
    refused: u64,
}

/// What can happen to a log.
#[derive(Clone, Debug)]
pub enum Input {
    /// The device sent records.
    Received {
        /// Of which stream.
        stream: LogStream,
        /// The records.
        batch: LogBatch,
    },
    /// Somebody wants to follow the log.
    Follow {
        /// Answered by [`Effect::Following`], and again and again by [`Effect::Tail`].
        operation: OperationId,
    },
    /// Somebody does not want that any more.
    Unfollow {
        /// The operation that it began with.
        operation: OperationId,
    },
}

/// What must be remembered. The records of one turn belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Append these to the log.
    Append {
        /// The entry's number: one above the last.
        entry: u64,
        /// The stream that they belong to.
        stream: LogStream,
        /// The records.
        batch: LogBatch,
    },
    /// How far a numbering has come.
    Position(Numbering),
    /// A numbering that is not needed any more.
    Forget {
        /// The boot of the device.
        boot: BootId,
        /// The spool's stamp.
        stamp: Stamp,
    },
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the device that its stream is durable up to here.
    Acknowledge(LogPosition),
    /// Following begins: entries up to and with `through` are in the store, all later ones come as [`Effect::Tail`].
    Following {
        /// The operation.
        operation: OperationId,
        /// The last entry that is in the store; 0 for none.
        through: u64,
    },
    /// Hand a follower a batch that is durable.
    Tail {
        /// The operation that it began with.
        operation: OperationId,
        /// The entry.
        entry: u64,
        /// The stream.
        stream: LogStream,
        /// The records.
        batch: LogBatch,
    },
}

type StoreTurn = Turn<Record, Effect>;

impl LogStore {
    /// Takes a log up from its numberings and the number that its next entry will have.
    #[must_use]
    pub fn load(workload: WorkloadName, numberings: impl IntoIterator<Item = Numbering>, next_entry: u64) -> Self {
        let numberings = numberings.into_iter().map(|found| ((found.boot, found.stamp), found)).collect();
        Self { workload, numberings, next_entry, followers: BTreeSet::new(), refused: 0 }
    }

    /// How far each stream has come, for the server's Hello.
    #[must_use]
    pub fn positions(&self) -> Vec<LogPosition> {
        self.numberings.values().map(|found| self.position(found.boot, found.stamp, found.sequence)).collect()
    }

    /// Batches that were not what a device may send.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    fn position(&self, boot: BootId, stamp: Stamp, sequence: u64) -> LogPosition {
        LogPosition { stream: LogStream { workload: self.workload.clone(), boot, stamp }, sequence }
    }
}

impl Machine for LogStore {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, _now: Now, input: Input, turn: &mut StoreTurn) {
        match input {
            Input::Received { stream, batch } => self.on_received(stream, batch, turn),
            Input::Follow { operation } => self.on_follow(operation, turn),
            Input::Unfollow { operation } => self.on_unfollow(operation),
        }
        self.assert_invariants();
    }

    fn handle_timeout(&mut self, _now: Now, _turn: &mut StoreTurn) {}

    fn poll_timeout(&self) -> Option<Monotonic> {
        None
    }

    fn is_idle(&self) -> bool {
        self.followers.is_empty()
    }
}

impl LogStore {
    fn on_received(&mut self, stream: LogStream, batch: LogBatch, turn: &mut StoreTurn) {
        let Some(last) = batch.sequence_last().filter(|_| stream.workload == self.workload) else {
            self.refused = self.refused.saturating_add(1);
            return;
        };
        let key = (stream.boot, stream.stamp);
        let stored = self.numberings.get(&key).map_or(0, |found| found.sequence);
        let leaves_a_hole = batch.sequence_first > stored.saturating_add(1);
        if (last <= stored && !is_planted(Bug::StoredTwice)) || leaves_a_hole {
            turn.effect(Effect::Acknowledge(LogPosition { stream, sequence: stored }));
            return;
        }
        let batch = if is_planted(Bug::StoredTwice) { batch } else { batch.after(stored) };
        let entry = self.next_entry;
        self.next_entry += 1;
        let numbering = Numbering { boot: stream.boot, stamp: stream.stamp, sequence: last, entry };
        self.numberings.insert(key, numbering);
        turn.persist(Record::Append { entry, stream: stream.clone(), batch: batch.clone() });
        turn.persist(Record::Position(numbering));
        self.forget_oldest(turn);
        turn.effect(Effect::Acknowledge(LogPosition { stream: stream.clone(), sequence: last }));
        for operation in &self.followers {
            let (operation, stream, batch) = (*operation, stream.clone(), batch.clone());
            turn.effect(Effect::Tail { operation, entry, stream, batch });
        }
    }

    fn on_follow(&mut self, operation: OperationId, turn: &mut StoreTurn) {
        self.followers.insert(operation);
        turn.effect(Effect::Following { operation, through: self.next_entry.saturating_sub(1) });
    }

    fn on_unfollow(&mut self, operation: OperationId) {
        self.followers.remove(&operation);
    }

    fn forget_oldest(&mut self, turn: &mut StoreTurn) {
        if self.numberings.len() > NUMBERINGS_KEPT
            && let Some(oldest) = self.numberings.values().min_by_key(|found| found.entry).copied()
        {
            self.numberings.remove(&(oldest.boot, oldest.stamp));
            turn.persist(Record::Forget { boot: oldest.boot, stamp: oldest.stamp });
        }
    }

    fn assert_invariants(&self) {
        assert!(self.numberings.values().all(|found| found.entry < self.next_entry), "an entry was numbered twice");
    }
}
