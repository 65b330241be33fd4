//! What stands over the whole fleet.

use fleetd_actors::orders::{Denial, FleetStop, Orders, Record};
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::{ArtifactDigest, HoldId};
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use prost::Message as _;

use super::{ReadRecordError, field, timestamp, wall};

/// Orders that are read at once: few people stop a fleet, or deny a release, as often as that.
const PAGE_RECORDS: usize = 1024;
/// What the keys of stops begin with.
const STOP: &[u8] = b"stop/";
/// What the keys of denials begin with.
const DENIAL: &[u8] = b"deny/";

/// Why the orders cannot be taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadOrdersError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// A record is none.
    #[error("a stored order is unreadable")]
    Record(#[from] ReadRecordError),
}

/// The change of the store that keeps what the orders' machine remembers.
#[must_use]
pub fn mutation(record: Record) -> Mutation {
    let space = Space::Order;
    match record {
        Record::Stopped(stop) => {
            let record = stored::OrderRecord {
                hold_id: stop.hold.as_bytes().to_vec(),
                reason: stop.reason,
                created_by_id: stop.created_by,
                created_at: Some(timestamp(stop.created_at)),
                denied: None,
            };
            Mutation::Put { space, key: stop_key(stop.hold), value: record.encode_to_vec() }
        }
        Record::Lifted(hold) => Mutation::Delete { space, key: stop_key(hold) },
        Record::Denied(denial) => {
            let key = denial_key(denial.manifest);
            let record = stored::OrderRecord {
                hold_id: denial.hold.as_bytes().to_vec(),
                reason: denial.reason,
                created_by_id: denial.created_by,
                created_at: Some(timestamp(denial.created_at)),
                denied: Some(stored::DeniedRelease {
                    manifest_digest: denial.manifest.as_bytes().to_vec(),
                    workload: denial.workload.to_string(),
                    version: denial.version.to_string(),
                }),
            };
            Mutation::Put { space, key, value: record.encode_to_vec() }
        }
        Record::Allowed(manifest) => Mutation::Delete { space, key: denial_key(manifest) },
    }
}

fn stop_key(hold: HoldId) -> Vec<u8> {
    [STOP, hold.as_bytes()].concat()
}

fn denial_key(manifest: ArtifactDigest) -> Vec<u8> {
    [DENIAL, manifest.as_bytes().as_slice()].concat()
}

/// Reads what stands.
///
/// # Errors
/// [`LoadOrdersError`].
pub fn load(store: &dyn StateStore) -> Result<Orders, LoadOrdersError> {
    let (mut orders, mut range) = (Orders::default(), KeyRange::all());
    loop {
        let page = store.scan(Space::Order, range.clone(), PAGE_RECORDS)?;
        for (_, found) in &page {
            read(&found.value, &mut orders)?;
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE_RECORDS => range = range.after(key),
            _ => return Ok(orders),
        }
    }
}

/// Reads one order, and puts it among those that stand.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn read(bytes: &[u8], orders: &mut Orders) -> Result<(), ReadRecordError> {
    let record = stored::OrderRecord::decode(bytes)?;
    let hold = field(HoldId::from_slice(&record.hold_id), "hold_id")?;
    let created_at = record.created_at.as_ref().map(wall).unwrap_or_default();
    let (reason, created_by) = (record.reason, record.created_by_id);
    match record.denied {
        None => drop(orders.stops.insert(hold, FleetStop { hold, reason, created_by, created_at })),
        Some(denied) => {
            let manifest = field(ArtifactDigest::from_slice(&denied.manifest_digest), "manifest_digest")?;
            let workload = field(denied.workload.parse().ok(), "workload")?;
            let version = field(denied.version.parse().ok(), "version")?;
            let denial = Denial { hold, manifest, workload, version, reason, created_by, created_at };
            orders.denials.insert(manifest, denial);
        }
    }
    Ok(())
}
