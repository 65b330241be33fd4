//! The device's side of one workload's logs: from the runner, into the spool, to the server, and only then away.
//!
//! Lines are numbered when they are spooled, durably and together with how far the runner was read, so that no line
//! is lost or doubled by a restart. Only then is the runner told that it may drop them. While a session is live the
//! spool sends what the server has not acknowledged, a window at a time, and forgets what it has. Each load takes a
//! new stamp and so begins a new stream: a device restored from an old image never gives a number twice.
//!
//! What the spool has no more (it was full, it was damaged, or a server restored from a backup asks for what it had
//! acknowledged before) it sends as a gap. The numbers of a stream therefore have no hole.

mod backlog;
#[cfg(test)]
mod tests;

use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{BootId, OperationId, Stamp};
use fleetd_sync_core::limit;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::{LogPosition, LogStream};
use fleetd_sync_core::time::{Monotonic, Now};

use crate::log_record::{GapReason, LogBatch, LogRecord};
use backlog::Backlog;
pub use backlog::{SpoolGap, SpooledBatch, StreamPosition, Unit};

/// Batches that may be on their way without an ack: a window of 16 KiB each fills a link of 100 ms at 1 MB/s.
const WINDOW_BATCHES: usize = 8;
/// Time without an ack after which everything unacknowledged is sent again: the receiver may have restarted.
const RESEND_AFTER: Duration = Duration::from_secs(10);

/// How far the runner's lines were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineMark {
    /// Which line log of the runner.
    pub stamp: Stamp,
    /// The last line's number there.
    pub sequence: u64,
}

/// What a spool remembers beside its batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolRecord {
    /// How far the runner was read.
    pub read: Option<LineMark>,
    /// How far each stream came, and how far its server has it; the oldest first.
    pub streams: Vec<StreamPosition>,
    /// What was spooled and is not here any more, though no server has it.
    pub gaps: Vec<SpoolGap>,
}

/// One workload's spool.
#[derive(Debug)]
pub struct LogSpool {
    workload: WorkloadName,
    boot: BootId,
    entropy: Entropy,
    spool_bytes_max: u64,
    read: Option<LineMark>,
    backlog: Backlog,
    /// The stream that lines go to; taken with the first line after a load.
    current: Option<LogStream>,
    /// The reading that is under way.
    reading: Option<OperationId>,
    read_at: Option<Monotonic>,
    is_linked: bool,
    /// Batches on their way since the last ack.
    in_flight: usize,
    resend_at: Option<Monotonic>,
    owes: bool,
}

/// What can happen to a spool.
#[derive(Clone, Debug)]
pub enum Input {
    /// The runner has new lines.
    LinesWritten,
    /// Answers [`Effect::ReadLines`].
    LinesRead {
        /// The operation.
        operation: OperationId,
        /// How far that goes; `None` when nothing was there.
        through: Option<LineMark>,
        /// Lines and gaps, in order.
        records: Vec<LogRecord>,
    },
    /// The runner's lines could not be read: it is tried again.
    LinesUnreadable {
        /// The operation.
        operation: OperationId,
    },
    /// A session is live: logs may be sent.
    Linked,
    /// It is not any more.
    Unlinked,
    /// How far the server has each stream of this workload, as its Hello says; it has nothing of others.
    ServerPositions(Vec<LogPosition>),
    /// The server has a stream durably, up to here.
    Acknowledged(LogPosition),
    /// A batch of the spool cannot be read.
    BatchUnreadable {
        /// The entry.
        entry: u64,
    },
}

/// What must be remembered. The records of one turn belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Append these to the workload's spool, as an entry of this number.
    Append {
        /// The entry's number: one above the last.
        entry: u64,
        /// The stream that they belong to.
        stream: LogStream,
        /// The records.
        batch: LogBatch,
    },
    /// Forget the entries up to and with this one.
    Forget {
        /// The last entry that may go.
        through: u64,
    },
    /// What else is remembered.
    Spool(SpoolRecord),
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read lines from the runner.
    ReadLines {
        /// The operation.
        operation: OperationId,
        /// After which one.
        after: Option<LineMark>,
        /// About how much.
        bytes_max: usize,
    },
    /// Tell the runner that it may drop lines.
    AcknowledgeLines {
        /// The last one.
        through: LineMark,
    },
    /// Send the server a batch or a gap.
    Send {
        /// Of which stream.
        stream: LogStream,
        /// What.
        unit: Unit,
    },
    /// Tell the agent how far a stream has come.
    Logged(LogPosition),
}

type SpoolTurn = Turn<Record, Effect>;

impl LogSpool {
    /// Takes a spool up. `batches` is the index of the entries that its log holds, in order, and `next_entry` the
    /// number that the log expects next. `entropy` must be another stream at each load.
    #[must_use]
    pub fn load(
        workload: WorkloadName,
        boot: BootId,
        record: SpoolRecord,
        batches: Vec<SpooledBatch>,
        next_entry: u64,
        spool_bytes_max: u64,
        entropy: Entropy,
    ) -> Self {
        Self {
            workload,
            boot,
            entropy,
            spool_bytes_max,
            read: record.read,
            backlog: Backlog::load(record.streams, record.gaps, batches, next_entry),
            current: None,
            reading: None,
            read_at: None,
            is_linked: false,
            in_flight: 0,
            resend_at: None,
            owes: true,
        }
    }

    /// What is spooled and not acknowledged: batches and their bytes.
    #[must_use]
    pub fn spooled(&self) -> (usize, u64) {
        self.backlog.size()
    }

    fn record(&self) -> SpoolRecord {
        SpoolRecord { read: self.read, streams: self.backlog.streams(), gaps: self.backlog.gaps() }
    }
}

impl Machine for LogSpool {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut SpoolTurn) {
        self.pay_debts(turn);
        match input {
            Input::LinesWritten => self.on_lines_written(now),
            Input::LinesRead { operation, through, records } => {
                self.on_lines_read(now, operation, through, records, turn);
            }
            Input::LinesUnreadable { operation } => self.on_lines_unreadable(now, operation),
            Input::Linked => self.on_linked(),
            Input::Unlinked => self.on_unlinked(),
            Input::ServerPositions(positions) => self.on_server_positions(now, &positions, turn),
            Input::Acknowledged(position) => self.on_acknowledged(now, &position, turn),
            Input::BatchUnreadable { entry } => self.on_batch_unreadable(entry, turn),
        }
        self.send(now, turn);
        self.assert_invariants();
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut SpoolTurn) {
        self.pay_debts(turn);
        if self.read_at.is_some_and(|at| at <= now.monotonic) {
            self.read_lines(turn);
        }
        if self.resend_at.is_some_and(|at| at <= now.monotonic) {
            self.in_flight = 0;
            self.resend_at = None;
            self.backlog.rewind();
        }
        self.send(now, turn);
        self.assert_invariants();
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        [self.read_at, self.resend_at].into_iter().flatten().min()
    }

    fn phase(&self) -> &'static str {
        match (self.is_linked, self.in_flight > 0, self.reading.is_some()) {
            (true, true, _) => "sending",
            (true, false, true) => "linked, reading",
            (true, false, false) => "linked",
            (false, _, true) => "reading",
            (false, _, false) => "waiting",
        }
    }
}

impl LogSpool {
    fn on_lines_written(&mut self, now: Now) {
        // Lines of one second make one batch: each is a write to flash.
        if self.reading.is_none() && self.read_at.is_none() {
            self.read_at = Some(now.monotonic + limit::LOG_SEGMENT_AGE);
        }
    }

    fn on_lines_read(
        &mut self,
        now: Now,
        operation: OperationId,
        through: Option<LineMark>,
        records: Vec<LogRecord>,
        turn: &mut SpoolTurn,
    ) {
        if self.reading != Some(operation) {
            return;
        }
        self.reading = None;
        let Some(through) = through.filter(|_| !records.is_empty()) else { return };
        let size_bytes: u64 = records.iter().map(LogRecord::size_bytes).sum();
        let stream = self.current.get_or_insert_with(|| LogStream {
            workload: self.workload.clone(),
            boot: self.boot,
            stamp: Stamp::draw(&mut self.entropy),
        });
        let stream = stream.clone();
        let batch = LogBatch { sequence_first: self.backlog.last_of(&stream) + 1, records };
        let Some(sequence) = batch.sequence_last() else { return };
        self.read = Some(through);
        let entry = self.backlog.append(&stream, batch.sequence_first, sequence, size_bytes);
        let dropped = self.backlog.shrink(self.spool_bytes_max);
        turn.persist(Record::Append { entry, stream: stream.clone(), batch });
        if let Some(through) = dropped {
            turn.persist(Record::Forget { through });
        }
        turn.persist(Record::Spool(self.record()));
        turn.effect(Effect::AcknowledgeLines { through });
        turn.effect(Effect::Logged(LogPosition { stream, sequence }));
        if size_bytes >= u64::try_from(limit::LOG_SEGMENT_BYTES).unwrap_or(u64::MAX) {
            self.read_lines(turn);
        } else {
            self.read_at = Some(now.monotonic + limit::LOG_SEGMENT_AGE);
        }
    }

    fn on_lines_unreadable(&mut self, now: Now, operation: OperationId) {
        if self.reading == Some(operation) {
            self.reading = None;
            self.read_at = Some(now.monotonic + RESEND_AFTER);
        }
    }

    fn on_linked(&mut self) {
        self.is_linked = true;
        self.in_flight = 0;
        self.backlog.rewind();
    }

    fn on_unlinked(&mut self) {
        self.is_linked = false;
        self.in_flight = 0;
        self.resend_at = None;
    }

    fn on_server_positions(&mut self, now: Now, positions: &[LogPosition], turn: &mut SpoolTurn) {
        self.backlog.set_cursors(positions);
        // What the server has is as good as acknowledged: the ack itself may have been lost with the last session.
        positions.iter().for_each(|position| self.on_acknowledged(now, position, turn));
        self.in_flight = 0;
        self.resend_at = None;
    }

    fn on_acknowledged(&mut self, now: Now, position: &LogPosition, turn: &mut SpoolTurn) {
        let Some(progress) = self.backlog.acknowledge(position) else { return };
        self.in_flight = self.in_flight.saturating_sub(progress.batches.max(1));
        self.resend_at = (self.in_flight > 0).then(|| now.monotonic + RESEND_AFTER);
        if let Some(through) = progress.forget_through {
            turn.persist(Record::Forget { through });
        }
        if progress.is_forward {
            turn.persist(Record::Spool(self.record()));
        }
    }

    fn on_batch_unreadable(&mut self, entry: u64, turn: &mut SpoolTurn) {
        if self.backlog.lose(entry, GapReason::Damaged) {
            self.in_flight = 0;
            self.backlog.rewind();
            turn.persist(Record::Spool(self.record()));
        }
    }

    /// After a load: the agent learns how far each stream came, and the runner may have lines.
    fn pay_debts(&mut self, turn: &mut SpoolTurn) {
        if !self.owes {
            return;
        }
        self.owes = false;
        for StreamPosition { stream, last, .. } in self.backlog.streams() {
            turn.effect(Effect::Logged(LogPosition { stream, sequence: last }));
        }
        if let Some(through) = self.read {
            turn.effect(Effect::AcknowledgeLines { through });
        }
        self.read_lines(turn);
    }

    fn read_lines(&mut self, turn: &mut SpoolTurn) {
        self.read_at = None;
        if self.reading.is_none() {
            let operation = OperationId::random(&mut self.entropy);
            self.reading = Some(operation);
            let (after, bytes_max) = (self.read, limit::LOG_SEGMENT_BYTES);
            turn.effect(Effect::ReadLines { operation, after, bytes_max });
        }
    }

    fn send(&mut self, now: Now, turn: &mut SpoolTurn) {
        while self.is_linked && self.in_flight < WINDOW_BATCHES {
            let Some((stream, unit)) = self.backlog.take_next() else { return };
            self.in_flight += 1;
            self.resend_at = Some(now.monotonic + RESEND_AFTER);
            turn.effect(Effect::Send { stream, unit });
        }
    }

    fn assert_invariants(&self) {
        self.backlog.assert_invariants();
    }
}
