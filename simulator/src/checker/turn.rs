//! Invariant 6, of several workloads on one device: they switch one after the other, each when the one before it has proven
//! itself or is back.

use std::sync::Arc;

use fleetd_actors::workload::{Install, Removal, Step, Verdict, WorkloadRecord};
use fleetd_sync_core::name::WorkloadName;

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene};

/// Looks at whoever switches.
#[derive(Debug)]
pub(super) struct TurnChecker;

impl TurnChecker {
    fn on_submitted(
        scene: &Scene<'_>,
        node: &Arc<str>,
        workload: &WorkloadName,
        after: &WorkloadRecord,
    ) -> Result<(), Broken> {
        let switches = scene.begins_to_switch(node, workload, after).is_some();
        let Some(held) = scene.ledger.node(node).filter(|_| switches) else { return Ok(()) };
        let mut others = held.workloads.iter().filter(|(other, _)| *other != workload);
        if let Some((other, _)) = others.clone().find(|(_, record)| is_unproven(record)) {
            return Broken::on(node, format!("it switches {workload}, and {other} has not proven itself yet"));
        }
        if others.any(|(_, record)| matches!(step_of(record), Some(Step::Wait(_)))) {
            scene.marks.reach("a workload switched before another of its device");
        }
        Ok(())
    }
}

fn step_of(record: &WorkloadRecord) -> Option<&Step> {
    record.install.as_ref().map(|install: &Install| &install.step)
}

/// Says whether a workload is between two releases, and goes on with that: who is stopped is in nobody's way.
fn is_unproven(record: &WorkloadRecord) -> bool {
    let is_stopped = record.stopped_locally || record.stopped_remotely || record.removal != Removal::None;
    let must_stop = record.current.as_ref().is_none_or(|current| current.verdict == Verdict::MustStop);
    match step_of(record) {
        Some(Step::Switch(_) | Step::Restore { .. }) => true,
        Some(Step::Watch { .. }) => !is_stopped && !must_stop,
        _ => false,
    }
}

impl Inspector for TurnChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "turns"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Submitted(Part::Workload { workload, record }) => Self::on_submitted(scene, node, workload, record),
            _ => Ok(()),
        }
    }
}
