//! A node's status as its API tells it.

use std::collections::BTreeMap;

use fleetd_actors::agent::{AgentStatus, LinkFailure};
use fleetd_actors::report::{Exit, Phase, RunState, WorkloadReport};
use fleetd_actors::window::Zone;
use fleetd_actors::workload::WorkloadStatus;
use fleetd_proto::agent::lifecycle::v1 as api;
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Wall;

use crate::config::{Origin, ShownSetting};
use crate::node::NodeStatus;

/// What shells add to a signal's number to make a status of it.
const SIGNAL_STATUS: i32 = 128;

pub(super) fn agent_status(local: LocalId, status: &NodeStatus) -> api::AgentStatus {
    let NodeStatus { agent, workloads } = status;
    let (device_id, name) = match &agent.device {
        Some((device, name)) => (device.to_string(), name.to_string()),
        None => (String::new(), String::new()),
    };
    api::AgentStatus {
        local_id: local.to_string(),
        device_id,
        name,
        fleet_id: agent.fleet.map(|fleet| fleet.to_string()).unwrap_or_default(),
        link_phase: link_phase(agent.link).into(),
        server_address: agent.address.clone().unwrap_or_default(),
        link_reason: link_reason(agent),
        trust_version: agent.trust_version,
        last_failure: agent.failure.as_ref().map(link_failure),
        next_dial_at: agent.next_dial_at.map(timestamp),
        workloads: workloads_of(workloads),
        ..api::AgentStatus::default()
    }
}

/// What is said of a device that waits for an operator.
pub(crate) const APPROVAL_AWAITED: &str = "an operator must approve this device";

fn link_reason(agent: &AgentStatus) -> String {
    match &agent.refusal {
        Some(refusal) => refusal.clone(),
        None if agent.is_pending => APPROVAL_AWAITED.to_owned(),
        None => agent.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
    }
}

fn link_failure(failure: &LinkFailure) -> api::LinkFailure {
    api::LinkFailure {
        code: failure.code.clone(),
        message: failure.message.clone(),
        server_address: failure.address.clone().unwrap_or_default(),
        failed_at: Some(timestamp(failure.at)),
    }
}

fn timestamp(at: Wall) -> prost_types::Timestamp {
    let (seconds, milliseconds) = (at.0.div_euclid(1_000), at.0.rem_euclid(1_000));
    prost_types::Timestamp { seconds, nanos: i32::try_from(milliseconds * 1_000_000).unwrap_or(0) }
}

fn link_phase(word: &str) -> api::LinkPhase {
    match word {
        "unconfigured" => api::LinkPhase::Unconfigured,
        "waiting" => api::LinkPhase::Idle,
        "dialling" | "greeting" => api::LinkPhase::Dial,
        "enrolling" => api::LinkPhase::Enroll,
        "reconciling" => api::LinkPhase::Reconcile,
        "live" => api::LinkPhase::Live,
        "closing" | "stopped" => api::LinkPhase::Draining,
        _ => api::LinkPhase::Unspecified,
    }
}

fn workloads_of(workloads: &BTreeMap<WorkloadName, WorkloadStatus>) -> Vec<api::WorkloadStatus> {
    workloads.iter().map(|(name, status)| workload_status(name, status)).collect()
}

pub(super) fn workload_status(name: &WorkloadName, status: &WorkloadStatus) -> api::WorkloadStatus {
    let report = &status.report;
    api::WorkloadStatus {
        name: name.to_string(),
        version: report.release.as_ref().map(ToString::to_string).unwrap_or_default(),
        next_version: status.next.as_ref().map(ToString::to_string).unwrap_or_default(),
        phase: report.phase.map_or(common::WorkloadPhase::Unspecified, phase).into(),
        run_state: report.run.map_or(common::RunState::Unspecified, run_state).into(),
        reason: reason(report).unwrap_or_default(),
        stopped_locally: report.stopped_locally,
        held: status.held,
        pid: status.pid.unwrap_or_default(),
        restarts: report.restarts,
        exit_status: match report.exit {
            Some(Exit::Code(code)) => Some(code),
            Some(Exit::Signal(signal)) => Some(SIGNAL_STATUS.saturating_add(signal)),
            Some(Exit::Lost) | None => None,
        },
        deferred_until: status.deferral.as_ref().map(|deferral| timestamp(deferral.until)),
        deferral_reason: status.deferral.as_ref().map(|deferral| deferral.reason.clone()).unwrap_or_default(),
        veto_limit: status.veto_limit.and_then(|limit| limit.try_into().ok()),
        ..api::WorkloadStatus::default()
    }
}

/// Why a workload is not what was asked for. Dates are as everybody reads them: a device may have no zone.
fn reason(report: &WorkloadReport) -> Option<String> {
    let waits = || report.waits.as_ref().map(|waits| waits.sentence(&Zone::default()));
    report.error.as_ref().map(ToString::to_string).or_else(waits)
}

const fn phase(phase: Phase) -> common::WorkloadPhase {
    match phase {
        Phase::Pending => common::WorkloadPhase::Pending,
        Phase::Download => common::WorkloadPhase::Download,
        Phase::Verify => common::WorkloadPhase::Verify,
        Phase::Stage => common::WorkloadPhase::Stage,
        Phase::Wait => common::WorkloadPhase::Wait,
        Phase::Switch => common::WorkloadPhase::Switch,
        Phase::Watch => common::WorkloadPhase::Watch,
        Phase::Healthy => common::WorkloadPhase::Healthy,
        Phase::Restored => common::WorkloadPhase::Restored,
        Phase::Failed => common::WorkloadPhase::Failed,
        Phase::Removed => common::WorkloadPhase::Removed,
    }
}

const fn run_state(run: RunState) -> common::RunState {
    match run {
        RunState::Unknown => common::RunState::Unspecified,
        RunState::Starting => common::RunState::Starting,
        RunState::Running => common::RunState::Running,
        RunState::Backoff => common::RunState::Backoff,
        RunState::CrashLoop => common::RunState::CrashLoop,
        RunState::Stopped => common::RunState::Stopped,
    }
}

pub(super) fn configuration_value(setting: &ShownSetting) -> api::ConfigurationValue {
    let origin = match &setting.origin {
        Origin::Flag { .. } => api::ConfigurationOrigin::Flag,
        Origin::Environment { .. } => api::ConfigurationOrigin::Environment,
        Origin::Credential { .. } | Origin::File { .. } => api::ConfigurationOrigin::File,
        Origin::Default => api::ConfigurationOrigin::Default,
    };
    api::ConfigurationValue {
        key: setting.key.clone(),
        value: setting.value.clone(),
        origin: origin.into(),
        origin_detail: setting.origin.to_string(),
    }
}
