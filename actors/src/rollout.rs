//! One rollout: a plan brought to its devices, in one wave.
//!
//! The machine assigns the release to each device that the plan names, counts how far each has come by the device's
//! own signed reports, and ends when every device that it can reach has ended. A device that never acknowledged its
//! assignment is *offline*: it is counted apart, keeps nobody waiting, and follows later under the same decision. One
//! that acknowledged and then fell silent has *failed*.
//!
//! An end of the rollout is not the end of its devices: those that were away follow later, and those that an abort
//! found at work say what became of that. Both are still listened to. [`plan`] computes what is to be done before
//! anything starts. Waves and gates are to stand beside it.

mod deadline;
pub mod plan;
mod snapshot;
pub mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::id::{LocalId, OperationId, PlanId, RolloutId};
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::{DeviceName, WorkloadName};
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::{Monotonic, Now, Wall};

use crate::device::wanted::RolloutAssignment;
use crate::report::{FaultKind, Phase, RunState, WorkloadReport};
use deadline::Deadlines;
use plan::{Plan, Verdict};
pub use snapshot::{DEVICES_RECORDED_MAX, RunSnapshot, Snapshot, extent_max};
use status::{DeviceProgress, DeviceStatus, Failure, Owed, RolloutCounts, RolloutHeader, RolloutPhase, Skip};

/// Assignments that one turn sends: a batch that a commit bears, and an operator's abort does not wait behind.
const SENT_PER_TURN: usize = 256;
/// Time after which what nobody confirmed is sent again; it doubles each time.
const RESEND_FIRST: Duration = Duration::from_secs(10);
/// The longest such time.
const RESEND_LAST: Duration = Duration::from_mins(10);
/// Time in which a device that could be reached must acknowledge, before it is counted as offline.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(15);
/// Time that a device may be gone after it acknowledged, before it is counted as failed: a restart is no failure.
const SILENT_AFTER: Duration = Duration::from_mins(10);

/// One rollout.
#[derive(Debug)]
pub struct Rollout {
    id: RolloutId,
    run: Option<RolloutRun>,
}

/// A rollout that was started.
#[derive(Debug)]
struct RolloutRun {
    header: RolloutHeader,
    plan: Arc<Plan>,
    devices: BTreeMap<LocalId, DeviceProgress>,
    counts: RolloutCounts,
    /// Devices to which something is to be sent.
    unsent: BTreeSet<LocalId>,
    /// Devices that are to be asked how they stand: what they said may have been lost with the last load.
    unasked: BTreeSet<LocalId>,
    /// What was sent and not confirmed: when it is sent again, and how often it was.
    resend_at: Deadlines,
    resends: BTreeMap<LocalId, u32>,
    /// Devices that must say something, or be back, by then.
    due_at: Deadlines,
    /// Whether that was set for every device since the last load.
    is_armed: bool,
}

/// What can happen to a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Carry a plan out. That the plan is not stale has been checked.
    Start {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// Who starts it.
        caller: String,
        /// The plan.
        plan: Arc<Plan>,
    },
    /// Take it back wherever it has not ended.
    Abort {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// Why, or who.
        reason: String,
    },
    /// An assignment is durable with the device's actor.
    DeviceAssigned {
        /// The device.
        device: LocalId,
    },
    /// A withdrawal is durable with the device's actor.
    DeviceWithdrawn {
        /// The device.
        device: LocalId,
    },
    /// The device has what its server assigned last.
    DeviceAcknowledged {
        /// The device.
        device: LocalId,
        /// The rollout and the try that stand there for the workload.
        assigned: Option<(RolloutId, u32)>,
    },
    /// The device says this of the workload.
    DeviceReported {
        /// The device.
        device: LocalId,
        /// What it says.
        report: Box<WorkloadReport>,
    },
    /// The device connected, or its connection is gone.
    DevicePresence {
        /// The device.
        device: LocalId,
        /// Since when it cannot be reached; `None` when it can.
        offline_since: Option<Wall>,
    },
    /// Another rollout's assignment has taken the place of this one's.
    DeviceSuperseded {
        /// The device.
        device: LocalId,
        /// The other rollout.
        by: RolloutId,
    },
    /// The device is of the fleet no more.
    DeviceGone {
        /// The device.
        device: LocalId,
    },
}

/// What must be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// It was started with this plan.
    Started {
        /// The rollout itself.
        header: Box<RolloutHeader>,
        /// The plan.
        plan: Arc<Plan>,
    },
    /// The rollout itself has changed.
    Rollout(Box<RolloutHeader>),
    /// A device has come further.
    Device {
        /// The device.
        device: LocalId,
        /// How far.
        progress: Box<DeviceProgress>,
    },
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the device's actor what the device should have. Answered by [`Input::DeviceAssigned`].
    Assign {
        /// The device.
        device: LocalId,
        /// What.
        assignment: RolloutAssignment,
    },
    /// Tell the device's actor that it should not. Answered by [`Input::DeviceWithdrawn`].
    Withdraw {
        /// The device.
        device: LocalId,
        /// The rollout whose assignment goes.
        rollout: RolloutId,
        /// The workload.
        workload: WorkloadName,
    },
    /// Have the device's actor say how the device stands: whose assignment it has, whether it can be reached, and what
    /// it says of the workload.
    Ask {
        /// The device.
        device: LocalId,
        /// The rollout that asks.
        rollout: RolloutId,
        /// The workload.
        workload: WorkloadName,
    },
    /// Tell those who watch: a device has come further.
    DeviceChanged {
        /// The device.
        device: LocalId,
        /// How far.
        progress: DeviceProgress,
        /// All devices together.
        counts: RolloutCounts,
    },
    /// Tell those who watch: the rollout itself has changed.
    Changed {
        /// The rollout itself.
        header: RolloutHeader,
        /// Its devices together.
        counts: RolloutCounts,
    },
    /// Note that it has ended by itself.
    Ended(RolloutHeader),
    /// Answer an operation, durably.
    Answer {
        /// The operation.
        operation: OperationId,
        /// What came of it.
        result: Result<(), RolloutError>,
    },
}

/// Why an operator's wish was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// It carries out another plan.
    #[error("{rollout} carries out {running} already")]
    OtherPlan {
        /// The rollout.
        rollout: RolloutId,
        /// The plan that it carries out.
        running: PlanId,
    },
    /// Nobody would get the release.
    #[error("each device that lacks the release is blocked: {}", blocked.join("; "))]
    Blocked {
        /// The rollout that there is not.
        rollout: RolloutId,
        /// The plan.
        plan: PlanId,
        /// The first devices that are blocked, each with the reason.
        blocked: Vec<String>,
        /// The name of the first.
        first: DeviceName,
    },
    /// It was never started.
    #[error("{rollout} was not started")]
    NotStarted {
        /// The rollout.
        rollout: RolloutId,
    },
    /// It has ended.
    #[error("{rollout} has ended: it {phase}")]
    Ended {
        /// The rollout.
        rollout: RolloutId,
        /// How.
        phase: RolloutPhase,
    },
}

type RolloutTurn = Turn<Record, Effect>;

impl Rollout {
    /// A rollout that was not started yet.
    #[must_use]
    pub const fn new(id: RolloutId) -> Self {
        Self { id, run: None }
    }

    /// Takes a rollout up from its records. Devices of which nothing is stored stand where the start put them.
    #[must_use]
    pub fn load(header: RolloutHeader, plan: Plan, stored: BTreeMap<LocalId, DeviceProgress>) -> Self {
        let id = header.rollout;
        let mut run = RolloutRun::new(header, Arc::new(plan));
        for (device, progress) in stored {
            run.put(device, progress);
        }
        run.owe_again();
        run.ask_again();
        Self { id, run: Some(run) }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> RolloutId {
        self.id
    }

    /// The rollout itself, once it was started.
    #[must_use]
    pub fn header(&self) -> Option<&RolloutHeader> {
        self.run.as_ref().map(|run| &run.header)
    }

    /// The plan that it carries out.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.run.as_ref().map(|run| run.plan.as_ref())
    }

    /// How many devices have come how far.
    #[must_use]
    pub fn counts(&self) -> RolloutCounts {
        self.run.as_ref().map(|run| run.counts).unwrap_or_default()
    }

    /// How far each device has come, in the order of their local ids.
    pub fn devices(&self) -> impl Iterator<Item = (LocalId, &DeviceProgress)> {
        self.run.iter().flat_map(|run| run.devices.iter().map(|(device, progress)| (*device, progress)))
    }
}

impl Machine for Rollout {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut RolloutTurn) {
        match input {
            Input::Start { operation, caller, plan } => self.on_start(now, operation, caller, plan, turn),
            Input::Abort { operation, reason } => self.on_abort(now, operation, reason, turn),
            Input::DeviceAssigned { device } => self.on_assigned(now, device, turn),
            Input::DeviceWithdrawn { device } => self.on_withdrawn(now, device, turn),
            Input::DeviceAcknowledged { device, assigned } => self.on_acknowledged(now, device, assigned, turn),
            Input::DeviceReported { device, report } => self.on_reported(now, device, &report, turn),
            Input::DevicePresence { device, offline_since } => self.on_presence(now, device, offline_since, turn),
            Input::DeviceSuperseded { device, by } => self.on_superseded(now, device, by, turn),
            Input::DeviceGone { device } => self.on_gone(now, device, turn),
        }
        self.settle(now, turn);
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut RolloutTurn) {
        if let Some(run) = &mut self.run {
            run.on_due(now, turn);
        }
        self.settle(now, turn);
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        let run = self.run.as_ref()?;
        if !(run.unsent.is_empty() && run.unasked.is_empty()) {
            return Some(Monotonic(0));
        }
        [&run.resend_at, &run.due_at].into_iter().filter_map(|deadlines| deadlines.earliest()).min()
    }

    fn phase(&self) -> &'static str {
        match self.header().map(|header| (header.phase, header.is_open)) {
            None => "unstarted",
            Some((RolloutPhase::Running, _)) => "running",
            Some((RolloutPhase::Succeeded, true)) => "succeeded, some follow",
            Some((RolloutPhase::Succeeded, false)) => "succeeded",
            Some((RolloutPhase::Failed, true)) => "failed, some follow",
            Some((RolloutPhase::Failed, false)) => "failed",
            Some((RolloutPhase::Aborted, true)) => "aborted, some follow",
            Some((RolloutPhase::Aborted, false)) => "aborted",
        }
    }

    fn is_idle(&self) -> bool {
        true
    }
}

impl Rollout {
    fn on_start(&mut self, now: Now, operation: OperationId, caller: String, plan: Arc<Plan>, turn: &mut RolloutTurn) {
        if let Some(run) = &self.run {
            let running = run.plan.id;
            let is_same = running == plan.id;
            let refusal = RolloutError::OtherPlan { rollout: self.id, running };
            turn.effect(Effect::Answer { operation, result: if is_same { Ok(()) } else { Err(refusal) } });
            return;
        }
        if let Some(refusal) = refuse_blocked(self.id, &plan) {
            turn.effect(Effect::Answer { operation, result: Err(refusal) });
            return;
        }
        let header = RolloutHeader {
            rollout: self.id,
            plan: plan.id,
            phase: RolloutPhase::Running,
            reason: String::new(),
            created_at: now.wall,
            created_by: caller,
            ended_at: None,
            is_open: true,
        };
        turn.persist(Record::Started { header: Box::new(header.clone()), plan: Arc::clone(&plan) });
        let mut run = RolloutRun::new(header, plan);
        run.owe_again();
        turn.effect(Effect::Answer { operation, result: Ok(()) });
        run.tell(turn);
        self.run = Some(run);
    }

    fn on_abort(&mut self, now: Now, operation: OperationId, reason: String, turn: &mut RolloutTurn) {
        let rollout = self.id;
        let result = match &mut self.run {
            None => Err(RolloutError::NotStarted { rollout }),
            Some(run) if run.header.phase == RolloutPhase::Aborted => Ok(()),
            Some(run) if run.header.phase != RolloutPhase::Running => {
                Err(RolloutError::Ended { rollout, phase: run.header.phase })
            }
            Some(run) => {
                run.abort(now, reason, turn);
                Ok(())
            }
        };
        turn.effect(Effect::Answer { operation, result });
    }

    fn on_assigned(&mut self, now: Now, device: LocalId, turn: &mut RolloutTurn) {
        self.change(now, device, turn, |progress| {
            if progress.owed == Owed::Assign {
                progress.owed = Owed::Nothing;
                if progress.status == DeviceStatus::Pending {
                    progress.status = DeviceStatus::Assigned;
                }
            }
        });
    }

    fn on_withdrawn(&mut self, now: Now, device: LocalId, turn: &mut RolloutTurn) {
        self.change(now, device, turn, |progress| {
            if progress.owed == Owed::Withdraw {
                progress.owed = Owed::Nothing;
            }
        });
    }

    fn on_acknowledged(
        &mut self,
        now: Now,
        device: LocalId,
        assigned: Option<(RolloutId, u32)>,
        turn: &mut RolloutTurn,
    ) {
        let Some(run) = &mut self.run else { return };
        let (rollout, attempt) = (self.id, run.plan.attempt);
        let running = run.header.phase != RolloutPhase::Aborted;
        run.change(now, device, turn, |progress| match (assigned, running) {
            (Some(assigned), true) if assigned == (rollout, attempt) => {
                progress.owed = Owed::Nothing;
                if progress.status.waits_for_device() {
                    progress.status = DeviceStatus::Acknowledged;
                }
            }
            // What was assigned got lost on its way, or another's was put in its place without a word: again.
            (_, true) if progress.status.waits_for_device() => progress.owed = Owed::Assign,
            (Some((other, _)), false) if other == rollout => progress.owed = Owed::Withdraw,
            _ => {}
        });
    }

    fn on_reported(&mut self, now: Now, device: LocalId, report: &WorkloadReport, turn: &mut RolloutTurn) {
        let Some(run) = &mut self.run else { return };
        // An old "healthy" never counts for a new try, and another rollout's never for this one.
        if !report.is_about(self.id, run.plan.attempt, run.plan.release.manifest) {
            // One that was at work and now speaks of something else has taken back what the abort found half done.
            let is_other = report.rollout != Some(self.id);
            return run.change(now, device, turn, |progress| {
                if is_other && progress.status == DeviceStatus::Skipped(Skip::AbortedAtWork) {
                    progress.status = DeviceStatus::Skipped(Skip::Aborted);
                }
            });
        }
        let Some(status) = status_of(report) else { return };
        let aborted = run.header.phase == RolloutPhase::Aborted;
        run.change(now, device, turn, |progress| {
            if progress.owed == Owed::Assign {
                progress.owed = Owed::Nothing;
            }
            if !aborted || status.is_final() {
                progress.status = status;
            } else if status.is_at_work() && progress.status == DeviceStatus::Skipped(Skip::Aborted) {
                // It had begun before it heard of the abort.
                progress.status = DeviceStatus::Skipped(Skip::AbortedAtWork);
            }
        });
    }

    fn on_presence(&mut self, now: Now, device: LocalId, offline_since: Option<Wall>, turn: &mut RolloutTurn) {
        self.change(now, device, turn, |progress| {
            progress.offline_since = offline_since;
            progress.is_late = false;
        });
    }

    fn on_superseded(&mut self, now: Now, device: LocalId, by: RolloutId, turn: &mut RolloutTurn) {
        self.change(now, device, turn, |progress| {
            progress.owed = Owed::Nothing;
            if !progress.status.is_final() {
                progress.status = DeviceStatus::Skipped(Skip::Superseded(by));
            }
        });
    }

    fn on_gone(&mut self, now: Now, device: LocalId, turn: &mut RolloutTurn) {
        self.change(now, device, turn, |progress| {
            progress.owed = Owed::Nothing;
            if !progress.status.is_final() {
                progress.status = DeviceStatus::Skipped(Skip::Gone);
            }
        });
    }

    fn change(&mut self, now: Now, device: LocalId, turn: &mut RolloutTurn, change: impl FnOnce(&mut DeviceProgress)) {
        if let Some(run) = &mut self.run {
            run.change(now, device, turn, change);
        }
    }

    fn settle(&mut self, now: Now, turn: &mut RolloutTurn) {
        if let Some(run) = &mut self.run {
            run.arm(now);
            run.send(now, turn);
            run.end_if_done(now, turn);
            run.close_if_settled(turn);
            run.assert_invariants();
        }
    }
}

impl RolloutRun {
    fn new(header: RolloutHeader, plan: Arc<Plan>) -> Self {
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
    fn owe_again(&mut self) {
        let owing = self.devices.iter().filter(|(_, progress)| progress.owed != Owed::Nothing);
        self.unsent = owing.map(|(device, _)| *device).collect();
    }

    /// Queues those of whom more is awaited to be asked: a word of theirs may have been lost with what was in memory.
    /// Whoever is away speaks by itself when it is back.
    fn ask_again(&mut self) {
        let is_running = self.header.phase == RolloutPhase::Running;
        let is_awaited = |progress: &DeviceProgress| {
            let is_expected = progress.status.waits_for_device() && !progress.is_offline();
            progress.status.is_at_work() || (is_running && (is_expected || progress.status.is_passing()))
        };
        let awaited = self.devices.iter().filter(|(_, progress)| is_awaited(progress));
        self.unasked = awaited.map(|(device, _)| *device).collect();
    }

    fn put(&mut self, device: LocalId, progress: DeviceProgress) {
        if let Some(before) = self.devices.get(&device) {
            self.counts.remove(before);
            self.counts.add(&progress);
            self.devices.insert(device, progress);
        }
    }

    /// Changes what is known of a device of the plan, and tells and remembers it if that made a difference.
    fn change(&mut self, now: Now, device: LocalId, turn: &mut RolloutTurn, change: impl FnOnce(&mut DeviceProgress)) {
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
    fn expect(&mut self, now: Now, device: LocalId) {
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

    fn on_due(&mut self, now: Now, turn: &mut RolloutTurn) {
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
    fn arm(&mut self, now: Now) {
        if !self.is_armed {
            self.is_armed = true;
            let devices: Vec<_> = self.devices.keys().copied().collect();
            devices.into_iter().for_each(|device| self.expect(now, device));
        }
    }

    /// Sends what is owed, and asks who is to be asked, so many a turn.
    fn send(&mut self, now: Now, turn: &mut RolloutTurn) {
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

    fn abort(&mut self, now: Now, reason: String, turn: &mut RolloutTurn) {
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
    fn end_if_done(&mut self, now: Now, turn: &mut RolloutTurn) {
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
    fn close_if_settled(&mut self, turn: &mut RolloutTurn) {
        let is_open = self.header.phase == RolloutPhase::Running || self.counts.open > 0;
        if self.header.is_open != is_open {
            self.header.is_open = is_open;
            turn.persist(Record::Rollout(Box::new(self.header.clone())));
        }
    }

    fn tell(&self, turn: &mut RolloutTurn) {
        turn.effect(Effect::Changed { header: self.header.clone(), counts: self.counts });
    }

    fn assert_invariants(&self) {
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

/// Blocked devices that a refusal names.
const BLOCKED_NAMED: usize = 5;

/// Refuses a plan of which nobody would get the release: its rollout would succeed without having done anything.
fn refuse_blocked(rollout: RolloutId, plan: &Plan) -> Option<RolloutError> {
    if !plan.is_blocked() {
        return None;
    }
    let blocked = plan.devices.iter().filter_map(|device| match &device.verdict {
        Verdict::Blocked { reason, .. } => Some((&device.name, reason)),
        Verdict::Update { .. } | Verdict::Install | Verdict::Unchanged => None,
    });
    let blocked: Vec<_> = blocked.collect();
    let first = blocked.first()?.0.clone();
    let mut named: Vec<_> =
        blocked.iter().take(BLOCKED_NAMED).map(|(name, reason)| format!("{name}: {reason}")).collect();
    if blocked.len() > BLOCKED_NAMED {
        named.push(format!("and {} more", blocked.len() - BLOCKED_NAMED));
    }
    Some(RolloutError::Blocked { rollout, plan: plan.id, blocked: named, first })
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

/// What a device's report about this rollout means for it.
fn status_of(report: &WorkloadReport) -> Option<DeviceStatus> {
    let kind = report.error.as_ref().map(|error| &error.kind);
    Some(match (report.phase?, kind) {
        (_, Some(FaultKind::Held)) => DeviceStatus::Skipped(Skip::Held),
        (_, Some(FaultKind::Conflict)) => DeviceStatus::Skipped(Skip::Conflict),
        (Phase::Healthy, _) => DeviceStatus::Healthy,
        (Phase::Restored, _) => DeviceStatus::Restored(report.error.clone()),
        (Phase::Failed, _) => DeviceStatus::Failed(Failure::Reported(report.error.clone())),
        (Phase::Removed, _) => DeviceStatus::Skipped(Skip::Removed),
        // What somebody stopped proves itself once it is started, and keeps nobody waiting until then.
        (Phase::Watch, None) if report.run == Some(RunState::Stopped) => DeviceStatus::Skipped(Skip::Stopped),
        (Phase::Pending, _) => DeviceStatus::Acknowledged,
        (Phase::Watch, _) if is_planted(Bug::HealthAssumed) => DeviceStatus::Healthy,
        (phase, _) => DeviceStatus::Installing(phase),
    })
}
