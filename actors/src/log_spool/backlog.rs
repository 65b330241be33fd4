//! What a spool holds, what its server has of it, and what is to be sent next.

use std::collections::BTreeMap;

use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::session::{LogPosition, LogStream};

use crate::log_record::GapReason;

/// Streams that a spool remembers after their server has all of them: a server that is restored from a backup may
/// ask for them again, and must then be told that they are gone. Three workloads' worth of them fit a Hello.
const ENDED_STREAMS_KEPT: usize = 16;

/// How far a stream came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The stream.
    pub stream: LogStream,
    /// Its last number.
    pub last: u64,
    /// The last number that its server has.
    pub acked: u64,
}

/// Numbers whose lines are not here any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolGap {
    /// The stream.
    pub stream: LogStream,
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Why.
    pub reason: GapReason,
}

/// An entry of a spool's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpooledBatch {
    /// Its number in the log.
    pub entry: u64,
    /// The stream that its records belong to.
    pub stream: LogStream,
    /// The first of their numbers.
    pub first: u64,
    /// The last of their numbers.
    pub last: u64,
    /// About how much room they take.
    pub size_bytes: u64,
}

/// What is sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// An entry of the log, as it was appended.
    Batch {
        /// The entry.
        entry: u64,
        /// The first of its numbers.
        first: u64,
        /// The last of its numbers.
        last: u64,
    },
    /// A gap in place of what is not here any more.
    Gap {
        /// The first number.
        first: u64,
        /// How many.
        count: u64,
        /// Why.
        reason: GapReason,
    },
}

#[derive(Debug)]
struct Spooled {
    position: StreamPosition,
    /// The last number that was sent, or that the server is believed to have.
    cursor: u64,
}

/// What an ack meant.
#[derive(Debug)]
pub(super) struct Progress {
    /// How many batches it covers that were not covered before.
    pub(super) batches: usize,
    /// The last entry that nobody needs any more.
    pub(super) forget_through: Option<u64>,
    /// Whether the server has more than before.
    pub(super) is_forward: bool,
}

/// What a spool holds, in the order of its streams.
#[derive(Debug)]
pub(super) struct Backlog {
    streams: Vec<Spooled>,
    gaps: Vec<SpoolGap>,
    batches: BTreeMap<u64, SpooledBatch>,
    bytes: u64,
    next_entry: u64,
}

impl Backlog {
    pub(super) fn load(
        streams: Vec<StreamPosition>,
        gaps: Vec<SpoolGap>,
        batches: Vec<SpooledBatch>,
        next_entry: u64,
    ) -> Self {
        let streams = streams.into_iter().map(|position| Spooled { cursor: position.acked, position }).collect();
        let mut backlog = Self { streams, gaps, batches: BTreeMap::new(), bytes: 0, next_entry };
        // Whole segments are forgotten at a time: an entry may be there that the server has, or that became a gap.
        for batch in batches {
            let is_acked = backlog.find(&batch.stream).is_none_or(|spooled| batch.last <= spooled.position.acked);
            let is_gap = backlog
                .gaps
                .iter()
                .any(|gap| gap.stream == batch.stream && gap.first <= batch.first && batch.last <= gap.last);
            if !is_acked && !is_gap {
                backlog.bytes += batch.size_bytes;
                backlog.batches.insert(batch.entry, batch);
            }
        }
        backlog
    }

    pub(super) fn size(&self) -> (usize, u64) {
        (self.batches.len(), self.bytes)
    }

    pub(super) fn streams(&self) -> Vec<StreamPosition> {
        self.streams.iter().map(|spooled| spooled.position.clone()).collect()
    }

    pub(super) fn gaps(&self) -> Vec<SpoolGap> {
        self.gaps.clone()
    }

    pub(super) fn last_of(&self, stream: &LogStream) -> u64 {
        self.find(stream).map_or(0, |spooled| spooled.position.last)
    }

    /// Notes an entry that is appended, and gives its number.
    pub(super) fn append(&mut self, stream: &LogStream, first: u64, last: u64, size_bytes: u64) -> u64 {
        match self.streams.iter_mut().find(|spooled| spooled.position.stream == *stream) {
            Some(spooled) => spooled.position.last = last,
            None => {
                let position = StreamPosition { stream: stream.clone(), last, acked: 0 };
                self.streams.push(Spooled { position, cursor: 0 });
                self.forget_ended_streams();
            }
        }
        let entry = self.next_entry;
        self.next_entry += 1;
        self.bytes += size_bytes;
        self.batches.insert(entry, SpooledBatch { entry, stream: stream.clone(), first, last, size_bytes });
        entry
    }

    /// Makes gaps of the oldest batches until the rest fits; the newest always stays. Gives the last entry that went.
    pub(super) fn shrink(&mut self, bytes_max: u64) -> Option<u64> {
        let mut through = None;
        while self.bytes > bytes_max
            && self.batches.len() > 1
            && let Some(entry) = self.batches.keys().next().copied()
        {
            self.lose(entry, GapReason::SpoolFull);
            through = Some(entry);
        }
        through
    }

    /// Makes a gap of a batch. Returns whether it was there.
    pub(super) fn lose(&mut self, entry: u64, reason: GapReason) -> bool {
        let Some(batch) = self.batches.remove(&entry) else { return false };
        self.bytes -= batch.size_bytes;
        let before = self.gaps.iter_mut().rev().find(|gap| gap.stream == batch.stream);
        match before {
            Some(gap) if gap.reason == reason && gap.last.checked_add(1) == Some(batch.first) => gap.last = batch.last,
            _ => {
                let SpooledBatch { stream, first, last, .. } = batch;
                self.gaps.push(SpoolGap { stream, first, last, reason });
            }
        }
        true
    }

    /// Begins to send again after what the server is known to have.
    pub(super) fn rewind(&mut self) {
        self.streams.iter_mut().for_each(|spooled| spooled.cursor = spooled.cursor.min(spooled.position.acked));
    }

    /// Takes the server's word for what it has, which may be less than it once acknowledged.
    pub(super) fn set_cursors(&mut self, positions: &[LogPosition]) {
        for spooled in &mut self.streams {
            let known = positions.iter().find(|position| position.stream == spooled.position.stream);
            spooled.cursor = known.map_or(0, |position| position.sequence).min(spooled.position.last);
        }
    }

    pub(super) fn acknowledge(&mut self, position: &LogPosition) -> Option<Progress> {
        let spooled = self.streams.iter_mut().find(|spooled| spooled.position.stream == position.stream)?;
        let sequence = position.sequence.min(spooled.position.last);
        let acked = spooled.position.acked;
        if sequence < acked {
            // It had acknowledged more: it was restored from a backup, or this is an old ack that came late. Either
            // way it is told from there on, and ignores what it has.
            spooled.cursor = spooled.cursor.min(sequence);
            return Some(Progress { batches: 0, forget_through: None, is_forward: false });
        }
        spooled.cursor = spooled.cursor.max(sequence);
        spooled.position.acked = sequence;
        let covered: Vec<_> = self
            .batches
            .values()
            .filter(|batch| batch.stream == position.stream)
            .filter(|batch| batch.last <= sequence || is_planted(Bug::ForgottenUnacked))
            .map(|batch| batch.entry)
            .collect();
        for entry in &covered {
            if let Some(batch) = self.batches.remove(entry) {
                self.bytes -= batch.size_bytes;
            }
        }
        self.gaps.retain(|gap| gap.stream != position.stream || gap.last > sequence);
        self.forget_ended_streams();
        // Entries go from the front of the log only.
        let oldest = self.batches.keys().next().copied().unwrap_or(self.next_entry);
        let forget_through = (!covered.is_empty()).then(|| oldest.saturating_sub(1)).filter(|through| *through > 0);
        Some(Progress { batches: covered.len(), forget_through, is_forward: sequence > acked })
    }

    /// Gives what is to be sent next, and counts it as sent.
    pub(super) fn take_next(&mut self) -> Option<(LogStream, Unit)> {
        let index = self.streams.iter().position(|spooled| spooled.cursor < spooled.position.last)?;
        let spooled = self.streams.get(index)?;
        let StreamPosition { stream, acked, .. } = spooled.position.clone();
        let (unit, last) = self.unit_at(&stream, spooled.cursor + 1, acked)?;
        self.streams.get_mut(index)?.cursor = last;
        Some((stream, unit))
    }

    fn unit_at(&self, stream: &LogStream, first: u64, acked: u64) -> Option<(Unit, u64)> {
        let gap = |last: u64, reason| (Unit::Gap { first, count: last - first + 1, reason }, last);
        if first <= acked {
            return Some(gap(acked, GapReason::RestoredServer));
        }
        let covers = |from: u64, to: u64| from <= first && first <= to;
        if let Some(lost) = self.gaps.iter().find(|gap| gap.stream == *stream && covers(gap.first, gap.last)) {
            return Some(gap(lost.last, lost.reason));
        }
        let batch = self.batches.values().find(|batch| batch.stream == *stream && covers(batch.first, batch.last));
        if let Some(batch) = batch {
            return Some((Unit::Batch { entry: batch.entry, first: batch.first, last: batch.last }, batch.last));
        }
        // Entries that a damaged disk took away: up to the next that is there, or to the end.
        let known = self.find(stream)?.position.last;
        let next = self.batches.values().filter(|batch| batch.stream == *stream && batch.first > first);
        let next = next.map(|batch| batch.first).chain(self.gaps_after(stream, first)).min();
        Some(gap(next.map_or(known, |next| next - 1), GapReason::Damaged))
    }

    fn gaps_after<'a>(&'a self, stream: &'a LogStream, first: u64) -> impl Iterator<Item = u64> + 'a {
        self.gaps.iter().filter(move |gap| gap.stream == *stream && gap.first > first).map(|gap| gap.first)
    }

    fn forget_ended_streams(&mut self) {
        let is_ended = |spooled: &Spooled| spooled.position.acked == spooled.position.last;
        let ended = self.streams.iter().filter(|spooled| is_ended(spooled)).count();
        let mut surplus = ended.saturating_sub(ENDED_STREAMS_KEPT);
        self.streams.retain(|spooled| {
            let goes = surplus > 0 && is_ended(spooled);
            surplus -= usize::from(goes);
            !goes
        });
    }

    fn find(&self, stream: &LogStream) -> Option<&Spooled> {
        self.streams.iter().find(|spooled| spooled.position.stream == *stream)
    }

    pub(super) fn assert_invariants(&self) {
        let bytes: u64 = self.batches.values().map(|batch| batch.size_bytes).sum();
        assert_eq!(bytes, self.bytes, "the spool's size is miscounted");
        for spooled in &self.streams {
            let StreamPosition { last, acked, .. } = spooled.position;
            assert!(acked <= last && spooled.cursor <= last, "more is acknowledged or sent than was spooled");
        }
    }
}
