//! The runner of real processes: starts shims, talks to them, and finds them again.

mod conversation;
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::name::WorkloadName;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_blocking};

use super::line::LinePosition;
use super::{Found, RunSpec, Runner, RunnerEvent, RunnerEventKind, RunnerEvents};
use crate::probe::{self, Probe};
use crate::shim;
use crate::shim::run_directory::RunDirectory;

/// How this program starts a shim: by itself, with these arguments before the shim's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimCommand {
    /// The program, which answers to `shim`.
    pub program: PathBuf,
    /// What selects the shim on its command line.
    pub arguments: Vec<String>,
}

impl ShimCommand {
    /// This very program, even if its file has been replaced since it was started.
    #[must_use]
    pub fn own(arguments: &[&str]) -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        }
    }
}

/// Runs workloads as real processes, each under its shim.
///
/// Dropping it stops nothing. Its events come from the tasks of the runtime it was made in.
#[derive(Clone, Debug)]
pub struct ProcessRunner {
    shared: Arc<Shared>,
    runtime: Handle,
}

/// What the runner's tasks share.
#[derive(Debug)]
struct Shared {
    run_directory: PathBuf,
    command: ShimCommand,
    active: Mutex<BTreeMap<WorkloadName, Active>>,
    probes: Mutex<BTreeMap<OperationId, AbortHandle>>,
}

/// A run that this runner follows, or is about to.
#[derive(Clone, Debug)]
struct Active {
    /// Tells two followers of one workload apart, of which the earlier may end after the later has begun.
    follower: OperationId,
    /// Whether a stop has been asked for, and its grace.
    stop: watch::Sender<Option<Duration>>,
    /// What an attachment finds: nothing until the shim has answered.
    found: watch::Sender<Option<Found>>,
}

/// Who follows a workload's run.
#[derive(Clone, Debug)]
enum Follow {
    /// The caller, from now on.
    Ours(Active),
    /// Another, already.
    Followed(Active),
}

impl Active {
    fn new(follower: OperationId) -> Self {
        Self { follower, stop: watch::Sender::new(None), found: watch::Sender::new(None) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are changed in one step each, so a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn directory(&self, workload: &WorkloadName) -> RunDirectory {
        RunDirectory::of(&self.run_directory, workload)
    }

    /// Becomes the follower of a workload's run; the one that is already there, if there is one.
    fn follow(&self, workload: &WorkloadName, follower: OperationId) -> Follow {
        let mut active = lock(&self.active);
        match active.get(workload) {
            Some(other) => Follow::Followed(other.clone()),
            None => {
                let own = Active::new(follower);
                active.insert(workload.clone(), own.clone());
                Follow::Ours(own)
            }
        }
    }

    fn unfollow(&self, workload: &WorkloadName, follower: OperationId) {
        let mut active = lock(&self.active);
        if active.get(workload).is_some_and(|run| run.follower == follower) {
            active.remove(workload);
        }
    }
}

impl ProcessRunner {
    /// Keeps what shims and agent share below `run_directory`. Called in a tokio runtime, in which it works from
    /// then on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(run_directory: impl Into<PathBuf>, command: ShimCommand) -> Self {
        let shared =
            Shared { run_directory: run_directory.into(), command, active: Mutex::default(), probes: Mutex::default() };
        Self { shared: Arc::new(shared), runtime: Handle::current() }
    }

    /// The directory that shims and agent share.
    #[must_use]
    pub fn run_directory(&self) -> &Path {
        &self.shared.run_directory
    }
}

fn send(events: &RunnerEvents, operation: OperationId, workload: &WorkloadName, kind: RunnerEventKind) {
    events(RunnerEvent { operation, workload: workload.clone(), kind });
}

impl Runner for ProcessRunner {
    fn start(&self, operation: OperationId, spec: RunSpec, events: RunnerEvents) {
        // Before this call returns, so that a stop that comes next finds the run.
        let follow = self.shared.follow(&spec.workload, operation);
        self.runtime.spawn(run::start(Arc::clone(&self.shared), follow, operation, spec, events));
    }

    fn attach(&self, operation: OperationId, workload: &WorkloadName, events: RunnerEvents) {
        let follow = self.shared.follow(workload, operation);
        self.runtime.spawn(run::attach(Arc::clone(&self.shared), follow, operation, workload.clone(), events));
    }

    fn stop(&self, workload: &WorkloadName, grace: Duration) {
        let active = lock(&self.shared.active).get(workload).cloned();
        match active {
            Some(active) => {
                active.stop.send_replace(Some(grace));
            }
            None => {
                let directory = self.shared.directory(workload);
                self.runtime.spawn(async move {
                    // With no shim there is nothing to stop.
                    let _no_shim = conversation::stop(&directory.socket(), grace).await;
                });
            }
        }
    }

    fn read_lines(
        &self,
        operation: OperationId,
        workload: &WorkloadName,
        after: Option<LinePosition>,
        bytes_max: usize,
        events: RunnerEvents,
    ) {
        let (directory, workload) = (self.shared.directory(workload).lines(), workload.clone());
        self.runtime.spawn(async move {
            let read = spawn_blocking(move || shim::read_lines(&directory, after, bytes_max)).await;
            let kind = match read {
                Ok(Ok(batch)) => RunnerEventKind::LinesRead { batch },
                Ok(Err(error)) => RunnerEventKind::LinesUnreadable { cause: format!("{error}: {}", error.source) },
                Err(error) => RunnerEventKind::LinesUnreadable { cause: error.to_string() },
            };
            send(&events, operation, &workload, kind);
        });
    }

    fn acknowledge_lines(&self, workload: &WorkloadName, through: LinePosition) {
        let directory = self.shared.directory(workload).lines();
        self.runtime.spawn_blocking(move || {
            // What stays is bounded by the shim, and dropped by the next acknowledgement.
            if let Err(error) = shim::acknowledge_lines(&directory, through) {
                tracing::debug!(%error, cause = %error.source, "acknowledged lines were not dropped");
            }
        });
    }

    fn probe(&self, operation: OperationId, workload: &WorkloadName, probe: Probe, events: RunnerEvents) {
        let (shared, workload) = (Arc::clone(&self.shared), workload.clone());
        let mut probes = lock(&self.shared.probes);
        // Under the lock, so that the task cannot end before its handle is in the map.
        let task = self.runtime.spawn(async move {
            let surroundings = run::surroundings(&shared.directory(&workload));
            let outcome = probe::ask(&probe, &surroundings).await;
            lock(&shared.probes).remove(&operation);
            send(&events, operation, &workload, RunnerEventKind::Probed { outcome });
        });
        probes.insert(operation, task.abort_handle());
    }

    fn cancel(&self, operation: OperationId) {
        if let Some(probe) = lock(&self.shared.probes).remove(&operation) {
            probe.abort();
        }
    }

    fn workloads(&self) -> Vec<WorkloadName> {
        RunDirectory::workloads(&self.shared.run_directory)
    }
}
