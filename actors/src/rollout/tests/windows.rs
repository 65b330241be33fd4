use super::*;
use crate::report::Waits;
use crate::window::Terms;

const HOUR: Duration = Duration::from_hours(1);

/// A window that opens two hours from now: the clock of these tests shows 1970, midnight.
fn nightly() -> RolloutStrategy {
    let terms = Terms { windows: vec!["0 2 * * * 3h".parse().unwrap()], ..Terms::default() };
    RolloutStrategy { deadline: HOUR, terms, budget: allowing_two(), ..RolloutStrategy::default() }
}

fn allowing_two() -> FailureBudget {
    FailureBudget { count: Some(2), percent: None }
}

fn acknowledge(bench: &mut Bench, index: u8) {
    bench.input(Input::DeviceAssigned { device: local(index) });
    bench.input(Input::DeviceAcknowledged { device: local(index), assigned: Some((rollout(), 1)) });
}

fn waits(bench: &mut Bench, index: u8) {
    let waits = Some(Waits::Window { opens: Some(Wall(7_200_000)) });
    let report = WorkloadReport { waits, ..report(Phase::Wait) };
    bench.input(Input::DeviceReported { device: local(index), report: Box::new(report) });
}

/// Time passes by both clocks.
fn pass(bench: &mut Bench, span: Duration) {
    bench.now.wall = bench.now.wall + span;
    bench.advance(span);
}

#[test]
fn a_waves_time_begins_when_the_last_of_its_devices_windows_opens() {
    let zones = ["UTC", "Asia/Tokyo", "America/New_York"];
    let devices = wave_devices(&[3]).into_iter().zip(zones);
    let devices = devices.map(|(device, zone)| PlannedDevice { zone: Some(zone.parse().unwrap()), ..device });
    let mut bench = Bench::new();
    bench.start(Plan { strategy: nightly(), ..plan_of(devices.collect()) });
    for effect in &bench.effects {
        if let Effect::Assign { device, assignment } = effect {
            let index = usize::from(device.as_bytes()[0]) - 1;
            assert_eq!(assignment.terms.calendar.zone.to_string(), zones[index], "each has its own");
        }
    }
    (1..=3).for_each(|index| acknowledge(&mut bench, index));
    // In Tokyo it is 09:00, and the window opens in 17 hours; in New York it is 19:00.
    pass(&mut bench, 18 * HOUR - Duration::from_secs(1));
    assert_eq!(bench.machine.counts().failed, 0);
    bench.restart();
    pass(&mut bench, Duration::from_secs(1));
    assert_eq!(bench.machine.counts().failed, 3);
    assert_eq!(bench.status(1), DeviceStatus::Failed(Failure::Deadline));
}

#[test]
fn who_waits_does_not_fail_at_the_deadline_holds_nobody_up_and_follows() {
    let mut bench = Bench::in_waves(&[2, 1], nightly());
    (1..=2).for_each(|index| acknowledge(&mut bench, index));
    (1..=2).for_each(|index| waits(&mut bench, index));
    bench.report(1, Phase::Healthy);
    pass(&mut bench, 3 * HOUR - Duration::from_secs(1));
    assert_eq!(bench.stage(), (0, Stage::Rolling), "it may still come in its wave's time");
    pass(&mut bench, Duration::from_secs(1));
    assert_eq!((bench.stage(), bench.machine.counts().failed), ((1, Stage::Rolling), 0));
    assert!(matches!(bench.status(2), DeviceStatus::Waits(_)));
    acknowledge(&mut bench, 3);
    bench.report(3, Phase::Healthy);
    assert_eq!(bench.phase(), RolloutPhase::Running, "the last wave still has time");
    pass(&mut bench, 24 * HOUR);
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
    bench.report(2, Phase::Switch);
    bench.report(2, Phase::Healthy);
    assert_eq!(bench.machine.counts().healthy, 3);
}

#[test]
fn who_has_waited_and_then_does_not_end_has_a_waves_time_of_its_own() {
    let mut bench = Bench::in_waves(&[2], nightly());
    (1..=2).for_each(|index| acknowledge(&mut bench, index));
    waits(&mut bench, 2);
    bench.report(1, Phase::Healthy);
    pass(&mut bench, 4 * HOUR);
    bench.report(2, Phase::Switch);
    pass(&mut bench, HOUR);
    assert_eq!(bench.status(2), DeviceStatus::Failed(Failure::Deadline));
}

#[test]
fn who_waits_may_be_silent_until_its_window_has_opened() {
    let mut bench = Bench::in_waves(&[2], nightly());
    (1..=2).for_each(|index| acknowledge(&mut bench, index));
    waits(&mut bench, 2);
    bench.input(Input::DevicePresence { device: local(2), offline_since: Some(Wall(1)) });
    bench.report(1, Phase::Healthy);
    pass(&mut bench, SILENT_AFTER + SILENT_AFTER);
    assert!(matches!(bench.status(2), DeviceStatus::Waits(_)));
    pass(&mut bench, 3 * HOUR);
    assert_eq!(bench.status(2), DeviceStatus::Failed(Failure::Silent));
}

#[test]
fn a_pause_reaches_who_waits_as_a_hold() {
    let mut bench = Bench::in_waves(&[1], nightly());
    acknowledge(&mut bench, 1);
    waits(&mut bench, 1);
    bench.effects.clear();
    bench.pause();
    assert!(bench.story().contains("hold otter-1"));
}

#[test]
fn whoever_asks_why_is_told_when_the_next_window_opens() {
    let mut bench = Bench::in_waves(&[2], nightly());
    (1..=2).for_each(|index| acknowledge(&mut bench, index));
    waits(&mut bench, 2);
    let plan = bench.plan.clone().unwrap();
    let waves = Tally::of(&plan, |device| bench.machine.run.as_ref().unwrap().devices.get(&device)).waves;
    let said = why::explain(bench.machine.header().unwrap(), &plan, &waves, bench.now.wall);
    expect![[r#"
        Wave 1 of 1 is rolling: 0 of its 2 devices have ended, 1 at work.
        1 device is waiting for a time at which to switch; the next window opens 1970-01-01 02:00 UTC.
        Whoever acknowledged and has not ended in 3h has failed, unless it says that it waits.
        0 devices failed; 2 may now (budget 2).
    "#]]
    .assert_eq(&(said.join("\n") + "\n"));
}
