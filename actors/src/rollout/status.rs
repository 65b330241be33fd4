//! How far a rollout and its devices have come.

use std::fmt;
use std::time::Duration;

use fleetd_sync_core::id::{HoldId, PlanId, RolloutId};
use fleetd_sync_core::time::Wall;

use super::plan::{PlannedDevice, Verdict};
use crate::orders::Standstill;
use crate::report::{Fault, Phase, Waits};
use crate::window::Zone;

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RolloutPhase {
    /// It goes on: its newest wave is at work, or the gate behind it waits.
    Running,
    /// An operator stopped it, and may let it go on.
    Paused,
    /// It stopped itself, since too many devices failed; an operator may let it go on.
    Halted,
    /// Every device that it could reach has the release; offline ones follow by themselves.
    Succeeded,
    /// It ended with more failed devices than the plan allows, or with none that has the release.
    Failed,
    /// An operator took it back.
    Aborted,
}

impl RolloutPhase {
    /// Says whether it will never be another one.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Aborted)
    }

    /// Says whether somebody or something stopped it, for now.
    #[must_use]
    pub const fn is_stopped(self) -> bool {
        matches!(self, Self::Paused | Self::Halted)
    }
}

impl fmt::Display for RolloutPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        })
    }
}

/// What the newest wave, or the gate behind it, waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// For its devices: each that can be reached has to end, and one has to prove the release.
    Rolling,
    /// For time to pass.
    Baking,
    /// For somebody's word.
    AwaitingApproval,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 3] = [Self::Rolling, Self::Baking, Self::AwaitingApproval];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rolling => "rolling",
            Self::Baking => "baking",
            Self::AwaitingApproval => "awaiting approval",
        })
    }
}

/// How long a stage still lasts. What outlives a restart is a date: what is left of it is counted anew after a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageTimer {
    /// As long as it takes.
    Unbounded,
    /// To this date.
    Until(Wall),
    /// So long, once a stop has ended.
    Left(Duration),
}

/// Where a rollout stands among its waves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaveStanding {
    /// The newest wave that has begun, from 0. All before it have passed their gates.
    pub number: u32,
    /// What it waits for.
    pub stage: Stage,
    /// Since when.
    pub since: Wall,
    /// For how long, at most: a wave's deadline, or the rest of its bake.
    pub timer: StageTimer,
}

/// The rollout itself, without its devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutHeader {
    /// Its id.
    pub rollout: RolloutId,
    /// The plan that it carries out.
    pub plan: PlanId,
    /// Where it stands.
    pub phase: RolloutPhase,
    /// Why, when it failed or somebody stopped it.
    pub reason: String,
    /// When it was started.
    pub created_at: Wall,
    /// Who started it.
    pub created_by: String,
    /// When it ended.
    pub ended_at: Option<Wall>,
    /// Something is still owed to a device, or awaited of one: a restart takes the rollout up again.
    pub is_open: bool,
    /// Where it stands among its waves.
    pub wave: WaveStanding,
    /// The hold by which it is stopped now.
    pub hold: Option<HoldId>,
    /// How often it was stopped: each stop has a hold of its own.
    pub stops: u32,
    /// The order over the whole fleet that keeps it stopped.
    pub ordered: Option<Standstill>,
    /// Failures that an operator had before the eyes and went on: they count against the budget no more.
    pub failures_accepted: u32,
    /// Who took it back after it had ended, if somebody did: whoever has not got the release by then gets it no more.
    pub taken_back: Option<String>,
}

impl RolloutHeader {
    /// Says whether a wave has begun.
    #[must_use]
    pub const fn has_begun(&self, wave: u32) -> bool {
        wave <= self.wave.number
    }

    /// Says whether whoever has not got the release still gets it: in its turn, or once it is back.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        matches!(self.phase, RolloutPhase::Running | RolloutPhase::Succeeded) && self.taken_back.is_none()
    }

    /// Says whether the devices were called back that had not come to their end.
    #[must_use]
    pub const fn is_called_back(&self) -> bool {
        matches!(self.phase, RolloutPhase::Aborted) || self.taken_back.is_some()
    }
}

/// Why a rollout left a device out, or leaves it be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The plan left it out, for this reason.
    Planned(String),
    /// A hold is in force: it goes on once that is lifted.
    Held,
    /// Authorities disagree on it.
    Conflict,
    /// Somebody stopped the workload: the release proves itself once it is started.
    Stopped,
    /// The workload was taken off the device.
    Removed,
    /// Another rollout took its place.
    Superseded(RolloutId),
    /// The device is of the fleet no more.
    Gone,
    /// Too few devices of its site were ready in time, so that none of them switched.
    Site,
    /// The rollout was aborted before the device had switched to the release: it keeps what it ran.
    Aborted,
    /// The rollout was aborted while the device was at work. What became of that is still to come.
    AbortedAtWork,
}

impl Skip {
    /// Says whether the device goes on by itself once what stands in its way is gone.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Held | Self::Conflict | Self::Stopped)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planned(reason) => f.write_str(reason),
            Self::Held => f.write_str("held"),
            Self::Conflict => f.write_str("authorities disagree on it"),
            Self::Stopped => f.write_str("stopped; it proves itself once it is started"),
            Self::Removed => f.write_str("the workload was removed"),
            Self::Superseded(by) => write!(f, "{by} took its place"),
            Self::Gone => f.write_str("the device left the fleet"),
            Self::Site => f.write_str("too few devices of its site were ready in time, so that none of them switched"),
            Self::Aborted => f.write_str("the rollout was aborted"),
            Self::AbortedAtWork => f.write_str("the rollout was aborted while it was at work; its end is awaited"),
        }
    }
}

/// Why a device counts as failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It said so itself.
    Reported(Option<Fault>),
    /// It acknowledged its assignment and was not heard any more.
    Silent,
    /// It acknowledged its assignment and had not ended when its wave's time was over.
    Deadline,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported(Some(fault)) => fault.fmt(f),
            Self::Reported(None) => f.write_str("it failed"),
            Self::Silent => f.write_str("it acknowledged and then fell silent"),
            Self::Deadline => f.write_str("it acknowledged and did not end in its wave's time"),
        }
    }
}

/// How far a device has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceStatus {
    /// Its assignment is not durable with its actor yet.
    Pending,
    /// It is, and the device has not acknowledged it.
    Assigned,
    /// The device has acknowledged it.
    Acknowledged,
    /// The device is at work on it, in this phase.
    Installing(Phase),
    /// The release is laid out there, and waits for a time at which the device may switch to it.
    Waits(Waits),
    /// The release has proven itself there.
    Healthy,
    /// The release failed there, and the one before it runs again.
    Restored(Option<Fault>),
    /// It failed with nothing to restore, or the device fell silent.
    Failed(Failure),
    /// It had the release already.
    Unchanged,
    /// It is left out, or left be.
    Skipped(Skip),
}

impl DeviceStatus {
    /// Says whether the device itself has come to an end with the release.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Healthy | Self::Restored(_) | Self::Failed(Failure::Reported(_)) | Self::Unchanged)
    }

    /// Says whether the device is to get the release, or is at work on it.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self, Self::Pending | Self::Assigned | Self::Acknowledged | Self::Installing(_) | Self::Waits(_))
    }

    /// Says whether something may come of it yet: the device is to get the release, is at work on it, or would go on.
    #[must_use]
    pub const fn may_go_on(&self) -> bool {
        match self {
            Self::Pending | Self::Assigned | Self::Acknowledged | Self::Installing(_) | Self::Waits(_) => true,
            Self::Failed(failure) => matches!(failure, Failure::Silent | Failure::Deadline),
            Self::Skipped(skip) => skip.is_passing(),
            Self::Healthy | Self::Restored(_) | Self::Unchanged => false,
        }
    }

    pub(super) const fn waits_for_device(&self) -> bool {
        matches!(self, Self::Pending | Self::Assigned)
    }

    /// Says whether the device is at work, as far as is known: its next word is awaited.
    pub(super) const fn is_at_work(&self) -> bool {
        matches!(self, Self::Acknowledged | Self::Installing(_) | Self::Waits(_) | Self::Skipped(Skip::AbortedAtWork))
    }

    /// Says whether it is ready, and waits for the other devices of its site.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Waits(Waits::Site))
    }

    /// Says whether other workloads of the device have their turn before it.
    #[must_use]
    pub const fn is_in_queue(&self) -> bool {
        matches!(self, Self::Waits(Waits::Queue { .. }))
    }

    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Skipped(skip) if skip.is_passing())
    }

    /// Why, for people, where there is something to say.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Restored(fault) => fault.as_ref().map(ToString::to_string),
            Self::Failed(failure) => Some(failure.to_string()),
            Self::Skipped(skip) => Some(skip.to_string()),
            Self::Waits(waits) => Some(waits.sentence(&Zone::default())),
            Self::Pending
            | Self::Assigned
            | Self::Acknowledged
            | Self::Installing(_)
            | Self::Healthy
            | Self::Unchanged => None,
        }
    }
}

impl fmt::Display for DeviceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("pending"),
            Self::Assigned => f.write_str("assigned"),
            Self::Acknowledged => f.write_str("acknowledged"),
            Self::Installing(phase) => phase.fmt(f),
            Self::Waits(_) => f.write_str("waits"),
            Self::Healthy => f.write_str("healthy"),
            Self::Restored(_) => f.write_str("restored"),
            Self::Failed(_) => f.write_str("failed"),
            Self::Unchanged => f.write_str("unchanged"),
            Self::Skipped(_) => f.write_str("skipped"),
        }
    }
}

/// What the device's actor has not confirmed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Nothing.
    Nothing,
    /// The assignment.
    Assign,
    /// The withdrawal of it, and of the rollout's hold.
    Withdraw,
    /// The hold by which the rollout is stopped.
    Hold,
    /// That this hold is lifted.
    Lift,
}

impl Owed {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Nothing, Self::Assign, Self::Withdraw, Self::Hold, Self::Lift];
}

/// What was decided of a site whose devices switch together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SiteWord {
    /// Nothing yet.
    #[default]
    Unsaid,
    /// That it switches.
    Switch,
    /// That it does not.
    Stay,
}

impl SiteWord {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Unsaid, Self::Switch, Self::Stay];
}

/// What a rollout knows of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceProgress {
    /// How far it has come.
    pub status: DeviceStatus,
    /// What its actor has not confirmed.
    pub owed: Owed,
    /// Since when it cannot be reached, as far as its server knows.
    pub offline_since: Option<Wall>,
    /// It did not acknowledge in time, though its server believes that it can be reached.
    pub is_late: bool,
    /// A hold of this rollout stands on it, or is on its way there.
    pub is_held: bool,
    /// What was decided of its site, where its devices switch together.
    pub word: SiteWord,
    /// When its status last changed.
    pub changed_at: Wall,
}

impl DeviceProgress {
    pub(super) fn planned(device: &PlannedDevice, at: Wall) -> Self {
        let (status, owed) = match &device.verdict {
            Verdict::Update { .. } | Verdict::Install => (DeviceStatus::Pending, Owed::Nothing),
            Verdict::Unchanged => (DeviceStatus::Unchanged, Owed::Nothing),
            Verdict::Blocked { reason, .. } => (DeviceStatus::Skipped(Skip::Planned(reason.clone())), Owed::Nothing),
        };
        let offline_since = device.offline_since;
        Self { status, owed, offline_since, is_late: false, is_held: false, word: SiteWord::Unsaid, changed_at: at }
    }

    /// Says whether it waits for its turn: nothing was sent to it yet.
    #[must_use]
    pub fn is_queued(&self) -> bool {
        self.status == DeviceStatus::Pending && self.owed == Owed::Nothing && !self.is_held
    }

    /// Says whether it takes one of the places at work: it has the assignment, as far as is known, and has not ended.
    #[must_use]
    pub fn has_slot(&self) -> bool {
        match &self.status {
            DeviceStatus::Pending => self.owed != Owed::Nothing || self.is_held,
            DeviceStatus::Assigned
            | DeviceStatus::Acknowledged
            | DeviceStatus::Installing(_)
            | DeviceStatus::Waits(_) => true,
            DeviceStatus::Skipped(Skip::Held) => self.is_held,
            _ => false,
        }
    }

    /// Says whether a stop has to reach it: it may act on the assignment, or do so once it is back.
    pub(super) const fn can_act(&self) -> bool {
        match &self.status {
            DeviceStatus::Pending => !matches!(self.owed, Owed::Nothing | Owed::Withdraw) || self.is_held,
            DeviceStatus::Assigned
            | DeviceStatus::Acknowledged
            | DeviceStatus::Installing(_)
            | DeviceStatus::Waits(_)
            | DeviceStatus::Failed(Failure::Silent | Failure::Deadline)
            | DeviceStatus::Skipped(Skip::Held | Skip::Conflict | Skip::Stopped) => true,
            _ => false,
        }
    }

    const fn is_open(&self) -> bool {
        !matches!(self.owed, Owed::Nothing) || self.status.is_at_work()
    }

    /// Says whether the device cannot be reached, as far as anybody can tell.
    #[must_use]
    pub const fn is_offline(&self) -> bool {
        self.offline_since.is_some() || self.is_late
    }
}

/// How many devices have come how far: each stands in one field, but for the last six, which count some again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RolloutCounts {
    /// Not assigned yet.
    pub pending: usize,
    /// Assigned, and not acknowledged.
    pub assigned: usize,
    /// Acknowledged.
    pub acknowledged: usize,
    /// At work on it.
    pub installing: usize,
    /// They have it laid out, and wait for a time at which they may switch.
    pub waits: usize,
    /// They have the release.
    pub healthy: usize,
    /// They have the one before it again.
    pub restored: usize,
    /// They failed with nothing to restore, or fell silent.
    pub failed: usize,
    /// They had the release already.
    pub unchanged: usize,
    /// They are left out, or left be.
    pub skipped: usize,
    /// Among pending and assigned: those that cannot be reached.
    pub offline: usize,
    /// Among skipped: those that go on by themselves once what stands in their way is gone.
    pub passing: usize,
    /// Among pending: those that can be reached, and whose turn has not come.
    pub queued: usize,
    /// Among waits: those that have other workloads of their device before them.
    pub in_queue: usize,
    /// Among waits: those that are ready, and wait for the other devices of their site.
    pub ready: usize,
    /// Those to which something is owed, or that are at work, wherever they stand.
    pub open: usize,
}

impl RolloutCounts {
    pub(super) fn add(&mut self, progress: &DeviceProgress) {
        *self.field(&progress.status) += 1;
        if progress.status.waits_for_device() && progress.is_offline() {
            self.offline += 1;
        }
        if progress.status.is_passing() {
            self.passing += 1;
        }
        self.queued += usize::from(progress.is_queued() && !progress.is_offline());
        self.in_queue += usize::from(progress.status.is_in_queue());
        self.ready += usize::from(progress.status.is_ready());
        if progress.is_open() {
            self.open += 1;
        }
    }

    pub(super) fn remove(&mut self, progress: &DeviceProgress) {
        *self.field(&progress.status) -= 1;
        if progress.status.waits_for_device() && progress.is_offline() {
            self.offline -= 1;
        }
        if progress.status.is_passing() {
            self.passing -= 1;
        }
        self.queued -= usize::from(progress.is_queued() && !progress.is_offline());
        self.in_queue -= usize::from(progress.status.is_in_queue());
        self.ready -= usize::from(progress.status.is_ready());
        if progress.is_open() {
            self.open -= 1;
        }
    }

    const fn field(&mut self, status: &DeviceStatus) -> &mut usize {
        match status {
            DeviceStatus::Pending => &mut self.pending,
            DeviceStatus::Assigned => &mut self.assigned,
            DeviceStatus::Acknowledged => &mut self.acknowledged,
            DeviceStatus::Installing(_) => &mut self.installing,
            DeviceStatus::Waits(_) => &mut self.waits,
            DeviceStatus::Healthy => &mut self.healthy,
            DeviceStatus::Restored(_) => &mut self.restored,
            DeviceStatus::Failed(_) => &mut self.failed,
            DeviceStatus::Unchanged => &mut self.unchanged,
            DeviceStatus::Skipped(_) => &mut self.skipped,
        }
    }

    /// All devices of the plan.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.pending + self.assigned + self.acknowledged + self.installing + self.waits + self.ended()
    }

    /// Those that can be reached and have not ended.
    #[must_use]
    pub const fn under_way(&self) -> usize {
        self.pending + self.assigned + self.acknowledged + self.installing + self.waits - self.offline
    }

    /// Those that have to end yet, or may: nothing more comes of the others.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.pending + self.assigned + self.acknowledged + self.installing + self.waits + self.passing
    }

    /// Those that failed, in the sense of a failure budget.
    #[must_use]
    pub const fn failures(&self) -> usize {
        self.restored + self.failed
    }

    /// Those that were reached: they were sent the assignment, and are neither left be nor offline before they
    /// acknowledged it.
    #[must_use]
    pub const fn reached(&self) -> usize {
        (self.total() - self.skipped).saturating_sub(self.offline + self.queued)
    }

    /// Those that have the release, by their own word.
    #[must_use]
    pub const fn succeeded(&self) -> usize {
        self.healthy + self.unchanged
    }

    /// Those that have ended.
    #[must_use]
    pub const fn ended(&self) -> usize {
        self.healthy + self.restored + self.failed + self.unchanged + self.skipped
    }
}
