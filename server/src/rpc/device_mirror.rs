//! What is kept in memory of every device's record: read from the store once, then kept by its feed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::LocalId;
use fleetd_sync_store::state_store::{Changed, Cursor, KeyRange, ReadError, StateStore};

/// Changes that are taken in at once.
const FEED_CHANGES: usize = 1024;

/// What somebody keeps of devices.
pub(crate) trait Entries: Default {
    /// Takes in the record of a device of which nothing is kept.
    fn take(&mut self, local: LocalId, record: &[u8]);

    /// Lets go of what is kept of a device, if anything is.
    fn forget(&mut self, local: LocalId);
}

/// Entries that are as the store is.
pub(crate) struct DeviceMirror<E> {
    store: Arc<dyn StateStore>,
    /// With how far the feed was followed; nothing until somebody asks first.
    known: Mutex<Option<(Cursor, E)>>,
}

impl<E: Entries> DeviceMirror<E> {
    pub(crate) const fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, known: Mutex::new(None) }
    }

    /// Looks at the entries as the store is now. The first look takes seconds in a large fleet.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&E) -> T) -> Result<T, ReadError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be followed or read whole is not kept.
        let followed = known.take().map(|known| self.follow(known)).transpose()?.flatten();
        let current = known.insert(followed.map_or_else(|| self.read(), Ok)?);
        Ok(look(&current.1))
    }

    /// Follows the feed to its end; nothing if it does not go back so far.
    fn follow(&self, (mut cursor, mut entries): (Cursor, E)) -> Result<Option<(Cursor, E)>, ReadError> {
        loop {
            let Ok(feed) = self.store.feed(cursor, FEED_CHANGES) else { return Ok(None) };
            if feed.changes.is_empty() {
                return Ok(Some((cursor, entries)));
            }
            let changed = feed.changes.into_iter().filter_map(|change| match change.changed {
                Changed::Record { space: Space::Device, key, .. } => LocalId::from_slice(&key),
                _ => None,
            });
            // What stands there now is taken once, however often it changed.
            for local in changed.collect::<BTreeSet<_>>() {
                let found = self.store.get(Space::Device, local.as_bytes())?;
                entries.forget(local);
                if let Some(found) = found {
                    entries.take(local, &found.value);
                }
            }
            cursor = feed.cursor;
        }
    }

    fn read(&self) -> Result<(Cursor, E), ReadError> {
        // What changes while it is read comes once more with the feed.
        let (cursor, mut entries) = (self.store.feed_end(), E::default());
        self.store.visit(Space::Device, KeyRange::all(), &mut |key, found| {
            if let Some(local) = LocalId::from_slice(key) {
                entries.take(local, &found.value);
            }
            ControlFlow::Continue(())
        })?;
        Ok((cursor, entries))
    }
}
