//! The bytes of a batch of log records: on the wire, in the device's spool and in the server's log store alike.
//!
//! A layout byte, the number of the first record, the count, then each record. Whoever sends or stores many batches
//! compresses around this.

use fleetd_sync_core::codec::{ReadError, Reader, Writer};
use fleetd_sync_core::limit;
use fleetd_sync_core::time::{ClockQuality, Wall};

use crate::log_record::{GapReason, LogBatch, LogLine, LogRecord, LogSource};

/// The first byte: this layout.
const LAYOUT: u8 = 1;
/// Records in one batch: many empty lines still are a small frame.
const RECORDS_MAX: usize = 16 << 10;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const GAP: u8 = 3;

impl LogBatch {
    /// The batch's bytes, for the wire and for stores.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(LAYOUT).varint(self.sequence_first).count(self.records.len());
        for record in &self.records {
            match record {
                LogRecord::Line(line) => {
                    let source = match line.source {
                        LogSource::Stdout => STDOUT,
                        LogSource::Stderr => STDERR,
                    };
                    writer.u8(source).signed(line.time.0).u8(quality_code(line.quality));
                    writer.boolean(line.cut).bytes(&line.body);
                }
                LogRecord::Gap { count, reason } => {
                    writer.u8(GAP).varint(*count).u8(reason_code(*reason));
                }
            }
        }
        writer.finish()
    }

    /// Reads what [`LogBatch::encode`] wrote, from a peer or a store.
    ///
    /// # Errors
    /// [`ReadError`] when the bytes are no batch, or too large a one.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let layout = reader.u8("log layout")?;
        if layout != LAYOUT {
            return Err(ReadError::Value { what: "log layout", value: u64::from(layout) });
        }
        let sequence_first = reader.varint("first log record")?;
        let mut records = Vec::new();
        for _ in 0..reader.count("log records", RECORDS_MAX)? {
            records.push(read_record(&mut reader)?);
        }
        reader.finish()?;
        Ok(Self { sequence_first, records })
    }
}

fn read_record(reader: &mut Reader<'_>) -> Result<LogRecord, ReadError> {
    let kind = reader.u8("log record")?;
    let source = match kind {
        STDOUT => LogSource::Stdout,
        STDERR => LogSource::Stderr,
        GAP => {
            let count = reader.varint("gap")?;
            return Ok(LogRecord::Gap { count, reason: read_reason(reader.u8("gap reason")?)? });
        }
        _ => return Err(ReadError::Value { what: "log record", value: u64::from(kind) }),
    };
    Ok(LogRecord::Line(LogLine {
        time: Wall(reader.signed("log time")?),
        quality: read_quality(reader.u8("clock quality")?)?,
        source,
        cut: reader.boolean("cut line")?,
        body: reader.bytes("log line", limit::LOG_LINE_BYTES_MAX)?.to_vec(),
    }))
}

const fn quality_code(quality: ClockQuality) -> u8 {
    match quality {
        ClockQuality::None => 0,
        ClockQuality::Floor => 1,
        ClockQuality::Beacon => 2,
        ClockQuality::Synced => 3,
    }
}

fn read_quality(code: u8) -> Result<ClockQuality, ReadError> {
    match code {
        0 => Ok(ClockQuality::None),
        1 => Ok(ClockQuality::Floor),
        2 => Ok(ClockQuality::Beacon),
        3 => Ok(ClockQuality::Synced),
        _ => Err(ReadError::Value { what: "clock quality", value: u64::from(code) }),
    }
}

const fn reason_code(reason: GapReason) -> u8 {
    match reason {
        GapReason::SpoolFull => 1,
        GapReason::Rate => 2,
        GapReason::Damaged => 3,
        GapReason::RestoredServer => 4,
    }
}

fn read_reason(code: u8) -> Result<GapReason, ReadError> {
    match code {
        1 => Ok(GapReason::SpoolFull),
        2 => Ok(GapReason::Rate),
        3 => Ok(GapReason::Damaged),
        4 => Ok(GapReason::RestoredServer),
        _ => Err(ReadError::Value { what: "gap reason", value: u64::from(code) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> LogBatch {
        let line = |source, body: &str| {
            LogRecord::Line(LogLine {
                time: Wall(-5),
                quality: ClockQuality::Synced,
                source,
                cut: false,
                body: body.as_bytes().to_vec(),
            })
        };
        let gap = LogRecord::Gap { count: 1 << 40, reason: GapReason::SpoolFull };
        LogBatch {
            sequence_first: 7,
            records: vec![line(LogSource::Stdout, "brewing"), gap, line(LogSource::Stderr, "")],
        }
    }

    #[test]
    fn a_batch_survives_its_bytes() {
        assert_eq!(LogBatch::decode(&batch().encode()), Ok(batch()));
    }

    #[test]
    fn a_batch_that_is_cut_or_longer_is_refused() {
        let bytes = batch().encode();
        assert!((0..bytes.len()).all(|end| LogBatch::decode(&bytes[..end]).is_err()));
        assert!(LogBatch::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}
