//! Restarts, restored disks, and keys that two hold.

use fleetd_sync_core::lane::{ForkProof, Outcome, WriteError};
use fleetd_sync_core::replica::LaneStanding;

use super::world::{Disk, Fleet, Node, meet, now, push, set, text};

const PHASE: &str = "workload/coffee/phase";

fn device_and_server() -> (Fleet, Node, Node) {
    let mut fleet = Fleet::new(2);
    let (central, device) = (fleet.central.clone(), fleet.device.clone());
    let (server, device) = (fleet.node(Some(&central)), fleet.node(Some(&device)));
    (fleet, device, server)
}

fn actual(fleet: &Fleet, node: &Node) -> Vec<String> {
    let state = node.replica.lane_state(fleet.actual(), fleet.device.id()).cloned().unwrap_or_default();
    state.iter().map(|(path, value)| format!("{path}={value:?}")).collect()
}

#[test]
fn a_restarted_writer_opens_above_what_it_had_written() {
    let (mut fleet, mut device, mut server) = device_and_server();
    device.write(fleet.actual(), vec![set(PHASE, "download")]);
    device.write(fleet.actual(), vec![set(PHASE, "verify")]);
    meet(&mut device, &mut server);
    let before = device.head(fleet.actual(), fleet.device.id()).unwrap();
    let mut device = device.restarted(&mut fleet);
    device.write(fleet.actual(), vec![set(PHASE, "healthy")]);
    let after = device.head(fleet.actual(), fleet.device.id()).unwrap();
    assert_eq!((after.position.epoch, after.position.seq), (before.position.epoch + 1, 0));
    assert_ne!(after.position.stamp, before.position.stamp);
    meet(&mut device, &mut server);
    assert_eq!(actual(&fleet, &server), ["workload/coffee/phase=Text(\"healthy\")"]);
}

#[test]
fn a_failed_commit_takes_a_new_stamp() {
    let (fleet, mut device, _) = device_and_server();
    device.write(fleet.actual(), vec![set(PHASE, "download")]);
    let before = device.head(fleet.actual(), fleet.device.id()).unwrap();
    device.replica.commit_failed();
    device.write(fleet.actual(), vec![set(PHASE, "verify")]);
    let after = device.head(fleet.actual(), fleet.device.id()).unwrap();
    assert!(after.position.epoch == before.position.epoch + 1 && after.position.stamp != before.position.stamp);
}

#[test]
fn a_restored_device_reopens_above_its_higher_branch_with_its_own_state() {
    let (mut fleet, mut device, mut server) = device_and_server();
    device.write(fleet.actual(), vec![set(PHASE, "download")]);
    let backup = device.disk.clone();
    for restart in 0..5 {
        device = device.restarted(&mut fleet);
        device.write(fleet.actual(), vec![set(PHASE, &format!("healthy-{restart}")), set("extra", "1")]);
    }
    meet(&mut device, &mut server);

    let mut restored = Node::load(&mut fleet, device.key.clone(), backup);
    restored.write(fleet.actual(), vec![set("boot", "again")]);
    meet(&mut restored, &mut server);
    assert_eq!(actual(&fleet, &server), ["boot=Text(\"again\")", "workload/coffee/phase=Text(\"download\")"]);
    assert_eq!(restored.digest(), server.digest());
    assert_eq!(server.replica.fork_proofs().count(), 0);
}

#[test]
fn a_device_that_lost_its_disk_and_wrote_nothing_yet_takes_its_lane_back() {
    let (mut fleet, mut device, mut server) = device_and_server();
    device.write(fleet.actual(), vec![set(PHASE, "healthy")]);
    meet(&mut device, &mut server);
    let mut empty = Node::load(&mut fleet, device.key.clone(), Disk::default());
    meet(&mut empty, &mut server);
    assert!(empty.written.is_empty());
    assert_eq!(actual(&fleet, &empty), ["workload/coffee/phase=Text(\"healthy\")"]);
}

#[test]
fn a_restored_authority_adds_its_new_words_to_what_it_had_said() {
    let (mut fleet, mut device, mut server) = device_and_server();
    server.write(fleet.desired(), vec![set("workload/coffee/release", "1.0")]);
    let backup = server.disk.clone();
    for restart in 0..3 {
        server = server.restarted(&mut fleet);
        server
            .write(fleet.desired(), vec![set("workload/coffee/release", &format!("1.{restart}")), set("hold/h", "w")]);
    }
    meet(&mut server, &mut device);

    let mut restored = Node::load(&mut fleet, server.key.clone(), backup);
    // It should have waited for the device's heads; a bundle may not have let it.
    restored.write(fleet.desired(), vec![set("workload/tea/release", "2.0")]);
    push(&device, &mut restored);
    restored.write(fleet.desired(), vec![set("workload/milk/release", "3.0")]);
    meet(&mut restored, &mut device);
    let state = device.replica.lane_state(fleet.desired(), fleet.central.id()).unwrap();
    let values: Vec<_> = state.values().cloned().collect();
    assert_eq!(values, ["w", "1.2", "3.0", "2.0"].map(text));
}

#[test]
fn two_live_holders_of_one_key_are_proven_within_one_exchange_each() {
    for seed in 0..20_u8 {
        let (mut fleet, mut device, mut server) = device_and_server();
        fleet.entropy = fleetd_sync_core::entropy::Entropy::from_seed([100 + seed; 32]);
        device.write(fleet.actual(), vec![set(PHASE, "healthy")]);
        meet(&mut device, &mut server);
        let mut thief = Node::load(&mut fleet, device.key.clone(), device.disk.clone());
        // Each goes on for a while alone, as long as it likes, and both are alive when they meet the server.
        for change in 0..=u32::from(seed) * 10 {
            device.write(fleet.actual(), vec![set("own", &change.to_string())]);
        }
        for change in 0..=u32::from(seed % 5) * 30 {
            thief.write(fleet.actual(), vec![set("stolen", &change.to_string())]);
        }
        push(&device, &mut server);
        push(&server, &mut thief);
        push(&thief, &mut server);
        push(&server, &mut device);
        push(&device, &mut server);
        let standing = server.replica.standing(fleet.actual(), fleet.device.id());
        assert_eq!(standing, Some(LaneStanding::Quarantined), "seed {seed}");
        let (.., proof) = server.replica.fork_proofs().next().unwrap();
        assert!(matches!(proof, ForkProof::Circle(openers) if openers.len() >= 2));

        // The proof survives a restart and reaches everybody, who then have nothing more to say to each other.
        let mut server = server.restarted(&mut fleet);
        assert_eq!(server.replica.fork_proofs().count(), 1);
        let mut other = fleet.node(None);
        push(&thief, &mut other);
        for node in [&mut other, &mut device, &mut thief] {
            meet(&mut server, node);
            assert_eq!(node.digest(), server.digest());
            assert_eq!(node.replica.standing(fleet.actual(), fleet.device.id()), Some(LaneStanding::Quarantined));
        }
        assert!(matches!(device.try_write(fleet.actual(), vec![set("a", "1")]), Err(WriteError::Quarantined { .. })));
    }
}

#[test]
fn two_bodies_at_one_position_prove_a_fork() {
    let (fleet, mut device, mut server) = device_and_server();
    device.write(fleet.actual(), vec![set(PHASE, "healthy")]);
    // A machine copied while it runs has the stamp, too.
    let mut copy = device.clone();
    device.write(fleet.actual(), vec![set("own", "1")]);
    let rival = copy.write(fleet.actual(), vec![set("stolen", "1")]).envelopes;
    push(&device, &mut server);
    let mut tampered = rival[0].to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    assert!(matches!(server.receive(&tampered).outcome, Outcome::Refused(_)), "a proof needs a good signature");
    assert!(matches!(server.receive(&rival[0]).outcome, Outcome::Forked(_)));
    assert!(matches!(server.replica.fork_proofs().next().unwrap().2, ForkProof::Rivals(_)));
    assert!(matches!(server.receive(&rival[0]).outcome, Outcome::Refused(_)));
}

#[test]
fn an_authority_that_forked_raises_an_alarm_and_its_losing_branch_keeps_its_holds() {
    let mut fleet = Fleet::new(3);
    let central = fleet.central.clone();
    let hold = "hold/hld_0000000000000000";
    let (mut server, mut device) = (fleet.node(Some(&central)), fleet.node(None));
    server.write(fleet.desired(), vec![set("workload/coffee/release", "1.0")]);
    let mut thief = server.restarted(&mut fleet);
    server.write(fleet.desired(), vec![set(hold, "stop")]);
    meet(&mut server, &mut device);
    // The thief's branch is higher and knows nothing of the hold.
    for change in 0..140 {
        thief.write(fleet.desired(), vec![set("workload/coffee/release", &format!("6.{change}"))]);
    }
    push(&thief, &mut device);
    let state = device.replica.lane_state(fleet.desired(), central.id()).unwrap();
    assert!(!state.contains_key(&super::world::path(hold)));
    let mut device = device.restarted(&mut fleet);
    assert_eq!(device.replica.resolve(fleet.local()).holds.len(), 1, "the hold stays, also over a restart");

    // The honest server goes on above the branch that it sees, and whoever sees that has the proof.
    push(&device, &mut server);
    server.write(fleet.desired(), vec![set("workload/tea/release", "2.0")]);
    let outcomes = push(&server, &mut device);
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Outcome::Forked(_))), "{outcomes:?}");
    assert_eq!(device.replica.fork_proofs().count(), 1);
    assert_eq!(device.replica.standing(fleet.desired(), central.id()), Some(LaneStanding::Live));

    // That snapshot descends from both branches, and says itself what is held.
    let resolved = device.replica.resolve(fleet.local());
    assert_eq!(resolved.holds.len(), 1);
    server.write(fleet.desired(), vec![super::world::delete(hold)]);
    push(&server, &mut device);
    assert!(device.replica.resolve(fleet.local()).holds.is_empty());
    assert!(server.replica.reopen(now(), fleet.desired()).unwrap().envelopes.is_empty());
}
