//! Pause, halt, resume and abort.

use super::*;

#[test]
fn a_pause_holds_whoever_could_act_and_a_resume_lets_go() {
    let mut bench = Bench::in_waves(&[4, 1], RolloutStrategy::default());
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Download);
    bench.input(Input::DeviceAssigned { device: local(3) });
    bench.story();
    bench.pause();
    expect![[r#"
        rollout paused ada
        answer Ok(())
        hold otter-2
        hold otter-3
        hold otter-4
    "#]]
    .assert_eq(&changes(&mut bench));
    bench.pause();
    assert_eq!(bench.story(), "answer Ok(())\n", "said twice, it is said once");
    bench.restart();
    assert!(!bench.story().contains("assign"), "nothing that was on its way is sent any more");
    bench.wake();
    let held = WorkloadReport { error: Some(Fault::new(FaultKind::Held, "")), ..report(Phase::Pending) };
    bench.input(Input::DeviceReported { device: local(2), report: Box::new(held) });
    assert_eq!(bench.status(2), DeviceStatus::Skipped(Skip::Held));
    bench.advance(Duration::from_hours(100));
    assert_eq!(bench.phase(), RolloutPhase::Paused);
    bench.story();
    bench.resume();
    expect![[r#"
        rollout running 
        answer Ok(())
        lift on otter-2
        lift on otter-3
        lift on otter-4
    "#]]
    .assert_eq(&changes(&mut bench));
    assert_eq!(bench.status(2), DeviceStatus::Acknowledged, "it is under way again");
    for index in 2..=4 {
        bench.input(Input::DeviceLifted { device: local(index), is_held: false });
    }
    assert_eq!(bench.assigned(), [local(4)], "whether it ever got its assignment, nobody knows");
    (2..=5).for_each(|index| bench.report(index, Phase::Healthy));
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
}

/// What went out, but for each device's progress.
fn changes(bench: &mut Bench) -> String {
    bench.story().lines().filter(|line| !line.contains("ended")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_hold_of_somebody_else_outlives_the_resume() {
    let mut bench = Bench::in_waves(&[1], RolloutStrategy::default());
    bench.confirm();
    bench.pause();
    bench.confirm();
    let held = WorkloadReport { error: Some(Fault::new(FaultKind::Held, "")), ..report(Phase::Pending) };
    bench.input(Input::DeviceReported { device: local(1), report: Box::new(held) });
    bench.resume();
    assert_eq!(bench.status(1), DeviceStatus::Acknowledged);
    bench.input(Input::DeviceLifted { device: local(1), is_held: true });
    assert_eq!(bench.status(1), DeviceStatus::Skipped(Skip::Held));
}

#[test]
fn each_stop_has_a_hold_of_its_own_and_an_answer_to_an_older_one_counts_for_nothing() {
    let mut bench = Bench::in_waves(&[1], RolloutStrategy::default());
    bench.confirm();
    let hold = |bench: &Bench| bench.machine.header().unwrap().hold;
    bench.pause();
    let first = hold(&bench).unwrap();
    bench.restart();
    assert_eq!(hold(&bench), Some(first), "a restart finds the same");
    bench.resume();
    assert_eq!(hold(&bench), None);
    bench.pause();
    assert_ne!(hold(&bench), Some(first));
    bench.effects.clear();
    bench.input(Input::DeviceHeld { device: local(1), hold: first });
    bench.advance(RESEND_FIRST);
    assert!(bench.story().contains("hold otter-1"), "it is sent until the device's actor has this one");
}

#[test]
fn a_halt_stops_by_itself_whoever_is_at_work_and_a_resume_accepts_what_failed() {
    let mut bench = Bench::in_waves(&[3, 2], RolloutStrategy::default());
    bench.confirm();
    bench.report(2, Phase::Download);
    bench.report(3, Phase::Healthy);
    bench.story();
    bench.report(1, Phase::Restored);
    expect![[r#"
        rollout halted 1 device failed; 0 may
        note that it halted
        hold otter-2
    "#]]
    .assert_eq(&changes(&mut bench));
    bench.advance(Duration::from_hours(100));
    assert!(bench.assigned().is_empty(), "the second wave never begins by itself");
    bench.confirm();
    bench.pause();
    assert_eq!(bench.phase(), RolloutPhase::Halted, "it is stopped already");
    bench.resume();
    bench.confirm();
    assert_eq!(bench.phase(), RolloutPhase::Running);
    bench.report(2, Phase::Healthy);
    assert_eq!(bench.stage(), (1, Stage::Rolling));
    bench.confirm();
    bench.report(4, Phase::Restored);
    assert_eq!(bench.phase(), RolloutPhase::Halted, "one more is one too many");
    bench.report(5, Phase::Healthy);
    assert_eq!(bench.phase(), RolloutPhase::Failed, "nothing is left that it could go on with");
}

#[test]
fn a_failure_in_a_pause_makes_it_a_halt_under_the_same_hold() {
    let mut bench = Bench::in_waves(&[2, 1], RolloutStrategy::default());
    bench.confirm();
    bench.report(1, Phase::Watch);
    bench.pause();
    let hold = bench.machine.header().unwrap().hold;
    bench.report(1, Phase::Restored);
    assert_eq!((bench.phase(), bench.machine.header().unwrap().hold), (RolloutPhase::Halted, hold));
}

#[test]
fn a_pause_stops_the_clocks_of_wave_and_bake() {
    let bake = Duration::from_mins(30);
    let mut bench = Bench::in_waves(&[1, 1], RolloutStrategy { bake, ..RolloutStrategy::default() });
    bench.confirm();
    bench.report(1, Phase::Healthy);
    bench.advance(Duration::from_mins(20));
    bench.pause();
    bench.advance(Duration::from_hours(50));
    bench.restart();
    bench.resume();
    bench.advance(Duration::from_mins(10) - Duration::from_secs(1));
    assert_eq!(bench.stage(), (0, Stage::Baking));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.stage(), (1, Stage::Rolling));
}

#[test]
fn an_abort_of_a_stopped_rollout_leaves_neither_assignment_nor_hold() {
    let mut bench = Bench::in_waves(&[3, 1], RolloutStrategy::default());
    bench.confirm();
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Watch);
    bench.pause();
    bench.report(2, Phase::Healthy);
    bench.confirm();
    bench.abort();
    let story = changes(&mut bench);
    assert!(story.contains("lift on otter-2") && story.contains("withdraw from otter-3"), "{story}");
    assert!(!story.contains("otter-1") && !story.contains("otter-4"), "nothing is there to be taken back: {story}");
    assert_eq!(bench.status(4), DeviceStatus::Skipped(Skip::Aborted));
    for (device, effect) in [(2, true), (3, false)] {
        bench.input(match effect {
            true => Input::DeviceLifted { device: local(device), is_held: false },
            false => Input::DeviceWithdrawn { device: local(device) },
        });
    }
    assert!(!bench.header.as_ref().unwrap().is_open);
    bench.pause();
    bench.resume();
    bench.approve(None);
    assert_eq!(bench.story().matches("Err(Ended").count(), 3, "an end is an end");
}

#[test]
fn another_rollout_is_not_stopped_by_the_hold_of_the_one_whose_place_it_took() {
    let mut bench = Bench::in_waves(&[1], RolloutStrategy::default());
    bench.confirm();
    bench.pause();
    bench.confirm();
    bench.input(Input::DeviceSuperseded { device: local(1), by: RolloutId::from_bytes([8; 10]) });
    assert!(bench.story().contains("lift on otter-1"));
}

#[test]
fn whoever_is_away_while_a_stopped_rollout_goes_on_and_ends_gets_its_assignment_all_the_same() {
    let mut bench = Bench::of_three();
    bench.report(1, Phase::Healthy);
    bench.pause();
    bench.advance(ACKNOWLEDGE_WITHIN);
    bench.resume();
    assert_eq!(bench.phase(), RolloutPhase::Succeeded, "the two that are away keep nobody waiting");
    bench.effects.clear();
    for index in 2..=3 {
        bench.input(Input::DeviceLifted { device: local(index), is_held: false });
    }
    assert_eq!(bench.assigned(), [local(2), local(3)]);
}
