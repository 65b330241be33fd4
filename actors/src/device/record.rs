//! What a server keeps of one device.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use fleetd_sync_core::envelope::{Path, Value};
use fleetd_sync_core::id::{DeviceId, HoldId, LocalId, RolloutId, TokenId};
use fleetd_sync_core::key::KeptKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::name::{DeviceName, LabelKey, LabelValue, Version, WorkloadName};
use fleetd_sync_core::session::message::Facts;
use fleetd_sync_core::time::Wall;

use crate::report::WorkloadReport;

/// Whether a device is of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It is.
    Enrolled,
    /// It proved its certificate to a server that had lost its record: it is, once an operator has looked.
    Recovered,
    /// Two hold its key: it is heard no more until an operator decides.
    Quarantined,
    /// Its key is revoked: it never comes back.
    Revoked,
}

/// A stop that an operator placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRow {
    /// The one workload that it stops; all of them without one.
    pub workload: Option<WorkloadName>,
    /// Why.
    pub reason: String,
    /// Who placed it.
    pub created_by: String,
    /// When.
    pub created_at: Wall,
}

impl HoldRow {
    /// Says whether a rollout placed it, and no operator.
    #[must_use]
    pub fn is_of_rollout(&self) -> bool {
        self.created_by.parse::<RolloutId>().is_ok()
    }
}

/// A version that an operator wants a workload to stay at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The version.
    pub version: Version,
    /// The hold of an assignment of any other version.
    pub hold: HoldId,
    /// Why.
    pub reason: String,
    /// Who pinned it.
    pub created_by: String,
    /// When.
    pub created_at: Wall,
}

impl Pin {
    /// Says at what, and why.
    #[must_use]
    pub fn sentence(&self) -> String {
        let cause = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("pinned at {}{cause}", self.version)
    }
}

/// Something that happened to a device, for those who ask why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEvent {
    /// When the server learned of it.
    pub at: Wall,
    /// What kind of thing, in a word (`enrolled`, `assigned`, `healthy`).
    pub kind: String,
    /// Which workload, if it was about one.
    pub workload: Option<WorkloadName>,
    /// A sentence for people.
    pub message: String,
    /// Who or what caused it: an operator, a rollout.
    pub caused_by: String,
}

/// What a server keeps of one device.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceRecord {
    /// The hash of its key.
    pub local: LocalId,
    /// What this server calls it.
    pub device: DeviceId,
    /// What people call it.
    pub name: DeviceName,
    /// Its key.
    pub key: KeptKey,
    /// The X25519 key for what only it may read.
    pub sealing_key: [u8; 32],
    /// The token that it came with.
    pub token: Option<TokenId>,
    /// Whether it is of the fleet.
    pub membership: Membership,
    /// The operator's labels.
    pub labels: BTreeMap<LabelKey, LabelValue>,
    /// Where it stands.
    pub site: String,
    /// What it says about itself.
    pub facts: Facts,
    /// When it joined.
    pub registered_at: Wall,
    /// When it was heard last, as of its last connection's end.
    pub last_heard_at: Option<Wall>,
    /// The state that this server's lane of `desired/{device}` should have: minted when the device is there.
    pub wanted: BTreeMap<Path, Value>,
    /// The holds in force.
    pub holds: BTreeMap<HoldId, HoldRow>,
    /// The versions that its workloads are pinned at.
    pub pins: BTreeMap<WorkloadName, Pin>,
    /// What it last said of each workload.
    pub reports: BTreeMap<WorkloadName, WorkloadReport>,
    /// What happened lately, oldest first.
    pub events: VecDeque<DeviceEvent>,
}

impl fmt::Debug for DeviceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceRecord")
            .field("name", &self.name)
            .field("membership", &self.membership)
            .field("wanted", &self.wanted)
            .field("reports", &self.reports)
            .finish_non_exhaustive()
    }
}

impl DeviceRecord {
    /// Remembers something that happened, and forgets the oldest beyond [`limit::DEVICE_EVENTS_MAX`].
    pub fn note(&mut self, at: Wall, kind: &str, workload: Option<&WorkloadName>, message: String, caused_by: &str) {
        self.events.push_back(DeviceEvent {
            at,
            kind: kind.to_owned(),
            workload: workload.cloned(),
            message,
            caused_by: caused_by.to_owned(),
        });
        while self.events.len() > limit::DEVICE_EVENTS_MAX {
            self.events.pop_front();
        }
    }

    /// Notes something, unless it is what was noted last of its kind and workload. Says whether it did.
    pub fn note_once(&mut self, at: Wall, kind: &str, workload: Option<&WorkloadName>, message: String) -> bool {
        let is_same = |event: &&DeviceEvent| event.kind == kind && event.workload.as_ref() == workload;
        let is_new = self.events.iter().rev().find(is_same).is_none_or(|last| last.message != message);
        if is_new {
            self.note(at, kind, workload, message, "");
        }
        is_new
    }
}
