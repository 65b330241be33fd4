//! The exit codes, which scripts read.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked.
    Ok,
    /// It did not.
    Error,
    /// It was not understood.
    Usage,
    /// The caller has no credential that counts here.
    Unauthenticated,
    /// The rollout halted or failed.
    RolloutFailed,
    /// The plan no longer describes the fleet.
    StalePlan,
    /// The time to wait is over; what was waited for goes on.
    WaitExpired,
    /// The caller pressed Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number that the process ends with.
    ///
    /// # Source
    /// 2 is what clap and shells use for usage, 130 is 128 + SIGINT; the others are our own.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Unauthenticated => 4,
            Self::RolloutFailed => 5,
            Self::StalePlan => 6,
            Self::WaitExpired => 7,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
