//! The seam behind which workloads run: real processes in the product, simulated ones in the simulator.
//!
//! A runner starts work and returns at once; what comes of it arrives as [`RunnerEvent`]s, on whatever thread the
//! runner has. It never decides: when to start, whether a probe's answer means healthy and what to do about an
//! exit are the workload machine's decisions. [`process::ProcessRunner`] is the real one.

pub mod line;
pub mod process;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::id::{ArtifactDigest, OperationId};
use fleetd_sync_core::name::{Version, WorkloadName};

use crate::probe::{Probe, ProbeOutcome};
use line::{LineBatch, LinePosition};

/// Takes a runner's events. Called from the runner's own threads, so it only posts a message.
pub type RunnerEvents = Arc<dyn Fn(RunnerEvent) + Send + Sync>;

/// What to run, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpec {
    /// The workload; one run of it at a time.
    pub workload: WorkloadName,
    /// The version that runs, for people who look at the device.
    pub version: Version,
    /// The artifact that runs. A simulated runner takes the workload's behaviour from it.
    pub artifact: ArtifactDigest,
    /// The file to execute.
    pub program: PathBuf,
    /// What follows the program in argv.
    pub arguments: Vec<String>,
    /// The whole environment but what the shim adds: nothing is inherited from the agent.
    pub environment: Vec<(String, String)>,
    /// The workload's own directory, in which it starts and keeps its files: it becomes the property of `user`.
    pub directory: PathBuf,
    /// A user's name, a number, or `uid:gid`; without it the agent's own.
    pub user: Option<String>,
    /// What the run may use.
    pub limits: RunLimits,
}

/// What one run may use of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// Memory that one process of the run may map.
    ///
    /// # Units
    /// Bytes, as `RLIMIT_AS`; `None` sets no limit.
    pub memory_bytes_max: Option<u64>,
    /// Files that one process of the run may hold open.
    pub open_files_max: Option<u64>,
    /// Bytes of lines that are kept until they are acknowledged; beyond it the oldest go and leave a gap.
    pub line_bytes_max: u64,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self { memory_bytes_max: None, open_files_max: None, line_bytes_max: line::LINE_BYTES_MAX }
    }
}

/// Something that a runner saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerEvent {
    /// For what a run does: the operation that started it, also after a re-attachment. For an answer: the
    /// operation of the call that it answers.
    pub operation: OperationId,
    /// Whose event it is.
    pub workload: WorkloadName,
    /// What was seen.
    pub kind: RunnerEventKind,
}

/// What a runner can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerEventKind {
    /// The program has been executed.
    Started {
        /// Its process.
        pid: u32,
    },
    /// The program could not be executed; nothing of the run is left.
    StartFailed {
        /// Why.
        failure: StartFailure,
    },
    /// Answers [`Runner::attach`]; what the run does from now on follows as events of its own operation.
    Attached {
        /// What was found.
        found: Found,
    },
    /// The program said `READY=1` (sd_notify).
    Ready,
    /// The program said `STATUS=…` (sd_notify).
    StatusChanged {
        /// What it said.
        text: String,
    },
    /// The program said `WATCHDOG=1` (sd_notify).
    WatchdogKicked,
    /// The run is over: its process, and everything that the process left behind, is gone.
    Exited {
        /// How its process ended.
        status: ExitStatus,
    },
    /// Lines up to and with this position can be read. Several writes may be told as one.
    LinesWritten {
        /// The last one written.
        through: LinePosition,
    },
    /// Answers [`Runner::read_lines`].
    LinesRead {
        /// What was there.
        batch: LineBatch,
    },
    /// Answers [`Runner::read_lines`] when the lines cannot be read.
    LinesUnreadable {
        /// The operating system's text.
        cause: String,
    },
    /// Answers [`Runner::probe`].
    Probed {
        /// What the one probe gave.
        outcome: ProbeOutcome,
    },
}

/// Why a program was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartFailure {
    /// A run of this workload is still there: attach to it or stop it.
    #[error("{workload} already runs")]
    AlreadyRunning {
        /// The workload.
        workload: WorkloadName,
    },
    /// The operating system refused before the program was reached.
    #[error("the shim of {workload} did not start: {cause}")]
    Shim {
        /// The workload.
        workload: WorkloadName,
        /// What went wrong.
        cause: String,
    },
    /// The program itself could not be executed.
    #[error("{program} cannot be executed: {cause}")]
    Execute {
        /// The program.
        program: String,
        /// What went wrong.
        cause: String,
    },
}

/// What [`Runner::attach`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The run goes on and has been taken up again.
    Running {
        /// The operation that started it.
        run: OperationId,
        /// Its process.
        pid: u32,
        /// Whether it has said `READY=1`.
        ready: bool,
        /// The last line written so far.
        lines: LinePosition,
    },
    /// The run ended while nobody looked.
    Exited {
        /// The operation that started it.
        run: OperationId,
        /// How its process ended.
        status: ExitStatus,
    },
    /// No run is known: the device has rebooted, or it never ran.
    Gone,
}

/// How a run's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExitStatus {
    /// It ended by itself with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// Its shim was killed, and the process with it: how it would have ended is not known.
    Lost,
}

impl ExitStatus {
    /// Says whether the process ended by itself and reported success.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Lost => f.write_str("lost with its shim"),
        }
    }
}

/// Runs workloads: at most one run of each at a time.
///
/// Every method returns at once. A run outlives its runner: dropping the runner stops nothing.
pub trait Runner: Send + Sync + 'static {
    /// Starts a run. `operation` names the run from now on, also after the agent's restart.
    ///
    /// Answered by `Started` or `StartFailed`, then by what the run does, ended by one `Exited`.
    fn start(&self, operation: OperationId, spec: RunSpec, events: RunnerEvents);

    /// Looks for a run that an earlier runner started, and takes it up again. Answered by one `Attached`.
    ///
    /// A run has one follower: if this runner follows it already, what it does is still told to the first one only.
    fn attach(&self, operation: OperationId, workload: &WorkloadName, events: RunnerEvents);

    /// Asks the run's process group to end (TERM), and kills it (KILL) if any of it is left after `grace`.
    ///
    /// The stop is carried out even if the agent dies meanwhile. It ends in the run's `Exited`; with no run, in
    /// nothing.
    fn stop(&self, workload: &WorkloadName, grace: Duration);

    /// Reads lines after a position, oldest first, at most about `bytes_max` of them; from the oldest kept when
    /// `after` is `None` or names another log. Works also after the run has ended. Answered by `LinesRead` or
    /// `LinesUnreadable`.
    fn read_lines(
        &self,
        operation: OperationId,
        workload: &WorkloadName,
        after: Option<LinePosition>,
        bytes_max: usize,
        events: RunnerEvents,
    );

    /// Says that lines up to and with a position are safe elsewhere and may be dropped here.
    fn acknowledge_lines(&self, workload: &WorkloadName, through: LinePosition);

    /// Runs one probe, once. Answered by `Probed`.
    fn probe(&self, operation: OperationId, workload: &WorkloadName, probe: Probe, events: RunnerEvents);

    /// Gives up a probe that has not answered: it never will.
    fn cancel(&self, operation: OperationId);

    /// Names the workloads of which a run, alive or ended, or its lines are there.
    fn workloads(&self) -> Vec<WorkloadName>;
}
