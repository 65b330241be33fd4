//! How a turn becomes durable: mutations of records, handed to a group commit that answers when they are safe.

use std::fmt;

/// A set of records that are scanned together. The discriminant is on disk: append, never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// Format, fleet id and other facts of the store itself.
    Meta = 0,
    /// Envelopes by document, lane and position.
    Envelope = 1,
    /// Device records by local id.
    Device = 2,
    /// Enrolment tokens by token id.
    EnrolmentToken = 3,
    /// Access tokens by access id.
    AccessToken = 4,
    /// Releases by workload and version.
    Release = 5,
    /// Artifacts by digest.
    Artifact = 6,
    /// Plans by plan id.
    Plan = 7,
    /// Rollouts by rollout id.
    Rollout = 8,
    /// Assignments by rollout and device.
    Assignment = 9,
    /// Workload records of an agent, by name.
    Workload = 10,
    /// Log positions by stream.
    LogPosition = 11,
    /// Durable timers by wake time.
    Timer = 12,
    /// Answers to mutations already done, by request id.
    Request = 13,
    /// The agent's own state.
    Agent = 14,
    /// Root records by version.
    RootRecord = 15,
    /// Names in use, each with the device that has it.
    Name = 16,
    /// Devices that wait for an operator's approval, by local id.
    PendingDevice = 17,
    /// Uses of enrolment tokens, by token id and local id.
    TokenUse = 18,
    /// What a device must not fall below, whatever becomes of the rest: an agent keeps it outside its database.
    Floor = 19,
    /// Entries of the audit log, by number.
    AuditEntry = 20,
    /// How far the audit log is, and which of its calls have no outcome yet.
    Audit = 21,
    /// Groups of devices, by name.
    Group = 22,
    /// What stands over the whole fleet: stops by their holds, and denied releases by their manifests.
    Order = 23,
    /// Configurations by workload and name.
    Configuration = 24,
}

impl Space {
    /// Every space, in the order of their numbers.
    pub const ALL: [Self; 25] = [
        Self::Meta,
        Self::Envelope,
        Self::Device,
        Self::EnrolmentToken,
        Self::AccessToken,
        Self::Release,
        Self::Artifact,
        Self::Plan,
        Self::Rollout,
        Self::Assignment,
        Self::Workload,
        Self::LogPosition,
        Self::Timer,
        Self::Request,
        Self::Agent,
        Self::RootRecord,
        Self::Name,
        Self::PendingDevice,
        Self::TokenUse,
        Self::Floor,
        Self::AuditEntry,
        Self::Audit,
        Self::Group,
        Self::Order,
        Self::Configuration,
    ];
}

/// The revision of one value: the number of the commit that wrote it. Absent values have revision 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Writes a value.
    Put {
        /// Where.
        space: Space,
        /// Under which key.
        key: Vec<u8>,
        /// What.
        value: Vec<u8>,
    },
    /// Removes a value, which may be absent.
    Delete {
        /// Where.
        space: Space,
        /// Under which key.
        key: Vec<u8>,
    },
    /// Refuses the whole batch unless the key's revision is still the one that was read.
    Expect {
        /// Where.
        space: Space,
        /// Under which key.
        key: Vec<u8>,
        /// The revision that was read; [`Revision`] 0 for "absent".
        revision: Revision,
    },
    /// Appends one entry to a segment log.
    Append {
        /// The log's name, a file name.
        log: String,
        /// The entry's number, one above the last.
        sequence: u64,
        /// What to append.
        entry: Vec<u8>,
    },
    /// Forgets the entries of a segment log up to and with `through`, whole segments at a time.
    Forget {
        /// The log's name.
        log: String,
        /// The last entry that may go.
        through: u64,
    },
}

/// Names the actor whose turns are applied in order (`device/loc_…`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorKey(String);

impl ActorKey {
    /// Names the actor of one kind with one id.
    #[must_use]
    pub fn new(kind: &str, id: impl fmt::Display) -> Self {
        Self(format!("{kind}/{id}"))
    }

    /// Names the only actor of a kind.
    #[must_use]
    pub fn only(kind: &str) -> Self {
        Self(kind.to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ActorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One turn's mutations, all or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Whose turn it is.
    pub actor: ActorKey,
    /// What it changes, in order.
    pub mutations: Vec<Mutation>,
}

/// Why a batch is not durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A value has changed since it was read.
    #[error("a record in {space:?} is at revision {found:?}, expected {expected:?}")]
    Stale {
        /// Where.
        space: Space,
        /// What was expected.
        expected: Revision,
        /// What stands there.
        found: Revision,
    },
    /// An earlier batch of this actor failed, and it has not reloaded since.
    #[error("an earlier turn of {actor} failed; it must reload first")]
    Refused {
        /// The actor.
        actor: ActorKey,
    },
    /// The log's next entry has another number.
    #[error("log {log} expects entry {expected}, got {found}")]
    Sequence {
        /// The log's name.
        log: String,
        /// The number it expects.
        expected: u64,
        /// The number it was given.
        found: u64,
    },
    /// The device is full.
    #[error("no space is left on the device")]
    Full,
    /// The store failed; the text is the operating system's.
    #[error("the store failed: {cause}")]
    Failed {
        /// What went wrong.
        cause: String,
    },
}

/// Called once, when a batch is durable or has failed. It only posts a message: it runs on the store's own thread.
pub type Completion = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// A group commit: takes batches, makes many durable at once, and answers each.
///
/// Batches of one actor are applied in the order of their submission. After a failure it refuses that actor's
/// batches until [`Commit::reloaded`].
pub trait Commit: Send + Sync + 'static {
    /// Queues `batch` and calls `done` when it is durable or has failed.
    fn submit(&self, batch: Batch, done: Completion);

    /// Says that the actor has dropped what was unreleased and has loaded its state again.
    fn reloaded(&self, actor: &ActorKey);
}
