//! The product's own QUIC in the world: what paths do to packets, and what comes of it.

use std::ops::ControlFlow;
use std::time::Duration;

use fleetd_simulator::engine::EngineKind;
use fleetd_simulator::fleet::{Fleet, SERVER};
use fleetd_simulator::links::Links;
use fleetd_simulator::quic::condition::Condition;
use fleetd_simulator::quic::network::UdpNetwork;
use fleetd_simulator::run::{Outcome, RunPlan, run};
use fleetd_simulator::scenario::{Scenario, builtin};
use fleetd_simulator::world::World;
use fleetd_sync_core::limit;

const LATENCY: Duration = Duration::from_millis(20);

fn run_on_quic(name: &str, seed: u64, change: impl FnOnce(&mut Scenario)) -> Outcome {
    let mut scenario = builtin(name).unwrap();
    change(&mut scenario);
    let plan = RunPlan { engine: EngineKind::Quic, ..RunPlan::drawn(scenario, seed) };
    run(plan, &mut |_| ControlFlow::Continue(())).unwrap()
}

fn fleet_of(devices: usize) -> Fleet {
    let mut fleet = Fleet::on(EngineKind::Quic, World::new(3), LATENCY).unwrap();
    for _ in 0..devices {
        fleet.add_device().unwrap();
    }
    fleet.wait_until("every device to be linked", move |fleet| linked(fleet) == devices).unwrap();
    fleet
}

fn linked(fleet: &Fleet) -> usize {
    (0..fleet.devices.len()).filter(|number| fleet.is_linked(*number)).count()
}

fn paths(fleet: &Fleet) -> UdpNetwork {
    match &fleet.network {
        Links::Packets(network) => UdpNetwork::clone(network),
        Links::Frames(_) => panic!("the engine quic has packets"),
    }
}

/// Lets a device's link be so, from now on.
fn let_link_be(fleet: &Fleet, condition: &Condition) {
    paths(fleet).impose("device-0", 1, condition.clone());
}

#[test]
fn calm_converges() {
    let outcome = run_on_quic("calm", 1, |_| ());
    assert_eq!((outcome.violation.as_ref(), outcome.converged), (None, outcome.devices), "{:?}", outcome.laggards);
    assert!(outcome.samples.last().unwrap().frames > 1000, "packets were sent: {:?}", outcome.samples.last());
}

#[test]
fn a_day_of_few_devices_with_cuts_resets_and_crashes_converges() {
    for seed in 1..=3 {
        let outcome = run_on_quic("day", seed, |scenario| scenario.devices = 6);
        assert_eq!((outcome.violation.as_ref(), outcome.converged), (None, outcome.devices), "seed {seed}");
        assert!(outcome.converged_after_ms.is_some());
    }
}

#[test]
fn a_connection_outlives_a_new_port_of_the_nat() {
    let fleet = fleet_of(1);
    paths(&fleet).rebind("device-0");
    fleet.world.run_for(limit::IDLE_TIMEOUT * 2);
    assert_eq!(linked(&fleet), 1);
    let before = paths(&fleet).traffic().0;
    fleet.world.run_for(limit::KEEP_ALIVE_NAT);
    let after = paths(&fleet).traffic().0;
    assert!((1..12).contains(&(after - before)), "it rests on the new path: {} packets", after - before);
}

#[test]
fn a_flow_that_the_middle_forgot_ends_when_nothing_was_heard_for_too_long_and_the_device_dials_anew() {
    let fleet = fleet_of(1);
    paths(&fleet).reset("device-0");
    let down = fleet.wait_until("the server to give the connection up", |fleet| !fleet.is_linked(0)).unwrap();
    assert!(down <= limit::IDLE_TIMEOUT, "{down:?}");
    let up = fleet.wait_until("the device to be linked again", |fleet| fleet.is_linked(0)).unwrap();
    assert!(up < Duration::from_secs(30), "{up:?}");
}

/// A server that was killed knows no connection of before. The reset that it answers with ends the device's at once.
#[test]
fn a_restarted_server_is_dialled_again_long_before_the_silence_is_too_long() {
    let mut fleet = fleet_of(2);
    fleet.crash(SERVER);
    fleet.start(SERVER).unwrap();
    let again = fleet.wait_until("both to be linked again", |fleet| linked(fleet) == 2).unwrap();
    assert!(again < limit::KEEP_ALIVE_NAT + Duration::from_secs(5), "{again:?}");
}

#[test]
fn a_lossy_path_that_doubles_and_reorders_delays_and_changes_nothing() {
    let mut fleet = fleet_of(1);
    let bad = Condition {
        loss_ppm: 100_000,
        copied_ppm: 100_000,
        late_ppm: 200_000,
        late_by: Duration::from_millis(150),
        ..Condition::default()
    };
    let_link_be(&fleet, &bad);
    let release = fleet.push("1.0.0", &[7; 100_000]).unwrap();
    fleet.roll_out(&release).unwrap();
    let bad = fleet.wait_until("the release to be healthy", |fleet| fleet.is_healthy(0, "1.0.0")).unwrap();
    let_link_be(&fleet, &Condition::default());
    let release = fleet.push("1.1.0", &[8; 100_000]).unwrap();
    fleet.roll_out(&release).unwrap();
    let good = fleet.wait_until("the next one to be healthy", |fleet| fleet.is_healthy(0, "1.1.0")).unwrap();
    assert!(good < bad, "{good:?} on a good path, {bad:?} on a bad one");
}

#[test]
fn a_narrow_link_takes_as_long_as_its_bytes_need() {
    let mut fleet = fleet_of(1);
    let artifact: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    paths(&fleet).impose(SERVER, 1, Condition { bytes_per_second: Some(10_000), ..Condition::default() });
    let release = fleet.push("1.0.0", &artifact).unwrap();
    fleet.roll_out(&release).unwrap();
    let took = fleet.wait_until("the release to be healthy", |fleet| fleet.is_healthy(0, "1.0.0")).unwrap();
    assert!(took > Duration::from_secs(10), "100 KB at 10 KB/s in {took:?}");
}

#[test]
fn a_link_that_is_cut_one_way_is_down_at_both_ends() {
    for mute in [true, false] {
        let fleet = fleet_of(1);
        let_link_be(&fleet, &Condition { is_mute: mute, is_deaf: !mute, ..Condition::default() });
        let down = fleet.wait_until("the server to give the connection up", |fleet| !fleet.is_linked(0)).unwrap();
        assert!(down < limit::IDLE_TIMEOUT * 2, "{down:?}");
        fleet.world.run_for(limit::IDLE_TIMEOUT);
        let_link_be(&fleet, &Condition::default());
        fleet.wait_until("the device to be linked again", |fleet| fleet.is_linked(0)).unwrap();
    }
}

/// What is changed before it is sealed arrives, unlike what is changed on its way: the server has to refuse it.
#[test]
fn a_device_whose_memory_is_bad_harms_itself_alone_and_comes_back() {
    let mut fleet = fleet_of(2);
    let_link_be(&fleet, &Condition { mangled_percent: 100, ..Condition::default() });
    let release = fleet.push("1.0.0", b"coffee one").unwrap();
    fleet.roll_out(&release).unwrap();
    fleet.wait_until("the other to be healthy", |fleet| fleet.is_healthy(1, "1.0.0")).unwrap();
    fleet.world.run_for(Duration::from_secs(60));
    assert!(!fleet.is_healthy(0, "1.0.0"), "nothing that it says is understood");
    let_link_be(&fleet, &Condition::default());
    fleet.wait_until("the device to be healthy", |fleet| fleet.is_healthy(0, "1.0.0")).unwrap();
}
