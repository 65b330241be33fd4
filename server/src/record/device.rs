//! Device records.

use std::collections::{BTreeMap, VecDeque};

use fleetd_actors::device::record::{DeviceEvent, DeviceRecord, HoldRow, Membership, Pin};
use fleetd_actors::report;
use fleetd_proto::fleetd::device::v1::DeviceState;
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::envelope::{Op, Path, Value};
use fleetd_sync_core::id::{DeviceId, HoldId, LocalId, TokenId};
use fleetd_sync_core::key::KeptKey;
use fleetd_sync_core::name::WorkloadName;
use prost::Message as _;
use stored::entry_record::Value as StoredValue;

use super::{ReadRecordError, field, timestamp, wall};

/// The changes of the store that keep a device's record, and its name as taken.
pub fn put(record: &DeviceRecord, mutations: &mut Vec<Mutation>) {
    let (local, name) = (record.local.as_bytes().to_vec(), record.name.as_str().as_bytes().to_vec());
    let value = encode(record).encode_to_vec();
    mutations.push(Mutation::Put { space: Space::Device, key: local.clone(), value });
    mutations.push(Mutation::Put { space: Space::Name, key: name, value: local });
}

fn encode(record: &DeviceRecord) -> stored::DeviceRecord {
    let text = |(key, value): (&dyn std::fmt::Display, &dyn std::fmt::Display)| (key.to_string(), value.to_string());
    let reports = record.reports.iter();
    let reported = reports.flat_map(|(name, report)| report::workload_ops(name, None, Some(report)));
    stored::DeviceRecord {
        device_id: record.device.as_bytes().to_vec(),
        local_id: record.local.as_bytes().to_vec(),
        name: record.name.to_string(),
        sealing_public_key: record.sealing_key.to_vec(),
        public_key: record.key.as_bytes().to_vec(),
        labels: record.labels.iter().map(|(key, value)| text((key, value))).collect(),
        site: record.site.clone(),
        fact_values: record.facts.clone(),
        state: state(record.membership).into(),
        token_id: record.token.map(|token| token.as_bytes().to_vec()).unwrap_or_default(),
        registered_at: Some(timestamp(record.registered_at)),
        last_heard_at: record.last_heard_at.map(timestamp),
        wanted: record.wanted.iter().map(|(path, value)| entry(path, value)).collect(),
        reported: reported.filter_map(set_entry).collect(),
        holds: record.holds.iter().map(|(id, hold)| encode_hold(*id, hold)).collect(),
        events: record.events.iter().map(encode_event).collect(),
        pins: record.pins.iter().map(encode_pin).collect(),
    }
}

/// Reads a device's record.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn decode(bytes: &[u8]) -> Result<DeviceRecord, ReadRecordError> {
    let record = stored::DeviceRecord::decode(bytes)?;
    let mut labels = BTreeMap::new();
    for (key, value) in &record.labels {
        labels.insert(field(key.parse().ok(), "labels")?, field(value.parse().ok(), "labels")?);
    }
    let state = DeviceState::try_from(record.state).unwrap_or_default();
    Ok(DeviceRecord {
        local: field(LocalId::from_slice(&record.local_id), "local_id")?,
        device: field(DeviceId::from_slice(&record.device_id), "device_id")?,
        name: field(record.name.parse().ok(), "name")?,
        key: field(KeptKey::from_slice(&record.public_key), "public_key")?,
        sealing_key: field(record.sealing_public_key.as_slice().try_into().ok(), "sealing_public_key")?,
        token: TokenId::from_slice(&record.token_id),
        membership: membership(state),
        labels,
        site: record.site,
        facts: record.fact_values,
        registered_at: record.registered_at.as_ref().map(wall).unwrap_or_default(),
        last_heard_at: record.last_heard_at.as_ref().map(wall),
        wanted: entries(&record.wanted),
        holds: record.holds.iter().map(decode_hold).collect::<Result<_, _>>()?,
        pins: record.pins.iter().map(decode_pin).collect::<Result<_, _>>()?,
        reports: report::read_workloads(&entries(&record.reported)),
        events: record.events.iter().map(decode_event).collect::<VecDeque<_>>(),
    })
}

/// How the API calls a membership.
#[must_use]
pub const fn state(membership: Membership) -> DeviceState {
    match membership {
        Membership::Enrolled => DeviceState::Enrolled,
        Membership::Recovered => DeviceState::Recovered,
        Membership::Quarantined => DeviceState::Quarantined,
        Membership::Revoked => DeviceState::Revoked,
    }
}

const fn membership(state: DeviceState) -> Membership {
    match state {
        DeviceState::Recovered => Membership::Recovered,
        DeviceState::Quarantined => Membership::Quarantined,
        DeviceState::Revoked | DeviceState::Retired | DeviceState::Denied => Membership::Revoked,
        DeviceState::Enrolled | DeviceState::Pending | DeviceState::Unspecified => Membership::Enrolled,
    }
}

fn entry(path: &Path, value: &Value) -> stored::EntryRecord {
    let value = match value {
        Value::Boolean(value) => StoredValue::Boolean(*value),
        Value::Integer(value) => StoredValue::Integer(*value),
        Value::Text(value) => StoredValue::Text(value.clone()),
        Value::Bytes(value) => StoredValue::Bytes(value.clone()),
    };
    stored::EntryRecord { path: path.to_string(), value: Some(value) }
}

fn set_entry(op: Op) -> Option<stored::EntryRecord> {
    match op {
        Op::Set { path, value } => Some(entry(&path, &value)),
        Op::Delete { .. } | Op::Unknown { .. } => None,
    }
}

fn entries(stored: &[stored::EntryRecord]) -> BTreeMap<Path, Value> {
    let read = |entry: &stored::EntryRecord| {
        let value = match entry.value.clone()? {
            StoredValue::Boolean(value) => Value::Boolean(value),
            StoredValue::Integer(value) => Value::Integer(value),
            StoredValue::Text(value) => Value::Text(value),
            StoredValue::Bytes(value) => Value::Bytes(value),
        };
        Some((entry.path.parse().ok()?, value))
    };
    stored.iter().filter_map(read).collect()
}

fn encode_hold(id: HoldId, hold: &HoldRow) -> stored::HoldRecord {
    stored::HoldRecord {
        hold_id: id.as_bytes().to_vec(),
        workload: hold.workload.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: hold.reason.clone(),
        created_at: Some(timestamp(hold.created_at)),
        created_by_id: hold.created_by.clone(),
    }
}

fn decode_hold(hold: &stored::HoldRecord) -> Result<(HoldId, HoldRow), ReadRecordError> {
    let id = field(HoldId::from_slice(&hold.hold_id), "hold_id")?;
    let workload = match hold.workload.as_str() {
        "" => None,
        name => Some(field(name.parse().ok(), "workload")?),
    };
    let created_at = hold.created_at.as_ref().map(wall).unwrap_or_default();
    let row = HoldRow { workload, reason: hold.reason.clone(), created_by: hold.created_by_id.clone(), created_at };
    Ok((id, row))
}

fn encode_pin((workload, pin): (&WorkloadName, &Pin)) -> stored::PinRecord {
    stored::PinRecord {
        workload: workload.to_string(),
        version: pin.version.to_string(),
        hold_id: pin.hold.as_bytes().to_vec(),
        reason: pin.reason.clone(),
        created_at: Some(timestamp(pin.created_at)),
        created_by_id: pin.created_by.clone(),
    }
}

fn decode_pin(record: &stored::PinRecord) -> Result<(WorkloadName, Pin), ReadRecordError> {
    let pin = Pin {
        version: field(record.version.parse().ok(), "pins.version")?,
        hold: field(HoldId::from_slice(&record.hold_id), "pins.hold_id")?,
        reason: record.reason.clone(),
        created_by: record.created_by_id.clone(),
        created_at: record.created_at.as_ref().map(wall).unwrap_or_default(),
    };
    Ok((field(record.workload.parse().ok(), "pins.workload")?, pin))
}

fn encode_event(event: &DeviceEvent) -> stored::DeviceEventRecord {
    stored::DeviceEventRecord {
        at: Some(timestamp(event.at)),
        kind: event.kind.clone(),
        workload: event.workload.as_ref().map(ToString::to_string).unwrap_or_default(),
        message: event.message.clone(),
        caused_by_id: event.caused_by.clone(),
    }
}

fn decode_event(event: &stored::DeviceEventRecord) -> DeviceEvent {
    DeviceEvent {
        at: event.at.as_ref().map(wall).unwrap_or_default(),
        kind: event.kind.clone(),
        workload: event.workload.parse().ok(),
        message: event.message.clone(),
        caused_by: event.caused_by_id.clone(),
    }
}
