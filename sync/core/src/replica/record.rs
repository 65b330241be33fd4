//! What a replica wants stored, and under which keys.

use std::sync::Arc;

use crate::codec::{self, Writer};
use crate::commit::{Mutation, Space};
use crate::envelope::{DocumentId, Position};
use crate::id::KeyId;

/// A change of what is stored of one lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaneRecord {
    /// Stores an envelope.
    Put {
        /// Of which document.
        document: DocumentId,
        /// Of which lane.
        lane: KeyId,
        /// Where in the lane.
        position: Position,
        /// Its bytes.
        bytes: Arc<[u8]>,
    },
    /// Forgets an envelope, since a snapshot stands above it.
    Forget {
        /// Of which document.
        document: DocumentId,
        /// Of which lane.
        lane: KeyId,
        /// Where in the lane.
        position: Position,
    },
    /// Stores what a lane remembers beyond its envelopes, in place of what it remembered before.
    Remember {
        /// Of which document.
        document: DocumentId,
        /// Of which lane.
        lane: KeyId,
        /// The memory.
        bytes: Vec<u8>,
    },
    /// Forgets what a lane remembered.
    ForgetMemory {
        /// Of which document.
        document: DocumentId,
        /// Of which lane.
        lane: KeyId,
    },
}

impl LaneRecord {
    /// The document that it is of.
    #[must_use]
    pub const fn document(&self) -> DocumentId {
        match self {
            Self::Put { document, .. }
            | Self::Forget { document, .. }
            | Self::Remember { document, .. }
            | Self::ForgetMemory { document, .. } => *document,
        }
    }

    /// The key in [`Space::Envelope`]. Keys of one lane order as its positions do, and its memory comes before.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let (document, lane, position) = match self {
            Self::Put { document, lane, position, .. } | Self::Forget { document, lane, position } => {
                (document, lane, Some(position))
            }
            Self::Remember { document, lane, .. } | Self::ForgetMemory { document, lane } => (document, lane, None),
        };
        let mut key = document_prefix(*document);
        key.extend_from_slice(lane.as_bytes());
        if let Some(Position { epoch, stamp, seq }) = position {
            // The highest byte first, so that the order of keys is that of numbers.
            [*epoch, stamp.0, *seq].iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
        }
        key
    }

    /// The change of the store that the record asks for.
    #[must_use]
    pub fn into_mutation(self) -> Mutation {
        let (space, key) = (Space::Envelope, self.key());
        match self {
            Self::Put { bytes, .. } => Mutation::Put { space, key, value: bytes.to_vec() },
            Self::Remember { bytes, .. } => Mutation::Put { space, key, value: bytes },
            Self::Forget { .. } | Self::ForgetMemory { .. } => Mutation::Delete { space, key },
        }
    }
}

/// What the keys of a document's records start with, for loading it.
#[must_use]
pub fn document_prefix(document: DocumentId) -> Vec<u8> {
    let mut writer = Writer::new();
    codec::write_document(&mut writer, document);
    writer.finish()
}
