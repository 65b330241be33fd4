//! Between what is laid out and what is current: the times at which a device may switch, and who may put that off.
//!
//! The terms of the assignment say when a window is open, and how long the device may put its switch off. A device that
//! does not know the date does not switch while a window is asked for. Somebody at the device puts a switch off by a
//! command, for a while; the workload does so by a lock, which is a file, as long as that is there. Only while nothing
//! else stands in the way does that use the limit up, and once it is used up neither counts any more.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::{ClockFloor, ClockQuality, Monotonic, Now};

use super::device_queue::Ahead;
use super::record::{Deferral, Install, Step, Target};
use super::{Effect, Workload, WorkloadTurn};
use crate::report::Waits;
use crate::rollout::strategy::Priority;
use crate::window::{Calendar, DeviceTerms, Zone};

/// Time after which it is looked again whatever is waited for: a clock may be set at any moment.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Time after which a lock is looked for again.
const LOCK_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Time after which a workload asks again whether its turn has come.
const TURN_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Time that a window must still be open for a device that waits for its site: as long as it takes to look again, and as
/// long again for the word to come.
const SITE_MARGIN: Duration = Duration::from_secs(120);
/// Time by which the limit is used up in one step, before it passes: a device that restarts gains none.
const VETO_STEP: Duration = Duration::from_mins(5);

/// The terms of an assignment, as far as this agent understands them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignedTerms {
    /// It does.
    Known(Arc<DeviceTerms>),
    /// It does not, and never switches by them.
    Unknown {
        /// What they are.
        text: String,
        /// What it does not understand.
        cause: String,
    },
}

impl AssignedTerms {
    /// Reads them.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text.parse() {
            Ok(terms) => Self::Known(Arc::new(terms)),
            Err(error) => Self::Unknown { text: text.to_owned(), cause: ToString::to_string(&error) },
        }
    }

    /// What they were read from.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Known(terms) => terms.to_string(),
            Self::Unknown { text, .. } => text.clone(),
        }
    }
}

/// What is seen at the device before it switches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Whether the workload's lock is there.
    pub is_locked: bool,
    /// A date that has passed for certain.
    pub clock_floor: ClockFloor,
}

/// Where a workload stands among those of its device that switch, or want to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InQueue {
    /// Nowhere.
    #[default]
    Out,
    /// It has asked for its turn.
    Asked,
    /// It has its turn.
    AtWork,
}

/// What a release that is laid out waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// What is told of it.
    pub waits: Option<Waits>,
    /// When what put the switch off ends.
    pub deferred_until: Option<Monotonic>,
    /// Until when the time lasts that was taken of the limit.
    pub veto_until: Option<Monotonic>,
    /// Whether the workload has its turn on the device.
    pub queue: InQueue,
}

impl Workload {
    pub(super) fn on_looked(&mut self, operation: OperationId, look: Look) {
        if self.work.operation == Some(operation) {
            self.work.operation = None;
            self.look = Some(look);
        }
    }

    /// How long the present assignment lets a switch be put off.
    pub(super) fn veto_limit(&self) -> Option<Duration> {
        match &self.assignment.as_ref()?.terms {
            None => Some(DeviceTerms::default().veto_limit),
            Some(AssignedTerms::Known(terms)) => Some(terms.veto_limit),
            Some(AssignedTerms::Unknown { .. }) => None,
        }
    }

    /// What it has been told may have changed: it is looked again at once.
    pub(super) fn look_again(&mut self) {
        if matches!(self.record.install, Some(Install { step: Step::Wait(_), .. })) {
            self.work.retry_at = None;
        }
    }

    pub(super) fn on_defer(&mut self, now: Now, deferral: Deferral) {
        self.gate.deferred_until = Some(now.monotonic + deferral.length);
        self.record.deferral = Some(deferral);
        self.look_again();
    }

    pub(super) fn on_allow(&mut self) {
        (self.record.deferral, self.gate.deferred_until) = (None, None);
        self.look_again();
    }

    /// Ends what put a switch off for long enough. A load forgets when that began, and counts it anew.
    pub(super) fn tend_deferral(&mut self, now: Now) {
        let Some(deferral) = &self.record.deferral else { return };
        if self.gate.deferred_until.is_none() && is_planted(Bug::DeferralLost) {
            return self.on_allow();
        }
        let until = *self.gate.deferred_until.get_or_insert(now.monotonic + deferral.length);
        if until <= now.monotonic {
            self.on_allow();
        }
    }

    /// Forgets what a release waited for that waits no more.
    pub(super) fn close_gate(&mut self, now: Now) {
        self.look = None;
        if !matches!(self.record.install, Some(Install { step: Step::Wait(_), .. })) {
            self.gate.waits = None;
            self.give_limit_back(now);
        }
    }

    /// Says whether a release that is laid out may be switched to now. If not, it is looked again later.
    pub(super) fn may_switch(&mut self, now: Now, turn: &mut WorkloadTurn) -> bool {
        let Some(look) = self.look.take() else {
            let operation = self.begin_work();
            turn.effect(Effect::Look { operation });
            return false;
        };
        let moment = self.judge_moment(now, look);
        if moment.as_ref().is_none_or(|(waits, _)| !waits.is_veto()) {
            self.give_limit_back(now);
        }
        let Some((waits, again)) = moment else {
            if self.gate.queue != InQueue::AtWork {
                self.ask_for_turn(turn);
            }
            return self.gate.queue == InQueue::AtWork;
        };
        // Whoever has to wait for something else is in nobody's way.
        self.leave_queue(turn);
        self.gate.waits = Some(waits);
        self.work.retry_at = Some(now.monotonic + again);
        false
    }

    fn ask_for_turn(&mut self, turn: &mut WorkloadTurn) {
        let priority = match self.assignment.as_ref().and_then(|assignment| assignment.terms.as_ref()) {
            Some(AssignedTerms::Known(terms)) => terms.priority,
            Some(AssignedTerms::Unknown { .. }) | None => Priority::default(),
        };
        let operation = self.begin_work();
        self.gate.queue = InQueue::Asked;
        turn.effect(Effect::Queue { operation, priority });
    }

    /// Its turn has come, and it is looked once more whether it may still switch; or others go first.
    pub(super) fn on_queued(&mut self, now: Now, operation: OperationId, ahead: Option<Ahead>) {
        if self.work.operation != Some(operation) {
            return;
        }
        self.work.operation = None;
        match ahead {
            None => self.gate.queue = InQueue::AtWork,
            Some(Ahead { first, before }) => {
                self.gate.waits = Some(Waits::Queue { before, first });
                self.work.retry_at = Some(now.monotonic + TURN_AGAIN_AFTER);
            }
        }
    }

    fn leave_queue(&mut self, turn: &mut WorkloadTurn) {
        if self.gate.queue != InQueue::Out {
            self.gate.queue = InQueue::Out;
            turn.effect(Effect::LeaveQueue);
        }
    }

    /// Ends its turn once there is nothing more to be proven or restored, or nothing that could: a program that is stopped
    /// must not keep the others from theirs.
    pub(super) fn tend_queue(&mut self, turn: &mut WorkloadTurn) {
        let keeps = match self.record.install.as_ref().map(|install| &install.step) {
            Some(Step::Wait(_) | Step::Switch(_) | Step::Restore { .. }) => true,
            Some(Step::Watch { .. }) => self.wanted().is_some(),
            Some(Step::Pending | Step::Download(_) | Step::Verify(_) | Step::Stage(_)) | None => false,
        };
        if !keeps {
            self.leave_queue(turn);
        }
    }

    /// What stands in the way of a switch, and when it is looked again.
    fn judge_moment(&mut self, now: Now, look: Look) -> Option<(Waits, Duration)> {
        let terms = match self.assignment.as_ref().and_then(|assignment| assignment.terms.clone()) {
            None => Arc::new(DeviceTerms::default()),
            Some(AssignedTerms::Known(terms)) => terms,
            Some(AssignedTerms::Unknown { cause, .. }) => return Some((Waits::Terms { cause }, LOOK_AGAIN_AFTER)),
        };
        if let Some(waiting) = judge_window(&terms.calendar, look.clock_floor.judge(now)) {
            return Some(waiting);
        }
        // Whoever says that it is ready has time to hear the word that its site switches.
        let soon = Now { wall: now.wall + SITE_MARGIN, ..look.clock_floor.judge(now) };
        if terms.is_together
            && let Some(waiting) = judge_window(&terms.calendar, soon)
        {
            return Some(waiting);
        }
        let put_off = self.judge_veto(now, terms.veto_limit, look.is_locked);
        put_off.or_else(|| terms.is_together.then_some((Waits::Site, LOOK_AGAIN_AFTER)))
    }

    /// Who puts the switch off, and when it is looked again.
    fn judge_veto(&mut self, now: Now, limit: Duration, is_locked: bool) -> Option<(Waits, Duration)> {
        let (waits, again) = match (&self.record.deferral, self.gate.deferred_until, is_locked) {
            (Some(Deferral { until, reason, .. }), Some(ends), _) if ends > now.monotonic => {
                let waits = Waits::Deferred { until: *until, limit, reason: reason.clone() };
                (waits, ends.since(now.monotonic).min(LOOK_AGAIN_AFTER))
            }
            (_, _, true) => (Waits::Locked { limit }, LOCK_AGAIN_AFTER),
            (_, _, false) => return None,
        };
        let allowed = self.use_limit_up(now, limit)?;
        Some((waits, again.min(allowed)))
    }

    /// Begins to count how long a release is put off. One that was undone by a hold, and comes again by the same rollout,
    /// has used up what it has used up.
    pub(super) fn count_veto_of(&mut self, target: &Target) {
        let asked = Some((target.digest(), target.rollout));
        if self.record.veto_of != asked {
            (self.record.veto_of, self.record.veto_used) = (asked, Duration::ZERO);
            self.gate.veto_until = None;
        }
    }

    /// Gives back what was taken of the limit and nobody needed.
    fn give_limit_back(&mut self, now: Now) {
        if let Some(until) = self.gate.veto_until.take() {
            self.record.veto_used = self.record.veto_used.saturating_sub(until.since(now.monotonic));
        }
    }

    /// Takes time of the limit; gives how long that lasts, or `None` when the limit is used up.
    fn use_limit_up(&mut self, now: Now, limit: Duration) -> Option<Duration> {
        if self.gate.veto_until.is_none_or(|until| until <= now.monotonic) {
            let step = limit.saturating_sub(self.record.veto_used).min(VETO_STEP);
            if step.is_zero() {
                return None;
            }
            self.record.veto_used = self.record.veto_used.saturating_add(step);
            self.gate.veto_until = Some(now.monotonic + step);
        }
        self.gate.veto_until.map(|until| until.since(now.monotonic))
    }
}

/// Says what is waited for when no window is open, and when it is looked again.
fn judge_window(calendar: &Calendar, now: Now) -> Option<(Waits, Duration)> {
    if !calendar.is_bounded() {
        return None;
    }
    if now.quality == ClockQuality::None {
        return Some((Waits::Clock, LOOK_AGAIN_AFTER));
    }
    let elsewhere;
    let calendar = if is_planted(Bug::WindowZone) {
        elsewhere = Calendar { zone: Zone::default(), ..calendar.clone() };
        &elsewhere
    } else {
        calendar
    };
    match calendar.opens(now.wall) {
        Some(opens) if opens <= now.wall => None,
        opens => {
            let again = opens.map_or(LOOK_AGAIN_AFTER, |opens| opens - now.wall).min(LOOK_AGAIN_AFTER);
            Some((Waits::Window { opens }, again))
        }
    }
}
