//! Envelopes: signed changes of one lane.
//!
//! An envelope says who changed what, in which order within the writer's own lane, and nothing about other lanes
//! beyond the conditions it waits for. Its bytes are kept as they came: [`crate::codec`] defines them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::id::{EnvelopeHash, FleetId, KeyId, LocalId, Stamp};
use crate::key::Signature;
use crate::limit;
use crate::time::{ClockQuality, Wall};

/// Which document: one of trust for the fleet, and two for each device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentId {
    /// Revocations and denies of the fleet; it syncs first.
    Trust,
    /// What a device should run; one lane for each authority.
    Desired(LocalId),
    /// What a device runs; the device's own lane alone.
    Actual(LocalId),
}

impl DocumentId {
    /// The device that the document is about, if it is about one.
    #[must_use]
    pub const fn device(self) -> Option<LocalId> {
        match self {
            Self::Trust => None,
            Self::Desired(device) | Self::Actual(device) => Some(device),
        }
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust => f.write_str("trust"),
            Self::Desired(device) => write!(f, "desired/{device}"),
            Self::Actual(device) => write!(f, "actual/{device}"),
        }
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in one lane. Positions order by epoch, then stamp, then sequence; the lower branch is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The run of changes since a snapshot; the first is 1.
    pub epoch: u64,
    /// The writer's right to write, drawn when it was taken.
    pub stamp: Stamp,
    /// The change within the epoch; an opener has 0.
    pub seq: u64,
}

/// A place in one lane and the hash of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// Where.
    pub position: Position,
    /// What.
    pub hash: EnvelopeHash,
}

/// What an envelope follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// Nothing: the first envelope of its lane.
    Start,
    /// The envelope just before it in the same epoch and stamp.
    Link(EnvelopeHash),
    /// The head that an opener was written above.
    Parent(Head),
}

/// Whether an envelope changes its lane's state or replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its operations change the state.
    Delta,
    /// Its operations are the whole state: the opener of an epoch.
    Snapshot,
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePathError {
    /// Too short or too long.
    #[error("the path has {length} bytes; it needs 1 to {length_max}")]
    Length {
        /// What it has.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
    /// A character that is not allowed, or an empty segment.
    #[error("the path {text:?} is not made of segments of a-z, A-Z, 0-9, '.', '-', '_', '+' joined by '/'")]
    Shape {
        /// What was given.
        text: String,
    },
}

/// A flat key at the root of a document (`workload/coffee/release`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

impl Path {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Joins segments that are names or ids, which are plain and short enough for any path.
    #[expect(clippy::expect_used, reason = "names and ids have only characters of segments, and three of them fit")]
    pub(crate) fn of_segments(segments: &[&str]) -> Self {
        segments.join("/").parse().expect("segments that are names or ids make a path")
    }

    /// Its segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for Path {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, ParsePathError> {
        if text.is_empty() || text.len() > limit::PATH_CHARS_MAX {
            return Err(ParsePathError::Length { length: text.len(), length_max: limit::PATH_CHARS_MAX });
        }
        let well_formed = text.split('/').all(|segment| {
            !segment.is_empty() && segment.chars().all(|c| c.is_ascii_alphanumeric() || ".-_+".contains(c))
        });
        if well_formed { Ok(Self(text.into())) } else { Err(ParsePathError::Shape { text: text.to_owned() }) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value in a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Yes or no.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Text.
    Text(String),
    /// Bytes, such as a digest.
    Bytes(Vec<u8>),
}

/// One change of a lane's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Gives a path a value.
    Set {
        /// Where.
        path: Path,
        /// What.
        value: Value,
    },
    /// Removes a path.
    Delete {
        /// Where.
        path: Path,
    },
    /// A change of a known class that this version does not know: kept, and passed on.
    Unknown {
        /// Its number.
        code: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

impl Op {
    /// The path that it changes, if it is known.
    #[must_use]
    pub const fn path(&self) -> Option<&Path> {
        match self {
            Self::Set { path, .. } | Self::Delete { path } => Some(path),
            Self::Unknown { .. } => None,
        }
    }
}

/// A condition that an envelope waits for: stored at once, without effect until it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A lane has reached a head or gone above it.
    Head {
        /// Of which document.
        document: DocumentId,
        /// Which lane.
        lane: KeyId,
        /// At least here.
        position: Position,
    },
    /// The root chain has reached a version.
    TrustVersion(u64),
}

/// What an envelope says, and what its signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The fleet: an envelope of another is worth nothing here.
    pub fleet: FleetId,
    /// The document that it changes.
    pub document: DocumentId,
    /// The writer's key, which names the lane.
    pub lane: KeyId,
    /// Its place in the lane.
    pub position: Position,
    /// What it follows.
    pub previous: Previous,
    /// When its writer believes that it wrote it: advice for people.
    pub wall: Wall,
    /// How far to believe that.
    pub quality: ClockQuality,
    /// What it waits for.
    pub needs: Vec<Need>,
    /// Change or whole state.
    pub kind: Kind,
    /// The changes.
    pub ops: Vec<Op>,
}

/// A body with its signature and the very bytes they travelled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What it says.
    pub body: Body,
    /// Who vouches for it: the lane's key.
    pub signature: Signature,
    /// The bytes, as they are stored and sent.
    pub bytes: Arc<[u8]>,
    /// The hash of the body, by which the next envelope names this one.
    pub hash: EnvelopeHash,
}

impl Envelope {
    /// Where it stands and what it is.
    #[must_use]
    pub const fn head(&self) -> Head {
        Head { position: self.body.position, hash: self.hash }
    }

    /// The bytes that the signature covers: all but the signature.
    #[must_use]
    pub fn signed_bytes(&self) -> &[u8] {
        self.bytes.split_last_chunk::<{ Signature::LENGTH }>().map_or(&[], |(signed, _)| signed)
    }

    /// Says whether it begins an epoch.
    #[must_use]
    pub const fn is_opener(&self) -> bool {
        matches!(self.body.kind, Kind::Snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_of_plain_segments() {
        assert!("workload/coffee/release".parse::<Path>().is_ok());
        for text in ["", "/", "a//b", "/a", "a/", "a b", "a/\u{0}", "ä"] {
            assert!(text.parse::<Path>().is_err(), "{text:?}");
        }
        assert!("a".repeat(limit::PATH_CHARS_MAX + 1).parse::<Path>().is_err());
    }

    #[test]
    fn positions_order_by_epoch_then_stamp_then_sequence() {
        let at = |epoch, stamp, seq| Position { epoch, stamp: Stamp(stamp), seq };
        assert!(at(2, 0, 0) > at(1, 9, 9));
        assert!(at(1, 2, 0) > at(1, 1, 9));
        assert!(at(1, 1, 2) > at(1, 1, 1));
    }
}
