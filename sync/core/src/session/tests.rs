mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::world::*;
use super::message::*;
use super::*;
use crate::entropy::Entropy;
use crate::id::{ArtifactDigest, BootId, Stamp, TokenId};
use crate::key::SecretKey;
use crate::trust::RootRecord;

fn fleet() -> Fleet {
    Fleet::new(3)
}

fn live() -> World {
    let mut world = World::new(fleet(), None);
    world.meet();
    world.forget_outputs();
    world
}

fn applied(document: DocumentId) -> impl Fn(&Output) -> bool {
    move |output| matches!(output, Output::Applied { document: changed, .. } if *changed == document)
}

fn position(sequence: u64) -> LogPosition {
    let boot = BootId::from_bytes([3; 16]);
    LogPosition { stream: LogStream { workload: "coffee".parse().unwrap(), boot, stamp: Stamp(1) }, sequence }
}

fn register() -> Message {
    let token = TokenId::from_bytes([1; TokenId::LENGTH]);
    Message::Register(Register { token, secret: vec![7; 32], csr: vec![1], facts: Facts::new(), sealing_key: [0; 32] })
}

fn log_push() -> Message {
    let stream = position(1).stream;
    let (records, signature) = (vec![1], Vec::new());
    Message::LogPush(LogPush { stream, sequence_first: 1, count: 1, records, signature, preview: false })
}

fn artifact_want() -> Message {
    let groups = WantedGroups::Run { group_first: 0, group_count: 1 };
    Message::ArtifactWant(ArtifactWant { digest: ArtifactDigest::of(b"x"), groups, tree: false })
}

fn hello(trust_version: u64) -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        capabilities: Capabilities(u64::MAX),
        boot: BootId::from_bytes([0; 16]),
        trust_version,
        summary: Summary::Digest([0; 16]),
        welcome: None,
    }
}

#[test]
fn a_change_is_applied_after_one_way_of_the_link() {
    let mut world = live();
    let start = world.now.0 / 1_000_000;
    let (desired, actual) = (world.fleet.desired(), world.fleet.actual());
    world.write(End::Server, desired, vec![set("workload/coffee/attempt", 1)]);
    world.write(End::Device, actual, vec![set("workload/coffee/attempt", 1)]);
    world.settle();
    assert_eq!(world.first(End::Device, applied(desired)), Some(start + 50));
    assert_eq!(world.first(End::Server, applied(actual)), Some(start + 50));
    world.assert_equal();
}

#[test]
fn two_nodes_with_nothing_new_say_hello_and_no_more() {
    let mut world = live();
    let (desired, actual) = (world.fleet.desired(), world.fleet.actual());
    world.write(End::Server, desired, vec![set("workload/coffee/attempt", 1)]);
    world.write(End::Device, actual, vec![set("workload/coffee/attempt", 1)]);
    world.settle();
    world.cut();
    world.forget_outputs();
    world.meet();
    let hellos = world.sent.iter().filter(|(_, message)| match message {
        Message::Hello(hello) => matches!(hello.summary, Summary::Digest(_)),
        _ => false,
    });
    assert_eq!((hellos.count(), world.sent.len()), (2, 2));
    assert_eq!(
        world.decisions(End::Device),
        [Output::Welcomed(Grade::Full), Output::LogPositions(Vec::new()), Output::Live]
    );
    // The server is live when the device's Hello comes, the device when the server's does.
    let origin = world.now.0 / 1_000_000 - 100;
    let lives = |output: &Output| matches!(output, Output::Live);
    assert_eq!(world.first(End::Server, lives), Some(origin + 50));
    assert_eq!(world.first(End::Device, lives), Some(origin + 100));
}

#[test]
fn what_was_written_alone_is_told_when_the_two_meet() {
    let mut world = live();
    world.cut();
    let (desired, actual) = (world.fleet.desired(), world.fleet.actual());
    for value in 0..200 {
        world.write(End::Server, desired, vec![set("workload/coffee/attempt", value)]);
        world.write(End::Device, actual, vec![set("workload/coffee/attempt", value)]);
    }
    world.meet();
    world.assert_equal();
    let lane = world.fleet.device.id();
    let state = world.server.replica.lane_state(actual, lane).unwrap();
    assert_eq!(state.values().collect::<Vec<_>>(), [&crate::envelope::Value::Integer(199)]);
}

#[test]
fn what_is_written_while_the_two_compare_is_not_lost() {
    for delay in 0..250 {
        let mut world = World::new(fleet(), Some(Entropy::from_seed([delay; 32])));
        let (desired, actual) = (world.fleet.desired(), world.fleet.actual());
        world.write(End::Device, actual, vec![set("a", 0)]);
        world.connect();
        world.run(u32::from(delay) * MILLISECOND);
        world.write(End::Server, desired, vec![set("a", 1)]);
        world.write(End::Device, actual, vec![set("a", 1)]);
        world.settle();
        assert!(world.is_live());
        world.assert_equal();
    }
}

#[test]
fn a_gap_is_asked_for_and_filled() {
    let mut world = live();
    let desired = world.fleet.desired();
    // Two changes of which the first never arrives.
    let now = world.time();
    let _lost = world.server.replica.write(now, desired, vec![set("a", 1)]).unwrap();
    world.write(End::Server, desired, vec![set("a", 2)]);
    world.settle();
    world.assert_equal();
    let wants = world.sent.iter().filter(|(_, message)| matches!(message, Message::Want(_))).count();
    assert_eq!((wants, world.device.session.as_ref().unwrap().counters().gaps), (1, 1));
}

#[test]
fn a_device_whose_disk_was_restored_writes_above_its_former_life() {
    // What it has forgotten is within its epoch, or epochs ahead of what it writes next: then it must write again.
    for (forgotten, reopened) in [(5, 0), (200, 1)] {
        let mut world = live();
        let actual = world.fleet.actual();
        world.write(End::Device, actual, vec![set("a", 1)]);
        world.settle();
        let image = world.device.replica.clone();
        for value in 0..forgotten {
            world.write(End::Device, actual, vec![set("a", value)]);
        }
        world.settle();
        world.cut();
        world.device.replica = image;
        world.device.replica.commit_failed();
        world.write(End::Device, actual, vec![set("a", 500)]);
        let before = world.device.replica.heads();
        world.forget_outputs();
        world.meet();
        world.assert_equal();
        assert_eq!(usize::from(world.device.replica.heads() != before), reopened);
        let forked = |output: &Output| matches!(output, Output::Fork { .. });
        assert_eq!((world.first(End::Server, forked), world.first(End::Device, forked)), (None, None));
        let pushes =
            world.sent.iter().filter(|(from, message)| *from == End::Device && matches!(message, Message::Push(_)));
        assert_eq!(pushes.count(), 1, "it writes above the other branch once");
        world.write(End::Device, actual, vec![set("a", 99)]);
        world.settle();
        world.assert_equal();
    }
}

#[test]
fn two_holders_of_one_key_are_proven() {
    let mut world = live();
    let actual = world.fleet.actual();
    world.write(End::Device, actual, vec![set("a", 1)]);
    world.settle();
    // The clone has the key and the disk, and goes on writing under the same stamp.
    let clone = world.device.replica.clone();
    world.write(End::Device, actual, vec![set("a", 2)]);
    world.settle();
    world.cut();
    world.device.replica = clone;
    world.write(End::Device, actual, vec![set("a", 3)]);
    world.connect();
    world.settle();
    let forked = |output: &Output| matches!(output, Output::Fork { document, .. } if *document == actual);
    assert!(world.first(End::Server, forked).is_some());
    world.assert_equal();
}

#[test]
fn a_new_device_trusts_a_server_before_it_registers() {
    let mut world = World::new(fleet(), None);
    world.device.chain = None;
    world.grade = Grade::Enroll;
    world.write(End::Device, world.fleet.actual(), vec![set("a", 1)]);
    world.connect();
    world.run(Duration::from_secs(1));
    assert_eq!(world.device.chain.as_ref(), Some(&world.fleet.chain));
    let decisions = world.decisions(End::Device);
    assert!(
        matches!(decisions.as_slice(), [Output::RootRecords(records), Output::Welcomed(Grade::Enroll)] if records.len() == 1)
    );
    assert!(world.sent.iter().all(|(_, message)| matches!(message, Message::Hello(_))), "nothing else was said");
    assert_eq!(world.deliver(End::Server, register()), [Output::Deliver(register())]);
    for message in [log_push(), artifact_want(), Message::Push(Push { envelopes: vec![Arc::from([1_u8])] })] {
        assert_eq!(world.deliver(End::Server, message), []);
    }
    assert_eq!(world.server.session.as_ref().unwrap().counters().unexpected, 3);
}

#[test]
fn a_stranger_that_never_registers_is_sent_away() {
    let mut world = World::new(fleet(), None);
    world.grade = Grade::Enroll;
    world.connect();
    world.settle();
    assert_eq!(world.decisions(End::Server), [Output::Close(CloseCode::Timeout)]);
}

#[test]
fn an_impostor_hears_hello_and_nothing_else() {
    let other = Fleet::new(77);
    let own = fleet();
    let impostors = [
        // A CA of its own, and the true fleet's records.
        (leaf(&other.ca, own.id()), own.chain.clone(), CloseCode::Impostor),
        // A fleet of its own.
        (leaf(&other.ca, other.id()), other.chain.clone(), CloseCode::WrongFleet),
        // The certificate of another fleet.
        (leaf(&own.ca, other.id()), own.chain.clone(), CloseCode::Impostor),
    ];
    for (leaf, chain, code) in impostors {
        for (known, grade) in
            [(false, Grade::Enroll), (false, Grade::Full), (true, Grade::Full), (true, Grade::RenewOnly)]
        {
            let mut world = World::new(own.clone(), None);
            if !known {
                world.device.chain = None;
            }
            world.write(End::Device, world.fleet.actual(), vec![set("a", 1)]);
            (world.leaf, world.grade, world.server.chain) = (leaf.clone(), grade, Some(chain.clone()));
            world.connect();
            world.run(Duration::from_secs(5));
            let said: Vec<_> = world.sent.iter().filter(|(from, _)| *from == End::Device).collect();
            assert!(matches!(said.as_slice(), [(_, Message::Hello(_))]), "{said:?}");
            let last = world.decisions(End::Device).pop();
            // One that knows its fleet already needs no record of the other to see what it is.
            let expected = if known && code == CloseCode::WrongFleet { CloseCode::Impostor } else { code };
            assert_eq!(last, Some(Output::Close(expected)), "{known} {grade:?}");
        }
    }
}

#[test]
fn a_device_that_lost_its_root_records_takes_them_from_a_server_that_knows_as_much_as_it_once_did() {
    let mut world = World::new(fleet(), None);
    let old = world.fleet.chain.clone();
    world.fleet.delegate(&SecretKey::from_bytes([42; 32]));
    for (chain, is_believed) in [(old, false), (world.fleet.chain.clone(), true)] {
        (world.device.chain, world.server.chain) = (None, Some(chain));
        world.trust_version_min = 2;
        world.device.outputs.clear();
        world.connect();
        world.run(Duration::from_secs(1));
        let decisions = world.decisions(End::Device);
        assert_eq!(decisions.contains(&Output::Welcomed(Grade::Full)), is_believed, "{decisions:?}");
        assert_eq!(decisions.contains(&Output::Close(CloseCode::Impostor)), !is_believed, "{decisions:?}");
    }
    assert_eq!(world.device.chain.as_ref(), Some(&world.fleet.chain));
}

#[test]
fn an_expired_device_gets_trust_and_a_certificate_and_no_new_orders() {
    let mut world = World::new(fleet(), None);
    let (desired, actual) = (world.fleet.desired(), world.fleet.actual());
    world.write(End::Server, desired, vec![set("a", 1)]);
    world.write(End::Server, DocumentId::Trust, vec![set("revoke/x", 1)]);
    world.write(End::Device, actual, vec![set("a", 1)]);
    world.grade = Grade::RenewOnly;
    world.meet();
    let device = world.fleet.device.id();
    assert!(world.server.replica.lane(actual, device).is_some());
    let authority = world.fleet.authority.id();
    assert!(world.device.replica.lane(DocumentId::Trust, authority).is_some());
    assert!(world.device.replica.lane(desired, authority).is_none());
    world.write(End::Server, desired, vec![set("a", 2)]);
    world.settle();
    assert!(world.device.replica.lane(desired, authority).is_none());
    let renew = Message::Renew(Renew { csr: vec![1], facts: None });
    let messages = [renew.clone(), log_push(), artifact_want(), register()];
    let out: Vec<_> = messages.into_iter().flat_map(|message| world.deliver(End::Server, message)).collect();
    assert_eq!(out, [Output::Deliver(renew), Output::Deliver(log_push())]);
}

#[test]
fn root_records_reach_a_device_that_is_live_and_their_writers_count() {
    let mut world = live();
    let second = SecretKey::from_bytes([42; 32]);
    world.fleet.delegate(&second);
    let chain = Arc::new(world.fleet.chain.clone());
    let _ = world.server.replica.set_writers(writers(&chain, &world.fleet.device));
    world.server.chain = Some(RootChain::clone(&chain));
    // The new authority's change goes out first: the device has to refuse it.
    let mut author = Replica::new(world.fleet.id(), Some(second.clone()), &mut Entropy::from_seed([8; 32]));
    author.hold(world.fleet.desired());
    let _ = author.set_writers(writers(&chain, &world.fleet.device));
    let written = author.write(world.time(), world.fleet.desired(), vec![set("a", 1)]).unwrap();
    let mut out = Vec::new();
    let World { server: Node { session, replica, .. }, .. } = &mut world;
    for bytes in &written.envelopes {
        let _ = replica.receive(bytes);
    }
    let session = session.as_mut().unwrap();
    session.on_local_change(DocumentId::Desired(Fleet::new(3).local()), &written.envelopes, &mut out);
    session.on_chain_extended(&chain, &mut out);
    world.carry_out(End::Server, out);
    world.settle();
    assert_eq!(world.device.chain.as_ref().map(RootChain::version), Some(2));
    assert!(world.device.replica.lane(world.fleet.desired(), second.id()).is_some());
    world.assert_equal();
}

#[test]
fn a_long_root_chain_travels_in_several_frames() {
    let mut world = World::new(fleet(), None);
    let mut entropy = Entropy::from_seed([5; 32]);
    for _ in 0..50 {
        world.fleet.delegate(&SecretKey::generate(&mut entropy));
    }
    let bytes: usize = world.fleet.chain.records().map(|record| record.encode().len()).sum();
    assert!(bytes > limit::HELLO_RECORDS_BYTES_MAX, "{bytes}");
    world.server.chain = Some(world.fleet.chain.clone());
    let _ = world.server.replica.set_writers(writers(&world.fleet.chain, &world.fleet.device));
    world.device.chain = None;
    world.meet();
    assert_eq!(world.device.chain, Some(world.fleet.chain.clone()));
    let hellos = world.sent.iter().filter(|(from, _)| *from == End::Server).count();
    assert!(hellos >= 2);
    for (_, message) in &world.sent {
        if let Message::Hello(hello) = message
            && let Some(welcome) = &hello.welcome
        {
            let bytes: usize = welcome.root_records.iter().map(Vec::len).sum();
            assert!(bytes <= limit::HELLO_RECORDS_BYTES_MAX && welcome.root_records.len() <= limit::ROOT_RECORDS_MAX);
        }
    }
}

#[test]
fn two_records_of_one_version_raise_an_alarm() {
    let mut world = World::new(fleet(), None);
    let mut other = world.fleet.clone();
    world.fleet.delegate(&SecretKey::from_bytes([1; 32]));
    other.delegate(&SecretKey::from_bytes([2; 32]));
    world.device.chain = Some(world.fleet.chain.clone());
    world.connect();
    let root_records = other.chain.records_above(1).map(RootRecord::encode).collect();
    let hello = Hello { welcome: Some(Welcome { grade: Grade::Full, root_records }), ..hello(2) };
    let out = world.deliver(End::Device, Message::Hello(Box::new(hello)));
    assert_eq!(out.first(), Some(&Output::RootAlarm { version: 2 }));
    assert_eq!(world.device.chain, Some(world.fleet.chain.clone()), "the first is kept");
}

#[test]
fn versions_that_do_not_meet_end_the_session() {
    for (version_min, version_max, closes) in [(1, 1, false), (1, 9, false), (2, 9, true), (0, 0, true)] {
        let mut world = World::new(fleet(), None);
        world.connect();
        let hello = Hello { version_min, version_max, ..hello(1) };
        let out = world.deliver(End::Server, Message::Hello(Box::new(hello)));
        assert_eq!(out == [Output::Close(CloseCode::NeedsAgent)], closes, "{version_min}..{version_max}: {out:?}");
    }
}

#[test]
fn a_peer_that_says_nothing_is_given_up() {
    let mut world = World::new(fleet(), None);
    world.connect();
    world.server.session = None;
    world.settle();
    assert_eq!(world.decisions(End::Device), [Output::Close(CloseCode::Timeout)]);
    assert_eq!(world.now, Monotonic(0) + limit::HELLO_TIMEOUT);
}

#[test]
fn a_probe_tells_within_three_seconds_whether_somebody_is_there() {
    let mut world = live();
    let start = world.now.0 / 1_000_000;
    for answered in [true, false] {
        if !answered {
            world.device.session = None;
        }
        let (now, mut out) = (world.now, Vec::new());
        let session = world.server.session.as_mut().unwrap();
        session.probe(now, &mut out);
        session.probe(now, &mut out);
        assert_eq!(out.len(), 1, "one probe is enough");
        world.carry_out(End::Server, out);
        world.settle();
    }
    let told: Vec<_> =
        world.server.outputs.iter().filter(|(_, output)| matches!(output, Output::Probed { .. })).collect();
    assert_eq!(
        told,
        [&(start + 100, Output::Probed { answered: true }), &(start + 3100, Output::Probed { answered: false })]
    );
    // Whoever does not answer counts as gone for everybody, before the one who asked is told.
    let given_up = (start + 3100, Output::Close(CloseCode::Timeout));
    assert_eq!(world.server.outputs.iter().rev().nth(1), Some(&given_up));
}

#[test]
fn a_change_that_overtakes_the_servers_hello_is_kept() {
    let mut world = World::new(fleet(), None);
    world.connect();
    world.run(60 * MILLISECOND);
    // The server is live, its Hello on the way: take the change first.
    let now = world.time();
    let desired = world.fleet.desired();
    let written = world.server.replica.write(now, desired, vec![set("a", 1)]).unwrap();
    let out = world.deliver(End::Device, Message::Push(Push { envelopes: written.envelopes }));
    assert!(out.is_empty() && world.device.replica.heads().is_empty(), "an unproven server changes nothing");
    world.settle();
    assert!(world.is_live());
    world.assert_equal();
    assert_eq!(world.device.replica.heads().len(), 1);
}

#[test]
fn a_server_that_floods_before_its_hello_is_closed() {
    let mut world = World::new(fleet(), None);
    world.connect();
    let push = || Message::Push(Push { envelopes: vec![Arc::from(vec![0; 30 << 10])] });
    let out: Vec<_> = (0..3).flat_map(|_| world.deliver(End::Device, push())).collect();
    assert_eq!(out, [Output::Close(CloseCode::Unexpected)]);
}

#[test]
fn log_positions_of_the_peer_are_told_once_before_live() {
    let mut world = World::new(fleet(), None);
    world.device.log_positions = vec![position(90)];
    world.server.log_positions = vec![position(40)];
    world.meet();
    let told = |end| {
        let decisions = world.decisions(end).into_iter();
        decisions.filter(|output| matches!(output, Output::LogPositions(_) | Output::Live)).collect::<Vec<_>>()
    };
    assert_eq!(told(End::Device), [Output::LogPositions(vec![position(40)]), Output::Live]);
    assert_eq!(told(End::Server), [Output::LogPositions(vec![position(90)]), Output::Live]);
}

#[test]
fn a_peer_that_keeps_back_what_it_has_does_not_hold_the_session_for_ever() {
    let mut world = World::new(fleet(), None);
    world.connect();
    world.run(60 * MILLISECOND);
    let head = crate::envelope::Head {
        position: Position { epoch: 9, ..Position::default() },
        hash: crate::id::EnvelopeHash::from_bytes([1; 16]),
    };
    let entry = LaneHead { document: world.fleet.actual(), lane: world.fleet.device.id(), head };
    let hello = Hello { summary: Summary::Full { heads: vec![entry], log_positions: Vec::new() }, ..hello(1) };
    world.cut();
    let now = world.now;
    let server = Side::Server(ServerSide { chain: Arc::new(world.fleet.chain.clone()), grade: Grade::Full });
    let opening = Opening { boot: BootId::from_bytes([0; 16]), log_positions: Vec::new(), side: server };
    let mut out = Vec::new();
    let mut session = Session::open(now, opening, &world.server.replica, &mut out);
    let time = world.time();
    session.on_message(time, Message::Hello(Box::new(hello)), &mut world.server.replica, &mut out);
    assert!(!session.is_live());
    let due = session.poll_timeout().unwrap();
    assert_eq!(due, now + limit::RECONCILE_TIMEOUT);
    session.handle_timeout(due, &mut out);
    assert!(session.is_live() && session.poll_timeout().is_none());
}

/// What happens to two nodes.
#[derive(Clone, Debug)]
enum Event {
    DeviceWrites(u8),
    ServerWrites(u8),
    TrustGrows(u8),
    Connect,
    Cut,
    Wait(u16),
    DeviceForgetsItsStamp,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => any::<u8>().prop_map(Event::DeviceWrites),
        4 => any::<u8>().prop_map(Event::ServerWrites),
        1 => any::<u8>().prop_map(Event::TrustGrows),
        3 => Just(Event::Connect),
        2 => Just(Event::Cut),
        6 => (0_u16..400).prop_map(Event::Wait),
        1 => Just(Event::DeviceForgetsItsStamp),
    ]
}

proptest! {
    #[test]
    fn any_history_of_cuts_and_changes_ends_with_equal_heads(
        seed in any::<u8>(),
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new(fleet(), Some(Entropy::from_seed([seed; 32])));
        let (desired, actual) = (world.fleet.desired(), world.fleet.actual());
        for event in events {
            match event {
                Event::DeviceWrites(value) => {
                    world.write(End::Device, actual, vec![set("a", value.into())]);
                }
                Event::ServerWrites(value) => {
                    world.write(End::Server, desired, vec![set("a", value.into())]);
                }
                Event::TrustGrows(value) => {
                    world.write(End::Server, DocumentId::Trust, vec![set(&format!("revoke/{value}"), 1)]);
                }
                Event::Connect => world.connect(),
                Event::Cut => world.cut(),
                Event::Wait(ms) => world.run(u32::from(ms) * MILLISECOND),
                Event::DeviceForgetsItsStamp => world.device.replica.commit_failed(),
            }
        }
        world.meet();
        world.assert_equal();
        prop_assert_eq!(world.server.replica.fork_proofs().count(), 0);
        world.cut();
        world.forget_outputs();
        world.meet();
        prop_assert_eq!(world.sent.len(), 2, "nothing was left to say");
    }
}
