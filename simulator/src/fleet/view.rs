//! What can be read of a fleet: what the server's store says, and how the fleet stands.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::device::record::DeviceRecord;
use fleetd_actors::rollout::status::RolloutHeader;
use fleetd_actors::{report, rollout};
use fleetd_server::record;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::RolloutId;
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_store::state_store::StateStore as _;

use super::{Fleet, SimulatedDevice, coffee};
use crate::run::Sample;

impl Fleet {
    /// Says whether the server's process is there.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.server.node().is_some()
    }

    /// The workloads that devices may have.
    #[must_use]
    pub fn workloads(&self) -> BTreeSet<WorkloadName> {
        self.operator.workloads()
    }

    /// The numbers of a site's devices.
    pub fn devices_of_site(&self, site: usize) -> impl Iterator<Item = usize> + use<> {
        (site..self.devices.len()).step_by(self.sites.max(1))
    }

    /// The fleet's state now.
    #[must_use]
    pub fn sample(&mut self, at: Duration) -> Sample {
        let sites = self.sites.max(1);
        let newest = self.operator.newest_release().map(|known| known.signed.claims().version.clone());
        let (mut healthy, mut updated, mut linked) = (vec![0; sites], vec![0; sites], vec![0; sites]);
        self.look_again();
        for number in 0..self.devices.len() {
            let (phase, release) = self.running(number);
            let is_healthy = matches!(phase, Some(report::Phase::Healthy | report::Phase::Restored));
            let is_newest = phase == Some(report::Phase::Healthy) && release == newest;
            let counts = [(&mut healthy, is_healthy), (&mut updated, is_newest), (&mut linked, self.is_linked(number))];
            for (by_site, is_so) in counts {
                if let Some(count) = by_site.get_mut(number % sites) {
                    *count += usize::from(is_so);
                }
            }
        }
        let (frames, bytes) = self.network.traffic();
        Sample { at_s: at.as_secs(), healthy, updated, linked, frames, bytes }
    }

    /// Notes whether anything was stored since the records were last read.
    fn look_again(&mut self) {
        let (store, revision) = (&self.server.store, self.server.store.revision());
        let is_known = self.looked_at.as_ref().is_some_and(|(known, at)| Arc::ptr_eq(known, store) && *at == revision);
        self.is_unchanged = is_known;
        // It is kept, so that no store that is opened later lies where this one lay.
        self.looked_at = Some((Arc::clone(store), revision));
    }

    /// The phase and the release of a device's `coffee`, as the server's store says. Between two samples most records
    /// stay as they are, and reading them is most of what a sample costs.
    fn running(&mut self, number: usize) -> (Option<report::Phase>, Option<Version>) {
        if let Some((_, phase, release)) = self.seen.get(&number).filter(|_| self.is_unchanged) {
            return (*phase, release.clone());
        }
        let found = self.devices.get(number).map(SimulatedDevice::local);
        let found = found.and_then(|local| self.server.store.get(Space::Device, local.as_bytes()).ok()?);
        let Some(found) = found else {
            self.seen.remove(&number);
            return (None, None);
        };
        let digest = *blake3::hash(&found.value).as_bytes();
        if let Some((seen, phase, release)) = self.seen.get(&number)
            && *seen == digest
        {
            return (*phase, release.clone());
        }
        let report = record::device::decode(&found.value).ok().and_then(|mut record| record.reports.remove(&coffee()));
        let (phase, release) = report.map_or((None, None), |report| (report.phase, report.release));
        self.seen.insert(number, (digest, phase, release.clone()));
        (phase, release)
    }

    /// Says whether the server has a live connection to a device.
    #[must_use]
    pub fn is_linked(&self, number: usize) -> bool {
        let Some(device) = self.devices.get(number) else { return false };
        self.server.node().is_some_and(|node| node.shared.connections.of_device(device.local()).is_some())
    }

    /// What the server's store says of a device in a rollout, once it says more than the plan.
    #[must_use]
    pub fn progress(&self, rollout: RolloutId, number: usize) -> Option<rollout::status::DeviceStatus> {
        let key = record::rollout::assignment_key(rollout, self.devices.get(number)?.local());
        let found = self.server.store.get(Space::Assignment, &key).ok()??;
        record::rollout::decode_progress(&found.value).ok().map(|(_, progress)| progress.status)
    }

    /// What the server's store says of a rollout.
    #[must_use]
    pub fn rollout(&self, rollout: RolloutId) -> Option<RolloutHeader> {
        let found = self.server.store.get(Space::Rollout, rollout.as_bytes()).ok()??;
        record::rollout::decode_header(&found.value).ok()
    }

    /// What the server's store says of a device.
    #[must_use]
    pub fn record(&self, number: usize) -> Option<DeviceRecord> {
        let local = self.devices.get(number)?.local();
        let found = self.server.store.get(Space::Device, local.as_bytes()).ok()??;
        record::device::decode(&found.value).ok()
    }

    /// What the server's store says of a device's `coffee`.
    #[must_use]
    pub fn report(&self, number: usize) -> Option<report::WorkloadReport> {
        self.record(number)?.reports.remove(&coffee())
    }

    /// Says whether the server's store says that a device runs a version and is healthy.
    #[must_use]
    pub fn is_healthy(&self, number: usize, version: &str) -> bool {
        self.report(number).is_some_and(|report| {
            report.phase == Some(report::Phase::Healthy)
                && report.release.as_ref().is_some_and(|release| release.as_str() == version)
        })
    }
}
