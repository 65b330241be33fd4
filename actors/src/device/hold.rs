//! A rollout's hold on a device: the stop of a pause, a halt, or an abort.
//!
//! It stands among the device's wishes beside the assignment, and reaches the device as an operator's hold does. A
//! rollout has one hold on a device at most: a later stop's takes the place of an earlier one's.

use fleetd_sync_core::id::{HoldId, RolloutId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Now;

use super::record::{DeviceRecord, HoldRow, Membership};
use super::{Device, DeviceTurn, Effect, RolloutNews, wanted};

impl Device {
    pub(super) fn on_hold(
        &mut self,
        now: Now,
        (rollout, hold): (RolloutId, HoldId),
        workload: WorkloadName,
        reason: String,
        turn: &mut DeviceTurn,
    ) {
        let is_open =
            |record: &&mut DeviceRecord| !matches!(record.membership, Membership::Revoked | Membership::Recovered);
        let Some(record) = self.record.as_mut().filter(is_open) else {
            return turn.effect(Effect::TellRollout { rollout, news: RolloutNews::Gone });
        };
        if record.holds.get(&hold).is_none_or(|standing| standing.reason != reason) {
            lift_all(record, rollout);
            wanted::hold(&mut record.wanted, hold, Some(&workload), &reason);
            record.note(now.wall, "held", Some(&workload), format!("held ({hold}): {reason}"), &rollout.to_string());
            let (created_by, created_at) = (rollout.to_string(), now.wall);
            record.holds.insert(hold, HoldRow { workload: Some(workload), reason, created_by, created_at });
            self.persist_record(turn);
            self.mint(now, turn);
        }
        turn.effect(Effect::TellRollout { rollout, news: RolloutNews::Held(hold) });
    }

    pub(super) fn on_lift(&mut self, now: Now, rollout: RolloutId, workload: &WorkloadName, turn: &mut DeviceTurn) {
        if let Some(record) = &mut self.record
            && lift_all(record, rollout)
        {
            let message = format!("the hold of {rollout} was lifted");
            record.note(now.wall, "lifted", Some(workload), message, &rollout.to_string());
            self.persist_record(turn);
            self.mint(now, turn);
        }
        let is_held = self.record.as_ref().is_some_and(|record| {
            record.holds.values().any(|hold| hold.workload.as_ref().is_none_or(|held| held == workload))
        });
        turn.effect(Effect::TellRollout { rollout, news: RolloutNews::Lifted { is_held } });
    }
}

/// Takes every hold of a rollout back; false when there was none.
pub(super) fn lift_all(record: &mut DeviceRecord, rollout: RolloutId) -> bool {
    let owner = rollout.to_string();
    let own = record.holds.iter().filter(|(_, hold)| hold.created_by == owner);
    let own: Vec<_> = own.map(|(hold, row)| (*hold, row.workload.clone())).collect();
    for (hold, workload) in &own {
        record.holds.remove(hold);
        wanted::lift(&mut record.wanted, *hold, workload.as_ref());
    }
    !own.is_empty()
}
