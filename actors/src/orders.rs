//! What stands over the whole fleet until somebody takes it back: stops, and releases that nobody gets.
//!
//! A stop is a hold with an id over every device, those included that are away, and those that join later. A denial
//! keeps one release from whoever does not have it. Neither is written for each device: both are rows of their own, and
//! a server adds the holds that follow from them to what it asks of a device whenever it writes that device's lane.
//! Whoever is connected is told at once, and everybody else when it is next heard. So an order costs one change for
//! each connected device, and nothing for the others.

mod book;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fleetd_sync_core::id::{ArtifactDigest, HoldId};
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_core::time::Wall;

pub use book::{Effect, Input, OrderBook, OrderError, Record};

/// A stop of the whole fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetStop {
    /// Its hold, by which it is lifted.
    pub hold: HoldId,
    /// Why, for people.
    pub reason: String,
    /// Who placed it.
    pub created_by: String,
    /// When.
    pub created_at: Wall,
}

/// A release that nobody gets who does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The hold of those that are assigned it all the same.
    pub hold: HoldId,
    /// The digest of the signed manifest.
    pub manifest: ArtifactDigest,
    /// The workload.
    pub workload: WorkloadName,
    /// The version.
    pub version: Version,
    /// Why, for people.
    pub reason: String,
    /// Who denied it.
    pub created_by: String,
    /// When.
    pub created_at: Wall,
}

/// All that stands over the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The stops, by their holds.
    pub stops: BTreeMap<HoldId, FleetStop>,
    /// The denied releases, by their manifests.
    pub denials: BTreeMap<ArtifactDigest, Denial>,
}

/// What keeps a rollout from going on, whoever resumes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standstill {
    /// The order's hold.
    pub hold: HoldId,
    /// Why, for people.
    pub reason: String,
    /// The command that takes it back.
    pub lift: String,
}

impl FleetStop {
    /// Says that it stands, and why.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("the whole fleet is stopped{}", colon(&self.reason))
    }

    /// The command that ends it.
    #[must_use]
    pub fn lift(&self) -> String {
        format!("fleetd rollout stop --lift {}", self.hold)
    }
}

impl Denial {
    /// The release, as people write it.
    #[must_use]
    pub fn release(&self) -> String {
        format!("{}@{}", self.workload, self.version)
    }

    /// Says that it stands, and why.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("{} is denied{}", self.release(), colon(&self.reason))
    }

    /// The command that ends it.
    #[must_use]
    pub fn lift(&self) -> String {
        format!("fleetd release allow {}", self.release())
    }
}

fn colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

impl Orders {
    /// Says whether nothing stands.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty() && self.denials.is_empty()
    }

    /// What keeps a rollout of a release from going on: the oldest stop, or else the release's denial.
    #[must_use]
    pub fn standstill(&self, manifest: ArtifactDigest) -> Option<Standstill> {
        if let Some(stop) = self.oldest_stop() {
            return Some(Standstill { hold: stop.hold, reason: stop.reason(), lift: stop.lift() });
        }
        let denial = self.denials.get(&manifest)?;
        Some(Standstill { hold: denial.hold, reason: denial.reason(), lift: denial.lift() })
    }

    /// The stop that was placed first.
    #[must_use]
    pub fn oldest_stop(&self) -> Option<&FleetStop> {
        self.stops.values().min_by_key(|stop| (stop.created_at, stop.hold))
    }

    /// Says whether a hold is one of these orders'.
    #[must_use]
    pub fn has_hold(&self, hold: HoldId) -> bool {
        self.stops.contains_key(&hold) || self.denials.values().any(|denial| denial.hold == hold)
    }
}
