//! The Automerge view of a document; the only file that names automerge.
//!
//! Hot paths read the lanes' typed state. Where a merged document, its history or an export is wanted, the lanes'
//! envelopes are folded into Automerge documents, each lane alone under an actor of its own, and these are merged.
//! Lanes are therefore always concurrent: what several say of one path stands side by side, and nothing here picks
//! a winner. A snapshot begins its lane's document afresh, so that history stays as short as the lane.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, AutomergeError, ObjId, ROOT, ReadDoc, ScalarValue};

use crate::codec::{self, DecodeEnvelopeError};
use crate::document::Document;
use crate::envelope::{Envelope, Op, Path, Position, Value};
use crate::id::KeyId;
use crate::lane::Lane;

/// Why there is no view. The lanes stand as they were, and a view can be asked for again.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// An envelope that is kept cannot be read any more.
    #[error("an envelope of lane {lane} cannot be read")]
    Decode {
        /// Whose.
        lane: KeyId,
        /// Why.
        source: DecodeEnvelopeError,
    },
    /// Automerge refused a change.
    #[error("automerge refused a change")]
    Automerge(#[from] AutomergeError),
    /// Automerge panicked, which it can on data that it does not expect.
    #[error("automerge panicked")]
    Panicked,
}

/// All lanes of a document, merged.
#[derive(Debug)]
pub struct View {
    merged: AutoCommit,
}

impl View {
    /// Folds and merges the lanes of `document` that `counts` lets through.
    ///
    /// # Errors
    /// [`FoldError`].
    pub fn of(document: &Document, counts: impl Fn(&Lane) -> bool) -> Result<Self, FoldError> {
        let lanes: Vec<_> = document.lanes().filter(|lane| counts(lane)).collect();
        let merge = || {
            let mut merged = AutoCommit::new().with_actor(ActorId::from([0_u8; KeyId::LENGTH]));
            for lane in lanes {
                merged.merge(&mut fold(lane)?)?;
            }
            Ok(Self { merged })
        };
        // Nothing outlives a panic: what was being built is dropped with it.
        catch_unwind(AssertUnwindSafe(merge)).unwrap_or(Err(FoldError::Panicked))
    }

    /// What each lane says of `path`, in the order of the lanes.
    ///
    /// # Errors
    /// [`FoldError::Automerge`].
    pub fn values(&self, path: &Path) -> Result<Vec<(KeyId, Value)>, FoldError> {
        let all = self.merged.get_all(ROOT, path.as_str())?;
        let mut values: Vec<_> =
            all.into_iter().filter_map(|(value, id)| Some((lane_of(&id)?, read_scalar(value.as_scalar()?)?))).collect();
        values.sort();
        Ok(values)
    }

    /// The paths of which any lane says something, sorted.
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        self.merged.keys(ROOT).filter_map(|key| key.parse().ok())
    }

    /// The document in Automerge's own format, for export.
    #[must_use]
    pub fn save(&mut self) -> Vec<u8> {
        self.merged.save()
    }
}

/// Folds one lane: a change for each envelope that has its effect.
fn fold(lane: &Lane) -> Result<AutoCommit, FoldError> {
    let mut folded = AutoCommit::new();
    for bytes in lane.settled_envelopes() {
        let envelope = codec::decode(bytes).map_err(|source| FoldError::Decode { lane: lane.writer(), source })?;
        if envelope.is_opener() {
            folded = AutoCommit::new().with_actor(actor_of(&envelope));
        }
        for op in &envelope.body.ops {
            match op {
                Op::Set { path, value } => folded.put(ROOT, path.as_str(), write_scalar(value))?,
                Op::Delete { path } => folded.delete(ROOT, path.as_str())?,
                Op::Unknown { .. } => {}
            }
        }
        let seconds = envelope.body.wall.0.div_euclid(1000);
        folded.commit_with(CommitOptions::default().with_time(seconds));
    }
    Ok(folded)
}

/// An actor for each epoch of a lane: Automerge counts an actor's changes, and a snapshot begins at one again.
fn actor_of(opener: &Envelope) -> ActorId {
    let Position { epoch, stamp, .. } = opener.body.position;
    let epoch = [epoch.to_be_bytes(), stamp.0.to_be_bytes()].concat();
    ActorId::from([opener.body.lane.as_bytes().as_slice(), &epoch].concat())
}

fn lane_of(id: &ObjId) -> Option<KeyId> {
    match id {
        ObjId::Root => None,
        ObjId::Id(_, actor, _) => actor.to_bytes().first_chunk().map(|lane| KeyId::from_bytes(*lane)),
    }
}

fn write_scalar(value: &Value) -> ScalarValue {
    match value {
        Value::Boolean(yes) => ScalarValue::Boolean(*yes),
        Value::Integer(number) => ScalarValue::Int(*number),
        Value::Text(text) => ScalarValue::Str(text.as_str().into()),
        Value::Bytes(bytes) => ScalarValue::Bytes(bytes.clone()),
    }
}

fn read_scalar(value: &ScalarValue) -> Option<Value> {
    match value {
        ScalarValue::Boolean(yes) => Some(Value::Boolean(*yes)),
        ScalarValue::Int(number) => Some(Value::Integer(*number)),
        ScalarValue::Str(text) => Some(Value::Text(text.to_string())),
        ScalarValue::Bytes(bytes) => Some(Value::Bytes(bytes.clone())),
        _ => None,
    }
}
