//! The steps of the demo, by the names that a failure is reported with.

use std::fmt;
use std::time::Duration;

/// One step. Its name is stable: scripts read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A server starts.
    Serve,
    /// Three devices join.
    Enrol,
    /// Root lets a key sign releases.
    Delegate,
    /// A release is signed and sent.
    PushFirst,
    /// It reaches every device.
    RolloutFirst,
    /// What the devices' programs write is read.
    Logs,
    /// One device loses its link.
    Cut,
    /// A second release reaches the other two.
    RolloutSecond,
    /// The third device has its link again and follows by itself.
    Converge,
    /// A release that crashes goes out.
    RolloutCrashing,
    /// Every device runs the release before it again.
    Restored,
}

impl Step {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Enrol => "enrol",
            Self::Delegate => "delegate",
            Self::PushFirst => "push-1.0.0",
            Self::RolloutFirst => "rollout-1.0.0",
            Self::Logs => "logs",
            Self::Cut => "cut",
            Self::RolloutSecond => "rollout-1.1.0",
            Self::Converge => "converge",
            Self::RolloutCrashing => "rollout-1.2.0",
            Self::Restored => "restored",
        }
    }

    /// What it is about, in one sentence.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Serve => "A server starts here, with a fleet of its own on embedded storage.",
            Self::Enrol => "Three devices join: each a process with its own key, its own data and its own link.",
            Self::Delegate => {
                "The server cannot sign releases. The fleet's root lets a new key do it, for coffee alone."
            }
            Self::PushFirst => "A program becomes a release: measured, signed here, and sent.",
            Self::RolloutFirst => "A plan first, then the rollout: every device fetches, checks, starts and proves it.",
            Self::Logs => "What the program writes on each device arrives here.",
            Self::Cut => "Somebody pulls a cable: one device loses its only link.",
            Self::RolloutSecond => "The next release does not wait for it: the other two finish.",
            Self::Converge => "The cable is back, and the third device follows by itself.",
            Self::RolloutCrashing => "Now a release that crashes.",
            Self::Restored => "Nobody had to come: every device runs the release before it again.",
        }
    }

    /// The time within which it must be seen: several times what it takes on two slow cores.
    pub(super) const fn deadline(self) -> Duration {
        Duration::from_secs(match self {
            Self::Serve | Self::Delegate | Self::PushFirst => 60,
            Self::Enrol | Self::Logs | Self::Cut => 90,
            Self::RolloutFirst | Self::RolloutSecond | Self::RolloutCrashing | Self::Restored => 120,
            // A device that was cut off looks again after a back-off that has grown meanwhile.
            Self::Converge => 180,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
