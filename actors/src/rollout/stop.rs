//! Stops, and what ends them.
//!
//! A pause and a halt reach devices as a hold with an id of its own. It stands beside the assignment among the device's
//! wishes, and a device that has both never acts on the assignment, whichever came first. An abort takes the assignment
//! back, which undoes what was not switched to, and the rollout's hold with it, in one signed change.

use std::time::Duration;

use fleetd_sync_core::id::{ArtifactDigest, HoldId, LocalId, RolloutId};
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::Now;

use super::run::RolloutRun;
use super::status::{DeviceProgress, DeviceStatus, Failure, Owed, RolloutPhase, Skip, StageTimer};
use super::{Effect, Record, RolloutTurn};
use crate::orders::Standstill;

/// Time in which the assignment of a device that another rollout takes over is mostly replaced by that of the other one.
pub(super) const SUPERSEDED_WITHIN: Duration = Duration::from_secs(5);

/// The id of a rollout's hold: each stop has another one, and a restart finds the same.
fn hold_id(rollout: RolloutId, stop: u32) -> HoldId {
    let digest = ArtifactDigest::of(&[b"hold".as_slice(), rollout.as_bytes(), &stop.to_be_bytes()].concat());
    let mut bytes = [0; HoldId::LENGTH];
    bytes.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    HoldId::from_bytes(bytes)
}

impl RolloutRun {
    /// Stops the rollout where it stands: nobody else is assigned, and whoever is and has not ended is held.
    pub(super) fn stop(&mut self, now: Now, phase: RolloutPhase, reason: String, turn: &mut RolloutTurn) {
        let is_new = self.header.hold.is_none();
        (self.header.phase, self.header.reason) = (phase, reason);
        if is_new {
            self.header.stops = self.header.stops.saturating_add(1);
            self.header.hold = Some(hold_id(self.header.rollout, self.header.stops));
            self.stop_stage(now);
        }
        turn.persist(Record::Rollout(Box::new(self.header.clone())));
        if is_new {
            let devices: Vec<_> = self.plan.assigned().map(|device| device.local).collect();
            for device in devices {
                self.change(now, device, turn, |progress| {
                    let is_overtaken = is_planted(Bug::HoldOvertaken) && progress.status == DeviceStatus::Pending;
                    if progress.can_act() && !is_overtaken {
                        (progress.owed, progress.is_held) = (Owed::Hold, true);
                    }
                });
            }
        }
        self.tell(turn);
    }

    /// Goes on. Failures that led to the stop were seen by whoever resumes, and count no more.
    pub(super) fn resume(&mut self, now: Now, turn: &mut RolloutTurn) {
        let failures = self.begun().map(super::status::RolloutCounts::failures).sum::<usize>();
        let header = &mut self.header;
        if header.phase == RolloutPhase::Halted {
            header.failures_accepted = u32::try_from(failures).unwrap_or(u32::MAX);
        }
        (header.phase, header.hold, header.ordered) = (RolloutPhase::Running, None, None);
        header.reason.clear();
        self.resume_stage(now);
        self.sites.touch_all();
        turn.persist(Record::Rollout(Box::new(self.header.clone())));
        let devices: Vec<_> = self.plan.assigned().map(|device| device.local).collect();
        for device in devices {
            self.change(now, device, turn, |progress| {
                if progress.is_held {
                    progress.owed = Owed::Lift;
                    if progress.status == DeviceStatus::Skipped(Skip::Held) {
                        progress.status = DeviceStatus::Acknowledged;
                    }
                }
            });
        }
        self.tell(turn);
    }

    /// After a start, and after a load: an order may have come that it was not told of.
    pub(super) fn ask_orders(&self, turn: &mut RolloutTurn) {
        if !self.is_armed && !self.header.phase.is_ended() {
            turn.effect(Effect::AskOrders { manifest: self.plan.release.manifest });
        }
    }

    /// Stops while an order over the whole fleet says so, and goes on when none does any more. What somebody paused, or
    /// what halted by itself, stays stopped.
    pub(super) fn obey_orders(&mut self, now: Now, standstill: Option<Standstill>, turn: &mut RolloutTurn) {
        let (phase, was_ordered) = (self.header.phase, self.header.ordered.is_some());
        if phase.is_ended() || standstill == self.header.ordered {
            return;
        }
        match (phase, was_ordered, standstill) {
            (RolloutPhase::Running, _, Some(order)) | (RolloutPhase::Paused, true, Some(order)) => {
                let reason = order.reason.clone();
                self.header.ordered = Some(order);
                self.stop(now, RolloutPhase::Paused, reason, turn);
            }
            (RolloutPhase::Paused, true, None) => self.resume(now, turn),
            // It has halted meanwhile, and stays so.
            (RolloutPhase::Halted, true, standstill) => {
                self.header.ordered = standstill;
                turn.persist(Record::Rollout(Box::new(self.header.clone())));
                self.tell(turn);
            }
            _ => {}
        }
    }

    /// Stops for an operator. What has halted is stopped already, for a better reason; what an order stopped does not go
    /// on with it any more.
    pub(super) fn pause(&mut self, now: Now, reason: String, turn: &mut RolloutTurn) {
        let is_ordered = self.header.phase == RolloutPhase::Paused && self.header.ordered.is_some();
        if is_ordered || !self.header.phase.is_stopped() {
            self.header.ordered = None;
            self.stop(now, RolloutPhase::Paused, reason, turn);
        }
    }

    pub(super) fn abort(&mut self, now: Now, reason: String, turn: &mut RolloutTurn) {
        self.end(now, RolloutPhase::Aborted, reason, turn);
        self.tell(turn);
    }

    /// Calls devices back after the end: those that would follow later, and those whose turn was still to come.
    pub(super) fn take_back(&mut self, now: Now, reason: String, turn: &mut RolloutTurn) {
        self.header.taken_back = Some(reason);
        turn.persist(Record::Rollout(Box::new(self.header.clone())));
        let devices: Vec<_> = self.plan.assigned().map(|device| device.local).collect();
        devices.into_iter().for_each(|device| self.change(now, device, turn, call_back));
        self.tell(turn);
    }

    /// Gives a device over to another rollout. Its assignment goes in a while: by then the other one's has mostly taken its
    /// place, in one change.
    pub(super) fn give_over(&mut self, now: Now, device: LocalId, by: RolloutId, turn: &mut RolloutTurn) {
        self.change(now, device, turn, |progress| {
            let has_nothing = progress.is_queued();
            match &progress.status {
                status if status.is_final() => return,
                DeviceStatus::Skipped(
                    Skip::Planned(_)
                    | Skip::Superseded(_)
                    | Skip::Gone
                    | Skip::Site
                    | Skip::Removed
                    | Skip::Aborted
                    | Skip::AbortedAtWork,
                ) => return,
                _ => progress.status = DeviceStatus::Skipped(Skip::Superseded(by)),
            }
            progress.owed = if has_nothing { Owed::Nothing } else { Owed::Withdraw };
        });
        if self.devices.get(&device).is_some_and(|progress| progress.owed == Owed::Withdraw)
            && self.unsent.remove(&device)
        {
            self.resend_at.set(device, now.monotonic + SUPERSEDED_WITHIN);
        }
    }

    /// Ends the rollout. Devices of an aborted one are called back unless they have come to their end; of a failed one
    /// those that fell silent, which must not begin again once they are back. No hold of it outlives it.
    pub(super) fn end(&mut self, now: Now, phase: RolloutPhase, reason: String, turn: &mut RolloutTurn) {
        let header = &mut self.header;
        (header.phase, header.reason, header.ended_at) = (phase, reason, Some(now.wall));
        (header.hold, header.ordered) = (None, None);
        (header.wave.timer, self.stage_due) = (StageTimer::Unbounded, None);
        turn.persist(Record::Rollout(Box::new(self.header.clone())));
        let open: Vec<_> = self.plan.assigned().map(|device| device.local).collect();
        for device in open {
            self.change(now, device, turn, |progress| {
                match (phase, &progress.status) {
                    (RolloutPhase::Aborted, _)
                    | (RolloutPhase::Failed, DeviceStatus::Failed(Failure::Silent | Failure::Deadline)) => {
                        call_back(progress);
                    }
                    _ => {}
                }
                if progress.is_held && progress.owed != Owed::Withdraw {
                    progress.owed = Owed::Lift;
                }
            });
        }
    }
}

/// Calls a device back, unless it has come to its end.
fn call_back(progress: &mut DeviceProgress) {
    let skip = match &progress.status {
        DeviceStatus::Healthy
        | DeviceStatus::Restored(_)
        | DeviceStatus::Failed(Failure::Reported(_))
        | DeviceStatus::Unchanged
        | DeviceStatus::Skipped(
            Skip::Planned(_) | Skip::Superseded(_) | Skip::Gone | Skip::Site | Skip::Aborted | Skip::AbortedAtWork,
        ) => return,
        // Nothing was ever sent to it.
        DeviceStatus::Pending if progress.is_queued() => {
            progress.status = DeviceStatus::Skipped(Skip::Aborted);
            return;
        }
        DeviceStatus::Pending | DeviceStatus::Assigned | DeviceStatus::Skipped(Skip::Held | Skip::Conflict) => {
            Some(Skip::Aborted)
        }
        // What was stopped was switched to already, and proves itself once it is started.
        DeviceStatus::Acknowledged
        | DeviceStatus::Installing(_)
        | DeviceStatus::Waits(_)
        | DeviceStatus::Skipped(Skip::Stopped) => Some(Skip::AbortedAtWork),
        // That it failed, or that the workload is gone, stays true; the assignment goes all the same.
        DeviceStatus::Failed(Failure::Silent | Failure::Deadline) | DeviceStatus::Skipped(Skip::Removed) => None,
    };
    if let Some(skip) = skip {
        progress.status = DeviceStatus::Skipped(skip);
    }
    progress.owed = Owed::Withdraw;
}
