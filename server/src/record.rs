//! What the server's machines remember, as the bytes that its store keeps.

pub mod access;
pub mod audit;
pub mod backup;
pub mod configuration;
pub mod device;
pub mod group;
pub mod log;
pub mod order;
pub mod registration;
pub mod release;
pub mod request;
pub mod rollout;
pub mod rollout_flight;

use fleetd_sync_core::time::Wall;
use prost_types::Timestamp;

/// Why a stored record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRecordError {
    /// It is no protobuf.
    #[error("the record cannot be read as protobuf: {cause}")]
    Protobuf {
        /// What is wrong with it.
        cause: String,
    },
    /// A field has a value that means nothing.
    #[error("{field} of the record means nothing")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

impl From<prost::DecodeError> for ReadRecordError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Protobuf { cause: error.to_string() }
    }
}

/// A date as protobuf has it.
#[must_use]
pub fn timestamp(wall: Wall) -> Timestamp {
    let nanos = i32::try_from(wall.0.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    Timestamp { seconds: wall.0.div_euclid(1000), nanos }
}

/// A date as machines have it.
#[must_use]
pub fn wall(timestamp: &Timestamp) -> Wall {
    let ms = i64::from(timestamp.nanos) / 1_000_000;
    Wall(timestamp.seconds.saturating_mul(1000).saturating_add(ms))
}

fn field<T>(value: Option<T>, field: &'static str) -> Result<T, ReadRecordError> {
    value.ok_or(ReadRecordError::Field { field })
}
