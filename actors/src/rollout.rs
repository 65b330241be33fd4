//! One rollout: a plan brought to its devices, wave by wave.
//!
//! The machine assigns the release to the devices of one wave after the other, counts how far each has come by the
//! device's own signed reports, and ends when every device that it can reach has ended. A device that never
//! acknowledged its assignment is *offline*: it is counted apart, keeps nobody waiting, and follows later under the
//! decision that it missed. One that acknowledged and then fell silent, or did not end in its wave's time, has *failed*.
//!
//! Behind each wave but the last stands a *gate*. It opens when each device of the wave that can be reached has ended
//! and one has proven the release, when the bake has passed, and when somebody has approved where that is asked for.
//! At whatever moment more devices have failed than the plan's budget allows, the rollout halts: a stop, as a pause is
//! one. A stop reaches every device that could still act as a hold with an id of its own, and a resume lifts it.
//!
//! An end of the rollout is not the end of its devices: those that were away follow later, and those that an abort
//! found at work say what became of that. Both are still listened to.
//!
//! | file | what it has |
//! |---|---|
//! | [`strategy`] | waves, budget, bake, limits: what a plan says of how |
//! | [`plan`] | what is to be done, computed before anything starts |
//! | `gate` | from one wave to the next, and to the end |
//! | `stop` | pause, halt, resume, abort |
//! | [`tally`] | how many have come how far |
//! | `queue` | who begins next where few may be at work at once |
//! | [`timing`] | windows: by whose clock, and what they mean for deadlines |
//! | `run` | what is known of the devices, and what is owed to them |
//! | [`why`] | why it stands where it stands, for people |

mod deadline;
mod gate;
pub mod plan;
mod queue;
mod refusal;
mod run;
mod site;
mod snapshot;
pub mod status;
mod stop;
pub mod strategy;
pub mod tally;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::id::{ArtifactDigest, HoldId, LocalId, OperationId, RolloutId};
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::{Monotonic, Now, Wall};

use crate::device::wanted::RolloutAssignment;
use crate::orders::Standstill;
use crate::report::{FaultKind, Phase, RunState, Waits, WorkloadReport};
use plan::Plan;
pub use refusal::RolloutError;
use refusal::refuse_blocked;
use run::RolloutRun;
use run::give_place_up;
pub use snapshot::{DEVICES_RECORDED_MAX, RunSnapshot, Snapshot, extent_max};
use status::{
    DeviceProgress, DeviceStatus, Failure, Owed, RolloutCounts, RolloutHeader, RolloutPhase, SiteWord, Skip, Stage,
    StageTimer, WaveStanding,
};

/// One rollout.
#[derive(Debug)]
pub struct Rollout {
    id: RolloutId,
    run: Option<RolloutRun>,
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
    /// Take it back also where it has ended: devices that follow later, or whose turn has not come, get nothing of it any
    /// more.
    TakeBack {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// Why, or who.
        reason: String,
    },
    /// Another rollout takes devices over: whoever of them has not come to its end gets nothing of this one any more,
    /// whatever becomes of the other.
    Supersede {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// The other rollout.
        by: RolloutId,
        /// The devices.
        devices: Arc<BTreeSet<LocalId>>,
    },
    /// Stop it, until it is resumed.
    Pause {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// Why, or who.
        reason: String,
    },
    /// Let it go on after a pause or a halt.
    Resume {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
    },
    /// Let the next wave begin: the gate waits for this word, or for a proof that nobody can give.
    Approve {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// The wave that is meant, from 0; whichever is next without one.
        wave: Option<u32>,
    },
    /// What stands over the whole fleet and concerns this rollout: a stop, or that its release is denied.
    Ordered(Option<Standstill>),
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
    /// A hold is durable with the device's actor.
    DeviceHeld {
        /// The device.
        device: LocalId,
        /// The hold.
        hold: HoldId,
    },
    /// No hold of this rollout stands with the device's actor any more.
    DeviceLifted {
        /// The device.
        device: LocalId,
        /// Whether another hold keeps the workload as it is.
        is_held: bool,
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
    /// Tell the device's actor that it should not, and that no hold of this rollout stands any more. Answered by [`Input::DeviceWithdrawn`].
    Withdraw {
        /// The device.
        device: LocalId,
        /// The rollout whose assignment goes.
        rollout: RolloutId,
        /// The workload.
        workload: WorkloadName,
    },
    /// Tell the device's actor that the device must not act on the assignment. It takes the place of an earlier hold of
    /// this rollout. Answered by [`Input::DeviceHeld`].
    Hold {
        /// The device.
        device: LocalId,
        /// The rollout that stops.
        rollout: RolloutId,
        /// The stop's hold.
        hold: HoldId,
        /// The workload.
        workload: WorkloadName,
        /// Why, for people.
        reason: String,
    },
    /// Tell the device's actor that no hold of this rollout stands any more. Answered by [`Input::DeviceLifted`].
    Lift {
        /// The device.
        device: LocalId,
        /// The rollout that goes on.
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
    /// Say what stands over the whole fleet and concerns this rollout. Answered by [`Input::Ordered`].
    AskOrders {
        /// The release that it brings.
        manifest: ArtifactDigest,
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
    /// Note that it has stopped itself.
    Halted(RolloutHeader),
    /// Answer an operation, durably.
    Answer {
        /// The operation.
        operation: OperationId,
        /// What came of it.
        result: Result<(), RolloutError>,
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
    pub fn load(header: RolloutHeader, plan: Arc<Plan>, stored: BTreeMap<LocalId, DeviceProgress>) -> Self {
        let id = header.rollout;
        let mut run = RolloutRun::new(header, plan);
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
        self.run.as_ref().map(|run| run.tally.all).unwrap_or_default()
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
            Input::TakeBack { operation, reason } => self.on_take_back(now, operation, reason, turn),
            Input::Supersede { operation, by, devices } => self.on_supersede(now, operation, by, &devices, turn),
            Input::Pause { operation, reason } => self.on_pause(now, operation, reason, turn),
            Input::Resume { operation } => self.on_resume(now, operation, turn),
            Input::Approve { operation, wave } => self.on_approve(now, operation, wave, turn),
            Input::Ordered(standstill) => self.on_ordered(now, standstill, turn),
            Input::DeviceAssigned { device } => self.on_assigned(now, device, turn),
            Input::DeviceWithdrawn { device } => self.on_withdrawn(now, device, turn),
            Input::DeviceHeld { device, hold } => self.on_held(now, device, hold, turn),
            Input::DeviceLifted { device, is_held } => self.on_lifted(now, device, is_held, turn),
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
            run.on_stage_due(now, turn);
            run.on_due(now, turn);
        }
        self.settle(now, turn);
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        let run = self.run.as_ref()?;
        if !(run.unsent.is_empty() && run.unasked.is_empty()) {
            return Some(Monotonic(0));
        }
        let devices = [&run.resend_at, &run.due_at].into_iter().filter_map(|deadlines| deadlines.earliest());
        devices.chain(run.stage_due).min()
    }

    fn phase(&self) -> &'static str {
        match self.header().map(|header| (header.phase, header.is_open)) {
            None => "unstarted",
            Some((RolloutPhase::Running, _)) => match self.header().map(|header| header.wave.stage) {
                Some(Stage::Baking) => "baking",
                Some(Stage::AwaitingApproval) => "awaiting approval",
                Some(Stage::Rolling) | None => "running",
            },
            Some((RolloutPhase::Paused, _)) => "paused",
            Some((RolloutPhase::Halted, _)) => "halted",
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
        let wave = WaveStanding { number: 0, stage: Stage::Rolling, since: now.wall, timer: StageTimer::Unbounded };
        let header = RolloutHeader {
            rollout: self.id,
            plan: plan.id,
            phase: RolloutPhase::Running,
            reason: String::new(),
            created_at: now.wall,
            created_by: caller,
            ended_at: None,
            is_open: true,
            wave,
            hold: None,
            stops: 0,
            ordered: None,
            failures_accepted: 0,
            taken_back: None,
        };
        let mut run = RolloutRun::new(header, Arc::clone(&plan));
        run.header.wave.timer = StageTimer::Until(now.wall + run.wave_time(0, now.wall));
        turn.persist(Record::Started { header: Box::new(run.header.clone()), plan });
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
            Some(run) if run.header.phase.is_ended() => Err(RolloutError::Ended { rollout, phase: run.header.phase }),
            Some(run) => {
                run.abort(now, reason, turn);
                Ok(())
            }
        };
        turn.effect(Effect::Answer { operation, result });
    }

    fn on_take_back(&mut self, now: Now, operation: OperationId, reason: String, turn: &mut RolloutTurn) {
        let rollout = self.id;
        let result = match &mut self.run {
            None => Err(RolloutError::NotStarted { rollout }),
            Some(run) => {
                match (run.header.phase.is_ended(), run.header.is_called_back()) {
                    (false, _) => run.abort(now, reason, turn),
                    (true, false) => run.take_back(now, reason, turn),
                    (true, true) => {}
                }
                Ok(())
            }
        };
        turn.effect(Effect::Answer { operation, result });
    }

    fn on_supersede(
        &mut self,
        now: Now,
        operation: OperationId,
        by: RolloutId,
        devices: &BTreeSet<LocalId>,
        turn: &mut RolloutTurn,
    ) {
        let rollout = self.id;
        let result = match &mut self.run {
            None => Err(RolloutError::NotStarted { rollout }),
            Some(run) => {
                devices.iter().for_each(|device| run.give_over(now, *device, by, turn));
                Ok(())
            }
        };
        turn.effect(Effect::Answer { operation, result });
    }

    /// The run, if there is one that has not ended.
    fn going(&mut self) -> Result<&mut RolloutRun, RolloutError> {
        let rollout = self.id;
        match &mut self.run {
            None => Err(RolloutError::NotStarted { rollout }),
            Some(run) if run.header.phase.is_ended() => Err(RolloutError::Ended { rollout, phase: run.header.phase }),
            Some(run) => Ok(run),
        }
    }

    fn on_pause(&mut self, now: Now, operation: OperationId, reason: String, turn: &mut RolloutTurn) {
        let result = self.going().map(|run| run.pause(now, reason, turn));
        turn.effect(Effect::Answer { operation, result });
    }

    fn on_resume(&mut self, now: Now, operation: OperationId, turn: &mut RolloutTurn) {
        let rollout = self.id;
        let result = self.going().and_then(|run| match &run.header.ordered {
            Some(standstill) => Err(RolloutError::Ordered { rollout, standstill: standstill.clone() }),
            None => {
                if run.header.phase.is_stopped() {
                    run.resume(now, turn);
                    // An order that came while it was stopped for another reason.
                    turn.effect(Effect::AskOrders { manifest: run.plan.release.manifest });
                }
                Ok(())
            }
        });
        turn.effect(Effect::Answer { operation, result });
    }

    fn on_approve(&mut self, now: Now, operation: OperationId, wave: Option<u32>, turn: &mut RolloutTurn) {
        let rollout = self.id;
        let result = self.going().and_then(|run| {
            let standing = &run.header.wave;
            let is_next = wave.is_none_or(|wave| wave == standing.number.saturating_add(1));
            let is_awaited = match standing.stage {
                Stage::AwaitingApproval => true,
                // Somebody's word in place of a proof that nobody can give.
                Stage::Rolling => run.is_wave_done() && !run.is_proven(),
                Stage::Baking => false,
            };
            if wave.is_some_and(|wave| run.header.has_begun(wave)) {
                return Ok(()); // It was approved before.
            }
            if run.header.phase == RolloutPhase::Running && is_next && is_awaited && !run.is_last_wave() {
                run.begin_next(now, turn);
                return Ok(());
            }
            let standing =
                format!("it is {}, and wave {} is {}", run.header.phase, standing.number + 1, standing.stage);
            Err(RolloutError::NothingToApprove { rollout, standing })
        });
        turn.effect(Effect::Answer { operation, result });
    }

    fn on_ordered(&mut self, now: Now, standstill: Option<Standstill>, turn: &mut RolloutTurn) {
        if let Some(run) = &mut self.run {
            run.obey_orders(now, standstill, turn);
        }
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
                (progress.owed, progress.is_held) = (Owed::Nothing, false);
            }
        });
    }

    fn on_held(&mut self, now: Now, device: LocalId, hold: HoldId, turn: &mut RolloutTurn) {
        let stands = self.header().and_then(|header| header.hold);
        self.change(now, device, turn, |progress| {
            if progress.owed == Owed::Hold && stands == Some(hold) {
                progress.owed = Owed::Nothing;
            }
        });
    }

    fn on_lifted(&mut self, now: Now, device: LocalId, is_held: bool, turn: &mut RolloutTurn) {
        // Also of one that was resumed and has ended since, those that are away follow.
        let is_going_on = self.header().is_some_and(RolloutHeader::goes_on);
        self.change(now, device, turn, |progress| {
            if progress.owed != Owed::Lift {
                return;
            }
            (progress.owed, progress.is_held) = (Owed::Nothing, false);
            let is_told = progress.word == SiteWord::Switch && progress.status.may_go_on();
            if (progress.status == DeviceStatus::Pending || is_told) && is_going_on {
                // Whether its assignment, or that its site switches, arrived before the stop, nobody knows.
                progress.owed = Owed::Assign;
            }
            if progress.status == DeviceStatus::Acknowledged && is_held {
                progress.status = DeviceStatus::Skipped(Skip::Held);
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
        let (running, aborted) = (run.header.goes_on(), run.header.is_called_back());
        run.change(now, device, turn, |progress| match (assigned, running) {
            (Some(assigned), _) if !aborted && assigned == (rollout, attempt) => {
                if progress.owed == Owed::Assign && progress.word != SiteWord::Switch {
                    progress.owed = Owed::Nothing;
                }
                progress.is_late = false;
                if progress.status.waits_for_device() {
                    progress.status = DeviceStatus::Acknowledged;
                }
            }
            // What was assigned got lost on its way, or another's was put in its place without a word: again.
            (_, true) if progress.status.waits_for_device() && !progress.is_queued() && !progress.is_held => {
                progress.owed = Owed::Assign;
            }
            (Some((other, _)), false) if aborted && other == rollout => progress.owed = Owed::Withdraw,
            _ => {}
        });
    }

    fn on_reported(&mut self, now: Now, device: LocalId, report: &WorkloadReport, turn: &mut RolloutTurn) {
        let Some(run) = &mut self.run else { return };
        // An old "healthy" never counts for a new try, and another rollout's never for this one.
        if !report.is_about(self.id, run.plan.attempt, run.plan.release.digest()) {
            // One that was at work and now speaks of something else has taken back what the abort found half done.
            let is_other = report.rollout != Some(self.id);
            return run.change(now, device, turn, |progress| {
                if is_other && progress.status == DeviceStatus::Skipped(Skip::AbortedAtWork) {
                    progress.status = DeviceStatus::Skipped(Skip::Aborted);
                }
            });
        }
        let Some(status) = status_of(report) else { return };
        let aborted = run.header.is_called_back();
        let running = run.header.phase == RolloutPhase::Running;
        run.change(now, device, turn, |progress| {
            progress.is_late = false;
            // That its site switches is a word of its own, which only its actor confirms. Whoever was away then, and is
            // ready now, may not have heard it.
            let is_owed_nothing_else = matches!(progress.owed, Owed::Nothing | Owed::Assign);
            let is_new = progress.status.is_under_way() && progress.status != status && is_owed_nothing_else;
            if progress.word == SiteWord::Switch && status.is_ready() && is_new {
                progress.owed = Owed::Assign;
            } else if progress.owed == Owed::Assign && progress.word != SiteWord::Switch {
                progress.owed = Owed::Nothing;
            }
            let is_stale = match (&progress.status, &status) {
                // Its wave's time is over: only its end says more than that.
                (DeviceStatus::Failed(Failure::Deadline), status) => !status.is_final(),
                // It is called back, and was at its end before it heard of that.
                (known, status) if progress.owed == Owed::Withdraw && known.is_final() => !status.is_final(),
                // It has not heard yet that this rollout's hold was lifted.
                (_, DeviceStatus::Skipped(Skip::Held)) => running && progress.is_held,
                _ => false,
            };
            if is_stale {
                return;
            }
            // Whose device it is now does not change by what this rollout still hears of it: only its end is worth knowing.
            let is_given_up = progress.word == SiteWord::Stay
                || matches!(progress.status, DeviceStatus::Skipped(Skip::Superseded(_)));
            if !(aborted || is_given_up) || status.is_final() {
                progress.status = status;
            } else if status.is_at_work() && progress.status == DeviceStatus::Skipped(Skip::Aborted) {
                // It had begun before it heard of the abort.
                progress.status = DeviceStatus::Skipped(Skip::AbortedAtWork);
            }
        });
    }

    fn on_presence(&mut self, now: Now, device: LocalId, offline_since: Option<Wall>, turn: &mut RolloutTurn) {
        let is_capped = self.plan().is_some_and(|plan| plan.strategy.is_capped());
        if offline_since.is_some() && self.run.as_ref().is_some_and(|run| run.may_be_back(device)) {
            return;
        }
        self.change(now, device, turn, |progress| {
            progress.offline_since = offline_since;
            progress.is_late = false;
            give_place_up(progress, is_capped);
        });
    }

    fn on_superseded(&mut self, now: Now, device: LocalId, by: RolloutId, turn: &mut RolloutTurn) {
        if is_planted(Bug::SupersededReturns) {
            return self.change(now, device, turn, |progress| {
                if !progress.status.is_final() {
                    progress.owed = Owed::Assign;
                }
            });
        }
        self.change(now, device, turn, |progress| {
            // What stops this rollout must not stop the other one.
            progress.owed = if progress.is_held { Owed::Lift } else { Owed::Nothing };
            if !progress.status.is_final() {
                progress.status = DeviceStatus::Skipped(Skip::Superseded(by));
            }
        });
    }

    fn on_gone(&mut self, now: Now, device: LocalId, turn: &mut RolloutTurn) {
        self.change(now, device, turn, |progress| {
            (progress.owed, progress.is_held) = (Owed::Nothing, false);
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
            run.ask_orders(turn);
            run.arm(now);
            run.proceed(now, turn);
            run.decide_sites(now, turn);
            run.admit(now, turn);
            run.send(now, turn);
            run.close_if_settled(turn);
            run.assert_invariants();
        }
    }
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
        (Phase::Wait, _) => DeviceStatus::Waits(report.waits.clone().unwrap_or(Waits::Window { opens: None })),
        (phase, _) => DeviceStatus::Installing(phase),
    })
}
