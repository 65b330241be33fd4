//! Devices by name and by id.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use fleetd_sync_core::id::{DeviceId, LocalId};
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_store::state_store::{ReadError, StateStore};

use super::device_mirror::{DeviceMirror, Entries};
use crate::record;

#[derive(Default)]
struct Known {
    devices: BTreeMap<LocalId, (DeviceId, DeviceName)>,
    by_id: BTreeMap<DeviceId, LocalId>,
    by_name: BTreeMap<(DeviceName, LocalId), ()>,
}

/// Devices by name and by id.
pub(crate) struct DeviceIndex {
    known: DeviceMirror<Known>,
}

impl DeviceIndex {
    pub(crate) const fn new(store: Arc<dyn StateStore>) -> Self {
        Self { known: DeviceMirror::new(store) }
    }

    /// Finds a device by its id, its local id or its name.
    pub(crate) fn find(&self, text: &str) -> Result<Option<LocalId>, ReadError> {
        self.known.look(|known| known.find(text))
    }

    /// The devices behind a name and local id, in the order of their names; at most so many.
    pub(crate) fn by_name(
        &self,
        after: Option<(DeviceName, LocalId)>,
        limit: usize,
    ) -> Result<Vec<(DeviceName, LocalId)>, ReadError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.known.look(|known| {
            known.by_name.range((from, Bound::Unbounded)).take(limit).map(|(key, ())| key.clone()).collect()
        })
    }
}

impl Entries for Known {
    fn take(&mut self, _: LocalId, bytes: &[u8]) {
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

impl Known {
    fn find(&self, text: &str) -> Option<LocalId> {
        if let Ok(local) = text.parse::<LocalId>() {
            return self.devices.contains_key(&local).then_some(local);
        }
        if let Ok(id) = text.parse::<DeviceId>() {
            return self.by_id.get(&id).copied();
        }
        let Ok(name) = text.parse::<DeviceName>() else { return None };
        let lowest = (name.clone(), LocalId::from_bytes([0; LocalId::LENGTH]));
        let found = self.by_name.range(lowest..).next();
        found.filter(|((found, _), ())| *found == name).map(|((_, local), ())| *local)
    }
}
