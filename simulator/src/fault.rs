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
    /// Frames from the target pass, frames to it do not, while it lasts.
    LinkDeaf,
    /// Every connection of the target ends at once.
    LinkReset,
    /// Frames of the target take `value` ms more while it lasts.
    LinkSlow,
    /// Frames of the target take up to `value` ms more, so that those of different classes overtake each other.
    LinkJitter,
    /// Of a hundred packets of the target `value` are lost while it lasts, and sent again.
    LinkLossy,
    /// Frames of the target that are longer than `value` bytes do not pass while it lasts; keep-alives do.
    LinkStall,
    /// No more than `value` bytes a second pass to and from the target while it lasts.
    LinkNarrow,
    /// The link of the target is cut for `value` seconds and whole for as many, again and again, while it lasts.
    LinkFlaps,
    /// The target gets another address without a word, as behind a NAT that forgot it.
    LinkRebind,
    /// The target's power fails; it comes back when the fault ends. With a `value` it fails at the target's `value`-th
    /// call to its surroundings, in the middle of what it does.
    PowerCut,
    /// The target's agent or server process is killed; programs go on. It is started again when the fault ends. With a
    /// `value` it is killed at its `value`-th call to its surroundings.
    Crash,
    /// A whole site loses power and link, and comes back at once when the fault ends.
    SiteOutage,
    /// The target is gone for good.
    Death,
    /// The next commit of the target's store fails, and all that follow: its process ends, and is started again.
    StoreFails,
    /// There is no space left on the target's disk while it lasts.
    StoreFull,
    /// The target's store needs `value` ms more for each commit while it lasts.
    StoreSlow,
    /// The target loses its power within its next `value` writes, and comes back when the fault ends.
    StoreTorn,
    /// A bit of what the target has stored changes; the process is started again when the fault ends.
    StoreRots,
    /// The target restarts with what its disk held `value` minutes before.
    StoreOldImage,
    /// The target restarts with a store that does not open: it is set aside, and the target begins without one.
    StoreLost,
    /// The target's wall clock jumps to `value` seconds after 1970; it is right again when the fault ends.
    ClockJump,
    /// The target's wall clock is `value` seconds ahead while it lasts.
    ClockAhead,
    /// The target's wall clock is `value` seconds behind while it lasts.
    ClockBehind,
    /// The target's wall clock gains `value` millionths while it lasts.
    ClockDrifts,
    /// The target's program of every workload ends once, with code 1.
    ProgramDies,
    /// Of a hundred frames that the target sends `value` are changed before they leave it, while it lasts; then its
    /// process is started again.
    HostileMutates,
    /// The target sends `value` made-up messages a second besides its own, while it lasts.
    HostileFloods,
    /// Somebody else begins to use a copy of the target: its key, and all that it keeps. For good.
    HostileClone,
    /// The target says of every program that it runs and is well, and runs none. For good.
    HostileLies,
    /// A stranger without a certificate dials the target, and sends it `value` made-up messages a second, while it lasts.
    HostileStranger,
    /// Somebody at the target says "not now" of every update, for as long as the fault lasts.
    UserDefers,
    /// The target's workloads hold their update locks while it lasts, each until its program is started anew.
    ProgramLocks,
    /// An operator puts a hold on the target; it is lifted when the fault ends.
    OperatorHolds,
    /// An operator stops the target's workload, and starts it when the fault ends.
    OperatorStops,
    /// An operator has the target's workload started anew.
    OperatorRestarts,
    /// An operator aborts the newest rollout.
    OperatorAborts,
    /// An operator pauses the newest rollout, and resumes it when the fault ends.
    OperatorPauses,
    /// An operator takes the newest rollout back.
    OperatorRollsBack,
    /// An operator stops the whole fleet, and lifts the stop when the fault ends.
    OperatorStopsAll,
    /// An operator denies the newest release, and allows it again when the fault ends.
    OperatorDenies,
    /// An operator changes the target's labels.
    OperatorRelabels,
    /// An operator gives the target another name.
    OperatorRenames,
    /// An operator revokes the target, for good.
    OperatorRevokes,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 45] = [
        Self::LinkCut,
        Self::LinkCutOneWay,
        Self::LinkDeaf,
        Self::LinkReset,
        Self::LinkSlow,
        Self::LinkJitter,
        Self::LinkLossy,
        Self::LinkStall,
        Self::LinkNarrow,
        Self::LinkFlaps,
        Self::LinkRebind,
        Self::PowerCut,
        Self::Crash,
        Self::SiteOutage,
        Self::Death,
        Self::StoreFails,
        Self::StoreFull,
        Self::StoreSlow,
        Self::StoreTorn,
        Self::StoreRots,
        Self::StoreOldImage,
        Self::StoreLost,
        Self::ClockJump,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::ClockDrifts,
        Self::ProgramDies,
        Self::HostileMutates,
        Self::HostileFloods,
        Self::HostileClone,
        Self::HostileLies,
        Self::HostileStranger,
        Self::UserDefers,
        Self::ProgramLocks,
        Self::OperatorHolds,
        Self::OperatorStops,
        Self::OperatorRestarts,
        Self::OperatorAborts,
        Self::OperatorPauses,
        Self::OperatorRollsBack,
        Self::OperatorStopsAll,
        Self::OperatorDenies,
        Self::OperatorRelabels,
        Self::OperatorRenames,
        Self::OperatorRevokes,
    ];

    /// Says whom it may hit, in words for people; `None` when it may hit that.
    #[must_use]
    pub fn refusal(self, on: Target) -> Option<&'static str> {
        match (self, on) {
            (Self::SiteOutage, Target::Site(_))
            | (Self::HostileStranger | Self::OperatorStopsAll | Self::OperatorDenies, Target::Server) => None,
            (Self::SiteOutage, _) => Some("hits a site"),
            (Self::HostileStranger | Self::OperatorStopsAll | Self::OperatorDenies, _) => Some("hits the server"),
            (
                Self::ProgramDies
                | Self::Death
                | Self::HostileMutates
                | Self::HostileFloods
                | Self::HostileClone
                | Self::HostileLies
                | Self::UserDefers
                | Self::ProgramLocks
                | Self::OperatorHolds
                | Self::OperatorStops
                | Self::OperatorRestarts
                | Self::OperatorRelabels
                | Self::OperatorRenames
                | Self::OperatorRevokes,
                Target::Server,
            ) => Some("hits devices"),
            _ => None,
        }
    }

    /// Says which values mean nothing, in words for people; `None` when this one means something.
    #[must_use]
    pub fn refuse_value(self, value: u64) -> Option<&'static str> {
        let is_percentage = matches!(self, Self::LinkLossy | Self::HostileMutates);
        let needs_one = matches!(
            self,
            Self::LinkFlaps | Self::LinkNarrow | Self::StoreTorn | Self::HostileFloods | Self::HostileStranger
        );
        match value {
            _ if value > NUMBER_MAX => Some(TOO_LARGE),
            _ if is_percentage && value > PERCENT_MAX => Some("is more than 95 of a hundred"),
            0 if needs_one => Some("is 0"),
            _ => None,
        }
    }
}

/// The largest number that a scenario's file can say.
pub(crate) const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();
/// What is wrong with a larger one: it is read and could not be written again.
pub(crate) const TOO_LARGE: &str = "is more than 2^63 - 1";
/// More loss than this is a cut.
const PERCENT_MAX: u64 = 95;

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
        for kind in FaultKind::ALL {
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
