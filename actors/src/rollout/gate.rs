//! From one wave to the next, and to the end: what a gate waits for, and when too many failed.

use std::time::Duration;

use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::Now;

use super::plan::PlannedDevice;
use super::run::{RolloutRun, give_place_up};
use super::status::{DeviceStatus, Failure, RolloutCounts, RolloutPhase, Skip, Stage, StageTimer, WaveStanding};
use super::{Effect, Record, RolloutTurn};

impl RolloutRun {
    /// Goes as far as the gates let it: stops itself when too many failed, begins waves, and ends. The failures of a wave
    /// that begins count before anything is sent to it: whoever came back from an old backup hears of them before that.
    pub(super) fn proceed(&mut self, now: Now, turn: &mut RolloutTurn) {
        self.halt_if_exceeded(now, turn);
        while self.open_gate(now, turn) {
            self.halt_if_exceeded(now, turn);
        }
        self.end_if_done(now, turn);
    }

    /// How far the devices have come whose waves have begun.
    pub(super) fn begun(&self) -> impl Iterator<Item = &RolloutCounts> {
        let last = usize::try_from(self.header.wave.number).unwrap_or(usize::MAX);
        self.tally.waves.iter().take(last.saturating_add(1))
    }

    /// How many have failed that nobody has accepted, and how many may.
    pub(super) fn failures(&self) -> (usize, usize) {
        let mut failures = self.begun().map(RolloutCounts::failures).sum::<usize>();
        let reached = self.begun().map(RolloutCounts::reached).sum();
        let mut allowed = self.plan.strategy.budget.allowed(reached);
        if is_planted(Bug::GateOffByOne) {
            allowed += 1;
        }
        if is_planted(Bug::OfflineFailed) {
            failures += self.begun().map(|counts| counts.offline).sum::<usize>();
        }
        let accepted = usize::try_from(self.header.failures_accepted).unwrap_or(usize::MAX);
        (failures.saturating_sub(accepted), allowed)
    }

    fn excess(&self) -> Option<String> {
        let (failures, allowed) = self.failures();
        (failures > allowed).then(|| format!("{} failed; {allowed} may", Counted(failures, "device")))
    }

    fn halt_if_exceeded(&mut self, now: Now, turn: &mut RolloutTurn) {
        if !matches!(self.header.phase, RolloutPhase::Running | RolloutPhase::Paused) || self.tally.all.remaining() == 0
        {
            return;
        }
        if let Some(reason) = self.excess() {
            self.stop(now, RolloutPhase::Halted, reason, turn);
            turn.effect(Effect::Halted(self.header.clone()));
        }
    }

    /// Says whether the newest wave is the last one.
    pub(super) fn is_last_wave(&self) -> bool {
        self.header.wave.number.saturating_add(1) >= u32::try_from(self.waves.len()).unwrap_or(u32::MAX)
    }

    /// Says whether the newest wave's devices have ended, as far as they can be reached.
    pub(super) fn is_wave_done(&self) -> bool {
        let newest = usize::try_from(self.header.wave.number).ok().and_then(|newest| self.tally.waves.get(newest));
        newest.is_none_or(|counts| self.holds_up(counts) == 0)
    }

    /// How many devices somebody waits for: those that wait themselves only as long as the wave has time.
    fn holds_up(&self, counts: &RolloutCounts) -> usize {
        counts.under_way() - if self.is_wave_overdue() { counts.waits } else { 0 }
    }

    /// Says whether a device has proven the release: waves of which nobody was reached prove nothing.
    pub(super) fn is_proven(&self) -> bool {
        self.begun().any(|counts| counts.healthy > 0)
    }

    /// Takes the next step through the gate behind the newest wave. Once its bake has begun nobody holds it up any more:
    /// who comes back then counts in the budget only.
    fn open_gate(&mut self, now: Now, turn: &mut RolloutTurn) -> bool {
        if self.header.phase != RolloutPhase::Running || self.is_last_wave() {
            return false;
        }
        let strategy = &self.plan.strategy;
        match self.header.wave.stage {
            Stage::Rolling if !self.is_wave_done() || !self.is_proven() => return false,
            Stage::Rolling if !strategy.bake.is_zero() => {
                self.enter(now, self.header.wave.number, Stage::Baking, Some(strategy.bake), turn);
            }
            Stage::Baking if self.stage_due.is_some_and(|due| due > now.monotonic) => return false,
            Stage::Baking if is_planted(Bug::ApprovalSkipped) => self.begin_next(now, turn),
            Stage::Rolling | Stage::Baking if strategy.approve_waves => {
                self.enter(now, self.header.wave.number, Stage::AwaitingApproval, None, turn);
            }
            Stage::AwaitingApproval => return false,
            Stage::Rolling | Stage::Baking => self.begin_next(now, turn),
        }
        true
    }

    /// Begins the next wave. Each of its devices gets its assignment, at once or as places become free.
    pub(super) fn begin_next(&mut self, now: Now, turn: &mut RolloutTurn) {
        let number = self.header.wave.number.saturating_add(1);
        self.enter(now, number, Stage::Rolling, Some(self.wave_time(number, now.wall)), turn);
        let devices = usize::try_from(number).ok().and_then(|number| self.waves.get(number));
        for device in devices.cloned().unwrap_or_default() {
            let Some(mut progress) = self.devices.get(&device).cloned() else { continue };
            let was_queued = progress.is_queued();
            self.begin_unbounded(device, &mut progress);
            if was_queued && !progress.is_queued() {
                self.unsent.insert(device);
            }
            self.put(device, progress);
        }
    }

    /// Enters a stage, and lasts there for a while at most.
    pub(super) fn enter(
        &mut self,
        now: Now,
        number: u32,
        stage: Stage,
        span: Option<Duration>,
        turn: &mut RolloutTurn,
    ) {
        let timer = span.map_or(StageTimer::Unbounded, |span| StageTimer::Until(now.wall + span));
        self.header.wave = WaveStanding { number, stage, since: now.wall, timer };
        self.stage_due = span.map(|span| now.monotonic + span);
        turn.persist(Record::Rollout(Box::new(self.header.clone())));
        self.tell(turn);
    }

    /// Sets the stage's end anew after a load. A clock that jumped makes it neither longer than the whole nor negative.
    pub(super) fn arm_stage(&mut self, now: Now) {
        if let (StageTimer::Until(until), None) = (self.header.wave.timer, self.stage_due)
            && !is_planted(Bug::WaveDeadlineLost)
        {
            let whole = match self.header.wave.stage {
                Stage::Baking => self.plan.strategy.bake,
                Stage::Rolling | Stage::AwaitingApproval => {
                    self.wave_time(self.header.wave.number, self.header.wave.since)
                }
            };
            self.stage_due = Some(now.monotonic + (until - now.wall).min(whole));
        }
    }

    /// Stops the stage's clock.
    pub(super) fn stop_stage(&mut self, now: Now) {
        if let Some(due) = self.stage_due.take() {
            self.header.wave.timer = StageTimer::Left(due.since(now.monotonic));
        }
    }

    /// Lets it go on.
    pub(super) fn resume_stage(&mut self, now: Now) {
        if let StageTimer::Left(left) = self.header.wave.timer {
            self.header.wave.timer = StageTimer::Until(now.wall + left);
            self.stage_due = Some(now.monotonic + left);
        }
    }

    /// Looks whether the stage's time is over. A wave's devices that acknowledged and have not ended by then have
    /// failed; those that did not even acknowledge count as offline.
    pub(super) fn on_stage_due(&mut self, now: Now, turn: &mut RolloutTurn) {
        if self.stage_due.is_none_or(|due| due > now.monotonic) || self.header.wave.stage != Stage::Rolling {
            return;
        }
        (self.stage_due, self.header.wave.timer) = (None, StageTimer::Unbounded);
        turn.persist(Record::Rollout(Box::new(self.header.clone())));
        let newest = usize::try_from(self.header.wave.number).ok().and_then(|newest| self.waves.get(newest));
        let is_capped = self.plan.strategy.is_capped();
        for device in newest.cloned().unwrap_or_default() {
            self.change(now, device, turn, |progress| match progress.status {
                DeviceStatus::Pending | DeviceStatus::Assigned if !progress.is_queued() && !progress.is_offline() => {
                    progress.is_late = true;
                    give_place_up(progress, is_capped);
                }
                DeviceStatus::Acknowledged | DeviceStatus::Installing(_) => {
                    progress.status = DeviceStatus::Failed(Failure::Deadline);
                }
                // Its window has opened since, and nobody has heard of it.
                DeviceStatus::Waits(_) if progress.is_offline() => {
                    progress.status = DeviceStatus::Failed(Failure::Silent);
                }
                _ => {}
            });
        }
        let newest = usize::try_from(self.header.wave.number).ok().and_then(|newest| self.waves.get(newest));
        for device in newest.cloned().unwrap_or_default() {
            self.close_site_of(now, device, turn);
        }
    }

    /// Says whether other rollouts took over each device that it was to bring the release to.
    fn is_superseded(&self) -> bool {
        let is_taken = |device: &PlannedDevice| {
            let progress = self.devices.get(&device.local);
            progress.is_some_and(|progress| matches!(progress.status, DeviceStatus::Skipped(Skip::Superseded(_))))
        };
        self.plan.assigned().next().is_some() && self.plan.assigned().all(is_taken)
    }

    /// Ends the rollout when no device that it can reach is still on its way. Success is a device's own word: without
    /// one the rollout waits for those that may follow, and has failed when there are none. One that was stopped ends
    /// when there is nothing left that it could go on with.
    fn end_if_done(&mut self, now: Now, turn: &mut RolloutTurn) {
        let counts = self.tally.all;
        let is_over = match self.header.phase {
            // With nobody left in any wave there is nothing to go on with.
            RolloutPhase::Running => counts.remaining() == 0 || (self.is_last_wave() && self.holds_up(&counts) == 0),
            RolloutPhase::Paused | RolloutPhase::Halted => counts.remaining() == 0,
            RolloutPhase::Succeeded | RolloutPhase::Failed | RolloutPhase::Aborted => false,
        };
        if !is_over {
            return;
        }
        let some_follow = counts.offline + counts.passing + counts.waits > 0;
        let (phase, reason) = match (self.excess(), counts.succeeded()) {
            (None, 0) if some_follow => return,
            (None, 0) if self.is_superseded() => {
                (RolloutPhase::Aborted, "other rollouts took all of its devices over".to_owned())
            }
            (None, 0) => (RolloutPhase::Failed, "no device took the release".to_owned()),
            (None, _) => (RolloutPhase::Succeeded, String::new()),
            (Some(reason), _) => (RolloutPhase::Failed, reason),
        };
        self.end(now, phase, reason, turn);
        turn.effect(Effect::Ended(self.header.clone()));
        self.tell(turn);
    }
}
