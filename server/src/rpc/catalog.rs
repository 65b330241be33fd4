//! Releases and plans that were read once: neither changes after it was stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fleetd_actors::rollout::plan::{Plan, PlannedDevice, Verdict};
use fleetd_proto::fleetd::rollout::v1 as api;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::{ArtifactDigest, PlanId};
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_store::state_store::StateStore;

use super::call_error::CallError;
use super::convert;
use super::page::{decode_token, encode_token, page_size};
use crate::record;
use crate::record::release::StoredRelease;
use crate::record::rollout::SavedPlan;

/// Releases that are kept in memory.
const RELEASES_MAX: usize = 256;
/// Plans that are kept in memory: most are small, and one over a hundred thousand devices takes some 30 MiB.
const PLANS_MAX: usize = 32;

/// Bytes of a document that rides in an answer; a longer one is an artifact.
const DOCUMENT_INLINE_BYTES_MAX: usize = 1 << 20;

/// A plan's document: its digest, and its text where that rides in an answer.
pub(crate) struct Document {
    pub(crate) digest: ArtifactDigest,
    pub(crate) inline: Option<Vec<u8>>,
}

/// A plan that was saved, with what each page of it needs and only the first one makes.
pub(crate) struct KnownPlan {
    pub(crate) saved: SavedPlan,
    document: OnceLock<Document>,
    shown: OnceLock<api::Plan>,
    /// Its devices by their places in the plan, as lists have them: blocked ones first, then by name.
    listed: OnceLock<Vec<usize>>,
}

impl Document {
    fn of(text: String) -> Self {
        let text = text.into_bytes();
        let digest = ArtifactDigest::of(&text);
        Self { digest, inline: Some(text).filter(|text| text.len() <= DOCUMENT_INLINE_BYTES_MAX) }
    }
}

impl KnownPlan {
    const fn new(saved: SavedPlan) -> Self {
        Self { saved, document: OnceLock::new(), shown: OnceLock::new(), listed: OnceLock::new() }
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.saved.0
    }

    pub(crate) fn document(&self) -> &Document {
        self.document.get_or_init(|| Document::of(self.plan().to_text()))
    }

    /// The plan as the API shows it.
    pub(crate) fn shown(&self) -> api::Plan {
        self.shown.get_or_init(|| convert::plan::plan(&self.saved, self.document().digest)).clone()
    }

    /// A page of its devices.
    pub(crate) fn page(
        &self,
        only: api::Verdict,
        size: u32,
        token: &str,
    ) -> Result<(Vec<api::PlannedDevice>, String), CallError> {
        let (size, after) = (page_size(size)?, decode_token(token, "page_token")?);
        let devices = &self.plan().devices;
        let listed = self.listed.get_or_init(|| {
            let mut listed: Vec<_> = (0..devices.len()).collect();
            listed.sort_by_key(|index| {
                devices.get(*index).map(|device| (!is_blocked(device), &device.name, device.local))
            });
            listed
        });
        let is_past = |device: &PlannedDevice| after.as_ref().is_some_and(|after| place(device) <= *after);
        let first = listed.partition_point(|index| devices.get(*index).is_some_and(is_past));
        let behind = listed.iter().skip(first).filter_map(|index| devices.get(*index));
        let mut rest = behind.filter(|device| convert::plan::has_verdict(device, only));
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let next = page.last().filter(|_| rest.next().is_some());
        let token = next.map(|last| encode_token(&place(last))).unwrap_or_default();
        Ok((page.into_iter().map(convert::plan::device).collect(), token))
    }
}

/// A device's place in the list of its plan, as a page's token has it.
fn place(device: &PlannedDevice) -> Vec<u8> {
    [&[u8::from(!is_blocked(device))], device.name.as_str().as_bytes(), &[0], device.local.as_bytes()].concat()
}

const fn is_blocked(device: &PlannedDevice) -> bool {
    matches!(device.verdict, Verdict::Blocked { .. })
}

/// Releases and plans that were read.
pub(crate) struct Catalog {
    store: Arc<dyn StateStore>,
    releases: Mutex<BTreeMap<Vec<u8>, Arc<StoredRelease>>>,
    plans: Mutex<BTreeMap<PlanId, Arc<KnownPlan>>>,
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
    pub(crate) fn plan(&self, id: PlanId) -> Result<Arc<KnownPlan>, CallError> {
        if let Some(found) = self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(Arc::clone(found));
        }
        let found = self.store.get(Space::Plan, id.as_bytes())?.ok_or(CallError::UnknownPlan { plan: id })?;
        Ok(self.keep(record::rollout::decode_plan(&found.value)?))
    }

    /// Keeps a plan that was saved.
    pub(crate) fn keep(&self, saved: SavedPlan) -> Arc<KnownPlan> {
        self.insert(KnownPlan::new(saved))
    }

    /// Keeps a plan that was saved just now with this text.
    pub(crate) fn keep_new(&self, saved: SavedPlan, text: String) -> Arc<KnownPlan> {
        self.insert(KnownPlan { document: OnceLock::from(Document::of(text)), ..KnownPlan::new(saved) })
    }

    fn insert(&self, known: KnownPlan) -> Arc<KnownPlan> {
        let (id, known) = (known.plan().id, Arc::new(known));
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(id, Arc::clone(&known));
        known
    }
}
