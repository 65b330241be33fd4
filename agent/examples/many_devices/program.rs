//! Programs that say nothing, and run well but on devices where each fails at once: what a device does with one is its
//! agent's business, which is what is measured.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_agent::probe::{Probe, ProbeOutcome};
use fleetd_agent::runner::line::{LineBatch, LinePosition};
use fleetd_agent::runner::{ExitStatus, Found, RunSpec, Runner, RunnerEvent, RunnerEventKind, RunnerEvents};
use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::name::WorkloadName;

/// The process that every program claims to be.
const PID: u32 = 2;
/// The signal that ends a program.
const TERM: i32 = 15;
/// What a program says at its end where it fails.
const FAILED: i32 = 3;

/// The programs of one device.
pub(crate) struct Programs {
    running: Mutex<BTreeMap<WorkloadName, (OperationId, RunnerEvents)>>,
    blocking: Arc<dyn Blocking>,
    is_failing: bool,
}

impl Programs {
    pub(crate) fn new(blocking: Arc<dyn Blocking>, is_failing: bool) -> Self {
        Self { running: Mutex::default(), blocking, is_failing }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<WorkloadName, (OperationId, RunnerEvents)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells something from another thread, as a runner does.
    fn tell(&self, operation: OperationId, workload: &WorkloadName, events: &RunnerEvents, kind: RunnerEventKind) {
        let (events, event) = (Arc::clone(events), RunnerEvent { operation, workload: workload.clone(), kind });
        self.blocking.run(Box::new(move || events(event)));
    }
}

impl Runner for Programs {
    fn start(&self, operation: OperationId, spec: RunSpec, events: RunnerEvents) {
        if !self.is_failing {
            self.running().insert(spec.workload.clone(), (operation, Arc::clone(&events)));
        }
        let event = |kind| RunnerEvent { operation, workload: spec.workload.clone(), kind };
        let (started, ready) = (event(RunnerEventKind::Started { pid: PID }), event(RunnerEventKind::Ready));
        let failed = event(RunnerEventKind::Exited { status: ExitStatus::Code(FAILED) });
        let second = if self.is_failing { failed } else { ready };
        self.blocking.run(Box::new(move || {
            events(started);
            events(second);
        }));
    }

    fn attach(&self, operation: OperationId, workload: &WorkloadName, events: RunnerEvents) {
        let found = match self.running().get_mut(workload) {
            None => Found::Gone,
            Some((run, told)) => {
                *told = Arc::clone(&events);
                Found::Running { run: *run, pid: PID, ready: true, lines: LinePosition::default() }
            }
        };
        self.tell(operation, workload, &events, RunnerEventKind::Attached { found });
    }

    fn stop(&self, workload: &WorkloadName, _grace: Duration) {
        if let Some((run, events)) = self.running().remove(workload) {
            self.tell(run, workload, &events, RunnerEventKind::Exited { status: ExitStatus::Signal(TERM) });
        }
    }

    fn read_lines(
        &self,
        operation: OperationId,
        workload: &WorkloadName,
        _after: Option<LinePosition>,
        _bytes_max: usize,
        events: RunnerEvents,
    ) {
        self.tell(operation, workload, &events, RunnerEventKind::LinesRead { batch: LineBatch::default() });
    }

    fn acknowledge_lines(&self, _workload: &WorkloadName, _through: LinePosition) {}

    fn probe(&self, operation: OperationId, workload: &WorkloadName, _probe: Probe, events: RunnerEvents) {
        let is_well = self.running().contains_key(workload);
        let bad = || ProbeOutcome::Bad { detail: "it does not run".to_owned() };
        let outcome = if is_well { ProbeOutcome::Good } else { bad() };
        self.tell(operation, workload, &events, RunnerEventKind::Probed { outcome });
    }

    fn cancel(&self, _operation: OperationId) {}

    fn workloads(&self) -> Vec<WorkloadName> {
        self.running().keys().cloned().collect()
    }
}
