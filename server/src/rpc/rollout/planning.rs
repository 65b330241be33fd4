//! From targets to a saved plan, and from a plan to its start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_actors::device::{room, wanted};
use fleetd_actors::rollout::plan::{
    self, Blocked, Plan, PlanError, PlannedRelease, Rollback, StaleReason, check_fence,
};
use fleetd_actors::rollout::status::RolloutHeader;
use fleetd_actors::rollout::strategy::{Priority, Strategy};
use fleetd_actors::targeting::index::Selected;
use fleetd_actors::targeting::{AtWork, DeviceRow, Group, Targets, UndecidedDevices};
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::{ArtifactDigest, LocalId, PlanId, RolloutId};
use fleetd_sync_core::name::{ConfigurationName, Version, WorkloadName};
use fleetd_sync_core::release::{Purpose, VerifyReleaseError};
use fleetd_sync_store::state_store::KeyRange;

use super::super::artifact::blocking;
use super::super::backend::Backend;
use super::super::call_error::CallError;
use super::super::catalog::KnownPlan;
use super::super::configuration;
use super::super::release::missing_artifacts;
use super::rollback;
use super::standing::Standing;
use crate::artifact_store::Held;
use crate::device_row;
use crate::edge::authenticate::Caller;
use crate::record;

/// Records of devices are read in one go if at least one in so many is wanted, and one by one if not.
const READ_ALL_FROM_ONE_IN: usize = 16;

/// What a plan is asked to bring: a workload, a version, and the configuration that goes with it.
pub(super) type Asked<'a> = (&'a WorkloadName, &'a Version, Option<&'a ConfigurationName>);

/// Plans a release for targets, and saves the plan.
pub(super) async fn plan(
    backend: &Backend,
    caller: &Caller,
    release: Asked<'_>,
    targets: Targets,
    strategy: Strategy,
) -> Result<Arc<KnownPlan>, CallError> {
    let plan = compose(backend, release, targets, strategy, None).await?;
    let id = plan.id;
    save(backend, caller, vec![plan]).await?.pop().ok_or(CallError::UnknownPlan { plan: id })
}

/// Saves plans, all or none.
pub(super) async fn save(
    backend: &Backend,
    caller: &Caller,
    plans: Vec<Plan>,
) -> Result<Vec<Arc<KnownPlan>>, CallError> {
    let (now, by) = (backend.now(), caller.id.to_string());
    // The text of a plan over a hundred thousand devices has 15 MB: it is made once.
    let texts: Vec<String> = plans.iter().map(Plan::to_text).collect();
    let kept = plans.iter().zip(&texts).map(|(plan, text)| record::rollout::put_plan(plan.id, text, now, &by));
    backend.commit(kept.collect()).await?;
    let known = plans.into_iter().zip(texts);
    Ok(known.map(|(plan, text)| backend.catalog.keep_new((Arc::new(plan), now, by.clone()), text)).collect())
}

/// Plans a release for targets.
pub(super) async fn compose(
    backend: &Backend,
    asked: Asked<'_>,
    targets: Targets,
    strategy: Strategy,
    rollback: Option<Rollback>,
) -> Result<Plan, CallError> {
    let (release, refused) = match release(backend, asked, rollback).await? {
        Offered::Good(release) => (release, None),
        Offered::Refused { release, by, error } => (release, Some((by, error))),
    };
    let attempt = last_attempt(backend, release.digest())?.saturating_add(1);
    let Rows { mut rows, undecided, devices } = rows(backend, &release, &targets, &strategy, rollback).await?;
    if let Some((by, error)) = &refused {
        let word = (*by, format!("{}: {error}", by.as_str()));
        rows.iter_mut().for_each(|row| row.refused = Some(word.clone()));
    }
    let id = PlanId::random(&mut backend.shared().entropy());
    let mut plan = match plan::plan(id, release, targets, attempt, strategy, &rows) {
        // The rows are those alone that are meant.
        Err(PlanError::NoMatch { targets, .. }) => {
            return Err(PlanError::NoMatch { targets, devices, undecided }.into());
        }
        planned => planned?,
    };
    // With nobody to be blocked, the plan would promise a start that is refused.
    if let Some((_, error)) = refused.filter(|_| plan.counts().blocked == 0) {
        return Err(error.into());
    }
    (plan.undecided, plan.rollback) = (undecided, rollback);
    plan.openings(None, backend.now()).map_err(|error| PlanError::Strategy(error.into()))?;
    Ok(plan)
}

/// What has changed since a plan was made that nobody has started.
pub(super) async fn changes(backend: &Backend, plan: &Plan) -> Result<Vec<StaleReason>, CallError> {
    Ok(plan_again(backend, plan).await?.reasons)
}

/// Checks that a saved plan may start now: its release still counts, nobody has started it, and planning again would
/// say the same of every device.
pub(super) async fn check_start(backend: &Backend, plan: &Plan) -> Result<(), CallError> {
    let reasons = changes(backend, plan).await?;
    if reasons.is_empty() { Ok(()) } else { Err(CallError::StalePlan { plan: plan.id, reasons }) }
}

/// Takes what is left of a plan: the planned devices for which it still holds. That is a plan of its own, which its start
/// saves; what has changed is said with it.
pub(super) async fn only_planned(backend: &Backend, plan: &Plan) -> Result<(Plan, Vec<StaleReason>), CallError> {
    let Again { today, rows, reasons } = plan_again(backend, plan).await?;
    if reasons.is_empty() {
        return Ok((plan.clone(), reasons));
    }
    let attempt = last_attempt(backend, plan.release.digest())?.saturating_add(1);
    match today.only_planned(attempt, &rows) {
        Some(left) => Ok((left, reasons)),
        None => Err(CallError::StalePlan { plan: plan.id, reasons }),
    }
}

/// A saved plan, and what the fleet says of it by now.
struct Again {
    /// The plan with its groups as they are today.
    today: Plan,
    rows: Vec<DeviceRow>,
    /// What is not as it was planned.
    reasons: Vec<StaleReason>,
}

/// Looks at the fleet again for a plan that nobody has started, and whose release still counts.
async fn plan_again(backend: &Backend, plan: &Plan) -> Result<Again, CallError> {
    if let Some(rollout) = rollout_of(backend, plan)? {
        return Err(CallError::StartedPlan { plan: plan.id, rollout });
    }
    require_offered(backend, plan).await?;
    let (today, mut reasons) = look_again(backend, plan)?;
    let Rows { rows, .. } = rows(backend, &today.release, &today.targets, &today.strategy, today.rollback).await?;
    reasons.extend(check_fence(&today, &rows).err().unwrap_or_default());
    reasons.extend(rollback::reached_since(backend, plan)?);
    Ok(Again { today, rows, reasons })
}

/// A plan with its groups as they are today, and which of them have changed. One that is deleted stays as it was.
fn look_again(backend: &Backend, plan: &Plan) -> Result<(Plan, Vec<StaleReason>), CallError> {
    let mut today = plan.clone();
    let Targets::Some(chosen) = &mut today.targets else { return Ok((today, Vec::new())) };
    let mut groups = BTreeMap::new();
    for name in chosen.groups.keys() {
        match backend.group(name) {
            Ok((group, revision)) => drop(groups.insert(name.clone(), Group { revision, members: group.members })),
            Err(CallError::UnknownGroup { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let reasons = plan::check_groups(plan, &groups);
    chosen.groups.extend(groups);
    Ok((today, reasons))
}

/// Reads a plan's document, which must be the one that was saved.
pub(super) fn read_document(backend: &Backend, document: &[u8]) -> Result<Plan, CallError> {
    let text = std::str::from_utf8(document)
        .map_err(|error| CallError::Invalid { field: "document", cause: error.to_string() })?;
    let plan = Plan::from_text(text).map_err(CallError::UnreadablePlan)?;
    // A digest can be made by anybody: only what was saved here counts.
    let known = backend.catalog.plan(plan.id)?;
    if known.document().digest != ArtifactDigest::of(document) {
        return Err(CallError::EditedPlan { plan: plan.id });
    }
    Ok(plan)
}

/// A plan's document; a long one is left out, and lies among the artifacts.
pub(super) async fn document(backend: &Backend, known: &Arc<KnownPlan>) -> Result<Vec<u8>, CallError> {
    let document = known.document();
    if let Some(inline) = &document.inline {
        return Ok(inline.clone());
    }
    let (digest, known) = (document.digest, Arc::clone(known));
    blocking(backend, move |store| {
        let have = match store.held(digest)? {
            Held::Nothing => 0,
            Held::Part { received_bytes } => received_bytes,
            whole @ Held::Whole { .. } => return Ok(whole),
        };
        let text = known.plan().to_text().into_bytes();
        let size_bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let rest = text.get(usize::try_from(have).unwrap_or(usize::MAX)..).unwrap_or_default();
        store.append(digest, size_bytes, have, rest)
    })
    .await?;
    Ok(Vec::new())
}

/// A release that the server has all of.
enum Offered {
    /// Devices would take it now.
    Good(PlannedRelease),
    /// They would not, since its signature does not count any more, or since it is denied.
    Refused { release: PlannedRelease, by: Blocked, error: VerifyReleaseError },
}

/// Refuses a release that may not be started now.
async fn require_offered(backend: &Backend, plan: &Plan) -> Result<(), CallError> {
    let planned = &plan.release;
    if let Some(standstill) = backend.shared().orders().standstill(planned.manifest) {
        return Err(CallError::Standstill(standstill));
    }
    let configuration = planned.configuration.as_ref().map(|configuration| configuration.name());
    match release(backend, (&planned.workload, &planned.version, configuration), plan.rollback).await? {
        Offered::Good(_) => Ok(()),
        Offered::Refused { error, .. } => Err(error.into()),
    }
}

/// The release, if the server has all of it, or if devices go back to it.
async fn release(
    backend: &Backend,
    (workload, version, configuration): Asked<'_>,
    rollback: Option<Rollback>,
) -> Result<Offered, CallError> {
    let names = || (workload.to_string(), version.to_string());
    let stored = backend.catalog.release(workload, version)?.ok_or_else(|| {
        let (workload, version) = names();
        CallError::UnknownRelease { workload, version }
    })?;
    let signed = &stored.signed;
    // Who goes back has it on the disk.
    let missing = if rollback.is_some() { Vec::new() } else { missing_artifacts(backend, signed.claims()).await? };
    if !missing.is_empty() {
        let (workload, version) = names();
        return Err(CallError::IncompleteRelease { workload, version, missing });
    }
    let configuration = match (configuration, rollback) {
        (None, _) => None,
        (Some(name), Some(_)) => Some(configuration::find(backend, workload, name)?.configuration),
        (Some(name), None) => Some(configuration::find_whole(backend, workload, name).await?),
    };
    if let Some(configuration) = &configuration {
        configuration.check_fits(signed.claims())?;
    }
    let release = PlannedRelease { configuration, ..PlannedRelease::of(signed.claims(), signed.digest()) };
    // Who goes back installs nothing new: a retired key's word of before still counts for that, as on the device.
    let purpose = if rollback.is_some() { Purpose::Restore } else { Purpose::Install };
    match signed.verify(workload, purpose, &backend.shared().trust().roster) {
        Ok(_) => Ok(Offered::Good(release)),
        Err(error @ VerifyReleaseError::Denied { .. }) => Ok(Offered::Refused { release, by: Blocked::Denied, error }),
        Err(
            error @ (VerifyReleaseError::Undelegated { .. }
            | VerifyReleaseError::Retired { .. }
            | VerifyReleaseError::Compromised { .. }),
        ) => Ok(Offered::Refused { release, by: Blocked::Unsigned, error }),
        Err(error) => Err(error.into()),
    }
}

/// The highest attempt that any plan of a release, with its configuration, carries, or that devices know of: a device
/// tries none twice, and one whose record was lost has tried what no plan remembers.
fn last_attempt(backend: &Backend, digest: ArtifactDigest) -> Result<u32, CallError> {
    let mut last = 0;
    backend.visit(Space::Plan, KeyRange::all(), |_, value, _| {
        let planned = record::rollout::decode_plan_try(value)?;
        if planned.digest == digest {
            last = planned.attempt.max(last);
        }
        Ok(())
    })?;
    Ok(backend.fleet.last_attempt(digest, last)?)
}

/// The rollout that carries a plan out, or what was left of it, if one does.
pub(super) fn rollout_of(backend: &Backend, plan: &Plan) -> Result<Option<RolloutId>, CallError> {
    let ids = [plan.id, plan.id_of_what_is_left()];
    let mut found = None;
    backend.visit(Space::Rollout, KeyRange::all(), |_, value, _| {
        let header = record::rollout::decode_header(value)?;
        if ids.contains(&header.plan) {
            found = Some(header.rollout);
        }
        Ok(())
    })?;
    Ok(found)
}

/// The devices that targets mean, as a plan sees them.
struct Rows {
    rows: Vec<DeviceRow>,
    /// Those of which nobody can say it.
    undecided: Vec<UndecidedDevices>,
    /// How many devices there are.
    devices: usize,
}

/// The devices that targets mean. Devices whose key is revoked are of the fleet only where they are named.
async fn rows(
    backend: &Backend,
    release: &PlannedRelease,
    targets: &Targets,
    strategy: &Strategy,
    rollback: Option<Rollback>,
) -> Result<Rows, CallError> {
    let bytes = room::assignment_bytes(&release.workload, release.configuration.as_deref(), &strategy.terms);
    let orders = backend.shared().orders();
    let busy = busy(backend)?;
    let (fleet, shared, asked) = (Arc::clone(&backend.fleet), Arc::clone(&backend.node.shared), targets.clone());
    let select = move || fleet.select(&asked, &|local| shared.connections.of_device(local).is_some());
    let selected = tokio::task::spawn_blocking(select).await;
    let (Selected { mut meant, undecided }, devices) =
        selected.map_err(|error| CallError::Internal { cause: error.to_string() })??;
    if let Targets::Some(chosen) = targets {
        for named in &chosen.devices {
            meant.extend(backend.index.find(named)?);
        }
    }
    let meant: BTreeSet<LocalId> = meant.into_iter().collect();
    let mut rows = Vec::with_capacity(meant.len());
    let mut take = |local: LocalId, value: &[u8], revision| {
        let device = record::device::decode(value)?;
        let connection = backend.shared().connections.of_device(local).map(|(_, connection)| connection);
        let refused = device_row::refused(&device, release, bytes, &orders);
        let assigned = wanted::assigned_rollout(&device.wanted, &release.workload);
        let mut row = device_row::moved(device, revision, connection.as_ref());
        row.refused = refused;
        row.rollouts = busy.get(&local).cloned().unwrap_or_default();
        if let Some(Rollback { of, .. }) = rollback {
            forget(&mut row, assigned, of, &release.workload);
        }
        rows.push(row);
        Ok(())
    };
    if meant.len().saturating_mul(READ_ALL_FROM_ONE_IN) < devices {
        for local in meant {
            if let Some(found) = backend.store().get(Space::Device, local.as_bytes())? {
                take(local, &found.value, found.revision)?;
            }
        }
    } else {
        backend.visit(Space::Device, KeyRange::all(), |key, value, revision| {
            match LocalId::from_slice(key).filter(|local| meant.contains(local)) {
                Some(local) => take(local, value, revision),
                None => Ok(()),
            }
        })?;
    }
    Ok(Rows { rows, undecided, devices })
}

/// Looks away from a rollout that is taken back: it is in nobody's way, and what it assigned and did not bring yet has to
/// go, too. It may have been taken back already: by the start of the way back to another version, say.
fn forget(row: &mut DeviceRow, assigned: Option<RolloutId>, of: RolloutId, workload: &WorkloadName) {
    row.rollouts.retain(|_, at_work| at_work.rollout != of);
    if assigned.is_none_or(|assigned| assigned == of)
        && let Some(present) = row.releases.get_mut(workload)
    {
        present.healthy = false;
    }
}

/// A rollout that has devices which have not come to their end with it.
struct Unfinished {
    rollout: RolloutId,
    workload: WorkloadName,
    priority: Priority,
    /// These devices, and whether each is to get the release or at work on it; the others may go on by themselves.
    devices: BTreeMap<LocalId, bool>,
}

/// Those that are asked for among the rollouts that some device has not come to its end with.
fn unfinished(
    backend: &Backend,
    is_asked: impl Fn(&RolloutHeader, &Plan) -> bool,
) -> Result<Vec<Unfinished>, CallError> {
    let mut going = Vec::new();
    backend.visit(Space::Rollout, KeyRange::all(), |_, value, _| {
        let header = record::rollout::decode_header(value)?;
        if !header.phase.is_ended() || (header.goes_on() && header.is_open) {
            going.push(header);
        }
        Ok(())
    })?;
    let mut unfinished = Vec::with_capacity(going.len());
    for header in going {
        let known = backend.catalog.plan(header.plan)?;
        let plan = known.plan();
        if !is_asked(&header, plan) {
            continue;
        }
        let (workload, priority) = (plan.release.workload.clone(), plan.strategy.priority);
        let progress = Standing::load(backend, header.rollout)?.progress;
        let open = progress.into_iter().filter(|(_, progress)| progress.status.may_go_on());
        let devices = open.map(|(device, progress)| (device, progress.status.is_under_way())).collect();
        unfinished.push(Unfinished { rollout: header.rollout, workload, priority, devices });
    }
    Ok(unfinished)
}

type Busy = BTreeMap<LocalId, BTreeMap<WorkloadName, AtWork>>;

/// The most urgent rollout of each workload that has a device. One that has ended, and only waits for those that are to
/// follow, keeps nobody.
fn busy(backend: &Backend) -> Result<Busy, CallError> {
    let mut busy = Busy::new();
    for Unfinished { rollout, workload, priority, devices } in
        unfinished(backend, |header, _| !header.phase.is_ended())?
    {
        let at_work = AtWork { rollout, priority };
        for (device, _) in devices.into_iter().filter(|(_, is_under_way)| *is_under_way) {
            let known = busy.entry(device).or_default().entry(workload.clone()).or_insert(at_work);
            if known.priority < at_work.priority {
                *known = at_work;
            }
        }
    }
    Ok(busy)
}

/// Which devices of a plan other rollouts of the workload give over to its own. What it takes back is taken back anyhow.
pub(super) fn overlaps(backend: &Backend, plan: &Plan) -> Result<Vec<(RolloutId, BTreeSet<LocalId>)>, CallError> {
    let whole = plan.rollback.filter(|rollback| rollback.is_whole).map(|rollback| rollback.of);
    let assigned: BTreeSet<LocalId> = plan.assigned().map(|device| device.local).collect();
    let others = unfinished(backend, |header, other| {
        other.release.workload == plan.release.workload && Some(header.rollout) != whole
    })?;
    let shared = others.into_iter().map(|other| {
        let devices: BTreeSet<_> = other.devices.into_keys().filter(|device| assigned.contains(device)).collect();
        (other.rollout, devices)
    });
    Ok(shared.filter(|(_, devices)| !devices.is_empty()).collect())
}
