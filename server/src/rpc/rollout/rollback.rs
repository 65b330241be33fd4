//! The way back from a rollout: to what each of its devices ran before, as the rollout's own plan has it.
//!
//! It is a rollout like any other, with a plan that is looked at first. Devices have the release before on their disk; one
//! that lost it fetches it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetd_actors::device::record::DeviceRecord;
use fleetd_actors::device::wanted;
use fleetd_actors::rollout::plan::{Plan, PlannedDevice, PlannedRelease, Rollback, StaleReason, Verdict};
use fleetd_actors::rollout::strategy::{FailureBudget, Strategy};
use fleetd_actors::targeting::{Chosen, Targets};
use fleetd_actors::window::Terms;
use fleetd_proto::fleetd::rollout::v1 as api;
use fleetd_sync_core::id::{LocalId, RolloutId};
use fleetd_sync_core::name::{ConfigurationName, DeviceName, Version, WorkloadName};

use super::super::backend::Backend;
use super::super::call_error::{CallError, parsed};
use super::planning;
use super::standing::Standing;
use crate::edge::authenticate::Caller;

/// One that cannot go back holds nobody else up.
const FAILED_PERCENT_MAX: u32 = 100;

/// Plans the way back, and saves it.
pub(super) async fn plan(
    backend: &Backend,
    caller: &Caller,
    asked: &api::PlanRollbackRequest,
) -> Result<api::PlanRollbackResponse, CallError> {
    let rollout: RolloutId = parsed(&asked.rollout_id, "rollout_id")?;
    let standing = Standing::load(backend, rollout)?;
    let devices = asked.devices.iter().map(|device| backend.find_device(device)).collect::<Result<_, _>>()?;
    let _turn = backend.planning.lock().await;
    let Meant { back_to, mut left_out } = meant(backend, &standing, asked.wave, &devices)?;
    let is_whole = asked.wave == 0 && asked.devices.is_empty();
    let rollback = Some(Rollback { of: rollout, is_whole });
    let workload = &standing.plan().release.workload;
    let mut plans: Vec<Plan> = Vec::new();
    for ((version, configuration), devices) in back_to {
        let locals = devices.keys().map(ToString::to_string).collect();
        let targets = Targets::Some(Chosen { devices: locals, ..Chosen::default() });
        let budget = FailureBudget { count: None, percent: Some(FAILED_PERCENT_MAX) };
        // Nobody at the device puts a way back off.
        let terms = Terms { veto_limit: Duration::ZERO, ..Terms::default() };
        let strategy = Strategy { budget, terms, ..Strategy::default() };
        let asked = (workload, &version, configuration.as_ref());
        match planning::compose(backend, asked, targets, strategy, rollback).await {
            Ok(plan) => plans.push(plan),
            // The others go back all the same.
            Err(error @ (CallError::UnknownRelease { .. } | CallError::UnknownConfiguration { .. })) => {
                left_out.extend(devices.values().map(|name| format!("{name}: {error}")));
            }
            Err(error) => return Err(error),
        }
    }
    if plans.is_empty() {
        return Err(CallError::NoWayBack { rollout, left_out });
    }
    let mut rollbacks = Vec::with_capacity(plans.len());
    for known in planning::save(backend, caller, plans).await? {
        planning::document(backend, &known).await?;
        let (devices, _) = known.page(api::Verdict::Unspecified, 0, "")?;
        rollbacks.push(api::PlannedRollback { plan: Some(known.shown()), devices });
    }
    Ok(api::PlanRollbackResponse { rollbacks, left_out })
}

/// The devices that a rollout has come to since the way back from all of it was planned. They would keep what is taken
/// back: the rollout ends when its way back starts.
pub(super) fn reached_since(backend: &Backend, plan: &Plan) -> Result<Vec<StaleReason>, CallError> {
    let Some(Rollback { of, is_whole: true }) = plan.rollback else { return Ok(Vec::new()) };
    let standing = Standing::load(backend, of)?;
    let name =
        |release: &PlannedRelease| release.configuration.as_ref().map(|configuration| configuration.name().clone());
    let brought = &standing.plan().release;
    let verdict = Verdict::Update { from: brought.version.clone(), configuration: name(brought) };
    let mut meant = meant(backend, &standing, 0, &BTreeSet::new())?;
    let reached = meant.back_to.remove(&(plan.release.version.clone(), name(&plan.release))).unwrap_or_default();
    let planned: BTreeSet<LocalId> = plan.devices.iter().map(|device| device.local).collect();
    let since = reached.into_iter().filter(|(local, _)| !planned.contains(local));
    Ok(since.map(|(_, name)| StaleReason::Appeared { name, verdict: verdict.clone() }).collect())
}

/// Which devices go back to what, and which stay as they are, and why.
struct Meant {
    back_to: BTreeMap<(Version, Option<ConfigurationName>), BTreeMap<LocalId, DeviceName>>,
    left_out: Vec<String>,
}

fn meant(backend: &Backend, standing: &Standing, wave: u32, devices: &BTreeSet<LocalId>) -> Result<Meant, CallError> {
    let (of, plan) = (standing.header.rollout, standing.plan());
    let is_meant = |device: &&PlannedDevice| {
        let is_of_wave = wave == 0 || device.place.is_some_and(|place| place.wave.saturating_add(1) == wave);
        is_of_wave && (devices.is_empty() || devices.contains(&device.local))
    };
    let is_part = wave != 0 || !devices.is_empty();
    let mut meant = Meant { back_to: BTreeMap::new(), left_out: Vec::new() };
    for device in plan.assigned().filter(is_meant) {
        let record = match backend.device_record(device.local) {
            Ok((record, _)) => record,
            Err(CallError::UnknownDevice { .. }) => continue,
            Err(error) => return Err(error),
        };
        let name = &record.name;
        match (reached(&record, of, &plan.release.workload), &device.verdict) {
            (Reached::Here, Verdict::Update { from, configuration }) => {
                let back_to = meant.back_to.entry((from.clone(), configuration.clone())).or_default();
                back_to.insert(device.local, name.clone());
            }
            (Reached::Here, _) => meant.left_out.push(format!("{name}: nothing ran there before")),
            (Reached::Elsewhere(by), _) => meant.left_out.push(format!("{name}: {by} took its place")),
            // Taken back as a whole, it gets nothing any more.
            (Reached::Nobody, _) if is_part && standing.is_to_come(device.local) => {
                meant
                    .left_out
                    .push(format!("{name}: its turn is to come; fleetd rollout pause {of} keeps it from that"));
            }
            // It was called back.
            (Reached::Nobody, _) => {}
        }
    }
    Ok(meant)
}

/// Whether a rollout has come to a device.
enum Reached {
    Here,
    /// Another one is there since.
    Elsewhere(RolloutId),
    Nobody,
}

fn reached(record: &DeviceRecord, of: RolloutId, workload: &WorkloadName) -> Reached {
    let reported = record.reports.get(workload).and_then(|report| report.rollout);
    match wanted::assigned_rollout(&record.wanted, workload) {
        Some(assigned) if assigned == of => Reached::Here,
        Some(other) => Reached::Elsewhere(other),
        None if reported == Some(of) => Reached::Here,
        None => Reached::Nobody,
    }
}
