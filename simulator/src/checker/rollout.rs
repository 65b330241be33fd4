//! Invariant 6: a rollout that failed on more devices than it may is no success, and success is a device's own word.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_actors::rollout::status::{DeviceStatus, RolloutPhase};
use fleetd_sync_core::id::{ArtifactDigest, LocalId, RolloutId};

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene};
use crate::observation::Observation;

/// Knows what proved itself where, and counts what rollouts say.
#[derive(Debug, Default)]
pub(super) struct RolloutChecker {
    healthy: BTreeSet<(LocalId, ArtifactDigest)>,
    ended: Vec<RolloutId>,
    /// Devices whose key somebody else holds, too: the word may be the thief's.
    cloned: BTreeSet<LocalId>,
}

impl RolloutChecker {
    fn on_ended(scene: &Scene<'_>, node: &Arc<str>, rollout: RolloutId) -> Result<(), Broken> {
        let Some(held) = scene.ledger.node(node) else { return Ok(()) };
        let Some(header) = held.rollouts.get(&rollout) else { return Ok(()) };
        let Some(plan) = held.plans.get(&header.plan) else { return Ok(()) };
        if header.phase != RolloutPhase::Succeeded {
            return Ok(());
        }
        let of_rollout = held.progress.range((rollout, LocalId::from_bytes([0; LocalId::LENGTH]))..);
        let of_rollout = of_rollout.take_while(|((of, _), _)| *of == rollout);
        let is_failed = |status: &DeviceStatus| matches!(status, DeviceStatus::Restored(_) | DeviceStatus::Failed(_));
        let failed = of_rollout.filter(|(_, progress)| is_failed(&progress.status)).count();
        let failed = failed.saturating_sub(usize::try_from(header.failures_accepted).unwrap_or(usize::MAX));
        let may = plan.strategy.budget.allowed(plan.assigned().count());
        if failed > may {
            let seen = format!("{rollout} succeeded with {failed} failed devices; {may} may fail");
            return Broken::on(node, seen);
        }
        Ok(())
    }

    fn on_progress(
        &self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        rollout: RolloutId,
        device: LocalId,
    ) -> Result<(), Broken> {
        let held = scene.ledger.node(node);
        let plan = held.and_then(|held| held.plan_of(rollout));
        let Some(plan) = plan else { return Ok(()) };
        if self.cloned.contains(&device) || self.healthy.contains(&(device, plan.release.digest())) {
            return Ok(());
        }
        let name = scene.ledger.name(device).map_or("somebody", |name| name);
        Broken::on(node, format!("{rollout} calls {name} healthy, where that release never proved itself"))
    }

    fn note_healthy(&mut self, scene: &Scene<'_>, node: &Arc<str>) {
        let (Some(held), Some(local)) = (scene.ledger.node(node), scene.ledger.local(node)) else { return };
        for current in held.workloads.values().filter_map(|record| record.current.as_ref()) {
            if current.healthy {
                self.healthy.insert((local, current.digest));
            }
        }
    }
}

impl Inspector for RolloutChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "rollout"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Stored(Part::Workload { record, .. }) => {
                if let Some(current) = record.current.as_ref().filter(|current| current.healthy)
                    && let Some(local) = scene.ledger.local(node)
                {
                    self.healthy.insert((local, current.digest));
                }
                Ok(())
            }
            Fact::Stored(Part::Rollout { header }) => {
                // Who was away when it ended follows later, and may fail then.
                let before = scene.ledger.node(node).and_then(|held| held.rollouts.get(&header.rollout));
                if before.is_none_or(|before| !before.phase.is_ended()) {
                    self.ended.push(header.rollout);
                }
                Ok(())
            }
            Fact::Stored(Part::Progress { rollout, device, progress }) if progress.status == DeviceStatus::Healthy => {
                self.on_progress(scene, node, *rollout, *device)
            }
            Fact::Settled(_) => {
                let ended = std::mem::take(&mut self.ended);
                ended.into_iter().try_for_each(|rollout| Self::on_ended(scene, node, rollout))
            }
            Fact::Seen(Observation::Cloned { node }) => {
                self.cloned.extend(scene.ledger.local(node));
                Ok(())
            }
            Fact::Opened => {
                self.note_healthy(scene, node);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
