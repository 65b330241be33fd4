//! Answers to changes that were made, by their request's id.

use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::AccessId;
use fleetd_sync_core::time::Wall;
use prost::Message as _;

use super::{ReadRecordError, timestamp, wall};

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenAnswer {
    /// The RPC's request, by its full name.
    pub method: String,
    /// The BLAKE3 hash of the request.
    pub request_hash: Vec<u8>,
    /// The encoded response; empty where it held a secret, which is kept nowhere. `None`: all that is known is that
    /// the change was made.
    pub response: Option<Vec<u8>>,
    /// When it was given.
    pub answered_at: Wall,
}

/// The key of an answer: one caller never sees what another was answered.
#[must_use]
pub fn request_key(caller: AccessId, request_id: &str) -> Vec<u8> {
    [caller.as_bytes().as_slice(), request_id.as_bytes()].concat()
}

/// The change of the store that keeps an answer.
#[must_use]
pub fn put(key: Vec<u8>, answer: &GivenAnswer) -> Mutation {
    let record = stored::RequestRecord {
        method: answer.method.clone(),
        request_hash: answer.request_hash.clone(),
        is_receipt: answer.response.is_none(),
        response: answer.response.clone().unwrap_or_default(),
        answered_at: Some(timestamp(answer.answered_at)),
    };
    Mutation::Put { space: Space::Request, key, value: record.encode_to_vec() }
}

/// Reads an answer.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn decode(bytes: &[u8]) -> Result<GivenAnswer, ReadRecordError> {
    let record = stored::RequestRecord::decode(bytes)?;
    Ok(GivenAnswer {
        method: record.method,
        request_hash: record.request_hash,
        response: (!record.is_receipt).then_some(record.response),
        answered_at: record.answered_at.as_ref().map(wall).unwrap_or_default(),
    })
}
