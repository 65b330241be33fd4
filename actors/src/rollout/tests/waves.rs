//! From one wave to the next.

use super::*;

const BAKE: Duration = Duration::from_mins(30);

fn baked() -> RolloutStrategy {
    RolloutStrategy { bake: BAKE, deadline: Duration::from_hours(2), ..RolloutStrategy::default() }
}

fn allowing(count: Option<u32>, percent: Option<u32>) -> RolloutStrategy {
    RolloutStrategy { budget: FailureBudget { count, percent }, ..RolloutStrategy::default() }
}

#[test]
fn a_wave_begins_when_the_one_before_it_has_ended_and_baked() {
    let mut bench = Bench::in_waves(&[1, 2], baked());
    bench.confirm();
    assert_eq!(bench.status(2), DeviceStatus::Pending);
    bench.story();
    bench.report(1, Phase::Healthy);
    bench.advance(BAKE - Duration::from_secs(1));
    expect![[r#"
        otter-1: healthy, 1 of 3 ended
        rollout running 
    "#]]
    .assert_eq(&bench.story());
    assert_eq!(bench.stage(), (0, Stage::Baking));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.story(), "rollout running \nassign 2.0 to otter-2\nassign 2.0 to otter-3\n");
    bench.report(2, Phase::Healthy);
    bench.report(3, Phase::Healthy);
    assert_eq!(bench.phase(), RolloutPhase::Succeeded, "nothing is waited for after the last wave");
}

#[test]
fn a_wave_of_which_nobody_was_reached_proves_nothing() {
    let devices = wave_devices(&[1, 1])
        .into_iter()
        .map(|device| PlannedDevice { offline_since: (device.local == local(1)).then_some(Wall(1)), ..device });
    let mut bench = Bench::started(devices.collect());
    bench.advance(Duration::from_hours(1));
    assert_eq!((bench.phase(), bench.stage()), (RolloutPhase::Running, (0, Stage::Rolling)));
    bench.story();
    bench.approve(Some(1));
    assert_eq!(bench.stage(), (1, Stage::Rolling), "somebody's word is as good");
    assert!(bench.story().contains("assign 2.0 to otter-2"));
}

#[test]
fn one_that_is_away_holds_up_nobody_and_follows_under_the_decision_that_it_missed() {
    let mut bench = Bench::in_waves(&[3, 1], RolloutStrategy::default());
    bench.confirm();
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Healthy);
    assert_eq!(bench.stage(), (0, Stage::Rolling), "the third may only be slow");
    bench.advance(ACKNOWLEDGE_WITHIN);
    assert_eq!(bench.stage(), (1, Stage::Rolling));
    assert_eq!(bench.machine.counts().failures(), 0, "offline is not failed");
    bench.confirm();
    bench.pause();
    bench.story();
    bench.restart();
    assert_eq!(
        bench.story(),
        "hold otter-3\nhold otter-4\n",
        "whoever comes back now has a hold beside its assignment"
    );
}

#[test]
fn nobody_passes_a_gate_by_because_a_link_broke_or_the_server_started_again() {
    // A server that dies before the assignments of the wave are confirmed owes them again.
    let mut bench = Bench::in_waves(&[1, 2, 1], RolloutStrategy::default());
    bench.confirm();
    bench.report(1, Phase::Healthy);
    assert_eq!(bench.stage(), (1, Stage::Rolling));
    bench.restart();
    bench.confirm();
    bench.advance(RETURN_WITHIN - Duration::from_secs(1));
    assert_eq!(bench.stage(), (1, Stage::Rolling), "nobody of it was reached yet");

    for is_restarted in [false, true] {
        let mut bench = Bench::in_waves(&[3, 1], RolloutStrategy::default());
        bench.confirm();
        bench.report(1, Phase::Healthy);
        bench.report(2, Phase::Healthy);
        let within = if is_restarted {
            bench.restart();
            RETURN_WITHIN
        } else {
            ACKNOWLEDGE_WITHIN
        };
        let away = Input::DevicePresence { device: local(3), offline_since: Some(Wall(5)) };
        bench.input(away.clone());
        bench.advance(within - Duration::from_secs(1));
        assert_eq!(bench.stage(), (0, Stage::Rolling), "it may be back");
        assert_eq!(bench.machine.counts().offline, 0);
        bench.advance(Duration::from_secs(1));
        assert_eq!((bench.stage(), bench.machine.counts().offline), ((1, Stage::Rolling), 1), "it is not");
        bench.input(away);
        assert_eq!(bench.machine.devices().filter(|(_, progress)| progress.offline_since.is_some()).count(), 1);
    }
}

#[test]
fn a_device_that_does_not_end_in_its_waves_time_has_failed_also_over_a_restart() {
    for restart_after in [None, Some(Duration::from_mins(100))] {
        let mut bench = Bench::in_waves(&[3, 1], RolloutStrategy { bake: Duration::ZERO, ..baked() });
        bench.confirm();
        bench.report(1, Phase::Healthy);
        bench.report(2, Phase::Download);
        let rest = restart_after.map_or(Duration::from_hours(2), |after| Duration::from_hours(2) - after);
        if let Some(after) = restart_after {
            bench.advance(after);
            bench.now.wall = bench.now.wall + after;
            bench.restart();
        }
        bench.advance(rest - Duration::from_secs(1));
        assert_eq!(bench.status(2), DeviceStatus::Installing(Phase::Download));
        bench.advance(Duration::from_secs(1));
        assert_eq!(bench.status(2), DeviceStatus::Failed(Failure::Deadline));
        assert_eq!(bench.phase(), RolloutPhase::Halted);
        bench.report(2, Phase::Stage);
        assert_eq!(bench.status(2), DeviceStatus::Failed(Failure::Deadline), "that it goes on changes nothing");
        bench.report(2, Phase::Healthy);
        assert_eq!(bench.status(2), DeviceStatus::Healthy);
    }
}

#[test]
fn a_clock_that_jumped_over_a_restart_makes_a_bake_no_longer_than_it_is_and_not_negative() {
    for (jump_ms, left) in [(-1_000_000_000, BAKE), (1_000_000_000, Duration::ZERO)] {
        let mut bench = Bench::in_waves(&[1, 1], baked());
        bench.now.wall = Wall(2_000_000_000);
        bench.confirm();
        bench.report(1, Phase::Healthy);
        bench.now.wall = Wall(2_000_000_000 + jump_ms);
        bench.restart();
        bench.advance(left.saturating_sub(Duration::from_secs(1)));
        assert_eq!(bench.stage().0 == 0, !left.is_zero());
        bench.advance(Duration::from_secs(1));
        assert_eq!(bench.stage(), (1, Stage::Rolling));
    }
}

#[test]
fn a_wave_waits_for_somebodys_word_where_that_is_asked_for() {
    let mut bench = Bench::in_waves(&[1, 1, 1], RolloutStrategy { approve_waves: true, ..baked() });
    bench.confirm();
    bench.approve(None);
    assert!(bench.story().contains("wave 1 is rolling"), "it would be a word about something that nobody has seen");
    bench.report(1, Phase::Healthy);
    bench.advance(BAKE);
    assert_eq!(bench.stage(), (0, Stage::AwaitingApproval));
    bench.restart();
    bench.advance(Duration::from_hours(1000));
    assert_eq!(bench.stage(), (0, Stage::AwaitingApproval));
    bench.approve(Some(2));
    assert_eq!(bench.stage(), (0, Stage::AwaitingApproval), "that is another wave");
    bench.approve(Some(1));
    bench.approve(Some(1));
    assert_eq!(bench.stage(), (1, Stage::Rolling), "said twice, it is said once");
}

#[test]
fn the_budget_counts_the_reached_devices_of_the_waves_that_have_begun() {
    // 2 % of 12 reached are one device; the 100 of the second wave have not begun.
    let mut bench = Bench::in_waves(&[12, 100], allowing(None, Some(2)));
    bench.confirm();
    bench.report(1, Phase::Restored);
    assert_eq!(bench.phase(), RolloutPhase::Running);
    bench.report(2, Phase::Restored);
    assert_eq!(bench.phase(), RolloutPhase::Halted);
    assert_eq!(bench.machine.header().unwrap().reason, "2 devices failed; 1 may");
    let mut bench = Bench::in_waves(&[12, 100], allowing(None, Some(2)));
    bench.confirm();
    bench.report(1, Phase::Restored);
    (2..=12).for_each(|index| bench.report(index, Phase::Healthy));
    assert_eq!(bench.stage(), (1, Stage::Rolling));
    bench.confirm();
    bench.report(13, Phase::Restored);
    bench.report(14, Phase::Restored);
    assert_eq!(bench.phase(), RolloutPhase::Running, "2 % of 112 are 3");
    bench.report(15, Phase::Restored);
    assert_eq!(bench.phase(), RolloutPhase::Halted);
}

#[test]
fn a_failure_while_it_bakes_halts() {
    let mut bench = Bench::in_waves(&[1, 1], baked());
    bench.confirm();
    bench.report(1, Phase::Healthy);
    bench.advance(Duration::from_mins(10));
    bench.report(1, Phase::Restored);
    assert_eq!(bench.phase(), RolloutPhase::Halted);
    bench.advance(Duration::from_hours(100));
    assert_eq!(bench.status(2), DeviceStatus::Pending);
    assert!(bench.assigned().is_empty());
}

#[test]
fn a_wave_in_which_too_many_have_failed_before_it_begins_gets_nothing() {
    let mut bench = Bench::in_waves(&[1, 2], RolloutStrategy { bake: BAKE, ..RolloutStrategy::default() });
    bench.confirm();
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Restored);
    assert_eq!(bench.stage(), (0, Stage::Baking), "its wave has not begun");
    bench.story();
    bench.advance(BAKE);
    assert_eq!((bench.phase(), bench.stage()), (RolloutPhase::Halted, (1, Stage::Rolling)));
    let story = bench.story();
    assert!(!story.contains("assign 2.0"), "{story}");
    bench.restart();
    assert!(!bench.story().contains("assign 2.0"));
}

#[test]
fn no_more_than_the_limit_are_at_work_at_once() {
    let mut bench = Bench::in_waves(&[5], RolloutStrategy { unavailable_max: Some(2), ..RolloutStrategy::default() });
    assert_eq!(bench.assigned(), [local(1), local(2)]);
    bench.confirm();
    bench.restart();
    assert!(!bench.assigned().contains(&local(3)));
    bench.effects.clear();
    bench.report(2, Phase::Healthy);
    assert_eq!(bench.assigned(), [local(3)]);
    bench.confirm();
    // One that does not answer gives its place up, and is looked for again later.
    bench.report(3, Phase::Download);
    bench.effects.clear();
    bench.advance(RETURN_WITHIN);
    assert_eq!(bench.story().lines().next(), Some("otter-1: pending, 1 of 5 ended"));
    bench.input(Input::DeviceWithdrawn { device: local(1) });
    assert_eq!(bench.assigned(), [local(4)]);
    bench.report(4, Phase::Healthy);
    bench.report(3, Phase::Healthy);
    bench.report(5, Phase::Healthy);
    assert_eq!(bench.phase(), RolloutPhase::Succeeded, "the first follows");
    bench.effects.clear();
    bench.advance(run::LOOK_AGAIN_AFTER);
    assert!(bench.story().contains("ask otter-1"));
    bench.restart();
    bench.input(Input::DevicePresence { device: local(1), offline_since: None });
    assert_eq!(bench.assigned(), [local(1)]);
}

#[test]
fn what_is_taken_back_after_its_end_is_given_to_nobody_any_more() {
    for unavailable_max in [Some(1), None] {
        let mut devices = wave_devices(&[3]);
        devices.iter_mut().skip(1).for_each(|device| device.offline_since = Some(Wall(1)));
        let mut bench = Bench::new();
        bench.start(Plan {
            strategy: RolloutStrategy { unavailable_max, ..RolloutStrategy::default() },
            ..plan_of(devices)
        });
        bench.confirm();
        bench.report(1, Phase::Healthy);
        assert_eq!(bench.phase(), RolloutPhase::Succeeded, "two follow when they are back");
        bench.effects.clear();
        bench.take_back();
        bench.take_back();
        bench.confirm();
        assert_eq!((bench.status(1), bench.phase()), (DeviceStatus::Healthy, RolloutPhase::Succeeded));
        assert_eq!(bench.status(2), DeviceStatus::Skipped(Skip::Aborted));
        assert!(!bench.header.as_ref().unwrap().is_open, "nobody is waited for any more");
        bench.restart();
        for index in 2..=3 {
            bench.input(Input::DevicePresence { device: local(index), offline_since: None });
            bench.input(Input::DeviceAcknowledged { device: local(index), assigned: None });
        }
        bench.advance(run::LOOK_AGAIN_AFTER);
        assert!(bench.assigned().is_empty(), "{}", bench.story());
        assert_eq!(bench.status(3), DeviceStatus::Skipped(Skip::Aborted));
        assert!(why(&bench).contains("It was taken back since: ada."), "{}", why(&bench));
        bench.report(3, Phase::Download);
        assert_eq!(bench.status(3), DeviceStatus::Skipped(Skip::AbortedAtWork), "it had begun before it heard of it");
        bench.report(3, Phase::Healthy);
        assert_eq!(bench.status(3), DeviceStatus::Healthy);
    }
}

#[test]
fn what_is_taken_back_before_its_end_is_aborted() {
    let mut bench = Bench::in_waves(&[1, 1], RolloutStrategy::default());
    bench.take_back();
    assert_eq!(bench.phase(), RolloutPhase::Aborted);
    bench.take_back();
    assert_eq!(bench.machine.header().unwrap().taken_back, None, "said twice, it is said once");
}

#[test]
fn no_more_than_the_limit_of_one_site_are_at_work_at_once() {
    let site = |index: u32| ["berlin", "paris"][usize::try_from(index % 2).unwrap()].to_owned();
    let devices =
        wave_devices(&[6]).into_iter().zip(0..).map(|(device, index)| PlannedDevice { site: site(index), ..device });
    let strategy = RolloutStrategy { unavailable_per_site_max: Some(1), ..RolloutStrategy::default() };
    let mut bench = Bench::new();
    bench.start(Plan { strategy, ..plan_of(devices.collect()) });
    assert_eq!(bench.assigned(), [local(1), local(2)]);
    bench.effects.clear();
    bench.report(2, Phase::Healthy);
    assert_eq!(bench.assigned(), [local(4)], "the next of the same site");
}

/// Why the rollout stands where it stands.
fn why(bench: &Bench) -> String {
    let (header, plan) = (bench.machine.header().unwrap(), bench.machine.plan().unwrap());
    let devices: BTreeMap<_, _> = bench.machine.devices().collect();
    let waves = Tally::of(plan, |device| devices.get(&device).copied()).waves;
    why::explain(header, plan, &waves, bench.now.wall).join("\n") + "\n"
}

#[test]
fn whoever_asks_why_is_told_what_it_waits_for_and_what_to_do() {
    let mut bench = Bench::in_waves(&[2, 2], RolloutStrategy { approve_waves: true, ..baked() });
    bench.confirm();
    bench.report(1, Phase::Download);
    bench.advance(ACKNOWLEDGE_WITHIN);
    let rolling = why(&bench);
    bench.report(1, Phase::Healthy);
    let baking = why(&bench);
    bench.advance(BAKE);
    let waiting = why(&bench);
    bench.report(1, Phase::Restored);
    let halted = why(&bench);
    bench.abort();
    let aborted = why(&bench);
    expect![[r#"
        Wave 1 of 2 is rolling: 0 of its 2 devices have ended, 1 at work.
        Whoever acknowledged and has not ended in 2h has failed.
        0 devices failed; 0 may now (budget 0).
        1 device is offline and keeps nobody waiting. It follows when it is back.

        Wave 1 of 2 has ended and bakes for another 30m; then somebody has to approve wave 2.
        0 devices failed; 0 may now (budget 0).
        1 device is offline and keeps nobody waiting. It follows when it is back.

        Wave 1 of 2 has ended, and wave 2 waits for somebody's word: fleetd rollout approve rol_040g2081040g2081
        0 devices failed; 0 may now (budget 0).
        1 device is offline and keeps nobody waiting. It follows when it is back.

        It stopped itself: 1 device failed; 0 may.
        Nobody else is assigned. Whoever is and has not switched is held, and what is healthy stays.
        Go on: fleetd rollout resume rol_040g2081040g2081. Take it back: fleetd rollout abort rol_040g2081040g2081
        1 device failed; 0 may now (budget 0).

        It was aborted: ada.
    "#]]
    .assert_eq(&[rolling, baking, waiting, halted, aborted].join("\n"));
}

#[test]
fn one_that_was_late_and_speaks_is_there_and_has_all_the_time_of_its_wave() {
    let mut bench = Bench::in_waves(&[2], RolloutStrategy::default());
    bench.confirm();
    bench.report(1, Phase::Download);
    bench.advance(ACKNOWLEDGE_WITHIN);
    assert_eq!(bench.machine.counts().offline, 1);
    bench.input(Input::DeviceAcknowledged { device: local(2), assigned: Some((rollout(), 1)) });
    bench.report(2, Phase::Download);
    bench.advance(SILENT_AFTER);
    let downloads = DeviceStatus::Installing(Phase::Download);
    assert_eq!([1, 2].map(|index| bench.status(index)), [downloads.clone(), downloads], "it is not silent");
}
