//! Rollouts and their devices.

use fleetd_actors::report::Phase;
use fleetd_actors::rollout::plan::{Plan, PlannedDevice};
use fleetd_actors::rollout::status::{DeviceProgress, DeviceStatus, RolloutCounts, RolloutHeader, Stage, StageTimer};
use fleetd_actors::rollout::tally::Tally;
use fleetd_actors::rollout::why::{self, WaveState};
use fleetd_proto::fleetd::rollout::v1::{self as rollout, RolloutDeviceState, RolloutWaveState};
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::time::Wall;

use super::device::phase;
use super::{count, strategy};
use crate::record::rollout::state;
use crate::record::timestamp;

/// A rollout as the API shows it. It costs the same however many devices it has.
pub(crate) fn rollout(
    (header, revision): (&RolloutHeader, Revision),
    plan: &Plan,
    tally: &Tally,
    now: Wall,
) -> rollout::Rollout {
    let (failures, failures_allowed) = why::failures(header, plan, &tally.waves);
    let stage_until = match header.wave.timer {
        StageTimer::Until(until) => Some(timestamp(until)),
        StageTimer::Unbounded | StageTimer::Left(_) => None,
    };
    rollout::Rollout {
        id: header.rollout.to_string(),
        workload: plan.release.workload.to_string(),
        version: plan.release.version.to_string(),
        plan_id: header.plan.to_string(),
        attempt: plan.attempt,
        configuration: plan
            .release
            .configuration
            .as_ref()
            .map(|configuration| configuration.name().to_string())
            .unwrap_or_default(),
        state: state(header.phase).into(),
        reason: header.reason.clone(),
        created_at: Some(timestamp(header.created_at)),
        created_by: header.created_by.clone(),
        ended_at: header.ended_at.map(timestamp),
        counts: Some(counts(&tally.all)),
        revision: revision.0,
        strategy: Some(strategy::show(&plan.strategy)),
        wave: header.wave.number.saturating_add(1),
        waves: waves(header, &tally.waves),
        stage_until,
        failures: count(failures),
        failures_allowed: count(failures_allowed),
        hold_id: header.hold.map(|hold| hold.to_string()).unwrap_or_default(),
        ordered_hold_id: header.ordered.as_ref().map(|order| order.hold.to_string()).unwrap_or_default(),
        rollback_of: plan.rollback.map(|rollback| rollback.of.to_string()).unwrap_or_default(),
        explanation: why::explain(header, plan, &tally.waves, now),
    }
}

fn waves(header: &RolloutHeader, waves: &[RolloutCounts]) -> Vec<rollout::RolloutWave> {
    let wave = |(index, of_wave): (u32, &RolloutCounts)| {
        let state = match WaveState::of(header, index) {
            WaveState::Waiting => RolloutWaveState::Waiting,
            WaveState::Newest(Stage::Rolling) => RolloutWaveState::Rolling,
            WaveState::Newest(Stage::Baking) => RolloutWaveState::Baking,
            WaveState::Newest(Stage::AwaitingApproval) => RolloutWaveState::AwaitingApproval,
            WaveState::Passed => RolloutWaveState::Passed,
            WaveState::Skipped => RolloutWaveState::Skipped,
        };
        rollout::RolloutWave {
            number: index.saturating_add(1),
            state: state.into(),
            counts: Some(counts(of_wave)),
            since: (index == header.wave.number).then(|| timestamp(header.wave.since)),
        }
    };
    (0..).zip(waves).map(wave).collect()
}

fn counts(counts: &RolloutCounts) -> rollout::RolloutCounts {
    rollout::RolloutCounts {
        waiting: count(counts.pending + counts.assigned),
        offline: count(counts.offline),
        installing: count(counts.acknowledged + counts.installing + counts.waits),
        at_gate: count(counts.waits),
        in_queue: count(counts.in_queue),
        // One that had the release already runs it, and has proven it.
        healthy: count(counts.healthy + counts.unchanged),
        restored: count(counts.restored),
        failed: count(counts.failed),
        skipped: count(counts.skipped),
    }
}

/// One device of a rollout, as the API shows it.
pub(crate) fn device(planned: &PlannedDevice, progress: &DeviceProgress) -> rollout::RolloutDevice {
    let (state, reached) = match &progress.status {
        DeviceStatus::Pending | DeviceStatus::Assigned => (RolloutDeviceState::Waiting, None),
        DeviceStatus::Acknowledged => (RolloutDeviceState::Installing, Some(Phase::Pending)),
        DeviceStatus::Installing(phase) => (RolloutDeviceState::Installing, Some(*phase)),
        DeviceStatus::Waits(_) => (RolloutDeviceState::Installing, Some(Phase::Wait)),
        DeviceStatus::Healthy | DeviceStatus::Unchanged => (RolloutDeviceState::Healthy, Some(Phase::Healthy)),
        DeviceStatus::Restored(_) => (RolloutDeviceState::Restored, Some(Phase::Restored)),
        DeviceStatus::Failed(_) => (RolloutDeviceState::Failed, Some(Phase::Failed)),
        DeviceStatus::Skipped(_) => (RolloutDeviceState::Skipped, None),
    };
    // How far a download has come is not reported: its size is shown once all of it is there.
    let is_fetched = matches!(
        reached,
        Some(
            Phase::Verify
                | Phase::Stage
                | Phase::Wait
                | Phase::Switch
                | Phase::Watch
                | Phase::Healthy
                | Phase::Restored
        )
    );
    let size_bytes = planned.artifact.filter(|_| is_fetched).map_or(0, |(_, size_bytes)| size_bytes);
    let reason = match &progress.status {
        DeviceStatus::Unchanged => Some("it had the release already".to_owned()),
        DeviceStatus::Waits(waits) => Some(waits.sentence(&planned.zone.clone().unwrap_or_default())),
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
        wave: planned.place.map_or(0, |place| place.wave.saturating_add(1)),
    }
}
