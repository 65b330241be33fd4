//! Invariant 6, of how many are at work at once: whoever begins finds a place free. Places are counted by what the server has
//! stored of every device, one by one, and not by the queue of the rollout machine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_actors::rollout::plan::Plan;
use fleetd_actors::rollout::status::{DeviceProgress, DeviceStatus, Owed};
use fleetd_sync_core::id::{LocalId, RolloutId};

use super::ledger::{NodeLedger, Part};
use super::{Broken, Fact, Inspector, Scene};
use crate::fleet::SERVER;

/// Counts places when somebody takes one.
#[derive(Debug, Default)]
pub(super) struct CapacityChecker {
    /// Devices that took a place in the turn that is under way, with whether the rollout gave it to them.
    taken: BTreeMap<(RolloutId, LocalId), bool>,
}

impl CapacityChecker {
    fn on_progress(&mut self, scene: &Scene<'_>, rollout: RolloutId, device: LocalId, after: &DeviceProgress) {
        let held = scene.ledger.node(SERVER);
        let is_bounded = held.and_then(|held| plan_of(held, rollout)).is_some_and(|plan| plan.strategy.is_capped());
        let before = held.and_then(|held| held.progress.get(&(rollout, device)));
        if is_bounded && !before.is_some_and(|before| has_place(before)) && has_place(after) {
            self.taken.insert((rollout, device), after.status == DeviceStatus::Pending);
        }
    }

    fn check(scene: &Scene<'_>, node: &Arc<str>, rollout: RolloutId, begun: usize) -> Result<(), Broken> {
        let Some(held) = scene.ledger.node(SERVER) else { return Ok(()) };
        let Some(plan) = plan_of(held, rollout) else { return Ok(()) };
        let places = held.progress.range((rollout, LocalId::from_bytes([0; LocalId::LENGTH]))..);
        let at_work: BTreeSet<_> = places
            .take_while(|((of, _), _)| *of == rollout)
            .filter(|(_, progress)| has_place(progress))
            .map(|((_, device), _)| *device)
            .collect();
        let bound = |max: Option<u32>| max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let (all, of_site) = (bound(plan.strategy.unavailable_max), bound(plan.strategy.unavailable_per_site_max));
        scene.marks.reach("a device began as one of a bounded number");
        if at_work.len() > all {
            let seen = format!("{rollout} let {begun} begin, and {} are at work; {all} may be", at_work.len());
            return Broken::on(node, seen);
        }
        let mut sites: BTreeMap<&str, usize> = BTreeMap::new();
        for device in plan.assigned().filter(|device| at_work.contains(&device.local)) {
            *sites.entry(device.site.as_str()).or_default() += 1;
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

fn plan_of(held: &NodeLedger, rollout: RolloutId) -> Option<&Arc<Plan>> {
    held.plans.get(&held.rollouts.get(&rollout)?.plan)
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
                self.on_progress(scene, *rollout, *device, progress);
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
                begun.try_for_each(|(rollout, begun)| Self::check(scene, node, rollout, begun))
            }
            Fact::Opened => {
                self.taken.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
