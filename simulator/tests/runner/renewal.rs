//! Certificates over the years: renewed while a device is there, and when it was away for longer than its own lasts.

use std::time::Duration;

use fleetd_actors::audit::action::RENEW;
use fleetd_simulator::fleet::{Fleet, coffee};
use fleetd_sync_core::audit::{By, Entry};
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::limit::{DEVICE_CERTIFICATE_LIFETIME, RENEWAL_SPREAD};
use fleetd_sync_core::session::Grade;
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::KeyRange;

const LATENCY: Duration = Duration::from_millis(50);
const DEVICES: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const FIVE_YEARS: Duration = Duration::from_secs(5 * 365 * 24 * 60 * 60);

fn running_fleet() -> Fleet {
    let mut fleet = Fleet::new(12, LATENCY).unwrap();
    for _ in 0..DEVICES {
        fleet.add_device().unwrap();
    }
    fleet.wait_until_enrolled().unwrap();
    let release = fleet.push("1.0.0", b"coffee one").unwrap();
    fleet.roll_out(&release).unwrap();
    fleet.wait_until("1.0.0 on all", |fleet| (0..DEVICES).all(|device| fleet.is_healthy(device, "1.0.0"))).unwrap();
    fleet.world.run_for(Duration::from_secs(60));
    fleet
}

/// The last date of the certificate that a device shows, and what it is let in for.
fn shown(fleet: &Fleet, device: usize) -> Option<(Wall, Grade)> {
    let connections = &fleet.server.node()?.shared.connections;
    let (_, connection) = connections.of_device(fleet.devices[device].local())?;
    Some((connection.certificate_not_after, connection.grade?))
}

/// The devices whose renewals the audit log has, one after the other.
fn noted(fleet: &Fleet) -> Vec<By> {
    let store = &fleet.server.node().unwrap().shared.seams.store;
    let found = store.scan(Space::AuditEntry, KeyRange::all(), 1024).unwrap();
    let entries = found.iter().map(|(_, entry)| Entry::decode(&entry.value).unwrap());
    entries.filter(|entry| entry.action == RENEW).map(|entry| entry.by).collect()
}

#[test]
fn devices_that_are_there_renew_at_half_of_the_time_one_by_one_and_nothing_that_runs_notices() {
    let fleet = running_fleet();
    let pids: Vec<_> = fleet.devices.iter().map(|device| device.runner.pid(&coffee())).collect();
    let first: Vec<_> = (0..DEVICES).map(|device| shown(&fleet, device).unwrap().0).collect();
    fleet.world.run_for(DEVICE_CERTIFICATE_LIFETIME / 2 - DAY);
    let before: Vec<_> = (0..DEVICES).map(|device| shown(&fleet, device).unwrap().0).collect();
    assert_eq!(before, first, "not before half of its time is over");

    let mut renewed_at = vec![None; DEVICES];
    for day in 0..=(RENEWAL_SPREAD + 2 * DAY).as_secs() / DAY.as_secs() {
        fleet.world.run_for(DAY);
        for device in 0..DEVICES {
            let (not_after, grade) = shown(&fleet, device).expect("it stays connected");
            assert_eq!(grade, Grade::Full);
            if not_after != first[device] {
                renewed_at[device].get_or_insert(day);
                assert!(not_after - first[device] >= DEVICE_CERTIFICATE_LIFETIME / 2 - DAY);
            }
        }
    }
    let mut days: Vec<u64> = renewed_at.into_iter().map(|day| day.expect("it renewed")).collect();
    days.sort_unstable();
    days.dedup();
    assert!(days.len() > 1, "all came on one day: {days:?}");
    let mut renewed = noted(&fleet);
    renewed.sort();
    let mut all: Vec<_> =
        fleet.devices.iter().map(|device| By::Device { local: device.local(), token: None }).collect();
    all.sort();
    assert_eq!(renewed, all, "each is in the audit log, once");
    let now: Vec<_> = fleet.devices.iter().map(|device| device.runner.pid(&coffee())).collect();
    assert_eq!(now, pids);
}

#[test]
fn a_device_that_comes_back_after_five_years_and_believes_it_is_1970_heals_by_itself() {
    let mut fleet = running_fleet();
    let first = shown(&fleet, 0).unwrap().0;
    fleet.power_off(0);
    let second = fleet.push("1.1.0", b"coffee two").unwrap();
    fleet.world.run_for(FIVE_YEARS);
    fleet.roll_out(&second).unwrap();
    fleet.devices[0].clock.jump(Wall(0));
    fleet.power_on(0).unwrap();
    assert!(fleet.devices[0].clock.true_time() > first, "its certificate has run out");

    let is_back = |fleet: &Fleet| shown(fleet, 0).is_some_and(|(_, grade)| grade == Grade::Full);
    let took = fleet.wait_until("it to be let in for everything", is_back).unwrap();
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    assert!(shown(&fleet, 0).unwrap().0 > fleet.devices[0].clock.true_time(), "with a new certificate");
    fleet.wait_until("1.1.0 on it", |fleet| fleet.is_healthy(0, "1.1.0")).unwrap();
}
