//! Devices that were away while trust changed.

use std::time::Duration;

use fleetd_actors::device::record::Membership;
use fleetd_simulator::fleet::Fleet;
use fleetd_sync_core::limit;

const LATENCY: Duration = Duration::from_millis(50);

/// A fleet of two, of which the first was cut off, and has just been given up by the server: its actor there has not
/// come to rest yet.
fn fleet_with_one_away() -> Fleet {
    let mut fleet = Fleet::new(11, LATENCY).unwrap();
    for _ in 0..2 {
        fleet.add_device().unwrap();
    }
    fleet.wait_until_enrolled().unwrap();
    fleet.network.cut("device-0");
    fleet.world.run_for(limit::IDLE_TIMEOUT + Duration::from_secs(1));
    assert!(!fleet.is_linked(0) && fleet.is_linked(1));
    fleet
}

#[test]
fn a_device_that_comes_back_soon_hears_what_was_revoked_while_it_was_away() {
    let fleet = fleet_with_one_away();
    fleet.revoke(fleet.devices[1].local().into()).unwrap();
    fleet.network.heal("device-0");
    fleet.wait_until("the first device to come back", |fleet| fleet.is_linked(0)).unwrap();
    fleet.world.run_for(Duration::from_secs(10));
    let laggards = fleet.laggards();
    assert!(laggards.iter().all(|(device, _)| device == "device-1"), "{laggards:?}");
}

#[test]
fn a_device_that_was_revoked_while_it_was_away_is_turned_away_when_it_comes_back_soon() {
    let fleet = fleet_with_one_away();
    fleet.revoke(fleet.devices[0].local().into()).unwrap();
    fleet.network.heal("device-0");
    let is_out = |fleet: &Fleet| {
        let status = fleet.devices[0].node().unwrap().status();
        status.agent.failure.is_some_and(|failure| failure.message.contains("revoked"))
    };
    fleet.wait_until("the device to be turned away", is_out).unwrap();
    assert!(!fleet.is_linked(0));
    assert_ne!(fleet.record(0).unwrap().membership, Membership::Recovered);
}
