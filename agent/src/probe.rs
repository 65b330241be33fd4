//! Probes: one question to a running workload, asked once.
//!
//! How often to ask, and how many answers in a row mean healthy, stands in [`ProbeSchedule`]; counting them is the
//! workload machine's part.

pub(crate) mod ask;

use std::time::Duration;

pub use ask::{ProbeSurroundings, ask};

/// Bytes of a probe's program output, or of an HTTP answer, that are kept to explain a failure.
pub const PROBE_DETAIL_BYTES_MAX: usize = 256;

/// One question to a running workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How to ask.
    pub kind: ProbeKind,
    /// Time in which the answer must have come.
    pub timeout: Duration,
}

/// How to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Runs a program in the workload's directory, as its user and with its environment; code 0 is good.
    Exec {
        /// The program and its arguments.
        argv: Vec<String>,
    },
    /// Connects to a port of the device itself.
    Tcp {
        /// The port.
        port: u16,
    },
    /// Sends `GET path` to a port of the device itself; a status from 200 to 399 is good.
    Http {
        /// The port.
        port: u16,
        /// The path, starting with `/`.
        path: String,
    },
}

/// How often to ask, and what the answers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSchedule {
    /// Time from the start to the first question.
    pub delay: Duration,
    /// Time from one question to the next.
    pub interval: Duration,
    /// Good answers in a row that mean healthy.
    pub successes: u32,
    /// Bad answers in a row that mean failed.
    pub failures: u32,
}

impl Default for ProbeSchedule {
    fn default() -> Self {
        Self { delay: Duration::ZERO, interval: Duration::from_secs(10), successes: 1, failures: 3 }
    }
}

/// What one probe gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The answer was good.
    Good,
    /// The answer was bad, or there was none.
    Bad {
        /// What was seen, for people.
        detail: String,
    },
    /// The answer did not come in time.
    TimedOut {
        /// How long was waited.
        waited: Duration,
    },
}

impl ProbeOutcome {
    /// Says whether the answer was good.
    #[must_use]
    pub fn is_good(&self) -> bool {
        *self == Self::Good
    }
}
