//! Runs of workloads in the world: what a program does is scripted by its artifact's digest.

mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_agent::probe::{Probe, ProbeOutcome};
use fleetd_agent::runner::line::LinePosition;
use fleetd_agent::runner::{ExitStatus, Found, RunSpec, Runner, RunnerEvent, RunnerEventKind, RunnerEvents};
use fleetd_sync_core::id::{ArtifactDigest, OperationId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::{Monotonic, Wall};

use self::lines::Lines;
use crate::fuse::Fuse;
use crate::observation::{Observation, Tap};
use crate::world::World;

/// The environment variable that a configuration of the world fills.
pub(crate) const ROAST: &str = "ROAST";
/// The value of it with which no program is well.
const BURNT: &str = "burnt";
/// When a program crashes that got it, after its start.
const BURNT_AFTER: Duration = Duration::from_secs(2);

/// Time from a start until the program has been executed.
const START_DELAY: Duration = Duration::from_millis(20);

/// The signals that end a program: one that it may ignore, and one that it may not.
const TERM: i32 = 15;
const KILL: i32 = 9;

/// What a program does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// It ends with code 1 after this time, every time.
    pub crashes_after: Option<Duration>,
    /// It never says READY and fails every probe.
    pub is_sick: bool,
    /// It says READY and fails every probe.
    pub fails_probes: bool,
    /// It says READY and answers probes only after this time.
    pub ready_after: Duration,
    /// It, or a process that it leaves behind, goes on when it is asked to end: all of it is gone only when the
    /// grace time is over and the rest was killed.
    pub ignores_term: bool,
}

struct Run {
    operation: OperationId,
    number: u64,
    pid: u32,
    artifact: ArtifactDigest,
    behaviour: Behaviour,
    started: Monotonic,
    ended: Option<ExitStatus>,
    events: RunnerEvents,
}

impl Run {
    fn is_ready(&self, now: Monotonic) -> bool {
        !self.behaviour.is_sick && now.since(self.started) >= START_DELAY * 2 + self.behaviour.ready_after
    }
}

struct State {
    behaviours: BTreeMap<ArtifactDigest, Behaviour>,
    runs: BTreeMap<WorkloadName, Run>,
    started: Vec<(WorkloadName, ArtifactDigest)>,
    next: u64,
    lines: Lines,
    /// Time between two lines of a program; `None`: programs write nothing.
    line_interval: Option<Duration>,
    /// The device lies: it says that everything runs and is well, and runs nothing.
    lies: bool,
}

/// The programs of one device.
#[derive(Clone)]
pub struct NodeRunner {
    node: Arc<str>,
    world: World,
    tap: Tap,
    fuse: Fuse,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for NodeRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeRunner({})", self.node)
    }
}

impl NodeRunner {
    /// A device on which nothing runs.
    #[must_use]
    pub fn new(node: &str, world: World, tap: Tap) -> Self {
        let (behaviours, runs, started) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let lines = Lines::default();
        let state = State { behaviours, runs, started, next: 1, lines, line_interval: None, lies: false };
        Self { node: node.into(), world, tap, fuse: Fuse::default(), state: Arc::new(Mutex::new(state)) }
    }

    /// Gives it a fuse that may end its node.
    #[must_use]
    pub fn with(self, fuse: Fuse) -> Self {
        Self { fuse, ..self }
    }

    /// Lets it say from now on that every program runs and is well, whatever the program does.
    pub fn lie(&self) {
        self.lock().lies = true;
    }

    /// Ends the program of every workload once, with code 1.
    pub fn end_programs(&self) {
        let runs: Vec<_> = self.lock().runs.iter().map(|(workload, run)| (workload.clone(), run.number)).collect();
        for (workload, number) in runs {
            self.end(&workload, number, ExitStatus::Code(1));
        }
    }

    /// The artifact that a workload runs now.
    #[must_use]
    pub fn running(&self, workload: &WorkloadName) -> Option<ArtifactDigest> {
        let state = self.lock();
        state.runs.get(workload).filter(|run| run.ended.is_none()).map(|run| run.artifact)
    }

    /// Lets every program that starts from now on write so many lines an hour.
    pub fn write_lines(&self, per_hour: u32) {
        self.lock().line_interval = Duration::from_hours(1).checked_div(per_hour);
    }

    /// Says what the program in an artifact does.
    pub fn script(&self, artifact: ArtifactDigest, behaviour: Behaviour) {
        self.lock().behaviours.insert(artifact, behaviour);
    }

    /// The artifacts that were started, in order.
    #[must_use]
    pub fn started(&self) -> Vec<ArtifactDigest> {
        self.lock().started.iter().map(|(_, artifact)| *artifact).collect()
    }

    /// The process of a workload that runs.
    #[must_use]
    pub fn pid(&self, workload: &WorkloadName) -> Option<u32> {
        self.lock().runs.get(workload).filter(|run| run.ended.is_none()).map(|run| run.pid)
    }

    /// Ends every run as a power cut does: without a word.
    pub fn reboot(&self) {
        let mut state = self.lock();
        state.runs.clear();
        state.lines.lose();
    }

    /// Has a run write its next line, as long as it goes on.
    fn write_later(&self, workload: &WorkloadName, number: u64) {
        let Some(interval) = self.lock().line_interval else { return };
        let (runner, workload) = (self.clone(), workload.clone());
        let subject = format!("{}/{workload}", self.node);
        self.world.schedule(interval, &subject, b"line", move || runner.write(&workload, number));
    }

    fn write(&self, workload: &WorkloadName, number: u64) {
        let wall = Wall(i64::try_from(self.world.monotonic().since(Monotonic(0)).as_millis()).unwrap_or(0));
        let mut state = self.lock();
        let State { runs, lines, .. } = &mut *state;
        let Some(run) = runs.get(workload).filter(|run| run.number == number && run.ended.is_none()) else { return };
        let (at, body) = lines.write(workload, wall);
        self.tap.note(|| {
            let (node, workload) = (Arc::clone(&self.node), workload.clone());
            Observation::Wrote { node, workload, at, body: body.into() }
        });
        let (events, operation) = (Arc::clone(&run.events), run.operation);
        drop(state);
        let kind = RunnerEventKind::LinesWritten { through: at };
        self.tell(Duration::ZERO, &events, RunnerEvent { operation, workload: workload.clone(), kind });
        self.write_later(workload, number);
    }

    fn tell(&self, delay: Duration, events: &RunnerEvents, event: RunnerEvent) {
        let (events, subject) = (Arc::clone(events), format!("{}/{}", self.node, event.workload));
        let what = format!("{:?}", event.kind);
        self.world.schedule(delay, &subject, what.as_bytes(), move || events(event));
    }

    /// Has a run say READY later, to whoever follows it then.
    fn tell_ready(&self, workload: &WorkloadName, number: u64, after: Duration) {
        let (runner, workload) = (self.clone(), workload.clone());
        let subject = format!("{}/{workload}", self.node);
        self.world.schedule(after, &subject, b"ready", move || {
            let state = runner.lock();
            let run = state.runs.get(&workload).filter(|run| run.number == number && run.ended.is_none());
            let Some((operation, events)) = run.map(|run| (run.operation, Arc::clone(&run.events))) else { return };
            drop(state);
            events(RunnerEvent { operation, workload, kind: RunnerEventKind::Ready });
        });
    }

    /// Ends a run, if it is still the one that was meant.
    fn end(&self, workload: &WorkloadName, number: u64, status: ExitStatus) {
        let mut state = self.lock();
        let Some(run) = state.runs.get_mut(workload) else { return };
        if run.number != number || run.ended.is_some() {
            return;
        }
        run.ended = Some(status);
        self.tap.note(|| Observation::Ended { node: Arc::clone(&self.node), workload: workload.clone() });
        let (events, operation) = (Arc::clone(&run.events), run.operation);
        drop(state);
        let event = RunnerEvent { operation, workload: workload.clone(), kind: RunnerEventKind::Exited { status } };
        self.tell(Duration::ZERO, &events, event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner for NodeRunner {
    fn start(&self, operation: OperationId, spec: RunSpec, events: RunnerEvents) {
        if !self.fuse.spend() {
            return;
        }
        let mut state = self.lock();
        let scripted = state.behaviours.get(&spec.artifact).copied().unwrap_or_default();
        let is_burnt = spec.environment.iter().any(|(name, value)| name == ROAST && value == BURNT);
        let scripted = if is_burnt {
            Behaviour { crashes_after: Some(BURNT_AFTER), is_sick: true, ..Behaviour::default() }
        } else {
            scripted
        };
        let (number, behaviour) = (state.next, if state.lies { Behaviour::default() } else { scripted });
        state.next += 1;
        let is_running = state.runs.get(&spec.workload).is_some_and(|run| run.ended.is_none());
        assert!(!is_running, "{} was started twice on {}", spec.workload, self.node);
        let pid = u32::try_from(number).unwrap_or(u32::MAX);
        state.started.push((spec.workload.clone(), spec.artifact));
        self.tap.note(|| {
            let (node, workload, program) = (Arc::clone(&self.node), spec.workload.clone(), spec.program.clone());
            Observation::Started { node, workload, artifact: spec.artifact, run: operation, program }
        });
        let (artifact, started) = (spec.artifact, self.world.monotonic());
        let run =
            Run { operation, number, pid, artifact, behaviour, started, ended: None, events: Arc::clone(&events) };
        state.runs.insert(spec.workload.clone(), run);
        drop(state);
        let event = |kind| RunnerEvent { operation, workload: spec.workload.clone(), kind };
        self.tell(START_DELAY, &events, event(RunnerEventKind::Started { pid }));
        if !behaviour.is_sick {
            self.tell_ready(&spec.workload, number, START_DELAY * 2 + behaviour.ready_after);
        }
        self.write_later(&spec.workload, number);
        if let Some(after) = behaviour.crashes_after {
            let (runner, workload) = (self.clone(), spec.workload);
            let subject = format!("{}/{workload}", self.node);
            self.world.schedule(START_DELAY + after, &subject, b"crash", move || {
                runner.end(&workload, number, ExitStatus::Code(1));
            });
        }
    }

    fn attach(&self, operation: OperationId, workload: &WorkloadName, events: RunnerEvents) {
        if !self.fuse.spend() {
            return;
        }
        let now = self.world.monotonic();
        let mut state = self.lock();
        let lines = state.lines.end(workload);
        let found = match state.runs.get_mut(workload) {
            None => Found::Gone,
            Some(run) => {
                run.events = Arc::clone(&events);
                match run.ended {
                    Some(status) => Found::Exited { run: run.operation, status },
                    None => Found::Running { run: run.operation, pid: run.pid, ready: run.is_ready(now), lines },
                }
            }
        };
        drop(state);
        let kind = RunnerEventKind::Attached { found };
        self.tell(START_DELAY, &events, RunnerEvent { operation, workload: workload.clone(), kind });
    }

    fn stop(&self, workload: &WorkloadName, grace: Duration) {
        if !self.fuse.spend() {
            return;
        }
        self.tap.note(|| Observation::Stopped { node: Arc::clone(&self.node), workload: workload.clone() });
        let run = self.lock().runs.get(workload).map(|run| (run.number, run.behaviour.ignores_term));
        let Some((number, ignores_term)) = run else { return };
        let (after, signal) = if ignores_term { (grace, KILL) } else { (Duration::ZERO, TERM) };
        let (runner, workload) = (self.clone(), workload.clone());
        let subject = format!("{}/{workload}", self.node);
        self.world.schedule(START_DELAY + after, &subject, b"stop", move || {
            runner.end(&workload, number, ExitStatus::Signal(signal));
        });
    }

    fn read_lines(
        &self,
        operation: OperationId,
        workload: &WorkloadName,
        after: Option<LinePosition>,
        bytes_max: usize,
        events: RunnerEvents,
    ) {
        let kind = RunnerEventKind::LinesRead { batch: self.lock().lines.read(workload, after, bytes_max) };
        self.tell(Duration::ZERO, &events, RunnerEvent { operation, workload: workload.clone(), kind });
    }

    fn acknowledge_lines(&self, workload: &WorkloadName, through: LinePosition) {
        self.lock().lines.release(workload, through);
        self.tap.note(|| Observation::Released { node: Arc::clone(&self.node), workload: workload.clone(), through });
    }

    fn probe(&self, operation: OperationId, workload: &WorkloadName, _probe: Probe, events: RunnerEvents) {
        if !self.fuse.spend() {
            return;
        }
        let now = self.world.monotonic();
        let is_well = self
            .lock()
            .runs
            .get(workload)
            .is_some_and(|run| run.ended.is_none() && run.is_ready(now) && !run.behaviour.fails_probes);
        let outcome =
            if is_well { ProbeOutcome::Good } else { ProbeOutcome::Bad { detail: "nobody answers".to_owned() } };
        let kind = RunnerEventKind::Probed { outcome };
        self.tell(START_DELAY, &events, RunnerEvent { operation, workload: workload.clone(), kind });
    }

    fn cancel(&self, _operation: OperationId) {}

    fn workloads(&self) -> Vec<WorkloadName> {
        let state = self.lock();
        let workloads: BTreeSet<_> = state.runs.keys().chain(state.lines.workloads()).cloned().collect();
        workloads.into_iter().collect()
    }
}
