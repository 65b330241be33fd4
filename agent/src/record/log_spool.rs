//! A spool's record, and the entries of its log.

use fleetd_actors::log_record::{GapReason, LogBatch};
use fleetd_actors::log_spool::{LineMark, SpoolGap, SpoolRecord, SpooledBatch, StreamPosition};
use fleetd_proto::fleetd::log::v1::LogGapReason;
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::id::{BootId, Stamp};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::LogStream;
use prost::Message as _;

use super::{DecodeRecordError, fixed};

/// Bytes that say of an entry of which stream it is: a boot and a stamp.
const STREAM_BYTES: usize = BootId::LENGTH + 8;

/// Writes a spool's record. `next_entry` is the number that its log expects next.
#[must_use]
pub fn encode_spool(record: &SpoolRecord, next_entry: u64) -> Vec<u8> {
    let streams = record.streams.iter().map(|position| stored::SpooledStreamRecord {
        boot: position.stream.boot.as_bytes().to_vec(),
        stamp: position.stream.stamp.0,
        seq_last: position.last,
        seq_acked: position.acked,
    });
    let gaps = record.gaps.iter().map(|gap| stored::SpoolGapRecord {
        boot: gap.stream.boot.as_bytes().to_vec(),
        stamp: gap.stream.stamp.0,
        seq_first: gap.first,
        seq_last: gap.last,
        reason: reason(gap.reason).into(),
    });
    let message = stored::SpoolRecord {
        read: record.read.map(|read| stored::LineMarkRecord { stamp: read.stamp.0, sequence: read.sequence }),
        streams: streams.collect(),
        gaps: gaps.collect(),
        next_entry,
    };
    message.encode_to_vec()
}

/// Reads the record of a workload's spool, and the number that its log expects next.
///
/// # Errors
/// [`DecodeRecordError`] when the bytes are no such record.
pub fn decode_spool(workload: &WorkloadName, bytes: &[u8]) -> Result<(SpoolRecord, u64), DecodeRecordError> {
    let message = stored::SpoolRecord::decode(bytes)?;
    let stream = |boot: &[u8], stamp| {
        let boot = BootId::from_bytes(fixed("spool.boot", boot)?);
        Ok::<_, DecodeRecordError>(LogStream { workload: workload.clone(), boot, stamp: Stamp(stamp) })
    };
    let streams = message.streams.iter().map(|position| {
        let stream = stream(&position.boot, position.stamp)?;
        Ok(StreamPosition { stream, last: position.seq_last, acked: position.seq_acked })
    });
    let gaps = message.gaps.iter().map(|gap| {
        let stream = stream(&gap.boot, gap.stamp)?;
        Ok(SpoolGap { stream, first: gap.seq_first, last: gap.seq_last, reason: read_reason(gap.reason()) })
    });
    let record = SpoolRecord {
        read: message.read.map(|read| LineMark { stamp: Stamp(read.stamp), sequence: read.sequence }),
        streams: streams.collect::<Result<_, DecodeRecordError>>()?,
        gaps: gaps.collect::<Result<_, DecodeRecordError>>()?,
    };
    Ok((record, message.next_entry))
}

const fn reason(reason: GapReason) -> LogGapReason {
    match reason {
        GapReason::SpoolFull => LogGapReason::SpoolFull,
        GapReason::Rate => LogGapReason::Rate,
        GapReason::Damaged => LogGapReason::Damaged,
        GapReason::RestoredServer => LogGapReason::RestoredServer,
    }
}

const fn read_reason(reason: LogGapReason) -> GapReason {
    match reason {
        LogGapReason::SpoolFull => GapReason::SpoolFull,
        LogGapReason::Rate => GapReason::Rate,
        LogGapReason::RestoredServer => GapReason::RestoredServer,
        LogGapReason::Damaged | LogGapReason::Unspecified => GapReason::Damaged,
    }
}

/// Writes an entry of a spool's log: boot, stamp, and the batch as it travels.
#[must_use]
pub fn encode_spool_entry(stream: &LogStream, batch: &LogBatch) -> Vec<u8> {
    let mut entry = stream.boot.as_bytes().to_vec();
    entry.extend_from_slice(&stream.stamp.0.to_le_bytes());
    entry.extend_from_slice(&batch.encode());
    entry
}

/// Reads an entry of the log of a workload's spool; `None` when it is none.
#[must_use]
pub fn decode_spool_entry(workload: &WorkloadName, entry: &[u8]) -> Option<(LogStream, LogBatch)> {
    let (stream, batch) = entry.split_at_checked(STREAM_BYTES)?;
    let (boot, stamp) = stream.split_at_checked(BootId::LENGTH)?;
    let stamp = Stamp(u64::from_le_bytes(stamp.try_into().ok()?));
    let stream = LogStream { workload: workload.clone(), boot: BootId::from_slice(boot)?, stamp };
    Some((stream, LogBatch::decode(batch).ok()?))
}

/// What a spool has to know of an entry; `None` when it is none.
#[must_use]
pub fn index_spool_entry(workload: &WorkloadName, number: u64, entry: &[u8]) -> Option<SpooledBatch> {
    let (stream, batch) = decode_spool_entry(workload, entry)?;
    index_spool_batch(number, stream, &batch)
}

/// What a spool has to know of a batch that is an entry; `None` when there is nothing in it.
#[must_use]
pub fn index_spool_batch(number: u64, stream: LogStream, batch: &LogBatch) -> Option<SpooledBatch> {
    let last = batch.sequence_last()?;
    let size_bytes = batch.records.iter().map(fleetd_actors::log_record::LogRecord::size_bytes).sum();
    Some(SpooledBatch { entry: number, stream, first: batch.sequence_first, last, size_bytes })
}

/// Writes what a spool has to know of an entry: boot, stamp, first and last number, and about how much room they take.
#[must_use]
pub fn encode_spool_row(batch: &SpooledBatch) -> Vec<u8> {
    let mut row = batch.stream.boot.as_bytes().to_vec();
    for number in [batch.stream.stamp.0, batch.first, batch.last, batch.size_bytes] {
        row.extend_from_slice(&number.to_le_bytes());
    }
    row
}

/// Reads what a spool has to know of an entry; `None` when the bytes do not say.
#[must_use]
pub fn decode_spool_row(workload: &WorkloadName, number: u64, row: &[u8]) -> Option<SpooledBatch> {
    let (boot, numbers) = row.split_at_checked(BootId::LENGTH)?;
    let (numbers, rest) = numbers.as_chunks::<8>();
    let [stamp, first, last, size_bytes] = <[[u8; 8]; 4]>::try_from(numbers).ok()?.map(u64::from_le_bytes);
    let boot = BootId::from_slice(boot).filter(|_| rest.is_empty() && first <= last)?;
    let stream = LogStream { workload: workload.clone(), boot, stamp: Stamp(stamp) };
    Some(SpooledBatch { entry: number, stream, first, last, size_bytes })
}

#[cfg(test)]
mod tests {
    use fleetd_actors::log_record::{LogLine, LogRecord, LogSource};
    use fleetd_sync_core::time::{ClockQuality, Wall};

    use super::*;

    fn stream(stamp: u64) -> LogStream {
        let workload = "coffee".parse().unwrap();
        LogStream { workload, boot: BootId::from_bytes([7; 16]), stamp: Stamp(stamp) }
    }

    #[test]
    fn a_spools_record_survives_its_bytes() {
        let gap = |reason| SpoolGap { stream: stream(1), first: 3, last: 9, reason };
        let reasons = [GapReason::SpoolFull, GapReason::Rate, GapReason::Damaged, GapReason::RestoredServer];
        let record = SpoolRecord {
            read: Some(LineMark { stamp: Stamp(5), sequence: 40 }),
            streams: vec![StreamPosition { stream: stream(1), last: 20, acked: 2 }],
            gaps: reasons.map(gap).to_vec(),
        };
        let workload = "coffee".parse().unwrap();
        assert_eq!(decode_spool(&workload, &encode_spool(&record, 8)).unwrap(), (record, 8));
        let empty = (SpoolRecord::default(), 0);
        assert_eq!(decode_spool(&workload, &encode_spool(&empty.0, 0)).unwrap(), empty);
    }

    #[test]
    fn an_entry_survives_its_bytes_and_no_cut() {
        let line = LogLine {
            time: Wall(12),
            quality: ClockQuality::Floor,
            source: LogSource::Stderr,
            cut: true,
            body: b"hot".to_vec(),
        };
        let records = vec![LogRecord::Line(line), LogRecord::Gap { count: 3, reason: GapReason::Rate }];
        let batch = LogBatch { sequence_first: 4, records };
        let (workload, entry) = ("coffee".parse().unwrap(), encode_spool_entry(&stream(2), &batch));
        assert_eq!(decode_spool_entry(&workload, &entry), Some((stream(2), batch)));
        let indexed = index_spool_entry(&workload, 6, &entry).unwrap();
        assert_eq!((indexed.entry, indexed.first, indexed.last), (6, 4, 7));
        let row = encode_spool_row(&indexed);
        assert_eq!(decode_spool_row(&workload, 6, &row).as_ref(), Some(&indexed));
        assert!((0..row.len()).all(|at| decode_spool_row(&workload, 6, &row[..at]).is_none()));
        for at in 0..entry.len() {
            assert_eq!(decode_spool_entry(&workload, &entry[..at]), None, "cut at {at}");
        }
    }
}
