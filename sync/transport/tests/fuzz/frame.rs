//! Frames: whatever comes over a connection, from a peer that has proven nothing yet.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Head, Position};
use fleetd_sync_core::id::{ArtifactDigest, BootId, DeviceId, EnvelopeHash, KeyId, LocalId, Stamp, TokenId};
use fleetd_sync_core::limit;
use fleetd_sync_core::session::Grade;
use fleetd_sync_core::session::message::{
    ArtifactGroups, ArtifactRefusal, ArtifactRefused, ArtifactTree, ArtifactWant, Capabilities, Facts, Hello, LaneHead,
    LogPosition, LogPush, LogStream, Message, Push, Refusal, Register, Registered, Renew, Renewed, Summary, Want,
    WantedGroups, Welcome,
};
use fleetd_sync_transport::frame::{decode, encode};

use super::CASES;

/// What a message may add to the bytes that it was read from: numbers that were left out and have a default.
const GROWTH_BYTES_MAX: usize = 64;

/// Says whether the bytes are a message.
fn check(bytes: &[u8]) -> bool {
    let Ok(Some(message)) = decode(bytes) else { return false };
    assert!(bytes.len() <= limit::FRAME_BYTES_MAX);
    match encode(&message) {
        Ok(frame) => {
            assert!(frame.len() <= bytes.len() + GROWTH_BYTES_MAX, "{} bytes out of {}", frame.len(), bytes.len());
            assert_eq!(decode(&frame), Ok(Some(message)), "what is written is read again");
        }
        Err(error) => assert!(bytes.len() + GROWTH_BYTES_MAX > limit::FRAME_BYTES_MAX, "{error}"),
    }
    true
}

pub(super) fn messages() -> Vec<Message> {
    let mut entropy = Entropy::from_seed([4; 32]);
    let device = LocalId::random(&mut entropy);
    let facts: Facts = [("platform", "linux/arm64"), ("cpu_cores", "4"), ("serial", "x-1")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let refusal = Refusal { code: "enrolment.token.expired".to_owned(), message: "the token has expired".to_owned() };
    let position = Position { epoch: 3, stamp: Stamp(u64::MAX), seq: 9 };
    let head = Head { position, hash: EnvelopeHash::random(&mut entropy) };
    let lane = LaneHead { document: DocumentId::Desired(device), lane: KeyId::random(&mut entropy), head };
    let stream = LogStream { workload: "coffee".parse().unwrap(), boot: BootId::from_bytes([1; 16]), stamp: Stamp(7) };
    let log_position = LogPosition { stream: stream.clone(), sequence: 1 << 40 };
    let hello = |summary, welcome| {
        Message::Hello(Box::new(Hello {
            version_min: 1,
            version_max: 1,
            capabilities: Capabilities::default(),
            boot: BootId::from_bytes([2; 16]),
            trust_version: 12,
            summary,
            welcome,
        }))
    };
    let full = Summary::Full { heads: vec![lane], log_positions: vec![log_position.clone()] };
    let welcome = Welcome { grade: Grade::Full, root_records: vec![vec![1, 2], vec![3]] };
    let mut messages = vec![
        hello(Summary::Digest([5; 16]), None),
        hello(full, Some(welcome)),
        Message::Push(Push { envelopes: vec![Arc::from([1_u8; 90]), Arc::from([2_u8; 9])] }),
        Message::Want(Want { document: lane.document, lane: lane.lane, have: Some(head) }),
        Message::Want(Want { document: DocumentId::Trust, lane: lane.lane, have: None }),
        Message::Register(Register {
            token: TokenId::random(&mut entropy),
            secret: vec![1; 32],
            csr: vec![2; 60],
            facts: facts.clone(),
            sealing_key: [3; 32],
        }),
        Message::Registered(Registered::Issued {
            device: DeviceId::random(&mut entropy),
            name: "brisk-otter".parse().unwrap(),
            certificates: vec![vec![1; 50], vec![2; 40]],
        }),
        Message::Registered(Registered::Pending { retry_after: Duration::from_millis(1500) }),
        Message::Registered(Registered::Refused(refusal.clone())),
        Message::Renew(Renew { csr: vec![2; 60], facts: Some(facts) }),
        Message::Renewed(Renewed::Issued { certificates: vec![vec![1; 50]] }),
        Message::Renewed(Renewed::Refused(refusal)),
        Message::LogPush(LogPush {
            stream,
            sequence_first: 10,
            count: 3,
            records: vec![1; 30],
            signature: vec![2; 64],
            preview: true,
        }),
        Message::LogAck(log_position),
        Message::RenewalDue,
        Message::RetryAfter(Duration::from_secs(90)),
        Message::Ping(u64::MAX),
        Message::Pong(1),
    ];
    messages.extend(artifact_messages());
    messages
}

fn artifact_messages() -> [Message; 5] {
    let digest = ArtifactDigest::of(b"artifact");
    [
        Message::ArtifactWant(ArtifactWant {
            digest,
            groups: WantedGroups::Run { group_first: 5, group_count: 32 },
            tree: true,
        }),
        Message::ArtifactWant(ArtifactWant { digest, groups: WantedGroups::List(vec![1, 4, 9]), tree: false }),
        Message::ArtifactGroups(ArtifactGroups { digest, group_first: 5, content: vec![7; 48] }),
        Message::ArtifactTree(ArtifactTree { digest, size_bytes: 1 << 33, group_first: 2, values: vec![8; 64] }),
        Message::ArtifactRefused(ArtifactRefused { digest, reason: ArtifactRefusal::Busy }),
    ]
}

pub(super) fn samples() -> Vec<Vec<u8>> {
    messages().iter().map(|message| encode(message).unwrap().to_vec()).collect()
}

#[test]
fn every_sample_of_a_frame_is_one() {
    assert!(samples().iter().all(|sample| check(sample)));
}

#[test]
fn any_bytes_are_one_message_or_none() {
    bolero::check!(name = "frame").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
