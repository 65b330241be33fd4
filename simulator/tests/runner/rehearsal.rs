//! A plan on a copy of its fleet: the copy is planned as the fleet was, and what happens to it is told device by device.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use fleetd_actors::rollout::plan::{Blocked, Plan, PlannedRelease, Verdict, plan};
use fleetd_actors::rollout::strategy::{Strategy, WaveSize};
use fleetd_actors::targeting::{Chosen, Targets};
use fleetd_actors::window::Terms;
use fleetd_simulator::engine::EngineKind;
use fleetd_simulator::reference::window::{Windows, is_open};
use fleetd_simulator::rehearsal::course::{DeviceEnd, Rehearsed};
use fleetd_simulator::rehearsal::{
    Barred, CopiedCheck, CopiedDevice, CopiedHold, CopiedProbe, CopiedRefusal, CopiedRelease, Refused, Rehearsal,
    RehearsalError, Share,
};
use fleetd_simulator::run::{Outcome, RunPlan, run};
use fleetd_simulator::scenario::Scenario;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, LocalId, PlanId, RolloutId};
use fleetd_sync_core::time::Wall;

const HOUR: Duration = Duration::from_secs(3600);
/// When the fleet was looked at.
const NOW_MS: i64 = 1_790_000_000_000;
/// The size of the artifact: more than the copy carries.
const ARTIFACT_BYTES: u64 = 3 << 20;

fn device(number: u8, name: &str) -> CopiedDevice {
    let mut entropy = Entropy::from_seed([number; 32]);
    CopiedDevice {
        name: name.to_owned(),
        id: DeviceId::random(&mut entropy).to_string(),
        local: LocalId::random(&mut entropy).to_string(),
        site: if number.is_multiple_of(2) { "shop-7" } else { "" }.to_owned(),
        platform: Some("linux/amd64".to_owned()),
        labels: BTreeMap::from([("place".to_owned(), format!("p{}", number % 3))]),
        present: present("1.0.0", true),
        ..CopiedDevice::default()
    }
}

fn present(version: &str, healthy: bool) -> Option<CopiedRelease> {
    let manifest = Some(ArtifactDigest::of(format!("coffee {version}").as_bytes()).to_string());
    Some(CopiedRelease { version: version.to_owned(), manifest, configuration: None, healthy })
}

fn hold(workload: Option<&str>) -> Vec<CopiedHold> {
    vec![CopiedHold { workload: workload.map(str::to_owned), reason: "the boss said so".to_owned() }]
}

/// One device of each kind that a plan tells apart.
fn every_kind() -> Vec<CopiedDevice> {
    let rollout = RolloutId::random(&mut Entropy::from_seed([99; 32])).to_string();
    vec![
        device(0, "brisk-otter"),
        device(1, "calm-heron"),
        CopiedDevice { present: None, ..device(2, "new-newt") },
        CopiedDevice { present: present("2.0.0", true), ..device(3, "early-bird") },
        CopiedDevice { present: present("1.0.0", false), ..device(4, "restored-rook") },
        CopiedDevice { present: present("2.0.0", false), ..device(5, "sick-seal") },
        CopiedDevice { holds: hold(Some("coffee")), ..device(6, "held-hare") },
        CopiedDevice { holds: hold(Some("tea")), ..device(7, "tea-tapir") },
        CopiedDevice { platform: Some("linux/arm64".to_owned()), ..device(8, "arm-ant") },
        CopiedDevice { platform: None, present: None, ..device(9, "mute-mole") },
        CopiedDevice { disk_free_bytes: Some(4 << 20), ..device(10, "full-fox") },
        CopiedDevice { barred: Some(Barred::Recovered), ..device(11, "lost-lynx") },
        CopiedDevice { barred: Some(Barred::Quarantined), ..device(12, "twin-toad") },
        CopiedDevice { barred: Some(Barred::Revoked), ..device(13, "gone-gnu") },
        CopiedDevice { busy: Some(rollout), ..device(14, "busy-bee") },
        CopiedDevice { conflict: true, ..device(15, "torn-tern") },
        CopiedDevice { stopped: true, ..device(16, "stopped-stoat") },
        CopiedDevice { offline_since_ms: Some(NOW_MS - 600_000), ..device(17, "away-asp") },
    ]
}

fn planned(devices: &[CopiedDevice], targets: Targets) -> (Rehearsal, Plan) {
    planned_in(devices, targets, Strategy::default(), &[])
}

/// The same in waves or windows; devices have these time zones, one after the other.
fn planned_in(devices: &[CopiedDevice], targets: Targets, strategy: Strategy, zones: &[&str]) -> (Rehearsal, Plan) {
    let size = (ArtifactDigest::of(b"an artifact"), ARTIFACT_BYTES);
    let release = PlannedRelease {
        workload: "coffee".parse().unwrap(),
        version: "2.0.0".parse().unwrap(),
        manifest: ArtifactDigest::of(b"coffee 2.0.0"),
        artifacts: BTreeMap::from([("linux/amd64".parse().unwrap(), size)]),
        configuration: None,
    };
    let probe = CopiedProbe {
        check: CopiedCheck::Notify,
        grace: Duration::from_secs(10),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        successes_min: 1,
        failures_max: 3,
    };
    let mut rehearsal = Rehearsal {
        plan: String::new(),
        copied_at_ms: NOW_MS,
        approve_after: Duration::ZERO,
        stop_after: None,
        offline: Share::NONE,
        fail: Share::NONE,
        loss: [Share::NONE; 2],
        bandwidth: None,
        probe,
        devices: devices.to_vec(),
    };
    let mut rows = rehearsal.rows(&targets, &release.workload).unwrap();
    for (row, zone) in rows.iter_mut().zip(zones.iter().cycle()) {
        row.facts.insert("timezone".to_owned(), (*zone).to_owned());
    }
    let id = PlanId::random(&mut Entropy::from_seed([1; 32]));
    let plan = plan(id, release, targets, 4, strategy, &rows).unwrap();
    rehearsal.plan = plan.to_text();
    (rehearsal, plan)
}

fn scenario(devices: &[CopiedDevice], change: impl FnOnce(&mut Rehearsal)) -> Scenario {
    let (mut rehearsal, _) = planned(devices, Targets::All);
    change(&mut rehearsal);
    rehearsal.into_scenario(None, HOUR).unwrap()
}

fn rehearsed(scenario: &Scenario, seed: u64) -> (Outcome, Rehearsed) {
    let outcome = run(RunPlan::drawn(scenario.clone(), seed), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(outcome.violation, None);
    let rehearsed = outcome.rehearsed.clone().unwrap();
    (outcome, rehearsed)
}

/// How each device ended, by name.
fn ends<'a>(scenario: &'a Scenario, rehearsed: &Rehearsed) -> BTreeMap<&'a str, DeviceEnd> {
    let devices = &scenario.rehearsal.as_ref().unwrap().devices;
    rehearsed.devices.iter().map(|course| (devices[course.device].name.as_str(), course.end)).collect()
}

#[test]
fn a_copy_is_planned_as_its_fleet_was_and_blocked_devices_stay_blocked() {
    let devices = every_kind();
    let (_, plan) = planned(&devices, Targets::All);
    let verdict = |name: &str| {
        let found = plan.devices.iter().find(|device| device.name.as_str() == name);
        found.map(|device| device.verdict.clone())
    };
    let blocked = |name: &str| match verdict(name) {
        Some(Verdict::Blocked { by, .. }) => by,
        other => panic!("{name} is {other:?}"),
    };
    let by = ["held-hare", "arm-ant", "mute-mole", "full-fox", "lost-lynx", "twin-toad", "busy-bee", "torn-tern"];
    assert_eq!(
        by.map(blocked),
        [
            Blocked::Held,
            Blocked::Platform,
            Blocked::Platform,
            Blocked::Storage,
            Blocked::Membership,
            Blocked::Membership,
            Blocked::Busy,
            Blocked::Conflict,
        ]
    );
    assert_eq!((verdict("early-bird"), verdict("gone-gnu")), (Some(Verdict::Unchanged), None));

    // A copy that is planned otherwise is an error of the run.
    let scenario = scenario(&devices, |_| ());
    let (_, rehearsed) = rehearsed(&scenario, 3);
    let ends = ends(&scenario, &rehearsed);
    let names: BTreeSet<&str> = ends.keys().copied().collect();
    let getting = ["away-asp", "brisk-otter", "calm-heron", "new-newt", "restored-rook", "sick-seal", "stopped-stoat"];
    assert_eq!(names, getting.into_iter().chain(["tea-tapir"]).collect());
    for name in ["brisk-otter", "calm-heron", "new-newt", "restored-rook", "sick-seal", "tea-tapir"] {
        assert_eq!(ends[name], DeviceEnd::Healthy, "{name}");
    }
    assert_eq!(ends["stopped-stoat"], DeviceEnd::Stopped);
    assert_eq!((rehearsed.phase.as_str(), rehearsed.reason.as_str()), ("succeeded", ""));
}

#[test]
fn a_release_that_crashes_everywhere_is_taken_back_everywhere_and_the_rollout_fails() {
    let devices: Vec<_> = (0..5).map(|number| device(number, &format!("otter-{number}"))).collect();
    let scenario = scenario(&devices, |rehearsal| rehearsal.fail = "100%".parse().unwrap());
    let (_, rehearsed) = rehearsed(&scenario, 1);
    assert_eq!((rehearsed.phase.as_str(), rehearsed.reason.as_str()), ("failed", "5 devices failed; 0 may"));
    for course in &rehearsed.devices {
        assert_eq!((course.end, course.is_bad), (DeviceEnd::Restored, true));
        let (ran, end) = (course.ran_ms.unwrap(), course.end_ms.unwrap());
        assert!(ran < end, "{course:?}");
    }
}

#[test]
fn who_stays_away_keeps_nobody_waiting_and_follows_when_it_is_back() {
    let away = CopiedDevice { offline_since_ms: Some(NOW_MS - 30 * 86_400_000), ..device(3, "away-asp") };
    let devices = [device(0, "brisk-otter"), device(1, "calm-heron"), away];
    let scenario = scenario(&devices, |_| ());
    let (outcome, rehearsed) = rehearsed(&scenario, 5);
    // A device that was away for a month does not come back within this hour.
    assert_eq!(ends(&scenario, &rehearsed)["away-asp"], DeviceEnd::Waiting);
    assert_eq!(rehearsed.phase, "succeeded");
    assert!(rehearsed.until_ms < 120_000, "{rehearsed:?}");
    // The run itself went on, until it had followed.
    assert!(outcome.converged_after_ms.is_some());
}

#[test]
fn an_artifact_takes_its_time_on_a_link_and_counts_with_its_real_size() {
    let devices: Vec<_> = (0..3).map(|number| device(number, &format!("otter-{number}"))).collect();
    let fast = rehearsed(&scenario(&devices, |_| ()), 1).1;
    let slow = rehearsed(&scenario(&devices, |rehearsal| rehearsal.bandwidth = Some(64 << 10)), 1).1;
    // 3 MiB at 64 KiB a second.
    let ran = |rehearsed: &Rehearsed| rehearsed.devices.iter().map(|course| course.ran_ms.unwrap()).min().unwrap();
    assert!((48_000..55_000).contains(&(ran(&slow) - ran(&fast))), "{} {}", ran(&slow), ran(&fast));
    let total = |rehearsed: &Rehearsed| rehearsed.traffic_bytes.values().sum::<u64>();
    for rehearsed in [&fast, &slow] {
        let (bytes, artifacts) = (total(rehearsed), 3 * ARTIFACT_BYTES);
        assert!((artifacts..artifacts + artifacts / 20).contains(&bytes), "{bytes}");
    }
    let busiest = |rehearsed: &Rehearsed| rehearsed.traffic_bytes.values().copied().max().unwrap();
    assert!(busiest(&slow) * 10 < busiest(&fast), "{} {}", busiest(&slow), busiest(&fast));
}

#[test]
fn a_rehearsal_is_the_same_on_either_engine_and_from_its_own_file() {
    let devices: Vec<_> = (0..6).map(|number| device(number, &format!("otter-{number}"))).collect();
    let change = |rehearsal: &mut Rehearsal| {
        (rehearsal.offline, rehearsal.fail) = ("40%".parse().unwrap(), "20%".parse().unwrap());
        rehearsal.loss = [Share::NONE, "5%".parse().unwrap()];
    };
    let scenario = scenario(&devices, change);
    let read = Scenario::parse(&scenario.to_toml().unwrap()).unwrap();
    assert_eq!(read, scenario);
    let (bare, _) = rehearsed(&scenario, 11);
    let plan = RunPlan { engine: EngineKind::Ractor, ..RunPlan::drawn(read, 11) };
    let actors = run(plan, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((bare.trace, bare.rehearsed), (actors.trace, actors.rehearsed));
}

/// A rehearsal of some otters in waves or windows, for as long as it is worth looking at.
fn otters_by(strategy: Strategy, zones: &[&str], change: impl FnOnce(&mut Rehearsal)) -> Scenario {
    let devices: Vec<_> = (0..6).map(|number| device(number, &format!("otter-{number}"))).collect();
    let (mut rehearsal, _) = planned_in(&devices, Targets::All, strategy, zones);
    change(&mut rehearsal);
    rehearsal.check_plan().unwrap();
    let duration = rehearsal.usual_duration(None).unwrap();
    rehearsal.into_scenario(None, duration).unwrap()
}

#[test]
fn windows_mean_what_they_will_mean_by_the_clocks_of_each_device() {
    let zones = ["Europe/Berlin", "America/New_York"];
    let window = "30 2 * * * 1h".to_owned();
    let strategy = Strategy {
        terms: Terms { windows: vec![window.parse().unwrap()], ..Terms::default() },
        deadline: HOUR,
        ..Strategy::default()
    };
    let scenario = otters_by(strategy, &zones, |_| ());
    let (_, rehearsed) = rehearsed(&scenario, 4);
    assert_eq!((rehearsed.phase.as_str(), rehearsed.devices.len()), ("succeeded", 6));
    let windows = [window];
    for course in &rehearsed.devices {
        let zone = zones[course.device % zones.len()];
        let ran = Wall(NOW_MS + i64::try_from(course.ran_ms.unwrap()).unwrap());
        let asked = Windows { zone, windows: &windows, blackouts: &[] };
        assert!(is_open(asked, ran).unwrap(), "{course:?} in {zone}");
        // As soon as it opens: half past two in the night after the plan was made, there.
        let minute_before = Wall(ran.0 - 120_000);
        assert!(!is_open(asked, minute_before).unwrap(), "{course:?} in {zone}");
        assert!(course.ran_ms.unwrap() < 24 * 3_600_000, "{course:?}");
    }
    assert!(rehearsed.ended_ms.unwrap() > 10 * 3_600_000, "nobody waited: {rehearsed:?}");
}

#[test]
fn a_wave_that_has_to_be_approved_is_after_the_time_that_was_asked_for() {
    let waves = vec![WaveSize::Count(2), WaveSize::Rest];
    let strategy = Strategy { waves, bake: HOUR, approve_waves: true, ..Strategy::default() };
    let after = HOUR * 7;
    let scenario = otters_by(strategy, &[], |rehearsal| rehearsal.approve_after = after);
    let (_, rehearsed) = rehearsed(&scenario, 4);
    assert_eq!(rehearsed.phase, "succeeded");
    let [first, second] = [0, 1].map(|wave| rehearsed.waves[wave]);
    assert_eq!(first.passed_ms, second.began_ms);
    let expected = u64::try_from((HOUR + after).as_millis()).unwrap();
    let passed = first.passed_ms.unwrap();
    assert!((expected..expected + 60_000).contains(&passed), "{passed} {expected}");
}

#[test]
fn a_stop_of_the_whole_fleet_leaves_those_alone_who_have_not_begun() {
    let waves = vec![WaveSize::Count(2), WaveSize::Count(2), WaveSize::Rest];
    let strategy = Strategy { waves, bake: HOUR, ..Strategy::default() };
    // The first wave bakes; nobody else has heard of the release.
    let scenario = otters_by(strategy, &[], |rehearsal| rehearsal.stop_after = Some(HOUR / 2));
    let (_, rehearsed) = rehearsed(&scenario, 4);
    assert_eq!((rehearsed.phase.as_str(), rehearsed.stopped_ms), ("paused", Some(1_800_000)));
    let ran: Vec<u32> =
        rehearsed.devices.iter().filter(|course| course.ran_ms.is_some()).map(|course| course.wave).collect();
    assert_eq!(ran, [0, 0]);
    assert_eq!(rehearsed.waves[1].began_ms, None);
}

#[test]
fn devices_that_still_carry_it_when_the_fleet_is_stopped_never_run_it() {
    let scenario = otters_by(Strategy::default(), &[], |rehearsal| {
        // 48 seconds of transfer for each.
        (rehearsal.bandwidth, rehearsal.stop_after) = (Some(64 << 10), Some(Duration::from_secs(20)));
    });
    let (_, rehearsed) = rehearsed(&scenario, 4);
    assert_eq!(rehearsed.phase, "paused");
    for course in &rehearsed.devices {
        assert_eq!((course.ran_ms, course.end), (None, DeviceEnd::Stopped), "{course:?}");
    }
}

#[test]
fn no_more_of_a_site_are_at_work_in_a_copy_than_the_plan_allows() {
    let strategy = Strategy { unavailable_per_site_max: Some(1), ..Strategy::default() };
    let scenario = otters_by(strategy, &[], |rehearsal| rehearsal.bandwidth = Some(64 << 10));
    let (_, rehearsed) = rehearsed(&scenario, 4);
    assert_eq!(rehearsed.phase, "succeeded");
    // Two sites of three each, one of them that of the devices without one: 48 seconds of transfer for each, in turn.
    for site in 0..2 {
        let of_site = rehearsed.devices.iter().filter(|course| course.device % 2 == site);
        let mut ran: Vec<u64> = of_site.map(|course| course.ran_ms.unwrap()).collect();
        ran.sort_unstable();
        assert_eq!(ran.len(), 3);
        assert!(ran.windows(2).all(|pair| pair[1] - pair[0] > 48_000), "{ran:?}");
    }
}

#[test]
fn a_pinned_device_is_blocked_in_a_copy_as_in_its_fleet() {
    let reason = "pinned at 1.0.0: certified with it".to_owned();
    let pinned = CopiedDevice {
        refused: Some(CopiedRefusal { by: Refused::Pinned, reason: reason.clone() }),
        ..device(1, "calm-heron")
    };
    let (rehearsal, plan) = planned(&[device(0, "brisk-otter"), pinned], Targets::All);
    rehearsal.check_plan().unwrap();
    let verdict = plan.devices.iter().find(|device| device.name.as_str() == "calm-heron").unwrap().verdict.clone();
    assert_eq!(verdict, Verdict::Blocked { by: Blocked::Pinned, reason });
    let scenario = rehearsal.into_scenario(None, HOUR).unwrap();
    let (_, rehearsed) = rehearsed(&scenario, 1);
    assert_eq!(ends(&scenario, &rehearsed), BTreeMap::from([("brisk-otter", DeviceEnd::Healthy)]));
}

#[test]
fn a_plan_that_does_not_fit_the_fleet_any_more_is_stale_and_says_why() {
    let devices = [device(0, "brisk-otter"), device(1, "calm-heron")];
    let (rehearsal, _) = planned(&devices, Targets::All);
    rehearsal.check_plan().unwrap();
    let mut changed = rehearsal.clone();
    changed.devices[1].holds = hold(None);
    changed.devices.push(device(2, "new-newt"));
    let Err(RehearsalError::Stale { mut reasons }) = changed.check_plan() else { panic!("it is not stale") };
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "calm-heron: planned was update from 1.0.0, now it is blocked: held: the boss said so",
            "new-newt is new: update from 1.0.0",
        ]
    );
    // A run says so too, should somebody edit the file of a copy.
    let scenario = changed.into_scenario(None, HOUR).unwrap();
    let error = run(RunPlan::drawn(scenario, 1), &mut |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains("calm-heron: planned was update from 1.0.0, in the copy it is blocked"), "{error}");
}

#[test]
fn devices_are_named_by_their_ids_in_a_copy_too() {
    let devices = [device(0, "brisk-otter"), device(1, "calm-heron"), device(2, "new-newt"), device(3, "old-owl")];
    let selector = Some(format!("id = {}", devices[2].id).parse().unwrap());
    let named = [devices[0].id.clone(), devices[1].local.clone()];
    let targets = Targets::Some(Chosen { selector, devices: named.into_iter().collect(), ..Chosen::default() });
    let (rehearsal, _) = planned(&devices, targets);
    let scenario = rehearsal.into_scenario(None, HOUR).unwrap();
    let (_, rehearsed) = rehearsed(&scenario, 2);
    let names: Vec<&str> = ends(&scenario, &rehearsed).into_keys().collect();
    assert_eq!(names, ["brisk-otter", "calm-heron", "new-newt"]);
}

#[test]
fn a_copy_that_fits_no_run_is_refused_with_the_reason() {
    let devices = [device(0, "brisk-otter"), device(1, "calm-heron")];
    let text = scenario(&devices, |_| ()).to_toml().unwrap();
    for (from, to, told) in [
        ("devices = 2", "devices = 3", "`devices` has to be 2"),
        ("calm-heron", "brisk-otter", "two are called brisk-otter"),
        ("workload coffee", "workload tea", "the plan was edited"),
        ("fail = \"0%\"", "fail = \"7\"", "write it in percent"),
        ("site = \"shop-7\"", "size = \"shop-7\"", "unknown field `size`"),
    ] {
        // The plan has the names too: only the table of the copy is changed.
        let changed = if from.starts_with("calm") {
            text.replace(&format!("name = \"{from}\""), &format!("name = \"{to}\""))
        } else {
            text.replace(from, to)
        };
        let error = Scenario::parse(&changed).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
