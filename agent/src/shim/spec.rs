//! What the agent tells a shim to run, and what a shim tells of its run: two small JSON files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::process::ProcessIdentity;
use crate::runner::{ExitStatus, RunSpec};

/// What to run, as the agent writes it for the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimSpec {
    pub(crate) run: String,
    pub(crate) workload: String,
    pub(crate) version: String,
    pub(crate) artifact: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) directory: PathBuf,
    pub(crate) user: Option<String>,
    pub(crate) memory_bytes_max: Option<u64>,
    pub(crate) open_files_max: Option<u64>,
    pub(crate) line_bytes_max: u64,
    /// What stands before the shim's own arguments on its command line (`shim`, or `agent shim`).
    pub(crate) shim_arguments: Vec<String>,
}

impl ShimSpec {
    pub(crate) fn new(run: String, spec: RunSpec, shim_arguments: Vec<String>) -> Self {
        Self {
            run,
            workload: spec.workload.to_string(),
            version: spec.version.to_string(),
            artifact: spec.artifact.to_string(),
            program: spec.program,
            arguments: spec.arguments,
            environment: spec.environment,
            directory: spec.directory,
            user: spec.user,
            memory_bytes_max: spec.limits.memory_bytes_max,
            open_files_max: spec.limits.open_files_max,
            line_bytes_max: spec.limits.line_bytes_max,
            shim_arguments,
        }
    }
}

/// A run, as its shim writes it for the agent: at its start, when the workload has a process, and at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub(crate) run: String,
    /// The boot in which the processes below have their pids.
    pub(crate) boot: String,
    pub(crate) shim: ProcessIdentity,
    pub(crate) child: Option<ProcessIdentity>,
    pub(crate) exit: Option<ExitRecord>,
}

/// How a run ended, as far as its shim saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ExitRecord {
    /// The workload's process ended with a code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl From<ExitRecord> for ExitStatus {
    fn from(exit: ExitRecord) -> Self {
        match exit {
            ExitRecord::Code(code) => Self::Code(code),
            ExitRecord::Signal(signal) => Self::Signal(signal),
        }
    }
}
