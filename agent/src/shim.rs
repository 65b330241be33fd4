//! The shim: one small process for each workload, which outlives the agent.
//!
//! `fleetd-agent shim` leaves the agent's session, starts the workload, holds its standard output and error, keeps
//! its exit status, and answers on a socket. The agent may be killed, updated and started again meanwhile: nothing
//! that runs notices. What the two share is one directory for each workload (see [`run_directory`]):
//!
//! - `lock` is held for as long as the shim lives. The kernel frees it when the shim ends, however it ends, so it
//!   is the one truth about whether a run is alive.
//! - `run.json` names the boot, the shim's and the workload's process, each by pid *and* start time, so that a
//!   recycled pid is never taken for either of them; at the end it gets the exit status, durably.
//! - `lines/` holds what the workload wrote, bounded; the agent reads it directly, also after the run.
//! - `socket` takes one request a line, as JSON, and tells whoever watches what changes.
//!
//! What happens when something is killed:
//!
//! - **The agent**: nothing. A stop that it had asked for is still carried out. Under systemd its unit must say
//!   `KillMode=process`, since the shims belong to the same control group.
//! - **The workload's process**: whatever it left behind is killed too, wherever it has hidden (the shim is the
//!   subreaper of everything below it), then the run is over.
//! - **The shim**: the kernel kills the workload's process (`PR_SET_PDEATHSIG`), so that none runs unseen; the agent
//!   ends what that process left behind, which it recognises by the run's id in the environment, and reports the
//!   run as lost.
//!
//! The workload is executed by a second stage, `shim --execute`, in a fresh process: it takes the user, the limits
//! and the death signal upon itself, which only a process itself can do, and becomes the workload. No step needs
//! root unless the workload has a user of its own.

mod execute;
pub(crate) mod hold;
mod line_log;
mod line_splitter;
mod look;
pub(crate) mod process;
pub(crate) mod protocol;
pub mod run_directory;
pub(crate) mod spec;

use std::path::PathBuf;
use std::process::ExitCode;

use fleetd_sync_core::id::OperationId;

pub(crate) use execute::{DEFAULT_PATH, find_user};
pub use line_log::{LineLogError, acknowledge_lines, last_position, read_lines};
pub(crate) use look::{ShimLook, look};
pub(crate) use process::kill_leftovers;

/// The variable by which every process of a run can be recognised.
pub const RUN_VARIABLE: &str = "FLEETD_RUN";

/// The arguments of `fleetd-agent shim`.
#[derive(Clone, Debug, clap::Args)]
pub struct ShimArguments {
    /// The workload's run directory, which holds the spec
    #[arg(long, value_name = "PATH")]
    pub directory: PathBuf,
    /// The operation that starts this run
    #[arg(long, value_name = "ID")]
    pub run: OperationId,
    /// Becomes the workload of the shim with this pid
    #[arg(long, value_name = "PID", hide = true)]
    pub execute: Option<u32>,
}

/// Runs a shim, or its second stage, to its end.
#[must_use]
pub fn run(arguments: &ShimArguments) -> ExitCode {
    match arguments.execute {
        Some(holder) => execute::run(arguments, holder),
        None => hold::run(arguments),
    }
}
