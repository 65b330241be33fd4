//! What a failed call means: no connection, no answer, or a refusal with the server's own words.

use std::error::Error as _;

use fleetd_proto::fleetd::common::v1::Error;
use fleetd_proto::google;
use prost::Message as _;
use tonic::{Code, Status};

use super::connect::{self, ConnectError};
use crate::error::CommandError;
use crate::exit::Exit;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error("there is no connection to the server")]
    Connect(#[from] ConnectError),
    /// The connection was lost.
    #[error("the connection to the server was lost")]
    Lost {
        /// What the transport says.
        reason: String,
    },
    /// The server did not answer in time.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The server refused, and said why.
    #[error("{}", error.message)]
    Refused {
        /// Its kind.
        code: Code,
        /// Its words.
        error: Box<Error>,
    },
    /// Something between here and the server refused, or the server without words.
    #[error("the call ended with {code:?}")]
    Bare {
        /// Its kind.
        code: Code,
        /// What came with it.
        message: String,
    },
    /// An answer lacks what it must have.
    #[error("the server's answer has no {field}")]
    Incomplete {
        /// What is missing.
        field: &'static str,
    },
}

impl CallError {
    /// Whether the same call may well succeed on a new connection.
    #[must_use]
    pub fn is_lost_connection(&self) -> bool {
        match self {
            Self::Connect(error) => {
                matches!(error, ConnectError::Unreachable { .. } | ConnectError::TimedOut { .. })
            }
            Self::Lost { .. } => true,
            Self::Refused { code, .. } | Self::Bare { code, .. } => *code == Code::Unavailable,
            Self::TimedOut | Self::Incomplete { .. } => false,
        }
    }

    /// The server's name for what went wrong (`device.unknown`); empty when it said none.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { error, .. } => &error.code,
            _ => "",
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let code = status.code();
        if let Some(error) = error_of(&status) {
            return Self::Refused { code, error: Box::new(error) };
        }
        // Only what this end made of a broken transport has a source; what a server sent has none.
        if let Some(source) = status.source() {
            if let Some(error) = connect::find(source) {
                return Self::Connect(error);
            }
            if !matches!(code, Code::Cancelled | Code::DeadlineExceeded) {
                return Self::Lost { reason: crate::error::chain(source) };
            }
        }
        match code {
            Code::DeadlineExceeded => Self::TimedOut,
            Code::Cancelled if status.message().to_ascii_lowercase().contains("timeout") => Self::TimedOut,
            _ => Self::Bare { code, message: status.message().to_owned() },
        }
    }
}

fn error_of(status: &Status) -> Option<Error> {
    let envelope = google::rpc::Status::decode(status.details()).ok()?;
    envelope.details.iter().find_map(|detail| detail.to_msg::<Error>().ok()).filter(|error| !error.code.is_empty())
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Connect(error) => error.into(),
            CallError::Lost { ref reason } => Self::new("server.connection_lost", error.to_string())
                .cause(reason.as_str())
                .next_command("fleetd doctor"),
            CallError::TimedOut => Self::new("server.timed_out", error.to_string()).next_command("fleetd doctor"),
            CallError::Incomplete { .. } => Self::new("server.incomplete_answer", error.to_string())
                .cause("the server may be of another version of fleetd")
                .next_command("fleetd doctor"),
            CallError::Refused { code, error } => refused(code, *error),
            CallError::Bare { code, ref message } => Self::new(bare_code(code), error.to_string())
                .cause(message.as_str())
                .next_command(next_for(code))
                .exit(exit_for(code, "")),
        }
    }
}

fn refused(code: Code, error: Error) -> CommandError {
    let exit = exit_for(code, &error.code);
    let next = if error.next_command.is_empty() { next_for(code).to_owned() } else { error.next_command };
    let mut refusal = CommandError::told(error.code, error.message).cause(error.details).next_command(next).exit(exit);
    refusal.help_url = Some(error.help_url.into_boxed_str()).filter(|url| !url.is_empty());
    refusal
}

fn exit_for(code: Code, name: &str) -> Exit {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => Exit::Unauthenticated,
        _ if name == "rollout.plan_stale" => Exit::StalePlan,
        _ => Exit::Error,
    }
}

const fn next_for(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "fleetd login URL --token -",
        Code::PermissionDenied => "fleetd whoami",
        Code::Unavailable | Code::Internal | Code::Unknown => "fleetd doctor",
        Code::InvalidArgument => "the same command with --help tells what it takes",
        _ => "",
    }
}

const fn bare_code(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "rpc.cancelled",
        Code::InvalidArgument => "rpc.invalid_argument",
        Code::OutOfRange => "rpc.out_of_range",
        Code::ResourceExhausted => "rpc.resource_exhausted",
        Code::Unauthenticated => "rpc.unauthenticated",
        Code::PermissionDenied => "rpc.permission_denied",
        Code::Unimplemented => "rpc.unimplemented",
        Code::Internal => "rpc.internal",
        Code::Unavailable => "rpc.unavailable",
        Code::Unknown => "rpc.unknown",
        // Neither a server of fleetd nor a proxy before it ends a call so without words.
        Code::Ok
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::DataLoss => "rpc.unexpected",
    }
}

impl From<ConnectError> for CommandError {
    fn from(error: ConnectError) -> Self {
        let cause = std::error::Error::source(&error).map(crate::error::chain).unwrap_or_default();
        let (code, next) = match &error {
            ConnectError::Unreachable { .. } => ("server.unreachable", "fleetd doctor"),
            ConnectError::TimedOut { .. } => ("server.timed_out", "fleetd doctor"),
            ConnectError::Tls { .. } => ("server.no_tls", "fleetd doctor"),
            ConnectError::Http { .. } => ("server.no_http2", "fleetd doctor"),
            ConnectError::NotBelieved { .. } => {
                ("server.not_believed", "fleetd login URL --fleet flt_…   (with the fleet id that `serve` printed)")
            }
        };
        Self::new(code, error.to_string()).cause(cause).next_command(next)
    }
}
