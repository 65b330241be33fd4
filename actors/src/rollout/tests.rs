//! Rollouts of three devices, stepped by hand, and of any number, at random.

mod orders;
mod several;
mod site;
mod stops;
mod waves;
mod windows;

use std::time::Duration;

use expect_test::expect;
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, PlanId};
use proptest::prelude::*;

use super::plan::{Blocked, PlannedDevice, PlannedRelease, Verdict};
use super::run::{ACKNOWLEDGE_WITHIN, RESEND_FIRST, RETURN_WITHIN, SENT_PER_TURN, SILENT_AFTER};
use super::strategy::{FailureBudget, Place, Strategy as RolloutStrategy};
use super::tally::Tally;
use super::*;
use crate::flight::Recorded as _;
use crate::report::{Exit, Fault};
use crate::targeting::Targets;

fn rollout() -> RolloutId {
    RolloutId::from_bytes([1; 10])
}

fn local(index: u8) -> LocalId {
    LocalId::from_bytes([index; 16])
}

fn planned(index: u8, verdict: Verdict, offline_since: Option<Wall>) -> PlannedDevice {
    PlannedDevice {
        local: local(index),
        device: DeviceId::from_bytes([index; 10]),
        name: format!("otter-{index}").parse().unwrap(),
        site: String::new(),
        place: verdict.is_assigned().then(|| Place { wave: 0, order: u32::from(index) }),
        verdict,
        artifact: None,
        offline_since,
        zone: None,
        supersedes: None,
        revision: Revision(1),
    }
}

/// Devices in waves of so many each.
fn wave_devices(sizes: &[u8]) -> Vec<PlannedDevice> {
    let places =
        (0..).zip(sizes).flat_map(|(wave, size)| (0..u32::from(*size)).map(move |order| Place { wave, order }));
    (1..)
        .zip(places)
        .map(|(index, place)| PlannedDevice { place: Some(place), ..planned(index, Verdict::Install, None) })
        .collect()
}

fn plan_of(devices: Vec<PlannedDevice>) -> Plan {
    let release = PlannedRelease {
        workload: "coffee".parse().unwrap(),
        version: "2.0".parse().unwrap(),
        manifest: ArtifactDigest::of(b"manifest"),
        artifacts: BTreeMap::new(),
        configuration: None,
    };
    let id = PlanId::from_bytes([2; 10]);
    let strategy = RolloutStrategy::default();
    Plan { id, release, targets: Targets::All, attempt: 1, strategy, rollback: None, undecided: vec![], devices }
}

fn report(phase: Phase) -> WorkloadReport {
    WorkloadReport {
        phase: Some(phase),
        rollout: Some(rollout()),
        attempt: 1,
        digest: Some(ArtifactDigest::of(b"manifest")),
        error: (phase == Phase::Restored).then(|| Fault::new(FaultKind::Crashed, Exit::Code(1))),
        ..WorkloadReport::default()
    }
}

/// A rollout with the store below it.
struct Bench {
    machine: Rollout,
    now: Now,
    header: Option<RolloutHeader>,
    plan: Option<Plan>,
    stored: BTreeMap<LocalId, DeviceProgress>,
    /// Effects that went out, since they were last looked at.
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        let machine = Rollout::new(rollout());
        Self { machine, now: Now::default(), header: None, plan: None, stored: BTreeMap::new(), effects: vec![] }
    }

    fn started(devices: Vec<PlannedDevice>) -> Self {
        let mut bench = Self::new();
        bench.start(plan_of(devices));
        bench
    }

    /// Three devices that get an update and can be reached.
    fn of_three() -> Self {
        Self::started((1..=3).map(|index| planned(index, Verdict::Install, None)).collect())
    }

    fn start(&mut self, plan: Plan) {
        let operation = OperationId::from_bytes([4; 8]);
        self.input(Input::Start { operation, caller: "ada".to_owned(), plan: Arc::new(plan) });
    }

    /// Devices that get an update and can be reached, in waves of so many, under a strategy.
    fn in_waves(sizes: &[u8], strategy: RolloutStrategy) -> Self {
        let mut bench = Self::new();
        bench.start(Plan { strategy, ..plan_of(wave_devices(sizes)) });
        bench
    }

    fn pause(&mut self) {
        self.input(Input::Pause { operation: OperationId::from_bytes([6; 8]), reason: "ada".to_owned() });
    }

    fn resume(&mut self) {
        self.input(Input::Resume { operation: OperationId::from_bytes([7; 8]) });
    }

    fn approve(&mut self, wave: Option<u32>) {
        self.input(Input::Approve { operation: OperationId::from_bytes([8; 8]), wave });
    }

    /// Confirms all that was sent, as the devices' actors do.
    fn confirm(&mut self) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Assign { device, .. } => self.input(Input::DeviceAssigned { device }),
                Effect::Withdraw { device, .. } => self.input(Input::DeviceWithdrawn { device }),
                Effect::Hold { device, hold, .. } => self.input(Input::DeviceHeld { device, hold }),
                Effect::Lift { device, .. } => self.input(Input::DeviceLifted { device, is_held: false }),
                _ => {}
            }
        }
    }

    fn stage(&self) -> (u32, Stage) {
        let wave = self.machine.header().unwrap().wave;
        (wave.number, wave.stage)
    }

    fn abort(&mut self) {
        self.input(Input::Abort { operation: OperationId::from_bytes([5; 8]), reason: "ada".to_owned() });
    }

    fn take_back(&mut self) {
        self.input(Input::TakeBack { operation: OperationId::from_bytes([9; 8]), reason: "ada".to_owned() });
    }

    fn input(&mut self, input: Input) {
        self.step(|machine, now, turn| machine.handle(now, input.clone(), turn));
    }

    /// Steps the machine, and one that was taken up in its state: they are the same machine.
    fn step(&mut self, step: impl Fn(&mut Rollout, Now, &mut RolloutTurn)) {
        let mut twin = Rollout::restore(self.machine.snapshot().unwrap());
        let (mut turn, mut same) = (Turn::new(), Turn::new());
        step(&mut self.machine, self.now, &mut turn);
        step(&mut twin, self.now, &mut same);
        assert_eq!(same, turn);
        assert_eq!(format!("{twin:?}"), format!("{:?}", self.machine));
        self.take(turn);
    }

    fn take(&mut self, turn: RolloutTurn) {
        let (records, effects) = turn.into_parts();
        for record in records {
            match record {
                Record::Started { header, plan } => {
                    (self.header, self.plan) = (Some(*header), Some(Plan::clone(&plan)))
                }
                Record::Rollout(header) => self.header = Some(*header),
                Record::Device { device, progress } => drop(self.stored.insert(device, *progress)),
            }
        }
        self.effects.extend(effects);
    }

    fn restart(&mut self) {
        self.effects.clear();
        let plan = self.plan.clone().unwrap();
        self.machine = Rollout::load(self.header.clone().unwrap(), Arc::new(plan), self.stored.clone());
        self.wake();
    }

    fn wake(&mut self) {
        self.step(|machine, now, turn| machine.handle_timeout(now, turn));
    }

    fn advance(&mut self, span: Duration) {
        self.now.monotonic = self.now.monotonic + span;
        while self.machine.poll_timeout().is_some_and(|at| at <= self.now.monotonic) {
            self.wake();
        }
    }

    fn report(&mut self, index: u8, phase: Phase) {
        self.input(Input::DeviceReported { device: local(index), report: Box::new(report(phase)) });
    }

    fn phase(&self) -> RolloutPhase {
        self.machine.header().unwrap().phase
    }

    fn status(&self, index: u8) -> DeviceStatus {
        self.machine.run.as_ref().unwrap().devices.get(&local(index)).unwrap().status.clone()
    }

    /// What went out, one line each.
    fn story(&mut self) -> String {
        let name = |device: LocalId| format!("otter-{}", device.as_bytes().first().unwrap());
        let lines = self.effects.drain(..).map(|effect| match effect {
            Effect::Assign { device, assignment } => format!("assign {} to {}\n", assignment.version, name(device)),
            Effect::Withdraw { device, .. } => format!("withdraw from {}\n", name(device)),
            Effect::Ask { device, .. } => format!("ask {}\n", name(device)),
            Effect::Hold { device, .. } => format!("hold {}\n", name(device)),
            Effect::Lift { device, .. } => format!("lift on {}\n", name(device)),
            Effect::Halted(header) => format!("note that it {}\n", header.phase),
            Effect::DeviceChanged { device, progress, counts } => {
                let reason = progress.status.reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
                let (ended, total) = (counts.ended(), counts.total());
                format!("{}: {}{reason}, {ended} of {total} ended\n", name(device), progress.status)
            }
            Effect::Changed { header, .. } => format!("rollout {} {}\n", header.phase, header.reason),
            Effect::Answer { result, .. } => format!("answer {result:?}\n"),
            Effect::AskOrders { .. } => String::new(),
            Effect::Ended(header) => format!("note that it {}\n", header.phase),
        });
        lines.collect()
    }

    fn assigned(&self) -> Vec<LocalId> {
        let assigned = self.effects.iter().filter_map(|effect| match effect {
            Effect::Assign { device, .. } => Some(*device),
            _ => None,
        });
        assigned.collect()
    }
}

#[test]
fn a_rollout_reaches_its_devices_and_succeeds() {
    let mut bench = Bench::of_three();
    for index in 1..=3 {
        bench.input(Input::DeviceAssigned { device: local(index) });
        bench.input(Input::DeviceAcknowledged { device: local(index), assigned: Some((rollout(), 1)) });
    }
    for index in 1..=3 {
        bench.report(index, Phase::Download);
        bench.report(index, Phase::Healthy);
    }
    expect![[r#"
        answer Ok(())
        rollout running 
        assign 2.0 to otter-1
        assign 2.0 to otter-2
        assign 2.0 to otter-3
        otter-1: assigned, 0 of 3 ended
        otter-1: acknowledged, 0 of 3 ended
        otter-2: assigned, 0 of 3 ended
        otter-2: acknowledged, 0 of 3 ended
        otter-3: assigned, 0 of 3 ended
        otter-3: acknowledged, 0 of 3 ended
        otter-1: download, 0 of 3 ended
        otter-1: healthy, 1 of 3 ended
        otter-2: download, 1 of 3 ended
        otter-2: healthy, 2 of 3 ended
        otter-3: download, 2 of 3 ended
        otter-3: healthy, 3 of 3 ended
        note that it succeeded
        rollout succeeded 
    "#]]
    .assert_eq(&bench.story());
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_device_that_is_cut_off_keeps_nobody_waiting_and_follows_later() {
    let mut bench = Bench::of_three();
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Healthy);
    assert_eq!(bench.phase(), RolloutPhase::Running, "the third may only be slow");
    bench.advance(ACKNOWLEDGE_WITHIN);
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
    assert_eq!(bench.machine.counts().offline, 1);
    bench.restart();
    bench.report(3, Phase::Healthy);
    assert_eq!((bench.machine.counts().healthy, bench.machine.counts().offline), (3, 0));
}

#[test]
fn a_device_that_was_away_when_it_was_planned_is_not_waited_for() {
    let mut bench =
        Bench::started(vec![planned(1, Verdict::Install, None), planned(2, Verdict::Install, Some(Wall(1)))]);
    assert_eq!(bench.assigned().len(), 2, "it is assigned all the same");
    bench.report(1, Phase::Healthy);
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_rollout_that_reaches_nobody_goes_on_waiting() {
    let mut bench = Bench::started(vec![planned(1, Verdict::Install, Some(Wall(1)))]);
    bench.advance(Duration::from_hours(1));
    assert_eq!(bench.phase(), RolloutPhase::Running);
    bench.report(1, Phase::Healthy);
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
}

#[test]
fn one_failure_fails_the_rollout_at_its_end_unless_the_plan_allows_it() {
    for (failures_max, phase) in [(0, RolloutPhase::Failed), (1, RolloutPhase::Succeeded)] {
        let mut bench = Bench::new();
        let devices = (1..=2).map(|index| planned(index, Verdict::Install, None)).collect();
        let budget = FailureBudget { count: Some(failures_max), percent: None };
        bench.start(Plan { strategy: RolloutStrategy { budget, ..RolloutStrategy::default() }, ..plan_of(devices) });
        bench.report(1, Phase::Restored);
        assert!(!bench.phase().is_ended());
        bench.report(2, Phase::Healthy);
        assert_eq!(bench.phase(), phase);
        assert_eq!(bench.status(1).reason().as_deref(), Some("crashed: code 1"));
    }
}

#[test]
fn an_old_healthy_counts_for_nothing() {
    let mut bench = Bench::of_three();
    let healthy = report(Phase::Healthy);
    for old in [
        WorkloadReport { attempt: 2, ..healthy.clone() },
        WorkloadReport { rollout: Some(RolloutId::from_bytes([9; 10])), ..healthy.clone() },
        WorkloadReport { digest: Some(ArtifactDigest::of(b"other")), ..healthy },
    ] {
        bench.input(Input::DeviceReported { device: local(1), report: Box::new(old) });
    }
    assert_eq!(bench.status(1), DeviceStatus::Pending);
}

#[test]
fn a_device_that_acknowledged_and_fell_silent_has_failed_until_it_speaks_again() {
    let mut bench = Bench::of_three();
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Healthy);
    bench.report(3, Phase::Download);
    bench.input(Input::DevicePresence { device: local(3), offline_since: Some(Wall(5)) });
    bench.advance(SILENT_AFTER - Duration::from_secs(1));
    assert_eq!(bench.phase(), RolloutPhase::Running);
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.status(3), DeviceStatus::Failed(Failure::Silent));
    assert_eq!(bench.phase(), RolloutPhase::Failed);
    bench.report(3, Phase::Healthy);
    assert_eq!(bench.status(3), DeviceStatus::Healthy);
}

#[test]
fn a_device_that_is_back_in_time_has_not_fallen_silent() {
    let mut bench = Bench::of_three();
    bench.report(3, Phase::Download);
    bench.input(Input::DevicePresence { device: local(3), offline_since: Some(Wall(5)) });
    bench.advance(SILENT_AFTER - Duration::from_secs(1));
    bench.input(Input::DevicePresence { device: local(3), offline_since: None });
    bench.advance(SILENT_AFTER);
    assert_eq!(bench.status(3), DeviceStatus::Installing(Phase::Download));
}

#[test]
fn an_assignment_that_got_lost_is_sent_again() {
    let mut bench = Bench::of_three();
    bench.input(Input::DeviceAssigned { device: local(1) });
    bench.effects.clear();
    bench.advance(RESEND_FIRST);
    assert_eq!(bench.assigned(), [local(2), local(3)], "after a while");
    bench.input(Input::DeviceAssigned { device: local(2) });
    bench.restart();
    assert_eq!(bench.assigned(), [local(3)], "after a restart");
    bench.effects.clear();
    bench.input(Input::DeviceAcknowledged { device: local(1), assigned: None });
    assert_eq!(bench.assigned(), [local(1)], "when the device has acknowledged something else");
    bench.effects.clear();
    bench.input(Input::DeviceAcknowledged { device: local(1), assigned: Some((rollout(), 1)) });
    bench.advance(Duration::from_hours(1));
    assert!(!bench.assigned().contains(&local(1)), "never once it has it");
}

#[test]
fn an_abort_takes_back_what_has_not_ended_and_survives_a_restart() {
    let mut bench = Bench::of_three();
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Download);
    bench.story();
    bench.abort();
    expect![[r#"
        otter-2: skipped (the rollout was aborted while it was at work; its end is awaited), 2 of 3 ended
        otter-3: skipped (the rollout was aborted), 3 of 3 ended
        rollout aborted ada
        answer Ok(())
        withdraw from otter-2
        withdraw from otter-3
    "#]]
    .assert_eq(&bench.story());
    bench.input(Input::DeviceWithdrawn { device: local(2) });
    bench.restart();
    assert_eq!(bench.story(), "ask otter-2\nwithdraw from otter-3\n");
    bench.report(2, Phase::Switch);
    assert_eq!(bench.status(2), DeviceStatus::Skipped(Skip::AbortedAtWork));
    bench.report(2, Phase::Healthy);
    assert_eq!(bench.status(2), DeviceStatus::Healthy, "it was too far to be called back");
    assert_eq!(bench.phase(), RolloutPhase::Aborted);
    bench.story();
    bench.abort();
    bench.start(Plan { id: PlanId::from_bytes([3; 10]), ..plan_of(vec![]) });
    expect![[r#"
        answer Ok(())
        answer Err(OtherPlan { rollout: rol_040g2081040g2081, running: pln_081040g2081040g2 })
    "#]]
    .assert_eq(&bench.story());
}

#[test]
fn holds_stops_and_other_rollouts_leave_a_device_be() {
    let mut bench = Bench::of_three();
    let held = WorkloadReport { error: Some(Fault::new(FaultKind::Held, "")), ..report(Phase::Pending) };
    bench.input(Input::DeviceReported { device: local(1), report: Box::new(held) });
    let stopped = WorkloadReport { run: Some(RunState::Stopped), ..report(Phase::Watch) };
    bench.input(Input::DeviceReported { device: local(2), report: Box::new(stopped) });
    bench.input(Input::DeviceSuperseded { device: local(3), by: RolloutId::from_bytes([8; 10]) });
    assert_eq!(bench.machine.counts().skipped, 3);
    assert_eq!(bench.phase(), RolloutPhase::Running, "none of them has the release, and two may get it yet");
    bench.report(1, Phase::Healthy);
    assert_eq!(bench.status(1), DeviceStatus::Healthy, "the hold was lifted");
    assert_eq!(bench.phase(), RolloutPhase::Succeeded, "what is still stopped follows later");
}

#[test]
fn a_rollout_that_no_device_takes_has_not_succeeded() {
    let mut bench = Bench::of_three();
    bench.input(Input::DeviceSuperseded { device: local(1), by: RolloutId::from_bytes([8; 10]) });
    bench.input(Input::DeviceGone { device: local(2) });
    assert_eq!(bench.phase(), RolloutPhase::Running);
    bench.report(3, Phase::Removed);
    assert_eq!(bench.phase(), RolloutPhase::Failed);
    assert_eq!(bench.machine.header().unwrap().reason, "no device took the release");
}

#[test]
fn a_blocked_device_does_not_end_a_rollout_whose_others_are_away() {
    let blocked = Verdict::Blocked { by: Blocked::Held, reason: "held: trade fair".to_owned() };
    let devices = vec![planned(1, blocked, None), planned(2, Verdict::Install, Some(Wall(1)))];
    let mut bench = Bench::started(devices);
    assert_eq!(bench.phase(), RolloutPhase::Running);
    bench.report(2, Phase::Healthy);
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_plan_of_which_nobody_would_get_the_release_is_not_started() {
    let blocked = |by| Verdict::Blocked { by, reason: "held: trade fair".to_owned() };
    let held = Blocked::Held;
    let mut bench = Bench::started(vec![
        planned(1, Verdict::Unchanged, None),
        planned(2, blocked(held), None),
        planned(3, blocked(held), None),
    ]);
    assert!(bench.machine.header().is_none());
    let refused = bench.effects.pop();
    let Some(Effect::Answer { result: Err(error), .. }) = refused else { panic!("it is refused: {refused:?}") };
    assert_eq!(
        error.to_string(),
        "each device that lacks the release is blocked: otter-2: held: trade fair; otter-3: held: trade fair"
    );
    let mut bench = Bench::started(vec![planned(1, Verdict::Unchanged, None), planned(2, Verdict::Install, None)]);
    assert_eq!(bench.phase(), RolloutPhase::Running, "one that gets it is enough");
    bench.report(2, Phase::Restored);
    assert_eq!(bench.machine.header().unwrap().reason, "1 device failed; 0 may");
}

#[test]
fn an_aborted_rollout_hears_how_those_ended_that_it_found_at_work() {
    let mut bench = Bench::started((1..=5).map(|index| planned(index, Verdict::Install, None)).collect());
    for index in 1..=4 {
        bench.report(index, Phase::Download);
    }
    bench.abort();
    for index in 1..=5 {
        bench.input(Input::DeviceWithdrawn { device: local(index) });
    }
    assert!(bench.header.as_ref().unwrap().is_open, "four are at work");
    bench.report(1, Phase::Healthy);
    bench.restart();
    assert_eq!(bench.story(), "ask otter-2\nask otter-3\nask otter-4\n");
    bench.report(2, Phase::Restored);
    bench.report(3, Phase::Failed);
    let former = WorkloadReport { rollout: None, digest: Some(ArtifactDigest::of(b"other")), ..report(Phase::Healthy) };
    for index in 4..=5 {
        bench.input(Input::DeviceReported { device: local(index), report: Box::new(former.clone()) });
    }
    assert_eq!(bench.status(1), DeviceStatus::Healthy);
    assert_eq!(bench.status(2).reason().as_deref(), Some("crashed: code 1"));
    assert_eq!(bench.status(3), DeviceStatus::Failed(Failure::Reported(None)));
    assert_eq!(bench.status(4), DeviceStatus::Skipped(Skip::Aborted), "it has taken it back");
    assert_eq!((bench.status(5), bench.phase()), (DeviceStatus::Skipped(Skip::Aborted), RolloutPhase::Aborted));
    assert!(!bench.header.as_ref().unwrap().is_open, "nothing is owed or awaited any more");
    bench.report(5, Phase::Download);
    assert_eq!(bench.status(5), DeviceStatus::Skipped(Skip::AbortedAtWork), "it had begun before it heard of it");
}

#[test]
fn an_abort_takes_nothing_away_from_what_is_known() {
    let mut bench = Bench::of_three();
    bench.input(Input::DeviceSuperseded { device: local(1), by: RolloutId::from_bytes([8; 10]) });
    bench.report(2, Phase::Download);
    bench.report(3, Phase::Download);
    bench.input(Input::DevicePresence { device: local(2), offline_since: Some(Wall(5)) });
    bench.advance(SILENT_AFTER);
    bench.effects.clear();
    bench.abort();
    assert_eq!(bench.status(1), DeviceStatus::Skipped(Skip::Superseded(RolloutId::from_bytes([8; 10]))));
    assert_eq!(bench.status(2), DeviceStatus::Failed(Failure::Silent));
    let story = bench.story();
    assert!(!story.contains("withdraw from otter-1"), "the other's assignment stays: {story}");
    assert!(story.contains("withdraw from otter-2"), "it must not begin again: {story}");
}

#[test]
fn what_an_abort_owes_is_owed_after_a_restart_too() {
    let mut bench = Bench::of_three();
    bench.abort();
    assert!(bench.header.as_ref().unwrap().is_open);
    bench.restart();
    assert_eq!(bench.story(), "withdraw from otter-1\nwithdraw from otter-2\nwithdraw from otter-3\n");
    for index in 1..=3 {
        bench.input(Input::DeviceWithdrawn { device: local(index) });
    }
    assert!(!bench.header.as_ref().unwrap().is_open);
}

#[test]
fn a_word_that_a_restart_swallowed_is_asked_for_again() {
    let mut bench = Bench::of_three();
    for index in 1..=3 {
        bench.input(Input::DeviceAssigned { device: local(index) });
    }
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Download);
    bench.restart();
    assert_eq!(bench.story(), "ask otter-2\nask otter-3\n", "the first has said its last word");
    // The answer of one that is away and never comes back.
    bench.input(Input::DevicePresence { device: local(2), offline_since: Some(Wall(5)) });
    bench.report(3, Phase::Healthy);
    bench.advance(SILENT_AFTER);
    assert_eq!(bench.status(2), DeviceStatus::Failed(Failure::Silent));
    assert_eq!(bench.phase(), RolloutPhase::Failed);
}

#[test]
fn a_plan_with_nothing_to_do_is_done_at_once() {
    let bench = Bench::started(vec![planned(1, Verdict::Unchanged, None)]);
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
}

#[test]
fn a_large_rollout_is_sent_in_batches() {
    let device = |index: u32| {
        let mut bytes = [0; 16];
        bytes.as_mut_slice()[..4].copy_from_slice(&index.to_be_bytes());
        let place = Some(Place { wave: 0, order: index });
        PlannedDevice { local: LocalId::from_bytes(bytes), place, ..planned(1, Verdict::Install, None) }
    };
    let mut bench = Bench::started((0..1000).map(device).collect());
    assert_eq!(bench.assigned().len(), SENT_PER_TURN);
    bench.advance(Duration::ZERO);
    let assigned = bench.assigned();
    assert_eq!(assigned.len(), 1000);
    assert!(assigned.is_sorted(), "in the order of the plan");
}

/// Something that happens to a rollout of five devices.
#[derive(Clone, Debug)]
enum Happening {
    Assigned(u8),
    Acknowledged(u8, bool),
    Reported(u8, Phase),
    Presence(u8, bool),
    Gone(u8),
    Restart,
    Wait(u64),
    Abort,
    TakeBack,
    Pause,
    Resume,
    Approve,
    Confirm,
}

fn happening() -> impl Strategy<Value = Happening> {
    let index = || 1..=5_u8;
    prop_oneof![
        4 => index().prop_map(Happening::Assigned),
        2 => (index(), any::<bool>()).prop_map(|(index, ours)| Happening::Acknowledged(index, ours)),
        6 => (index(), prop::sample::select(Phase::ALL)).prop_map(|(index, phase)| Happening::Reported(index, phase)),
        2 => (index(), any::<bool>()).prop_map(|(index, offline)| Happening::Presence(index, offline)),
        1 => index().prop_map(Happening::Gone),
        1 => Just(Happening::Restart),
        2 => (0..60_u64).prop_map(Happening::Wait),
        1 => Just(Happening::Abort),
        1 => Just(Happening::TakeBack),
        1 => Just(Happening::Pause),
        2 => Just(Happening::Resume),
        2 => Just(Happening::Approve),
        3 => Just(Happening::Confirm),
    ]
}

fn happen(bench: &mut Bench, happening: &Happening) {
    match *happening {
        Happening::Assigned(index) => bench.input(Input::DeviceAssigned { device: local(index) }),
        Happening::Acknowledged(index, ours) => {
            let assigned = ours.then_some((rollout(), 1));
            bench.input(Input::DeviceAcknowledged { device: local(index), assigned });
        }
        Happening::Reported(index, phase) => bench.report(index, phase),
        Happening::Presence(index, offline) => {
            bench.input(Input::DevicePresence { device: local(index), offline_since: offline.then_some(Wall(1)) });
        }
        Happening::Gone(index) => bench.input(Input::DeviceGone { device: local(index) }),
        Happening::Restart => bench.restart(),
        Happening::Wait(seconds) => bench.advance(Duration::from_secs(seconds)),
        Happening::Abort => bench.abort(),
        Happening::TakeBack => bench.take_back(),
        Happening::Pause => bench.pause(),
        Happening::Resume => bench.resume(),
        Happening::Approve => bench.approve(None),
        Happening::Confirm => bench.confirm(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn every_rollout_ends_and_a_restart_changes_nothing(
        happenings in prop::collection::vec(happening(), 0..40),
        sizes in prop::sample::select(vec![vec![5], vec![1, 4], vec![2, 2, 1]]),
        cap in prop::option::of(1..3_u32),
        approve_waves in any::<bool>(),
        bake in 0..90_u64,
    ) {
        let strategy = RolloutStrategy {
            unavailable_max: cap,
            approve_waves,
            bake: Duration::from_secs(bake),
            ..RolloutStrategy::default()
        };
        let mut bench = Bench::in_waves(&sizes, strategy);
        let mut ended = None;
        let progress_of = |bench: &Bench| -> BTreeMap<_, _> {
            bench.machine.devices().map(|(device, progress)| (device, progress.clone())).collect()
        };
        let plan = bench.machine.plan().unwrap().clone();
        let mut before = progress_of(&bench);
        let mut tally = Tally::of(&plan, |device| before.get(&device));
        for happening in &happenings {
            happen(&mut bench, happening);
            let now = progress_of(&bench);
            for device in plan.devices.iter().filter(|device| before[&device.local] != now[&device.local]) {
                tally.recount(device.place, before.get(&device.local), &now[&device.local]);
            }
            before = now;
            prop_assert_eq!(&tally, &Tally::of(&plan, |device| before.get(&device)));
            prop_assert_eq!(tally.all, bench.machine.counts());
            let counted = bench.machine.devices().fold(RolloutCounts::default(), |mut counts, (_, progress)| {
                counts.add(progress);
                counts
            });
            prop_assert_eq!(bench.machine.counts(), counted);
            if let Some(ended) = ended {
                prop_assert_eq!(bench.phase(), ended, "an end is an end");
            }
            ended = Some(bench.phase()).filter(|phase| phase.is_ended());
        }
        let before: Vec<_> = bench.machine.devices().map(|(device, progress)| (device, progress.clone())).collect();
        bench.restart();
        let after: Vec<_> = bench.machine.devices().map(|(device, progress)| (device, progress.clone())).collect();
        prop_assert_eq!(before, after);
        for index in 1..=5 {
            bench.report(index, Phase::Healthy);
        }
        // Whoever was sent nothing yet gets it, once its wave's gate opens.
        bench.resume();
        for _ in 0..sizes.len() {
            bench.advance(Duration::from_secs(bake));
            bench.approve(None);
        }
        prop_assert!(bench.phase().is_ended());
        prop_assert_eq!(bench.machine.counts().healthy, 5);
    }
}
