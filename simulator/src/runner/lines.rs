//! The lines that programs write: numbered, kept until the agent has them, gone with the power.

use std::collections::{BTreeMap, VecDeque};

use fleetd_agent::runner::line::{Line, LineBatch, LineEntry, LinePosition, LineSource};
use fleetd_sync_core::id::Stamp;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Wall;

/// One workload's lines, as its shim keeps them.
#[derive(Debug)]
struct LineLog {
    stamp: Stamp,
    last: u64,
    kept: VecDeque<Line>,
}

/// The lines of every workload of a device.
#[derive(Debug, Default)]
pub(super) struct Lines {
    logs: BTreeMap<WorkloadName, LineLog>,
    /// Logs that were begun: each has a stamp of its own.
    begun: u64,
}

impl Lines {
    /// A program writes a line. Returns where it stands, and what was written: no two lines of a device are alike.
    pub(super) fn write(&mut self, workload: &WorkloadName, wall: Wall) -> (LinePosition, Vec<u8>) {
        let begun = &mut self.begun;
        let log = self.logs.entry(workload.clone()).or_insert_with(|| {
            *begun += 1;
            LineLog { stamp: Stamp(*begun), last: 0, kept: VecDeque::new() }
        });
        log.last += 1;
        let at = LinePosition { stamp: log.stamp, sequence: log.last };
        let bytes = format!("{workload} brews cup {} of batch {}", at.sequence, at.stamp.0).into_bytes();
        let source = if log.last.is_multiple_of(7) { LineSource::Stderr } else { LineSource::Stdout };
        log.kept.push_back(Line { sequence: log.last, wall, source, cut: false, bytes: bytes.clone() });
        (at, bytes)
    }

    /// Where a workload's lines end.
    pub(super) fn end(&self, workload: &WorkloadName) -> LinePosition {
        let end = |log: &LineLog| LinePosition { stamp: log.stamp, sequence: log.last };
        self.logs.get(workload).map(end).unwrap_or_default()
    }

    /// Reads what follows a position, or from the oldest that is kept when it is another log's.
    pub(super) fn read(&self, workload: &WorkloadName, after: Option<LinePosition>, bytes_max: usize) -> LineBatch {
        let Some(log) = self.logs.get(workload) else { return LineBatch::default() };
        let after = after.filter(|after| after.stamp == log.stamp).map_or(0, |after| after.sequence);
        let mut bytes = 0;
        let lines = log.kept.iter().filter(|line| line.sequence > after).take_while(|line| {
            let fits = bytes < bytes_max;
            bytes += line.bytes.len();
            fits
        });
        LineBatch { stamp: log.stamp, entries: lines.cloned().map(LineEntry::Line).collect() }
    }

    /// Drops what is safe elsewhere.
    pub(super) fn release(&mut self, workload: &WorkloadName, through: LinePosition) {
        if let Some(log) = self.logs.get_mut(workload).filter(|log| log.stamp == through.stamp) {
            log.kept.retain(|line| line.sequence > through.sequence);
        }
    }

    /// Loses all of it, as memory does without power.
    pub(super) fn lose(&mut self) {
        self.logs.clear();
    }

    /// The workloads of which there are lines.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &WorkloadName> {
        self.logs.keys()
    }
}
