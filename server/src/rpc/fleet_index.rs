//! What targets mean of the fleet: an index of every device by what selectors and conditions ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_actors::device::record::Membership;
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
    /// The highest attempt at each release that any device has ever told of.
    attempts: BTreeMap<ArtifactDigest, u32>,
}

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

    /// The highest attempt at a release that any device has told of.
    pub(crate) fn last_attempt(&self, manifest: ArtifactDigest) -> Result<u32, ReadError> {
        self.known.look(|known| known.attempts.get(&manifest).copied().unwrap_or_default())
    }
}

impl Entries for Known {
    fn take(&mut self, local: LocalId, bytes: &[u8]) {
        let Ok(device) = record::device::decode(bytes) else {
            self.unreadable.insert(local);
            return;
        };
        for report in device.reports.values() {
            if let Some(manifest) = report.digest {
                let last = self.attempts.entry(manifest).or_default();
                *last = report.attempt.max(*last);
            }
        }
        if device.membership != Membership::Revoked {
            self.index.put(&device_row::of(&device, Revision::default(), None));
        }
    }

    fn forget(&mut self, local: LocalId) {
        self.index.remove(local);
        self.unreadable.remove(&local);
    }
}
