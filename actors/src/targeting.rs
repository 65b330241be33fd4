//! Which devices are meant, and what a server knows of each that this can be decided by.
//!
//! One function decides for a plan, for its start and for whoever asks for logs: [`Matcher::matches`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, LocalId, RolloutId};
use fleetd_sync_core::name::{DeviceName, LabelKey, LabelValue, Platform, Version, WorkloadName};
use fleetd_sync_core::time::Wall;

use crate::selector::Selector;

/// Which devices are meant. Nothing left out ever means all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Every device of the fleet.
    All,
    /// Those that a selector matches, and those that are named.
    Some {
        /// The selector.
        selector: Option<Selector>,
        /// Devices by name, device id or local id.
        devices: BTreeSet<String>,
    },
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all devices"),
            Self::Some { selector, devices } => {
                let selector = selector.as_ref().map(|selector| format!("selector {selector}"));
                let named = devices.iter().map(|device| format!("device {device}"));
                f.write_str(&selector.into_iter().chain(named).collect::<Vec<_>>().join(" or "))
            }
        }
    }
}

/// A release on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentRelease {
    /// Its version.
    pub version: Version,
    /// The digest of its signed manifest.
    pub manifest: ArtifactDigest,
    /// Whether it has proven itself there.
    pub healthy: bool,
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
    /// The reasons of the holds on it, with the workload that each stops; `None` for all.
    pub holds: Vec<(Option<WorkloadName>, String)>,
    /// Workloads on which authorities disagree.
    pub conflicts: BTreeSet<WorkloadName>,
    /// Rollouts that are at work on it.
    pub rollouts: BTreeMap<WorkloadName, RolloutId>,
    /// Since when it cannot be reached; `None` while it can.
    pub offline_since: Option<Wall>,
    /// The revision of its record.
    pub revision: Revision,
}

impl DeviceRow {
    /// What a selector's key stands for.
    #[must_use]
    pub fn value_of(&self, key: &str) -> Option<&str> {
        if let Some((_, value)) = self.labels.iter().find(|(label, _)| label.as_str() == key) {
            return Some(value.as_str());
        }
        match key {
            "name" => Some(self.name.as_str()),
            "site" => (!self.site.is_empty()).then_some(self.site.as_str()),
            "platform" => self.platform.as_ref().map(Platform::as_str),
            "os" => self.platform.as_ref().and_then(|platform| platform.as_str().split('/').next()),
            "arch" => self.platform.as_ref().and_then(|platform| platform.as_str().split('/').nth(1)),
            _ => None,
        }
    }
}

/// Targets, made ready to be compared with many devices.
pub(crate) struct Matcher<'a> {
    targets: &'a Targets,
    asks_for_id: bool,
    locals: BTreeSet<LocalId>,
    devices: BTreeSet<DeviceId>,
    names: BTreeSet<&'a str>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(targets: &'a Targets) -> Self {
        let mut matcher = Self {
            targets,
            asks_for_id: false,
            locals: BTreeSet::new(),
            devices: BTreeSet::new(),
            names: BTreeSet::new(),
        };
        if let Targets::Some { selector, devices } = targets {
            matcher.asks_for_id = selector.as_ref().is_some_and(|selector| selector.keys().any(|key| key == "id"));
            for named in devices {
                if let Ok(local) = named.parse() {
                    matcher.locals.insert(local);
                } else if let Ok(device) = named.parse() {
                    matcher.devices.insert(device);
                } else {
                    matcher.names.insert(named);
                }
            }
        }
        matcher
    }

    pub(crate) fn matches(&self, row: &DeviceRow) -> bool {
        let Targets::Some { selector, .. } = self.targets else { return true };
        let is_named = self.names.contains(row.name.as_str())
            || self.locals.contains(&row.local)
            || self.devices.contains(&row.device);
        is_named
            || selector.as_ref().is_some_and(|selector| {
                let id = self.asks_for_id.then(|| row.device.to_string());
                selector.matches(|key| if key == "id" { id.as_deref() } else { row.value_of(key) })
            })
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
