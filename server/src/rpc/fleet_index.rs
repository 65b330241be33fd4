//! What targets mean of the fleet: an index of every device by what selectors and conditions ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_actors::device::record::Membership;
use fleetd_actors::device::wanted;
use fleetd_actors::targeting::Targets;
use fleetd_actors::targeting::index::{Selected, TargetIndex};
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::id::{ArtifactDigest, LocalId};
use fleetd_sync_store::state_store::{ReadError, StateStore};

use super::device_mirror::{DeviceMirror, Entries};
use crate::{device_row, record};

#[derive(Default)]
struct Known {
    index: TargetIndex,
    /// Devices whose record cannot be read: whoever plans is told, since nobody knows whether they are meant.
    unreadable: BTreeSet<LocalId>,
    /// The attempts at each release that devices know of.
    attempts: BTreeMap<ArtifactDigest, BTreeMap<LocalId, Attempts>>,
    /// The releases of which each device knows an attempt.
    tried: BTreeMap<LocalId, BTreeSet<ArtifactDigest>>,
}

/// The attempts at a release that a device knows of.
#[derive(Clone, Copy, Default)]
struct Attempts {
    /// What this server has asked of it, and signed.
    asked: u32,
    /// What the device says.
    told: u32,
}

/// How far a device's word on its attempts is believed beyond what this server has planned or asked. A server whose store was
/// lost has forgotten some, and a device tries none twice; but one that lies must not use a release's attempts up.
const ATTEMPTS_FORGOTTEN_MAX: u32 = 100;

/// The fleet by what targets ask for. Devices whose key is revoked are not in it: they are meant only where they are
/// named.
pub(crate) struct FleetIndex {
    known: DeviceMirror<Known>,
}

impl FleetIndex {
    /// An index of what is in a store; it is read when somebody asks first.
    pub(crate) const fn new(store: Arc<dyn StateStore>) -> Self {
        Self { known: DeviceMirror::new(store) }
    }

    /// Says which devices are meant, and how many there are. This may take seconds.
    pub(crate) fn select(
        &self,
        targets: &Targets,
        is_online: &(dyn Fn(LocalId) -> bool + Sync),
    ) -> Result<(Selected, usize), ReadError> {
        self.known.look(|known| {
            let mut selected = known.index.select(targets, is_online);
            selected.meant.extend(&known.unreadable);
            (selected, known.index.len())
        })
    }

    /// The highest attempt at a release that devices know of, as far as that can be believed, where `planned` is the highest
    /// of a plan.
    pub(crate) fn last_attempt(&self, manifest: ArtifactDigest, planned: u32) -> Result<u32, ReadError> {
        self.known.look(|known| {
            let attempts = || known.attempts.get(&manifest).into_iter().flat_map(BTreeMap::values);
            let certain = attempts().map(|attempts| attempts.asked).max().unwrap_or(0).max(planned);
            let believed = certain.saturating_add(ATTEMPTS_FORGOTTEN_MAX);
            let told = attempts().map(|attempts| attempts.told).filter(|told| *told <= believed);
            told.max().unwrap_or(0).max(certain)
        })
    }
}

impl Entries for Known {
    fn take(&mut self, local: LocalId, bytes: &[u8]) {
        let Ok(device) = record::device::decode(bytes) else {
            self.unreadable.insert(local);
            return;
        };
        let told = device.reports.values().filter_map(|report| Some((report.digest?, report.attempt)));
        for (manifest, told) in told {
            let attempts = self.attempts_of(local, manifest);
            attempts.told = told.max(attempts.told);
        }
        for (manifest, asked) in wanted::assigned_attempts(&device.wanted) {
            let attempts = self.attempts_of(local, manifest);
            attempts.asked = asked.max(attempts.asked);
        }
        if device.membership != Membership::Revoked {
            self.index.put(&device_row::of(&device, Revision::default(), None));
        }
    }

    fn forget(&mut self, local: LocalId) {
        self.index.remove(local);
        self.unreadable.remove(&local);
        for manifest in self.tried.remove(&local).unwrap_or_default() {
            if let Some(attempts) = self.attempts.get_mut(&manifest) {
                attempts.remove(&local);
                if attempts.is_empty() {
                    self.attempts.remove(&manifest);
                }
            }
        }
    }
}

impl Known {
    fn attempts_of(&mut self, local: LocalId, manifest: ArtifactDigest) -> &mut Attempts {
        self.tried.entry(local).or_default().insert(manifest);
        self.attempts.entry(manifest).or_default().entry(local).or_default()
    }
}
