//! Devices.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_actors::device::record::{DeviceRecord, HoldRow, Pin};
use fleetd_actors::device::wanted;
use fleetd_actors::orders::{FleetStop, Orders};
use fleetd_actors::report::{Exit, FaultKind, Phase, RunState, WorkloadReport};
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_proto::fleetd::device::v1 as device;
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::id::HoldId;
use fleetd_sync_core::name::{LabelKey, LabelValue, Platform, WorkloadName};

use super::super::call_error::CallError;
use super::super::catalog::Catalog;
use super::facts;
use crate::connection_table::Connection;
use crate::device_row::last_heard;
use crate::record::device::state;
use crate::record::timestamp;

/// What a shell calls the status of a program that a signal ended.
const SIGNAL_STATUS: i32 = 128;

/// A device as the API shows it.
pub(crate) fn device(
    record: &DeviceRecord,
    revision: Revision,
    connection: Option<&Connection>,
    catalog: &Catalog,
    orders: &Orders,
) -> device::Device {
    let heard = last_heard(record, connection);
    let own_holds = record.holds.iter().map(|(id, row)| hold(*id, row));
    let shown = |name: &WorkloadName| workload(record, name, catalog);
    device::Device {
        id: record.device.to_string(),
        local_id: record.local.to_string(),
        name: record.name.to_string(),
        labels: record.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        site: record.site.clone(),
        facts: Some(facts::show(&record.facts)),
        state: state(record.membership).into(),
        presence: presence(record, connection).into(),
        last_heard_at: heard.map(timestamp),
        registered_at: Some(timestamp(record.registered_at)),
        workloads: workloads(record).iter().map(shown).collect(),
        holds: orders.stops.values().map(fleet_hold).chain(own_holds).collect(),
        pins: record.pins.iter().map(pin).collect(),
        revision: revision.0,
    }
}

/// Whether a device can be reached.
pub(crate) const fn presence(record: &DeviceRecord, connection: Option<&Connection>) -> device::Presence {
    match (connection, record.last_heard_at) {
        (Some(_), _) => device::Presence::Online,
        (None, Some(_)) => device::Presence::Offline,
        (None, None) => device::Presence::Never,
    }
}

/// The workloads that a device has or should have.
pub(crate) fn workloads(record: &DeviceRecord) -> BTreeSet<WorkloadName> {
    let wanted = record.wanted.keys().filter_map(|path| {
        let mut segments = path.segments();
        match (segments.next(), segments.next()) {
            (Some("workload"), Some(name)) => name.parse().ok(),
            _ => None,
        }
    });
    wanted.chain(record.reports.keys().cloned()).collect()
}

/// A hold as the API shows it.
pub(crate) fn hold(id: HoldId, row: &HoldRow) -> device::Hold {
    device::Hold {
        id: id.to_string(),
        workload: row.workload.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: row.reason.clone(),
        created_by: row.created_by.clone(),
        created_at: Some(timestamp(row.created_at)),
        fleet: false,
    }
}

fn fleet_hold(stop: &FleetStop) -> device::Hold {
    device::Hold {
        id: stop.hold.to_string(),
        workload: String::new(),
        reason: stop.reason(),
        created_by: stop.created_by.clone(),
        created_at: Some(timestamp(stop.created_at)),
        fleet: true,
    }
}

fn pin((workload, pin): (&WorkloadName, &Pin)) -> device::Pin {
    device::Pin {
        workload: workload.to_string(),
        version: pin.version.to_string(),
        reason: pin.reason.clone(),
        created_by: pin.created_by.clone(),
        created_at: Some(timestamp(pin.created_at)),
    }
}

fn workload(record: &DeviceRecord, name: &WorkloadName, catalog: &Catalog) -> device::DeviceWorkload {
    let nothing = WorkloadReport::default();
    let report = record.reports.get(name).unwrap_or(&nothing);
    let assigned = wanted::assigned_release(&record.wanted, name);
    let text = |value: Option<String>| value.unwrap_or_default();
    device::DeviceWorkload {
        name: name.to_string(),
        desired_release: text(assigned.as_ref().map(|(version, _)| version.to_string())),
        desired_configuration: text(
            wanted::assigned_configuration(&record.wanted, name).map(|configuration| configuration.name().to_string()),
        ),
        desired_rollout_id: text(wanted::assigned_rollout(&record.wanted, name).map(|rollout| rollout.to_string())),
        desired_attempt: assigned.map_or(0, |(_, attempt)| attempt),
        desired_stopped: wanted::is_stopped(&record.wanted, name),
        conflict: report.error.as_ref().is_some_and(|error| error.kind == FaultKind::Conflict),
        actual_release: text(report.release.as_ref().map(ToString::to_string)),
        actual_configuration: text(report.configuration.as_ref().map(|configuration| configuration.name.to_string())),
        actual_digest: text(installed_digest(record, name, report, catalog)),
        actual_rollout_id: text(report.rollout.map(|rollout| rollout.to_string())),
        actual_attempt: report.attempt,
        phase: phase(report.phase).into(),
        // Neither is reported: a device says that a phase began, not when, nor how far a download has come.
        phase_at: None,
        fetched_bytes: 0,
        size_bytes: 0,
        run_state: run_state(report.run).into(),
        reason: reason(report),
        restarts: report.restarts,
        exit_status: report.exit.and_then(exit_status),
    }
}

/// The artifact of what is installed: the release's for the device's platform.
fn installed_digest(
    record: &DeviceRecord,
    name: &WorkloadName,
    report: &WorkloadReport,
    catalog: &Catalog,
) -> Option<String> {
    let platform: Platform = record.facts.get("platform")?.parse().ok()?;
    let release = catalog.release(name, report.release.as_ref()?).ok()??;
    let (_, artifact) = release.signed.claims().artifact_for(&platform)?;
    Some(artifact.digest.to_string())
}

/// How the API calls a phase.
pub(crate) const fn phase(phase: Option<Phase>) -> common::WorkloadPhase {
    match phase {
        None => common::WorkloadPhase::Unspecified,
        Some(Phase::Pending) => common::WorkloadPhase::Pending,
        Some(Phase::Download) => common::WorkloadPhase::Download,
        Some(Phase::Verify) => common::WorkloadPhase::Verify,
        Some(Phase::Stage) => common::WorkloadPhase::Stage,
        Some(Phase::Wait) => common::WorkloadPhase::Wait,
        Some(Phase::Switch) => common::WorkloadPhase::Switch,
        Some(Phase::Watch) => common::WorkloadPhase::Watch,
        Some(Phase::Healthy) => common::WorkloadPhase::Healthy,
        Some(Phase::Restored) => common::WorkloadPhase::Restored,
        Some(Phase::Failed) => common::WorkloadPhase::Failed,
        Some(Phase::Removed) => common::WorkloadPhase::Removed,
    }
}

const fn run_state(run: Option<RunState>) -> common::RunState {
    match run {
        None | Some(RunState::Unknown) => common::RunState::Unspecified,
        Some(RunState::Starting) => common::RunState::Starting,
        Some(RunState::Running) => common::RunState::Running,
        Some(RunState::Backoff) => common::RunState::Backoff,
        Some(RunState::CrashLoop) => common::RunState::CrashLoop,
        Some(RunState::Stopped) => common::RunState::Stopped,
    }
}

fn reason(report: &WorkloadReport) -> String {
    match &report.error {
        Some(fault) => fault.to_string(),
        None if report.stopped_locally => "somebody stopped it at the device".to_owned(),
        None => String::new(),
    }
}

const fn exit_status(exit: Exit) -> Option<i32> {
    match exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(signal) => Some(SIGNAL_STATUS + signal),
        Exit::Lost => None,
    }
}

/// Reads labels of a request.
pub(crate) fn labels(
    labels: &BTreeMap<String, String>,
    field: &'static str,
) -> Result<BTreeMap<LabelKey, LabelValue>, CallError> {
    let read = |(key, value): (&String, &String)| Ok((label_key(key, field)?, label_value(value, field)?));
    labels.iter().map(read).collect()
}

/// Reads the key of a label.
pub(crate) fn label_key(text: &str, field: &'static str) -> Result<LabelKey, CallError> {
    text.parse()
        .map_err(|error: fleetd_sync_core::name::ParseNameError| CallError::Invalid { field, cause: error.to_string() })
}

fn label_value(text: &str, field: &'static str) -> Result<LabelValue, CallError> {
    text.parse()
        .map_err(|error: fleetd_sync_core::name::ParseNameError| CallError::Invalid { field, cause: error.to_string() })
}
