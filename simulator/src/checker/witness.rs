//! Holds no invariant: it sees what ought to happen in some run of a set, and marks it.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_actors::rollout::status::{DeviceProgress, DeviceStatus, Failure, RolloutHeader, RolloutPhase, Skip};
use fleetd_actors::workload::{Step, WorkloadRecord};
use fleetd_sync_core::envelope::{DocumentId, Envelope, Op, Previous};
use fleetd_sync_core::id::{EnvelopeHash, RolloutId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::session::{Class, Message};
use fleetd_sync_transport::frame;

use super::ledger::{LaneRecord, Part};
use super::{Broken, Fact, Inspector, Scene, device_number};
use crate::fleet::SERVER;
use crate::observation::Observation;
use crate::reference::resolve::Release;

/// Sees what ought to happen sometimes.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// What writers had in their stores of their own lanes.
    own: BTreeSet<EnvelopeHash>,
}

impl Witness {
    fn on_envelope(&mut self, scene: &Scene<'_>, node: &Arc<str>, envelope: &Envelope) {
        if envelope.body.position.epoch > 1 {
            scene.marks.reach("a lane began a further epoch");
        }
        if envelope.body.document == DocumentId::Trust && revokes(envelope) {
            scene.marks.reach("a key was revoked");
        }
        if scene.ledger.writer(envelope.body.lane) != &**node {
            return;
        }
        if let Previous::Parent(parent) = envelope.body.previous
            && parent.position.stamp != envelope.body.position.stamp
        {
            scene.marks.reach("a writer took its lane over under a new stamp");
        }
        if !self.own.insert(envelope.hash) {
            scene.marks.reach("a writer got its own lane back from a peer");
        }
    }

    fn on_workload(scene: &Scene<'_>, node: &Arc<str>, workload: &WorkloadName, after: &WorkloadRecord) {
        let Some(before) = scene.ledger.node(node).and_then(|held| held.workloads.get(workload)) else { return };
        let step = |record: &WorkloadRecord| record.install.as_ref().map(|install| install.step.clone());
        match (step(before), step(after), &after.current) {
            (Some(Step::Watch { .. }), None, Some(current)) if current.healthy => {
                scene.marks.reach("a release proved itself");
                if after.previous.is_some() {
                    scene.marks.reach("a release took the place of another");
                }
            }
            (Some(Step::Restore { .. }), None, Some(_)) => scene.marks.reach("a release was restored"),
            _ => {}
        }
        if after.restarts > before.restarts {
            scene.marks.reach("a program that ended by itself was started again");
        }
    }

    fn on_rollout(scene: &Scene<'_>, node: &Arc<str>, header: &RolloutHeader) {
        let before = scene.ledger.node(node).and_then(|held| held.rollouts.get(&header.rollout));
        if before.is_some_and(|before| before.wave.number < header.wave.number) {
            scene.marks.reach("a rollout's next wave began");
        }
        if before.is_none_or(|before| before.phase == header.phase) {
            return;
        }
        match header.phase {
            RolloutPhase::Running => {}
            RolloutPhase::Paused => scene.marks.reach("a rollout was paused"),
            RolloutPhase::Halted => scene.marks.reach("a rollout halted before more devices failed"),
            RolloutPhase::Succeeded => scene.marks.reach("a rollout succeeded"),
            RolloutPhase::Failed => scene.marks.reach("a rollout failed on more devices than it may"),
            RolloutPhase::Aborted => scene.marks.reach("a rollout was aborted"),
        }
    }

    fn on_progress(scene: &Scene<'_>, node: &Arc<str>, rollout: RolloutId, progress: &DeviceProgress) {
        let header = scene.ledger.node(node).and_then(|held| held.rollouts.get(&rollout));
        match &progress.status {
            DeviceStatus::Healthy if header.is_some_and(|header| header.ended_at.is_some()) => {
                scene.marks.reach("a device followed after its rollout had ended");
            }
            DeviceStatus::Failed(Failure::Silent) => {
                scene.marks.reach("a device fell silent in the middle of a rollout");
            }
            DeviceStatus::Skipped(Skip::Superseded(_)) => scene.marks.reach("a later rollout overtook a device"),
            DeviceStatus::Skipped(Skip::Site) => scene.marks.reach("a site was given up"),
            DeviceStatus::Skipped(Skip::Held) => scene.marks.reach("a rollout left a held device out"),
            _ => {}
        }
    }

    fn on_died(scene: &Scene<'_>, node: &Arc<str>) {
        let Some(held) = scene.ledger.node(node) else { return };
        if &**node == SERVER {
            if held.rollouts.values().any(|header| header.phase == RolloutPhase::Running) {
                scene.marks.reach("the server died in the middle of a rollout");
            }
            return;
        }
        for (workload, record) in &held.workloads {
            match record.install.as_ref().map(|install| &install.step) {
                Some(Step::Watch { .. } | Step::Restore { .. }) => {
                    scene.marks.reach("a device died while a release was on watch");
                }
                Some(_) => scene.marks.reach("a device died while a release was on its way in"),
                None => {}
            }
            let device = device_number(node).and_then(|number| scene.fleet.devices.get(number));
            if device.is_some_and(|device| device.runner.pid(workload).is_some()) {
                scene.marks.reach("a program outlived its agent");
            }
        }
        let positions = held.spools.values().flat_map(|spool| &spool.streams);
        if positions.into_iter().any(|position| position.acked < position.last) {
            scene.marks.reach("a spool kept lines through its device's end");
        }
    }

    fn on_settled(scene: &Scene<'_>, node: &Arc<str>, documents: &BTreeSet<DocumentId>) {
        for document in documents {
            let DocumentId::Desired(device) = *document else { continue };
            let Some(word) = scene.words.of(node, device) else { continue };
            let held = scene.ledger.node(node);
            for (workload, wish) in &word.wishes.workloads {
                let current = held.and_then(|held| held.workloads.get(workload)?.current.as_ref());
                let is_other = wish.release.as_ref().map(Release::whole) != current.map(|it| it.digest);
                if &**node != SERVER && wish.is_held && wish.release.is_some() && is_other {
                    scene.marks.reach("a hold beat an assignment");
                }
            }
        }
    }
}

fn revokes(envelope: &Envelope) -> bool {
    envelope.body.ops.iter().any(|op| matches!(op, Op::Set { path, .. } if path.as_str().starts_with("revoke/")))
}

impl Inspector for Witness {
    fn invariant(&self) -> u8 {
        0
    }

    fn name(&self) -> &'static str {
        "witness"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Stored(Part::Lane { record: LaneRecord::Envelope(envelope), .. }) => {
                self.on_envelope(scene, node, envelope);
            }
            Fact::Stored(Part::LaneGone { .. }) => scene.marks.reach("an opener let what was below it be forgotten"),
            Fact::Stored(Part::Workload { workload, record }) => Self::on_workload(scene, node, workload, record),
            Fact::Stored(Part::Plan { plan }) if plan.rollback.is_some() => {
                scene.marks.reach("a rollout was taken back");
            }
            Fact::Stored(Part::Rollout { header }) => Self::on_rollout(scene, node, header),
            Fact::Stored(Part::Progress { rollout, progress, .. }) => {
                Self::on_progress(scene, node, *rollout, progress);
            }
            Fact::Settled(documents) => Self::on_settled(scene, node, documents),
            Fact::Failed => scene.marks.reach("a commit failed, and its actor was loaded again"),
            Fact::Died => Self::on_died(scene, node),
            Fact::Seen(Observation::Sent { class: Class::Control, frame, .. }) => {
                if matches!(frame::decode(frame), Ok(Some(Message::Renew(_)))) {
                    scene.marks.reach("a device asked for a certificate in place of one that had run out");
                }
            }
            Fact::Seen(Observation::Restored { .. }) => scene.marks.reach("a store was set back"),
            Fact::Submitted(_) | Fact::Stored(_) | Fact::Found(_) | Fact::Opened | Fact::Seen(_) => {}
        }
        Ok(())
    }
}
