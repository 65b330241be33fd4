//! Invariant 10: nothing is stopped or taken off a device that nobody asked for, whatever clocks and links do.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_actors::workload::{Install, Removal, Step, Verdict, WorkloadRecord};
use fleetd_sync_core::name::WorkloadName;

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene};
use crate::observation::Observation;

/// Knows where something has ever been healthy.
#[derive(Debug, Default)]
pub(super) struct AbsenceChecker {
    healthy: BTreeSet<(Arc<str>, WorkloadName)>,
}

impl AbsenceChecker {
    fn on_stored(
        &mut self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        workload: &WorkloadName,
        record: &WorkloadRecord,
    ) -> Result<(), Broken> {
        let place = (Arc::clone(node), workload.clone());
        let Some(current) = &record.current else {
            let was_there = self.healthy.contains(&place);
            if was_there && !may_go(scene, node, workload, record) {
                return Broken::on(node, format!("{workload} is gone, and nobody asked for that"));
            }
            return Ok(());
        };
        if current.healthy {
            self.healthy.insert(place);
        }
        if record.removal != Removal::None && !may_go(scene, node, workload, record) {
            return Broken::on(node, format!("{workload} is being removed, and nobody asked for that"));
        }
        Ok(())
    }

    fn on_stopped(scene: &Scene<'_>, node: &Arc<str>, workload: &WorkloadName) -> Result<(), Broken> {
        let record = scene.ledger.node(node).and_then(|held| held.workloads.get(workload));
        let Some(record) = record else { return Ok(()) };
        let current = record.current.as_ref();
        let (runs, wanted) = (record.run.as_ref().and_then(|run| run.manifest), current.map(|current| current.digest));
        // What nobody remembers, after a store was set back, is ended before another is started.
        let is_other = runs != wanted || runs.is_none();
        let is_restoring = matches!(record.install, Some(Install { step: Step::Restore { .. }, .. }));
        let must_stop = current.is_some_and(|current| current.verdict == Verdict::MustStop);
        let is_asked = record.stopped_locally || record.stopped_remotely || record.removal != Removal::None;
        let word = scene.ledger.local(node).and_then(|device| scene.words.of(node, device));
        let is_wished = word.is_some_and(|word| word.stopped_ever.contains(workload));
        if is_other || is_restoring || must_stop || is_asked || is_wished {
            return Ok(());
        }
        Broken::on(node, format!("it stops {workload}, and nobody asked for that"))
    }
}

/// Whether somebody asked for a workload to go, or what ran must not be restored.
fn may_go(scene: &Scene<'_>, node: &Arc<str>, workload: &WorkloadName, record: &WorkloadRecord) -> bool {
    let word = scene.ledger.local(node).and_then(|device| scene.words.of(node, device));
    let is_asked = word.is_some_and(|word| word.removed_ever.contains(workload));
    let before = scene.ledger.node(node).and_then(|held| held.workloads.get(workload));
    let previous = before.and_then(|before| before.previous.as_ref()).or(record.previous.as_ref());
    is_asked || previous.is_some_and(|previous| previous.verdict != Verdict::Good)
}

impl Inspector for AbsenceChecker {
    fn invariant(&self) -> u8 {
        10
    }

    fn name(&self) -> &'static str {
        "absence"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Stored(Part::Workload { workload, record }) => self.on_stored(scene, node, workload, record),
            // What was installed since is gone with the store, or with the disk.
            Fact::Seen(Observation::Restored { .. }) => {
                self.healthy.retain(|(healthy, _)| healthy != node);
                Ok(())
            }
            Fact::Seen(Observation::Stopped { workload, .. }) => Self::on_stopped(scene, node, workload),
            _ => Ok(()),
        }
    }
}
