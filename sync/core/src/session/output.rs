//! What a session decides, in the order in which it must happen.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Grade, LogPosition, Message};
use super::{Class, CloseCode};
use crate::envelope::DocumentId;
use crate::id::KeyId;
use crate::lane::ForkProof;
use crate::replica::LaneRecord;
use crate::trust::RootRecord;

/// What a session decides. Its owner persists what is to be persisted first, and does the rest once that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Sends a message on the stream of a class.
    Send(Class, Message),
    /// Stores a change of a lane.
    Persist(LaneRecord),
    /// Extends the stored root chain. The session has checked it against the chain it was opened with.
    RootRecords(Vec<RootRecord>),
    /// The root's keys signed two records of this version: the first was kept, and people must be told.
    RootAlarm {
        /// The version.
        version: u64,
    },
    /// The server is proven to be of the fleet, and says what the session is for. Only now may the device send a
    /// secret or a signing request.
    Welcomed(Grade),
    /// A lane has a new head. Whoever else holds the document may not have the envelope yet.
    Applied {
        /// Which document.
        document: DocumentId,
        /// Which lane.
        lane: KeyId,
        /// The envelope.
        envelope: Arc<[u8]>,
    },
    /// What a document says has changed: what depends on it must be decided again.
    Changed(DocumentId),
    /// Two hold the key of a lane, and this proves it.
    Fork {
        /// Of which document.
        document: DocumentId,
        /// Which lane.
        lane: KeyId,
        /// The proof.
        proof: Box<ForkProof>,
    },
    /// A lane says what only a newer version of fleetd understands: it is stored without effect.
    NeedsAgent {
        /// Which document.
        document: DocumentId,
        /// Which lane.
        lane: KeyId,
    },
    /// How far the peer's side of each log stream has come. A stream that is not named has not begun there.
    LogPositions(Vec<LogPosition>),
    /// A message that is not the session's own business: registration, certificates, artifacts, logs.
    Deliver(Message),
    /// Both ends have what the other had: the lanes of each have reached the other's heads.
    Live,
    /// A probe has ended.
    Probed {
        /// Whether the peer answered in time.
        answered: bool,
    },
    /// The server asks to be left alone for so long; it closes the session next.
    RetryAfter(Duration),
    /// Closes the connection. Nothing follows.
    Close(CloseCode),
}
