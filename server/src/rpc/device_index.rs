//! Devices by name and by id: read from the store once, then kept by its feed.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::{DeviceId, LocalId};
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_store::state_store::{Changed, Cursor, KeyRange, ReadError, StateStore};

use crate::record;

/// Changes that are taken in at once.
const FEED_CHANGES: usize = 1024;

#[derive(Default)]
struct Known {
    cursor: Option<Cursor>,
    devices: BTreeMap<LocalId, (DeviceId, DeviceName)>,
    by_id: BTreeMap<DeviceId, LocalId>,
    by_name: BTreeMap<(DeviceName, LocalId), ()>,
}

/// Devices by name and by id.
pub(crate) struct DeviceIndex {
    store: Arc<dyn StateStore>,
    known: Mutex<Known>,
}

impl DeviceIndex {
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, known: Mutex::default() }
    }

    /// Finds a device by its id, its local id or its name.
    pub(crate) fn find(&self, text: &str) -> Result<Option<LocalId>, ReadError> {
        let known = self.current()?;
        if let Ok(local) = text.parse::<LocalId>() {
            return Ok(known.devices.contains_key(&local).then_some(local));
        }
        if let Ok(id) = text.parse::<DeviceId>() {
            return Ok(known.by_id.get(&id).copied());
        }
        let Ok(name) = text.parse::<DeviceName>() else { return Ok(None) };
        let lowest = (name.clone(), LocalId::from_bytes([0; LocalId::LENGTH]));
        let found = known.by_name.range(lowest..).next();
        Ok(found.filter(|((found, _), ())| *found == name).map(|((_, local), ())| *local))
    }

    /// The devices behind a name and local id, in the order of their names; at most so many.
    pub(crate) fn by_name(
        &self,
        after: Option<(DeviceName, LocalId)>,
        limit: usize,
    ) -> Result<Vec<(DeviceName, LocalId)>, ReadError> {
        let known = self.current()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(known.by_name.range((from, Bound::Unbounded)).take(limit).map(|(key, ())| key.clone()).collect())
    }

    /// Takes in what has changed since somebody last asked.
    fn current(&self) -> Result<MutexGuard<'_, Known>, ReadError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(cursor) = known.cursor {
            let Ok(feed) = self.store.feed(cursor, FEED_CHANGES) else { break };
            if feed.changes.is_empty() {
                return Ok(known);
            }
            for change in feed.changes {
                if let Changed::Record { space: Space::Device, key, .. } = change.changed
                    && let Some(local) = LocalId::from_slice(&key)
                {
                    known.forget(local);
                    if let Some(found) = self.store.get(Space::Device, &key)? {
                        known.take(&found.value);
                    }
                }
            }
            known.cursor = Some(feed.cursor);
        }
        *known = Known { cursor: Some(self.store.feed_end()), ..Known::default() };
        self.store.visit(Space::Device, KeyRange::all(), &mut |_, found| {
            known.take(&found.value);
            ControlFlow::Continue(())
        })?;
        Ok(known)
    }
}

impl Known {
    fn take(&mut self, bytes: &[u8]) {
        // A record that cannot be read has no name to be found by; whoever asks for it by its id is told.
        let Ok(device) = record::device::decode(bytes) else { return };
        self.by_id.insert(device.device, device.local);
        self.by_name.insert((device.name.clone(), device.local), ());
        self.devices.insert(device.local, (device.device, device.name));
    }

    fn forget(&mut self, local: LocalId) {
        if let Some((id, name)) = self.devices.remove(&local) {
            self.by_id.remove(&id);
            self.by_name.remove(&(name, local));
        }
    }
}
