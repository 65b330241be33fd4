//! A rollout that was started: what is known of its devices, what is owed to them, and when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::time::Now;

use super::deadline::Deadlines;
use super::plan::Plan;
use super::status::{DeviceProgress, DeviceStatus, Failure, Owed, RolloutCounts, RolloutHeader, RolloutPhase, Skip};
use super::{Effect, Record, RolloutTurn};
use crate::device::wanted::RolloutAssignment;

/// Assignments that one turn sends: a batch that a commit bears, and an operator's abort does not wait behind.
pub(super) const SENT_PER_TURN: usize = 256;
/// Time after which what nobody confirmed is sent again; it doubles each time.
pub(super) const RESEND_FIRST: Duration = Duration::from_secs(10);
/// The longest such time.
pub(super) const RESEND_LAST: Duration = Duration::from_mins(10);
/// Time in which a device that could be reached must acknowledge, before it is counted as offline.
pub(super) const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(15);
/// Time that a device may be gone after it acknowledged, before it is counted as failed: a restart is no failure.
pub(super) const SILENT_AFTER: Duration = Duration::from_mins(10);

/// A rollout that was started.
#[derive(Debug)]
pub(super) struct RolloutRun {
    pub(super) header: RolloutHeader,
    pub(super) plan: Arc<Plan>,
    pub(super) devices: BTreeMap<LocalId, DeviceProgress>,
    pub(super) counts: RolloutCounts,
    /// Devices to which something is to be sent.
    pub(super) unsent: BTreeSet<LocalId>,
    /// Devices that are to be asked how they stand: what they said may have been lost with the last load.
    pub(super) unasked: BTreeSet<LocalId>,
    /// What was sent and not confirmed: when it is sent again, and how often it was.
    pub(super) resend_at: Deadlines,
    pub(super) resends: BTreeMap<LocalId, u32>,
    /// Devices that must say something, or be back, by then.
    pub(super) due_at: Deadlines,
    /// Whether that was set for every device since the last load.
    pub(super) is_armed: bool,
}

impl RolloutRun {
    pub(super) fn new(header: RolloutHeader, plan: Arc<Plan>) -> Self {
        let devices: BTreeMap<_, _> = plan
            .devices
            .iter()
            .map(|device| (device.local, DeviceProgress::planned(device, header.created_at)))
            .collect();
        let mut counts = RolloutCounts::default();
        devices.values().for_each(|progress| counts.add(progress));
        Self {
            header,
            plan,
            devices,
            counts,
            unsent: BTreeSet::new(),
            unasked: BTreeSet::new(),
            resend_at: Deadlines::default(),
            resends: BTreeMap::new(),
            due_at: Deadlines::default(),
            is_armed: false,
        }
    }

    /// Queues all that was not confirmed: after a start, and after a load, since what was on its way may be lost.
    pub(super) fn owe_again(&mut self) {
        let owing = self.devices.iter().filter(|(_, progress)| progress.owed != Owed::Nothing);
        self.unsent = owing.map(|(device, _)| *device).collect();
    }

    /// Queues those of whom more is awaited to be asked: a word of theirs may have been lost with what was in memory.
    /// Whoever is away speaks by itself when it is back.
    pub(super) fn ask_again(&mut self) {
        let is_running = self.header.phase == RolloutPhase::Running;
        let is_awaited = |progress: &DeviceProgress| {
            let is_expected = progress.status.waits_for_device() && !progress.is_offline();
            progress.status.is_at_work() || (is_running && (is_expected || progress.status.is_passing()))
        };
        let awaited = self.devices.iter().filter(|(_, progress)| is_awaited(progress));
        self.unasked = awaited.map(|(device, _)| *device).collect();
    }

    pub(super) fn put(&mut self, device: LocalId, progress: DeviceProgress) {
        if let Some(before) = self.devices.get(&device) {
            self.counts.remove(before);
            self.counts.add(&progress);
            self.devices.insert(device, progress);
        }
    }

    /// Changes what is known of a device of the plan, and tells and remembers it if that made a difference.
    pub(super) fn change(
        &mut self,
        now: Now,
        device: LocalId,
        turn: &mut RolloutTurn,
        change: impl FnOnce(&mut DeviceProgress),
    ) {
        let Some(before) = self.devices.get(&device) else { return };
        let mut progress = before.clone();
        change(&mut progress);
        if progress == *before {
            return;
        }
        if progress.status != before.status {
            progress.changed_at = now.wall;
        }
        if progress.owed != before.owed {
            self.resend_at.clear(device);
            self.resends.remove(&device);
            self.unsent.remove(&device);
            if progress.owed != Owed::Nothing {
                self.unsent.insert(device);
            }
        }
        turn.persist(Record::Device { device, progress: Box::new(progress.clone()) });
        self.put(device, progress.clone());
        self.expect(now, device);
        turn.effect(Effect::DeviceChanged { device, progress, counts: self.counts });
    }

    /// Sets by when the device must say something, by what is known of it now.
    pub(super) fn expect(&mut self, now: Now, device: LocalId) {
        let Some(progress) = self.devices.get(&device) else { return };
        let within = match &progress.status {
            // What was not even sent yet has nothing to acknowledge.
            DeviceStatus::Pending | DeviceStatus::Assigned if self.unsent.contains(&device) => None,
            DeviceStatus::Pending | DeviceStatus::Assigned if !progress.is_offline() => Some(ACKNOWLEDGE_WITHIN),
            DeviceStatus::Acknowledged | DeviceStatus::Installing(_) if progress.is_offline() => Some(SILENT_AFTER),
            _ => None,
        };
        match within {
            Some(within) if !self.due_at.is_set(device) => self.due_at.set(device, now.monotonic + within),
            Some(_) => {}
            None => self.due_at.clear(device),
        }
    }

    pub(super) fn on_due(&mut self, now: Now, turn: &mut RolloutTurn) {
        while let Some(device) = self.resend_at.pop_due(now) {
            self.unsent.insert(device);
        }
        while let Some(device) = self.due_at.pop_due(now) {
            self.change(now, device, turn, |progress| match progress.status {
                DeviceStatus::Pending | DeviceStatus::Assigned => progress.is_late = true,
                DeviceStatus::Acknowledged | DeviceStatus::Installing(_) => {
                    progress.status = DeviceStatus::Failed(Failure::Silent);
                }
                _ => {}
            });
        }
    }

    /// Sets every deadline once: a load forgets them, since they are times of a clock that ended with the process.
    pub(super) fn arm(&mut self, now: Now) {
        if !self.is_armed {
            self.is_armed = true;
            let devices: Vec<_> = self.devices.keys().copied().collect();
            devices.into_iter().for_each(|device| self.expect(now, device));
        }
    }

    /// Sends what is owed, and asks who is to be asked, so many a turn.
    pub(super) fn send(&mut self, now: Now, turn: &mut RolloutTurn) {
        for _ in 0..SENT_PER_TURN {
            let Some(device) = self.unasked.pop_first() else { break };
            let (rollout, workload) = (self.header.rollout, self.plan.release.workload.clone());
            turn.effect(Effect::Ask { device, rollout, workload });
        }
        for _ in 0..SENT_PER_TURN {
            let Some(device) = self.unsent.pop_first() else { return };
            let release = &self.plan.release;
            let effect = match self.devices.get(&device).map(|progress| progress.owed) {
                Some(Owed::Assign) => Effect::Assign {
                    device,
                    assignment: RolloutAssignment {
                        rollout: self.header.rollout,
                        attempt: self.plan.attempt,
                        workload: release.workload.clone(),
                        version: release.version.clone(),
                        manifest: release.manifest,
                    },
                },
                Some(Owed::Withdraw) => {
                    let (rollout, workload) = (self.header.rollout, release.workload.clone());
                    Effect::Withdraw { device, rollout, workload }
                }
                Some(Owed::Nothing) | None => continue,
            };
            turn.effect(effect);
            let resends = self.resends.entry(device).or_default();
            let pause = RESEND_FIRST.saturating_mul(1 << (*resends).min(16)).min(RESEND_LAST);
            *resends = resends.saturating_add(1);
            self.resend_at.set(device, now.monotonic + pause);
            self.expect(now, device);
        }
    }

    pub(super) fn abort(&mut self, now: Now, reason: String, turn: &mut RolloutTurn) {
        self.header.phase = RolloutPhase::Aborted;
        self.header.reason = reason;
        self.header.ended_at = Some(now.wall);
        turn.persist(Record::Rollout(Box::new(self.header.clone())));
        let open: Vec<_> = self.plan.assigned().map(|device| device.local).collect();
        for device in open {
            self.change(now, device, turn, call_back);
        }
        self.tell(turn);
    }

    /// Ends the rollout when no device that it can reach is still on its way. Success is a device's own word: without
    /// one the rollout waits for those that may follow, and has failed when there are none.
    pub(super) fn end_if_done(&mut self, now: Now, turn: &mut RolloutTurn) {
        let counts = self.counts;
        if self.header.phase != RolloutPhase::Running || counts.under_way() > 0 {
            return;
        }
        let failures = counts.restored + counts.failed;
        let is_within_budget = failures <= usize::try_from(self.plan.failures_max).unwrap_or(usize::MAX);
        let some_follow = counts.offline + counts.passing > 0;
        let (phase, reason) = match (is_within_budget, counts.succeeded()) {
            (true, 0) if some_follow => return,
            (true, 0) => (RolloutPhase::Failed, "no device took the release".to_owned()),
            (true, _) => (RolloutPhase::Succeeded, String::new()),
            (false, _) => {
                let reason = format!("{} failed; {} may", Counted(failures, "device"), self.plan.failures_max);
                (RolloutPhase::Failed, reason)
            }
        };
        (self.header.phase, self.header.reason) = (phase, reason);
        self.header.ended_at = Some(now.wall);
        turn.persist(Record::Rollout(Box::new(self.header.clone())));
        turn.effect(Effect::Ended(self.header.clone()));
        self.tell(turn);
    }

    /// Notes whether a restart has to take the rollout up again.
    pub(super) fn close_if_settled(&mut self, turn: &mut RolloutTurn) {
        let is_open = self.header.phase == RolloutPhase::Running || self.counts.open > 0;
        if self.header.is_open != is_open {
            self.header.is_open = is_open;
            turn.persist(Record::Rollout(Box::new(self.header.clone())));
        }
    }

    pub(super) fn tell(&self, turn: &mut RolloutTurn) {
        turn.effect(Effect::Changed { header: self.header.clone(), counts: self.counts });
    }

    pub(super) fn assert_invariants(&self) {
        assert_eq!(
            self.counts.total(),
            self.plan.devices.len(),
            "{}: a device is lost or doubled",
            self.header.rollout
        );
        assert!(
            self.header.phase != RolloutPhase::Aborted || self.counts.under_way() == 0,
            "{}: an aborted rollout still has devices under way",
            self.header.rollout
        );
    }
}

/// Calls a device back for an abort, unless it has come to its end.
fn call_back(progress: &mut DeviceProgress) {
    let skip = match &progress.status {
        DeviceStatus::Healthy
        | DeviceStatus::Restored(_)
        | DeviceStatus::Failed(Failure::Reported(_))
        | DeviceStatus::Unchanged
        | DeviceStatus::Skipped(
            Skip::Planned(_) | Skip::Superseded(_) | Skip::Gone | Skip::Aborted | Skip::AbortedAtWork,
        ) => return,
        DeviceStatus::Pending | DeviceStatus::Assigned | DeviceStatus::Skipped(Skip::Held | Skip::Conflict) => {
            Some(Skip::Aborted)
        }
        // What was stopped was switched to already, and proves itself once it is started.
        DeviceStatus::Acknowledged | DeviceStatus::Installing(_) | DeviceStatus::Skipped(Skip::Stopped) => {
            Some(Skip::AbortedAtWork)
        }
        // That it failed, or that the workload is gone, stays true; the assignment goes all the same.
        DeviceStatus::Failed(Failure::Silent) | DeviceStatus::Skipped(Skip::Removed) => None,
    };
    if let Some(skip) = skip {
        progress.status = DeviceStatus::Skipped(skip);
    }
    progress.owed = Owed::Withdraw;
}
