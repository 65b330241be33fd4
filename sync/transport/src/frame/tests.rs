use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Head, Position};
use fleetd_sync_core::id::{ArtifactDigest, BootId, DeviceId, EnvelopeHash, KeyId, LocalId, Stamp, TokenId};
use fleetd_sync_core::session::message::*;
use proptest::prelude::*;

use super::*;

fn entropy() -> Entropy {
    Entropy::from_seed([4; 32])
}

fn lane_head(document: DocumentId) -> LaneHead {
    let position = Position { epoch: 3, stamp: Stamp(u64::MAX), seq: 9 };
    let head = Head { position, hash: EnvelopeHash::random(&mut entropy()) };
    LaneHead { document, lane: KeyId::random(&mut entropy()), head }
}

fn position() -> LogPosition {
    let stream = LogStream { workload: "coffee".parse().unwrap(), boot: BootId::from_bytes([1; 16]), stamp: Stamp(7) };
    LogPosition { stream, sequence: 1 << 40 }
}

fn device_hello(summary: Summary) -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        capabilities: Capabilities::default(),
        boot: BootId::from_bytes([2; 16]),
        trust_version: 12,
        summary,
        welcome: None,
    }
}

fn every_message() -> Vec<Message> {
    let device = LocalId::random(&mut entropy());
    let digest = ArtifactDigest::of(b"artifact");
    let facts: Facts = [("platform", "linux/arm64"), ("cpu_cores", "4"), ("serial", "x-1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let refusal = Refusal { code: "enrolment.token.expired".to_owned(), message: "the token has expired".to_owned() };
    let full = Summary::Full {
        heads: vec![lane_head(DocumentId::Trust), lane_head(DocumentId::Desired(device))],
        log_positions: vec![position()],
    };
    let welcome = |grade| Some(Welcome { grade, root_records: vec![vec![1, 2], vec![3]] });
    let want = Want { document: DocumentId::Actual(device), lane: KeyId::from(device), have: None };
    let head = lane_head(DocumentId::Trust);
    let groups = WantedGroups::Run { group_first: 5, group_count: 32 };
    let log_push = LogPush {
        stream: position().stream,
        sequence_first: 10,
        count: 3,
        records: vec![1; 300],
        signature: vec![2; 64],
        preview: true,
    };
    vec![
        Message::Hello(Box::new(device_hello(Summary::Digest([5; 16])))),
        Message::Hello(Box::new(device_hello(full.clone()))),
        Message::Hello(Box::new(Hello { version_max: 4, welcome: welcome(Grade::Enroll), ..device_hello(full) })),
        Message::Hello(Box::new(Hello {
            welcome: welcome(Grade::RenewOnly),
            capabilities: Capabilities(u64::MAX),
            ..device_hello(Summary::Digest([0; 16]))
        })),
        Message::Push(Push { envelopes: vec![Arc::from([1_u8; 90]), Arc::from([2_u8; 9])] }),
        Message::Want(want),
        Message::Want(Want { document: head.document, lane: head.lane, have: Some(head.head) }),
        Message::Register(Register {
            token: TokenId::random(&mut entropy()),
            secret: vec![1; 32],
            csr: vec![2; 200],
            facts: facts.clone(),
            sealing_key: [3; 32],
        }),
        Message::Registered(Registered::Issued {
            device: DeviceId::random(&mut entropy()),
            name: "brisk-otter".parse().unwrap(),
            certificates: vec![vec![1; 500], vec![2; 400]],
        }),
        Message::Registered(Registered::Pending { retry_after: Duration::from_millis(1500) }),
        Message::Registered(Registered::Refused(refusal.clone())),
        Message::Renew(Renew { csr: vec![2; 200], facts: Some(facts) }),
        Message::Renew(Renew { csr: vec![2; 200], facts: None }),
        Message::Renewed(Renewed::Issued { certificates: vec![vec![1; 500]] }),
        Message::Renewed(Renewed::Refused(refusal)),
        Message::ArtifactWant(ArtifactWant { digest, groups, tree: true }),
        Message::ArtifactWant(ArtifactWant { digest, groups: WantedGroups::List(vec![1, 4, 9]), tree: false }),
        Message::ArtifactGroups(ArtifactGroups { digest, group_first: 5, content: vec![7; 48 << 10] }),
        Message::ArtifactTree(ArtifactTree { digest, size_bytes: 1 << 33, group_first: 2, values: vec![8; 640] }),
        Message::ArtifactRefused(ArtifactRefused { digest, reason: ArtifactRefusal::Busy }),
        Message::LogPush(log_push),
        Message::LogAck(position()),
        Message::RenewalDue,
        Message::RetryAfter(Duration::from_secs(90)),
        Message::Ping(u64::MAX),
        Message::Pong(1),
    ]
}

#[test]
fn every_message_survives_its_frame() {
    for message in every_message() {
        let frame = encode(&message).unwrap();
        assert_eq!(decode(&frame).unwrap().as_ref(), Some(&message));
    }
}

#[test]
fn the_hello_of_an_unchanged_node_fits_48_bytes_each_way() {
    let device = encode(&Message::Hello(Box::new(device_hello(Summary::Digest([255; 16]))))).unwrap();
    let welcome = Welcome { grade: Grade::Full, root_records: Vec::new() };
    let server = Hello { welcome: Some(welcome), ..device_hello(Summary::Digest([255; 16])) };
    let server = encode(&Message::Hello(Box::new(server))).unwrap();
    let lengths = (framed_length(device.len()), framed_length(server.len()));
    assert_eq!(lengths, (43, 45));
}

#[test]
fn a_kind_of_a_later_version_is_ignored() {
    // Field 200, length 2: no kind that this version knows.
    assert_eq!(decode(&[0xc2, 0x0c, 2, 1, 2]), Ok(None));
}

#[test]
fn an_oversize_frame_is_refused_before_it_is_read() {
    let frame = vec![0; limit::FRAME_BYTES_MAX + 1];
    assert!(matches!(decode(&frame), Err(DecodeFrameError::TooLarge { .. })));
    let content = vec![0; limit::FRAME_BYTES_MAX];
    let groups = ArtifactGroups { digest: ArtifactDigest::of(b""), group_first: 0, content };
    assert!(encode(&Message::ArtifactGroups(groups)).is_err());
}

#[test]
fn what_a_peer_may_not_say_is_named() {
    let hello = |change: fn(&mut wire::Hello)| {
        let mut hello = wire::Hello { version_max: 1, boot: vec![1; 16], digest: vec![1; 16], ..Default::default() };
        change(&mut hello);
        decode(&wire::Frame { kind: Some(wire::frame::Kind::Hello(hello)) }.encode_to_vec())
    };
    assert!(hello(|_| ()).is_ok());
    let short = DecodeFrameError::Length { field: "hello.boot", length: 15, expected: 16 };
    assert_eq!(hello(|hello| hello.boot = vec![1; 15]), Err(short));
    assert!(matches!(hello(|hello| hello.digest = vec![1; 17]), Err(DecodeFrameError::Length { .. })));
    assert!(matches!(hello(|hello| hello.grade = 11), Err(DecodeFrameError::Value { value: 11, .. })));
    let many = hello(|hello| hello.log_positions = vec![wire::LogPosition::default(); limit::HELLO_STREAMS_MAX + 1]);
    assert!(matches!(many, Err(DecodeFrameError::TooMany { .. })));
    let many = hello(|hello| hello.heads = vec![wire::Head::default(); limit::HELLO_HEADS_MAX + 1]);
    assert!(matches!(many, Err(DecodeFrameError::TooMany { .. })));
    let want = wire::Want { document: 10, lane: vec![1; 16], ..Default::default() };
    let frame = wire::Frame { kind: Some(wire::frame::Kind::Want(want)) }.encode_to_vec();
    assert!(matches!(decode(&frame), Err(DecodeFrameError::Length { field: "subject", .. })));
}

#[test]
fn facts_that_the_schema_does_not_know_are_left_out() {
    let facts: Facts = BTreeMap::from([("kernel".into(), "6.1".into()), ("favourite_colour".into(), "red".into())]);
    let frame = encode(&Message::Renew(Renew { csr: vec![1], facts: Some(facts) })).unwrap();
    let Some(Message::Renew(Renew { facts: Some(facts), .. })) = decode(&frame).unwrap() else { panic!() };
    assert_eq!(facts, BTreeMap::from([("kernel".to_owned(), "6.1".to_owned())]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_changed_byte_gives_an_error_or_another_message(which in 0_usize..25, at in any::<usize>(), flip in 1_u8..) {
        let messages = every_message();
        let mut frame = encode(&messages[which]).unwrap().to_vec();
        let at = at % frame.len();
        frame[at] ^= flip;
        let _ = decode(&frame);
    }
}
