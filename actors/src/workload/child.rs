//! The run: exactly one of the current release while it should run, started again when it ends by itself.

use std::time::Duration;

use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::release::ProbeCheck;
use fleetd_sync_core::time::{Monotonic, Now};

use super::record::{Found, Install, Program, Release, Removal, Run, RunEvent, Step, Verdict, WorkloadRecord};
use super::{Effect, Workload, WorkloadTurn};
use crate::report::{Exit, Fault, FaultKind, RunState};

/// First ceiling of the pause before a program that ended by itself is started again.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Last ceiling of that pause: a device that nobody can touch keeps trying, without wearing itself out.
const BACKOFF_LAST: Duration = Duration::from_mins(5);
/// Time after which a run counts as well, so that its end begins the pauses anew.
const STABLE_AFTER: Duration = Duration::from_mins(10);
/// Ends in a row that make a crash loop.
const CRASH_LOOP_CRASHES: u32 = 5;
/// Restarts of the device under a release on watch before that is blamed for them: a power cut or two is no fault.
const WATCH_REBOOTS_MAX: u32 = 2;
/// Shortest time between two probes: asking must not become the device's main work.
const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Grace of a run that nobody remembers.
const UNKNOWN_STOP_GRACE: Duration = Duration::from_secs(10);

/// What is known of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Child {
    /// Nothing: the machine was just loaded.
    Unknown,
    /// The runner looks for a run.
    Attaching {
        /// The operation.
        operation: OperationId,
    },
    /// None runs.
    Down,
    /// None runs, until then.
    Backoff {
        /// When it is started again.
        until: Monotonic,
    },
    /// It is being started.
    Starting {
        /// The run.
        run: OperationId,
    },
    /// It runs.
    Up {
        /// The run.
        run: OperationId,
        /// Its process.
        pid: u32,
        /// Since when this agent knows it.
        since: Monotonic,
        /// Whether it said `READY=1`.
        ready: bool,
    },
    /// It was asked to end.
    Stopping {
        /// The run.
        run: OperationId,
        /// It is ended because its probe failed: that counts as a crash.
        unwell: bool,
    },
}

impl Child {
    pub(super) const fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Attaching { .. })
    }

    pub(super) const fn wakes_at(&self) -> Option<Monotonic> {
        match self {
            Self::Backoff { until } => Some(*until),
            _ => None,
        }
    }

    pub(super) const fn pid(&self) -> Option<u32> {
        match self {
            Self::Up { pid, .. } => Some(*pid),
            _ => None,
        }
    }

    pub(super) const fn phase(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Attaching { .. } => "attaching",
            Self::Down => "down",
            Self::Backoff { .. } => "backoff",
            Self::Starting { .. } => "starting",
            Self::Up { .. } => "up",
            Self::Stopping { .. } => "stopping",
        }
    }

    const fn run(&self) -> Option<OperationId> {
        match self {
            Self::Starting { run } | Self::Up { run, .. } | Self::Stopping { run, .. } => Some(*run),
            Self::Unknown | Self::Attaching { .. } | Self::Down | Self::Backoff { .. } => None,
        }
    }

    pub(super) fn run_state(&self, current: &Release, record: &WorkloadRecord, is_wanted: bool) -> RunState {
        let notifies = current.manifest.probe.check == ProbeCheck::Notify;
        match self {
            Self::Unknown | Self::Attaching { .. } => RunState::Unknown,
            _ if !is_wanted => RunState::Stopped,
            Self::Backoff { .. } if record.crashes >= CRASH_LOOP_CRASHES => RunState::CrashLoop,
            Self::Backoff { .. } => RunState::Backoff,
            Self::Up { ready: false, .. } if notifies => RunState::Starting,
            // A start and a wished restart take a moment: each word is a signed change, so they show as running.
            Self::Down | Self::Starting { .. } | Self::Up { .. } | Self::Stopping { .. } => RunState::Running,
        }
    }
}

/// How a running program is watched: until it proved itself, and by its probe ever after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vigil {
    /// When a release on watch must have proven itself.
    pub deadline: Option<Monotonic>,
    /// When it is asked next.
    pub probe_at: Option<Monotonic>,
    /// The asking that is under way.
    pub probe: Option<OperationId>,
    /// Good answers in a row.
    pub good: u8,
    /// Bad answers in a row.
    pub bad: u8,
    /// What the last bad answer was.
    pub last_bad: String,
}

impl Workload {
    pub(super) fn on_attached(&mut self, now: Now, operation: OperationId, found: Found, turn: &mut WorkloadTurn) {
        if self.child != (Child::Attaching { operation }) {
            return;
        }
        self.child = Child::Down;
        match if is_planted(Bug::DoubleStart) { Found::Gone } else { found } {
            Found::Gone => self.on_gone(turn),
            Found::Exited { run, exit } => {
                if self.record.run.as_ref().is_some_and(|remembered| remembered.operation == run) {
                    self.on_exited(now, exit, Duration::ZERO, false, turn);
                } else {
                    self.on_gone(turn);
                }
            }
            Found::Running { run, pid, ready } => self.on_found_running(now, run, pid, ready, turn),
        }
    }

    /// The device has restarted, or the run ended where nobody can say how.
    fn on_gone(&mut self, turn: &mut WorkloadTurn) {
        let Some(run) = self.record.run.take() else { return };
        if run.stopping || !self.is_watched(&run) {
            return;
        }
        if let Some(Install { step: Step::Watch { reboots }, .. }) = &mut self.record.install {
            *reboots += 1;
            if *reboots > WATCH_REBOOTS_MAX {
                let detail = format!("the device restarted {reboots} times while it was on watch");
                self.fail(Fault::new(FaultKind::Crashed, detail), turn);
            }
        }
    }

    fn on_found_running(&mut self, now: Now, run: OperationId, pid: u32, ready: bool, turn: &mut WorkloadTurn) {
        let remembered = self.record.run.take();
        let wanted = self.wanted().map(|wanted| (wanted.digest, wanted.manifest.stop_grace));
        let known = match (remembered, wanted) {
            (Some(remembered), _) if remembered.operation == run => remembered,
            // Only a record that was lost remembers no run: what runs then is what the folder calls current.
            (None, Some((digest, stop_grace))) => {
                Run { operation: run, manifest: Some(digest), stop_grace, stopping: false }
            }
            _ => Run { operation: run, manifest: None, stop_grace: UNKNOWN_STOP_GRACE, stopping: false },
        };
        let stopping = known.stopping;
        self.record.run = Some(known);
        self.child = Child::Up { run, pid, since: now.monotonic, ready: false };
        if stopping {
            return self.stop_run(false, turn);
        }
        self.begin_vigil(now);
        self.vigil.deadline = self.vigil.deadline.filter(|_| !is_planted(Bug::DeadlineLost));
        if ready {
            self.on_ready(turn);
        }
        if self.runs_current() {
            self.finish_restore(turn);
        }
    }

    pub(super) fn on_run(&mut self, now: Now, run: OperationId, event: RunEvent, turn: &mut WorkloadTurn) {
        if self.child.run() != Some(run) {
            return;
        }
        match event {
            RunEvent::Started { pid } => {
                if matches!(self.child, Child::Starting { .. }) {
                    self.child = Child::Up { run, pid, since: now.monotonic, ready: false };
                    self.begin_vigil(now);
                    self.finish_restore(turn);
                }
            }
            RunEvent::StartFailed { cause } => self.on_start_failed(now, &cause, turn),
            // Looking for it tells which one it is: one that is not remembered is ended before another starts.
            RunEvent::AlreadyRunning => self.child = Child::Unknown,
            RunEvent::Ready => self.on_ready(turn),
            RunEvent::Exited(exit) => {
                let lived = match self.child {
                    Child::Up { since, .. } => now.monotonic.since(since),
                    _ => Duration::ZERO,
                };
                let unwell = matches!(self.child, Child::Stopping { unwell: true, .. });
                self.on_exited(now, exit, lived, unwell, turn);
            }
        }
    }

    fn on_start_failed(&mut self, now: Now, cause: &str, turn: &mut WorkloadTurn) {
        let Some(run) = self.record.run.take() else { return };
        self.child = Child::Down;
        self.end_vigil(turn);
        if self.is_watched(&run) {
            return self.fail(Fault::new(FaultKind::Start, cause), turn);
        }
        self.finish_restore(turn);
        self.back_off(now, Duration::ZERO);
    }

    fn on_exited(&mut self, now: Now, exit: Exit, lived: Duration, unwell: bool, turn: &mut WorkloadTurn) {
        let Some(run) = self.record.run.take() else { return };
        self.child = Child::Down;
        self.end_vigil(turn);
        if run.stopping && !unwell {
            return;
        }
        self.record.exit = Some(exit);
        if self.is_watched(&run) {
            return self.fail(Fault::new(FaultKind::Crashed, exit), turn);
        }
        self.back_off(now, lived);
    }

    fn on_ready(&mut self, turn: &mut WorkloadTurn) {
        if let Child::Up { ready, .. } = &mut self.child {
            *ready = true;
        }
        let check = self.record.current.as_ref().map(|current| &current.manifest.probe.check);
        if self.watches_child() && matches!(check, Some(ProbeCheck::Alive | ProbeCheck::Notify)) {
            self.prove(turn);
        }
    }

    pub(super) fn on_probed(
        &mut self,
        now: Now,
        operation: OperationId,
        outcome: Result<(), String>,
        turn: &mut WorkloadTurn,
    ) {
        if self.vigil.probe != Some(operation) {
            return;
        }
        self.vigil.probe = None;
        let Some(probe) = self.record.current.as_ref().map(|current| current.manifest.probe.clone()) else { return };
        let watched = self.watches_child();
        self.vigil.probe_at = Some(now.monotonic + cadence(&probe, watched));
        match outcome {
            Ok(()) => {
                self.vigil.good = self.vigil.good.saturating_add(1);
                self.vigil.bad = 0;
                if watched && self.vigil.good >= probe.successes_min {
                    self.prove(turn);
                }
            }
            Err(seen) => {
                self.vigil.bad = self.vigil.bad.saturating_add(1);
                self.vigil.good = 0;
                self.vigil.last_bad = seen;
                // On watch only the deadline ends it: a program may take its grace time to come up.
                if !watched && probe.failures_max > 0 && self.vigil.bad >= probe.failures_max {
                    self.stop_run(true, turn);
                }
            }
        }
    }

    pub(super) fn on_vigil_timeout(&mut self, now: Now, turn: &mut WorkloadTurn) {
        if self.vigil.deadline.is_some_and(|at| at <= now.monotonic) {
            self.vigil.deadline = None;
            if self.watches_child() {
                self.on_watch_deadline(turn);
            }
        }
        if self.vigil.probe_at.is_some_and(|at| at <= now.monotonic) {
            self.vigil.probe_at = None;
            let Some(probe) = self.record.current.as_ref().map(|current| current.manifest.probe.clone()) else {
                return;
            };
            if matches!(self.child, Child::Up { .. }) {
                let operation = self.operation();
                self.vigil.probe = Some(operation);
                turn.effect(Effect::Probe { operation, check: probe.check, timeout: probe.timeout });
            }
        }
    }

    fn on_watch_deadline(&mut self, turn: &mut WorkloadTurn) {
        let Some(probe) = self.record.current.as_ref().map(|current| current.manifest.probe.clone()) else { return };
        let detail = match probe.check {
            ProbeCheck::Alive => return self.prove(turn),
            ProbeCheck::Notify => format!("not ready within {} s", probe.grace.as_secs()),
            _ if self.vigil.last_bad.is_empty() => format!("no answer within {} s", probe.grace.as_secs()),
            _ => format!("not well within {} s: {}", probe.grace.as_secs(), self.vigil.last_bad),
        };
        self.fail(Fault::new(FaultKind::Probe, detail), turn);
    }

    /// The release that should run now.
    pub(super) fn wanted(&self) -> Option<&Release> {
        let record = &self.record;
        let restoring = matches!(record.install, Some(Install { step: Step::Restore { switched: false, .. }, .. }));
        if record.stopped_locally || record.stopped_remotely || restoring || record.removal != Removal::None {
            return None;
        }
        record.current.as_ref().filter(|current| current.verdict != Verdict::MustStop)
    }

    /// Whether the current release runs as it should, or rests because somebody stopped it.
    pub(super) const fn is_well(&self) -> bool {
        !matches!(self.child, Child::Backoff { .. })
    }

    /// Brings the run to what it should be: started, stopped, or left alone.
    pub(super) fn tend_child(&mut self, now: Now, turn: &mut WorkloadTurn) {
        // While the folder is being switched nobody can say which release is current: it is started afterwards.
        let is_switching = matches!(self.record.install, Some(Install { step: Step::Switch(_), .. }));
        let wanted = self.wanted().map(|wanted| wanted.digest);
        match self.child {
            Child::Unknown => {
                let operation = self.operation();
                self.child = Child::Attaching { operation };
                turn.effect(Effect::Attach { operation });
            }
            Child::Attaching { .. } | Child::Stopping { .. } => {}
            // It is stopped once it is known to have started: a start and a stop must not overtake each other.
            Child::Starting { .. } => self.restart_asked = false,
            Child::Backoff { until } => {
                if wanted.is_none() || is_switching {
                    self.child = Child::Down;
                } else if until <= now.monotonic || self.restart_asked {
                    self.start_run(turn);
                }
            }
            Child::Down => {
                if wanted.is_some() && !is_switching {
                    self.start_run(turn);
                }
            }
            Child::Up { .. } => {
                if wanted.is_none() || !self.runs_current() || self.restart_asked {
                    self.stop_run(false, turn);
                }
            }
        }
        if self.child.is_known() {
            self.restart_asked = false;
        }
    }

    pub(super) fn end_backoff(&mut self) {
        self.record.crashes = 0;
        if matches!(self.child, Child::Backoff { .. }) {
            self.child = Child::Down;
        }
    }

    fn start_run(&mut self, turn: &mut WorkloadTurn) {
        assert!(self.record.run.is_none(), "{}: a second run would be started", self.name);
        let Some(wanted) = self.wanted() else { return };
        let program = Program {
            slot: wanted.slot(),
            manifest: wanted.manifest.clone(),
            configuration: wanted.configuration.clone(),
        };
        let (manifest, stop_grace) = (Some(wanted.digest), wanted.manifest.stop_grace);
        let operation = self.operation();
        self.record.run = Some(Run { operation, manifest, stop_grace, stopping: false });
        self.child = Child::Starting { run: operation };
        turn.effect(Effect::Start { operation, program });
    }

    fn stop_run(&mut self, unwell: bool, turn: &mut WorkloadTurn) {
        self.end_vigil(turn);
        if let Some(run) = &mut self.record.run {
            run.stopping = true;
            self.child = Child::Stopping { run: run.operation, unwell };
            turn.effect(Effect::Stop { grace: run.stop_grace });
        }
    }

    fn back_off(&mut self, now: Now, lived: Duration) {
        let record = &mut self.record;
        record.crashes = if lived >= STABLE_AFTER { 1 } else { record.crashes.saturating_add(1) };
        record.restarts = record.restarts.saturating_add(1);
        let ceiling = BACKOFF_FIRST.saturating_mul(1 << record.crashes.saturating_sub(1).min(16)).min(BACKOFF_LAST);
        self.child = Child::Backoff { until: now.monotonic + self.entropy.jitter(ceiling) };
    }

    /// Begins to watch a run that has just started, or was just taken up again.
    fn begin_vigil(&mut self, now: Now) {
        self.vigil = Vigil::default();
        let watched = self.watches_child();
        let Some(current) = self.record.current.as_ref() else { return };
        let probe = &current.manifest.probe;
        if watched {
            self.vigil.deadline = Some(now.monotonic + probe.grace);
        }
        if !matches!(probe.check, ProbeCheck::Alive | ProbeCheck::Notify) {
            self.vigil.probe_at = Some(now.monotonic + cadence(probe, watched));
        }
    }

    pub(super) fn end_vigil(&mut self, turn: &mut WorkloadTurn) {
        if let Some(operation) = self.vigil.probe {
            turn.effect(Effect::Cancel { operation });
        }
        self.vigil = Vigil::default();
    }

    /// The current release has proven itself.
    fn prove(&mut self, turn: &mut WorkloadTurn) {
        self.vigil.deadline = None;
        self.finish_watch(turn);
    }

    /// Whether `run` is of the release that is on watch.
    fn is_watched(&self, run: &Run) -> bool {
        matches!(self.record.install, Some(Install { step: Step::Watch { .. }, .. })) && self.is_of_current(run)
    }

    fn is_of_current(&self, run: &Run) -> bool {
        let current = self.record.current.as_ref().map(|current| current.digest);
        current.is_some() && run.manifest == current
    }

    fn runs_current(&self) -> bool {
        self.record.run.as_ref().is_some_and(|run| self.is_of_current(run))
    }

    fn watches_child(&self) -> bool {
        matches!(self.child, Child::Up { .. }) && self.record.run.as_ref().is_some_and(|run| self.is_watched(run))
    }
}

/// Time between two questions: on watch short enough for several within the grace time.
fn cadence(probe: &fleetd_sync_core::release::Probe, watched: bool) -> Duration {
    let cadence = if watched { probe.interval.min(probe.grace / 4) } else { probe.interval };
    cadence.max(PROBE_INTERVAL_MIN)
}
