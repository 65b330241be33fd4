//! Copying a whole store while it is written to, and making one of such a copy.
//!
//! A copy is a row of pieces: raw records as they lie in the table, checksums and revisions included, in one consistent
//! state, and before the state of each log the entries that it counts. What a log forgets while it is copied shows in
//! the copy as it would in the store: as a gap.

use std::io;
use std::ops::{Bound, ControlFlow};

use crate::engine::Engine;
use crate::record::{self, LogState};
use crate::segment_log::files::Files;
use crate::segment_log::{SegmentLogs, is_log_name};
use crate::state_store::{LogPart, ReadError};
use crate::table::{Table, Write};

/// Bytes of a log that are read at once.
const READ_BYTES: usize = 256 << 10;
/// Bytes of pieces that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// A piece of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A record, as it lies in the table.
    Record {
        /// Its raw key.
        key: Vec<u8>,
        /// Its raw value.
        value: Vec<u8>,
    },
    /// An entry of a log. All entries of a log come one after the other, and before the record of its state.
    Entry {
        /// The log.
        log: String,
        /// The entry's number.
        sequence: u64,
        /// The entry.
        entry: Vec<u8>,
    },
}

impl Piece {
    fn bytes(&self) -> usize {
        match self {
            Self::Record { key, value } => key.len() + value.len(),
            Self::Entry { log, entry, .. } => log.len() + entry.len(),
        }
    }
}

/// Takes one piece, and says whether to go on.
pub type TakePiece<'a> = dyn FnMut(Piece) -> ControlFlow<()> + 'a;

/// A store that can be copied while it is written to.
pub trait CopyStore: Send + Sync + 'static {
    /// Gives every piece of the store, as it is when this is called, until `take` breaks. It blocks, and holds up
    /// nobody who reads or commits; but a store on disk that has failed opens itself again only when this is over, so
    /// `take` must not wait for ever.
    ///
    /// # Errors
    /// [`ReadError`]: something is damaged, or the store failed.
    fn copy(&self, take: &mut TakePiece<'_>) -> Result<(), ReadError>;
}

impl<T: Table, F: Files> Engine<T, F> {
    pub(crate) fn copy(&self, take: &mut TakePiece<'_>) -> Result<(), ReadError> {
        let mut copied = Ok(());
        self.table().range(Bound::Unbounded, record::STORE_END, &mut |key, value| match self
            .copy_record(key, value, take)
        {
            Ok(flow) => flow,
            Err(error) => {
                copied = Err(error);
                ControlFlow::Break(())
            }
        })?;
        copied
    }

    /// Gives one record of the state that is copied, and before a log's state its entries.
    pub(crate) fn copy_record(
        &self,
        key: &[u8],
        value: &[u8],
        take: &mut TakePiece<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        record::decode(key, value)?;
        if let Some(log) = record::log_of_key(key)
            && self.copy_log(log, LogState::decode(key, value)?, take)?.is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
        Ok(take(Piece::Record { key: key.to_vec(), value: value.to_vec() }))
    }

    fn copy_log(&self, log: &str, state: LogState, take: &mut TakePiece<'_>) -> Result<ControlFlow<()>, ReadError> {
        let mut from = state.first;
        while from < state.next {
            let parts: Vec<LogPart> = self
                .logs()
                .read(log, from, READ_BYTES, || Ok::<_, ReadError>(Some(LogState { first: from, ..state })))?;
            let Some(last) = parts.last() else { break };
            from = 1 + match last {
                LogPart::Entry { sequence, .. } => *sequence,
                LogPart::Gap { last, .. } => *last,
            };
            for part in parts {
                let LogPart::Entry { sequence, entry } = part else { continue };
                if take(Piece::Entry { log: log.to_owned(), sequence, entry }).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Why a store cannot be made of a copy.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The copy cannot be read, or the disk refuses.
    #[error("the copy cannot be read, or the disk does not take it")]
    Io(#[from] io::Error),
    /// A piece is not what was copied.
    #[error("a piece of the copy is not what was written")]
    Damaged(#[from] ReadError),
    /// The copy ends early: it has not even the store's own revision.
    #[error("the copy is not whole")]
    Cut,
    /// A log has a name that no store gives it, and that may lead out of the store's folder.
    #[error("{log:?} is no name of a log")]
    LogName {
        /// The name.
        log: String,
    },
}

/// Gives the next piece of a copy; `None` at its end.
pub type NextPiece<'a> = dyn FnMut() -> io::Result<Option<Piece>> + 'a;

/// Fills an empty table and empty logs from a copy.
pub(crate) fn fill<T: Table, F: Files>(
    table: &T,
    logs: &SegmentLogs<F>,
    next: &mut NextPiece<'_>,
) -> Result<(), RestoreError> {
    let mut filling = Filling { table, logs, writes: Vec::new(), written_bytes: 0, log: None };
    let mut has_revision = false;
    while let Some(piece) = next()? {
        has_revision |= matches!(&piece, Piece::Record { key, .. } if key == record::REVISION_KEY);
        filling.take(piece)?;
    }
    filling.flush()?;
    if has_revision { Ok(()) } else { Err(RestoreError::Cut) }
}

/// Entries of one log on their way in.
struct Entries {
    log: String,
    /// What the log has already, if it has any.
    written: Option<LogState>,
    entries: Vec<(u64, Vec<u8>)>,
    bytes: usize,
}

struct Filling<'a, T, F> {
    table: &'a T,
    logs: &'a SegmentLogs<F>,
    writes: Vec<Write>,
    written_bytes: usize,
    log: Option<Entries>,
}

impl<T: Table, F: Files> Filling<'_, T, F> {
    fn take(&mut self, piece: Piece) -> Result<(), RestoreError> {
        let bytes = piece.bytes();
        match piece {
            Piece::Record { key, value } => {
                record::decode(&key, &value)?;
                if let Some(log) = record::log_of_key(&key) {
                    check_name(log)?;
                    self.end_log(log, LogState::decode(&key, &value)?)?;
                }
                self.writes.push((key, Some(value)));
                self.written_bytes += bytes;
                if self.written_bytes >= WRITE_BYTES {
                    self.flush()?;
                }
            }
            Piece::Entry { log, sequence, entry } => {
                check_name(&log)?;
                let begun = self.log.take().filter(|open| open.log == log);
                let mut open = begun.unwrap_or(Entries { log, written: None, entries: Vec::new(), bytes: 0 });
                open.entries.push((sequence, entry));
                open.bytes += bytes;
                if open.bytes >= WRITE_BYTES {
                    append(self.logs, &mut open)?;
                }
                self.log = Some(open);
            }
        }
        Ok(())
    }

    /// The log's entries are complete: this is the state that counts them.
    fn end_log(&mut self, log: &str, state: LogState) -> Result<(), RestoreError> {
        let Some(mut open) = self.log.take().filter(|open| open.log == log) else { return Ok(()) };
        append(self.logs, &mut open)?;
        Ok(self.logs.tidy(log, Some(state))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.written_bytes = 0;
        self.table.commit(std::mem::take(&mut self.writes))
    }
}

/// A copy may come from anywhere, and a log's name becomes a folder's.
fn check_name(log: &str) -> Result<(), RestoreError> {
    if is_log_name(log) { Ok(()) } else { Err(RestoreError::LogName { log: log.to_owned() }) }
}

/// Writes the entries that have gathered, and seals what is full.
fn append<F: Files>(logs: &SegmentLogs<F>, open: &mut Entries) -> io::Result<()> {
    let (Some((first, _)), Some((last, _))) = (open.entries.first(), open.entries.last()) else { return Ok(()) };
    let begun = open.written.unwrap_or(LogState { first: *first, next: *first });
    let written = LogState { first: begun.first, next: last.saturating_add(1) };
    let entries: Vec<(u64, &[u8])> =
        open.entries.iter().map(|(sequence, entry)| (*sequence, entry.as_slice())).collect();
    logs.append(&open.log, begun, &entries)?;
    logs.tidy(&open.log, Some(written))?;
    (open.written, open.bytes) = (Some(written), 0);
    open.entries.clear();
    Ok(())
}
