//! The lines of one workload on disk: segments that the shim appends to and the agent reads.
//!
//! A segment is a file named by the number of its first line. The shim drops the oldest segments when they take too
//! much room; the agent drops those that it has acknowledged. Neither waits for the other, and no gap needs a record
//! of its own: it shows in the numbers. The newest segment always stays, so that the numbers always go on.
//!
//! Nothing is synced: the log lives in the run directory, which a reboot empties anyway, and a process that is killed
//! leaves what it has written. What must survive a power cut is in the agent's spool.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fleetd_sync_core::id::Stamp;
use fleetd_sync_core::limit::LOG_LINE_BYTES_MAX;
use fleetd_sync_core::time::Wall;

use crate::runner::line::{Line, LineBatch, LineEntry, LinePosition, LineSource};

/// Starts every segment; the digit is the layout's version.
const MAGIC: &[u8; 8] = b"FLLINES1";
/// Magic, stamp.
const HEADER_BYTES: usize = 16;
/// Length, checksum, number, wall time, flags.
const RECORD_HEAD_BYTES: usize = 25;
/// Segments of which a full log consists: the share of it that one drop loses.
const SEGMENTS: u64 = 16;
/// The smallest segment, so that a small log is not a heap of files.
const SEGMENT_BYTES_MIN: u64 = 32 << 10;
/// Bytes that are collected before they are written, whatever the caller does.
const BUFFER_BYTES_MAX: usize = 16 << 10;

const FLAG_STDERR: u8 = 1;
const FLAG_CUT: u8 = 2;

/// Why lines cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the lines in {} cannot be read", directory.display())]
pub struct LineLogError {
    /// The log.
    pub directory: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

/// Appends lines to a log.
#[derive(Debug)]
pub(super) struct LineWriter {
    directory: PathBuf,
    bytes_max: u64,
    position: LinePosition,
    /// The last line before those in the buffer.
    flushed: u64,
    segment: File,
    segment_bytes: u64,
    /// A write has failed, so the segment may end in half a record.
    torn: bool,
    buffer: Vec<u8>,
}

impl LineWriter {
    /// Opens a log, whose numbers go on where an earlier run ended, or begins one with `fresh_stamp`.
    pub(super) fn open(directory: &Path, bytes_max: u64, fresh_stamp: Stamp) -> io::Result<Self> {
        let position = match last_position_in(directory)? {
            Some(position) => position,
            None => LinePosition { stamp: fresh_stamp, sequence: 0 },
        };
        let segment = create_segment(directory, position)?;
        let mut writer = Self {
            directory: directory.to_owned(),
            bytes_max: bytes_max.max(4 * SEGMENT_BYTES_MIN),
            position,
            flushed: position.sequence,
            segment,
            segment_bytes: HEADER_BYTES as u64,
            torn: false,
            buffer: Vec::new(),
        };
        writer.drop_oldest()?;
        Ok(writer)
    }

    /// The last line's position.
    pub(super) fn position(&self) -> LinePosition {
        self.position
    }

    /// Numbers a line. It is written with the next [`LineWriter::flush`], or now if many wait.
    pub(super) fn append(&mut self, wall: Wall, source: LineSource, cut: bool, bytes: &[u8]) -> io::Result<()> {
        self.position.sequence = self.position.sequence.saturating_add(1);
        let flags = if source == LineSource::Stderr { FLAG_STDERR } else { 0 } | if cut { FLAG_CUT } else { 0 };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut body = Vec::with_capacity(RECORD_HEAD_BYTES + bytes.len());
        body.extend_from_slice(&self.position.sequence.to_le_bytes());
        body.extend_from_slice(&wall.0.to_le_bytes());
        body.push(flags);
        body.extend_from_slice(bytes);
        self.buffer.extend_from_slice(&length.to_le_bytes());
        self.buffer.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        self.buffer.extend_from_slice(&body);
        if self.buffer.len() >= BUFFER_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Writes what was appended, and makes room if the log has grown too large. After a failure the lines are lost
    /// and their numbers are not: the reader sees a gap.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.write_buffer();
        self.torn = written.is_err();
        self.segment_bytes += u64::try_from(self.buffer.len()).unwrap_or(u64::MAX);
        self.buffer.clear();
        self.flushed = self.position.sequence;
        written?;
        if self.segment_bytes >= self.segment_bytes_max() {
            self.begin_segment()?;
            self.drop_oldest()?;
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self.torn {
            self.begin_segment()?;
        }
        self.segment.write_all(&self.buffer)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.segment = create_segment(&self.directory, LinePosition { sequence: self.flushed, ..self.position })?;
        self.segment_bytes = HEADER_BYTES as u64;
        Ok(())
    }

    fn segment_bytes_max(&self) -> u64 {
        (self.bytes_max / SEGMENTS).max(SEGMENT_BYTES_MIN)
    }

    fn drop_oldest(&mut self) -> io::Result<()> {
        let mut segments = Vec::new();
        for (first, path) in list_segments(&self.directory)? {
            // The agent may have dropped it since.
            if let Ok(metadata) = fs::metadata(&path) {
                segments.push((first, path, metadata.len()));
            }
        }
        // The newest segment fills up, and one buffer may overshoot: both are part of what the log takes.
        let room = self.bytes_max.saturating_sub(2 * self.segment_bytes_max());
        let mut total: u64 = segments.iter().map(|(.., bytes)| bytes).sum();
        // The newest is the one that is being written.
        segments.pop();
        for (_first, path, bytes) in &segments {
            if total <= room {
                break;
            }
            remove_if_there(path)?;
            total -= bytes;
        }
        Ok(())
    }
}

fn create_segment(directory: &Path, position: LinePosition) -> io::Result<File> {
    let path = segment_path(directory, position.sequence.saturating_add(1));
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&position.stamp.0.to_le_bytes());
    // Truncated, for an empty or torn segment of this number may be there from a run that was killed.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&header)?;
    Ok(file)
}

fn segment_path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.lines"))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Lists a log's segments by the number of their first line.
fn list_segments(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut segments = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "lines")
            && let Some(first) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            segments.push((first, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

/// A segment's bytes, read whole: it is small.
struct Segment {
    stamp: Stamp,
    bytes: Vec<u8>,
}

impl Segment {
    /// Reads a segment; `None` when it has been dropped, or has no header yet.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let stamp = bytes.strip_prefix(MAGIC).and_then(|rest| rest.first_chunk::<8>());
        Ok(stamp.map(|stamp| Stamp(u64::from_le_bytes(*stamp))).map(|stamp| Self { stamp, bytes }))
    }

    /// Its lines, up to the first record that is torn or damaged.
    fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        let mut rest = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (line, after) = read_record(rest)?;
            rest = after;
            Some(line)
        })
    }
}

fn read_record(bytes: &[u8]) -> Option<(Line, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= LOG_LINE_BYTES_MAX)?;
    let (body, after) = rest.split_at_checked(RECORD_HEAD_BYTES - 8 + length)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (sequence, body) = body.split_first_chunk::<8>()?;
    let (wall, body) = body.split_first_chunk::<8>()?;
    let (flags, text) = body.split_first()?;
    let line = Line {
        sequence: u64::from_le_bytes(*sequence),
        wall: Wall(i64::from_le_bytes(*wall)),
        source: if flags & FLAG_STDERR == 0 { LineSource::Stdout } else { LineSource::Stderr },
        cut: flags & FLAG_CUT != 0,
        bytes: text.to_owned(),
    };
    Some((line, after))
}

fn last_position_in(directory: &Path) -> io::Result<Option<LinePosition>> {
    for (first, path) in list_segments(directory)?.into_iter().rev() {
        // One without a header is the torn beginning of a segment; the one before it is the last.
        if let Some(segment) = Segment::read(&path)? {
            let last = segment.lines().last().map_or(first.saturating_sub(1), |line| line.sequence);
            return Ok(Some(LinePosition { stamp: segment.stamp, sequence: last }));
        }
    }
    Ok(None)
}

/// Returns the position of a log's last line, or `None` when there is no log.
///
/// # Errors
/// When the disk fails.
pub fn last_position(directory: &Path) -> Result<Option<LinePosition>, LineLogError> {
    last_position_in(directory).map_err(|source| LineLogError { directory: directory.to_owned(), source })
}

/// Reads lines after a position, oldest first, until about `bytes_max` bytes of them are collected; from the oldest
/// kept when `after` is `None` or of another log. Lines that are missing show as a gap.
///
/// # Errors
/// When the disk fails.
pub fn read_lines(directory: &Path, after: Option<LinePosition>, bytes_max: usize) -> Result<LineBatch, LineLogError> {
    read_lines_in(directory, after, bytes_max)
        .map_err(|source| LineLogError { directory: directory.to_owned(), source })
}

fn read_lines_in(directory: &Path, after: Option<LinePosition>, bytes_max: usize) -> io::Result<LineBatch> {
    let Some(last) = last_position_in(directory)? else { return Ok(LineBatch::default()) };
    let mut batch = LineBatch { stamp: last.stamp, entries: Vec::new() };
    let mut through = after.filter(|after| after.stamp == last.stamp).map_or(0, |after| after.sequence);
    let mut bytes = 0;
    let segments = list_segments(directory)?;
    let firsts: Vec<u64> = segments.iter().map(|(first, _path)| *first).collect();
    for (index, (first, path)) in segments.iter().enumerate() {
        let next_first = firsts.get(index + 1).copied();
        if next_first.is_some_and(|next| next <= through.saturating_add(1)) {
            continue;
        }
        let Some(segment) = Segment::read(path)?.filter(|segment| segment.stamp == last.stamp) else { continue };
        mark_gap(&mut batch, &mut through, *first);
        let from = through;
        for line in segment.lines().filter(|line| line.sequence > from) {
            if bytes >= bytes_max {
                return Ok(batch);
            }
            mark_gap(&mut batch, &mut through, line.sequence);
            through = line.sequence;
            bytes += line.bytes.len() + RECORD_HEAD_BYTES;
            batch.entries.push(LineEntry::Line(line));
        }
    }
    Ok(batch)
}

/// Says that lines before `next` are missing, if they are.
fn mark_gap(batch: &mut LineBatch, through: &mut u64, next: u64) {
    // A damaged segment may have any number in it, the last one too.
    let expected = through.saturating_add(1);
    if next > expected {
        batch.entries.push(LineEntry::Gap { first: expected, last: next - 1 });
        *through = next - 1;
    }
}

/// Drops the segments whose lines are all acknowledged; positions of another log drop nothing.
///
/// # Errors
/// When the disk fails.
pub fn acknowledge_lines(directory: &Path, through: LinePosition) -> Result<(), LineLogError> {
    let acknowledge = || {
        if last_position_in(directory)?.is_none_or(|last| last.stamp != through.stamp) {
            return Ok(());
        }
        let segments = list_segments(directory)?;
        for ((_first, path), (next_first, _next)) in segments.iter().zip(segments.iter().skip(1)) {
            if *next_first <= through.sequence.saturating_add(1) {
                remove_if_there(path)?;
            }
        }
        Ok(())
    };
    acknowledge().map_err(|source| LineLogError { directory: directory.to_owned(), source })
}

#[cfg(test)]
mod tests;
