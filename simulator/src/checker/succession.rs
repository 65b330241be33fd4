//! Invariant 6, of several rollouts: what another rollout took over, or took back, never comes again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::{LocalId, RolloutId};
use fleetd_sync_core::name::WorkloadName;

use super::{Broken, Fact, Inspector, Scene};
use crate::fleet::SERVER;
use crate::observation::Observation;

/// Remembers whose turn it was with each workload of a device, in the lanes that the server wrote.
#[derive(Debug, Default)]
pub(super) struct SuccessionChecker {
    workloads: BTreeMap<(LocalId, WorkloadName), Turns>,
}

/// The rollouts that were at work on a workload of a device.
#[derive(Debug, Default)]
struct Turns {
    newest: Option<RolloutId>,
    over: BTreeSet<RolloutId>,
}

impl Inspector for SuccessionChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "succession"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        if &**node != SERVER {
            return Ok(());
        }
        let documents = match fact {
            Fact::Settled(documents) => documents,
            // What it had decided since is gone with it.
            Fact::Seen(Observation::Restored { .. }) => {
                self.workloads.clear();
                return Ok(());
            }
            _ => return Ok(()),
        };
        for document in documents {
            let DocumentId::Desired(device) = *document else { continue };
            let Some(word) = scene.words.of(node, device) else { continue };
            for (workload, wish) in &word.wishes.workloads {
                let Some(rollout) = wish.release.as_ref().and_then(|release| release.rollout) else { continue };
                let turns = self.workloads.entry((device, workload.clone())).or_default();
                if turns.over.contains(&rollout) {
                    let name = scene.ledger.name(device).map_or("somebody", |name| name);
                    let seen = format!("it gives {name} to {rollout} again, which another rollout took it from");
                    return Broken::on(node, seen);
                }
                if let Some(former) = turns.newest.replace(rollout).filter(|former| *former != rollout) {
                    turns.over.insert(former);
                    scene.marks.reach("a rollout took the place of another on a device");
                }
            }
        }
        Ok(())
    }
}
