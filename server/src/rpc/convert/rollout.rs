//! Rollouts and their devices.

use fleetd_actors::report::Phase;
use fleetd_actors::rollout::plan::{Plan, PlannedDevice};
use fleetd_actors::rollout::status::{DeviceProgress, DeviceStatus, RolloutHeader};
use fleetd_proto::fleetd::rollout::v1::{self as rollout, RolloutDeviceState};
use fleetd_sync_core::commit::Revision;

use super::device::phase;
use crate::record::rollout::state;
use crate::record::timestamp;

/// A rollout as the API shows it.
pub(crate) fn rollout(
    header: &RolloutHeader,
    revision: Revision,
    plan: &Plan,
    counts: rollout::RolloutCounts,
) -> rollout::Rollout {
    rollout::Rollout {
        id: header.rollout.to_string(),
        workload: plan.release.workload.to_string(),
        version: plan.release.version.to_string(),
        plan_id: header.plan.to_string(),
        attempt: plan.attempt,
        state: state(header.phase).into(),
        reason: header.reason.clone(),
        created_at: Some(timestamp(header.created_at)),
        created_by: header.created_by.clone(),
        ended_at: header.ended_at.map(timestamp),
        counts: Some(counts),
        revision: revision.0,
    }
}

/// Counts how many devices have come how far.
pub(crate) fn counts<'a>(devices: impl IntoIterator<Item = &'a DeviceProgress>) -> rollout::RolloutCounts {
    let mut counts = rollout::RolloutCounts::default();
    for progress in devices {
        match &progress.status {
            DeviceStatus::Pending | DeviceStatus::Assigned => {
                counts.waiting += 1;
                counts.offline += u32::from(progress.is_offline());
            }
            DeviceStatus::Acknowledged | DeviceStatus::Installing(_) => counts.installing += 1,
            // One that had the release already runs it, and has proven it.
            DeviceStatus::Healthy | DeviceStatus::Unchanged => counts.healthy += 1,
            DeviceStatus::Restored(_) => counts.restored += 1,
            DeviceStatus::Failed(_) => counts.failed += 1,
            DeviceStatus::Skipped(_) => counts.skipped += 1,
        }
    }
    counts
}

/// One device of a rollout, as the API shows it.
pub(crate) fn device(planned: &PlannedDevice, progress: &DeviceProgress) -> rollout::RolloutDevice {
    let (state, reached) = match &progress.status {
        DeviceStatus::Pending | DeviceStatus::Assigned => (RolloutDeviceState::Waiting, None),
        DeviceStatus::Acknowledged => (RolloutDeviceState::Installing, Some(Phase::Pending)),
        DeviceStatus::Installing(phase) => (RolloutDeviceState::Installing, Some(*phase)),
        DeviceStatus::Healthy | DeviceStatus::Unchanged => (RolloutDeviceState::Healthy, Some(Phase::Healthy)),
        DeviceStatus::Restored(_) => (RolloutDeviceState::Restored, Some(Phase::Restored)),
        DeviceStatus::Failed(_) => (RolloutDeviceState::Failed, Some(Phase::Failed)),
        DeviceStatus::Skipped(_) => (RolloutDeviceState::Skipped, None),
    };
    // How far a download has come is not reported: its size is shown once all of it is there.
    let is_fetched = matches!(
        reached,
        Some(Phase::Verify | Phase::Stage | Phase::Switch | Phase::Watch | Phase::Healthy | Phase::Restored)
    );
    let size_bytes = planned.artifact.filter(|_| is_fetched).map_or(0, |(_, size_bytes)| size_bytes);
    let reason = match &progress.status {
        DeviceStatus::Unchanged => Some("it had the release already".to_owned()),
        status => status.reason(),
    };
    rollout::RolloutDevice {
        device_id: planned.device.to_string(),
        local_id: planned.local.to_string(),
        name: planned.name.to_string(),
        state: state.into(),
        phase: phase(reached).into(),
        reason: reason.unwrap_or_default(),
        changed_at: Some(timestamp(progress.changed_at)),
        fetched_bytes: size_bytes,
        size_bytes,
        offline_since: progress.offline_since.map(timestamp),
    }
}
