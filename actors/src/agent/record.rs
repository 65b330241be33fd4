//! What a device keeps of its place in a fleet.

use fleetd_sync_core::id::{DeviceId, FleetId};
use fleetd_sync_core::name::DeviceName;

/// Where a device stands with its fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Membership {
    /// It has not asked, or has not been heard.
    #[default]
    Unknown,
    /// An operator must approve it.
    Pending {
        /// Which fleet.
        fleet: FleetId,
    },
    /// It belongs to a fleet.
    Enrolled {
        /// Which fleet.
        fleet: FleetId,
        /// What the server calls it.
        device: DeviceId,
        /// What people call it.
        name: DeviceName,
        /// Its certificate and those above it, leaf first, in DER.
        certificates: Vec<Vec<u8>>,
    },
    /// It was turned away.
    Refused {
        /// Why, for programs.
        code: String,
        /// Why, for people.
        message: String,
    },
}

impl Membership {
    /// Says whether it belongs to a fleet.
    #[must_use]
    pub const fn is_enrolled(&self) -> bool {
        matches!(self, Self::Enrolled { .. })
    }
}

/// The trust version that a device has reached in a fleet. It is kept apart from the root records, so that one who
/// loses those, or falls back to an older copy of them, does not fall for a root that was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustFloor {
    /// Which fleet.
    pub fleet: FleetId,
    /// The newest root record's version.
    pub version: u64,
}

/// What a device keeps of its place in a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentRecord {
    /// Where it stands.
    pub membership: Membership,
    /// How many rounds of dialling have failed in a row.
    pub dial_failures: u32,
    /// The address that last let it in.
    pub address: Option<String>,
}

impl AgentRecord {
    /// The fleet whose documents it holds.
    #[must_use]
    pub const fn fleet(&self) -> Option<FleetId> {
        match self.membership {
            Membership::Enrolled { fleet, .. } => Some(fleet),
            Membership::Unknown | Membership::Pending { .. } | Membership::Refused { .. } => None,
        }
    }
}
