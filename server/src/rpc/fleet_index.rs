//! What targets mean of the fleet: an index of every device by what selectors and conditions ask for, read from the store
//! once, then kept by its feed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetd_actors::device::record::Membership;
use fleetd_actors::targeting::Targets;
use fleetd_actors::targeting::index::{Selected, TargetIndex};
use fleetd_sync_core::commit::{Revision, Space};
use fleetd_sync_core::id::{ArtifactDigest, LocalId};
use fleetd_sync_store::state_store::{Changed, Cursor, KeyRange, ReadError, StateStore};

use crate::{device_row, record};

/// Changes that are taken in at once.
const FEED_CHANGES: usize = 1024;

#[derive(Default)]
struct Known {
    cursor: Option<Cursor>,
    index: TargetIndex,
    /// Devices whose record cannot be read: whoever plans is told, since nobody knows whether they are meant.
    unreadable: BTreeSet<LocalId>,
    /// The highest attempt at each release that any device has ever told of.
    attempts: BTreeMap<ArtifactDigest, u32>,
}

/// The fleet by what targets ask for. Devices whose key is revoked are not in it: they are meant only where they are
/// named.
pub(crate) struct FleetIndex {
    store: Arc<dyn StateStore>,
    known: Mutex<Known>,
}

impl FleetIndex {
    /// An index of what is in a store; it is read when somebody asks first.
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// Says which devices are meant, and how many there are. This may take seconds.
    pub(crate) fn select(
        &self,
        targets: &Targets,
        is_online: &(dyn Fn(LocalId) -> bool + Sync),
    ) -> Result<(Selected, usize), ReadError> {
        let known = self.current()?;
        let mut selected = known.index.select(targets, is_online);
        selected.meant.extend(&known.unreadable);
        Ok((selected, known.index.len()))
    }

    /// The highest attempt at a release that any device has told of.
    pub(crate) fn last_attempt(&self, manifest: ArtifactDigest) -> Result<u32, ReadError> {
        Ok(self.current()?.attempts.get(&manifest).copied().unwrap_or_default())
    }

    /// Takes in what has changed since somebody last asked.
    fn current(&self) -> Result<MutexGuard<'_, Known>, ReadError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(cursor) = known.cursor {
            let Ok(feed) = self.store.feed(cursor, FEED_CHANGES) else { break };
            if feed.changes.is_empty() {
                return Ok(known);
            }
            let changed = feed.changes.into_iter().filter_map(|change| match change.changed {
                Changed::Record { space: Space::Device, key, .. } => LocalId::from_slice(&key),
                _ => None,
            });
            // What stands there now is taken once, however often it changed.
            for local in changed.collect::<BTreeSet<_>>() {
                let found = self.store.get(Space::Device, local.as_bytes())?;
                known.forget(local);
                if let Some(found) = found {
                    known.take(local, &found.value);
                }
            }
            known.cursor = Some(feed.cursor);
        }
        // What could not be read whole is nothing.
        let mut anew = Known { cursor: Some(self.store.feed_end()), ..Known::default() };
        self.store.visit(Space::Device, KeyRange::all(), &mut |key, found| {
            if let Some(local) = LocalId::from_slice(key) {
                anew.take(local, &found.value);
            }
            ControlFlow::Continue(())
        })?;
        *known = anew;
        Ok(known)
    }
}

impl Known {
    fn take(&mut self, local: LocalId, bytes: &[u8]) {
        let Ok(device) = record::device::decode(bytes) else {
            self.unreadable.insert(local);
            return;
        };
        for report in device.reports.values() {
            if let Some(manifest) = report.digest {
                let last = self.attempts.entry(manifest).or_default();
                *last = report.attempt.max(*last);
            }
        }
        if device.membership != Membership::Revoked {
            self.index.put(&device_row::of(&device, Revision::default(), None));
        }
    }

    fn forget(&mut self, local: LocalId) {
        self.index.remove(local);
        self.unreadable.remove(&local);
    }
}
