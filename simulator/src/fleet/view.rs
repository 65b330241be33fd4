//! What can be read of a fleet: what the server's store says, and how the fleet stands.

use std::time::Duration;

use fleetd_actors::device::record::DeviceRecord;
use fleetd_actors::rollout::status::RolloutHeader;
use fleetd_actors::{report, rollout};
use fleetd_server::record;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::RolloutId;
use fleetd_sync_store::state_store::StateStore as _;

use super::{Fleet, coffee};
use crate::run::Sample;

impl Fleet {
    /// Says whether the server's process is there.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.server.node().is_some()
    }

    /// The numbers of a site's devices.
    pub fn devices_of_site(&self, site: usize) -> impl Iterator<Item = usize> + use<> {
        (site..self.devices.len()).step_by(self.sites.max(1))
    }

    /// The fleet's state now.
    #[must_use]
    pub fn sample(&self, at: Duration) -> Sample {
        let sites = self.sites.max(1);
        let newest = self.operator.newest_release().map(|known| known.signed.claims().version.clone());
        let (mut healthy, mut updated, mut linked) = (vec![0; sites], vec![0; sites], vec![0; sites]);
        for number in 0..self.devices.len() {
            let report = self.report(number);
            let phase = report.as_ref().and_then(|report| report.phase);
            let is_healthy = matches!(phase, Some(report::Phase::Healthy | report::Phase::Restored));
            let release = report.as_ref().and_then(|report| report.release.as_ref());
            let is_newest = phase == Some(report::Phase::Healthy) && release == newest.as_ref();
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
