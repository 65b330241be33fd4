//! How far a rollout has come, read from its records: its actor is not asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_actors::orders::Standstill;
use fleetd_actors::rollout::Rollout;
use fleetd_actors::rollout::plan::{Plan, PlannedDevice};
use fleetd_actors::rollout::status::{DeviceProgress, RolloutHeader};
use fleetd_actors::rollout::tally::Tally;
use fleetd_proto::fleetd::rollout::v1 as api;
use fleetd_proto::fleetd::rollout::v1::RolloutDeviceState;
use fleetd_sync_core::commit::{Revision, Space};
use fleetd_sync_core::id::{LocalId, RolloutId};
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::KeyRange;

use super::super::backend::Backend;
use super::super::call_error::CallError;
use super::super::catalog::KnownPlan;
use super::super::convert;
use crate::record;

/// How far a rollout has come.
pub(super) struct Standing {
    pub(super) header: RolloutHeader,
    pub(super) revision: Revision,
    pub(super) progress: BTreeMap<LocalId, DeviceProgress>,
    /// The revisions of the devices' records, of those that have come further than the plan left them.
    pub(super) revisions: BTreeMap<LocalId, Revision>,
    tally: Tally,
    known: Arc<KnownPlan>,
    planned: BTreeMap<LocalId, usize>,
}

impl Standing {
    /// Reads a rollout.
    pub(super) fn load(backend: &Backend, rollout: RolloutId) -> Result<Self, CallError> {
        let (header, revision) = header(backend, rollout)?;
        let known = backend.catalog.plan(header.plan)?;
        let (mut stored, mut revisions) = (BTreeMap::new(), BTreeMap::new());
        backend.visit(Space::Assignment, KeyRange::prefix(rollout.as_bytes()), |_, value, revision| {
            let (device, progress) = record::rollout::decode_progress(value)?;
            stored.insert(device, progress);
            revisions.insert(device, revision);
            Ok(())
        })?;
        let machine = Rollout::load(header.clone(), Arc::clone(known.plan()), stored);
        let progress: BTreeMap<_, _> = machine.devices().map(|(device, progress)| (device, progress.clone())).collect();
        let tally = Tally::of(known.plan(), |device| progress.get(&device));
        let planned = known.plan().devices.iter().enumerate().map(|(index, device)| (device.local, index)).collect();
        Ok(Self { header, revision, progress, revisions, tally, known, planned })
    }

    /// The plan that it carries out.
    pub(super) fn plan(&self) -> &Plan {
        self.known.plan()
    }

    /// What keeps it from going on, if it has not ended.
    pub(super) fn standstill(&self, backend: &Backend) -> Option<Standstill> {
        let standstill = backend.shared().orders().standstill(self.known.plan().release.manifest);
        standstill.filter(|_| !self.header.phase.is_ended())
    }

    /// Says whether a device gets the release later: nothing was sent to it yet.
    pub(super) fn is_to_come(&self, device: LocalId) -> bool {
        self.header.goes_on() && self.progress.get(&device).is_some_and(DeviceProgress::is_queued)
    }

    /// Reads the rollout's own record again; says whether it has changed.
    pub(super) fn read_header(&mut self, backend: &Backend) -> Result<bool, CallError> {
        let (header, revision) = header(backend, self.header.rollout)?;
        let has_changed = header != self.header;
        (self.header, self.revision) = (header, revision);
        Ok(has_changed)
    }

    /// Reads a device's record again; says whether it has changed.
    pub(super) fn read_device(&mut self, backend: &Backend, device: LocalId) -> Result<bool, CallError> {
        let key = record::rollout::assignment_key(self.header.rollout, device);
        let Some(found) = backend.store().get(Space::Assignment, &key)? else { return Ok(false) };
        let (device, progress) = record::rollout::decode_progress(&found.value)?;
        self.revisions.insert(device, found.revision);
        let place = self.planned(device).and_then(|planned| planned.place);
        let before = self.progress.get(&device);
        if before == Some(&progress) {
            return Ok(false);
        }
        self.tally.recount(place, before, &progress);
        self.progress.insert(device, progress);
        Ok(true)
    }

    /// The rollout as the API shows it.
    pub(super) fn rollout(&self, now: Wall) -> api::Rollout {
        convert::rollout::rollout((&self.header, self.revision), self.known.plan(), &self.tally, now)
    }

    /// One device as the API shows it.
    pub(super) fn device(&self, local: LocalId) -> Option<api::RolloutDevice> {
        let (planned, progress) = (self.planned(local)?, self.progress.get(&local)?);
        Some(convert::rollout::device(planned, progress))
    }

    /// The devices by their names.
    pub(super) fn devices(&self, only: RolloutDeviceState) -> Vec<(Vec<u8>, api::RolloutDevice)> {
        let shown = self.progress.keys().filter_map(|local| self.device(*local));
        let meant = shown.filter(|device| only == RolloutDeviceState::Unspecified || device.state() == only);
        let mut devices: Vec<_> =
            meant.map(|device| ([device.name.as_bytes(), &[0], device.local_id.as_bytes()].concat(), device)).collect();
        devices.sort_by(|(key, _), (other, _)| key.cmp(other));
        devices
    }

    fn planned(&self, local: LocalId) -> Option<&PlannedDevice> {
        self.known.plan().devices.get(*self.planned.get(&local)?)
    }
}

fn header(backend: &Backend, rollout: RolloutId) -> Result<(RolloutHeader, Revision), CallError> {
    let found = backend.store().get(Space::Rollout, rollout.as_bytes())?;
    let found = found.ok_or(CallError::UnknownRollout { rollout })?;
    Ok((record::rollout::decode_header(&found.value)?, found.revision))
}
