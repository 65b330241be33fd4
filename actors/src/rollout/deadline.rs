//! One deadline for each device, and the earliest of them all.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::time::{Monotonic, Now};

/// One deadline for each device. All that is asked of it costs the logarithm of the number of devices.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_time: BTreeSet<(Monotonic, LocalId)>,
    by_device: BTreeMap<LocalId, Monotonic>,
}

impl FromIterator<(LocalId, Monotonic)> for Deadlines {
    fn from_iter<T: IntoIterator<Item = (LocalId, Monotonic)>>(deadlines: T) -> Self {
        let mut all = Self::default();
        deadlines.into_iter().for_each(|(device, at)| all.set(device, at));
        all
    }
}

impl Deadlines {
    pub(super) fn set(&mut self, device: LocalId, at: Monotonic) {
        self.clear(device);
        self.by_device.insert(device, at);
        self.by_time.insert((at, device));
    }

    pub(super) fn clear(&mut self, device: LocalId) {
        if let Some(at) = self.by_device.remove(&device) {
            self.by_time.remove(&(at, device));
        }
    }

    pub(super) fn is_set(&self, device: LocalId) -> bool {
        self.by_device.contains_key(&device)
    }

    pub(super) fn earliest(&self) -> Option<Monotonic> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Every deadline, by its device.
    pub(super) const fn by_device(&self) -> &BTreeMap<LocalId, Monotonic> {
        &self.by_device
    }

    /// Takes the earliest deadline that has passed.
    pub(super) fn pop_due(&mut self, now: Now) -> Option<LocalId> {
        let (at, device) = self.by_time.first().copied()?;
        if at > now.monotonic {
            return None;
        }
        self.clear(device);
        Some(device)
    }
}
