//! One workload on a device: which release it should have, how that gets there, and whether it is well.
//!
//! The machine brings a release in (`Pending → Download → Verify → Stage → Wait → Switch → Watch`), keeps exactly one run of
//! the current release alive, and ends each install as `Healthy` or `Restored`: at once, and without asking anybody.
//! It decides alone and offline. What documents say reaches it as [`Input::Assigned`], and until that has come after
//! a restart it installs nothing: it only keeps alive what ran, and ends what it had begun to switch.
//!
//! `install` holds the way in, `gate` the last step before a release is switched to, [`child`] the run, `judge` the one gate through which a release becomes a program.

pub mod child;
pub mod device_queue;
mod floor;
mod gate;
mod install;
mod judge;
mod record;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, OperationId};
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::{Platform, Version, WorkloadName};
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::release::ProbeCheck;
use fleetd_sync_core::time::{Monotonic, Now};
use fleetd_sync_core::trust::Roster;

use crate::report::{Fault, FaultKind, Phase, RunState, WorkloadReport};
use crate::rollout::strategy::Priority;
pub use child::{Child, Vigil};
use device_queue::Ahead;
pub use floor::WorkloadFloor;
pub use gate::{AssignedTerms, Gate, InQueue, Look};
pub use install::Work;
pub use record::{
    Assignment, Command, Deferral, Failed, FetchError, Fetched, Found, Install, LoadReleaseError, Program, Release,
    Removal, Run, RunEvent, RunWish, Slot, StageError, Step, SwitchError, Target, Verdict, Wanted, WorkloadRecord,
};
pub use snapshot::Snapshot;

/// One workload on a device.
#[derive(Debug)]
pub struct Workload {
    name: WorkloadName,
    platform: Platform,
    entropy: Entropy,
    record: WorkloadRecord,
    /// The record as it was last persisted.
    persisted: WorkloadRecord,
    /// What the documents say; `None` until they were heard after a load.
    assignment: Option<Assignment>,
    roster: Option<Arc<Roster>>,
    work: Work,
    gate: Gate,
    /// What was seen at the device, until it is judged by in the same turn.
    look: Option<Look>,
    child: Child,
    vigil: Vigil,
    restart_asked: bool,
    reported: Option<WorkloadReport>,
    shown: Option<WorkloadStatus>,
}

/// What can happen to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The documents say this of it now. Due after each load, even when they say nothing.
    Assigned(Assignment),
    /// Whose word counts now. Due after each load.
    Trust(Arc<Roster>),
    /// Answers [`Effect::Fetch`].
    Fetched {
        /// The operation.
        operation: OperationId,
        /// What came of it.
        result: Result<Fetched, FetchError>,
    },
    /// Answers [`Effect::Stage`].
    Staged {
        /// The operation.
        operation: OperationId,
        /// What came of it.
        result: Result<(), StageError>,
    },
    /// Answers [`Effect::Switch`].
    Switched {
        /// The operation.
        operation: OperationId,
        /// What came of it.
        result: Result<(), SwitchError>,
    },
    /// Answers [`Effect::Remove`]; an error is the operating system's text.
    Removed {
        /// The operation.
        operation: OperationId,
        /// What came of it.
        result: Result<(), String>,
    },
    /// Answers [`Effect::Attach`].
    Attached {
        /// The operation.
        operation: OperationId,
        /// What is there.
        found: Found,
    },
    /// A run did something.
    Run {
        /// The operation that started it.
        run: OperationId,
        /// What it did.
        event: RunEvent,
    },
    /// Answers [`Effect::Probe`]; an error says what was seen.
    Probed {
        /// The operation.
        operation: OperationId,
        /// What was seen.
        outcome: Result<(), String>,
    },
    /// Answers [`Effect::Look`].
    Looked {
        /// The operation.
        operation: OperationId,
        /// What is there.
        look: Look,
    },
    /// Answers [`Effect::Queue`].
    Queued {
        /// The operation.
        operation: OperationId,
        /// Who goes before it; `None` when its turn has come.
        ahead: Option<Ahead>,
    },
    /// Somebody at the device asks for something.
    Command {
        /// Answered by [`Effect::Done`].
        operation: OperationId,
        /// What.
        command: Command,
    },
    /// Forgets failures: what failed may be tried again, and a pause before the next start ends.
    Reset,
}

/// What it wants done. Each operation is answered by one input, unless it is cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Fetch something by its digest. It goes on through lost links, and begins where an earlier one ended.
    Fetch {
        /// The operation.
        operation: OperationId,
        /// What it hashes to.
        digest: ArtifactDigest,
        /// What it is.
        wanted: Wanted,
    },
    /// Give an operation up: its answer is not wanted any more.
    Cancel {
        /// The operation.
        operation: OperationId,
    },
    /// Lay a release out in the workload's folder, from the artifact file that was fetched.
    Stage {
        /// The operation.
        operation: OperationId,
        /// The release.
        release: Release,
    },
    /// Look for the workload's lock, and how far the date can be trusted.
    Look {
        /// The operation.
        operation: OperationId,
    },
    /// Ask for the workload's turn among all of the device.
    Queue {
        /// The operation.
        operation: OperationId,
        /// How urgent it is.
        priority: Priority,
    },
    /// Its turn is over, or it does not want one any more.
    LeaveQueue,
    /// Make a slot the current one.
    Switch {
        /// The operation.
        operation: OperationId,
        /// The slot.
        to: Slot,
    },
    /// Start the program. The operation names the run from now on.
    Start {
        /// The operation.
        operation: OperationId,
        /// The program.
        program: Program,
    },
    /// End the run: TERM, and KILL if any of it is left after the grace time.
    Stop {
        /// The grace time.
        grace: Duration,
    },
    /// Look for a run that was started before, and take it up again.
    Attach {
        /// The operation.
        operation: OperationId,
    },
    /// Ask the running program once.
    Probe {
        /// The operation.
        operation: OperationId,
        /// What to ask.
        check: ProbeCheck,
        /// Time in which it must answer.
        timeout: Duration,
    },
    /// Say this of the workload in the device's document.
    Report(WorkloadReport),
    /// Show this to whoever asks at the device.
    Show(WorkloadStatus),
    /// Remove what no release needs: all slots but these, and artifact files that nobody fetches.
    Collect {
        /// What stays.
        keep: Vec<Slot>,
    },
    /// Remove the workload's folder with its data.
    Remove {
        /// The operation.
        operation: OperationId,
    },
    /// A command is durable.
    Done {
        /// Its operation.
        operation: OperationId,
    },
}

/// What somebody at the device may see of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadStatus {
    /// What the device reports.
    pub report: WorkloadReport,
    /// The release that is on its way in.
    pub next: Option<Version>,
    /// A hold keeps it as it is.
    pub held: bool,
    /// What somebody at the device puts its next switch off by.
    pub deferral: Option<Deferral>,
    /// How long its rollout lets it be put off in all, while one is at work on it.
    pub veto_limit: Option<Duration>,
    /// The program's process.
    pub pid: Option<u32>,
}

impl Workload {
    /// Takes a workload up from its record; the default record is that of one that was never heard of. `entropy` must
    /// be another stream at each load, or operation ids would repeat.
    #[must_use]
    pub fn new(name: WorkloadName, platform: Platform, record: WorkloadRecord, entropy: Entropy) -> Self {
        // What had begun to switch has its turn until that has ended.
        let is_at_work = record.install.as_ref().is_some_and(|install| !install.step.is_reversible());
        let queue = if is_at_work { InQueue::AtWork } else { InQueue::Out };
        Self {
            name,
            platform,
            entropy,
            persisted: record.clone(),
            record,
            assignment: None,
            roster: None,
            work: Work::default(),
            gate: Gate { queue, ..Gate::default() },
            look: None,
            child: Child::Unknown,
            vigil: Vigil::default(),
            restart_asked: false,
            reported: None,
            shown: None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &WorkloadName {
        &self.name
    }

    /// What it remembers.
    #[must_use]
    pub const fn record(&self) -> &WorkloadRecord {
        &self.record
    }

    /// What its program does.
    #[must_use]
    pub const fn child(&self) -> &Child {
        &self.child
    }

    fn operation(&mut self) -> OperationId {
        OperationId::random(&mut self.entropy)
    }
}

type WorkloadTurn = Turn<WorkloadRecord, Effect>;

impl Machine for Workload {
    type Input = Input;
    type Record = WorkloadRecord;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut WorkloadTurn) {
        match input {
            Input::Assigned(assignment) => self.on_assigned(assignment),
            Input::Trust(roster) => self.on_trust(roster),
            Input::Fetched { operation, result } => self.on_fetched(now, operation, result, turn),
            Input::Staged { operation, result } => self.on_staged(now, operation, result, turn),
            Input::Switched { operation, result } => self.on_switched(now, operation, result, turn),
            Input::Removed { operation, result } => self.on_removed(now, operation, result),
            Input::Attached { operation, found } => self.on_attached(now, operation, found, turn),
            Input::Run { run, event } => self.on_run(now, run, event, turn),
            Input::Probed { operation, outcome } => self.on_probed(now, operation, outcome, turn),
            Input::Looked { operation, look } => self.on_looked(operation, look),
            Input::Queued { operation, ahead } => self.on_queued(now, operation, ahead),
            Input::Command { operation, command } => self.on_command(now, operation, command, turn),
            Input::Reset => self.on_reset(),
        }
        self.settle(now, turn);
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut WorkloadTurn) {
        self.on_vigil_timeout(now, turn);
        self.settle(now, turn);
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        [self.work.retry_at, self.gate.deferred_until, self.child.wakes_at(), self.vigil.deadline, self.vigil.probe_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn phase(&self) -> &'static str {
        match self.record.install.as_ref().map(|install| &install.step) {
            Some(Step::Pending) => "pending",
            Some(Step::Download(_)) => "download",
            Some(Step::Verify(_)) => "verify",
            Some(Step::Stage(_)) => "stage",
            Some(Step::Wait(_)) => "wait",
            Some(Step::Switch(_)) => "switch",
            Some(Step::Watch { .. }) => "watch",
            Some(Step::Restore { .. }) => "restore",
            None if self.record.removal != Removal::None => "removal",
            None => self.child.phase(),
        }
    }
}

impl Workload {
    fn on_assigned(&mut self, assignment: Assignment) {
        if let Some(run) = assignment.run {
            self.record.stopped_remotely = run == RunWish::Stopped;
        }
        if assignment.restarts > self.record.restarts_done {
            self.record.restarts_done = assignment.restarts;
            self.restart_asked = true;
        }
        self.assignment = Some(assignment);
        self.look_again();
    }

    fn on_trust(&mut self, roster: Arc<Roster>) {
        for release in [&mut self.record.current, &mut self.record.previous].into_iter().flatten() {
            release.verdict = judge::judge_installed(release, &self.name, &roster);
        }
        self.roster = Some(roster);
    }

    fn on_command(&mut self, now: Now, operation: OperationId, command: Command, turn: &mut WorkloadTurn) {
        match command {
            Command::Stop => self.record.stopped_locally = true,
            Command::Start => {
                self.record.stopped_locally = false;
                self.end_backoff();
            }
            Command::Restart => {
                self.record.stopped_locally = false;
                self.restart_asked = true;
            }
            Command::Defer { length, reason } => {
                self.on_defer(now, Deferral { length, until: now.wall + length, reason });
            }
            Command::Allow => self.on_allow(),
        }
        turn.effect(Effect::Done { operation });
    }

    fn on_reset(&mut self) {
        self.record.failed = None;
        self.end_backoff();
    }

    /// Goes as far as it can, then persists and tells what changed.
    fn settle(&mut self, now: Now, turn: &mut WorkloadTurn) {
        self.tend_deferral(now);
        while self.consider(turn) || self.step_install(now, turn) {}
        self.tend_child(now, turn);
        self.step_removal(now, turn);
        self.close_gate(now);
        self.tend_queue(turn);
        self.assert_invariants();
        let is_dropped = is_planted(Bug::RecordDropped) && self.record.run != self.persisted.run;
        if self.record != self.persisted && !is_dropped {
            self.persisted = self.record.clone();
            turn.persist(self.record.clone());
        }
        self.tell(turn);
    }

    fn tell(&mut self, turn: &mut WorkloadTurn) {
        let status = self.status();
        // Until documents and runner were heard after a load, a report could only take back what stands there.
        let known = self.assignment.is_some() && self.child.is_known();
        if known && self.reported.as_ref() != Some(&status.report) {
            self.reported = Some(status.report.clone());
            turn.effect(Effect::Report(status.report.clone()));
        }
        if self.shown.as_ref() != Some(&status) {
            self.shown = Some(status.clone());
            turn.effect(Effect::Show(status));
        }
    }

    fn status(&self) -> WorkloadStatus {
        WorkloadStatus {
            next: self.record.install.as_ref().map(|install| install.target.version.clone()),
            held: self.assignment.as_ref().is_some_and(|assignment| assignment.held),
            deferral: self.record.deferral.clone(),
            veto_limit: self.record.install.as_ref().and_then(|_| self.veto_limit()),
            pid: self.child.pid(),
            report: self.report(),
        }
    }

    /// What the device says of the workload now.
    #[must_use]
    pub fn report(&self) -> WorkloadReport {
        let record = &self.record;
        let mut report = WorkloadReport {
            release: record.current.as_ref().map(|current| current.manifest.version.clone()),
            configuration: record
                .current
                .as_ref()
                .and_then(|current| current.configuration.as_ref().map(|configuration| configuration.id())),
            desired: self.assignment.as_ref().and_then(|assignment| assignment.desired_head),
            run: self.run_state(),
            restarts: record.restarts,
            previous: record.previous.as_ref().map(|previous| previous.manifest.version.clone()),
            exit: record.exit,
            stopped_locally: record.stopped_locally,
            waits: self.gate.waits.clone(),
            ..WorkloadReport::default()
        };
        let (phase, target, error) = self.progress();
        report.phase = phase;
        report.error = error;
        if let Some(target) = target {
            report.rollout = target.rollout;
            report.attempt = target.attempt;
            report.digest = Some(target.digest());
        }
        if let Some((phase, failed)) = self.withdrawn_failure() {
            report.phase = Some(phase);
            report.error = Some(failed.fault.clone());
            report.rollout = failed.rollout;
            report.attempt = failed.attempt;
            report.digest = Some(failed.manifest);
        }
        report
    }

    /// The failure of a try whose assignment was taken back before it ended, while nothing else is assigned.
    fn withdrawn_failure(&self) -> Option<(Phase, &Failed)> {
        let record = &self.record;
        let is_unassigned = self.assignment.as_ref().is_some_and(|assignment| assignment.target.is_none());
        let is_at_rest = record.install.is_none() && record.removal != Removal::Removed;
        let failed = record.failed.as_ref().filter(|failed| failed.rollout.is_some())?;
        let phase = if record.current.is_some() { Phase::Restored } else { Phase::Failed };
        (is_unassigned && is_at_rest).then_some((phase, failed))
    }

    /// How far the workload is with which release, and what is wrong.
    fn progress(&self) -> (Option<Phase>, Option<Target>, Option<Fault>) {
        let record = &self.record;
        if let Some(install) = &record.install {
            let (phase, fault) = match &install.step {
                Step::Pending => (Phase::Pending, self.work.fault.clone()),
                Step::Download(_) => (Phase::Download, self.work.fault.clone()),
                Step::Verify(_) => (Phase::Verify, None),
                // What may be switched to at once never shows as waiting.
                Step::Wait(_) if self.gate.waits.is_some() => (Phase::Wait, None),
                Step::Stage(_) | Step::Wait(_) => (Phase::Stage, None),
                Step::Switch(_) => (Phase::Switch, None),
                Step::Watch { .. } => (Phase::Watch, None),
                Step::Restore { fault, .. } => (Phase::Watch, Some(fault.clone())),
            };
            return (Some(phase), Some(install.target.clone()), fault);
        }
        if record.removal == Removal::Removed {
            return (Some(Phase::Removed), None, self.work.fault.clone());
        }
        let installed = record.current.as_ref().map(Release::target);
        if let Some(assignment) = &self.assignment
            && let Some(target) = &assignment.target
            && installed.as_ref() != Some(target)
        {
            // What runs may be the very release that failed, by an earlier try that went well.
            if let Some(failed) = self.failure_of(target) {
                let phase = if installed.is_some() { Phase::Restored } else { Phase::Failed };
                return (Some(phase), Some(target.clone()), Some(failed.fault.clone()));
            }
            let is_another = installed.as_ref().is_none_or(|installed| installed.digest() != target.digest());
            if is_another && assignment.is_blocked() {
                let kind = if assignment.held { FaultKind::Held } else { FaultKind::Conflict };
                return (Some(Phase::Pending), Some(target.clone()), Some(Fault::new(kind, "")));
            }
        }
        let fault = record.current.as_ref().filter(|current| current.verdict == Verdict::MustStop);
        let fault =
            fault.map(|_| Fault::new(FaultKind::Compromised, "the key that signed it must not be run any more"));
        (installed.as_ref().map(|_| Phase::Healthy), installed, fault)
    }

    fn run_state(&self) -> Option<RunState> {
        self.record.current.as_ref().map(|current| self.child.run_state(current, &self.record, self.wanted().is_some()))
    }

    /// The failure that forbids to try `target`, if there is one.
    fn failure_of(&self, target: &Target) -> Option<&Failed> {
        let failed = self.record.failed.as_ref()?;
        (failed.manifest == target.digest() && target.attempt <= failed.attempt).then_some(failed)
    }

    fn assert_invariants(&self) {
        let record = &self.record;
        match self.child {
            Child::Unknown | Child::Attaching { .. } => {}
            Child::Down | Child::Backoff { .. } => {
                assert!(record.run.is_none(), "{}: a run is remembered while none is there", self.name);
            }
            Child::Starting { run } | Child::Up { run, .. } | Child::Stopping { run, .. } => {
                let remembered = record.run.as_ref().map(|run| run.operation);
                assert_eq!(remembered, Some(run), "{}: another run is remembered than the one there", self.name);
            }
        }
        if let Some(install) = &record.install {
            let blocked = self.assignment.as_ref().is_some_and(Assignment::is_blocked);
            assert!(!(blocked && install.step.is_reversible()), "{}: a hold and an install stand together", self.name);
            match &install.step {
                Step::Watch { .. } => {
                    assert!(record.current.is_some(), "{}: nothing is there to be watched", self.name);
                }
                Step::Restore { switched: false, .. } => {
                    assert!(record.previous.is_some(), "{}: nothing is there to be restored", self.name);
                }
                _ => {}
            }
        }
        assert!(
            record.previous.as_ref().is_none_or(|previous| previous.healthy),
            "{}: only what proved itself is kept to be restored",
            self.name
        );
    }
}
