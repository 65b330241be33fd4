//! Plain values into generated ones. Nothing here can fail.

use std::time::Duration;

use fleetd_proto::fleetd::sync::v1 as wire;
use fleetd_proto::fleetd::sync::v1::frame::Kind;
use fleetd_proto::fleetd::sync::v1::{certificate_response, register_device_response};
use fleetd_sync_core::envelope::{DocumentId, Head};
use fleetd_sync_core::session::Grade;
use fleetd_sync_core::session::message::{
    ArtifactRefusal, ArtifactWant, Hello, LaneHead, LogPosition, LogPush, Message, Refusal, Register, Registered,
    Renew, Renewed, Summary, Want, WantedGroups,
};

use super::facts;

pub(super) fn kind(message: &Message) -> Kind {
    match message {
        Message::Hello(hello) => Kind::Hello(self::hello(hello)),
        Message::Push(push) => {
            Kind::Push(wire::Push { envelopes: push.envelopes.iter().map(|bytes| bytes.to_vec()).collect() })
        }
        Message::Want(want) => Kind::Want(self::want(want)),
        Message::Register(register) => Kind::RegisterDeviceRequest(self::register(register)),
        Message::Registered(registered) => Kind::RegisterDeviceResponse(self::registered(registered)),
        Message::Renew(renew) => Kind::CsrRequest(self::renew(renew)),
        Message::Renewed(renewed) => Kind::CertificateResponse(self::renewed(renewed)),
        Message::ArtifactWant(want) => Kind::ArtifactWant(artifact_want(want)),
        Message::ArtifactGroups(groups) => Kind::ArtifactGroups(wire::ArtifactGroups {
            digest: groups.digest.as_bytes().to_vec(),
            group_first: groups.group_first,
            content: groups.content.clone(),
        }),
        Message::ArtifactTree(tree) => Kind::ArtifactTree(wire::ArtifactTree {
            digest: tree.digest.as_bytes().to_vec(),
            size_bytes: tree.size_bytes,
            offset: tree.group_first,
            hashes: tree.values.clone(),
        }),
        Message::ArtifactRefused(refused) => Kind::ArtifactRefused(wire::ArtifactRefused {
            digest: refused.digest.as_bytes().to_vec(),
            refusal: refusal_reason(refused.reason).into(),
        }),
        Message::LogPush(push) => Kind::LogPush(log_push(push)),
        Message::LogAck(position) => {
            let wire::LogPosition { stream, boot, stamp, seq_through } = log_position(position);
            Kind::LogAck(wire::LogAck { stream, boot, stamp, seq_through })
        }
        Message::RenewalDue => Kind::RenewalDue(wire::RenewalDue {}),
        Message::RetryAfter(pause) => Kind::RetryAfter(wire::RetryAfter { delay: Some(duration(*pause)) }),
        Message::Ping(nonce) => Kind::Ping(wire::Ping { nonce: *nonce }),
        Message::Pong(nonce) => Kind::Pong(wire::Pong { nonce: *nonce }),
    }
}

fn hello(hello: &Hello) -> wire::Hello {
    let mut frame = wire::Hello {
        version_max: hello.version_max,
        // Two bytes less in every Hello of a node that speaks one version.
        version_min: if hello.version_min == hello.version_max { 0 } else { hello.version_min },
        capabilities: hello.capabilities.0,
        boot: hello.boot.as_bytes().to_vec(),
        trust_version: hello.trust_version,
        ..wire::Hello::default()
    };
    match &hello.summary {
        Summary::Digest(digest) => frame.digest = digest.to_vec(),
        Summary::Full { heads, log_positions } => {
            frame.heads = heads.iter().map(lane_head).collect();
            frame.log_positions = log_positions.iter().map(log_position).collect();
        }
    }
    if let Some(welcome) = &hello.welcome {
        frame.grade = grade(welcome.grade).into();
        frame.root_records.clone_from(&welcome.root_records);
    }
    frame
}

const fn grade(grade: Grade) -> wire::Grade {
    match grade {
        Grade::Enroll => wire::Grade::Enroll,
        Grade::RenewOnly => wire::Grade::RenewOnly,
        Grade::Full => wire::Grade::Full,
    }
}

/// The trust document needs no subject: a fleet has one.
fn document(document: DocumentId) -> (i32, Vec<u8>) {
    let kind = match document {
        DocumentId::Trust => wire::DocumentKind::Trust,
        DocumentId::Desired(_) => wire::DocumentKind::Desired,
        DocumentId::Actual(_) => wire::DocumentKind::Actual,
    };
    (kind.into(), document.device().map(|device| device.as_bytes().to_vec()).unwrap_or_default())
}

fn lane_head(entry: &LaneHead) -> wire::Head {
    let (document, subject) = document(entry.document);
    let Head { position, hash } = entry.head;
    wire::Head {
        document,
        subject,
        lane: entry.lane.as_bytes().to_vec(),
        epoch: position.epoch,
        stamp: position.stamp.0,
        seq: position.seq,
        hash: hash.as_bytes().to_vec(),
        parked: false,
    }
}

fn want(want: &Want) -> wire::Want {
    let (document, subject) = document(want.document);
    let position = want.have.map(|head| head.position).unwrap_or_default();
    wire::Want {
        document,
        subject,
        lane: want.lane.as_bytes().to_vec(),
        epoch: position.epoch,
        stamp: position.stamp.0,
        seq: position.seq,
        hash: want.have.map(|head| head.hash.as_bytes().to_vec()).unwrap_or_default(),
    }
}

fn register(register: &Register) -> wire::RegisterDeviceRequest {
    wire::RegisterDeviceRequest {
        token_id: register.token.as_bytes().to_vec(),
        secret: register.secret.clone(),
        csr_der: register.csr.clone(),
        facts: Some(facts::encode(&register.facts)),
        sealing_public_key: register.sealing_key.to_vec(),
    }
}

fn registered(registered: &Registered) -> wire::RegisterDeviceResponse {
    use register_device_response::Outcome;
    let outcome = match registered {
        Registered::Issued { device, name, certificates } => Outcome::Registered(wire::Registered {
            device_id: device.as_bytes().to_vec(),
            name: name.as_str().to_owned(),
            certificate_chain_der: certificates.clone(),
        }),
        Registered::Pending { retry_after } => {
            Outcome::Pending(wire::Pending { retry_after: Some(duration(*retry_after)) })
        }
        Registered::Refused(refusal) => Outcome::Refused(refused(refusal)),
    };
    wire::RegisterDeviceResponse { outcome: Some(outcome) }
}

fn renew(renew: &Renew) -> wire::CsrRequest {
    wire::CsrRequest { csr_der: renew.csr.clone(), facts: renew.facts.as_ref().map(facts::encode) }
}

fn renewed(renewed: &Renewed) -> wire::CertificateResponse {
    use certificate_response::Outcome;
    let outcome = match renewed {
        Renewed::Issued { certificates } => {
            Outcome::Chain(wire::CertificateChain { certificates_der: certificates.clone() })
        }
        Renewed::Refused(refusal) => Outcome::Refused(refused(refusal)),
    };
    wire::CertificateResponse { outcome: Some(outcome) }
}

fn refused(refusal: &Refusal) -> wire::Refused {
    wire::Refused { code: refusal.code.clone(), message: refusal.message.clone() }
}

fn artifact_want(want: &ArtifactWant) -> wire::ArtifactWant {
    let (group_first, group_count, groups) = match &want.groups {
        WantedGroups::Run { group_first, group_count } => (*group_first, *group_count, Vec::new()),
        WantedGroups::List(groups) => (0, 0, groups.clone()),
    };
    wire::ArtifactWant { digest: want.digest.as_bytes().to_vec(), group_first, group_count, groups, tree: want.tree }
}

const fn refusal_reason(reason: ArtifactRefusal) -> wire::ArtifactRefusal {
    match reason {
        ArtifactRefusal::Absent => wire::ArtifactRefusal::Absent,
        ArtifactRefusal::Forbidden => wire::ArtifactRefusal::Forbidden,
        ArtifactRefusal::Range => wire::ArtifactRefusal::Range,
        ArtifactRefusal::Busy => wire::ArtifactRefusal::Busy,
    }
}

fn log_position(position: &LogPosition) -> wire::LogPosition {
    wire::LogPosition {
        stream: position.stream.workload.as_str().to_owned(),
        boot: position.stream.boot.as_bytes().to_vec(),
        stamp: position.stream.stamp.0,
        seq_through: position.sequence,
    }
}

fn log_push(push: &LogPush) -> wire::LogPush {
    wire::LogPush {
        stream: push.stream.workload.as_str().to_owned(),
        boot: push.stream.boot.as_bytes().to_vec(),
        stamp: push.stream.stamp.0,
        seq_first: push.sequence_first,
        count: push.count,
        records: push.records.clone(),
        signature: push.signature.clone(),
        preview: push.preview,
    }
}

fn duration(pause: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(pause.subsec_nanos()).unwrap_or(0),
    }
}
