//! A rollout's whole state between two turns, for the flight recorder: what it remembers, and what it only knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::id::{LocalId, RolloutId};
use fleetd_sync_core::time::Monotonic;

use super::plan::Plan;
use super::status::{DeviceProgress, RolloutHeader};
use super::{Rollout, RolloutRun};
use crate::flight::{Extent, LEGS_MAX, Recorded};

/// Devices of the largest rollout that is recorded: a state has about 250 bytes for each, and two are kept.
pub const DEVICES_RECORDED_MAX: usize = 20_000;
/// Steps of the longest leg. The state of a rollout of as many devices is taken once for each step of a device.
const LEG_STEPS_MAX: usize = 1024;
/// Legs' worth of steps that are kept.
const LEGS_KEPT: usize = 4;

/// A rollout's whole state between two turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: RolloutId,
    /// The rest of it, once it was started.
    pub run: Option<RunSnapshot>,
}

/// The state of a rollout that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSnapshot {
    /// The rollout itself.
    pub header: RolloutHeader,
    /// The plan that it carries out.
    pub plan: Arc<Plan>,
    /// How far each device has come.
    pub devices: BTreeMap<LocalId, DeviceProgress>,
    /// Devices to which something is to be sent.
    pub unsent: BTreeSet<LocalId>,
    /// Devices that are to be asked how they stand.
    pub unasked: BTreeSet<LocalId>,
    /// When what was not confirmed is sent again.
    pub resend_at: BTreeMap<LocalId, Monotonic>,
    /// How often it was.
    pub resends: BTreeMap<LocalId, u32>,
    /// By when a device must say something, or be back.
    pub due_at: BTreeMap<LocalId, Monotonic>,
    /// When the time of the present stage is over.
    pub stage_due: Option<Monotonic>,
    /// Whether every deadline was set since the last load.
    pub is_armed: bool,
}

/// How much is kept of a rollout, at most: what is more was recorded by nobody.
#[must_use]
pub fn extent_max() -> Extent {
    extent(LEG_STEPS_MAX)
}

fn extent(devices: usize) -> Extent {
    let leg_steps = devices.clamp(Extent::default().leg_steps, LEG_STEPS_MAX);
    let legs_max = if devices > LEG_STEPS_MAX { 2 } else { LEGS_MAX };
    Extent { leg_steps, steps_max: LEGS_KEPT * leg_steps, legs_max }
}

impl Recorded for Rollout {
    type State = Snapshot;

    fn snapshot(&self) -> Option<Snapshot> {
        let run = match &self.run {
            Some(run) if run.devices.len() > DEVICES_RECORDED_MAX => return None,
            Some(run) => Some(run.snapshot()),
            None => None,
        };
        Some(Snapshot { id: self.id, run })
    }

    fn restore(state: Snapshot) -> Self {
        Self { id: state.id, run: state.run.map(RolloutRun::restore) }
    }

    fn extent(&self) -> Extent {
        extent(self.run.as_ref().map_or(0, |run| run.devices.len()))
    }
}

impl RolloutRun {
    fn snapshot(&self) -> RunSnapshot {
        RunSnapshot {
            header: self.header.clone(),
            plan: Arc::clone(&self.plan),
            devices: self.devices.clone(),
            unsent: self.unsent.clone(),
            unasked: self.unasked.clone(),
            resend_at: self.resend_at.by_device().clone(),
            resends: self.resends.clone(),
            due_at: self.due_at.by_device().clone(),
            stage_due: self.stage_due,
            is_armed: self.is_armed,
        }
    }

    /// The counts are not in a snapshot: they follow from its devices.
    fn restore(state: RunSnapshot) -> Self {
        let mut run = Self::new(state.header, state.plan);
        for (device, progress) in state.devices {
            run.put(device, progress);
        }
        run.unsent = state.unsent;
        run.unasked = state.unasked;
        run.resend_at = state.resend_at.into_iter().collect();
        run.resends = state.resends;
        run.due_at = state.due_at.into_iter().collect();
        run.stage_due = state.stage_due;
        run.is_armed = state.is_armed;
        run
    }
}
