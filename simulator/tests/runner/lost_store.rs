//! A server that loses its store and has its keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::device::record::Membership;
use fleetd_actors::rollout::status::RolloutPhase;
use fleetd_simulator::fleet::{Fleet, coffee};
use fleetd_sync_core::codec;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::envelope::{DocumentId, Position};
use fleetd_sync_core::id::{EnvelopeHash, KeyId};
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::state_store::{KeyRange, StateStore as _};

const LATENCY: Duration = Duration::from_millis(50);
const DEVICES: usize = 3;
/// More envelopes than three devices and a server have.
const ENVELOPES_MAX: usize = 4096;

type Written = BTreeMap<(DocumentId, KeyId, Position), EnvelopeHash>;

/// A fleet of three that runs 1.0.0.
fn running_fleet() -> Fleet {
    let mut fleet = Fleet::new(11, LATENCY).unwrap();
    for _ in 0..DEVICES {
        fleet.add_device().unwrap();
    }
    let is_enrolled = |fleet: &Fleet, device: usize| {
        fleet.devices[device].node().is_some_and(|node| node.status().agent.device.is_some())
    };
    fleet.wait_until("three devices to enrol", |fleet| (0..DEVICES).all(|device| is_enrolled(fleet, device))).unwrap();
    let release = fleet.push("1.0.0", b"coffee one").unwrap();
    let rollout = fleet.roll_out(&release).unwrap();
    let is_done =
        |fleet: &Fleet| fleet.rollout(rollout).is_some_and(|rollout| rollout.phase == RolloutPhase::Succeeded);
    fleet.wait_until("1.0.0 to be rolled out", is_done).unwrap();
    fleet
}

fn membership(fleet: &Fleet, device: usize) -> Option<Membership> {
    fleet.record(device).map(|record| record.membership)
}

/// Whether all have come back, and told what they run.
fn are_back(fleet: &Fleet) -> bool {
    (0..DEVICES).all(|device| membership(fleet, device).is_some() && fleet.is_healthy(device, "1.0.0"))
}

fn pids(fleet: &Fleet) -> Vec<Option<u32>> {
    fleet.devices.iter().map(|device| device.runner.pid(&coffee())).collect()
}

/// Every envelope of a store, by its position.
fn written(store: &MemoryStore, into: &mut Written) {
    for (_, found) in store.scan(Space::Envelope, KeyRange::all(), ENVELOPES_MAX).unwrap() {
        let Ok(envelope) = codec::decode(&found.value) else { continue }; // A lane's memory lies beside its envelopes.
        let body = &envelope.body;
        let place = (body.document, body.lane, body.position);
        let before = into.insert(place, envelope.hash);
        assert!(before.is_none_or(|before| before == envelope.hash), "{place:?} was written twice");
    }
}

/// The highest position of each lane of the devices' documents.
fn heads(store: &MemoryStore) -> BTreeMap<(DocumentId, KeyId), Position> {
    let mut all = Written::new();
    written(store, &mut all);
    let mut heads = BTreeMap::new();
    for (document, lane, position) in all.into_keys().filter(|(document, ..)| *document != DocumentId::Trust) {
        let head = heads.entry((document, lane)).or_insert(position);
        *head = position.max(*head);
    }
    heads
}

fn all_written(fleet: &Fleet, former: &MemoryStore) -> Written {
    let mut all = Written::new();
    written(former, &mut all);
    written(&fleet.server.store, &mut all);
    fleet.devices.iter().for_each(|device| written(&device.store, &mut all));
    all
}

#[test]
fn devices_of_a_lost_store_come_back_and_take_rollouts_once_they_are_approved() {
    let mut fleet = running_fleet();
    let (pids_before, chain) = (pids(&fleet), fleet.server.node().unwrap().shared.trust().chain.clone());
    let names: Vec<_> = (0..DEVICES).map(|device| fleet.record(device).unwrap().wanted).collect();
    let former = fleet.lose_store().unwrap();
    assert_eq!(fleet.server.node().unwrap().shared.trust().chain, chain, "its keys have the whole chain");

    fleet.wait_until("three devices to come back", are_back).unwrap();
    fleet.world.run_for(Duration::from_secs(60));
    assert!((0..DEVICES).all(|device| membership(&fleet, device) == Some(Membership::Recovered)));
    assert_eq!(heads(&fleet.server.store), heads(&former), "the same heads, and nothing was written");
    let wanted: Vec<_> = (0..DEVICES).map(|device| fleet.record(device).unwrap().wanted).collect();
    assert_eq!(wanted, names, "what had been asked of them");
    assert_eq!(pids(&fleet), pids_before, "nothing that runs was touched");

    let second = fleet.push("1.1.0", b"coffee two").unwrap();
    fleet.approve(0).unwrap();
    let rollout = fleet.roll_out(&second).unwrap();
    let is_done =
        |fleet: &Fleet| fleet.rollout(rollout).is_some_and(|rollout| rollout.phase == RolloutPhase::Succeeded);
    fleet.wait_until("1.1.0 on the one that was approved", |fleet| fleet.is_healthy(0, "1.1.0")).unwrap();
    fleet.wait_until("the rollout to succeed", is_done).unwrap();
    assert!((1..DEVICES).all(|device| fleet.is_healthy(device, "1.0.0")), "the others wait for a word");

    (1..DEVICES).for_each(|device| fleet.approve(device).unwrap());
    assert!(fleet.approve(1).is_err(), "it waits no more");
    let third = fleet.push("1.2.0", b"coffee three").unwrap();
    fleet.roll_out(&third).unwrap();
    let is_everywhere = |fleet: &Fleet| (0..DEVICES).all(|device| fleet.is_healthy(device, "1.2.0"));
    fleet.wait_until("1.2.0 on all", is_everywhere).unwrap();
    all_written(&fleet, &former);
}

#[test]
fn a_device_that_was_away_while_the_store_was_lost_comes_back_later() {
    let mut fleet = running_fleet();
    fleet.network.cut("device-2");
    fleet.world.run_for(Duration::from_secs(120));
    let former = fleet.lose_store().unwrap();
    let are_two = |fleet: &Fleet| (0..2).all(|device| membership(fleet, device) == Some(Membership::Recovered));
    fleet.wait_until("two devices to come back", are_two).unwrap();
    assert_eq!(membership(&fleet, 2), None);
    fleet.power_off(2);
    fleet.power_on(2).unwrap();
    fleet.network.heal("device-2");
    fleet.wait_until("the third to come back", are_back).unwrap();
    fleet.approve(2).unwrap();
    let second = fleet.push("1.1.0", b"coffee two").unwrap();
    fleet.roll_out(&second).unwrap();
    fleet.wait_until("1.1.0 on the third", |fleet| fleet.is_healthy(2, "1.1.0")).unwrap();
    all_written(&fleet, &former);
}

#[test]
fn a_store_that_is_lost_twice_comes_back_twice() {
    let mut fleet = running_fleet();
    let former: Vec<Arc<MemoryStore>> = (0..2)
        .map(|_| {
            let former = fleet.lose_store().unwrap();
            fleet.wait_until("three devices to come back", are_back).unwrap();
            former
        })
        .collect();
    (0..DEVICES).for_each(|device| fleet.approve(device).unwrap());
    let second = fleet.push("1.1.0", b"coffee two").unwrap();
    fleet.roll_out(&second).unwrap();
    let is_everywhere = |fleet: &Fleet| (0..DEVICES).all(|device| fleet.is_healthy(device, "1.1.0"));
    fleet.wait_until("1.1.0 on all", is_everywhere).unwrap();
    former.iter().for_each(|former| drop(all_written(&fleet, former)));
}

#[test]
fn a_revoked_device_stays_out_when_the_store_is_lost() {
    let mut fleet = running_fleet();
    let revoked = fleet.devices[0].local();
    fleet.revoke(revoked.into()).unwrap();
    let is_out = |fleet: &Fleet| {
        let node = fleet.devices[0].node().unwrap();
        node.status().agent.failure.is_some_and(|failure| failure.message.contains("revoked"))
    };
    fleet.wait_until("the device to be turned away", is_out).unwrap();
    fleet.lose_store().unwrap();
    fleet
        .wait_until("the others to come back", |fleet| (1..DEVICES).all(|device| fleet.record(device).is_some()))
        .unwrap();
    fleet.world.run_for(Duration::from_secs(1800));
    assert_eq!(membership(&fleet, 0), None, "its revocation lies beside the keys");
}

/// Keys that were restored from a backup know less than the devices do.
#[test]
fn a_revocation_that_another_device_brings_back_closes_the_revoked_one() {
    let mut fleet = running_fleet();
    let revoked = fleet.devices[0].local();
    fleet.network.cut("device-0");
    fleet.world.run_for(Duration::from_secs(120));
    fleet.revoke(revoked.into()).unwrap();
    fleet.world.run_for(Duration::from_secs(5));
    for device in 1..DEVICES {
        fleet.network.cut(&format!("device-{device}"));
    }
    fleet.server.forget_revocations();
    fleet.lose_store().unwrap();
    fleet.network.heal("device-0");
    let is_in = |fleet: &Fleet| membership(fleet, 0) == Some(Membership::Recovered) && fleet.is_healthy(0, "1.0.0");
    fleet.wait_until("the revoked device to be taken for a lost one", is_in).unwrap();
    fleet.network.heal("device-1");
    let is_out = |fleet: &Fleet| membership(fleet, 0) == Some(Membership::Revoked);
    fleet.wait_until("its revocation to come back", is_out).unwrap();
    assert!(fleet.approve(0).is_err());
    assert!(fleet.devices[0].runner.pid(&coffee()).is_some(), "what runs is not stopped by it");
}
