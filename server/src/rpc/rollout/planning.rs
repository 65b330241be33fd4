//! From targets to a saved plan, and from a plan to its start.

use std::collections::BTreeMap;

use fleetd_actors::device::record::Membership;
use fleetd_actors::rollout::plan::{self, Plan, PlannedRelease, check_fence};
use fleetd_actors::rollout::status::DeviceStatus;
use fleetd_actors::rollout::strategy::Strategy;
use fleetd_actors::targeting::{DeviceRow, Targets};
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::{ArtifactDigest, LocalId, PlanId, RolloutId};
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_core::release::Purpose;
use fleetd_sync_store::state_store::KeyRange;

use super::super::artifact::blocking;
use super::super::backend::Backend;
use super::super::call_error::CallError;
use super::super::release::missing_artifacts;
use super::standing::Standing;
use crate::artifact_store::Held;
use crate::device_row;
use crate::edge::authenticate::Caller;
use crate::record;

/// Bytes of a document that rides in an answer; a longer one is an artifact.
const DOCUMENT_INLINE_BYTES_MAX: usize = 1 << 20;

/// Plans a release for targets, saves the plan, and gives its id.
pub(super) async fn plan(
    backend: &Backend,
    caller: &Caller,
    (workload, version): (&WorkloadName, &Version),
    targets: Targets,
    strategy: Strategy,
) -> Result<PlanId, CallError> {
    let release = release(backend, workload, version).await?;
    let attempt = last_attempt(backend, release.manifest)? + 1;
    let rows = rows(backend, &targets)?;
    let id = PlanId::random(&mut backend.shared().entropy());
    let plan = plan::plan(id, release, targets, attempt, strategy, &rows)?;
    backend.commit(vec![record::rollout::put_plan(&plan, backend.now(), &caller.id.to_string())]).await?;
    Ok(id)
}

/// Checks that a saved plan may start now: its release still counts, nobody has started it, and planning again would
/// say the same of every device.
pub(super) async fn check_start(backend: &Backend, plan: &Plan) -> Result<(), CallError> {
    if let Some(rollout) = rollout_of(backend, plan.id)? {
        return Err(CallError::StartedPlan { plan: plan.id, rollout });
    }
    release(backend, &plan.release.workload, &plan.release.version).await?;
    let rows = rows(backend, &plan.targets)?;
    check_fence(plan, &rows).map_err(|reasons| CallError::StalePlan { plan: plan.id, reasons })
}

/// Reads a plan's document, which must be the one that was saved.
pub(super) fn read_document(backend: &Backend, document: &[u8]) -> Result<Plan, CallError> {
    let text = std::str::from_utf8(document)
        .map_err(|error| CallError::Invalid { field: "document", cause: error.to_string() })?;
    let plan = Plan::from_text(text).map_err(CallError::UnreadablePlan)?;
    // A digest can be made by anybody: only what was saved here counts.
    if backend.catalog.plan(plan.id)?.0.to_text() != text {
        return Err(CallError::EditedPlan { plan: plan.id });
    }
    Ok(plan)
}

/// The digest of a plan's document, and the document; a long one is left out, and lies among the artifacts.
pub(super) async fn document(backend: &Backend, plan: &Plan) -> Result<(ArtifactDigest, Vec<u8>), CallError> {
    let document = plan.to_text().into_bytes();
    let digest = ArtifactDigest::of(&document);
    if document.len() <= DOCUMENT_INLINE_BYTES_MAX {
        return Ok((digest, document));
    }
    blocking(backend, move |store| {
        let size_bytes = u64::try_from(document.len()).unwrap_or(u64::MAX);
        let have = match store.held(digest)? {
            Held::Nothing => 0,
            Held::Part { received_bytes } => received_bytes,
            whole @ Held::Whole { .. } => return Ok(whole),
        };
        let rest = document.get(usize::try_from(have).unwrap_or(usize::MAX)..).unwrap_or_default();
        store.append(digest, size_bytes, have, rest)
    })
    .await?;
    Ok((digest, Vec::new()))
}

/// The release, if devices would take it now and the server has all of it.
async fn release(backend: &Backend, workload: &WorkloadName, version: &Version) -> Result<PlannedRelease, CallError> {
    let names = || (workload.to_string(), version.to_string());
    let stored = backend.catalog.release(workload, version)?.ok_or_else(|| {
        let (workload, version) = names();
        CallError::UnknownRelease { workload, version }
    })?;
    let verified = stored.signed.verify(workload, Purpose::Install, &backend.shared().trust().roster)?;
    let missing = missing_artifacts(backend, &verified.manifest).await?;
    if !missing.is_empty() {
        let (workload, version) = names();
        return Err(CallError::IncompleteRelease { workload, version, missing });
    }
    Ok(PlannedRelease::of(&verified.manifest, verified.digest))
}

/// The highest attempt that any plan of a release carries, or that any device knows of: a device tries none twice, and
/// one whose record was lost has tried what no plan remembers.
fn last_attempt(backend: &Backend, manifest: ArtifactDigest) -> Result<u32, CallError> {
    let mut last = 0;
    backend.visit(Space::Plan, KeyRange::all(), |_, value, _| {
        let (planned, attempt) = record::rollout::decode_plan_attempt(value)?;
        if planned == manifest {
            last = attempt.max(last);
        }
        Ok(())
    })?;
    backend.visit(Space::Device, KeyRange::all(), |_, value, _| {
        let device = record::device::decode(value)?;
        let known = device.reports.values().filter(|report| report.digest == Some(manifest));
        last = known.map(|report| report.attempt).max().unwrap_or(0).max(last);
        Ok(())
    })?;
    Ok(last)
}

/// The rollout that carries a plan out, if one does.
pub(super) fn rollout_of(backend: &Backend, plan: PlanId) -> Result<Option<RolloutId>, CallError> {
    let mut found = None;
    backend.visit(Space::Rollout, KeyRange::all(), |_, value, _| {
        let header = record::rollout::decode_header(value)?;
        if header.plan == plan {
            found = Some(header.rollout);
        }
        Ok(())
    })?;
    Ok(found)
}

/// The fleet as a plan sees it. Devices whose key is revoked are of it only where they are named.
fn rows(backend: &Backend, targets: &Targets) -> Result<Vec<DeviceRow>, CallError> {
    let busy = busy(backend)?;
    let mut rows = Vec::new();
    backend.visit(Space::Device, KeyRange::all(), |_, value, revision| {
        let device = record::device::decode(value)?;
        let connection = backend.shared().connections.of_device(device.local).map(|(_, connection)| connection);
        if device.membership == Membership::Revoked && !is_named(targets, &device) {
            return Ok(());
        }
        let mut row = device_row::of(&device, revision, connection.as_ref());
        row.rollouts = busy.get(&device.local).cloned().unwrap_or_default();
        rows.push(row);
        Ok(())
    })?;
    Ok(rows)
}

fn is_named(targets: &Targets, device: &fleetd_actors::device::record::DeviceRecord) -> bool {
    let Targets::Some { devices, .. } = targets else { return false };
    [device.name.to_string(), device.device.to_string(), device.local.to_string()]
        .iter()
        .any(|name| devices.contains(name))
}

type Busy = BTreeMap<LocalId, BTreeMap<WorkloadName, RolloutId>>;

/// The rollouts that are at work on devices. One that waits for a device that cannot be reached is not: a later one
/// takes its place there.
fn busy(backend: &Backend) -> Result<Busy, CallError> {
    let mut running = Vec::new();
    backend.visit(Space::Rollout, KeyRange::all(), |_, value, _| {
        let header = record::rollout::decode_header(value)?;
        if !header.phase.is_ended() {
            running.push(header);
        }
        Ok(())
    })?;
    let mut busy = Busy::new();
    for header in running {
        let workload = backend.catalog.plan(header.plan)?.0.release.workload.clone();
        for (device, progress) in Standing::load(backend, header.rollout)?.progress {
            let is_at_work = match progress.status {
                // What has not begun would take the place of whatever comes now.
                DeviceStatus::Pending | DeviceStatus::Assigned => progress.is_queued() || !progress.is_offline(),
                DeviceStatus::Acknowledged | DeviceStatus::Installing(_) => true,
                DeviceStatus::Healthy
                | DeviceStatus::Restored(_)
                | DeviceStatus::Failed(_)
                | DeviceStatus::Unchanged
                | DeviceStatus::Skipped(_) => false,
            };
            if is_at_work {
                busy.entry(device).or_default().insert(workload.clone(), header.rollout);
            }
        }
    }
    Ok(busy)
}
