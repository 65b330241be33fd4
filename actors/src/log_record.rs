//! Log records as they travel from a device to its server, in OpenTelemetry's log model.
//!
//! Records of one [`LogStream`](fleetd_sync_core::session::LogStream) are numbered from 1 without a hole: where lines
//! are missing, a gap stands in their place and takes their numbers.

use fleetd_sync_core::time::{ClockQuality, Wall};

/// Where a workload wrote a line. It also gives the severity, for nothing else is known of a plain line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogSource {
    /// OpenTelemetry's severity number: INFO for output, ERROR for errors.
    ///
    /// # Source
    /// OpenTelemetry, Logs Data Model, "Field: `SeverityNumber`".
    #[must_use]
    pub const fn severity_number(self) -> u32 {
        match self {
            Self::Stdout => 9,
            Self::Stderr => 17,
        }
    }
}

/// Why lines are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GapReason {
    /// The device's spool was full.
    SpoolFull,
    /// The workload wrote faster than its shim may keep.
    Rate,
    /// The device's spool was damaged.
    Damaged,
    /// The server had acknowledged them, and lost them when it was restored from a backup.
    RestoredServer,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written, by the device's clock.
    pub time: Wall,
    /// How far that clock could be trusted.
    pub quality: ClockQuality,
    /// Where it was written.
    pub source: LogSource,
    /// Whether it was longer than what is kept.
    pub cut: bool,
    /// The line without its end: bytes, for nothing makes a workload write UTF-8.
    pub body: Vec<u8>,
}

/// A line, or what stands for missing ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRecord {
    /// A line.
    Line(LogLine),
    /// Lines that are missing.
    Gap {
        /// How many.
        count: u64,
        /// Why.
        reason: GapReason,
    },
}

/// Bytes that a record takes beside its body: an estimate, by which spools are bounded.
const RECORD_OVERHEAD_BYTES: u64 = 32;

impl LogRecord {
    /// How many numbers it takes.
    #[must_use]
    pub const fn span(&self) -> u64 {
        match self {
            Self::Line(_) => 1,
            Self::Gap { count, .. } => *count,
        }
    }

    /// About how much room it takes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let body = match self {
            Self::Line(line) => line.body.len(),
            Self::Gap { .. } => 0,
        };
        RECORD_OVERHEAD_BYTES.saturating_add(u64::try_from(body).unwrap_or(u64::MAX))
    }
}

/// Records whose numbers follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogBatch {
    /// The number of the first.
    pub sequence_first: u64,
    /// The records.
    pub records: Vec<LogRecord>,
}

impl LogBatch {
    /// The last number that it takes, or `None` when it takes none, or more than there are.
    #[must_use]
    pub fn sequence_last(&self) -> Option<u64> {
        let span = self.records.iter().try_fold(0_u64, |sum, record| sum.checked_add(record.span()))?;
        let last = self.sequence_first.checked_add(span.checked_sub(1)?)?;
        (self.sequence_first > 0 && self.records.iter().all(|record| record.span() > 0)).then_some(last)
    }

    /// Takes away what has a number up to and with `through`.
    #[must_use]
    pub fn after(mut self, through: u64) -> Self {
        let (mut first, mut gone) = (self.sequence_first, 0);
        for record in &mut self.records {
            if first > through {
                break;
            }
            let surplus = (through - first).saturating_add(1);
            match record {
                LogRecord::Gap { count, .. } if *count > surplus => {
                    *count -= surplus;
                    first += surplus;
                }
                _ => {
                    first = first.saturating_add(record.span());
                    gone += 1;
                }
            }
        }
        // All at once: one by one, a batch of many short lines would be moved as often as it has records.
        self.records.drain(..gone);
        self.sequence_first = first;
        self
    }
}
