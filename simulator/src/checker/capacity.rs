//! Invariant 6, of how many are at work at once: whoever begins finds a place free. Places are counted by what the server has
//! stored of every device, one by one, and not by the queue of the rollout machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_actors::rollout::status::{DeviceProgress, DeviceStatus, Owed};
use fleetd_sync_core::id::{LocalId, RolloutId};

use super::ledger::{NodeLedger, Part};
use super::{Broken, Fact, Inspector, Scene};
use crate::fleet::SERVER;

/// Counts places when somebody takes one. Only devices of which something was stored since are looked at again.
#[derive(Debug, Default)]
pub(super) struct CapacityChecker {
    /// The devices of each rollout with a bound that have a place, each with its site.
    at_work: BTreeMap<RolloutId, BTreeMap<LocalId, String>>,
    /// Devices that took a place in the turn that is under way, with whether the rollout gave it to them.
    taken: BTreeMap<(RolloutId, LocalId), bool>,
}

impl CapacityChecker {
    /// Notes whether a device has a place; says whether it took it now.
    fn note(&mut self, held: &NodeLedger, rollout: RolloutId, device: LocalId, progress: &DeviceProgress) -> bool {
        let plan = held.plan_of(rollout).filter(|plan| plan.strategy.is_capped());
        let Some(plan) = plan else { return false };
        let places = self.at_work.entry(rollout).or_default();
        if !has_place(progress) {
            places.remove(&device);
            return false;
        }
        if places.contains_key(&device) {
            return false;
        }
        let site = plan.devices.iter().find(|planned| planned.local == device).map(|planned| planned.site.clone());
        places.insert(device, site.unwrap_or_default());
        true
    }

    /// Counts anew from what is stored.
    fn recount(&mut self, held: &NodeLedger) {
        (self.at_work, self.taken) = (BTreeMap::new(), BTreeMap::new());
        for ((rollout, device), progress) in &held.progress {
            self.note(held, *rollout, *device, progress);
        }
    }

    fn check(&self, scene: &Scene<'_>, node: &Arc<str>, rollout: RolloutId, begun: usize) -> Result<(), Broken> {
        let plan = scene.ledger.node(SERVER).and_then(|held| held.plan_of(rollout));
        let (Some(plan), Some(at_work)) = (plan, self.at_work.get(&rollout)) else { return Ok(()) };
        let bound = |max: Option<u32>| max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let (all, of_site) = (bound(plan.strategy.unavailable_max), bound(plan.strategy.unavailable_per_site_max));
        scene.marks.reach("a device began as one of a bounded number");
        if at_work.len() > all {
            let seen = format!("{rollout} let {begun} begin, and {} are at work; {all} may be", at_work.len());
            return Broken::on(node, seen);
        }
        let mut sites: BTreeMap<&str, usize> = BTreeMap::new();
        for site in at_work.values() {
            *sites.entry(site.as_str()).or_default() += 1;
        }
        match sites.into_iter().find(|(_, count)| *count > of_site) {
            Some((site, count)) => {
                let seen =
                    format!("{rollout} let {begun} begin, and {count} of `{site}` are at work; {of_site} may be");
                Broken::on(node, seen)
            }
            None => Ok(()),
        }
    }
}

/// Says whether a device has the assignment, or may have it, and has not ended.
fn has_place(progress: &DeviceProgress) -> bool {
    match progress.status {
        DeviceStatus::Pending => progress.owed != Owed::Nothing || progress.is_held,
        DeviceStatus::Assigned | DeviceStatus::Acknowledged | DeviceStatus::Installing(_) | DeviceStatus::Waits(_) => {
            true
        }
        DeviceStatus::Skipped(_) => progress.is_held,
        DeviceStatus::Healthy | DeviceStatus::Unchanged | DeviceStatus::Restored(_) | DeviceStatus::Failed(_) => false,
    }
}

impl Inspector for CapacityChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "capacity"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        if &**node != SERVER {
            return Ok(());
        }
        match fact {
            Fact::Stored(Part::Progress { rollout, device, progress }) => {
                let held = scene.ledger.node(SERVER);
                if held.is_some_and(|held| self.note(held, *rollout, *device, progress)) {
                    self.taken.insert((*rollout, *device), progress.status == DeviceStatus::Pending);
                }
                Ok(())
            }
            Fact::Settled(_) => {
                let mut rollouts: BTreeMap<RolloutId, (usize, bool)> = BTreeMap::new();
                for ((rollout, _), is_given) in std::mem::take(&mut self.taken) {
                    let (begun, are_given) = rollouts.entry(rollout).or_insert((0, true));
                    (*begun, *are_given) = (*begun + 1, *are_given && is_given);
                }
                // Whoever comes back with an assignment that was taken for lost has a place without one being free.
                let given = rollouts.into_iter().filter(|(_, (_, are_given))| *are_given);
                let mut begun = given.map(|(rollout, (begun, _))| (rollout, begun));
                begun.try_for_each(|(rollout, begun)| self.check(scene, node, rollout, begun))
            }
            Fact::Opened => {
                scene.ledger.node(SERVER).into_iter().for_each(|held| self.recount(held));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
