//! Invariant 6, of waves: a naive model of gates. It counts what the server has stored of every device, and
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
use crate::observation::Observation;

/// A bake that is stored so much late has begun in time: commits take a while.
const BAKE_SLACK: Duration = Duration::from_secs(5);

/// Recounts what rollouts may do.
#[derive(Debug, Default)]
pub(super) struct WaveChecker {
    /// Rollouts of which something was stored in the turn that is under way, with how they stood before.
    touched: BTreeMap<RolloutId, Option<Arc<RolloutHeader>>>,
    /// Devices whose progress was stored in it.
    moved: BTreeSet<(RolloutId, LocalId)>,
    /// Where the devices of each rollout stand.
    tallies: BTreeMap<RolloutId, Tally>,
    /// The waves that somebody approved.
    approved: BTreeSet<(RolloutId, u32)>,
    /// Since when a wave bakes.
    baking: BTreeMap<(RolloutId, u32), Monotonic>,
}

/// How far a device of a wave has come, as far as gates care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It may have been reached, or not.
    Unknown,
    /// It was.
    Reached,
    /// It was, and is at work.
    AtWork,
    /// It was, and has failed.
    Failed,
}

impl Standing {
    const fn of(progress: Option<&DeviceProgress>) -> Self {
        let Some(progress) = progress else { return Self::Unknown };
        match &progress.status {
            DeviceStatus::Pending | DeviceStatus::Assigned | DeviceStatus::Skipped(_) => Self::Unknown,
            DeviceStatus::Restored(_) | DeviceStatus::Failed(_) => Self::Failed,
            DeviceStatus::Acknowledged | DeviceStatus::Installing(_) => Self::AtWork,
            DeviceStatus::Waits(_) | DeviceStatus::Healthy | DeviceStatus::Unchanged => Self::Reached,
        }
    }
}

/// Where each device of a rollout's waves stands, by what is stored of it. Only devices of which something was stored
/// since are looked at again: a fleet of ten thousand stores something in every turn.
#[derive(Debug, Default)]
struct Tally {
    waves: BTreeMap<LocalId, u32>,
    standing: BTreeMap<LocalId, Standing>,
    counts: BTreeMap<u32, WaveCount>,
}

/// The devices of one wave.
#[derive(Debug, Default)]
struct WaveCount {
    all: usize,
    reached: usize,
    at_work: usize,
    failed: usize,
}

impl Tally {
    fn of(held: &NodeLedger, rollout: RolloutId, plan: &Plan) -> Self {
        let mut tally = Self::default();
        for device in plan.assigned() {
            let Some(place) = device.place else { continue };
            tally.waves.insert(device.local, place.wave);
            tally.counts.entry(place.wave).or_default().all += 1;
            tally.look(held, rollout, device.local);
        }
        tally
    }

    /// Looks at one device again.
    fn look(&mut self, held: &NodeLedger, rollout: RolloutId, device: LocalId) {
        let Some(wave) = self.waves.get(&device) else { return };
        let count = self.counts.entry(*wave).or_default();
        let now = Standing::of(held.progress.get(&(rollout, device)).map(|progress| &**progress));
        let before = self.standing.insert(device, now).unwrap_or(Standing::Unknown);
        let is_reached = |standing| usize::from(standing != Standing::Unknown);
        count.reached = count.reached + is_reached(now) - is_reached(before);
        for (field, which) in [(&mut count.at_work, Standing::AtWork), (&mut count.failed, Standing::Failed)] {
            *field = *field + usize::from(now == which) - usize::from(before == which);
        }
    }
}

/// What is stored of the devices whose waves have begun.
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
    fn of(tally: &Tally, header: &RolloutHeader, newest: u32) -> Self {
        let mut recount = Self::default();
        for (wave, count) in tally.counts.iter().filter(|(wave, _)| header.has_begun(**wave)) {
            recount.failed += count.failed;
            recount.reached_min += count.reached;
            recount.reached_max += count.all;
            if *wave == newest {
                recount.at_work = count.at_work;
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
        let tally = self.tallies.entry(rollout).or_insert_with(|| Tally::of(held, rollout, plan));
        let moved = self.moved.range((rollout, LocalId::from_bytes([0; LocalId::LENGTH]))..);
        for (_, device) in moved.take_while(|(of, _)| *of == rollout) {
            tally.look(held, rollout, *device);
        }
        let recount = Recount::of(tally, header, newest);
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
        if has_passed && plan.strategy.approve_waves {
            if !self.approved.contains(&(rollout, header.wave.number)) {
                return Broken::on(node, format!("{rollout} began wave {} that nobody approved", header.wave.number));
            }
            scene.marks.reach("a wave began that somebody approved");
        }
        if has_passed && before.phase.is_stopped() && header.phase.is_stopped() {
            return Broken::on(node, format!("{rollout} began a wave while it was {}", header.phase));
        }
        Ok(())
    }

    /// Checks that a device has the assignment only if its turn has come, and gets none in a stop.
    fn check_device(
        &self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        rollout: RolloutId,
        device: LocalId,
    ) -> Result<(), Broken> {
        let Some(held) = scene.ledger.node(node) else { return Ok(()) };
        let (Some(header), Some(progress)) = (held.rollouts.get(&rollout), held.progress.get(&(rollout, device)))
        else {
            return Ok(());
        };
        let wave = self.tallies.get(&rollout).and_then(|tally| tally.waves.get(&device));
        let name = scene.ledger.name(device).map_or("somebody", |name| name);
        if wave.is_some_and(|wave| !header.has_begun(*wave)) && has_begun(progress) {
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
        let plan = target.rollout.and_then(|rollout| held.plan_of(rollout));
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
                let touched = std::mem::take(&mut self.touched);
                for (rollout, before) in touched {
                    self.check(scene, node, rollout, before.as_deref())?;
                }
                let mut moved = std::mem::take(&mut self.moved).into_iter();
                moved.try_for_each(|(rollout, device)| self.check_device(scene, node, rollout, device))
            }
            Fact::Seen(Observation::Approved { rollout, wave, .. }) => {
                self.approved.insert((*rollout, *wave));
                Ok(())
            }
            // What a setback takes back is decided anew.
            Fact::Opened if &**node == SERVER => {
                self.touched.clear();
                self.moved.clear();
                self.tallies.clear();
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
