//! How many devices of a rollout have come how far: kept by the changes, so that nobody counts a fleet anew.

use fleetd_sync_core::id::LocalId;

use super::plan::Plan;
use super::status::{DeviceProgress, RolloutCounts};
use super::strategy::Place;

/// How many devices have come how far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of the plan.
    pub all: RolloutCounts,
    /// Those of each wave.
    pub waves: Vec<RolloutCounts>,
}

impl Tally {
    /// Nobody yet, of as many waves as a plan has.
    pub(super) fn empty(plan: &Plan) -> Self {
        let waves = (0..plan.wave_count()).map(|_| RolloutCounts::default()).collect();
        Self { all: RolloutCounts::default(), waves }
    }

    /// Counts every device.
    pub fn of<'a>(plan: &Plan, progress_of: impl Fn(LocalId) -> Option<&'a DeviceProgress>) -> Self {
        let mut tally = Self::empty(plan);
        for device in &plan.devices {
            if let Some(progress) = progress_of(device.local) {
                tally.recount(device.place, None, progress);
            }
        }
        tally
    }

    /// Counts one device anew that has come further: no other one is looked at.
    pub fn recount(&mut self, place: Option<Place>, before: Option<&DeviceProgress>, now: &DeviceProgress) {
        let wave = place.and_then(|place| self.waves.get_mut(usize::try_from(place.wave).ok()?));
        for counts in std::iter::once(&mut self.all).chain(wave) {
            before.into_iter().for_each(|before| counts.remove(before));
            counts.add(now);
        }
    }
}
