//! What lies in a spool's log, without reading the log: a small row in the store for each of its entries.
//!
//! A row is written and removed in the commit that appends or forgets its entry. So a start reads some fifty bytes of
//! an entry instead of its sixteen thousand; only of what has no row, the log itself is asked.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use fleetd_actors::log_spool::SpooledBatch;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_store::state_store::{KeyRange, LogPart, ReadError, StateStore};

use crate::record::{decode_spool_row, encode_spool_row, index_spool_entry};

/// Bytes of a spool's log that are read at once.
const PAGE_BYTES: usize = 256 << 10;

/// What a spool's log holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Indexed {
    /// What is known of its entries, in their order.
    pub(super) batches: Vec<SpooledBatch>,
    /// The first number that it may hold.
    pub(super) first: u64,
    /// The number behind the last; 0 when it was never written.
    pub(super) next: u64,
}

/// Notes an entry that is appended in the same commit.
pub(super) fn note(batch: &SpooledBatch) -> Mutation {
    let key = row_key(&batch.stream.workload, batch.entry);
    Mutation::Put { space: Space::LogPosition, key, value: encode_spool_row(batch) }
}

/// Forgets an entry that the log forgets in the same commit.
pub(super) fn forget(workload: &WorkloadName, entry: u64) -> Mutation {
    Mutation::Delete { space: Space::LogPosition, key: row_key(workload, entry) }
}

/// Names of workloads have no NUL, so that no row has the key of another workload's record.
fn row_prefix(workload: &WorkloadName) -> Vec<u8> {
    format!("{workload}\0").into_bytes()
}

fn row_key(workload: &WorkloadName, entry: u64) -> Vec<u8> {
    let mut key = row_prefix(workload);
    key.extend_from_slice(&entry.to_be_bytes());
    key
}

/// Reads what a spool's log holds. What is damaged is left out: it is missed.
///
/// # Errors
/// When the store fails.
pub(super) fn read(store: &dyn StateStore, workload: &WorkloadName, log: &str) -> Result<Indexed, ReadError> {
    let Some((first, last)) = store.log_range(log)? else { return Ok(Indexed::default()) };
    let mut batches = BTreeMap::new();
    let prefix = row_prefix(workload);
    let rows = store.visit(Space::LogPosition, KeyRange::prefix(&prefix), &mut |key, found| {
        let number = key.strip_prefix(&*prefix).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
        let number = number.filter(|number| (first..=last).contains(number));
        batches.extend(number.and_then(|number| Some((number, decode_spool_row(workload, number, &found.value)?))));
        ControlFlow::Continue(())
    });
    match rows {
        Ok(()) => {}
        // The log says itself what the rows behind a damaged one would have said.
        Err(damage @ ReadError::Damaged { .. }) => {
            tracing::warn!(%workload, cause = %damage, "the index of the spool's log is damaged; the log is read");
        }
        Err(error @ ReadError::Failed { .. }) => return Err(error),
    }
    let mut next = first;
    while next <= last {
        if batches.contains_key(&next) {
            next += 1;
            continue;
        }
        let before = next;
        for part in store.read_log(log, next, PAGE_BYTES)? {
            match part {
                LogPart::Entry { sequence, entry } => {
                    batches.extend(index_spool_entry(workload, sequence, &entry).map(|batch| (sequence, batch)));
                    next = sequence.saturating_add(1);
                }
                LogPart::Gap { last, .. } => next = last.saturating_add(1),
            }
            if batches.contains_key(&next) {
                break;
            }
        }
        if next == before {
            break;
        }
    }
    Ok(Indexed { batches: batches.into_values().collect(), first, next: last.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use fleetd_actors::log_record::{GapReason, LogBatch, LogRecord};
    use fleetd_sync_core::commit::{ActorKey, Batch};
    use fleetd_sync_core::entropy::Entropy;
    use fleetd_sync_core::id::{BootId, Stamp};
    use fleetd_sync_core::session::LogStream;
    use fleetd_sync_store::memory::MemoryStore;
    use fleetd_sync_store::state_store::commit_and_wait;

    use super::*;
    use crate::record::encode_spool_entry;

    const LOG: &str = "spool.coffee";

    fn coffee() -> WorkloadName {
        "coffee".parse().unwrap()
    }

    /// An entry as it is appended, and what is to be known of it.
    fn entry(number: u64) -> (Vec<u8>, SpooledBatch) {
        let stream = LogStream { workload: coffee(), boot: BootId::from_bytes([7; 16]), stamp: Stamp(9) };
        let records = vec![LogRecord::Gap { count: 1, reason: GapReason::Rate }];
        let bytes = encode_spool_entry(&stream, &LogBatch { sequence_first: number, records });
        let batch = index_spool_entry(&coffee(), number, &bytes).unwrap();
        (bytes, batch)
    }

    fn commit(store: &MemoryStore, mutations: Vec<Mutation>) {
        commit_and_wait(store, Batch { actor: ActorKey::new("spool", "coffee"), mutations }).unwrap();
    }

    fn append(number: u64, entry: Vec<u8>) -> Mutation {
        Mutation::Append { log: LOG.to_owned(), sequence: number, entry }
    }

    #[test]
    fn what_has_a_row_is_known_without_its_entry() {
        let store = MemoryStore::immediate();
        assert_eq!(read(&store, &coffee(), LOG).unwrap(), Indexed::default());
        let batches: Vec<_> = (1..=40).map(|number| entry(number).1).collect();
        for batch in &batches {
            // Nobody could make anything of these bytes.
            commit(&store, vec![append(batch.entry, b"unreadable".to_vec()), note(batch)]);
        }
        assert_eq!(read(&store, &coffee(), LOG).unwrap(), Indexed { batches: batches.clone(), first: 1, next: 41 });

        let mut mutations = vec![Mutation::Forget { log: LOG.to_owned(), through: 30 }];
        mutations.extend((1..=30).map(|number| forget(&coffee(), number)));
        commit(&store, mutations);
        let after = read(&store, &coffee(), LOG).unwrap();
        assert_eq!((after.batches.as_slice(), after.next), (&batches[30..], 41));
        assert_eq!(store.scan(Space::LogPosition, KeyRange::all(), 100).unwrap().len(), 10, "no row is left behind");
    }

    #[test]
    fn what_has_no_row_is_read_from_the_log_and_no_other_workloads_row_counts() {
        let store = MemoryStore::immediate();
        let mut expected = Vec::new();
        for number in 1..=20 {
            let (bytes, batch) = entry(number);
            let row = (number % 3 == 0).then(|| note(&batch));
            commit(&store, std::iter::once(append(number, bytes)).chain(row).collect());
            expected.push(batch);
        }
        let foreign: WorkloadName = "coffee-2".parse().unwrap();
        let row = Mutation::Put { space: Space::LogPosition, key: row_key(&foreign, 1), value: vec![1] };
        let damaged = Mutation::Put { space: Space::LogPosition, key: row_key(&coffee(), 3), value: vec![1] };
        commit(&store, vec![row, damaged]);
        assert_eq!(read(&store, &coffee(), LOG).unwrap(), Indexed { batches: expected, first: 1, next: 21 });
    }

    /// A bit that changed while the store was open is found when somebody reads it, and not when the store opens.
    #[test]
    fn behind_a_damaged_row_the_log_itself_is_asked() {
        let is_damaged = |store: &MemoryStore| {
            let all = KeyRange::prefix(&row_prefix(&coffee()));
            let visited = store.visit(Space::LogPosition, all, &mut |_, _| ControlFlow::Continue(()));
            matches!(visited, Err(ReadError::Damaged { .. }))
        };
        let batches: Vec<_> = (1..=20).map(|number| entry(number).1).collect();
        let rotten = (0..64).find_map(|seed| {
            let store = MemoryStore::immediate();
            (1..=20).for_each(|number| {
                let (bytes, batch) = entry(number);
                commit(&store, vec![append(number, bytes), note(&batch)]);
            });
            store.rot(&mut Entropy::from_seed([seed; 32]));
            is_damaged(&store).then_some(store)
        });
        let store = rotten.expect("some bit is in a row");
        assert_eq!(read(&store, &coffee(), LOG).unwrap(), Indexed { batches, first: 1, next: 21 });
    }
}
