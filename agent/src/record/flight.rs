//! A workload's flight recording, as a support bundle carries it.

mod read;
mod write;

use std::sync::Arc;

use fleetd_actors::flight::{FlightRecorder, Leg};
use fleetd_actors::workload::{Input, Snapshot};
use fleetd_sync_core::name::{Platform, WorkloadName};
use fleetd_sync_core::trust::Roster;

pub use read::decode_flight;
pub use write::encode_flight;

/// Keeps a workload's last steps.
pub type WorkloadRecorder = FlightRecorder<Snapshot, Input>;

/// One workload's last steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadFlight {
    /// The version of the program that recorded them.
    pub version: String,
    /// The workload.
    pub workload: WorkloadName,
    /// The device's platform.
    pub platform: Platform,
    /// Its legs, the oldest first.
    pub legs: Vec<Leg<Snapshot, Input>>,
}

/// The rosters of a recording, each once: states and inputs name them by their place.
#[derive(Default)]
struct Rosters(Vec<Arc<Roster>>);

impl Rosters {
    fn place_of(&mut self, roster: &Arc<Roster>) -> u32 {
        let place = self.0.iter().position(|known| known == roster).unwrap_or_else(|| {
            self.0.push(Arc::clone(roster));
            self.0.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests;
