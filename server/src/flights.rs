//! The flight recorders of the server: one for each of the last rollouts, which outlives its actor.
//!
//! Of the server's machines only rollouts are recorded. What a device's actor and the authority decide is signed with
//! the server's key, and what the registration hears are tokens: neither may leave the server in a file. What came of
//! all of that for a rollout stands in what the rollout was told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_sync_core::id::RolloutId;

use crate::record::rollout_flight::{RolloutFlight, RolloutRecorder};

/// Rollouts that are recorded at once: those of which somebody asks. One of 20,000 devices has about 10 MB.
const ROLLOUTS_MAX: usize = 4;

/// The flight recorders of the server.
#[derive(Debug, Default)]
pub struct Flights {
    recorders: Mutex<VecDeque<(RolloutId, Arc<RolloutRecorder>)>>,
}

impl Flights {
    /// The recorder of a rollout that is loaded. The one that was loaded longest ago makes room for it.
    #[must_use]
    pub fn of(&self, rollout: RolloutId) -> Arc<RolloutRecorder> {
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recorders.iter().position(|(known, _)| *known == rollout);
        let (_, recorder) = known
            .and_then(|place| recorders.remove(place))
            .unwrap_or_else(|| (rollout, Arc::new(RolloutRecorder::default())));
        if recorders.len() >= ROLLOUTS_MAX {
            recorders.pop_front();
        }
        recorders.push_back((rollout, Arc::clone(&recorder)));
        recorder
    }

    /// What has been recorded of each rollout, the one that was loaded last at the end.
    #[must_use]
    pub fn recordings(&self) -> Vec<RolloutFlight> {
        let recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let flight = |(rollout, recorder): (RolloutId, Arc<RolloutRecorder>)| RolloutFlight {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rollout,
            legs: recorder.legs(),
        };
        recorders.into_iter().map(flight).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollouts_that_were_loaded_last_are_recorded() {
        let flights = Flights::default();
        let rollout = |number: u8| RolloutId::from_bytes([number; 10]);
        let first = flights.of(rollout(0));
        for number in 1..=4 {
            let _recorder = flights.of(rollout(number));
        }
        assert!(!Arc::ptr_eq(&first, &flights.of(rollout(0))));
        let second = flights.of(rollout(2));
        assert!(Arc::ptr_eq(&second, &flights.of(rollout(2))));
        let kept: Vec<_> = flights.recordings().into_iter().map(|flight| flight.rollout).collect();
        assert_eq!(kept, [3, 4, 0, 2].map(rollout));
    }
}
