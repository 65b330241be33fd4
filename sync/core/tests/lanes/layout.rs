//! The bytes of envelopes: golden ones that others must make and read too, and any that can be made.

use std::fmt::Write as _;
use std::path::Path as FilePath;

use data_encoding::HEXLOWER;
use fleetd_sync_core::codec;
use fleetd_sync_core::envelope::{Body, DocumentId, Envelope, Head, Kind, Need, Op, Position, Previous, Value};
use fleetd_sync_core::id::{BootId, EnvelopeHash, FleetId, KeyId, Stamp};
use fleetd_sync_core::key::{Domain, SecretKey};
use fleetd_sync_core::replica::digest;
use fleetd_sync_core::session::message::{LaneHead, LogPosition, LogStream};
use fleetd_sync_core::time::{ClockQuality, Wall};
use proptest::prelude::*;

use super::world::{Fleet, delete, path, set};

fn fleet() -> Fleet {
    let mut fleet = Fleet::new(1);
    // Keys and ids that another implementation can write down without our random stream.
    fleet.id = FleetId::from_bytes(*b"a golden fleet..");
    fleet.central = SecretKey::from_bytes([1; 32]);
    fleet.device = SecretKey::from_bytes([2; 32]);
    fleet
}

fn opener() -> Envelope {
    let fleet = fleet();
    let body = Body {
        fleet: fleet.id,
        document: fleet.desired(),
        lane: fleet.central.id(),
        position: Position { epoch: 1, stamp: Stamp(0x0102_0304_0506_0708), seq: 0 },
        previous: Previous::Start,
        wall: Wall(1_764_000_000_000),
        quality: ClockQuality::Synced,
        needs: vec![Need::TrustVersion(300)],
        kind: Kind::Snapshot,
        ops: vec![
            Op::Set { path: path("workload/coffee/attempt"), value: Value::Integer(-2) },
            Op::Set { path: path("workload/coffee/manifest"), value: Value::Bytes(vec![0xab; 32]) },
            set("workload/coffee/release", "1.8.0"),
            Op::Set { path: path("workload/tea/remove"), value: Value::Boolean(true) },
        ],
    };
    codec::seal(body, &fleet.central)
}

fn delta() -> Envelope {
    let (fleet, opener) = (fleet(), opener());
    let body = Body {
        position: Position { seq: 1, ..opener.body.position },
        previous: Previous::Link(opener.hash),
        needs: Vec::new(),
        kind: Kind::Delta,
        ops: vec![set("workload/coffee/release", "1.8.1")],
        ..opener.body
    };
    codec::seal(body, &fleet.central)
}

fn above() -> Envelope {
    let fleet = fleet();
    let parent = Head {
        position: Position { epoch: 299, stamp: Stamp(u64::MAX), seq: 64 },
        hash: EnvelopeHash::from_bytes([0xcd; 16]),
    };
    let need = Need::Head { document: fleet.desired(), lane: fleet.central.id(), position: delta().body.position };
    let body = Body {
        fleet: fleet.id,
        document: fleet.actual(),
        lane: fleet.device.id(),
        position: Position { epoch: 300, stamp: Stamp(9), seq: 0 },
        previous: Previous::Parent(parent),
        wall: Wall(-1),
        quality: ClockQuality::None,
        needs: vec![need],
        kind: Kind::Snapshot,
        ops: vec![Op::Set { path: path("a"), value: Value::Boolean(false) }],
    };
    codec::seal(body, &fleet.device)
}

fn unknown() -> Envelope {
    let (fleet, opener) = (fleet(), opener());
    let body = Body {
        document: DocumentId::Trust,
        position: Position { seq: 2, ..opener.body.position },
        previous: Previous::Link(opener.hash),
        quality: ClockQuality::Beacon,
        kind: Kind::Delta,
        needs: Vec::new(),
        ops: vec![delete("revoke/key"), Op::Unknown { code: 77, bytes: b"from the future".to_vec() }],
        ..opener.body
    };
    codec::seal(body, &fleet.central)
}

fn check(name: &str, envelope: &Envelope, writer: &SecretKey) {
    let golden = |ending: &str| {
        FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("envelope_{name}.{ending}"))
    };
    let mut hex = HEXLOWER.encode(&envelope.bytes);
    hex.push('\n');
    let mut text = format!("{:#?}\n", envelope.body);
    writeln!(text, "seed {}", HEXLOWER.encode(&writer.to_bytes())).unwrap();
    writeln!(text, "signature {}", HEXLOWER.encode(envelope.signature.as_bytes())).unwrap();
    writeln!(text, "hash {}", HEXLOWER.encode(envelope.hash.as_bytes())).unwrap();
    expect_test::expect_file![golden("hex")].assert_eq(&hex);
    expect_test::expect_file![golden("txt")].assert_eq(&text);
    assert_eq!(codec::decode(&envelope.bytes).as_ref(), Ok(envelope));
}

#[test]
fn envelopes_keep_their_bytes() {
    let fleet = fleet();
    check("opener", &opener(), &fleet.central);
    check("delta", &delta(), &fleet.central);
    check("above", &above(), &fleet.device);
    check("unknown", &unknown(), &fleet.central);
}

#[test]
fn digests_keep_their_bytes() {
    let fleet = fleet();
    let lane = |envelope: &Envelope| LaneHead {
        document: envelope.body.document,
        lane: envelope.body.lane,
        head: envelope.head(),
    };
    let heads = [lane(&above()), lane(&delta()), lane(&unknown())];
    let boot = BootId::from_bytes([7; BootId::LENGTH]);
    let stream = |name: &str, stamp| LogStream { workload: name.parse().unwrap(), boot, stamp: Stamp(stamp) };
    let position = |name, stamp, sequence| LogPosition { stream: stream(name, stamp), sequence };
    let positions = [position("tea", 1, 300), position("coffee", 0x0102_0304_0506_0708, 1)];
    let mut text = format!("device {}\nheads envelope_above envelope_delta envelope_unknown\n", fleet.device.id());
    for LogPosition { stream, sequence } in &positions {
        let (boot, stamp) = (HEXLOWER.encode(stream.boot.as_bytes()), stream.stamp.0);
        writeln!(text, "log {} {boot} {stamp} {sequence}", stream.workload.as_str()).unwrap();
    }
    writeln!(text, "digest {}", HEXLOWER.encode(&digest(&heads, &positions))).unwrap();
    writeln!(text, "digest_without_logs {}", HEXLOWER.encode(&digest(&heads, &[]))).unwrap();
    let golden = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/digest.txt");
    expect_test::expect_file![golden].assert_eq(&text);
}

#[test]
fn one_small_change_is_small() {
    // What a session adds: a frame's length, the message's and the field's tag and length.
    let framing = 7;
    let delta = delta();
    assert_eq!(delta.bytes.len(), 181);
    assert!(delta.bytes.len() + framing <= 190);
}

#[test]
fn one_body_signed_twice_is_one_envelope() {
    let delta = delta();
    let mut bytes = delta.bytes.to_vec();
    let end = bytes.len();
    bytes[end - 64..].copy_from_slice(fleet().device.sign(Domain::Envelope, b"other").as_bytes());
    assert_eq!(codec::decode(&bytes).unwrap().hash, delta.hash);
}

fn any_position() -> impl Strategy<Value = Position> {
    (1..u64::MAX - 1, any::<u64>(), any::<u64>()).prop_map(|(epoch, stamp, seq)| Position {
        epoch,
        stamp: Stamp(stamp),
        seq,
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Integer),
        ".{0,20}".prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let any_path = "[a-zA-Z0-9._+-]{1,9}(/[a-zA-Z0-9._+-]{1,9}){0,3}";
    prop_oneof![
        (any_path, any_value()).prop_map(|(at, value)| Op::Set { path: path(&at), value }),
        any_path.prop_map(|at| delete(&at)),
        (3..=u8::MAX, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(code, bytes)| Op::Unknown { code, bytes }),
    ]
}

fn any_document() -> impl Strategy<Value = DocumentId> {
    (0..3, any::<[u8; 16]>()).prop_map(|(kind, device)| match kind {
        0 => DocumentId::Trust,
        1 => DocumentId::Desired(KeyId::from_bytes(device).into()),
        _ => DocumentId::Actual(KeyId::from_bytes(device).into()),
    })
}

fn own_lane(document: DocumentId, lane: KeyId) -> KeyId {
    match document {
        DocumentId::Actual(device) => device.into(),
        _ => lane,
    }
}

fn any_need() -> impl Strategy<Value = Need> {
    let head = (any_document(), any::<[u8; 16]>(), any_position()).prop_map(|(document, lane, position)| Need::Head {
        document,
        lane: own_lane(document, KeyId::from_bytes(lane)),
        position,
    });
    prop_oneof![any::<u64>().prop_map(Need::TrustVersion), head]
}

fn any_place() -> impl Strategy<Value = (Position, Previous, Kind)> {
    let hash = any::<[u8; 16]>().prop_map(EnvelopeHash::from_bytes);
    (0..3, any_position(), any::<u64>(), hash).prop_map(|(shape, at, stamp, hash)| match shape {
        0 => (Position { seq: at.seq.max(1), ..at }, Previous::Link(hash), Kind::Delta),
        1 => (Position { epoch: 1, seq: 0, ..at }, Previous::Start, Kind::Snapshot),
        _ => {
            let above = Position { epoch: at.epoch + 1, stamp: Stamp(stamp), seq: 0 };
            (above, Previous::Parent(Head { position: at, hash }), Kind::Snapshot)
        }
    })
}

fn any_quality() -> impl Strategy<Value = ClockQuality> {
    proptest::sample::select(vec![ClockQuality::None, ClockQuality::Floor, ClockQuality::Beacon, ClockQuality::Synced])
}

prop_compose! {
    fn any_body()(
        (fleet, lane) in (any::<[u8; 16]>(), any::<[u8; 16]>()),
        document in any_document(),
        (position, previous, kind) in any_place(),
        wall in any::<i64>(),
        quality in any_quality(),
        needs in proptest::collection::vec(any_need(), 0..8),
        ops in proptest::collection::vec(any_op(), 0..8),
    ) -> Body {
        Body {
            fleet: FleetId::from_bytes(fleet),
            document,
            lane: own_lane(document, KeyId::from_bytes(lane)),
            position,
            previous,
            wall: Wall(wall),
            quality,
            needs,
            kind,
            ops,
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(body in any_body()) {
        let envelope = codec::seal(body, &fleet().central);
        prop_assert_eq!(codec::decode(&envelope.bytes), Ok(envelope));
    }

    #[test]
    fn what_is_decoded_is_encoded_the_same(body in any_body(), at: proptest::sample::Index, to: u8, cut: proptest::sample::Index) {
        let mut bytes = codec::seal(body, &fleet().central).bytes.to_vec();
        let index = at.index(bytes.len());
        bytes[index] = to;
        if to.is_multiple_of(2) {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        if let Ok(envelope) = codec::decode(&bytes) {
            let mut again = codec::encode(&envelope.body);
            again.extend_from_slice(envelope.signature.as_bytes());
            prop_assert_eq!(again, bytes);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), version: bool) {
        let mut bytes = bytes;
        if let (true, Some(first)) = (version, bytes.first_mut()) {
            *first = codec::VERSION;
        }
        let _ = codec::decode(&bytes);
    }
}
