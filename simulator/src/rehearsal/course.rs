//! How a rehearsal went: written down as it happens, from what the server's store and the devices' runners did.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetd_actors::rollout::plan::Plan;
use fleetd_actors::rollout::status::{DeviceStatus, Failure, RolloutHeader, RolloutPhase, Skip, Stage};
use fleetd_server::record;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::{ArtifactDigest, LocalId, RolloutId};
use fleetd_sync_core::time::Monotonic;
use serde::{Deserialize, Serialize};

use crate::fleet::SERVER;
use crate::observation::Observation;

/// Slots of time that traffic is counted in, at most.
const SLOTS_MAX: u128 = 3600;

/// How a rehearsal went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsed {
    /// How the rollout ended: `succeeded`, `failed`, `running`.
    pub phase: String,
    /// Why, when it failed.
    #[serde(default)]
    pub reason: String,
    /// When it ended, in milliseconds since its start.
    pub ended_ms: Option<u64>,
    /// When an operator stopped the whole fleet, in milliseconds since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_ms: Option<u64>,
    /// How long was looked, in milliseconds since its start.
    pub until_ms: u64,
    /// The devices that the plan assigns the release to, in the order of the copy.
    pub devices: Vec<DeviceCourse>,
    /// Its waves, in their order.
    #[serde(default)]
    pub waves: Vec<WaveCourse>,
    /// How much time one number of `traffic_bytes` is for, in milliseconds.
    pub slot_ms: u64,
    /// Bytes between server and devices, slot by slot from the start; nothing where there were none.
    pub traffic_bytes: BTreeMap<u64, u64>,
}

/// How one wave fared. Times are in milliseconds since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveCourse {
    /// When it began.
    pub began_ms: Option<u64>,
    /// When its gate let the next one begin; behind the last one, when the rollout had succeeded.
    pub passed_ms: Option<u64>,
    /// When the rollout stopped itself in it, or failed.
    pub halted_ms: Option<u64>,
}

/// How one device fared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCourse {
    /// Its number in the copy.
    pub device: usize,
    /// Its wave, from 0.
    pub wave: u32,
    /// Where it stood at last, as its server knew it.
    pub end: DeviceEnd,
    /// When that became known, in milliseconds since the start.
    pub end_ms: Option<u64>,
    /// When the release was first executed there.
    pub ran_ms: Option<u64>,
    /// When the rollout gave it up, since it had begun and was not heard any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<u64>,
    /// Whether the seed made it crash there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_bad: bool,
}

/// Where a device stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceEnd {
    /// It has not acknowledged the release.
    #[default]
    Waiting,
    /// It has, and was at work.
    Working,
    /// It has the release laid out, and waited for a time at which it may switch.
    Waits,
    /// The release has proven itself there.
    Healthy,
    /// The release failed there, and the one before it runs again.
    Restored,
    /// It had begun, and was not heard any more: the rollout counts it as failed, and it goes on when it is back.
    Silent,
    /// It failed with nothing to restore.
    Failed,
    /// A hold or a stop is in its way: it goes on when that is gone.
    Stopped,
    /// It is left out.
    Left,
}

impl DeviceEnd {
    /// Says whether nothing more comes of it by itself.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Waiting | Self::Working | Self::Waits | Self::Silent)
    }

    /// Says whether the release has proven itself there.
    #[must_use]
    pub const fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy)
    }

    const fn of(status: &DeviceStatus) -> Self {
        match status {
            DeviceStatus::Pending | DeviceStatus::Assigned => Self::Waiting,
            DeviceStatus::Acknowledged | DeviceStatus::Installing(_) => Self::Working,
            DeviceStatus::Waits(_) => Self::Waits,
            DeviceStatus::Healthy | DeviceStatus::Unchanged => Self::Healthy,
            DeviceStatus::Restored(_) => Self::Restored,
            DeviceStatus::Failed(Failure::Silent) => Self::Silent,
            DeviceStatus::Failed(Failure::Reported(_) | Failure::Deadline) => Self::Failed,
            DeviceStatus::Skipped(Skip::Stopped | Skip::Held | Skip::Conflict) => Self::Stopped,
            DeviceStatus::Skipped(_) => Self::Left,
        }
    }
}

/// What is to be written down.
pub(super) struct Assigned {
    /// Its number in the copy.
    pub(super) device: usize,
    /// The hash of its key in the copy.
    pub(super) local: LocalId,
    /// Its wave, from 0.
    pub(super) wave: u32,
    /// Whether the release crashes there.
    pub(super) is_bad: bool,
    /// How much more the artifact has than what stands for it.
    pub(super) more_bytes: u64,
    /// How long the artifact takes.
    pub(super) transfer: Duration,
}

/// Writes down how a rehearsal goes.
pub struct Recorder {
    rollout: RolloutId,
    artifacts: BTreeSet<ArtifactDigest>,
    begin: Monotonic,
    places: BTreeMap<LocalId, usize>,
    nodes: BTreeMap<String, usize>,
    assigned: Vec<Assigned>,
    rehearsed: Rehearsed,
    open: usize,
    /// Whether every device begins at once, so that none is still to begin while the rollout goes on.
    begins_at_once: bool,
    /// Whether few may be at work at once, so that who comes back waits for a place.
    is_capped: bool,
    /// Where the rollout stands.
    phase: RolloutPhase,
    /// The device that was found open last: most looks find the same one.
    found: Cell<usize>,
    /// The wave that somebody has to approve, and of which nobody was told yet.
    awaiting: Option<u32>,
    carried_bytes: u64,
}

impl Recorder {
    pub(super) fn new(
        rollout: RolloutId,
        plan: &Plan,
        artifacts: BTreeSet<ArtifactDigest>,
        assigned: Vec<Assigned>,
        (begin, duration): (Monotonic, Duration),
        carried_bytes: u64,
    ) -> Self {
        let places = assigned.iter().enumerate().map(|(place, assigned)| (assigned.local, place));
        let nodes = assigned.iter().enumerate().map(|(place, assigned)| (format!("device-{}", assigned.device), place));
        let devices = assigned.iter().map(|assigned| DeviceCourse {
            device: assigned.device,
            wave: assigned.wave,
            is_bad: assigned.is_bad,
            ..DeviceCourse::default()
        });
        let slot_ms = u64::try_from(duration.as_millis().div_ceil(SLOTS_MAX).max(1000)).unwrap_or(u64::MAX);
        let devices: Vec<_> = devices.collect();
        let waves: Vec<_> = (0..plan.wave_count()).map(|_| WaveCourse::default()).collect();
        let begins_at_once = waves.len() == 1 && !plan.strategy.is_capped();
        let phase = RolloutPhase::Running.to_string();
        Self {
            rollout,
            artifacts,
            begin,
            places: places.collect(),
            nodes: nodes.collect(),
            open: devices.len(),
            begins_at_once,
            is_capped: plan.strategy.is_capped(),
            phase: RolloutPhase::Running,
            found: Cell::new(0),
            awaiting: None,
            assigned,
            rehearsed: Rehearsed { phase, devices, waves, slot_ms, ..Rehearsed::default() },
            carried_bytes,
        }
    }

    /// Takes what happened by now, and how much was carried between nodes.
    pub(crate) fn observe(&mut self, at: Monotonic, observations: &[Observation], carried_bytes: u64) {
        let at_ms = self.since_begin(at);
        let carried = carried_bytes.saturating_sub(self.carried_bytes);
        if carried > 0 {
            self.carried_bytes = carried_bytes;
            self.count(at_ms, carried);
        }
        for observation in observations {
            match observation {
                Observation::Answered { node, batch, is_durable: true } if &**node == SERVER => {
                    batch.mutations.iter().for_each(|mutation| self.on_stored(at_ms, mutation));
                }
                Observation::Started { node, artifact, .. } if self.artifacts.contains(artifact) => {
                    self.on_ran(at_ms, node);
                }
                _ => {}
            }
        }
    }

    fn since_begin(&self, at: Monotonic) -> u64 {
        u64::try_from(at.since(self.begin).as_millis()).unwrap_or(u64::MAX)
    }

    fn on_stored(&mut self, at_ms: u64, mutation: &Mutation) {
        match mutation {
            Mutation::Put { space: Space::Assignment, key, value } if key.starts_with(self.rollout.as_bytes()) => {
                let Ok((local, progress)) = record::rollout::decode_progress(value) else { return };
                let Some(course) = self.places.get(&local).and_then(|place| self.rehearsed.devices.get_mut(*place))
                else {
                    return;
                };
                let end = DeviceEnd::of(&progress.status);
                if end != course.end {
                    self.open = self.open + usize::from(course.end.is_final()) - usize::from(end.is_final());
                    (course.end, course.end_ms) = (end, Some(at_ms));
                    if end == DeviceEnd::Silent {
                        course.silent_ms = course.silent_ms.or(Some(at_ms));
                    }
                }
            }
            Mutation::Put { space: Space::Rollout, key, value } if key == self.rollout.as_bytes() => {
                let Ok(header) = record::rollout::decode_header(value) else { return };
                self.phase = header.phase;
                self.on_standing(at_ms, &header);
                // What halts has come to its end here; with nothing left that it could go on with it fails.
                let is_first = self.rehearsed.ended_ms.is_none();
                if header.phase != RolloutPhase::Running && (is_first || header.phase.is_ended()) {
                    self.rehearsed.ended_ms = self.rehearsed.ended_ms.or(Some(at_ms));
                    self.rehearsed.phase = header.phase.to_string();
                    self.rehearsed.reason = header.reason;
                }
            }
            _ => {}
        }
    }

    /// Notes how far the waves have come.
    fn on_standing(&mut self, at_ms: u64, header: &RolloutHeader) {
        let newest = usize::try_from(header.wave.number).unwrap_or(usize::MAX);
        for (number, wave) in self.rehearsed.waves.iter_mut().enumerate().take(newest.saturating_add(1)) {
            wave.began_ms.get_or_insert(at_ms);
            if number < newest || header.phase == RolloutPhase::Succeeded {
                wave.passed_ms.get_or_insert(at_ms);
            }
            if number == newest && matches!(header.phase, RolloutPhase::Halted | RolloutPhase::Failed) {
                wave.halted_ms.get_or_insert(at_ms);
            }
        }
        let awaits = header.phase == RolloutPhase::Running && header.wave.stage == Stage::AwaitingApproval;
        self.awaiting = awaits.then_some(header.wave.number.saturating_add(1));
    }

    fn on_ran(&mut self, at_ms: u64, node: &str) {
        let Some(place) = self.nodes.get(node).copied() else { return };
        let Some(course) = self.rehearsed.devices.get_mut(place).filter(|course| course.ran_ms.is_none()) else {
            return;
        };
        course.ran_ms = Some(at_ms);
        let Some(assigned) = self.assigned.get(place) else { return };
        // What stands for the artifact was carried already; the rest of it came by now, at an even pace.
        let (more_bytes, slot_ms) = (assigned.more_bytes, self.rehearsed.slot_ms);
        let took_ms = u64::try_from(assigned.transfer.as_millis()).unwrap_or(u64::MAX).min(at_ms);
        let slots = (at_ms / slot_ms) - (at_ms - took_ms) / slot_ms + 1;
        for slot in 0..slots {
            let share = more_bytes * (slot + 1) / slots - more_bytes * slot / slots;
            self.count(at_ms - took_ms + slot * slot_ms, share);
        }
    }

    fn count(&mut self, at_ms: u64, bytes: u64) {
        if bytes > 0 {
            *self.rehearsed.traffic_bytes.entry(at_ms / self.rehearsed.slot_ms).or_default() += bytes;
        }
    }

    /// Notes that an operator stops the whole fleet.
    pub(crate) fn on_stop(&mut self, at: Monotonic) {
        self.rehearsed.stopped_ms = Some(self.since_begin(at));
    }

    /// The rollout, and the wave of it that somebody has to approve from now on. It is told once.
    pub(crate) fn take_awaiting(&mut self) -> Option<(RolloutId, u32)> {
        Some((self.rollout, self.awaiting.take()?))
    }

    /// Whether the rollout has ended and nothing more comes of any device but those that `is_gone` says are away for
    /// good.
    pub(crate) fn is_over(&self, is_gone: impl Fn(usize) -> bool) -> bool {
        let is_open =
            |course: &DeviceCourse| !course.end.is_final() && !self.is_stopped(course.end) && !is_gone(course.device);
        self.rehearsed.ended_ms.is_some() && (self.open == 0 || self.find(is_open).is_none())
    }

    /// Whoever has not begun when the rollout halts never begins by itself.
    const fn is_stopped(&self, end: DeviceEnd) -> bool {
        self.phase.is_stopped() && matches!(end, DeviceEnd::Waiting | DeviceEnd::Silent)
    }

    /// Whether a device has to come to an end by itself, soon, once everybody can be reached: its turn has come, and it
    /// waits for no window.
    fn is_expected(&self, course: &DeviceCourse) -> bool {
        let is_its_turn = self.begins_at_once || (self.phase.is_ended() && !self.is_capped);
        is_its_turn && !course.end.is_final() && course.end != DeviceEnd::Waits && !self.is_stopped(course.end)
    }

    fn find(&self, is_it: impl Fn(&DeviceCourse) -> bool) -> Option<&DeviceCourse> {
        let devices = &self.rehearsed.devices;
        if let Some(again) = devices.get(self.found.get()).filter(|course| is_it(course)) {
            return Some(again);
        }
        let found = devices.iter().position(is_it)?;
        self.found.set(found);
        devices.get(found)
    }

    /// Whether every device has come to an end that has to.
    pub(crate) fn all_ended(&self) -> bool {
        self.open == 0 || self.find(|course| self.is_expected(course)).is_none()
    }

    /// How many devices run the release well.
    pub(crate) fn healthy(&self) -> usize {
        self.rehearsed.devices.iter().filter(|course| course.end == DeviceEnd::Healthy).count()
    }

    /// The first device that has to come to an end and has not, and how it stands.
    pub(crate) fn first_open(&self) -> Option<(usize, DeviceEnd)> {
        let open = self.rehearsed.devices.iter().find(|course| self.is_expected(course))?;
        Some((open.device, open.end))
    }

    /// What was written down by now.
    pub(crate) fn written(&self, at: Monotonic) -> Rehearsed {
        Rehearsed { until_ms: self.since_begin(at), ..self.rehearsed.clone() }
    }
}
