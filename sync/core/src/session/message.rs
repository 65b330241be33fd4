//! What two peers say to each other.
//!
//! These are plain values: how they look on the wire is the transport's business. Envelopes, artifacts and log
//! records travel as the bytes that their own modules define.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{DocumentId, Head};
use crate::id::{ArtifactDigest, BootId, DeviceId, KeyId, Stamp, TokenId};
use crate::name::{DeviceName, WorkloadName};
use crate::session::Class;

/// The oldest version of the session that this code speaks.
pub const VERSION_MIN: u32 = 1;
/// The newest version of the session that this code speaks.
pub const VERSION_MAX: u32 = 1;

/// What one end can do beyond the version that both speak. Bits that this code does not know are ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

/// One message between peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who the sender is and what it has: the first message of each end, and once more when the digests differ.
    Hello(Box<Hello>),
    /// Envelopes for the receiver's replica.
    Push(Push),
    /// A request for the envelopes that the sender lacks.
    Want(Want),
    /// A device asks for an identity.
    Register(Register),
    /// The server's answer to it.
    Registered(Registered),
    /// A device asks for a new certificate for the key that it holds.
    Renew(Renew),
    /// The server's answer to it.
    Renewed(Renewed),
    /// The device's certificate has lasted half of its time: the device should ask for a new one. Only servers judge
    /// dates, so a device does not know by itself.
    RenewalDue,
    /// A device asks for a part of an artifact.
    ArtifactWant(ArtifactWant),
    /// Groups of an artifact, in order.
    ArtifactGroups(ArtifactGroups),
    /// A part of an artifact's list of group values.
    ArtifactTree(ArtifactTree),
    /// The server will not send that artifact.
    ArtifactRefused(ArtifactRefused),
    /// Log records of one stream.
    LogPush(LogPush),
    /// Log records up to here are durable at the receiver.
    LogAck(LogPosition),
    /// Come back after this time; the server closes the session next.
    RetryAfter(Duration),
    /// Answer at once: somebody waits to know whether the receiver is there.
    Ping(u64),
    /// The answer to a ping, with its number.
    Pong(u64),
}

impl Message {
    /// The stream that carries it. A push is of the class of the documents in it, which its sender knows.
    #[must_use]
    pub const fn class(&self, push: Class) -> Class {
        match self {
            Self::Push(_) => push,
            Self::LogPush(_) | Self::LogAck(_) => Class::Logs,
            Self::ArtifactWant(_) | Self::ArtifactGroups(_) | Self::ArtifactTree(_) | Self::ArtifactRefused(_) => {
                Class::Artifacts
            }
            Self::Hello(_)
            | Self::Want(_)
            | Self::Register(_)
            | Self::Registered(_)
            | Self::Renew(_)
            | Self::Renewed(_)
            | Self::RenewalDue
            | Self::RetryAfter(_)
            | Self::Ping(_)
            | Self::Pong(_) => Class::Control,
        }
    }
}

/// Who the sender is and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest version that it speaks.
    pub version_min: u32,
    /// The newest version that it speaks.
    pub version_max: u32,
    /// What it can do beyond that.
    pub capabilities: Capabilities,
    /// The start of its operating system, or of its process where it is a server.
    pub boot: BootId,
    /// The version of the newest root record that it holds; 0 when it holds none.
    pub trust_version: u64,
    /// What its replica holds.
    pub summary: Summary,
    /// What only a server adds, in its first Hello.
    pub welcome: Option<Welcome>,
}

/// What a replica holds, in 16 bytes or in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Summary {
    /// A digest over all heads and log positions: when it is the receiver's too, there is nothing to say.
    Digest([u8; 16]),
    /// All of it.
    Full {
        /// The head of each lane.
        heads: Vec<LaneHead>,
        /// How far each log stream has come.
        log_positions: Vec<LogPosition>,
    },
}

/// The head of one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneHead {
    /// Of which document.
    pub document: DocumentId,
    /// Which lane.
    pub lane: KeyId,
    /// Where it ends.
    pub head: Head,
}

/// A numbering of log records: one workload's, in one boot, under one right to write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogStream {
    /// Whose output it is; the agent's own under its reserved name.
    pub workload: WorkloadName,
    /// In which boot it was written.
    pub boot: BootId,
    /// Under which right to write.
    pub stamp: Stamp,
}

/// How far a log stream has come: written at its origin, durable at its store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Which stream.
    pub stream: LogStream,
    /// The number of its last record; the first record has 1.
    pub sequence: u64,
}

/// What a server says to a device before the device trusts it with anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// What this session is for.
    pub grade: Grade,
    /// The root records above the device's version, in order of their versions. The newest names the CA that the
    /// server's certificate is from.
    pub root_records: Vec<Vec<u8>>,
}

/// What a session is for, as the server judges the device's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// No certificate: the device may register, and nothing else.
    Enroll,
    /// An expired certificate: trust, a new certificate, and the device's own pushes.
    RenewOnly,
    /// All of it.
    Full,
}

/// Envelopes for the receiver's replica, those of one lane in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The envelopes, as they were signed.
    pub envelopes: Vec<Arc<[u8]>>,
}

/// A request for the envelopes of one lane that the sender lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Of which document.
    pub document: DocumentId,
    /// Which lane.
    pub lane: KeyId,
    /// Where the sender's lane ends; `None` when it has nothing of it.
    pub have: Option<Head>,
}

/// A device asks for an identity.
#[derive(Clone, PartialEq, Eq)]
pub struct Register {
    /// The enrolment token.
    pub token: TokenId,
    /// The token's secret. It is not printed.
    pub secret: Vec<u8>,
    /// A signing request for the device's key, in DER. Only the key is taken from it.
    pub csr: Vec<u8>,
    /// What the device says about itself.
    pub facts: Facts,
    /// The X25519 key for what only this device may read.
    pub sealing_key: [u8; 32],
}

impl std::fmt::Debug for Register {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Register({})", self.token)
    }
}

/// What a device says about itself, by name. Facts inform and select; they never authorise.
pub type Facts = BTreeMap<String, String>;

/// The server's answer to a request for an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The device is part of the fleet: it keeps this and dials again.
    Issued {
        /// What the server calls it.
        device: DeviceId,
        /// What people call it.
        name: DeviceName,
        /// Its certificate and those above it, leaf first, in DER.
        certificates: Vec<Vec<u8>>,
    },
    /// An operator must approve it first: it asks again later.
    Pending {
        /// After which time.
        retry_after: Duration,
    },
    /// It may not join.
    Refused(Refusal),
}

/// Why a request is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A stable name for programs to compare (`enrolment.token.expired`).
    pub code: String,
    /// One sentence for people.
    pub message: String,
}

/// A device asks for a new certificate for the key that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renew {
    /// The signing request, in DER.
    pub csr: Vec<u8>,
    /// What the device says about itself now; `None` when nothing has changed.
    pub facts: Option<Facts>,
}

/// The server's answer to a request for a new certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The certificate and those above it, leaf first, in DER.
    Issued {
        /// The certificates.
        certificates: Vec<Vec<u8>>,
    },
    /// There is none.
    Refused(Refusal),
}

/// A device asks for a part of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactWant {
    /// Which artifact.
    pub digest: ArtifactDigest,
    /// Which of its groups; an empty run asks for none.
    pub groups: WantedGroups,
    /// Whether the list of group values is wanted too, from the first group asked for.
    pub tree: bool,
}

/// Groups that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedGroups {
    /// A run of them.
    Run {
        /// The first.
        group_first: u64,
        /// How many.
        group_count: u64,
    },
    /// Some of them.
    List(Vec<u64>),
}

/// Groups of an artifact, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactGroups {
    /// Which artifact.
    pub digest: ArtifactDigest,
    /// The first group.
    pub group_first: u64,
    /// Their bytes, without a gap.
    pub content: Vec<u8>,
}

/// A part of an artifact's list of group values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactTree {
    /// Which artifact.
    pub digest: ArtifactDigest,
    /// The size of the whole artifact.
    pub size_bytes: u64,
    /// The group of the first value.
    pub group_first: u64,
    /// Values of 32 bytes each, without a gap.
    pub values: Vec<u8>,
}

/// The server will not send that artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtifactRefused {
    /// Which artifact.
    pub digest: ArtifactDigest,
    /// Why.
    pub reason: ArtifactRefusal,
}

/// Why a server will not send an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArtifactRefusal {
    /// It is not there.
    Absent,
    /// It is not meant for this device.
    Forbidden,
    /// The groups asked for lie beyond its end.
    Range,
    /// Too much is asked of the server now: ask again.
    Busy,
}

/// Log records of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPush {
    /// Which stream.
    pub stream: LogStream,
    /// The number of the first record.
    pub sequence_first: u64,
    /// How many records there are.
    pub count: u32,
    /// The records, encoded and compressed by the log store's own rules.
    pub records: Vec<u8>,
    /// The device's signature over the segment; empty for a preview.
    pub signature: Vec<u8>,
    /// Whether the lines run ahead of the spool: they are shown, and neither stored nor acknowledged.
    pub preview: bool,
}
