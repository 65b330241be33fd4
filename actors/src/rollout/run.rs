//! A rollout that was started: what is known of its devices, and what is owed to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::limit;
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::time::{Monotonic, Now};

use super::deadline::Deadlines;
use super::plan::Plan;
use super::queue::Queue;
use super::site::Sites;
use super::status::{DeviceProgress, DeviceStatus, Failure, Owed, RolloutHeader, RolloutPhase, Stage};
use super::strategy::Place;
use super::tally::Tally;
use super::{Effect, Record, RolloutTurn};
use crate::device::wanted::RolloutAssignment;
use crate::report::Waits;
use crate::window::Zone;

/// Assignments that one turn sends: a batch that a commit bears, and an operator's abort does not wait behind.
pub(super) const SENT_PER_TURN: usize = 256;
/// Time after which what nobody confirmed is sent again; it doubles each time.
pub(super) const RESEND_FIRST: Duration = Duration::from_secs(10);
/// The longest such time.
pub(super) const RESEND_LAST: Duration = Duration::from_mins(10);
/// Time in which a device that is assigned must acknowledge, before it is counted as offline. A link that breaks and
/// comes back within it, as that of a whole site does, lets no gate pass by those who are just not there.
pub(super) const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(30);
/// The same after a load: a server that was down finds nobody there, and devices dial it once a minute by then.
pub(super) const RETURN_WITHIN: Duration = Duration::from_secs(limit::DIAL_BACKOFF_LAST.as_secs() + 30);
/// Time that a device may be gone after it acknowledged, before it is counted as failed: a restart is no failure.
pub(super) const SILENT_AFTER: Duration = Duration::from_mins(10);
/// Time after which a device that is away, and gets its assignment only when there is a place for it, is looked for
/// again: its actor tells of its return only those whose assignment it has.
pub(super) const LOOK_AGAIN_AFTER: Duration = Duration::from_mins(10);

/// A rollout that was started.
#[derive(Debug)]
pub(super) struct RolloutRun {
    pub(super) header: RolloutHeader,
    pub(super) plan: Arc<Plan>,
    pub(super) devices: BTreeMap<LocalId, DeviceProgress>,
    pub(super) tally: Tally,
    /// The time zones of devices, where windows open by them and they are known.
    pub(super) zones: BTreeMap<LocalId, Zone>,
    /// When the turn of each device comes that gets the release.
    places: BTreeMap<LocalId, Place>,
    /// The devices of each wave, in the order in which their turn comes.
    pub(super) waves: Vec<Vec<LocalId>>,
    /// Who waits for a place at work.
    queue: Queue,
    /// The sites whose devices switch together.
    pub(super) sites: Sites,
    /// Devices to which something is to be sent.
    pub(super) unsent: BTreeSet<LocalId>,
    /// Devices that are to be asked how they stand: what they said may have been lost with the last load.
    pub(super) unasked: BTreeSet<LocalId>,
    /// What was sent and not confirmed: when it is sent again, and how often it was.
    pub(super) resend_at: Deadlines,
    pub(super) resends: BTreeMap<LocalId, u32>,
    /// Devices that must say something, or be back, by then.
    pub(super) due_at: Deadlines,
    /// When the time of the present stage is over.
    pub(super) stage_due: Option<Monotonic>,
    /// Whether every deadline was set since the last load.
    pub(super) is_armed: bool,
}

impl RolloutRun {
    pub(super) fn new(header: RolloutHeader, plan: Arc<Plan>) -> Self {
        let places: BTreeMap<_, _> =
            plan.devices.iter().filter_map(|device| Some((device.local, device.place?))).collect();
        let mut run = Self {
            devices: BTreeMap::new(),
            tally: Tally::empty(&plan),
            waves: waves(&plan),
            queue: Queue::new(&plan),
            sites: Sites::new(&plan),
            zones: plan.devices.iter().filter_map(|device| Some((device.local, device.zone.clone()?))).collect(),
            places,
            unsent: BTreeSet::new(),
            unasked: BTreeSet::new(),
            resend_at: Deadlines::default(),
            resends: BTreeMap::new(),
            due_at: Deadlines::default(),
            stage_due: None,
            is_armed: false,
            header,
            plan: Arc::clone(&plan),
        };
        for device in &plan.devices {
            let mut progress = DeviceProgress::planned(device, run.header.created_at);
            run.begin_unbounded(device.local, &mut progress);
            run.put(device.local, progress);
        }
        run
    }

    /// Gives a device its assignment with its wave, where nothing bounds how many are at work at the same time. That
    /// follows from plan and header, and is not stored for each device.
    pub(super) fn begin_unbounded(&self, device: LocalId, progress: &mut DeviceProgress) {
        let Some(place) = self.places.get(&device) else { return };
        if self.header.goes_on()
            && self.header.has_begun(place.wave)
            && progress.is_queued()
            && !self.plan.strategy.is_capped()
        {
            progress.owed = Owed::Assign;
            if place.wave > 0 {
                // Who was away when it was planned may be back: its actor tells as soon as it has the assignment.
                (progress.offline_since, progress.is_late) = (None, false);
            }
        }
    }

    /// Queues all that was not confirmed: after a start, and after a load, since what was on its way may be lost.
    pub(super) fn owe_again(&mut self) {
        let devices: Vec<_> = self.places.keys().copied().collect();
        for device in devices {
            let Some(mut progress) = self.devices.get(&device).filter(|progress| progress.is_queued()).cloned() else {
                continue;
            };
            self.begin_unbounded(device, &mut progress);
            self.put(device, progress);
        }
        let owing = self.devices.iter().filter(|(_, progress)| progress.owed != Owed::Nothing);
        self.unsent = owing.map(|(device, _)| *device).collect();
    }

    /// Queues those of whom more is awaited to be asked: a word of theirs may have been lost with what was in memory.
    /// Whoever is away speaks by itself when it is back.
    pub(super) fn ask_again(&mut self) {
        let is_running = self.header.phase == RolloutPhase::Running;
        let is_asked = |progress: &DeviceProgress| {
            progress.status.is_at_work() || (is_running && (is_awaited(progress) || progress.status.is_passing()))
        };
        let awaited = self.devices.iter().filter(|(_, progress)| is_asked(progress));
        self.unasked = awaited.map(|(device, _)| *device).collect();
    }

    /// Puts a device's progress in the place of what was known of it. A device that the plan does not know is nobody's.
    pub(super) fn put(&mut self, device: LocalId, progress: DeviceProgress) {
        let place = self.places.get(&device).copied();
        let before = self.devices.get(&device);
        if before.is_none() && self.devices.len() >= self.plan.devices.len() {
            return;
        }
        self.tally.recount(place, before, &progress);
        self.queue.count(device, before.is_some_and(DeviceProgress::has_slot), progress.has_slot());
        if let Some(place) = place {
            let may_begin = progress.is_queued() && !progress.is_offline() && self.header.has_begun(place.wave);
            self.queue.wait(device, place, may_begin);
        }
        self.devices.insert(device, progress);
    }

    /// Changes what is known of a device of the plan, and tells and remembers it if that made a difference.
    pub(super) fn change(
        &mut self,
        now: Now,
        device: LocalId,
        turn: &mut RolloutTurn,
        change: impl FnOnce(&mut DeviceProgress),
    ) {
        let Some(before) = self.devices.get(&device) else { return };
        let mut progress = before.clone();
        change(&mut progress);
        if progress == *before {
            return;
        }
        if progress.status != before.status {
            progress.changed_at = now.wall;
        }
        if progress.is_offline() != before.is_offline()
            || progress.status.waits_for_device() != before.status.waits_for_device()
        {
            self.due_at.clear(device);
        }
        if progress.owed != before.owed {
            self.resend_at.clear(device);
            self.resends.remove(&device);
            self.unsent.remove(&device);
            if progress.owed != Owed::Nothing {
                self.unsent.insert(device);
            }
        }
        turn.persist(Record::Device { device, progress: Box::new(progress.clone()) });
        self.put(device, progress.clone());
        self.sites.touch(device);
        self.expect(now, device);
        turn.effect(Effect::DeviceChanged { device, progress, counts: self.tally.all });
    }

    /// Sets by when the device must say something, by what is known of it now.
    pub(super) fn expect(&mut self, now: Now, device: LocalId) {
        let Some(progress) = self.devices.get(&device) else { return };
        let within = match &progress.status {
            _ if progress.is_queued() => {
                let is_looked_for = progress.is_offline() && self.is_admitting() && self.has_begun(device);
                is_looked_for.then_some(LOOK_AGAIN_AFTER)
            }
            // What was not even sent yet has nothing to acknowledge.
            DeviceStatus::Pending | DeviceStatus::Assigned if self.unsent.contains(&device) => None,
            DeviceStatus::Pending | DeviceStatus::Assigned if !progress.is_offline() => Some(ACKNOWLEDGE_WITHIN),
            DeviceStatus::Acknowledged | DeviceStatus::Installing(_) if progress.is_offline() => Some(SILENT_AFTER),
            // It is late for its wave's deadline, and has a wave's time of its own.
            DeviceStatus::Acknowledged | DeviceStatus::Installing(_)
                if !self.is_timed(device) && !self.header.phase.is_stopped() =>
            {
                Some(self.device_time(device, now.wall))
            }
            // Who is ready does not wait for its site for ever.
            DeviceStatus::Waits(Waits::Site) if !self.is_timed(device) && !self.header.phase.is_stopped() => {
                Some(self.device_time(device, now.wall))
            }
            // Who waits may be silent until its window opens, and may then take its time.
            DeviceStatus::Waits(_)
                if progress.is_offline() && !self.is_timed(device) && !self.header.phase.is_stopped() =>
            {
                Some(self.device_time(device, now.wall))
            }
            _ => None,
        };
        match within {
            Some(within) if !self.due_at.is_set(device) => self.due_at.set(device, now.monotonic + within),
            Some(_) => {}
            None => self.due_at.clear(device),
        }
    }

    /// Says whether a device's wave is the newest one, and its deadline still to come.
    fn is_timed(&self, device: LocalId) -> bool {
        let is_newest = self.places.get(&device).is_some_and(|place| place.wave == self.header.wave.number);
        is_newest && self.header.wave.stage == Stage::Rolling && self.stage_due.is_some()
    }

    fn has_begun(&self, device: LocalId) -> bool {
        self.places.get(&device).is_some_and(|place| self.header.has_begun(place.wave))
    }

    /// Says whether devices get their assignments one after the other, as places become free.
    fn is_admitting(&self) -> bool {
        self.header.goes_on() && self.plan.strategy.is_capped()
    }

    pub(super) fn on_due(&mut self, now: Now, turn: &mut RolloutTurn) {
        while let Some(device) = self.resend_at.pop_due(now) {
            self.unsent.insert(device);
        }
        let is_capped = self.plan.strategy.is_capped();
        while let Some(device) = self.due_at.pop_due(now) {
            if self.devices.get(&device).is_some_and(DeviceProgress::is_queued) {
                self.unasked.insert(device);
                self.expect(now, device);
                continue;
            }
            if self.devices.get(&device).is_some_and(is_ready) {
                self.close_site_of(now, device, turn);
                continue;
            }
            self.change(now, device, turn, |progress| match progress.status {
                DeviceStatus::Pending | DeviceStatus::Assigned => {
                    progress.is_late = true;
                    give_place_up(progress, is_capped);
                }
                DeviceStatus::Acknowledged | DeviceStatus::Installing(_) | DeviceStatus::Waits(_) => {
                    let failure = if progress.is_offline() { Failure::Silent } else { Failure::Deadline };
                    progress.status = DeviceStatus::Failed(failure);
                }
                _ => {}
            });
        }
    }

    /// Sets every deadline once: a load forgets them, since they are times of a clock that ended with the process.
    pub(super) fn arm(&mut self, now: Now) {
        if !self.is_armed {
            self.is_armed = true;
            self.sites.touch_all();
            self.arm_stage(now);
            let devices: Vec<_> = self.devices.keys().copied().collect();
            devices.into_iter().for_each(|device| self.expect(now, device));
            // After that, since nothing is expected yet of whom the assignment is still to be sent to.
            let awaited = self.unasked.iter().filter(|device| self.devices.get(device).is_some_and(is_awaited));
            for device in awaited.copied().collect::<Vec<_>>() {
                self.due_at.set(device, now.monotonic + RETURN_WITHIN);
            }
        }
    }

    /// Says whether a device that seems to be away may only have lost its link: it was assigned, and the time in which it
    /// has to acknowledge is not over. It holds its wave up until then.
    pub(super) fn may_be_back(&self, device: LocalId) -> bool {
        let has_time = self.due_at.is_set(device) || self.unsent.contains(&device);
        has_time && self.devices.get(&device).is_some_and(is_awaited)
    }

    /// Lets devices begin for which there is a place.
    pub(super) fn admit(&mut self, now: Now, turn: &mut RolloutTurn) {
        while self.is_admitting()
            && let Some(device) = self.queue.next()
        {
            self.change(now, device, turn, |progress| progress.owed = Owed::Assign);
        }
    }

    /// Sends what is owed, and asks who is to be asked, so many a turn.
    pub(super) fn send(&mut self, now: Now, turn: &mut RolloutTurn) {
        for _ in 0..SENT_PER_TURN {
            let Some(device) = self.unasked.pop_first() else { break };
            let (rollout, workload) = (self.header.rollout, self.plan.release.workload.clone());
            turn.effect(Effect::Ask { device, rollout, workload });
        }
        for _ in 0..SENT_PER_TURN {
            let Some(device) = self.unsent.pop_first() else { return };
            let Some(effect) = self.owed_effect(device) else { continue };
            turn.effect(effect);
            let resends = self.resends.entry(device).or_default();
            let pause = RESEND_FIRST.saturating_mul(1 << (*resends).min(16)).min(RESEND_LAST);
            *resends = resends.saturating_add(1);
            self.resend_at.set(device, now.monotonic + pause);
            self.expect(now, device);
        }
    }

    /// What is owed to a device.
    fn owed_effect(&self, device: LocalId) -> Option<Effect> {
        let (release, rollout) = (&self.plan.release, self.header.rollout);
        let workload = release.workload.clone();
        Some(match self.devices.get(&device)?.owed {
            Owed::Assign => Effect::Assign {
                device,
                assignment: RolloutAssignment {
                    rollout,
                    attempt: self.attempt(device),
                    workload,
                    version: release.version.clone(),
                    manifest: release.manifest,
                    configuration: release.configuration.clone(),
                    terms: self.terms_of(device),
                },
            },
            Owed::Withdraw => Effect::Withdraw { device, rollout, workload },
            Owed::Hold => {
                let header = &self.header;
                let cause = if header.reason.is_empty() { String::new() } else { format!(": {}", header.reason) };
                let reason = format!("{rollout} is {}{cause}", header.phase);
                Effect::Hold { device, rollout, hold: header.hold?, workload, reason }
            }
            Owed::Lift => Effect::Lift { device, rollout, workload },
            Owed::Nothing => return None,
        })
    }

    /// The try that an assignment carries: the same for every device, however often it is sent.
    fn attempt(&self, device: LocalId) -> u32 {
        let is_again = is_planted(Bug::WaveTwice) && self.resends.get(&device).is_none_or(|resends| *resends > 0);
        self.plan.attempt + u32::from(is_again)
    }

    /// Notes whether a restart has to take the rollout up again.
    pub(super) fn close_if_settled(&mut self, turn: &mut RolloutTurn) {
        let some_wait = self.is_admitting() && self.tally.all.pending > 0;
        let is_open = !self.header.phase.is_ended() || self.tally.all.open > 0 || some_wait;
        if self.header.is_open != is_open {
            self.header.is_open = is_open;
            turn.persist(Record::Rollout(Box::new(self.header.clone())));
        }
    }

    pub(super) fn tell(&self, turn: &mut RolloutTurn) {
        turn.effect(Effect::Changed { header: self.header.clone(), counts: self.tally.all });
    }

    pub(super) fn assert_invariants(&self) {
        let header = &self.header;
        assert_eq!(self.tally.all.total(), self.plan.devices.len(), "{}: a device is lost or doubled", header.rollout);
        assert!(
            !header.is_called_back() || self.tally.all.under_way() == 0,
            "{}: a rollout that was taken back still has devices under way",
            header.rollout
        );
        assert_eq!(
            header.phase.is_stopped(),
            header.hold.is_some(),
            "{}: it is {}, and its hold says otherwise",
            header.rollout,
            header.phase
        );
    }
}

/// Says whether a device was assigned, is to acknowledge that, and is not counted as offline.
fn is_awaited(progress: &DeviceProgress) -> bool {
    progress.status.waits_for_device() && !progress.is_queued() && !progress.is_offline()
}

/// Says whether a device that can be reached is ready to switch, and waits for the others of its site.
fn is_ready(progress: &DeviceProgress) -> bool {
    progress.status == DeviceStatus::Waits(Waits::Site) && !progress.is_offline()
}

/// Takes back what a device that is away was assigned, where places at work are few: it gets one when it is back.
pub(super) fn give_place_up(progress: &mut DeviceProgress, is_capped: bool) {
    let is_assigned = progress.status.waits_for_device() && !progress.is_queued() && !progress.is_held;
    if is_capped && is_assigned && progress.is_offline() {
        (progress.status, progress.owed) = (DeviceStatus::Pending, Owed::Withdraw);
    }
}

fn waves(plan: &Plan) -> Vec<Vec<LocalId>> {
    let mut placed: Vec<_> = plan.devices.iter().filter_map(|device| Some((device.place?, device.local))).collect();
    placed.sort_unstable();
    let mut waves: Vec<_> = (0..plan.wave_count()).map(|_| Vec::new()).collect();
    for (place, device) in placed {
        if let Some(wave) = usize::try_from(place.wave).ok().and_then(|wave| waves.get_mut(wave)) {
            wave.push(device);
        }
    }
    waves
}
