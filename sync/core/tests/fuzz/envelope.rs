//! Envelopes: from any peer, out of a bundle, and off the disk.

use fleetd_sync_core::codec;
use fleetd_sync_core::envelope::{Body, DocumentId, Head, Kind, Need, Op, Position, Previous, Value};
use fleetd_sync_core::id::{EnvelopeHash, FleetId, Stamp};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::time::{ClockQuality, Wall};

use super::CASES;

/// Says whether the bytes are an envelope.
fn check(bytes: &[u8]) -> bool {
    let Ok(envelope) = codec::decode(bytes) else { return false };
    let body = &envelope.body;
    let again = [codec::encode(body).as_slice(), envelope.signature.as_bytes()].concat();
    assert_eq!(again, bytes, "a body has one encoding");
    assert_eq!(&envelope.bytes[..], bytes);
    assert_eq!(envelope.signed_bytes(), codec::encode(body));
    let (bytes_max, ops_max) = match body.kind {
        Kind::Delta => (limit::DELTA_BYTES_MAX, limit::ENVELOPE_OPS_MAX),
        Kind::Snapshot => (limit::SNAPSHOT_BYTES_MAX, limit::SNAPSHOT_OPS_MAX),
    };
    assert!(bytes.len() <= bytes_max && body.ops.len() <= ops_max && body.needs.len() <= limit::ENVELOPE_NEEDS_MAX);
    true
}

pub(super) fn samples() -> Vec<Vec<u8>> {
    let key = SecretKey::from_bytes([1; 32]);
    let device = SecretKey::from_bytes([2; 32]);
    let path = |text: &str| text.parse().unwrap();
    let first = Body {
        fleet: FleetId::from_bytes(*b"a golden fleet.."),
        document: DocumentId::Desired(device.id().into()),
        lane: key.id(),
        position: Position { epoch: 1, stamp: Stamp(7), seq: 0 },
        previous: Previous::Start,
        wall: Wall(1_764_000_000_000),
        quality: ClockQuality::Synced,
        needs: vec![Need::TrustVersion(300)],
        kind: Kind::Snapshot,
        ops: vec![
            Op::Set { path: path("workload/coffee/attempt"), value: Value::Integer(-2) },
            Op::Set { path: path("workload/coffee/manifest"), value: Value::Bytes(vec![0xab; 32]) },
            Op::Set { path: path("workload/coffee/release"), value: Value::Text("1.8.0".to_owned()) },
            Op::Set { path: path("workload/tea/remove"), value: Value::Boolean(true) },
        ],
    };
    let position = Position { epoch: 1, stamp: Stamp(7), seq: 1 };
    let delta = Body {
        position,
        previous: Previous::Link(EnvelopeHash::from_bytes([3; 16])),
        kind: Kind::Delta,
        document: DocumentId::Trust,
        needs: vec![Need::Head { document: first.document, lane: key.id(), position }],
        ops: vec![Op::Delete { path: path("a") }, Op::Unknown { code: 77, bytes: b"later".to_vec() }],
        ..first.clone()
    };
    let parent = Head { position, hash: EnvelopeHash::from_bytes([4; 16]) };
    let above = Body {
        document: DocumentId::Actual(device.id().into()),
        lane: device.id(),
        position: Position { epoch: 2, ..Position::default() },
        previous: Previous::Parent(parent),
        wall: Wall(-1),
        needs: Vec::new(),
        ops: vec![Op::Set { path: path("a"), value: Value::Boolean(false) }],
        ..first.clone()
    };
    [(first, &key), (delta, &key), (above, &device)].map(|(body, key)| codec::seal(body, key).bytes.to_vec()).into()
}

#[test]
fn every_sample_of_an_envelope_is_one() {
    assert!(samples().iter().all(|sample| check(sample)));
}

#[test]
fn any_bytes_are_one_envelope_or_none() {
    bolero::check!(name = "envelope").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
