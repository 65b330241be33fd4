//! What is said on a shim's socket: one JSON value a line, requests one way and states the other.
//!
//! Unknown fields are ignored, so that an agent can talk to the shims of the version before it.

use serde::{Deserialize, Serialize};

use crate::runner::line::LinePosition;

/// Bytes of one line of the protocol: a status text and some numbers.
pub(crate) const MESSAGE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a status text that are kept.
pub(crate) const STATUS_TEXT_BYTES_MAX: usize = 1024;

/// What may be asked of a shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Answer with the state once.
    Status,
    /// Answer with the state now and whenever it changes.
    Watch,
    /// Send TERM to the process group, and KILL to what is left after the grace.
    Stop {
        /// The grace.
        grace_ms: u64,
    },
    /// The second stage is about to execute the workload: if the connection ends without a word, it has.
    Executing,
    /// The second stage could not execute the workload.
    ExecuteFailed {
        /// Why.
        cause: String,
    },
}

/// The state of a run, as its shim tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ShimState {
    /// The operation that started the run.
    pub(crate) run: String,
    /// The workload's process, once it has been executed.
    pub(crate) pid: Option<u32>,
    /// Whether it has said `READY=1`.
    pub(crate) ready: bool,
    /// What it last said with `STATUS=`.
    pub(crate) status_text: Option<String>,
    /// How often it has said `WATCHDOG=1`.
    pub(crate) watchdog_kicks: u64,
    /// The line log's stamp.
    pub(crate) lines_stamp: u64,
    /// The last line's number.
    pub(crate) lines_through: u64,
}

impl ShimState {
    pub(crate) fn lines(&self) -> LinePosition {
        LinePosition { stamp: fleetd_sync_core::id::Stamp(self.lines_stamp), sequence: self.lines_through }
    }
}

/// The one line that a shim prints when the start has succeeded or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StartReport {
    /// The workload has been executed.
    Started {
        /// Its process.
        pid: u32,
    },
    /// Another shim holds the directory.
    AlreadyRunning,
    /// The shim could not do its part.
    ShimFailed {
        /// Why.
        cause: String,
    },
    /// The workload could not be executed.
    ExecuteFailed {
        /// Why.
        cause: String,
    },
}

/// One line of the protocol, with its newline.
pub(crate) fn encode_line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}
