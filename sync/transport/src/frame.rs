//! Frames: a session's messages as protobuf (`fleetd.sync.v1.Frame`).
//!
//! This is the one place that knows both the plain values of [`fleetd_sync_core::session`] and the generated ones.
//! Everything that comes from a peer is bounded and checked here, so that a session sees well-formed values only;
//! whether they are true is for the session to find out.

mod decode;
mod encode;
mod facts;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use fleetd_proto::fleetd::sync::v1 as wire;
use fleetd_sync_core::limit;
use fleetd_sync_core::name::ParseNameError;
use fleetd_sync_core::session::Message;
use prost::Message as _;

/// Why a frame is no message.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeFrameError {
    /// It is larger than the limit.
    #[error("the frame has {bytes} bytes; it may have {bytes_max}")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
    /// It is no protobuf.
    #[error("the frame cannot be read as protobuf")]
    Protobuf(#[from] prost::DecodeError),
    /// A field of fixed length has another.
    #[error("{field} has {length} bytes; it needs {expected}")]
    Length {
        /// Which field.
        field: &'static str,
        /// What it has.
        length: usize,
        /// What it needs.
        expected: usize,
    },
    /// A field is larger than its limit, or has more entries.
    #[error("{field} has {count}; it may have {count_max}")]
    TooMany {
        /// Which field.
        field: &'static str,
        /// What it has.
        count: usize,
        /// What it may have.
        count_max: usize,
    },
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// Which field.
        field: &'static str,
    },
    /// A field has a value that means nothing.
    #[error("{field} has the value {value}, which means nothing")]
    Value {
        /// Which field.
        field: &'static str,
        /// The value.
        value: i64,
    },
    /// A name is no name.
    #[error("{field} is no name")]
    Name {
        /// Which field.
        field: &'static str,
        /// Why not.
        source: ParseNameError,
    },
}

/// Why a message fits no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message needs a frame of {bytes} bytes; it may have {bytes_max}")]
pub struct EncodeFrameError {
    /// What it needs.
    pub bytes: usize,
    /// What it may have.
    pub bytes_max: usize,
}

/// Writes a message as a frame, without the length that stands before it on a stream.
///
/// # Errors
/// [`EncodeFrameError`] when it is larger than any peer accepts.
pub fn encode(message: &Message) -> Result<Bytes, EncodeFrameError> {
    let frame = wire::Frame { kind: Some(encode::kind(message)) };
    let bytes = frame.encoded_len();
    if bytes > limit::FRAME_BYTES_MAX {
        return Err(EncodeFrameError { bytes, bytes_max: limit::FRAME_BYTES_MAX });
    }
    Ok(frame.encode_to_vec().into())
}

/// Reads a frame. `None` is a message of a kind that this version does not know: it is ignored.
///
/// # Errors
/// [`DecodeFrameError`] when it is too large, no protobuf, or says something that means nothing.
pub fn decode(frame: &[u8]) -> Result<Option<Message>, DecodeFrameError> {
    if frame.len() > limit::FRAME_BYTES_MAX {
        return Err(DecodeFrameError::TooLarge { bytes: frame.len(), bytes_max: limit::FRAME_BYTES_MAX });
    }
    wire::Frame::decode(frame)?.kind.map(decode::message).transpose()
}

/// How many bytes a frame of `length` bytes has on a stream, with the length that stands before it.
#[must_use]
pub fn framed_length(length: usize) -> usize {
    prost::length_delimiter_len(length) + length
}
