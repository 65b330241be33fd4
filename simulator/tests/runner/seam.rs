//! The seam test: a server and three devices, wired from the product's `node.rs`, in one virtual world.

use std::process::Command;
use std::time::Duration;

use fleetd_actors::report::Phase;
use fleetd_actors::rollout::status::{DeviceStatus, RolloutPhase, Skip};
use fleetd_simulator::engine::EngineKind;
use fleetd_simulator::fleet::{Fleet, coffee};
use fleetd_simulator::runner::Behaviour;
use fleetd_simulator::world::World;
use fleetd_sync_core::id::ArtifactDigest;

const LATENCY: Duration = Duration::from_millis(50);
/// Set in a second process, which prints its trace hash and nothing else.
const SECOND_PROCESS: &str = "FLEETD_SEAM_SECOND_PROCESS";

fn fleet_of_three() -> Fleet {
    fleet_of_three_on(EngineKind::Direct)
}

fn fleet_of_three_on(engine: EngineKind) -> Fleet {
    let mut fleet = Fleet::on(engine, World::new(7), LATENCY).unwrap();
    for _ in 0..3 {
        fleet.add_device().unwrap();
    }
    fleet.wait_until("three devices to enrol", |fleet| enrolled(fleet) == 3).unwrap();
    fleet
}

fn enrolled(fleet: &Fleet) -> usize {
    fleet.devices.iter().filter(|device| device.node().is_some_and(|node| node.status().agent.device.is_some())).count()
}

fn all_healthy(fleet: &Fleet, version: &str) -> bool {
    (0..3).all(|device| fleet.is_healthy(device, version))
}

/// From enrolment to healthy, from cut to converged, from crash to restored: the story of the product.
fn story(engine: EngineKind) -> (u64, u64) {
    let mut fleet = fleet_of_three_on(engine);
    let first = fleet.push("1.0.0", b"coffee one").unwrap();
    let rollout = fleet.roll_out(&first).unwrap();
    fleet.wait_until("1.0.0 to be healthy on all", |fleet| all_healthy(fleet, "1.0.0")).unwrap();
    let succeeded =
        |fleet: &Fleet| fleet.rollout(rollout).is_some_and(|header| header.phase == RolloutPhase::Succeeded);
    fleet.wait_until("the rollout to succeed", succeeded).unwrap();

    fleet.network.cut("device-2");
    fleet.world.run_for(Duration::from_secs(120));
    let second = fleet.push("1.1.0", b"coffee two").unwrap();
    fleet.roll_out(&second).unwrap();
    let two = |fleet: &Fleet| (0..2).all(|device| fleet.is_healthy(device, "1.1.0"));
    fleet.wait_until("1.1.0 on the two that are linked", two).unwrap();
    assert!(fleet.is_healthy(2, "1.0.0"), "the third cannot have heard of it");
    assert!(fleet.devices[2].runner.pid(&coffee()).is_some(), "a lost link stops nothing");
    fleet.network.heal("device-2");
    fleet.wait_until("the third to converge by itself", |fleet| all_healthy(fleet, "1.1.0")).unwrap();

    let crashing = b"coffee that crashes";
    let behaviour =
        Behaviour { crashes_after: Some(Duration::from_millis(300)), is_sick: true, ..Behaviour::default() };
    fleet.devices.iter().for_each(|device| device.runner.script(ArtifactDigest::of(crashing), behaviour));
    let third = fleet.push("1.2.0", crashing).unwrap();
    let rollout = fleet.roll_out(&third).unwrap();
    fleet.wait_until("every device to be restored", |fleet| (0..3).all(|device| is_restored(fleet, device))).unwrap();
    let failed = |fleet: &Fleet| fleet.rollout(rollout).is_some_and(|header| header.phase == RolloutPhase::Failed);
    fleet.wait_until("the rollout to fail", failed).unwrap();
    let good = ArtifactDigest::of(b"coffee two");
    assert!(fleet.devices.iter().all(|device| device.runner.started().last() == Some(&good)));
    fleet.world.trace()
}

fn is_restored(fleet: &Fleet, device: usize) -> bool {
    fleet.report(device).is_some_and(|report| {
        report.phase == Some(Phase::Restored) && report.release.is_some_and(|release| release.as_str() == "1.1.0")
    })
}

#[test]
fn the_story_gives_the_same_trace_in_two_processes() {
    let (events, hash) = story(EngineKind::Direct);
    if std::env::var_os(SECOND_PROCESS).is_some() {
        println!("trace {events} {hash:016x}");
        return;
    }
    let second = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runner::seam::the_story_gives_the_same_trace_in_two_processes", "--nocapture"])
        .env(SECOND_PROCESS, "1")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&second.stdout).into_owned();
    assert!(second.status.success(), "the second process failed:\n{printed}");
    assert!(printed.contains(&format!("trace {events} {hash:016x}")), "here: {events} {hash:016x}; there:\n{printed}");
}

#[test]
fn the_story_is_the_same_over_the_product_s_own_quic() {
    let (_, hash) = story(EngineKind::Quic);
    assert_eq!(story(EngineKind::Quic).1, hash, "packets repeat, in time and size");
}

#[test]
fn a_change_is_applied_one_way_of_the_link_after_it_was_made() {
    let mut fleet = fleet_of_three();
    let release = fleet.push("1.0.0", b"coffee one").unwrap();
    fleet.world.run_for(Duration::from_secs(5));
    fleet.roll_out(&release).unwrap();
    let before = fleet.world.monotonic();
    let heard = |fleet: &Fleet| fleet.devices[0].node().is_some_and(|node| !node.status().workloads.is_empty());
    fleet.wait_until("the first device to hear of it", heard).unwrap();
    let took = fleet.world.monotonic().since(before);
    assert!(took < LATENCY + Duration::from_millis(5), "one way takes {LATENCY:?}, and the change took {took:?}");
}

/// An abort comes when one device has yet to hear of the release, and two have switched to one that is not well.
#[test]
fn an_aborted_rollout_hears_how_the_devices_ended_that_were_at_work() {
    let mut fleet = fleet_of_three();
    let first = fleet.push("1.0.0", b"coffee one").unwrap();
    fleet.roll_out(&first).unwrap();
    fleet.wait_until("1.0.0 to be healthy on all", |fleet| all_healthy(fleet, "1.0.0")).unwrap();
    let program = b"coffee two";
    let behaviour = Behaviour { crashes_after: Some(Duration::from_secs(5)), is_sick: true, ..Behaviour::default() };
    fleet.devices[1].runner.script(ArtifactDigest::of(program), behaviour);
    let slow = Behaviour { is_sick: true, ..Behaviour::default() };
    fleet.devices[0].runner.script(ArtifactDigest::of(program), slow);
    fleet.network.cut("device-2");
    let second = fleet.push("1.1.0", program).unwrap();
    let rollout = fleet.roll_out(&second).unwrap();
    let watches = |fleet: &Fleet| {
        (0..2).all(|device| fleet.progress(rollout, device) == Some(DeviceStatus::Installing(Phase::Watch)))
    };
    fleet.wait_until("two devices to have switched", watches).unwrap();
    fleet.abort(rollout).unwrap();
    let at_work = Some(DeviceStatus::Skipped(Skip::AbortedAtWork));
    assert_eq!((fleet.progress(rollout, 0), fleet.progress(rollout, 1)), (at_work.clone(), at_work));
    assert_eq!(fleet.progress(rollout, 2), Some(DeviceStatus::Skipped(Skip::Aborted)));
    let restored = |fleet: &Fleet| {
        (0..2).all(|device| matches!(fleet.progress(rollout, device), Some(DeviceStatus::Restored(Some(_)))))
    };
    fleet.wait_until("the end of both in the rollout that was aborted", restored).unwrap();
    fleet.network.heal("device-2");
    fleet.world.run_for(Duration::from_secs(600));
    assert!(fleet.is_healthy(2, "1.0.0"), "the third never began");
    assert_eq!(fleet.progress(rollout, 2), Some(DeviceStatus::Skipped(Skip::Aborted)));
    let header = fleet.rollout(rollout).unwrap();
    assert_eq!((header.phase, header.is_open), (RolloutPhase::Aborted, false));

    // The same with a release that is well: what was too far to be called back stays, and the rollout says so.
    let program = b"coffee three";
    let ready_after = Duration::from_secs(5);
    fleet.devices[0].runner.script(ArtifactDigest::of(program), Behaviour { ready_after, ..Behaviour::default() });
    let third = fleet.push("1.2.0", program).unwrap();
    let rollout = fleet.roll_out(&third).unwrap();
    let is_at_work = |fleet: &Fleet| fleet.progress(rollout, 0) == Some(DeviceStatus::Installing(Phase::Watch));
    fleet.wait_until("the first device to have switched", is_at_work).unwrap();
    fleet.abort(rollout).unwrap();
    let is_healthy = |fleet: &Fleet| fleet.progress(rollout, 0) == Some(DeviceStatus::Healthy);
    fleet.wait_until("its end in the rollout that was aborted", is_healthy).unwrap();
}

#[test]
fn workloads_return_after_a_power_cut_with_no_link() {
    let mut fleet = fleet_of_three();
    let release = fleet.push("1.0.0", b"coffee one").unwrap();
    fleet.roll_out(&release).unwrap();
    fleet.wait_until("1.0.0 to be healthy on all", |fleet| all_healthy(fleet, "1.0.0")).unwrap();
    fleet.network.cut("device-0");
    fleet.power_off(0);
    assert_eq!(fleet.devices[0].runner.pid(&coffee()), None);
    fleet.power_on(0).unwrap();
    let runs = |fleet: &Fleet| fleet.devices[0].runner.pid(&coffee()).is_some();
    fleet.wait_until("the workload to run again", runs).unwrap();
}

#[test]
fn another_seed_is_another_run() {
    let first = Fleet::new(1, LATENCY).unwrap().world.trace();
    let second = Fleet::new(2, LATENCY).unwrap().world.trace();
    assert_ne!(first, second);
}
