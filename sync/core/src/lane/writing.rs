//! A lane as its writer sees it.
//!
//! What a process writes under its stamp, it remembers: when a higher branch of its own lane turns up (its disk was
//! restored, and a peer knows better), it takes that branch as what is so, and writes its next opener above it. A
//! device's own state is the truth about the device and replaces the branch; an authority's new words are added to
//! what it had said before.

use std::collections::BTreeMap;

use super::{Changes, Lane, State, folded};
use crate::codec;
use crate::envelope::{Body, DocumentId, Envelope, Head, Kind, Need, Op, Path, Position, Previous, Value};
use crate::id::{EnvelopeHash, FleetId, KeyId, Stamp};
use crate::key::SecretKey;
use crate::limit;
use crate::time::Now;

/// Why nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// This node has no key to write with.
    #[error("this node has no key to write with")]
    ReadOnly,
    /// This node does not hold the document.
    #[error("this node does not hold {document}")]
    NotHeld {
        /// The document.
        document: DocumentId,
    },
    /// This node's key may not write the document.
    #[error("{lane} may not write {document}, or not any more")]
    NotAllowed {
        /// The document.
        document: DocumentId,
        /// The key.
        lane: KeyId,
    },
    /// The document has as many lanes as it may.
    #[error("{document} has {lanes_max} lanes, which is the limit")]
    Lanes {
        /// The document.
        document: DocumentId,
        /// The limit.
        lanes_max: usize,
    },
    /// The lane's state would not fit a snapshot.
    #[error("the state would have {bytes} bytes, the limit is {bytes_max}")]
    Full {
        /// What it would have.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
    /// Changes that wait must fit one delta.
    #[error("{ops} changes that wait have {bytes} bytes, the limits are {ops_max} and {bytes_max}")]
    Large {
        /// How many there are.
        ops: usize,
        /// How many there may be.
        ops_max: usize,
        /// What they have.
        bytes: usize,
        /// What they may have.
        bytes_max: usize,
    },
    /// One value is too large; large things are artifacts.
    #[error("the value of {path} has {bytes} bytes, the limit is {bytes_max}")]
    Value {
        /// Where.
        path: Path,
        /// What it has.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
    /// More conditions than one envelope may wait for.
    #[error("{needs} conditions to wait for, the limit is {needs_max}")]
    Needs {
        /// How many there are.
        needs: usize,
        /// How many there may be.
        needs_max: usize,
    },
    /// This node does not have itself what the change should wait for. What a writer has seen, everybody can get,
    /// and no two writers can wait for each other.
    #[error("this node lacks {need:?}, so that it cannot make others wait for it")]
    Unmet {
        /// What it lacks.
        need: Need,
    },
    /// The trust document only grows.
    #[error("the trust document only grows, {path} cannot be deleted")]
    AddOnly {
        /// What was to be deleted.
        path: Path,
    },
    /// Two hold this node's key, so that nobody believes this lane any more.
    #[error("lane {lane} of {document} is quarantined: two hold its key")]
    Quarantined {
        /// The document.
        document: DocumentId,
        /// The key.
        lane: KeyId,
    },
    /// The lane has come to the end of its epochs, which only a hostile holder of its key can bring about.
    #[error("the lane is at its last epoch")]
    LastEpoch,
}

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The fleet.
    pub fleet: FleetId,
    /// The lane's key.
    pub key: &'a SecretKey,
    /// The right to write, under which it writes.
    pub stamp: Stamp,
    /// The time, which is advice for people.
    pub now: Now,
}

/// What this process has written in its own lane under its stamp.
#[derive(Clone, Debug)]
pub(super) struct Pen {
    stamp: Stamp,
    state: State,
    changes: BTreeMap<Path, Option<Value>>,
}

impl Lane {
    /// Says whether a higher branch of the writer's own lane has come in since it last wrote under `stamp`.
    #[must_use]
    pub fn is_overtaken(&self, stamp: Stamp) -> bool {
        self.pen.as_ref().is_some_and(|pen| pen.stamp == stamp)
            && self.head().is_some_and(|head| head.position.stamp != stamp)
    }

    /// Writes `ops`, to have their effect once `needs` are met. Nothing is written when nothing would change.
    pub(crate) fn write(
        &mut self,
        writer: Writer<'_>,
        ops: Vec<Op>,
        needs: Vec<Need>,
        met: impl Fn(&Need) -> bool,
    ) -> Result<(Vec<Envelope>, Changes), WriteError> {
        self.check_ops(&ops)?;
        check_needs(&needs, &met)?;
        let base = self.base(writer.stamp);
        let next = folded(base.clone(), &ops);
        if next == base && !self.is_overtaken(writer.stamp) {
            return Ok((Vec::new(), Changes::default()));
        }
        self.check_fits(writer, &next)?;
        self.check_fits(writer, &base)?;
        let written = self.envelopes(writer, &base, &next, &ops, needs)?;
        let mut changes = Changes::default();
        for envelope in &written {
            changes.extend(self.append(envelope.clone(), &met));
        }
        let pen = self.pen.take().filter(|pen| pen.stamp == writer.stamp);
        let mut pen = pen.unwrap_or_else(|| Pen { stamp: writer.stamp, state: State::new(), changes: BTreeMap::new() });
        for op in ops {
            match op {
                Op::Set { path, value } => pen.changes.insert(path, Some(value)),
                Op::Delete { path } => pen.changes.insert(path, None),
                Op::Unknown { .. } => None,
            };
        }
        pen.state = next;
        self.pen = Some(pen);
        Ok((written, changes))
    }

    fn check_ops(&self, ops: &[Op]) -> Result<(), WriteError> {
        if self.is_quarantined() {
            return Err(WriteError::Quarantined { document: self.document, lane: self.writer });
        }
        for op in ops {
            match op {
                Op::Delete { path } if self.document == DocumentId::Trust => {
                    return Err(WriteError::AddOnly { path: path.clone() });
                }
                Op::Set { path, value: Value::Text(text) } if text.len() > limit::VALUE_BYTES_MAX => {
                    return Err(too_large(path, text.len()));
                }
                Op::Set { path, value: Value::Bytes(bytes) } if bytes.len() > limit::VALUE_BYTES_MAX => {
                    return Err(too_large(path, bytes.len()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The state that the next write changes.
    fn base(&self, stamp: Stamp) -> State {
        let pen = self.pen.as_ref().filter(|_| self.is_overtaken(stamp));
        match (self.document, pen) {
            (DocumentId::Actual(_), Some(pen)) => pen.state.clone(),
            (_, Some(pen)) => {
                let mut state = self.unsettled();
                for (path, value) in &pen.changes {
                    match value {
                        Some(value) => state.insert(path.clone(), value.clone()),
                        None => state.remove(path),
                    };
                }
                state
            }
            (_, None) => self.unsettled(),
        }
    }

    /// The state as if nothing waited: what the writer has said.
    fn unsettled(&self) -> State {
        let mut state = self.state.clone();
        if self.document == DocumentId::Trust {
            let stays = self.residue.iter().filter(|(path, _)| !self.state.contains_key(*path));
            state.extend(stays.map(|(path, residue)| (path.clone(), residue.value.clone())).collect::<Vec<_>>());
        }
        let waiting = self.links.iter().filter_map(|link| link.waiting.as_ref());
        waiting.fold(state, |state, envelope| folded(state, &envelope.body.ops))
    }

    fn check_fits(&self, writer: Writer<'_>, next: &State) -> Result<(), WriteError> {
        // The longest header that an opener can have, so that a state that fits now fits in every epoch to come.
        let position = Position { epoch: u64::MAX - 1, stamp: Stamp(u64::MAX), seq: u64::MAX };
        let parent = Head { position, hash: EnvelopeHash::from_bytes([0; EnvelopeHash::LENGTH]) };
        let opener = Position { epoch: u64::MAX, stamp: Stamp(u64::MAX), seq: 0 };
        let mut body = self.body(writer, opener, Previous::Parent(parent), snapshot_ops(next), Vec::new());
        body.wall = crate::time::Wall(i64::MIN);
        let bytes = sealed_length(&body);
        if bytes > limit::SNAPSHOT_BYTES_MAX {
            return Err(WriteError::Full { bytes, bytes_max: limit::SNAPSHOT_BYTES_MAX });
        }
        Ok(())
    }

    /// Decides between a delta and an opener, or both: an opener for what is so already, and a delta that waits.
    fn envelopes(
        &self,
        writer: Writer<'_>,
        base: &State,
        next: &State,
        ops: &[Op],
        needs: Vec<Need>,
    ) -> Result<Vec<Envelope>, WriteError> {
        let head = self.head().filter(|head| head.position.stamp == writer.stamp);
        let room = limit::EPOCH_BYTES_MAX.saturating_sub(self.epoch_bytes());
        if let Some(head) = head.filter(|head| head.position.seq < limit::EPOCH_CHANGES_MAX) {
            let delta = self.delta(writer, head, ops, &needs);
            if fits_delta(&delta) && delta.bytes.len() <= room {
                return Ok(vec![delta]);
            }
        }
        if needs.is_empty() {
            return Ok(vec![self.opener(writer, next)?]);
        }
        let opener = self.opener(writer, base)?;
        let delta = self.delta(writer, opener.head(), ops, &needs);
        if !fits_delta(&delta) {
            let (ops_max, bytes_max) = (limit::ENVELOPE_OPS_MAX, limit::DELTA_BYTES_MAX);
            return Err(WriteError::Large { ops: ops.len(), ops_max, bytes: delta.bytes.len(), bytes_max });
        }
        Ok(vec![opener, delta])
    }

    fn delta(&self, writer: Writer<'_>, head: Head, ops: &[Op], needs: &[Need]) -> Envelope {
        let position = Position { seq: head.position.seq.saturating_add(1), ..head.position };
        codec::seal(self.body(writer, position, Previous::Link(head.hash), ops.to_vec(), needs.to_vec()), writer.key)
    }

    fn opener(&self, writer: Writer<'_>, state: &State) -> Result<Envelope, WriteError> {
        let (epoch, previous) = match self.head() {
            None => (1, Previous::Start),
            Some(head) => (head.position.epoch.checked_add(1).ok_or(WriteError::LastEpoch)?, Previous::Parent(head)),
        };
        let position = Position { epoch, stamp: writer.stamp, seq: 0 };
        Ok(codec::seal(self.body(writer, position, previous, snapshot_ops(state), Vec::new()), writer.key))
    }

    fn body(&self, writer: Writer<'_>, position: Position, previous: Previous, ops: Vec<Op>, needs: Vec<Need>) -> Body {
        let kind = if matches!(previous, Previous::Link(_)) { Kind::Delta } else { Kind::Snapshot };
        Body {
            fleet: writer.fleet,
            document: self.document,
            lane: self.writer,
            position,
            previous,
            wall: writer.now.wall,
            quality: writer.now.quality,
            needs,
            kind,
            ops,
        }
    }
}

fn check_needs(needs: &[Need], met: impl Fn(&Need) -> bool) -> Result<(), WriteError> {
    if needs.len() > limit::ENVELOPE_NEEDS_MAX {
        return Err(WriteError::Needs { needs: needs.len(), needs_max: limit::ENVELOPE_NEEDS_MAX });
    }
    match needs.iter().find(|need| !met(need)) {
        Some(need) => Err(WriteError::Unmet { need: *need }),
        None => Ok(()),
    }
}

fn snapshot_ops(state: &State) -> Vec<Op> {
    state.iter().map(|(path, value)| Op::Set { path: path.clone(), value: value.clone() }).collect()
}

fn sealed_length(body: &Body) -> usize {
    codec::encode(body).len().saturating_add(crate::key::Signature::LENGTH)
}

fn fits_delta(delta: &Envelope) -> bool {
    delta.body.ops.len() <= limit::ENVELOPE_OPS_MAX && delta.bytes.len() <= limit::DELTA_BYTES_MAX
}

fn too_large(path: &Path, bytes: usize) -> WriteError {
    WriteError::Value { path: path.clone(), bytes, bytes_max: limit::VALUE_BYTES_MAX }
}
