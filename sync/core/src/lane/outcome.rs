//! What became of an envelope that was received.

use crate::codec::DecodeEnvelopeError;
use crate::envelope::{DocumentId, Head, Path};
use crate::id::{FleetId, KeyId};

use super::fork::ForkProof;

/// What became of an envelope that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the lane's new head, and its operations have their effect.
    Applied,
    /// It is the lane's new head; its operations wait for what it needs, or for one before it that waits.
    Parked,
    /// It is held already.
    Duplicate,
    /// It is below the lane's head, on this branch or another: its writer has gone on without it.
    Stale,
    /// Something between the head and it is missing. It was dropped: ask for what follows `have`.
    Gap {
        /// The head to ask from.
        have: Option<Head>,
    },
    /// It proves that two hold the lane's key.
    Forked(Box<ForkProof>),
    /// It says what only a newer agent understands. It was dropped, and its lane says so.
    NeedsAgent,
    /// It is worth nothing here.
    Refused(Refusal),
}

/// Why an envelope is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its bytes are no envelope, or too many.
    #[error("the bytes are no envelope")]
    Malformed(#[from] DecodeEnvelopeError),
    /// It belongs to another fleet.
    #[error("the envelope is of fleet {found}, this node is of {expected}")]
    ForeignFleet {
        /// This node's fleet.
        expected: FleetId,
        /// The envelope's.
        found: FleetId,
    },
    /// This node does not hold its document.
    #[error("this node does not hold {document}")]
    NotHeld {
        /// The document.
        document: DocumentId,
    },
    /// Its key may not write its document.
    #[error("{lane} may not write {document}")]
    ForeignLane {
        /// The document.
        document: DocumentId,
        /// The key.
        lane: KeyId,
    },
    /// Its key was revoked.
    #[error("{lane} is revoked")]
    Revoked {
        /// The key.
        lane: KeyId,
    },
    /// Its lane is quarantined, since two hold its key.
    #[error("lane {lane} of {document} is quarantined: two hold its key")]
    Quarantined {
        /// The document.
        document: DocumentId,
        /// The key.
        lane: KeyId,
    },
    /// Its document has as many lanes as it may.
    #[error("{document} has {lanes_max} lanes, which is the limit")]
    Lanes {
        /// The document.
        document: DocumentId,
        /// The limit.
        lanes_max: usize,
    },
    /// Its epoch has as many changes or bytes as it may.
    #[error("the epoch has {changes} changes of {bytes} bytes, the limits are {changes_max} and {bytes_max}")]
    EpochFull {
        /// What it would have.
        changes: u64,
        /// What it may have.
        changes_max: u64,
        /// What it would have.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
    /// Its signature is not that of its lane's key.
    #[error("the signature is not that of {lane}")]
    Signature {
        /// The key.
        lane: KeyId,
    },
    /// A snapshot that waits for something, that deletes, or whose paths are not each once and in order.
    #[error("the snapshot is not a list of paths in order, each set once and at once")]
    Snapshot,
    /// The trust document only grows.
    #[error("the trust document only grows, {path} cannot be deleted")]
    AddOnly {
        /// What was to be deleted.
        path: Path,
    },
}

/// The kinds of [`Refusal`], by which they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// [`Refusal::Malformed`], but for size.
    Malformed,
    /// [`Refusal::Malformed`] by its size.
    Oversize,
    /// [`Refusal::ForeignFleet`].
    ForeignFleet,
    /// [`Refusal::NotHeld`].
    NotHeld,
    /// [`Refusal::ForeignLane`].
    ForeignLane,
    /// [`Refusal::Revoked`].
    Revoked,
    /// [`Refusal::Quarantined`].
    Quarantined,
    /// [`Refusal::Lanes`].
    Lanes,
    /// [`Refusal::EpochFull`].
    EpochFull,
    /// [`Refusal::Signature`].
    Signature,
    /// [`Refusal::Snapshot`] and [`Refusal::AddOnly`].
    Meaning,
}

impl Refusal {
    /// The kind by which it is counted.
    #[must_use]
    pub const fn kind(&self) -> RefusalKind {
        match self {
            Self::Malformed(DecodeEnvelopeError::Size { .. }) => RefusalKind::Oversize,
            Self::Malformed(_) => RefusalKind::Malformed,
            Self::ForeignFleet { .. } => RefusalKind::ForeignFleet,
            Self::NotHeld { .. } => RefusalKind::NotHeld,
            Self::ForeignLane { .. } => RefusalKind::ForeignLane,
            Self::Revoked { .. } => RefusalKind::Revoked,
            Self::Quarantined { .. } => RefusalKind::Quarantined,
            Self::Lanes { .. } => RefusalKind::Lanes,
            Self::EpochFull { .. } => RefusalKind::EpochFull,
            Self::Signature { .. } => RefusalKind::Signature,
            Self::Snapshot | Self::AddOnly { .. } => RefusalKind::Meaning,
        }
    }
}
