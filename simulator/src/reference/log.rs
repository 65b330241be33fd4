//! How log records get from a device to its server: numbered without a hole, kept until they are stored, stored once.

use std::collections::BTreeMap;

use fleetd_actors::log_record::{GapReason, LogBatch, LogRecord};
use fleetd_sync_core::session::LogStream;

/// One stream, as both of its ends should see it.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// Each record that its device spooled, by its number; a gap stands at its first.
    spooled: BTreeMap<u64, LogRecord>,
    /// The last number that was spooled.
    spooled_through: u64,
    /// The last number that the server has now.
    stored_through: u64,
    /// The last number that the server ever had.
    stored_ever: u64,
}

/// Every stream of a fleet.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    streams: BTreeMap<LogStream, Stream>,
}

impl Logs {
    /// A device spools records.
    ///
    /// # Errors
    /// When their numbers do not follow.
    pub fn spool(&mut self, stream: &LogStream, batch: &LogBatch) -> Result<(), String> {
        let known = self.streams.entry(stream.clone()).or_default();
        if batch.sequence_first != known.spooled_through + 1 {
            return Err(format!("{} follows {} in a stream", batch.sequence_first, known.spooled_through));
        }
        let mut number = batch.sequence_first;
        for record in &batch.records {
            known.spooled.insert(number, record.clone());
            number += record.span();
        }
        known.spooled_through = number - 1;
        Ok(())
    }

    /// The server stores records.
    ///
    /// # Errors
    /// When it has them already, when it would leave a hole, or when they are not those of the device.
    pub fn store(&mut self, stream: &LogStream, batch: &LogBatch) -> Result<(), String> {
        let known = self.streams.entry(stream.clone()).or_default();
        if batch.sequence_first != known.stored_through + 1 {
            let (first, through) = (batch.sequence_first, known.stored_through);
            return Err(format!("{first} is stored after {through}, of one stream"));
        }
        let mut number = batch.sequence_first;
        for record in &batch.records {
            match record {
                LogRecord::Line(_) if known.spooled.get(&number) != Some(record) => {
                    return Err(format!("number {number} of a stream is another line than the device spooled"));
                }
                // What the server had before may be gone at the device; of the rest a device that lost nothing has all.
                LogRecord::Gap { count, reason: GapReason::RestoredServer }
                    if number + count - 1 > known.stored_ever =>
                {
                    return Err(format!(
                        "a gap takes number {} of a stream, which was never stored",
                        number + count - 1
                    ));
                }
                LogRecord::Line(_) | LogRecord::Gap { .. } => {}
            }
            number += record.span();
        }
        known.stored_through = number - 1;
        known.stored_ever = known.stored_ever.max(known.stored_through);
        Ok(())
    }

    /// The server began with what it has: how far a stream has come there.
    pub fn reopen(&mut self, positions: &BTreeMap<LogStream, u64>) {
        for (stream, known) in &mut self.streams {
            known.stored_through = positions.get(stream).copied().unwrap_or(0);
            known.stored_ever = known.stored_ever.max(known.stored_through);
        }
        for (stream, through) in positions {
            let known = self.streams.entry(stream.clone()).or_default();
            known.stored_through = *through;
            known.stored_ever = known.stored_ever.max(*through);
        }
    }

    /// The last number of a stream that the server has durably.
    #[must_use]
    pub fn stored_through(&self, stream: &LogStream) -> u64 {
        self.streams.get(stream).map_or(0, |known| known.stored_through)
    }

    /// The last number of a stream that the server ever had durably.
    #[must_use]
    pub fn stored_ever(&self, stream: &LogStream) -> u64 {
        self.streams.get(stream).map_or(0, |known| known.stored_ever)
    }
}

#[cfg(test)]
mod tests {
    use fleetd_actors::log_record::{LogLine, LogSource};
    use fleetd_sync_core::id::{BootId, Stamp};
    use fleetd_sync_core::time::{ClockQuality, Wall};

    use super::*;

    fn batch(sequence_first: u64, lines: &[&str]) -> LogBatch {
        let line = |text: &&str| {
            let body = text.as_bytes().to_vec();
            let (time, quality, source) = (Wall(0), ClockQuality::None, LogSource::Stdout);
            LogRecord::Line(LogLine { time, quality, source, cut: false, body })
        };
        LogBatch { sequence_first, records: lines.iter().map(line).collect() }
    }

    #[test]
    fn a_record_is_stored_once_in_order_and_as_it_was_written() {
        let boot = BootId::from_bytes([1; BootId::LENGTH]);
        let stream = LogStream { workload: "coffee".parse().unwrap(), boot, stamp: Stamp(1) };
        let mut logs = Logs::default();
        logs.spool(&stream, &batch(1, &["a", "b"])).unwrap();
        logs.spool(&stream, &batch(3, &["c"])).unwrap();
        assert!(logs.spool(&stream, &batch(3, &["c"])).is_err());
        logs.store(&stream, &batch(1, &["a", "b"])).unwrap();
        assert!(logs.store(&stream, &batch(1, &["a"])).is_err(), "twice");
        assert!(logs.store(&stream, &batch(4, &["d"])).is_err(), "a hole");
        assert!(logs.store(&stream, &batch(3, &["x"])).is_err(), "another line");
        logs.store(&stream, &batch(3, &["c"])).unwrap();
        assert_eq!(logs.stored_through(&stream), 3);
        logs.reopen(&BTreeMap::from([(stream.clone(), 1)]));
        assert_eq!((logs.stored_through(&stream), logs.stored_ever(&stream)), (1, 3));
    }
}
