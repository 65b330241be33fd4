//! Generated values into plain ones: every length, count and name is checked on the way.

use std::sync::Arc;
use std::time::Duration;

use fleetd_proto::fleetd::sync::v1 as wire;
use fleetd_proto::fleetd::sync::v1::frame::Kind;
use fleetd_proto::fleetd::sync::v1::{certificate_response, register_device_response};
use fleetd_sync_core::envelope::{DocumentId, Head, Position};
use fleetd_sync_core::id::{ArtifactDigest, BootId, DeviceId, EnvelopeHash, KeyId, LocalId, Stamp, TokenId};
use fleetd_sync_core::limit;
use fleetd_sync_core::name::DeviceName;
use fleetd_sync_core::session::Grade;
use fleetd_sync_core::session::message::{
    ArtifactGroups, ArtifactRefusal, ArtifactRefused, ArtifactTree, ArtifactWant, Capabilities, Hello, LaneHead,
    LogPosition, LogPush, LogStream, Message, Push, Refusal, Register, Registered, Renew, Renewed, Summary, Want,
    WantedGroups, Welcome,
};

use super::{DecodeFrameError, facts};

type Decoded<T> = Result<T, DecodeFrameError>;

/// Bytes of a refusal's code and of its message: a sentence.
const REFUSAL_BYTES_MAX: usize = 1024;
/// Bytes of a signature over a log segment.
const SIGNATURE_BYTES_MAX: usize = 64;
/// Bytes of an enrolment token's secret.
const SECRET_BYTES_MAX: usize = 64;

pub(super) fn message(kind: Kind) -> Decoded<Message> {
    Ok(match kind {
        Kind::Hello(frame) => Message::Hello(Box::new(hello(frame)?)),
        Kind::Push(frame) => Message::Push(push(frame)?),
        Kind::Want(frame) => Message::Want(want(&frame)?),
        Kind::RegisterDeviceRequest(frame) => Message::Register(register(frame)?),
        Kind::RegisterDeviceResponse(frame) => Message::Registered(registered(frame)?),
        Kind::CsrRequest(frame) => Message::Renew(renew(frame)?),
        Kind::CertificateResponse(frame) => Message::Renewed(renewed(frame)?),
        Kind::ArtifactWant(frame) => Message::ArtifactWant(artifact_want(frame)?),
        Kind::ArtifactGroups(frame) => Message::ArtifactGroups(artifact_groups(frame)?),
        Kind::ArtifactTree(frame) => Message::ArtifactTree(artifact_tree(frame)?),
        Kind::ArtifactRefused(frame) => Message::ArtifactRefused(ArtifactRefused {
            digest: digest(&frame.digest)?,
            reason: refusal_reason(frame.refusal)?,
        }),
        Kind::LogPush(frame) => Message::LogPush(log_push(frame)?),
        Kind::LogAck(frame) => Message::LogAck(LogPosition {
            stream: log_stream(&frame.stream, &frame.boot, frame.stamp)?,
            sequence: frame.seq_through,
        }),
        Kind::RenewalDue(wire::RenewalDue {}) => Message::RenewalDue,
        Kind::RetryAfter(frame) => Message::RetryAfter(duration("retry_after.delay", frame.delay)?),
        Kind::Ping(frame) => Message::Ping(frame.nonce),
        Kind::Pong(frame) => Message::Pong(frame.nonce),
    })
}

fn hello(frame: wire::Hello) -> Decoded<Hello> {
    at_most("hello.heads", frame.heads.len(), limit::HELLO_HEADS_MAX)?;
    at_most("hello.log_positions", frame.log_positions.len(), limit::HELLO_STREAMS_MAX)?;
    let summary = if frame.digest.is_empty() {
        Summary::Full {
            heads: frame.heads.iter().map(lane_head).collect::<Decoded<_>>()?,
            log_positions: frame.log_positions.iter().map(log_position).collect::<Decoded<_>>()?,
        }
    } else {
        Summary::Digest(array("hello.digest", &frame.digest)?)
    };
    let welcome = match grade(frame.grade)? {
        None => None,
        Some(grade) => {
            at_most("hello.root_records", frame.root_records.len(), limit::ROOT_RECORDS_MAX)?;
            for record in &frame.root_records {
                at_most("hello.root_records", record.len(), limit::ROOT_RECORD_BYTES_MAX)?;
            }
            Some(Welcome { grade, root_records: frame.root_records })
        }
    };
    let version_min = if frame.version_min == 0 { frame.version_max } else { frame.version_min };
    Ok(Hello {
        version_min,
        version_max: frame.version_max,
        capabilities: Capabilities(frame.capabilities),
        boot: BootId::from_bytes(array("hello.boot", &frame.boot)?),
        trust_version: frame.trust_version,
        summary,
        welcome,
    })
}

fn grade(number: i32) -> Decoded<Option<Grade>> {
    match wire::Grade::try_from(number) {
        Ok(wire::Grade::Unspecified) => Ok(None),
        Ok(wire::Grade::Enroll) => Ok(Some(Grade::Enroll)),
        Ok(wire::Grade::RenewOnly) => Ok(Some(Grade::RenewOnly)),
        Ok(wire::Grade::Full) => Ok(Some(Grade::Full)),
        Err(_) => Err(DecodeFrameError::Value { field: "hello.grade", value: number.into() }),
    }
}

/// The trust document's subject is the fleet, of which there is one: it may be left out and is not read.
fn document(kind: i32, subject: &[u8]) -> Decoded<DocumentId> {
    let device = || array("subject", subject).map(LocalId::from_bytes);
    match wire::DocumentKind::try_from(kind) {
        Ok(wire::DocumentKind::Trust) => Ok(DocumentId::Trust),
        Ok(wire::DocumentKind::Desired) => Ok(DocumentId::Desired(device()?)),
        Ok(wire::DocumentKind::Actual) => Ok(DocumentId::Actual(device()?)),
        Ok(wire::DocumentKind::Unspecified) | Err(_) => {
            Err(DecodeFrameError::Value { field: "document", value: kind.into() })
        }
    }
}

fn lane_head(frame: &wire::Head) -> Decoded<LaneHead> {
    Ok(LaneHead {
        document: document(frame.document, &frame.subject)?,
        lane: KeyId::from_bytes(array("head.lane", &frame.lane)?),
        head: Head {
            position: Position { epoch: frame.epoch, stamp: Stamp(frame.stamp), seq: frame.seq },
            hash: EnvelopeHash::from_bytes(array("head.hash", &frame.hash)?),
        },
    })
}

fn push(frame: wire::Push) -> Decoded<Push> {
    at_most("push.envelopes", frame.envelopes.len(), limit::PUSH_ENVELOPES_MAX)?;
    Ok(Push { envelopes: frame.envelopes.into_iter().map(Arc::from).collect() })
}

fn want(frame: &wire::Want) -> Decoded<Want> {
    let position = Position { epoch: frame.epoch, stamp: Stamp(frame.stamp), seq: frame.seq };
    let have = if frame.hash.is_empty() && position == Position::default() {
        None
    } else {
        Some(Head { position, hash: EnvelopeHash::from_bytes(array("want.hash", &frame.hash)?) })
    };
    Ok(Want {
        document: document(frame.document, &frame.subject)?,
        lane: KeyId::from_bytes(array("want.lane", &frame.lane)?),
        have,
    })
}

fn register(frame: wire::RegisterDeviceRequest) -> Decoded<Register> {
    at_most("register.secret", frame.secret.len(), SECRET_BYTES_MAX)?;
    let facts = frame.facts.ok_or(DecodeFrameError::Missing { field: "register.facts" })?;
    Ok(Register {
        token: TokenId::from_bytes(array("register.token_id", &frame.token_id)?),
        secret: frame.secret,
        csr: csr(frame.csr_der)?,
        facts: facts::decode(&facts)?,
        sealing_key: array("register.sealing_public_key", &frame.sealing_public_key)?,
    })
}

fn registered(frame: wire::RegisterDeviceResponse) -> Decoded<Registered> {
    use register_device_response::Outcome;
    match frame.outcome.ok_or(DecodeFrameError::Missing { field: "register.outcome" })? {
        Outcome::Registered(frame) => Ok(Registered::Issued {
            device: DeviceId::from_bytes(array("registered.device_id", &frame.device_id)?),
            name: frame
                .name
                .parse::<DeviceName>()
                .map_err(|source| DecodeFrameError::Name { field: "registered.name", source })?,
            certificates: certificates(frame.certificate_chain_der)?,
        }),
        Outcome::Pending(frame) => {
            Ok(Registered::Pending { retry_after: duration("pending.retry_after", frame.retry_after)? })
        }
        Outcome::Refused(frame) => Ok(Registered::Refused(refusal(frame)?)),
    }
}

fn renew(frame: wire::CsrRequest) -> Decoded<Renew> {
    let facts = frame.facts.as_ref().map(facts::decode).transpose()?;
    Ok(Renew { csr: csr(frame.csr_der)?, facts })
}

fn renewed(frame: wire::CertificateResponse) -> Decoded<Renewed> {
    use certificate_response::Outcome;
    match frame.outcome.ok_or(DecodeFrameError::Missing { field: "certificate.outcome" })? {
        Outcome::Chain(frame) => Ok(Renewed::Issued { certificates: certificates(frame.certificates_der)? }),
        Outcome::Refused(frame) => Ok(Renewed::Refused(refusal(frame)?)),
    }
}

fn csr(der: Vec<u8>) -> Decoded<Vec<u8>> {
    at_most("csr_der", der.len(), limit::CSR_BYTES_MAX)?;
    if der.is_empty() { Err(DecodeFrameError::Missing { field: "csr_der" }) } else { Ok(der) }
}

fn certificates(chain: Vec<Vec<u8>>) -> Decoded<Vec<Vec<u8>>> {
    at_most("certificates", chain.len(), limit::CERTIFICATES_MAX)?;
    for certificate in &chain {
        at_most("certificate", certificate.len(), limit::CERTIFICATE_BYTES_MAX)?;
    }
    if chain.is_empty() { Err(DecodeFrameError::Missing { field: "certificates" }) } else { Ok(chain) }
}

fn refusal(frame: wire::Refused) -> Decoded<Refusal> {
    at_most("refused.code", frame.code.len(), REFUSAL_BYTES_MAX)?;
    at_most("refused.message", frame.message.len(), REFUSAL_BYTES_MAX)?;
    Ok(Refusal { code: frame.code, message: frame.message })
}

fn artifact_want(frame: wire::ArtifactWant) -> Decoded<ArtifactWant> {
    let window = usize::try_from(limit::ARTIFACT_WINDOW_GROUPS).unwrap_or(usize::MAX);
    at_most("artifact_want.groups", frame.groups.len(), window)?;
    at_most("artifact_want.group_count", usize::try_from(frame.group_count).unwrap_or(usize::MAX), window)?;
    let groups = if frame.groups.is_empty() {
        WantedGroups::Run { group_first: frame.group_first, group_count: frame.group_count }
    } else {
        WantedGroups::List(frame.groups)
    };
    Ok(ArtifactWant { digest: digest(&frame.digest)?, groups, tree: frame.tree })
}

fn artifact_groups(frame: wire::ArtifactGroups) -> Decoded<ArtifactGroups> {
    Ok(ArtifactGroups { digest: digest(&frame.digest)?, group_first: frame.group_first, content: frame.content })
}

fn artifact_tree(frame: wire::ArtifactTree) -> Decoded<ArtifactTree> {
    if !frame.hashes.len().is_multiple_of(ArtifactDigest::LENGTH) {
        let (length, expected) = (frame.hashes.len(), ArtifactDigest::LENGTH);
        return Err(DecodeFrameError::Length { field: "artifact_tree.hashes", length, expected });
    }
    Ok(ArtifactTree {
        digest: digest(&frame.digest)?,
        size_bytes: frame.size_bytes,
        group_first: frame.offset,
        values: frame.hashes,
    })
}

fn refusal_reason(number: i32) -> Decoded<ArtifactRefusal> {
    match wire::ArtifactRefusal::try_from(number) {
        Ok(wire::ArtifactRefusal::Absent) => Ok(ArtifactRefusal::Absent),
        Ok(wire::ArtifactRefusal::Forbidden) => Ok(ArtifactRefusal::Forbidden),
        Ok(wire::ArtifactRefusal::Range) => Ok(ArtifactRefusal::Range),
        Ok(wire::ArtifactRefusal::Busy) => Ok(ArtifactRefusal::Busy),
        Ok(wire::ArtifactRefusal::Unspecified) | Err(_) => {
            Err(DecodeFrameError::Value { field: "artifact_refused.refusal", value: number.into() })
        }
    }
}

fn log_stream(workload: &str, boot: &[u8], stamp: u64) -> Decoded<LogStream> {
    Ok(LogStream {
        workload: workload.parse().map_err(|source| DecodeFrameError::Name { field: "stream", source })?,
        boot: BootId::from_bytes(array("boot", boot)?),
        stamp: Stamp(stamp),
    })
}

fn log_position(frame: &wire::LogPosition) -> Decoded<LogPosition> {
    Ok(LogPosition { stream: log_stream(&frame.stream, &frame.boot, frame.stamp)?, sequence: frame.seq_through })
}

fn log_push(frame: wire::LogPush) -> Decoded<LogPush> {
    at_most("log_push.signature", frame.signature.len(), SIGNATURE_BYTES_MAX)?;
    Ok(LogPush {
        stream: log_stream(&frame.stream, &frame.boot, frame.stamp)?,
        sequence_first: frame.seq_first,
        count: frame.count,
        records: frame.records,
        signature: frame.signature,
        preview: frame.preview,
    })
}

fn digest(bytes: &[u8]) -> Decoded<ArtifactDigest> {
    Ok(ArtifactDigest::from_bytes(array("digest", bytes)?))
}

fn duration(field: &'static str, duration: Option<prost_types::Duration>) -> Decoded<Duration> {
    let duration = duration.ok_or(DecodeFrameError::Missing { field })?;
    Duration::try_from(duration).map_err(|_| DecodeFrameError::Value { field, value: duration.seconds })
}

fn array<const N: usize>(field: &'static str, bytes: &[u8]) -> Decoded<[u8; N]> {
    bytes.try_into().map_err(|_| DecodeFrameError::Length { field, length: bytes.len(), expected: N })
}

const fn at_most(field: &'static str, count: usize, count_max: usize) -> Decoded<()> {
    if count > count_max { Err(DecodeFrameError::TooMany { field, count, count_max }) } else { Ok(()) }
}
