//! What somebody at the device may see, and what of their wishes is not durable yet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_actors::agent::AgentStatus;
use fleetd_actors::workload::WorkloadStatus;
use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::name::WorkloadName;

/// What somebody at the device may see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Where the device stands with its fleet and its server.
    pub agent: AgentStatus,
    /// What runs on it, by name.
    pub workloads: BTreeMap<WorkloadName, WorkloadStatus>,
}

/// Called after each change of the status: it only wakes somebody.
pub type StatusWake = Box<dyn Fn() + Send + Sync>;
/// Called once, when a command is durable. A command that is lost with its workload's queue is never answered.
pub type CommandDone = Box<dyn FnOnce() + Send>;

/// What is shown, to whom, and who waits.
#[derive(Default)]
pub(crate) struct StatusBoard {
    shown: Mutex<NodeStatus>,
    wakes: Mutex<Vec<StatusWake>>,
    commands: Mutex<BTreeMap<OperationId, CommandDone>>,
}

impl fmt::Debug for StatusBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusBoard").field("shown", &self.shown).finish_non_exhaustive()
    }
}

impl StatusBoard {
    pub(crate) fn status(&self) -> NodeStatus {
        lock(&self.shown).clone()
    }

    pub(crate) fn on_change(&self, wake: StatusWake) {
        lock(&self.wakes).push(wake);
    }

    pub(crate) fn show_agent(&self, status: AgentStatus) {
        lock(&self.shown).agent = status;
        self.wake();
    }

    pub(crate) fn show_workload(&self, workload: &WorkloadName, status: WorkloadStatus) {
        lock(&self.shown).workloads.insert(workload.clone(), status);
        self.wake();
    }

    pub(crate) fn await_command(&self, operation: OperationId, done: CommandDone) {
        lock(&self.commands).insert(operation, done);
    }

    pub(crate) fn command_done(&self, operation: OperationId) {
        let waiting = lock(&self.commands).remove(&operation);
        if let Some(done) = waiting {
            done();
        }
    }

    fn wake(&self) {
        lock(&self.wakes).iter().for_each(|wake| wake());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one step, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
