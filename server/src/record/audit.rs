//! The audit log: its entries, as they are hashed, where it stands, and which calls have no outcome yet.

use fleetd_actors::audit::{Record, Standing};
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::audit::{Entry, EntryHash, origin};
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::FleetId;
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use prost::Message as _;

use super::{ReadRecordError, field};

/// Where the log stands is kept under this key.
const STANDING: &[u8] = b"standing";
/// Calls without an outcome are kept under this prefix, and the number of their intent.
const OPEN: &[u8] = b"open/";
/// Calls without an outcome that are read: more are not answered at once.
const OPEN_MAX: usize = 1 << 16;

/// Why the log cannot be taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadAuditError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// A record is none.
    #[error("where the audit log stands is unreadable")]
    Record(#[from] ReadRecordError),
}

/// The key of an entry.
#[must_use]
pub fn entry_key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn open_key(intent: u64) -> Vec<u8> {
    [OPEN, &intent.to_be_bytes()].concat()
}

/// Appends the changes of the store that keep what the log remembers.
pub fn put(record: Record, mutations: &mut Vec<Mutation>) {
    let change = match record {
        Record::Entry { number, entry } => {
            Mutation::Put { space: Space::AuditEntry, key: entry_key(number), value: entry }
        }
        Record::Standing(Standing { first, last, head }) => {
            let record = stored::AuditStandingRecord { first, last, head: head.as_bytes().to_vec() };
            Mutation::Put { space: Space::Audit, key: STANDING.to_vec(), value: record.encode_to_vec() }
        }
        Record::Opened { intent, entry } => Mutation::Put { space: Space::Audit, key: open_key(intent), value: entry },
        Record::Closed { intent } => Mutation::Delete { space: Space::Audit, key: open_key(intent) },
        Record::Forgotten { first, last } => {
            let forget = |number| Mutation::Delete { space: Space::AuditEntry, key: entry_key(number) };
            return mutations.extend((first..=last).map(forget));
        }
    };
    mutations.push(change);
}

/// Reads where the log stands.
///
/// # Errors
/// [`LoadAuditError`].
pub fn standing(store: &dyn StateStore, fleet: FleetId) -> Result<Standing, LoadAuditError> {
    let Some(found) = store.get(Space::Audit, STANDING)? else { return Ok(Standing::empty(origin(fleet))) };
    let record = stored::AuditStandingRecord::decode(found.value.as_slice()).map_err(ReadRecordError::from)?;
    let head: [u8; 32] = field(record.head.as_slice().try_into().ok(), "head")?;
    let stored::AuditStandingRecord { first, last, .. } = record;
    // What begins behind its end is none; the log counts on it.
    let first = field((1..=last.saturating_add(1)).contains(&first).then_some(first), "first")?;
    Ok(Standing { first, last, head: EntryHash::from_bytes(head) })
}

/// Reads where the log stands, and the intents of calls without an outcome.
///
/// # Errors
/// [`LoadAuditError`].
pub fn load(store: &dyn StateStore, fleet: FleetId) -> Result<(Standing, Vec<Entry>), LoadAuditError> {
    let open = store.scan(Space::Audit, KeyRange::prefix(OPEN), OPEN_MAX)?;
    let open: Vec<Entry> = open.into_iter().filter_map(|(_, found)| Entry::decode(&found.value).ok()).collect();
    let standing = standing(store, fleet)?;
    let has_entries = open.iter().all(|entry| entry.number <= standing.last);
    field(has_entries.then_some(()), "a call without an outcome")?;
    Ok((standing, open))
}
