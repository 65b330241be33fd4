//! A workload's run: what is handed to the runner, and what the runner tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::address::Address;
use fleetd_actors::report::Exit;
use fleetd_actors::workload::{Found, Input, Program, RunEvent};
use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::release::ProbeCheck;

use super::{WorkloadDriver, environment};
use crate::cause::cause_of;
use crate::driver::Surroundings;
use crate::probe::{Probe, ProbeKind, ProbeOutcome};
use crate::runner::{self, ExitStatus, RunLimits, RunSpec, RunnerEvent, RunnerEventKind, RunnerEvents, StartFailure};

impl WorkloadDriver {
    /// Finds the program in the workload's folder and starts it.
    pub(super) fn start_run(&self, operation: OperationId, program: Program) {
        let (name, address, events) = (self.name.clone(), self.address.clone(), Arc::clone(&self.events));
        self.surroundings.run_blocking(move |surroundings| match run_spec(surroundings, &name, &program) {
            Ok(spec) => surroundings.seams.runner.start(operation, spec, events),
            Err(cause) => address.send(Input::Run { run: operation, event: RunEvent::StartFailed { cause } }),
        });
    }

    pub(super) fn probe(&self, operation: OperationId, check: ProbeCheck, timeout: Duration) {
        let kind = match check {
            ProbeCheck::Exec { argv } => ProbeKind::Exec { argv },
            ProbeCheck::Tcp { port } => ProbeKind::Tcp { port },
            ProbeCheck::Http { port, path } => ProbeKind::Http { port, path },
            // These are not asked: the one by its time, the other by its own word.
            ProbeCheck::Alive | ProbeCheck::Notify => return,
        };
        let events = Arc::clone(&self.events);
        self.surroundings.seams.runner.probe(operation, &self.name, Probe { kind, timeout }, events);
    }
}

/// What to run: the artifact in its slot, as its manifest says. Of the agent's own environment it gets nothing.
fn run_spec(surroundings: &Surroundings, workload: &WorkloadName, program: &Program) -> Result<RunSpec, String> {
    let installed = surroundings.seams.installer.installed(workload).map_err(|error| cause_of(&error))?;
    let wanted = super::slot(program.slot.clone());
    let releases = [installed.current, installed.previous];
    let staged = releases.into_iter().flatten().find(|staged| staged.slot == wanted);
    let staged = staged.ok_or_else(|| format!("there is no whole release in {}", wanted.folder_name()))?;
    // A program that has just begun has nothing to protect, and may not know of a lock that another one left.
    if let Err(error) = surroundings.seams.installer.remove_update_lock(workload) {
        tracing::warn!(%workload, error = cause_of(&error), "an update lock of before was not removed");
    }
    let update_lock = surroundings.seams.installer.update_lock(workload);
    let manifest = &program.manifest;
    let configured = surroundings.options.environments.get(workload);
    let given = environment::Given { configuration: program.configuration.as_deref(), files: &staged.files };
    let (filled, remarks) = environment::fill(&manifest.environment, &given, configured.unwrap_or(&BTreeMap::new()));
    for remark in remarks {
        tracing::warn!(%workload, version = %manifest.version, "{remark}");
    }
    let own = [
        ("FLEETD_WORKLOAD", workload.to_string()),
        ("FLEETD_VERSION", manifest.version.to_string()),
        ("FLEETD_DEVICE", surroundings.options.identity.local_id().to_string()),
        ("FLEETD_UPDATE_LOCK", update_lock.display().to_string()),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    Ok(RunSpec {
        workload: workload.clone(),
        version: manifest.version.clone(),
        artifact: wanted.artifact,
        program: staged.program,
        arguments: manifest.argv.clone(),
        environment: filled.into_iter().chain(own).collect(),
        directory: installed.data_directory,
        user: manifest.user.clone(),
        limits: RunLimits::default(),
    })
}

/// Hands on what the runner tells of one workload.
pub(super) fn events(address: Address<Input>, surroundings: Arc<Surroundings>) -> RunnerEvents {
    Arc::new(move |RunnerEvent { operation, workload, kind }| {
        let run = |event| Input::Run { run: operation, event };
        let input = match kind {
            RunnerEventKind::Started { pid } => run(RunEvent::Started { pid }),
            RunnerEventKind::StartFailed { failure: StartFailure::AlreadyRunning { .. } } => {
                run(RunEvent::AlreadyRunning)
            }
            RunnerEventKind::StartFailed { failure } => run(RunEvent::StartFailed { cause: failure.to_string() }),
            RunnerEventKind::Attached { found } => Input::Attached { operation, found: found_by(found) },
            RunnerEventKind::Ready => run(RunEvent::Ready),
            RunnerEventKind::Exited { status } => run(RunEvent::Exited(exit(status))),
            RunnerEventKind::Probed { outcome } => Input::Probed { operation, outcome: judge(outcome) },
            RunnerEventKind::StatusChanged { text } => {
                tracing::debug!(%workload, text, "the workload says how it is");
                return;
            }
            RunnerEventKind::LinesWritten { .. } => {
                if let Some(exchange) = surroundings.exchange() {
                    exchange.lines_written(&workload);
                }
                return;
            }
            RunnerEventKind::WatchdogKicked
            | RunnerEventKind::LinesRead { .. }
            | RunnerEventKind::LinesUnreadable { .. } => return,
        };
        address.send(input);
    })
}

const fn found_by(found: runner::Found) -> Found {
    match found {
        runner::Found::Running { run, pid, ready, .. } => Found::Running { run, pid, ready },
        runner::Found::Exited { run, status } => Found::Exited { run, exit: exit(status) },
        runner::Found::Gone => Found::Gone,
    }
}

const fn exit(status: ExitStatus) -> Exit {
    match status {
        ExitStatus::Code(code) => Exit::Code(code),
        ExitStatus::Signal(signal) => Exit::Signal(signal),
        ExitStatus::Lost => Exit::Lost,
    }
}

fn judge(outcome: ProbeOutcome) -> Result<(), String> {
    match outcome {
        ProbeOutcome::Good => Ok(()),
        ProbeOutcome::Bad { detail } => Err(detail),
        ProbeOutcome::TimedOut { waited } => Err(format!("no answer within {} ms", waited.as_millis())),
    }
}
