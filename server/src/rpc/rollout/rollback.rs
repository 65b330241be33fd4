//! The way back from a rollout: to what each of its devices ran before, as the rollout's own plan has it.
//!
//! It is a rollout like any other, with a plan that is looked at first. Devices have the release before on their disk; one
//! that lost it fetches it again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetd_actors::device::record::DeviceRecord;
use fleetd_actors::device::wanted;
use fleetd_actors::rollout::plan::{Plan, PlannedDevice, Rollback, Verdict};
use fleetd_actors::rollout::strategy::{FailureBudget, Strategy};
use fleetd_actors::targeting::{Chosen, Targets};
use fleetd_actors::window::Terms;
use fleetd_proto::fleetd::rollout::v1 as api;
use fleetd_sync_core::id::{LocalId, RolloutId};
use fleetd_sync_core::name::{ConfigurationName, Version, WorkloadName};

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
    let Meant { back_to, left_out } = meant(backend, &standing, asked.wave, &devices)?;
    if back_to.is_empty() {
        return Err(CallError::NoWayBack { rollout, left_out });
    }
    let is_whole = asked.wave == 0 && asked.devices.is_empty();
    let rollback = Some(Rollback { of: rollout, is_whole });
    let workload = &standing.plan().release.workload;
    let mut plans: Vec<Plan> = Vec::new();
    for ((version, configuration), devices) in back_to {
        let targets = Targets::Some(Chosen { devices, ..Chosen::default() });
        let budget = FailureBudget { count: None, percent: Some(FAILED_PERCENT_MAX) };
        // Nobody at the device puts a way back off.
        let terms = Terms { veto_limit: Duration::ZERO, ..Terms::default() };
        let strategy = Strategy { budget, terms, ..Strategy::default() };
        plans.push(
            planning::compose(backend, (workload, &version, configuration.as_ref()), targets, strategy, rollback)
                .await?,
        );
    }
    let mut rollbacks = Vec::with_capacity(plans.len());
    for known in planning::save(backend, caller, plans).await? {
        planning::document(backend, &known).await?;
        let (devices, _) = known.page(api::Verdict::Unspecified, 0, "")?;
        rollbacks.push(api::PlannedRollback { plan: Some(known.shown()), devices });
    }
    Ok(api::PlanRollbackResponse { rollbacks, left_out })
}

/// Which devices go back to what, and which stay as they are, and why.
struct Meant {
    back_to: BTreeMap<(Version, Option<ConfigurationName>), BTreeSet<String>>,
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
                meant
                    .back_to
                    .entry((from.clone(), configuration.clone()))
                    .or_default()
                    .insert(device.local.to_string());
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
