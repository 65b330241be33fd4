//! Lines that a workload writes, as they pass from its shim to the agent.

use fleetd_sync_core::id::Stamp;
use fleetd_sync_core::time::Wall;

/// Bytes of lines that one shim keeps by default: a minute of a chatty workload, and small in a device's memory.
pub const LINE_BYTES_MAX: u64 = 4 << 20;

/// A place in one workload's line log.
///
/// A log keeps its stamp while its numbers go on; a log that had to begin again has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinePosition {
    /// Which log.
    pub stamp: Stamp,
    /// The line's number, counted from 1; 0 is before the first.
    pub sequence: u64,
}

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, without its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, counted from 1.
    pub sequence: u64,
    /// When it was read from the workload.
    pub wall: Wall,
    /// Where it was written.
    pub source: LineSource,
    /// Whether more of it was dropped, because it was longer than
    /// [`limit::LOG_LINE_BYTES_MAX`](fleetd_sync_core::limit::LOG_LINE_BYTES_MAX).
    pub cut: bool,
    /// What was written: bytes, for nothing makes a workload write UTF-8.
    pub bytes: Vec<u8>,
}

/// A line, or where lines are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineEntry {
    /// A line.
    Line(Line),
    /// Lines that were dropped unread, because the reader was too slow for the room that the log may take.
    Gap {
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
}

/// What one reading gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineBatch {
    /// Which log was read. Another stamp than the one asked for means that the numbers began again.
    pub stamp: Stamp,
    /// Lines and gaps, in order, without a hole that is not marked.
    pub entries: Vec<LineEntry>,
}

impl LineBatch {
    /// Returns where the next reading goes on, or `None` when nothing was read.
    #[must_use]
    pub fn through(&self) -> Option<LinePosition> {
        let sequence = match self.entries.last()? {
            LineEntry::Line(line) => line.sequence,
            LineEntry::Gap { last, .. } => *last,
        };
        Some(LinePosition { stamp: self.stamp, sequence })
    }
}
