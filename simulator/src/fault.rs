//! One fault: when, on whom, what, and for how long. A run's faults are an explicit list, so that they can be shrunk.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The server.
    Server,
    /// All devices of a site, by its number.
    Site(usize),
    /// One device, by its number.
    Device(usize),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("server"),
            Self::Site(number) => write!(f, "site-{number}"),
            Self::Device(number) => write!(f, "device-{number}"),
        }
    }
}

/// Why a text names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of server, site-N, device-N")]
pub struct ParseTargetError(String);

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |prefix: &str| text.strip_prefix(prefix).and_then(|number| number.parse().ok());
        match text {
            "server" => Some(Self::Server),
            _ => number("site-").map(Self::Site).or_else(|| number("device-").map(Self::Device)),
        }
        .ok_or_else(|| ParseTargetError(text.to_owned()))
    }
}

impl TryFrom<String> for Target {
    type Error = ParseTargetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

/// What goes wrong. The fault atlas (`docs/simulator.md`) says what each does, and what the design does not promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// No frame passes, in either direction, while it lasts.
    LinkCut,
    /// Frames to the target pass, frames from it do not, while it lasts.
    LinkCutOneWay,
    /// Every connection of the target ends at once.
    LinkReset,
    /// Frames of the target take `value` ms more while it lasts.
    LinkSlow,
    /// The target's power fails; it comes back when the fault ends.
    PowerCut,
    /// The target's agent or server process is killed; programs go on. It is started again when the fault ends.
    Crash,
    /// The next commit of the target's store fails, and all that follow until it is opened again.
    StoreFails,
    /// The target's store has no space for its next commit.
    StoreFull,
    /// The target's store needs `value` ms more for each commit while it lasts.
    StoreSlow,
    /// The target loses its power within its next `value` writes, and comes back when the fault ends.
    StoreTorn,
    /// The target restarts from the image that its store had `value` minutes before.
    StoreOldImage,
    /// The target restarts with a store that does not open: it is set aside, and the target begins without one.
    StoreLost,
    /// The target's wall clock jumps to `value` seconds after 1970.
    ClockJump,
    /// The target's program of every workload ends once, with code 1.
    ProgramDies,
    /// An operator puts a hold on the target; it is lifted when the fault ends.
    OperatorHolds,
    /// An operator aborts the newest rollout.
    OperatorAborts,
    /// An operator changes the target's labels.
    OperatorRelabels,
    /// An operator revokes the target, for good.
    OperatorRevokes,
}

impl fmt::Display for FaultKind {
    /// Writes the kind as scenario files call it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in format!("{self:?}").chars().enumerate() {
            if character.is_uppercase() && index > 0 {
                f.write_str("_")?;
            }
            write!(f, "{}", character.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

/// One fault of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When it begins, after the fleet has enrolled.
    #[serde(with = "crate::span")]
    pub at: Duration,
    /// Whom it hits.
    pub on: Target,
    /// What it is.
    pub kind: FaultKind,
    /// How long it lasts; zero for what happens at once.
    #[serde(with = "crate::span", default)]
    pub lasting: Duration,
    /// How much, in the unit that its kind names.
    #[serde(default)]
    pub value: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_scenario_files_call_them() {
        for kind in [FaultKind::LinkCutOneWay, FaultKind::Crash, FaultKind::StoreOldImage] {
            assert_eq!(toml::Value::try_from(kind).unwrap().as_str(), Some(kind.to_string().as_str()));
        }
    }

    #[test]
    fn targets_read_as_they_are_written() {
        for text in ["server", "site-2", "device-17"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert!("device-".parse::<Target>().is_err());
        assert!("relay-1".parse::<Target>().is_err());
    }
}
