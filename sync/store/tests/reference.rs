//! What a store should do, in the plainest way: the conformance suite compares both stores with it.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::commit::{ActorKey, Batch, CommitError, Mutation, Revision, Space};
use fleetd_sync_store::state_store::{Change, Changed, LogPart};

#[derive(Clone, Default)]
pub(crate) struct Log {
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) entries: BTreeMap<u64, Vec<u8>>,
}

/// The state of a store, and its feed.
#[derive(Clone, Default)]
pub(crate) struct Reference {
    pub(crate) records: BTreeMap<(Space, Vec<u8>), (Vec<u8>, Revision)>,
    pub(crate) logs: BTreeMap<String, Log>,
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<Change>,
    refused: BTreeSet<ActorKey>,
}

impl Reference {
    pub(crate) fn reloaded(&mut self, actor: &ActorKey) {
        self.refused.remove(actor);
    }

    /// A restarted process refuses nobody, and its feed begins anew.
    pub(crate) fn reopened(&mut self) {
        self.refused.clear();
        self.changes.clear();
    }

    pub(crate) fn turn(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if self.refused.contains(&batch.actor) {
            return Err(CommitError::Refused { actor: batch.actor.clone() });
        }
        let mut next = self.clone();
        match next.apply(self, batch) {
            Ok(()) => *self = next,
            Err(error) => {
                self.refused.insert(batch.actor.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    fn apply(&mut self, before: &Self, batch: &Batch) -> Result<(), CommitError> {
        self.revision = Revision(before.revision.0 + 1);
        let mut has_changed = false;
        for mutation in &batch.mutations {
            if let Mutation::Expect { space, key, revision: expected } = mutation {
                let found = before.records.get(&(*space, key.clone())).map_or(Revision(0), |(_, found)| *found);
                if found != *expected {
                    return Err(CommitError::Stale { space: *space, expected: *expected, found });
                }
                continue;
            }
            if let Some(changed) = self.mutate(mutation)? {
                if let (true, Changed::Appended { log, .. }, Some(last)) = (has_changed, &changed, self.changes.last())
                    && matches!(&last.changed, Changed::Appended { log: grown, .. } if grown == log)
                {
                    self.changes.pop();
                }
                has_changed = true;
                self.changes.push(Change { revision: self.revision, changed });
            }
        }
        if !has_changed {
            self.revision = before.revision;
        }
        Ok(())
    }

    fn mutate(&mut self, mutation: &Mutation) -> Result<Option<Changed>, CommitError> {
        match mutation.clone() {
            Mutation::Put { space, key, value } => {
                self.records.insert((space, key.clone()), (value, self.revision));
                Ok(Some(Changed::Record { space, key, present: true }))
            }
            Mutation::Delete { space, key } => {
                self.records.remove(&(space, key.clone()));
                Ok(Some(Changed::Record { space, key, present: false }))
            }
            Mutation::Append { log, sequence, entry } => {
                let fresh = Log { first: sequence, next: sequence, entries: BTreeMap::new() };
                let found = self.logs.entry(log.clone()).or_insert(fresh);
                if found.next != sequence {
                    return Err(CommitError::Sequence { log, expected: found.next, found: sequence });
                }
                found.next += 1;
                found.entries.insert(sequence, entry);
                Ok(Some(Changed::Appended { log, last: sequence }))
            }
            Mutation::Forget { log, through } => {
                if !self.logs.contains_key(&log) {
                    return Ok(None);
                }
                if through == u64::MAX {
                    self.logs.remove(&log);
                } else if let Some(found) = self.logs.get_mut(&log) {
                    found.first = (through + 1).clamp(found.first, found.next);
                    found.entries = found.entries.split_off(&found.first);
                }
                Ok(Some(Changed::Forgotten { log, through }))
            }
            Mutation::Expect { .. } => Ok(None),
        }
    }

    /// The parts that a reader of a whole log should get.
    pub(crate) fn parts(&self, log: &str) -> Vec<LogPart> {
        let entries = self.logs.get(log).map(|log| log.entries.clone()).unwrap_or_default();
        entries.into_iter().map(|(sequence, entry)| LogPart::Entry { sequence, entry }).collect()
    }
}
