//! Releases and plans that were read once: neither changes after it was stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::PlanId;
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_store::state_store::StateStore;

use super::call_error::CallError;
use crate::record;
use crate::record::release::StoredRelease;
use crate::record::rollout::SavedPlan;

/// Releases that are kept in memory.
const RELEASES_MAX: usize = 256;
/// Plans that are kept in memory: most are small, and one over a hundred thousand devices takes some 30 MiB.
const PLANS_MAX: usize = 32;

/// Releases and plans that were read.
pub(crate) struct Catalog {
    store: Arc<dyn StateStore>,
    releases: Mutex<BTreeMap<Vec<u8>, Arc<StoredRelease>>>,
    plans: Mutex<BTreeMap<PlanId, Arc<SavedPlan>>>,
}

impl Catalog {
    pub(crate) fn new(store: Arc<dyn StateStore>) -> Self {
        Self { store, releases: Mutex::default(), plans: Mutex::default() }
    }

    /// A release, if there is one of that name.
    pub(crate) fn release(
        &self,
        workload: &WorkloadName,
        version: &Version,
    ) -> Result<Option<Arc<StoredRelease>>, CallError> {
        let key = record::release::release_key(workload, version);
        if let Some(found) = self.releases.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Some(Arc::clone(found)));
        }
        let Some(found) = self.store.get(Space::Release, &key)? else { return Ok(None) };
        let release = Arc::new(record::release::decode(&found.value)?);
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        if releases.len() >= RELEASES_MAX {
            releases.clear();
        }
        releases.insert(key, Arc::clone(&release));
        Ok(Some(release))
    }

    /// A saved plan.
    pub(crate) fn plan(&self, id: PlanId) -> Result<Arc<SavedPlan>, CallError> {
        if let Some(found) = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(found));
        }
        let found = self.store.get(Space::Plan, id.as_bytes())?.ok_or(CallError::UnknownPlan { plan: id })?;
        let saved = Arc::new(record::rollout::decode_plan(&found.value)?);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(id, Arc::clone(&saved));
        Ok(saved)
    }
}
