//! Logs: one segment log for each workload of each device, and how far each of its streams has come.

use fleetd_actors::log_record::LogBatch;
use fleetd_actors::log_stream::{LogStore, Numbering, Record};
use fleetd_sync_core::codec::{ReadError as ReadCodecError, Reader, Writer};
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::{BootId, LocalId, Stamp};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::{LogPosition, LogStream};
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};

use crate::driver::LogStoreKey;

/// Positions that are read at once.
const PAGE_RECORDS: usize = 1024;
/// Bytes of a stream's name that are read from a store entry.
const NAME_BYTES_MAX: usize = 64;

/// The name of a workload's log.
#[must_use]
pub fn log_name(key: &LogStoreKey) -> String {
    format!("{}.{}", key.device, key.workload)
}

/// The change of the store that keeps what a log store remembers.
#[must_use]
pub fn mutation(key: &LogStoreKey, record: Record) -> Mutation {
    match record {
        Record::Append { entry, stream, batch } => {
            Mutation::Append { log: log_name(key), sequence: entry, entry: encode_entry(&stream, &batch) }
        }
        Record::Position(numbering) => {
            let mut writer = Writer::new();
            writer.varint(numbering.sequence).varint(numbering.entry);
            let key = position_key(key, numbering.boot, numbering.stamp);
            Mutation::Put { space: Space::LogPosition, key, value: writer.finish() }
        }
        Record::Forget { boot, stamp } => {
            Mutation::Delete { space: Space::LogPosition, key: position_key(key, boot, stamp) }
        }
    }
}

/// Takes a log store up.
///
/// # Errors
/// [`ReadError`].
pub fn load(store: &dyn StateStore, key: &LogStoreKey) -> Result<LogStore, ReadError> {
    let prefix = workload_prefix(key.device, &key.workload);
    let found = store.scan(Space::LogPosition, KeyRange::prefix(&prefix), PAGE_RECORDS)?;
    let numberings: Vec<_> =
        found.iter().filter_map(|(found_key, found)| numbering(found_key.get(prefix.len()..)?, &found.value)).collect();
    let next = store.log_range(&log_name(key))?.map_or(1, |(_, last)| last + 1);
    let after_positions = numberings.iter().map(|numbering| numbering.entry + 1).max().unwrap_or(1);
    Ok(LogStore::load(key.workload.clone(), numberings, next.max(after_positions)))
}

/// How far the streams of a device have come here.
///
/// # Errors
/// [`ReadError`].
pub fn positions(store: &dyn StateStore, device: LocalId) -> Result<Vec<LogPosition>, ReadError> {
    let found = store.scan(Space::LogPosition, KeyRange::prefix(device.as_bytes()), PAGE_RECORDS)?;
    let read = |(key, value): (&[u8], &[u8])| {
        let (&length, rest) = key.get(LocalId::LENGTH..)?.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(length))?;
        let workload: WorkloadName = std::str::from_utf8(name).ok()?.parse().ok()?;
        let Numbering { boot, stamp, sequence, .. } = numbering(rest, value)?;
        Some(LogPosition { stream: LogStream { workload, boot, stamp }, sequence })
    };
    Ok(found.iter().filter_map(|(key, found)| read((key, &found.value))).collect())
}

/// One entry of a log: whose batch, and the batch.
#[must_use]
pub fn encode_entry(stream: &LogStream, batch: &LogBatch) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.text(stream.workload.as_str()).array(stream.boot.as_bytes()).fixed_u64(stream.stamp.0);
    [writer.finish(), batch.encode()].concat()
}

/// Reads one entry of a log.
///
/// # Errors
/// [`ReadCodecError`] when it is none.
pub fn decode_entry(bytes: &[u8]) -> Result<(LogStream, LogBatch), ReadCodecError> {
    let mut reader = Reader::new(bytes);
    let name = reader.text("workload", NAME_BYTES_MAX)?;
    let workload = name.parse().map_err(|_| ReadCodecError::Value { what: "workload", value: 0 })?;
    let boot = BootId::from_bytes(reader.array("boot")?);
    let stamp = Stamp(reader.fixed_u64("stamp")?);
    let left = reader.left();
    let batch = LogBatch::decode(reader.take("batch", left)?)?;
    Ok((LogStream { workload, boot, stamp }, batch))
}

fn workload_prefix(device: LocalId, workload: &WorkloadName) -> Vec<u8> {
    let name = workload.as_str().as_bytes();
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    [device.as_bytes().as_slice(), &[length], name].concat()
}

fn position_key(key: &LogStoreKey, boot: BootId, stamp: Stamp) -> Vec<u8> {
    [workload_prefix(key.device, &key.workload), boot.as_bytes().to_vec(), stamp.0.to_be_bytes().to_vec()].concat()
}

fn numbering(key: &[u8], value: &[u8]) -> Option<Numbering> {
    let (boot, stamp) = key.split_at_checked(BootId::LENGTH)?;
    let mut reader = Reader::new(value);
    Some(Numbering {
        boot: BootId::from_slice(boot)?,
        stamp: Stamp(u64::from_be_bytes(stamp.try_into().ok()?)),
        sequence: reader.varint("sequence").ok()?,
        entry: reader.varint("entry").ok()?,
    })
}
