//! A server's backup: store, logs and artifacts in one file, written while the server serves, and made a server of
//! again.
//!
//! The file is a tar, compressed with zstd: `backup.json` (of which fleet, when, by which version), `store/NUMBER`
//! (`fleetd.record.v1.BackupPiece`, each with its length before it), `store/end`, `artifacts/b3_…`, `end.json`. A file
//! without its end is not whole. Every record carries its checksum, every artifact its digest; the keys are not in it.

mod restore;
mod write;

use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::{ReadError, StateStore};
use serde::{Deserialize, Serialize};

pub use restore::{RestoreBackupError, restore};
pub use write::{Sources, WriteBackupError, write};

/// The key of the time at which the last backup was taken.
const TAKEN_AT: &[u8] = b"backup-taken-at";

/// When the last whole backup was taken, as far as the store knows.
///
/// # Errors
/// [`ReadError`].
pub fn taken_at(store: &dyn StateStore) -> Result<Option<Wall>, ReadError> {
    let found = store.get(Space::Meta, TAKEN_AT)?;
    Ok(found.and_then(|found| found.value.as_slice().try_into().ok()).map(|bytes| Wall(i64::from_be_bytes(bytes))))
}

/// Notes that a backup was taken.
#[must_use]
pub fn taken(at: Wall) -> Mutation {
    Mutation::Put { space: Space::Meta, key: TAKEN_AT.to_vec(), value: at.0.to_be_bytes().to_vec() }
}

/// The format that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
const HEAD: &str = "backup.json";
const STORE: &str = "store/";
const STORE_END: &str = "store/end";
const ARTIFACTS: &str = "artifacts/";
const END: &str = "end.json";
/// Bytes of pieces in one part of the file.
const PART_BYTES: usize = 1 << 20;

/// What a backup says of itself at its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// How it is written.
    pub format: u32,
    /// The fleet.
    pub fleet_id: String,
    /// When, in milliseconds since 1970.
    pub written_at_ms: i64,
    /// By which version.
    pub version: String,
}

/// What a backup says of itself at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Records of the store.
    pub records: u64,
    /// Entries of logs.
    pub log_entries: u64,
    /// Artifacts.
    pub artifacts: u64,
    /// Their bytes.
    pub artifact_bytes: u64,
}
