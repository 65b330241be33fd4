//! Invariants 5 and 6: what was begun ends healthy, restored or taken back; and a hold lets nothing in.

use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::workload::{Install, Release, Removal, Step, Verdict, WorkloadRecord};
use fleetd_sync_core::name::WorkloadName;

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene};

/// Time until a workload has heard of a hold that its agent knows: that is at once, but for actors that failed and
/// wait to be loaded again.
const HEARD_WITHIN: Duration = Duration::from_secs(15);

/// Looks at each change of what a device remembers of a workload.
#[derive(Debug)]
pub(super) struct InstallChecker;

impl InstallChecker {
    /// A hold that came before the switch undoes the install.
    fn on_submitted(
        scene: &Scene<'_>,
        node: &Arc<str>,
        workload: &WorkloadName,
        after: &WorkloadRecord,
    ) -> Result<(), Broken> {
        if scene.begins_to_switch(node, workload, after).is_none() {
            return Ok(());
        }
        let word = scene.ledger.local(node).and_then(|device| scene.words.of(node, device));
        let held_since = word.and_then(|word| word.held_since(workload));
        if held_since.is_some_and(|since| scene.at.since(since) > HEARD_WITHIN) {
            return Broken::on(node, format!("it switches {workload} to another release, and is held"));
        }
        Ok(())
    }

    fn on_stored(node: &Arc<str>, workload: &WorkloadName, change: [&WorkloadRecord; 2]) -> Result<(), Broken> {
        let [before, after] = change;
        let Some(Install { target, step }) = &before.install else { return Ok(()) };
        let goes_on = after.install.as_ref().is_some_and(|install| install.target.digest() == target.digest());
        let is_removed = after.removal != Removal::None;
        let wrong = match (step, &after.install) {
            _ if is_removed => None,
            (Step::Watch { .. }, Some(Install { step: Step::Restore { .. }, .. })) => {
                let kept = before.previous.as_ref().is_some_and(|previous| previous.healthy);
                (!kept).then_some("goes back to a release that never proved itself")
            }
            _ if goes_on => None,
            (
                Step::Pending | Step::Download(_) | Step::Verify(_) | Step::Stage(_) | Step::Wait(_) | Step::Switch(_),
                _,
            ) => (digest(&before.current) != digest(&after.current)).then_some("changed what runs without a switch"),
            (Step::Watch { .. }, _) => ended_watch(before, after),
            (Step::Restore { .. }, _) => ended_restore(before, after),
        };
        match wrong {
            Some(wrong) => Broken::on(node, format!("the install of {workload} {} {wrong}", target.version)),
            None => Ok(()),
        }
    }
}

fn ended_watch(before: &WorkloadRecord, after: &WorkloadRecord) -> Option<&'static str> {
    let is_same = digest(&before.current) == digest(&after.current);
    let is_healthy = after.current.as_ref().is_some_and(|current| current.healthy);
    let was_put_off = after.stopped_locally || after.stopped_remotely || after.install.is_some();
    let is_failed = after.failed.as_ref().is_some_and(|failed| Some(failed.manifest) == digest(&before.current));
    match (&after.current, is_same) {
        (Some(_), true) if is_healthy || was_put_off => None,
        (None, _) if is_failed && !can_restore(before) => None,
        (None, _) if is_failed => Some("failed, and what ran before it was not restored"),
        _ => Some("ended neither healthy nor restored"),
    }
}

fn ended_restore(before: &WorkloadRecord, after: &WorkloadRecord) -> Option<&'static str> {
    match &after.current {
        Some(current) if current.healthy => None,
        None if !can_restore(before) => None,
        _ => Some("failed, and what ran before it was not restored"),
    }
}

fn can_restore(record: &WorkloadRecord) -> bool {
    record.previous.as_ref().is_some_and(|previous| previous.verdict == Verdict::Good)
}

fn digest(release: &Option<Release>) -> Option<fleetd_sync_core::id::ArtifactDigest> {
    release.as_ref().map(|release| release.digest)
}

impl Inspector for InstallChecker {
    fn invariant(&self) -> u8 {
        5
    }

    fn name(&self) -> &'static str {
        "install"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Submitted(Part::Workload { workload, record }) => Self::on_submitted(scene, node, workload, record),
            Fact::Stored(Part::Workload { workload, record }) => {
                let before = scene.ledger.node(node).and_then(|held| held.workloads.get(workload));
                before.map_or(Ok(()), |before| Self::on_stored(node, workload, [before, record]))
            }
            _ => Ok(()),
        }
    }
}
