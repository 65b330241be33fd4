//! Carries out what a workload's log spool decided: lines from the runner, batches in the store and to the server.

mod index;

use std::sync::Arc;

use fleetd_actors::address::Address;
use fleetd_actors::driver::Driver;
use fleetd_actors::log_record::{GapReason, LogBatch, LogLine, LogRecord, LogSource};
use fleetd_actors::log_spool::{Effect, Input, LineMark, LogSpool, Record, Unit};
use fleetd_actors::spawn::LoadActorError;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::message::LogPush;
use fleetd_sync_core::session::{Class, LogStream, Message};
use fleetd_sync_core::time::{ClockQuality, Now};
use fleetd_sync_store::state_store::{LogPart, ReadError};

use super::Surroundings;
use crate::cause::cause_of;
use crate::record::{decode_spool, decode_spool_entry, encode_spool, encode_spool_entry, index_spool_batch};
use crate::runner::line::{LineBatch, LineEntry, LinePosition, LineSource};
use crate::runner::{RunnerEvent, RunnerEventKind, RunnerEvents};

/// Carries out what a workload's log spool decided.
pub(crate) struct LogSpoolDriver {
    workload: WorkloadName,
    log: String,
    /// The first entry that may have a row.
    first_entry: u64,
    next_entry: u64,
    surroundings: Arc<Surroundings>,
    address: Address<Input>,
}

/// Takes a workload's spool up from the store.
pub(crate) fn load(
    surroundings: &Arc<Surroundings>,
    workload: &WorkloadName,
    address: &Address<Input>,
) -> Result<(LogSpool, LogSpoolDriver), LoadActorError> {
    let failed = |error: ReadError| LoadActorError { cause: error.to_string() };
    let store = &surroundings.seams.store;
    let read = match store.get(Space::LogPosition, workload.as_str().as_bytes()) {
        Ok(stored) => stored.map(|stored| decode_spool(workload, &stored.value)).transpose().map_err(|e| cause_of(&e)),
        Err(damage @ ReadError::Damaged { .. }) => Err(damage.to_string()),
        Err(error @ ReadError::Failed { .. }) => return Err(failed(error)),
    };
    let (record, noted_entry) = match read {
        Ok(read) => read.unwrap_or_default(),
        Err(cause) => {
            tracing::warn!(%workload, cause, "the spool's record is damaged; it begins anew");
            Default::default()
        }
    };
    let log = format!("spool.{workload}");
    let indexed = index::read(&**store, workload, &log).map_err(failed)?;
    let next_entry = indexed.next.max(noted_entry).max(1);
    let spool = LogSpool::load(
        workload.clone(),
        surroundings.options.boot,
        record,
        indexed.batches,
        next_entry,
        surroundings.options.spool_bytes_max,
        surroundings.entropy("spool"),
    );
    if let Some(exchange) = surroundings.exchange() {
        exchange.spool_loaded(workload, address);
    }
    let driver = LogSpoolDriver {
        workload: workload.clone(),
        log,
        // Of an empty log there is no row.
        first_entry: if indexed.next == 0 { next_entry } else { indexed.first },
        next_entry,
        surroundings: Arc::clone(surroundings),
        address: address.clone(),
    };
    Ok((spool, driver))
}

impl Driver<LogSpool> for LogSpoolDriver {
    fn store(&mut self, record: Record, mutations: &mut Vec<Mutation>) {
        let log = self.log.clone();
        match record {
            Record::Append { entry, stream, batch } => {
                self.next_entry = entry.saturating_add(1);
                mutations.push(Mutation::Append { log, sequence: entry, entry: encode_spool_entry(&stream, &batch) });
                mutations.extend(index_spool_batch(entry, stream, &batch).as_ref().map(index::note));
            }
            Record::Forget { through } => {
                mutations.extend((self.first_entry..=through).map(|entry| index::forget(&self.workload, entry)));
                self.first_entry = self.first_entry.max(through.saturating_add(1));
                mutations.push(Mutation::Forget { log, through });
            }
            Record::Spool(record) => {
                let key = self.workload.as_str().as_bytes().to_vec();
                let value = encode_spool(&record, self.next_entry);
                mutations.push(Mutation::Put { space: Space::LogPosition, key, value });
            }
        }
    }

    fn start(&mut self, now: Now, effect: Effect) {
        let Some(exchange) = self.surroundings.exchange() else { return };
        let runner = &self.surroundings.seams.runner;
        match effect {
            Effect::ReadLines { operation, after, bytes_max } => {
                let after = after.map(|after| LinePosition { stamp: after.stamp, sequence: after.sequence });
                let events = read_events(self.address.clone(), self.surroundings.judge(now).quality);
                runner.read_lines(operation, &self.workload, after, bytes_max, events);
            }
            Effect::AcknowledgeLines { through } => {
                let through = LinePosition { stamp: through.stamp, sequence: through.sequence };
                runner.acknowledge_lines(&self.workload, through);
            }
            Effect::Send { stream, unit } => self.send(stream, unit),
            Effect::Logged(position) => exchange.logged(position),
        }
    }
}

impl LogSpoolDriver {
    /// Sends a batch or a gap. Batches are read here and not as jobs: they must go out in order, and are small.
    fn send(&self, stream: LogStream, unit: Unit) {
        let batch = match unit {
            Unit::Gap { first, count, reason } => {
                LogBatch { sequence_first: first, records: vec![LogRecord::Gap { count, reason }] }
            }
            Unit::Batch { entry, first, .. } => match self.read_batch(entry) {
                Some(batch) => batch.after(first.saturating_sub(1)),
                None => return self.address.send(Input::BatchUnreadable { entry }),
            },
        };
        let Some(connection) = self.surroundings.exchange().and_then(|exchange| exchange.log_connection()) else {
            return;
        };
        let push = LogPush {
            stream,
            sequence_first: batch.sequence_first,
            count: u32::try_from(batch.records.len()).unwrap_or(u32::MAX),
            records: batch.encode(),
            signature: Vec::new(),
            preview: false,
        };
        super::agent::send(&*self.surroundings.seams.link, connection, Class::Logs, &Message::LogPush(push));
    }

    fn read_batch(&self, entry: u64) -> Option<LogBatch> {
        let parts = self.surroundings.seams.store.read_log(&self.log, entry, 1);
        match parts.ok()?.into_iter().next()? {
            LogPart::Entry { sequence, entry: bytes } if sequence == entry => {
                decode_spool_entry(&self.workload, &bytes).map(|(_, batch)| batch)
            }
            LogPart::Entry { .. } | LogPart::Gap { .. } => None,
        }
    }
}

/// Takes the runner's answer to one reading. A line's date is as good as the clock is now.
fn read_events(address: Address<Input>, quality: ClockQuality) -> RunnerEvents {
    Arc::new(move |RunnerEvent { operation, workload, kind }| match kind {
        RunnerEventKind::LinesRead { batch } => {
            let through = batch.through().map(|at| LineMark { stamp: at.stamp, sequence: at.sequence });
            address.send(Input::LinesRead { operation, through, records: records_of(batch, quality) });
        }
        RunnerEventKind::LinesUnreadable { cause } => {
            tracing::warn!(%workload, cause, "the workload's lines cannot be read");
            address.send(Input::LinesUnreadable { operation });
        }
        _ => {}
    })
}

fn records_of(batch: LineBatch, quality: ClockQuality) -> Vec<LogRecord> {
    let record = |entry| match entry {
        LineEntry::Line(line) => LogRecord::Line(LogLine {
            time: line.wall,
            quality,
            source: match line.source {
                LineSource::Stdout => LogSource::Stdout,
                LineSource::Stderr => LogSource::Stderr,
            },
            cut: line.cut,
            body: line.bytes,
        }),
        LineEntry::Gap { first, last } => {
            LogRecord::Gap { count: last.saturating_sub(first).saturating_add(1), reason: GapReason::Rate }
        }
    };
    batch.entries.into_iter().map(record).collect()
}
