//! Watching devices: all that are meant, then each change.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_proto::fleetd::device::v1::{self as device, DeviceChange, Presence, WatchDevicesResponse};
use fleetd_sync_core::commit::{Revision, Space};
use fleetd_sync_core::id::LocalId;
use fleetd_sync_store::state_store::{Change, Changed, KeyRange};

use super::super::call_error::CallError;
use super::super::convert::targets;
use super::super::follower::{Follower, Messages, Outlet, StreamEnd, stream};
use super::super::page::Places;
use super::{Devices, Filter};

/// Opens a watch.
pub(super) fn watch(
    devices: Devices,
    asked: &device::WatchDevicesRequest,
) -> Result<Messages<WatchDevicesResponse>, CallError> {
    let targets = targets::filter(&devices.backend, (&asked.selector, ""), &[], &[])?;
    let named = asked.devices.iter().map(|device| devices.backend.find_device(device));
    let named: BTreeSet<LocalId> = named.collect::<Result<_, _>>()?;
    // Somebody who names a revoked device wants to see that it is.
    let filter = Filter { targets, presence: Presence::Unspecified, include_ended: !named.is_empty() };
    // They are followed first, so that nothing falls between what is read and what is followed.
    let follower = Follower::start(Arc::clone(&devices.backend.shared().seams.store));
    let places = Places::of_changes(devices.backend.store())?;
    let after = places.read(&asked.resume_token)?.map(Revision);
    let watch = Watch { devices, filter, named, places, shown: BTreeSet::new() };
    Ok(stream(|outlet| watch.run(after, follower, outlet)))
}

struct Watch {
    devices: Devices,
    filter: Filter,
    named: BTreeSet<LocalId>,
    places: Places,
    /// The devices that the caller was shown, and was not told are gone.
    shown: BTreeSet<LocalId>,
}

impl Watch {
    async fn run(
        mut self,
        after: Option<Revision>,
        mut follower: Follower,
        outlet: Outlet<WatchDevicesResponse>,
    ) -> Result<(), StreamEnd> {
        match after {
            Some(after) => self.tell_changed(Some(after), &outlet).await?,
            None => {
                self.tell_all(&outlet).await?;
                let (change, resume_token) =
                    (DeviceChange::SnapshotComplete.into(), self.places.write(self.places.newest()));
                outlet.send(WatchDevicesResponse { change, device: None, resume_token }).await?;
            }
        }
        loop {
            match outlet.next_changes(&mut follower).await? {
                Ok(changes) => self.tell_changes(&changes, &outlet).await?,
                // Some were missed: what stands there now has them.
                Err(_) => self.tell_changed(None, &outlet).await?,
            }
        }
    }

    async fn tell_all(&mut self, outlet: &Outlet<WatchDevicesResponse>) -> Result<(), StreamEnd> {
        for (local, _) in self.all()? {
            if let Some(device) = self.meant(local)? {
                self.shown.insert(local);
                let change = DeviceChange::Snapshot.into();
                outlet.send(WatchDevicesResponse { change, device: Some(device), resume_token: String::new() }).await?;
            }
        }
        Ok(())
    }

    /// Tells of every device that has changed after a revision, or of all.
    async fn tell_changed(
        &mut self,
        after: Option<Revision>,
        outlet: &Outlet<WatchDevicesResponse>,
    ) -> Result<(), StreamEnd> {
        for (local, revision) in self.all()? {
            // Of those that have not changed the caller knows whether they match.
            if after.is_some_and(|after| revision <= after) {
                if self.meant(local)?.is_some() {
                    self.shown.insert(local);
                }
            } else {
                self.tell(local, revision, outlet).await?;
            }
        }
        Ok(())
    }

    async fn tell_changes(
        &mut self,
        changes: &[Change],
        outlet: &Outlet<WatchDevicesResponse>,
    ) -> Result<(), StreamEnd> {
        let mut told = BTreeSet::new();
        for change in changes {
            if let Changed::Record { space: Space::Device, key, .. } = &change.changed
                && let Some(local) = LocalId::from_slice(key)
                // What stands there now is told once, however often it changed.
                && told.insert(local)
            {
                self.tell(local, change.revision, outlet).await?;
            }
        }
        Ok(())
    }

    async fn tell(
        &mut self,
        local: LocalId,
        revision: Revision,
        outlet: &Outlet<WatchDevicesResponse>,
    ) -> Result<(), StreamEnd> {
        let resume_token = self.places.write(revision.0);
        let (change, device) = match self.meant(local)? {
            Some(device) => {
                self.shown.insert(local);
                (DeviceChange::Changed, device)
            }
            None if self.shown.remove(&local) => (DeviceChange::Removed, self.devices.backend.show_device(local)?),
            None => return Ok(()),
        };
        let told = WatchDevicesResponse { change: change.into(), device: Some(device), resume_token };
        Ok(outlet.send(told).await?)
    }

    /// Every device and the revision of its record.
    fn all(&self) -> Result<Vec<(LocalId, Revision)>, CallError> {
        let mut all = Vec::new();
        self.devices.backend.visit(Space::Device, KeyRange::all(), |key, _, revision| {
            all.extend(LocalId::from_slice(key).map(|local| (local, revision)));
            Ok(())
        })?;
        Ok(all)
    }

    fn meant(&self, local: LocalId) -> Result<Option<device::Device>, CallError> {
        if !self.named.is_empty() && !self.named.contains(&local) {
            return Ok(None);
        }
        self.devices.matching(local, &self.filter)
    }
}
