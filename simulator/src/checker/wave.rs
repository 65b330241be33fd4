//! Invariant 6, of waves: a naive model of gates. It recounts at each turn what the server has stored of every device, and
//! knows nothing of the counters, timers and queues by which the rollout machine decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::rollout::plan::Plan;
use fleetd_actors::rollout::status::{DeviceProgress, DeviceStatus, RolloutHeader, RolloutPhase, Skip, Stage};
use fleetd_actors::workload::WorkloadRecord;
use fleetd_sync_core::id::{LocalId, RolloutId};
use fleetd_sync_core::time::Monotonic;

use super::ledger::{NodeLedger, Part};
use super::{Broken, Fact, Inspector, Scene};
use crate::fleet::SERVER;

/// A bake that is stored so much late has begun in time: commits take a while.
const BAKE_SLACK: Duration = Duration::from_secs(5);

/// Recounts what rollouts may do.
#[derive(Debug, Default)]
pub(super) struct WaveChecker {
    /// Rollouts of which something was stored in the turn that is under way, with how they stood before.
    touched: BTreeMap<RolloutId, Option<Arc<RolloutHeader>>>,
    /// Devices whose progress was stored in it.
    moved: BTreeSet<(RolloutId, LocalId)>,
    /// Since when a wave bakes.
    baking: BTreeMap<(RolloutId, u32), Monotonic>,
}

/// What is stored of the devices whose waves have begun, counted one by one.
#[derive(Debug, Default)]
struct Recount {
    failed: usize,
    /// Those that were reached for certain, and those that may have been.
    reached_min: usize,
    reached_max: usize,
    /// Those of the newest wave that are at work.
    at_work: usize,
}

impl Recount {
    fn of(held: &NodeLedger, header: &RolloutHeader, plan: &Plan, newest: u32) -> Self {
        let mut recount = Self::default();
        for device in plan.assigned() {
            let Some(place) = device.place.filter(|place| header.has_begun(place.wave)) else { continue };
            let status = held.progress.get(&(header.rollout, device.local)).map(|progress| &progress.status);
            recount.reached_max += 1;
            match status {
                None | Some(DeviceStatus::Pending | DeviceStatus::Assigned | DeviceStatus::Skipped(_)) => {}
                Some(_) => recount.reached_min += 1,
            }
            match status {
                Some(DeviceStatus::Restored(_) | DeviceStatus::Failed(_)) => recount.failed += 1,
                Some(DeviceStatus::Acknowledged | DeviceStatus::Installing(_)) if place.wave == newest => {
                    recount.at_work += 1;
                }
                _ => {}
            }
        }
        recount.failed = recount.failed.saturating_sub(usize::try_from(header.failures_accepted).unwrap_or(usize::MAX));
        recount
    }
}

impl WaveChecker {
    fn check(
        &mut self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        rollout: RolloutId,
        before: Option<&RolloutHeader>,
    ) -> Result<(), Broken> {
        let Some(held) = scene.ledger.node(node) else { return Ok(()) };
        let Some(header) = held.rollouts.get(&rollout) else { return Ok(()) };
        let Some(plan) = held.plans.get(&header.plan) else { return Ok(()) };
        let newest = before.map_or(0, |before| before.wave.number);
        let recount = Recount::of(held, header, plan, newest);
        let budget = &plan.strategy.budget;
        let is_going = matches!(header.phase, RolloutPhase::Running | RolloutPhase::Paused);
        if is_going && recount.failed > budget.allowed(recount.reached_max) {
            let seen = format!("{rollout} goes on with {} failed devices; its budget is {budget}", recount.failed);
            return Broken::on(node, seen);
        }
        let has_halted =
            header.phase == RolloutPhase::Halted && before.is_some_and(|before| before.phase != header.phase);
        if has_halted && recount.failed <= budget.allowed(recount.reached_min) {
            let seen = format!("{rollout} halted with {} failed devices; its budget is {budget}", recount.failed);
            return Broken::on(node, seen);
        }
        match before {
            Some(before) => self.check_gate(scene, node, (before, header), plan, &recount),
            None => Ok(()),
        }
    }

    /// Checks what was waited for before a wave passed its gate.
    fn check_gate(
        &mut self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        (before, header): (&RolloutHeader, &RolloutHeader),
        plan: &Plan,
        recount: &Recount,
    ) -> Result<(), Broken> {
        let (rollout, now, newest) = (header.rollout, scene.fleet.world.monotonic(), before.wave.number);
        if header.wave.number > newest + 1 {
            return Broken::on(node, format!("{rollout} began wave {} after wave {}", header.wave.number, newest));
        }
        let has_passed = header.wave.number > newest;
        let has_ended = has_passed || header.wave.stage != Stage::Rolling;
        if before.wave.stage == Stage::Rolling && has_ended && recount.at_work > 0 {
            let seen = format!("{rollout} took wave {newest} for done with {} devices at work", recount.at_work);
            return Broken::on(node, seen);
        }
        if header.wave.stage == Stage::Baking {
            self.baking.entry((rollout, header.wave.number)).or_insert(now);
        }
        if has_passed && !plan.strategy.bake.is_zero() {
            let baked = self.baking.get(&(rollout, newest)).map(|since| now.since(*since));
            if baked.is_none_or(|baked| baked + BAKE_SLACK < plan.strategy.bake) {
                return Broken::on(
                    node,
                    format!("{rollout} began wave {} after a bake of {baked:?}", header.wave.number),
                );
            }
        }
        if has_passed && before.phase.is_stopped() && header.phase.is_stopped() {
            return Broken::on(node, format!("{rollout} began a wave while it was {}", header.phase));
        }
        Ok(())
    }

    /// Checks that a device has the assignment only if its turn has come, and gets none in a stop.
    fn check_device(scene: &Scene<'_>, node: &Arc<str>, rollout: RolloutId, device: LocalId) -> Result<(), Broken> {
        let Some(held) = scene.ledger.node(node) else { return Ok(()) };
        let (Some(header), Some(progress)) = (held.rollouts.get(&rollout), held.progress.get(&(rollout, device)))
        else {
            return Ok(());
        };
        let Some(plan) = held.plans.get(&header.plan) else { return Ok(()) };
        let place = plan.devices.iter().find(|planned| planned.local == device).and_then(|planned| planned.place);
        let name = scene.ledger.name(device).map_or("somebody", |name| name);
        if place.is_some_and(|place| !header.has_begun(place.wave)) && has_begun(progress) {
            let seen = format!("{rollout} calls {name} {}, and its wave has not begun", progress.status);
            return Broken::on(node, seen);
        }
        if header.phase.is_stopped() && progress.status == DeviceStatus::Assigned && !progress.is_held {
            return Broken::on(node, format!("{rollout} is {}, and {name} is assigned and not held", header.phase));
        }
        Ok(())
    }

    /// Checks that a device is given each try once, however often it is told.
    fn check_try(scene: &Scene<'_>, node: &Arc<str>, record: &WorkloadRecord) -> Result<(), Broken> {
        let Some(held) = scene.ledger.node(SERVER) else { return Ok(()) };
        let Some(target) = record.install.as_ref().map(|install| &install.target) else { return Ok(()) };
        let plan = target.rollout.and_then(|rollout| held.plans.get(&held.rollouts.get(&rollout)?.plan));
        match plan {
            Some(plan) if plan.attempt != target.attempt => {
                let seen =
                    format!("it is given try {} of {}; the plan has {}", target.attempt, target.version, plan.attempt);
                Broken::on(node, seen)
            }
            _ => Ok(()),
        }
    }
}

/// Says whether a device was given the assignment.
fn has_begun(progress: &DeviceProgress) -> bool {
    match &progress.status {
        DeviceStatus::Pending | DeviceStatus::Unchanged => false,
        DeviceStatus::Skipped(skip) => *skip == Skip::AbortedAtWork,
        _ => true,
    }
}

impl Inspector for WaveChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "waves"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Stored(Part::Workload { record, .. }) => Self::check_try(scene, node, record),
            Fact::Stored(Part::Rollout { header }) => {
                let before = scene.ledger.node(node).and_then(|held| held.rollouts.get(&header.rollout)).cloned();
                self.touched.entry(header.rollout).or_insert(before);
                Ok(())
            }
            Fact::Stored(Part::Progress { rollout, device, .. }) => {
                let before = scene.ledger.node(node).and_then(|held| held.rollouts.get(rollout)).cloned();
                self.touched.entry(*rollout).or_insert(before);
                self.moved.insert((*rollout, *device));
                Ok(())
            }
            Fact::Settled(_) if &**node == SERVER => {
                let (touched, moved) = (std::mem::take(&mut self.touched), std::mem::take(&mut self.moved));
                for (rollout, before) in touched {
                    self.check(scene, node, rollout, before.as_deref())?;
                }
                moved.into_iter().try_for_each(|(rollout, device)| Self::check_device(scene, node, rollout, device))
            }
            // What a setback takes back is decided anew.
            Fact::Opened if &**node == SERVER => {
                self.touched.clear();
                self.moved.clear();
                let held = scene.ledger.node(node);
                let baking = held.into_iter().flat_map(|held| held.rollouts.values());
                let baking = baking.filter(|header| header.wave.stage == Stage::Baking);
                for header in baking {
                    self.baking.entry((header.rollout, header.wave.number)).or_insert(Monotonic(0));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
