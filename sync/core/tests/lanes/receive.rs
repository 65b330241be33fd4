//! What may enter a lane, and what is refused, counted and harmless.

use std::sync::Arc;

use fleetd_sync_core::codec::{self, DecodeEnvelopeError};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{Body, Envelope, Kind, Need, Op, Position, Previous};
use fleetd_sync_core::id::{FleetId, Stamp};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::lane::{Outcome, Refusal, RefusalKind, WriteError};
use fleetd_sync_core::limit;
use fleetd_sync_core::replica::{LaneStanding, Received, Writers};
use fleetd_sync_core::time::{ClockQuality, Wall};

use super::world::{Fleet, Node, delete, now, push, set, text};

const RELEASE: &str = "workload/coffee/release";

fn pair() -> (Fleet, Node, Node) {
    let mut fleet = Fleet::new(1);
    let (central, device) = (fleet.central.clone(), fleet.device.clone());
    let (server, agent) = (fleet.node(Some(&central)), fleet.node(Some(&device)));
    (fleet, server, agent)
}

fn refused(received: &Received) -> RefusalKind {
    match &received.outcome {
        Outcome::Refused(refusal) => refusal.kind(),
        other => panic!("{other:?} is no refusal"),
    }
}

fn first_opener(fleet: &Fleet, key: &SecretKey, ops: Vec<Op>) -> Body {
    Body {
        fleet: fleet.id,
        document: fleet.desired(),
        lane: key.id(),
        position: Position { epoch: 1, stamp: Stamp(7), seq: 0 },
        previous: Previous::Start,
        wall: Wall(0),
        quality: ClockQuality::None,
        needs: Vec::new(),
        kind: Kind::Snapshot,
        ops,
    }
}

fn following(envelope: &Envelope, ops: Vec<Op>) -> Body {
    let position = Position { seq: envelope.body.position.seq + 1, ..envelope.body.position };
    Body { position, previous: Previous::Link(envelope.hash), kind: Kind::Delta, ops, ..envelope.body.clone() }
}

#[test]
fn a_change_reaches_the_other_node_and_survives_its_restart() {
    let (mut fleet, mut server, mut agent) = pair();
    server.write(fleet.desired(), vec![set(RELEASE, "1.0")]);
    server.write(fleet.desired(), vec![set(RELEASE, "1.1"), set("hold/x", "wait")]);
    server.write(fleet.desired(), vec![delete("hold/x")]);
    assert_eq!(push(&server, &mut agent), [Outcome::Applied, Outcome::Applied, Outcome::Applied]);
    let lane = server.replica.own_lane().unwrap();
    let agent = agent.restarted(&mut fleet);
    assert_eq!(agent.digest(), server.digest());
    let state = agent.replica.lane_state(fleet.desired(), lane).unwrap();
    assert_eq!(state.values().collect::<Vec<_>>(), [&text("1.1")]);
}

#[test]
fn what_comes_twice_or_late_changes_nothing() {
    let (fleet, mut server, mut agent) = pair();
    let first = server.write(fleet.desired(), vec![set(RELEASE, "1.0")]).envelopes;
    push(&server, &mut agent);
    assert_eq!(agent.receive(&first[0]).outcome, Outcome::Duplicate);
    // Enough changes for a new epoch, so that the first opener is below all that is kept.
    for change in 0..=limit::EPOCH_CHANGES_MAX {
        server.write(fleet.desired(), vec![set(RELEASE, &format!("2.{change}"))]);
    }
    let delta = server.write(fleet.desired(), vec![set(RELEASE, "3.0")]).envelopes;
    push(&server, &mut agent);
    let before = agent.digest();
    assert_eq!(agent.receive(&delta[0]).outcome, Outcome::Duplicate);
    let received = agent.receive(&first[0]);
    assert!(matches!(received.outcome, Outcome::Stale | Outcome::Duplicate) && received.records.is_empty());
    assert_eq!(agent.digest(), before);
}

#[test]
fn an_orphan_is_asked_for_and_never_queued() {
    let (fleet, mut server, mut agent) = pair();
    server.write(fleet.desired(), vec![set(RELEASE, "1.0")]);
    let orphan = server.write(fleet.desired(), vec![set(RELEASE, "1.1")]).envelopes;
    let received = agent.receive(&orphan[0]);
    assert_eq!(received.outcome, Outcome::Gap { have: None });
    assert!(received.records.is_empty() && agent.replica.heads().is_empty());
    assert_eq!(agent.replica.counters().gaps, 1);
}

#[test]
fn no_flipped_bit_of_an_envelope_is_taken() {
    let (fleet, mut server, agent) = pair();
    let envelope = server.write(fleet.desired(), vec![set(RELEASE, "1.0")]).envelopes.remove(0);
    for byte in 0..envelope.len() {
        for bit in 0..8 {
            let mut flipped = envelope.to_vec();
            flipped[byte] ^= 1 << bit;
            let mut agent = agent.clone();
            let received = agent.receive(&flipped);
            let harmless = matches!(received.outcome, Outcome::Refused(_) | Outcome::NeedsAgent | Outcome::Gap { .. });
            assert!(harmless && received.records.is_empty(), "bit {bit} of byte {byte}: {:?}", received.outcome);
            assert!(agent.replica.heads().is_empty());
        }
    }
    for length in 0..envelope.len() {
        assert!(matches!(agent.clone().receive(&envelope[..length]).outcome, Outcome::Refused(_)), "cut at {length}");
    }
}

#[test]
fn the_worthless_is_refused_and_counted() {
    let (fleet, mut server, mut agent) = pair();
    let stranger = SecretKey::generate(&mut Entropy::from_seed([99; 32]));
    let other_device = SecretKey::generate(&mut Entropy::from_seed([98; 32]));

    let foreign_lane = codec::seal(first_opener(&fleet, &stranger, vec![set(RELEASE, "6.6")]), &stranger);
    assert_eq!(refused(&agent.receive(&foreign_lane.bytes)), RefusalKind::ForeignLane);

    // Another's name under one's own signature.
    let forged = codec::seal(first_opener(&fleet, &fleet.central, vec![set(RELEASE, "6.6")]), &stranger);
    assert_eq!(refused(&agent.receive(&forged.bytes)), RefusalKind::Signature);

    let mut body = first_opener(&fleet, &fleet.central, vec![]);
    body.fleet = FleetId::from_bytes([9; 16]);
    assert_eq!(refused(&agent.receive(&codec::seal(body, &fleet.central).bytes)), RefusalKind::ForeignFleet);

    let mut body = first_opener(&fleet, &fleet.central, vec![]);
    body.document = fleetd_sync_core::envelope::DocumentId::Desired(other_device.id().into());
    assert_eq!(refused(&agent.receive(&codec::seal(body, &fleet.central).bytes)), RefusalKind::NotHeld);

    assert_eq!(refused(&agent.receive(&vec![1; limit::SNAPSHOT_BYTES_MAX + 1])), RefusalKind::Oversize);
    let opener = codec::seal(first_opener(&fleet, &fleet.central, vec![]), &fleet.central);
    let large = (0..3).map(|n| set(&format!("large/{n}"), &"x".repeat(limit::VALUE_BYTES_MAX))).collect();
    let delta = codec::seal(following(&opener, large), &fleet.central);
    assert!(matches!(
        agent.receive(&delta.bytes).outcome,
        Outcome::Refused(Refusal::Malformed(DecodeEnvelopeError::Size { bytes_max: limit::DELTA_BYTES_MAX, .. }))
    ));

    for ops in [vec![delete(RELEASE)], vec![set("b", "1"), set("a", "1")], vec![set("a", "1"), set("a", "2")]] {
        let snapshot = codec::seal(first_opener(&fleet, &fleet.central, ops), &fleet.central);
        assert_eq!(refused(&agent.receive(&snapshot.bytes)), RefusalKind::Meaning);
    }
    assert_eq!(agent.replica.counters().refusals(), 9);
    assert!(agent.replica.heads().is_empty() && agent.disk.is_empty());

    // After all that, an honest envelope is as good as ever.
    server.write(fleet.desired(), vec![set(RELEASE, "1.0")]);
    assert_eq!(push(&server, &mut agent), [Outcome::Applied]);
}

#[test]
fn a_hostile_writer_cannot_fill_a_receivers_store() {
    let (fleet, _, mut agent) = pair();
    let mut last = codec::seal(first_opener(&fleet, &fleet.central, vec![]), &fleet.central);
    assert_eq!(agent.receive(&last.bytes).outcome, Outcome::Applied);
    for change in 1..=limit::EPOCH_CHANGES_MAX {
        last = codec::seal(following(&last, vec![set("a", &change.to_string())]), &fleet.central);
        assert_eq!(agent.receive(&last.bytes).outcome, Outcome::Applied);
    }
    let one_more = codec::seal(following(&last, vec![set("a", "more")]), &fleet.central);
    assert_eq!(refused(&agent.receive(&one_more.bytes)), RefusalKind::EpochFull);

    let (_, _, mut agent) = pair();
    let mut last = codec::seal(first_opener(&fleet, &fleet.central, vec![]), &fleet.central);
    let mut bytes = 0;
    while !matches!(agent.receive(&last.bytes).outcome, Outcome::Refused(Refusal::EpochFull { .. })) {
        bytes += last.bytes.len();
        assert!(bytes < limit::EPOCH_BYTES_MAX + limit::SNAPSHOT_BYTES_MAX);
        last = codec::seal(following(&last, vec![set("a", &"x".repeat(limit::VALUE_BYTES_MAX))]), &fleet.central);
    }
}

#[test]
fn a_lane_ends_its_epochs_and_keeps_two_snapshots_worth_at_most() {
    let (fleet, mut server, mut agent) = pair();
    for change in 0..500 {
        let size = 1 + change % 700;
        server.write(fleet.desired(), vec![set(&format!("key/{}", change % 9), &"v".repeat(size))]);
        push(&server, &mut agent);
        for node in [&server, &agent] {
            let bytes: usize = node.disk.values().map(Vec::len).sum();
            assert!(bytes <= 4 * limit::SNAPSHOT_BYTES_MAX, "{bytes} bytes after change {change}");
        }
    }
    assert_eq!(server.digest(), agent.digest());
    let lane = server.replica.own_lane().unwrap();
    assert!(agent.head(fleet.desired(), lane).unwrap().position.epoch > 7);
}

#[test]
fn a_state_that_would_not_fit_its_snapshot_is_not_written() {
    let (fleet, mut server, _) = pair();
    let mut error = None;
    for key in 0..20 {
        let before = server.digest();
        match server.try_write(fleet.desired(), vec![set(&format!("key/{key}"), &"v".repeat(limit::VALUE_BYTES_MAX))]) {
            Ok(_) => {}
            Err(full) => {
                assert_eq!(server.digest(), before);
                error = Some(full);
                break;
            }
        }
    }
    assert!(matches!(error, Some(WriteError::Full { bytes, bytes_max: limit::SNAPSHOT_BYTES_MAX }) if bytes > 1 << 14));
    let value = server.try_write(fleet.desired(), vec![set("a", &"v".repeat(limit::VALUE_BYTES_MAX + 1))]);
    assert!(matches!(value, Err(WriteError::Value { .. })));
}

#[test]
fn a_write_that_changes_nothing_makes_no_envelope() {
    let (fleet, mut server, _) = pair();
    assert_eq!(server.write(fleet.desired(), vec![set(RELEASE, "1.0")]).envelopes.len(), 1);
    let before = server.disk.clone();
    let again = server.write(fleet.desired(), vec![set(RELEASE, "1.0"), delete("hold/none")]);
    assert!(again.envelopes.is_empty() && server.disk == before);
}

#[test]
fn a_node_writes_only_where_it_may() {
    let (fleet, mut server, mut agent) = pair();
    let not_allowed = server.try_write(fleet.actual(), vec![set("a", "1")]);
    assert!(matches!(not_allowed, Err(WriteError::NotAllowed { .. })));
    assert!(matches!(agent.try_write(fleet.desired(), vec![set("a", "1")]), Err(WriteError::NotAllowed { .. })));
    let elsewhere = fleetd_sync_core::envelope::DocumentId::Desired(fleet.central.id().into());
    assert!(matches!(server.try_write(elsewhere, vec![set("a", "1")]), Err(WriteError::NotHeld { .. })));
}

#[test]
fn revoking_a_key_voids_its_lanes_whatever_the_order_seen() {
    let (fleet, mut server, mut agent) = pair();
    server.write(fleet.desired(), vec![set(RELEASE, "1.0")]);
    let mut revoking = fleet.writers();
    Arc::make_mut(&mut revoking.revoked).insert(fleet.central.id());

    let mut late = agent.clone();
    push(&server, &mut late);
    let _ = late.replica.set_writers(revoking.clone());
    let _ = agent.replica.set_writers(revoking);
    assert_eq!(push(&server, &mut agent).len(), 1);
    assert_eq!(agent.replica.counters().refused.get(&RefusalKind::Revoked), Some(&1));

    assert_eq!(late.digest(), agent.digest());
    assert_eq!(late.replica.resolve(fleet.local()), agent.replica.resolve(fleet.local()));
    assert_eq!(late.replica.standing(fleet.desired(), fleet.central.id()), Some(LaneStanding::Void));
    assert!(late.replica.envelopes_after(fleet.desired(), fleet.central.id(), None).is_empty());
}

#[test]
fn a_void_lane_makes_room_for_a_ninth() {
    let (mut fleet, _, mut agent) = pair();
    let keys: Vec<_> = (0..=limit::DOCUMENT_LANES_MAX).map(|_| SecretKey::generate(&mut fleet.entropy)).collect();
    let mut writers = fleet.writers();
    let central = writers.authorities[&fleet.central.id()].clone();
    for key in &keys {
        let mut authority = central.clone();
        authority.key = key.public();
        Arc::make_mut(&mut writers.authorities).insert(key.id(), authority);
    }
    let _ = agent.replica.set_writers(writers.clone());
    let openers = keys.iter().map(|key| codec::seal(first_opener(&fleet, key, vec![set("a", "1")]), key));
    let outcomes: Vec<_> = openers.map(|opener| agent.receive(&opener.bytes).outcome).collect();
    assert!(outcomes[..limit::DOCUMENT_LANES_MAX].iter().all(|outcome| *outcome == Outcome::Applied));
    assert!(matches!(outcomes[limit::DOCUMENT_LANES_MAX], Outcome::Refused(Refusal::Lanes { .. })));

    let (revoked, ninth) = (&keys[3], &keys[limit::DOCUMENT_LANES_MAX]);
    Arc::make_mut(&mut writers.revoked).insert(revoked.id());
    let _ = agent.replica.set_writers(writers);
    let opener = codec::seal(first_opener(&fleet, ninth, vec![set("a", "1")]), ninth);
    assert_eq!(agent.receive(&opener.bytes).outcome, Outcome::Applied);
    assert_eq!(agent.replica.lane(fleet.desired(), revoked.id()).map(|lane| lane.writer()), None);
    // Each lane has its envelope and its memory, and nothing of the one that gave way is left.
    assert_eq!(agent.disk.len(), 2 * limit::DOCUMENT_LANES_MAX);
}

#[test]
fn what_waits_is_kept_without_effect_until_its_need_is_met() {
    let (mut fleet, mut server, mut agent) = pair();
    server.write(fleet.desired(), vec![set(RELEASE, "1.0")]);
    write_when_trusted(&fleet, &mut server, "2.0");
    server.write(fleet.desired(), vec![set("workload/tea/release", "1.0")]);
    assert_eq!(push(&server, &mut agent), [Outcome::Applied, Outcome::Parked, Outcome::Parked]);
    assert_eq!(agent.digest(), server.digest(), "what waits counts in the head");

    let lane = fleet.central.id();
    let mut agent = agent.restarted(&mut fleet);
    assert_eq!(agent.replica.lane_state(fleet.desired(), lane).unwrap().len(), 1);
    let settled = agent.replica.set_writers(trusting(&fleet));
    assert!(settled.changed.contains(&fleet.desired()));
    let state = agent.replica.lane_state(fleet.desired(), lane).unwrap();
    assert_eq!(state.values().collect::<Vec<_>>(), [&text("2.0"), &text("1.0")]);
}

fn trusting(fleet: &Fleet) -> Writers {
    Writers { trust_version: 2, ..fleet.writers() }
}

/// Writes what waits for trust version 2, which the writer has.
fn write_when_trusted(fleet: &Fleet, server: &mut Node, version: &str) {
    server.set_writers(trusting(fleet));
    let needs = vec![Need::TrustVersion(2)];
    let written = server.replica.write_when(now(), fleet.desired(), vec![set(RELEASE, version)], needs).unwrap();
    server.take(fleet.desired(), &written);
}

#[test]
fn a_need_is_met_by_another_lane_in_either_order() {
    let (mut fleet, mut server, agent) = pair();
    let site_key = fleet.site.clone();
    let mut site = fleet.node(Some(&site_key));
    site.write(fleet.desired(), vec![set("workload/tea/release", "1.0")]);
    push(&site, &mut server);
    let head = server.head(fleet.desired(), site_key.id()).unwrap();
    let needs = vec![Need::Head { document: fleet.desired(), lane: site_key.id(), position: head.position }];
    let written = server.replica.write_when(now(), fleet.desired(), vec![set(RELEASE, "2.0")], needs).unwrap();
    server.take(fleet.desired(), &written);

    let [mut site_first, mut central_first] = [agent.clone(), agent];
    push(&site, &mut site_first);
    for bytes in server.replica.envelopes_after(fleet.desired(), fleet.central.id(), None) {
        assert_eq!(site_first.receive(&bytes).outcome, Outcome::Applied);
        let _ = central_first.receive(&bytes);
    }
    let lane = fleet.central.id();
    assert!(central_first.replica.lane_state(fleet.desired(), lane).unwrap().is_empty());
    push(&site, &mut central_first);
    assert_eq!(site_first.digest(), central_first.digest());
    assert_eq!(
        site_first.replica.lane_state(fleet.desired(), lane),
        central_first.replica.lane_state(fleet.desired(), lane)
    );
    assert_eq!(central_first.replica.lane_state(fleet.desired(), lane).unwrap().len(), 1);
}

#[test]
fn a_snapshot_waits_for_nothing() {
    let (mut fleet, mut server, mut agent) = pair();
    // The first write under a stamp: what is so already in a snapshot, and what waits above it.
    write_when_trusted(&fleet, &mut server, "2.0");
    assert_eq!(push(&server, &mut agent), [Outcome::Applied, Outcome::Parked]);
    assert!(agent.replica.lane_state(fleet.desired(), fleet.central.id()).unwrap().is_empty());
    // The next snapshot says all that its writer has said, and ends the wait.
    let mut server = server.restarted(&mut fleet);
    server.write(fleet.desired(), vec![set("hold/x", "stop")]);
    assert_eq!(push(&server, &mut agent), [Outcome::Applied]);
    assert_eq!(agent.replica.lane_state(fleet.desired(), fleet.central.id()).unwrap().len(), 2);

    let mut body = first_opener(&fleet, &fleet.second, vec![]);
    body.needs = vec![Need::TrustVersion(1)];
    assert_eq!(refused(&agent.receive(&codec::seal(body, &fleet.second).bytes)), RefusalKind::Meaning);
}

#[test]
fn a_writer_makes_nobody_wait_for_what_it_lacks_itself() {
    let (fleet, mut server, _) = pair();
    let needs = vec![Need::TrustVersion(2)];
    let unmet = server.replica.write_when(now(), fleet.desired(), vec![set(RELEASE, "2.0")], needs);
    assert!(matches!(unmet, Err(WriteError::Unmet { need: Need::TrustVersion(2) })));
    let needs = vec![Need::TrustVersion(1); limit::ENVELOPE_NEEDS_MAX + 1];
    let many = server.replica.write_when(now(), fleet.desired(), vec![set(RELEASE, "2.0")], needs);
    assert!(matches!(many, Err(WriteError::Needs { .. })));
    assert!(server.replica.heads().is_empty());
}

#[test]
fn an_unknown_operation_is_kept_and_an_unknown_class_needs_a_newer_agent() {
    let (fleet, _, mut agent) = pair();
    let unknown = Op::Unknown { code: 200, bytes: vec![1, 2, 3] };
    let opener = codec::seal(first_opener(&fleet, &fleet.central, vec![set(RELEASE, "1.0"), unknown]), &fleet.central);
    assert_eq!(agent.receive(&opener.bytes).outcome, Outcome::Applied);
    let kept = agent.replica.envelopes_after(fleet.desired(), fleet.central.id(), None);
    assert_eq!(kept, std::slice::from_ref(&opener.bytes), "what is passed on is what came");

    // The same change under class 2, signed by the lane's key.
    let delta = codec::encode(&following(&opener, vec![set("a", "1")]));
    let mut bytes = delta.clone();
    let class = delta.len() - 7;
    assert_eq!(bytes[class], 1);
    bytes[class] = 2;
    let signature = fleet.central.sign(fleetd_sync_core::key::Domain::Envelope, &bytes);
    bytes.extend_from_slice(signature.as_bytes());
    let received = agent.receive(&bytes);
    assert_eq!((received.outcome, received.lane), (Outcome::NeedsAgent, Some(fleet.central.id())));
    assert_eq!(agent.replica.standing(fleet.desired(), fleet.central.id()), Some(LaneStanding::NeedsAgent));
    bytes[0] = 2;
    assert_eq!(agent.receive(&bytes).outcome, Outcome::NeedsAgent);
    assert_eq!(agent.replica.counters().needs_agent, 2);

    let next = codec::seal(following(&opener, vec![set("a", "1")]), &fleet.central);
    assert_eq!(agent.receive(&next.bytes).outcome, Outcome::Applied);
    assert_eq!(agent.replica.standing(fleet.desired(), fleet.central.id()), Some(LaneStanding::Live));
}

#[test]
fn the_trust_document_only_grows() {
    let (mut fleet, mut server, mut agent) = pair();
    let trust = fleetd_sync_core::envelope::DocumentId::Trust;
    let backup = server.disk.clone();
    server.write(trust, vec![set("revoke/a", "lost")]);
    push(&server, &mut agent);
    assert!(matches!(server.try_write(trust, vec![delete("revoke/a")]), Err(WriteError::AddOnly { .. })));

    // A server restored from before the revocation writes a higher branch that does not know of it.
    let mut restored = Node::load(&mut fleet, server.key.clone(), backup);
    let mut higher = false;
    for attempt in 0.. {
        let written = restored.write(trust, vec![set(&format!("deny/{attempt}"), "bad")]);
        higher = higher || written.head > agent.head(trust, fleet.central.id());
        if higher && attempt > 70 {
            break;
        }
    }
    push(&restored, &mut agent);
    let agent = agent.restarted(&mut fleet);
    let paths: Vec<_> = agent.replica.entries(trust).map(|(_, path, _)| path.to_string()).collect();
    assert!(paths.contains(&"revoke/a".to_owned()) && paths.contains(&"deny/0".to_owned()), "{paths:?}");
}
