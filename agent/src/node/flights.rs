//! The flight recorders of a node: one for each workload, which outlives its actor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_sync_core::name::{Platform, WorkloadName};

use crate::record::{WorkloadFlight, WorkloadRecorder};

/// The flight recorders of a node.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    recorders: Mutex<BTreeMap<WorkloadName, Arc<WorkloadRecorder>>>,
}

impl Flights {
    /// The recorder of a workload.
    pub(crate) fn of(&self, workload: &WorkloadName) -> Arc<WorkloadRecorder> {
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(recorders.entry(workload.clone()).or_default())
    }

    /// What has been recorded of each workload.
    pub(crate) fn recordings(&self, platform: &Platform) -> Vec<WorkloadFlight> {
        let recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let flight = |(workload, recorder): (WorkloadName, Arc<WorkloadRecorder>)| WorkloadFlight {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            workload,
            platform: platform.clone(),
            legs: recorder.legs(),
        };
        recorders.into_iter().map(flight).collect()
    }
}
