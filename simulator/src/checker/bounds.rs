//! Invariant 12: what a server has open for its devices is bounded by how many they are.

use std::sync::Arc;

use fleetd_sync_core::limit;

use super::{Broken, Fact, Inspector, Scene};
use crate::fleet::SERVER;

/// Facts between two looks, at least: what grows without bound is seen all the same, a little later.
const FACTS_BETWEEN_LOOKS: u64 = 512;
/// Facts for each device between two looks: a look goes over the whole fleet, and may cost no more than the facts did.
const FACTS_PER_DEVICE: u64 = 8;
/// Events that may wait for each node at once: for each of its actors one timer and one question whether it may rest, its
/// frames on the way, and inputs within an instant. A timer that was set anew is taken back and waits no more, so none of
/// it grows with time. One outbox may hold more frames than this before its connection is closed, and not all at once.
const EVENTS_PER_NODE_MAX: usize = 512;
/// Rollouts, besides those of devices, and the few actors of which there is one.
const OTHER_ACTORS_MAX: usize = 64;

/// Looks now and then.
#[derive(Debug, Default)]
pub(super) struct BoundsChecker {
    facts_since: u64,
}

impl BoundsChecker {
    fn look(scene: &Scene<'_>) -> Result<(), Broken> {
        let (fleet, server): (_, Arc<str>) = (scene.fleet, SERVER.into());
        let devices = fleet.devices.len();
        let unread = fleet.network.unread_max();
        if unread > limit::CONNECTION_CREDITS {
            return Broken::on(&server, format!("a connection has {unread} inputs that were not taken"));
        }
        let waiting = fleet.world.waiting();
        if waiting > EVENTS_PER_NODE_MAX * (devices + 1) {
            let (most, count) = fleet.world.waited_for_most().unwrap_or_default();
            let seen = format!("{waiting} events wait, for {devices} devices: {count} of them for {most}");
            return Broken::on(&server, seen);
        }
        if let Some(node) = fleet.server.node() {
            let loaded = [node.actors.devices.loaded(), node.actors.logs.loaded(), node.actors.rollouts.loaded()];
            let loaded: usize = loaded.iter().sum();
            if loaded > 3 * devices + OTHER_ACTORS_MAX {
                return Broken::on(&server, format!("{loaded} actors are loaded, for {devices} devices"));
            }
        }
        Ok(())
    }
}

impl Inspector for BoundsChecker {
    fn invariant(&self) -> u8 {
        12
    }

    fn name(&self) -> &'static str {
        "bounds"
    }

    fn learn(&mut self, scene: &Scene<'_>, _node: &Arc<str>, _fact: Fact<'_>) -> Result<(), Broken> {
        self.facts_since += 1;
        let devices = u64::try_from(scene.fleet.devices.len()).unwrap_or(u64::MAX);
        if self.facts_since < devices.saturating_mul(FACTS_PER_DEVICE).max(FACTS_BETWEEN_LOOKS) {
            return Ok(());
        }
        self.facts_since = 0;
        Self::look(scene)
    }

    fn conclude(&mut self, scene: &Scene<'_>) -> Result<(), Broken> {
        Self::look(scene)
    }
}
