//! Why a step of the demo was not seen.

use std::path::PathBuf;
use std::process::ExitStatus;

use super::step::Step;
use crate::client::login::IntroduceError;
use crate::client::{CallError, ConnectError};

/// The demo did not see what it should have.
#[derive(Debug, thiserror::Error)]
#[error("demo failed at step {step}")]
pub struct DemoError {
    /// Where.
    pub step: Step,
    /// The last words of its processes, for whoever looks for the cause.
    pub last_words: String,
    /// Why.
    pub source: StepError,
}

/// Why a step was not seen.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It did not happen in time.
    #[error("waited {waited_seconds} s in vain for {awaited}")]
    Expired {
        /// What was waited for.
        awaited: String,
        /// How long.
        waited_seconds: u64,
    },
    /// A process that should run has ended.
    #[error("{process} ended: {status}")]
    Ended {
        /// Which.
        process: String,
        /// How.
        status: ExitStatus,
    },
    /// A command did not do what it was asked.
    #[error("`fleetd {command}` ended with {status}: {said}")]
    Command {
        /// Which.
        command: String,
        /// How.
        status: ExitStatus,
        /// What it wrote to its standard error.
        said: String,
    },
    /// A program's answer lacks something.
    #[error("`fleetd {command}` did not say its {field}")]
    Unsaid {
        /// Which program.
        command: String,
        /// What is missing, or cannot be read.
        field: &'static str,
    },
    /// The server does not prove that it serves the fleet that it announced.
    #[error("the server is not what it announced")]
    Introduce(#[source] Box<IntroduceError>),
    /// The API cannot be reached.
    #[error("the API cannot be reached")]
    Connect(#[from] ConnectError),
    /// A call failed.
    #[error("the API refused")]
    Call(#[from] CallError),
    /// The API says something else than it should.
    #[error("expected {expected}, and the API says {seen}")]
    Unexpected {
        /// What should be.
        expected: String,
        /// What is.
        seen: String,
    },
    /// A file cannot be used.
    #[error("{} cannot be {verb}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A process cannot be started, or a port not be had.
    #[error("{what} cannot be started")]
    Start {
        /// What.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

impl From<IntroduceError> for StepError {
    fn from(error: IntroduceError) -> Self {
        Self::Introduce(Box::new(error))
    }
}

impl StepError {
    /// Says what the API should have said, and what it says.
    pub(super) fn unexpected(expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::Unexpected { expected: expected.into(), seen: seen.into() }
    }
}
