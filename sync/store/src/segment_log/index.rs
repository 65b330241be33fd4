//! The segments of one log by their file names, and what recovery does with what a crash left.

use std::io;

use super::files::Files;
use super::frame;
use crate::record::LogState;

/// Bytes of entries that one sealed segment packs at most, when a group of turns appended more at once: a reader
/// unpacks a whole segment for its first entry.
const SEALED_ENTRY_BYTES_MAX: usize = 128 << 10;
const OPEN_SUFFIX: &str = ".open";
const SEALED_SUFFIX: &str = ".sealed";
const SEALING_SUFFIX: &str = ".sealing";

/// A sealed segment: entries `first` to `last`, in a file that no longer changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Sealed {
    pub(super) fn file(self) -> String {
        format!("{:016x}-{:016x}{SEALED_SUFFIX}", self.first, self.last)
    }

    /// How many entries it has. A name on a disk can say anything, and so more than there are numbers.
    pub(super) fn count(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    fn parse(file: &str) -> Option<Self> {
        let (first, last) = file.strip_suffix(SEALED_SUFFIX)?.split_once('-')?;
        let sealed = Self { first: parse_number(first)?, last: parse_number(last)? };
        (sealed.first <= sealed.last).then_some(sealed)
    }
}

/// The segment that grows, by the number of its first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) first: u64,
    /// Bytes of it that are committed; what lies behind is overwritten.
    pub(super) length_bytes: u64,
}

pub(super) fn open_file(first: u64) -> String {
    format!("{first:016x}{OPEN_SUFFIX}")
}

fn parse_number(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The segments of a log, each kind in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) sealed: Vec<Sealed>,
    pub(super) opens: Vec<Open>,
}

impl Index {
    /// Reads the names in a log's folder and changes nothing.
    pub(super) fn scan(files: &impl Files, log: &str) -> io::Result<Self> {
        let mut index = Self::default();
        for file in files.list(log)? {
            if let Some(sealed) = Sealed::parse(&file) {
                index.sealed.push(sealed);
            } else if let Some(first) = file.strip_suffix(OPEN_SUFFIX).and_then(parse_number) {
                index.opens.push(Open { first, length_bytes: 0 });
            }
        }
        index.sealed.sort_by_key(|sealed| (sealed.first, sealed.last));
        index.opens.sort_by_key(|open| open.first);
        Ok(index)
    }

    /// Reads a log's folder and brings it in line with its state: what was begun and not committed is cut, what
    /// was half sealed is sealed again. Afterwards at most one segment is open and all it holds is committed.
    pub(super) fn recover(files: &impl Files, log: &str, state: LogState) -> io::Result<Self> {
        for file in files.list(log)? {
            if file.ends_with(SEALING_SUFFIX) {
                files.remove(log, &file)?;
            }
        }
        let mut index = Self::scan(files, log)?;
        index.cut_sealed(files, log, state)?;
        let mut opens = std::mem::take(&mut index.opens);
        let last = opens.pop();
        for open in opens {
            index.reseal(files, log, open, state)?;
        }
        if let Some(open) = last {
            let bytes = files.read(log, &open_file(open.first))?;
            let frames = frame::frames(&bytes, state.next);
            let newest = frames.last().map(|frame| (frame.sequence, frame.end));
            let overlaps = index.sealed.iter().any(|sealed| sealed.last >= open.first);
            match newest {
                None => files.remove(log, &open_file(open.first))?,
                Some(_) if overlaps => index.reseal(files, log, open, state)?,
                Some((_, end)) => {
                    if end < bytes.len() {
                        files.truncate(log, &open_file(open.first), end as u64)?;
                        files.sync(log, &open_file(open.first))?;
                    }
                    index.opens.push(Open { first: open.first, length_bytes: end as u64 });
                }
            }
        }
        Ok(index)
    }

    /// Removes sealed segments that lie beyond the log's end, and cuts one that straddles it: a database that
    /// came back without its last commits has fewer entries than its segments.
    fn cut_sealed(&mut self, files: &impl Files, log: &str, state: LogState) -> io::Result<()> {
        let (kept, beyond): (Vec<Sealed>, Vec<Sealed>) =
            self.sealed.iter().partition(|sealed| sealed.last < state.next);
        self.sealed = kept;
        for sealed in beyond {
            let committed = state.next.saturating_sub(sealed.first);
            if committed > 0
                && let Some(entries) = frame::unseal(&files.read(log, &sealed.file())?, sealed.count())
            {
                let entries: Vec<(u64, &[u8])> =
                    (sealed.first..state.next).zip(entries.iter().map(Vec::as_slice)).collect();
                self.write_sealed(files, log, &entries)?;
                files.sync_names(log)?;
            }
            files.remove(log, &sealed.file())?;
        }
        Ok(())
    }

    /// Seals an open segment and removes it. Entries that were forgotten or are sealed already may be sealed
    /// again: segments may overlap, and a reader takes each number once.
    pub(super) fn reseal(&mut self, files: &impl Files, log: &str, open: Open, state: LogState) -> io::Result<()> {
        let bytes = files.read(log, &open_file(open.first))?;
        let frames = frame::frames(&bytes, state.next);
        let mut chunk: Vec<(u64, &[u8])> = Vec::new();
        let mut chunk_bytes = 0;
        for frame in frames.iter().filter(|frame| frame.sequence >= state.first) {
            let follows = chunk.last().is_none_or(|(sequence, _)| sequence + 1 == frame.sequence);
            if !follows || chunk_bytes + frame.entry.len() > SEALED_ENTRY_BYTES_MAX {
                self.write_sealed(files, log, &chunk)?;
                chunk.clear();
                chunk_bytes = 0;
            }
            chunk_bytes += frame.entry.len();
            chunk.push((frame.sequence, frame.entry));
        }
        self.write_sealed(files, log, &chunk)?;
        files.sync_names(log)?;
        files.remove(log, &open_file(open.first))
    }

    /// Writes a sealed segment; its name is durable once the caller has synced the names.
    fn write_sealed(&mut self, files: &impl Files, log: &str, entries: &[(u64, &[u8])]) -> io::Result<()> {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let sealed = Sealed { first: *first, last: *last };
        let bytes = frame::seal(entries.iter().map(|(_, entry)| *entry))?;
        let sealing = format!("{:016x}{SEALING_SUFFIX}", sealed.first);
        files.write_at(log, &sealing, 0, &bytes)?;
        files.sync(log, &sealing)?;
        files.rename(log, &sealing, &sealed.file())?;
        let position = self.sealed.partition_point(|other| (other.first, other.last) < (sealed.first, sealed.last));
        if self.sealed.get(position) != Some(&sealed) {
            self.sealed.insert(position, sealed);
        }
        Ok(())
    }
}
