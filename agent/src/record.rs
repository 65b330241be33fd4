//! What an agent stores, as protobuf (`fleetd.record.v1`): the one place that knows machines' records and generated
//! messages alike.

mod agent;
mod flight;
mod log_spool;
mod workload;

use fleetd_actors::workload::LoadReleaseError;
use fleetd_sync_core::configuration::ReadConfigurationError;
use fleetd_sync_core::name::ParseNameError;

pub use agent::{
    decode_agent, decode_clock_floor, decode_kept, decode_root_chain, decode_trust_floor, encode_agent,
    encode_clock_floor, encode_kept, encode_root_chain, encode_trust_floor,
};
pub use flight::{WorkloadFlight, WorkloadRecorder, decode_flight, encode_flight};
pub use log_spool::{
    decode_spool, decode_spool_entry, decode_spool_row, encode_spool, encode_spool_entry, encode_spool_row,
    index_spool_batch, index_spool_entry,
};
pub use workload::{decode_workload, decode_workload_floor, encode_workload, encode_workload_floor};

/// Why stored bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeRecordError {
    /// They are no protobuf.
    #[error("the record cannot be read as protobuf")]
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
    /// A field that must be there is not.
    #[error("{field} is missing")]
    Missing {
        /// Which field.
        field: &'static str,
    },
    /// A name is no name.
    #[error("{field} is no name")]
    Name {
        /// Which field.
        field: &'static str,
        /// Why not.
        source: ParseNameError,
    },
    /// A configuration cannot be taken up again.
    #[error("{field} has no configuration")]
    Configuration {
        /// Which field.
        field: &'static str,
        /// Why not.
        source: ReadConfigurationError,
    },
    /// A release cannot be taken up again.
    #[error("{field} is no release")]
    Release {
        /// Which field.
        field: &'static str,
        /// Why not.
        source: LoadReleaseError,
    },
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], DecodeRecordError> {
    bytes.try_into().map_err(|_| DecodeRecordError::Length { field, length: bytes.len(), expected: N })
}

/// Reads bytes of which there may be none.
fn optional<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<Option<[u8; N]>, DecodeRecordError> {
    if bytes.is_empty() { Ok(None) } else { fixed(field, bytes).map(Some) }
}

fn named<T: std::str::FromStr<Err = ParseNameError>>(field: &'static str, text: &str) -> Result<T, DecodeRecordError> {
    text.parse().map_err(|source| DecodeRecordError::Name { field, source })
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DecodeRecordError> {
    value.ok_or(DecodeRecordError::Missing { field })
}
