//! Logs as segment files: appended and synced, sealed and compressed, dropped whole.
//!
//! A log's end is a record in the database, written in the same atomic batch as the rest of its turn. Entries are
//! appended and synced *before* that batch, so after a crash either the record counts them, or they lie beyond the
//! end and are cut when the log is next written. A log's segments are therefore never ahead of its turn for a
//! reader, and never behind it but by damage, which shows as a gap.
//!
//! The layout: `FIRST.open` holds framed entries and grows; at [`LOG_SEGMENT_BYTES`] it becomes one or more
//! `FIRST-LAST.sealed`, packed and compressed.

mod frame;
#[cfg(test)]
mod fuzz;
mod index;

pub(crate) mod files;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use fleetd_sync_core::limit::LOG_SEGMENT_BYTES;

use self::files::Files;
use self::index::{Index, Open, Sealed, open_file};
use crate::open_error::is_damage;
use crate::record::LogState;
use crate::state_store::LogPart;
use crate::unpoison::Unpoison;

/// Logs whose index stays in memory: two hundred bytes each, and reading a folder again costs a few system calls.
const INDEXES_KEPT: usize = 8192;
/// Characters of a log's name: a folder on every file system.
const LOG_NAME_CHARS_MAX: usize = 200;

/// Says whether `log` can name a folder.
pub(crate) fn is_log_name(log: &str) -> bool {
    !log.is_empty()
        && log.len() <= LOG_NAME_CHARS_MAX
        && !log.starts_with('.')
        && log.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+=@".contains(&byte))
}

/// One log's index, if it was read.
#[derive(Debug, Default)]
struct Slot {
    index: Option<Index>,
}

/// All logs of a store.
#[derive(Debug)]
pub(crate) struct SegmentLogs<F> {
    files: F,
    slots: Mutex<BTreeMap<String, Arc<Mutex<Slot>>>>,
}

impl<F: Files> SegmentLogs<F> {
    /// Takes the files.
    pub(crate) fn new(files: F) -> Self {
        Self { files, slots: Mutex::default() }
    }

    /// Removes the folders of logs that the database does not know.
    pub(crate) fn sweep(&self, mut is_known: impl FnMut(&str) -> io::Result<bool>) -> io::Result<()> {
        for log in self.files.logs()? {
            if is_log_name(&log) && !is_known(&log)? {
                self.files.remove_log(&log)?;
            }
        }
        Ok(())
    }

    fn slot(&self, log: &str) -> Arc<Mutex<Slot>> {
        let mut slots = self.slots.lock().unpoison();
        if slots.len() >= INDEXES_KEPT && !slots.contains_key(log) {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(log.to_owned()).or_default())
    }

    /// Appends entries and makes them durable. `state` is the log's committed state; a log that is new has its
    /// first entry's number as both ends.
    pub(crate) fn append(&self, log: &str, state: LogState, entries: &[(u64, &[u8])]) -> io::Result<()> {
        let Some((first, _)) = entries.first() else {
            return Ok(());
        };
        let slot = self.slot(log);
        let mut slot = slot.lock().unpoison();
        // Until this has succeeded the index is unknown, so that the next append recovers the log first.
        let mut index = match slot.index.take() {
            Some(index) => index,
            None => Index::recover(&self.files, log, state)?,
        };
        let is_new = index.opens.is_empty();
        let mut open = index.opens.pop().unwrap_or(Open { first: *first, length_bytes: 0 });
        let mut bytes = Vec::with_capacity(entries.iter().map(|(_, entry)| entry.len() + 32).sum());
        for (sequence, entry) in entries {
            frame::push_frame(&mut bytes, *sequence, entry)
                .ok_or_else(|| io::Error::other(format!("an entry of {} bytes is too long for a log", entry.len())))?;
        }
        self.files.write_at(log, &open_file(open.first), open.length_bytes, &bytes)?;
        self.files.sync(log, &open_file(open.first))?;
        if is_new {
            self.files.sync_names(log)?;
        }
        open.length_bytes += bytes.len() as u64;
        index.opens.push(open);
        slot.index = Some(index);
        Ok(())
    }

    /// Forgets what is known of a log's files, after a turn that appended to it was not committed: the next append
    /// cuts what the turn left.
    pub(crate) fn invalidate(&self, log: &str) {
        self.slot(log).lock().unpoison().index = None;
    }

    /// Gives space back once a log's state is committed: drops segments that were forgotten, seals a full one.
    /// `state` is `None` when the log was removed.
    pub(crate) fn tidy(&self, log: &str, state: Option<LogState>) -> io::Result<()> {
        let slot = self.slot(log);
        let mut slot = slot.lock().unpoison();
        let Some(state) = state else {
            slot.index = None;
            return self.files.remove_log(log);
        };
        let mut index = match slot.index.take() {
            Some(index) => index,
            None => Index::recover(&self.files, log, state)?,
        };
        let (forgotten, kept): (Vec<Sealed>, Vec<Sealed>) =
            index.sealed.iter().partition(|sealed| sealed.last < state.first);
        for sealed in forgotten {
            self.files.remove(log, &sealed.file())?;
        }
        index.sealed = kept;
        if let Some(open) = index.opens.pop_if(|open| open.length_bytes >= LOG_SEGMENT_BYTES as u64) {
            index.reseal(&self.files, log, open, state)?;
        }
        slot.index = Some(index);
        Ok(())
    }

    /// Reads entries from `from` on, at least one and otherwise at most `bytes_max` of them. `state` is asked for
    /// once the log cannot be tidied under the reader.
    pub(crate) fn read<E: From<io::Error>>(
        &self,
        log: &str,
        from: u64,
        bytes_max: usize,
        state: impl FnOnce() -> Result<Option<LogState>, E>,
    ) -> Result<Vec<LogPart>, E> {
        if !is_log_name(log) {
            return Ok(Vec::new());
        }
        let slot = self.slot(log);
        let slot = slot.lock().unpoison();
        let Some(state) = state()? else {
            return Ok(Vec::new());
        };
        let scanned;
        let index = match &slot.index {
            Some(index) => index,
            None => {
                // Only an append may recover: it alone knows that nothing is under way.
                scanned = Index::scan(&self.files, log)?;
                &scanned
            }
        };
        Ok(self.read_index(log, index, from.max(state.first), state.next, bytes_max)?)
    }

    fn read_index(&self, log: &str, index: &Index, from: u64, next: u64, bytes_max: usize) -> io::Result<Vec<LogPart>> {
        let mut page = Page { parts: Vec::new(), expected: from, next, bytes_left: bytes_max };
        let sealed = index.sealed.iter().map(|sealed| (sealed.first, Some(*sealed)));
        let mut segments: Vec<(u64, Option<Sealed>)> =
            sealed.chain(index.opens.iter().map(|open| (open.first, None))).collect();
        segments.sort_by_key(|(first, _)| *first);
        for (first, sealed) in segments {
            let is_full = match sealed {
                Some(sealed) if sealed.last < page.expected => false,
                Some(sealed) => {
                    let bytes = self.read_or_nothing(log, &sealed.file())?;
                    let entries = frame::unseal(&bytes, sealed.count()).unwrap_or_default();
                    (first..).zip(&entries).any(|(sequence, entry)| !page.push(sequence, entry))
                }
                None => {
                    let bytes = self.read_or_nothing(log, &open_file(first))?;
                    frame::frames(&bytes, next).iter().any(|frame| !page.push(frame.sequence, frame.entry))
                }
            };
            if is_full {
                return Ok(page.parts);
            }
        }
        page.close();
        Ok(page.parts)
    }

    /// Reads a segment; one that is gone or that the medium no longer gives is damage like any other.
    fn read_or_nothing(&self, log: &str, file: &str) -> io::Result<Vec<u8>> {
        match self.files.read(log, file) {
            Err(error) if is_damage(&error) => {
                tracing::warn!(log, file, %error, "a log segment cannot be read");
                Ok(Vec::new())
            }
            read => read,
        }
    }
}

/// Entries on their way to a reader: each number once, in order, with gaps between.
struct Page {
    parts: Vec<LogPart>,
    expected: u64,
    next: u64,
    bytes_left: usize,
}

impl Page {
    /// Takes an entry unless it was taken already; false when the page is full.
    fn push(&mut self, sequence: u64, entry: &[u8]) -> bool {
        if sequence < self.expected || sequence >= self.next {
            return true;
        }
        let has_entry = self.parts.iter().any(|part| matches!(part, LogPart::Entry { .. }));
        if has_entry && entry.len() > self.bytes_left {
            return false;
        }
        if sequence > self.expected {
            self.parts.push(LogPart::Gap { first: self.expected, last: sequence - 1 });
        }
        self.bytes_left = self.bytes_left.saturating_sub(entry.len());
        self.parts.push(LogPart::Entry { sequence, entry: entry.to_vec() });
        self.expected = sequence + 1;
        true
    }

    /// Marks what is missing at the log's end.
    fn close(&mut self) {
        if self.expected < self.next {
            self.parts.push(LogPart::Gap { first: self.expected, last: self.next - 1 });
        }
    }
}
