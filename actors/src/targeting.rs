//! Which devices are meant, and what a server knows of each that this can be decided by.
//!
//! One function decides for a plan, for its start, for lists and for whoever asks for logs: [`Matcher::answer`].

pub mod attribute;
#[cfg(feature = "cel")]
mod condition;
#[cfg(not(feature = "cel"))]
#[path = "targeting/condition_unserved.rs"]
mod condition;
mod group;
#[cfg(feature = "cel")]
pub mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::configuration::ConfigurationId;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, LocalId, RolloutId};
use fleetd_sync_core::name::{DeviceName, GroupName, LabelKey, LabelValue, Platform, Version, WorkloadName};
use fleetd_sync_core::time::Wall;

pub use self::attribute::Described;
pub use self::condition::Condition;
pub use self::group::{Group, Members};
use crate::rollout::plan::Blocked;
use crate::rollout::strategy::Priority;
use crate::selector::Selector;

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseConditionError {
    /// Nothing was given: that must never mean the whole fleet.
    #[error("the condition is empty; to mean every device, say so")]
    Empty,
    /// Too long.
    #[error("the condition has {length} bytes; it may have {length_max}")]
    TooLong {
        /// What it has.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
    /// It nests too deep.
    #[error("the condition nests deeper than {depth_max}")]
    TooDeep {
        /// How deep it may.
        depth_max: usize,
    },
    /// A device would be asked too much.
    #[error("the condition takes too long: {steps} steps for each device, and it may take {steps_max}")]
    TakesTooLong {
        /// Steps for one device.
        steps: usize,
        /// How many there may be.
        steps_max: usize,
    },
    /// It cannot be read, or asks for what there is not.
    #[error("column {column} of {text:?}: {cause}")]
    Syntax {
        /// What was given.
        text: String,
        /// Where, counted from 1 in characters.
        column: usize,
        /// What is wrong there.
        cause: String,
    },
    /// Conditions are not built in.
    #[error("this program reads no conditions")]
    NotServed,
}

/// Why it cannot be said whether a device is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Undecided {
    /// The condition asks for what the device does not have.
    Lacks {
        /// What that is.
        what: String,
    },
    /// What the device has does not fit what the condition does with it.
    Unfit {
        /// Why.
        cause: String,
    },
}

impl fmt::Display for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks { what } => write!(f, "no {what}"),
            Self::Unfit { cause } => f.write_str(cause),
        }
    }
}

/// Reasons for which a condition could not be decided that are told apart: a device's claims can make many.
const UNDECIDED_REASONS_MAX: usize = 16;

/// Devices that a condition could not be decided for, all for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecidedDevices {
    /// The reason.
    pub why: String,
    /// How many they are.
    pub devices: usize,
    /// The first of them, for whoever looks into it.
    pub example: String,
}

/// Counts a device that a condition could not be decided for.
pub(crate) fn note_undecided(undecided: &mut BTreeMap<String, UndecidedDevices>, why: String, name: &str) {
    let is_known = undecided.contains_key(&why);
    let why = if is_known || undecided.len() < UNDECIDED_REASONS_MAX { why } else { "other reasons".to_owned() };
    let of_it = undecided.entry(why.clone());
    of_it.or_insert_with(|| UndecidedDevices { why, devices: 0, example: name.to_owned() }).devices += 1;
}

/// Whether a device is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is.
    Holds,
    /// It is not.
    Fails,
    /// It is not, since nobody can say.
    Undecided(Undecided),
}

/// Which devices are meant. Nothing left out ever means all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every device of the fleet.
    All,
    /// Those that any part of this means.
    Some(Chosen),
}

/// Devices that are meant for one of several reasons: the selector and the condition hold of them, both where both are
/// there; or they are of a group; or they are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The selector.
    pub selector: Option<Selector>,
    /// The condition.
    pub condition: Option<Condition>,
    /// Groups, as they were when they were looked up.
    pub groups: BTreeMap<GroupName, Group>,
    /// Devices by name, device id or local id.
    pub devices: BTreeSet<String>,
}

impl Chosen {
    /// Says whether nothing was chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_listed() && self.devices.is_empty() && self.groups.is_empty()
    }

    /// Says whether nothing is asked of devices that are not named, one by one or by a group.
    #[must_use]
    pub const fn is_listed(&self) -> bool {
        self.selector.is_none() && self.condition.is_none()
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all devices"),
            Self::Some(chosen) => {
                let both = (!chosen.is_listed()).then(|| both(chosen.selector.as_ref(), chosen.condition.as_ref()));
                let groups = chosen.groups.keys().map(|group| format!("group {group}"));
                let named = chosen.devices.iter().map(|device| format!("device {device}"));
                f.write_str(&both.into_iter().chain(groups).chain(named).collect::<Vec<_>>().join(" or "))
            }
        }
    }
}

/// A selector and a condition that must both hold, for people.
fn both(selector: Option<&Selector>, condition: Option<&Condition>) -> String {
    let selector = selector.map(|selector| format!("selector {selector}"));
    let condition = condition.map(|condition| format!("where {condition}"));
    selector.into_iter().chain(condition).collect::<Vec<_>>().join(" and ")
}

/// A release on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentRelease {
    /// Its version.
    pub version: Version,
    /// What it is compared by: the digest of its signed manifest, or of it and its configuration.
    pub manifest: ArtifactDigest,
    /// The configuration that it has, if it has one.
    pub configuration: Option<ConfigurationId>,
    /// Whether it has proven itself there.
    pub healthy: bool,
}

/// A rollout that has not come to its end with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtWork {
    /// The rollout.
    pub rollout: RolloutId,
    /// How urgent it is.
    pub priority: Priority,
}

/// A device as its server knows it, as far as a plan looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// The hash of its key.
    pub local: LocalId,
    /// The id that the server gave.
    pub device: DeviceId,
    /// Its name.
    pub name: DeviceName,
    /// Its site; empty for none.
    pub site: String,
    /// Its labels.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// Its facts.
    pub facts: BTreeMap<String, String>,
    /// What its artifacts must be for; `None` until it has said so.
    pub platform: Option<Platform>,
    /// What is free of its storage, if it has said so.
    pub free_bytes: Option<u64>,
    /// What runs on it.
    pub releases: BTreeMap<WorkloadName, PresentRelease>,
    /// Why it may be sent nothing, if it may not.
    pub barred: Option<String>,
    /// Why it does not get the release that is planned, whatever state it is in: the release is denied, say.
    pub refused: Option<(Blocked, String)>,
    /// The reasons of the holds on it, with the workload that each stops; `None` for all.
    pub holds: Vec<(Option<WorkloadName>, String)>,
    /// Workloads on which authorities disagree.
    pub conflicts: BTreeSet<WorkloadName>,
    /// The most urgent of the unfinished rollouts that have it.
    pub rollouts: BTreeMap<WorkloadName, AtWork>,
    /// Since when it cannot be reached; `None` while it can.
    pub offline_since: Option<Wall>,
    /// The revision of its record.
    pub revision: Revision,
}

/// Targets, made ready to be compared with many devices.
pub struct Matcher<'a> {
    targets: &'a Targets,
    locals: BTreeSet<LocalId>,
    devices: BTreeSet<DeviceId>,
    names: BTreeSet<&'a str>,
}

impl<'a> Matcher<'a> {
    /// Makes targets ready.
    #[must_use]
    pub fn new(targets: &'a Targets) -> Self {
        let (mut locals, mut devices, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        if let Targets::Some(chosen) = targets {
            for named in &chosen.devices {
                if let Ok(local) = named.parse() {
                    locals.insert(local);
                } else if let Ok(device) = named.parse() {
                    devices.insert(device);
                } else {
                    names.insert(named.as_str());
                }
            }
        }
        Self { targets, locals, devices, names }
    }

    /// Says whether a device is meant.
    #[must_use]
    pub fn matches(&self, device: &dyn Described) -> bool {
        self.answer(device) == Answer::Holds
    }

    /// Says whether a device is meant, or why nobody can say.
    #[must_use]
    pub fn answer(&self, device: &dyn Described) -> Answer {
        let Targets::Some(chosen) = self.targets else { return Answer::Holds };
        if self.names(device) {
            return Answer::Holds;
        }
        let mut undecided = None;
        if !chosen.is_listed() {
            match answer_both(device, chosen.selector.as_ref(), chosen.condition.as_ref()) {
                Answer::Holds => return Answer::Holds,
                Answer::Fails => {}
                Answer::Undecided(why) => undecided = Some(why),
            }
        }
        for group in chosen.groups.values() {
            match group.members.answer(device) {
                Answer::Holds => return Answer::Holds,
                Answer::Fails => {}
                Answer::Undecided(why) => drop(undecided.get_or_insert(why)),
            }
        }
        undecided.map_or(Answer::Fails, Answer::Undecided)
    }

    /// Says whether a device is named itself.
    #[must_use]
    pub fn names(&self, device: &dyn Described) -> bool {
        self.names.contains(device.name())
            || self.locals.contains(&device.local())
            || self.devices.contains(&device.device())
    }

    /// The names and ids among the targets that no device has.
    pub(crate) fn unknown(mut self, rows: &[DeviceRow]) -> Vec<String> {
        for row in rows {
            self.locals.remove(&row.local);
            self.devices.remove(&row.device);
            self.names.remove(row.name.as_str());
        }
        let names = self.names.into_iter().map(ToOwned::to_owned);
        let ids = self.devices.iter().map(ToString::to_string).chain(self.locals.iter().map(ToString::to_string));
        names.chain(ids).collect()
    }
}

/// Says whether a selector and a condition hold of a device, as far as they are there.
fn answer_both(device: &dyn Described, selector: Option<&Selector>, condition: Option<&Condition>) -> Answer {
    let is_selected = selector.is_none_or(|selector| {
        let id = selector.keys().any(|key| key == "id").then(|| device.device().to_string());
        selector.matches(|key| if key == "id" { id.as_deref() } else { device.value_of(key) })
    });
    match condition {
        _ if !is_selected => Answer::Fails,
        None => Answer::Holds,
        Some(condition) => condition.answer(device),
    }
}

#[cfg(test)]
pub(crate) mod tests;
