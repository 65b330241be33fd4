//! A document: its lanes, at most eight, each with one writer.

use std::collections::BTreeMap;

use crate::envelope::DocumentId;
use crate::id::KeyId;
use crate::lane::Lane;
use crate::limit;

/// A document.
#[derive(Clone, Debug)]
pub struct Document {
    id: DocumentId,
    /// Boxed, since a map sets room for eleven aside where most documents have one.
    lanes: BTreeMap<KeyId, Box<Lane>>,
}

impl Document {
    /// Starts an empty document.
    #[must_use]
    pub const fn new(id: DocumentId) -> Self {
        Self { id, lanes: BTreeMap::new() }
    }

    /// Which one it is.
    #[must_use]
    pub const fn id(&self) -> DocumentId {
        self.id
    }

    /// Its lanes, in the order of their writers' ids.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.values().map(|lane| &**lane)
    }

    /// One lane, if something was written in it.
    #[must_use]
    pub fn lane(&self, writer: KeyId) -> Option<&Lane> {
        self.lanes.get(&writer).map(|lane| &**lane)
    }

    /// Says whether `writer` has a lane, or could be given one.
    #[must_use]
    pub fn has_room_for(&self, writer: KeyId) -> bool {
        self.lanes.contains_key(&writer) || self.lanes.len() < limit::DOCUMENT_LANES_MAX
    }

    /// The lane of `writer`, begun if it is not there. Its caller has looked at [`Document::has_room_for`].
    pub(crate) fn begin(&mut self, writer: KeyId) -> &mut Lane {
        self.lanes.entry(writer).or_insert_with(|| Box::new(Lane::new(self.id, writer)))
    }

    /// Puts a lane back that was taken out, or in.
    pub(crate) fn put(&mut self, lane: Lane) {
        self.lanes.insert(lane.writer(), Box::new(lane));
    }

    pub(crate) fn remove(&mut self, writer: KeyId) -> Option<Lane> {
        self.lanes.remove(&writer).map(|lane| *lane)
    }
}
