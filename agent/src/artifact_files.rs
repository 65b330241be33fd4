//! Artifacts on the device's disk: whole ones, and those of which some groups have come.
//!
//! ```text
//! DATA/artifacts/b3_….part      the groups, each at its place
//! DATA/artifacts/b3_….groups    which of them are durable
//! DATA/artifacts/b3_…           the whole artifact, verified
//! ```
//! A group is marked only after it is durable, so a marked group is always there after a kill or a power cut. Marks
//! are written once in [`GROUPS_PER_CHECKPOINT`] groups: that much of a download can be lost, and is asked for again.

mod group_set;
pub mod memory;
mod partial;

use std::path::PathBuf;

use fleetd_sync_core::id::ArtifactDigest;

use crate::disk::DiskError;
pub use group_set::GroupSet;
pub use partial::DiskArtifactFiles;

/// Groups written between two checkpoints: 256 KiB, so that an SD card that syncs in 20 ms takes 10 MB/s, and a
/// power cut costs a slow link a quarter of a megabyte at most.
pub const GROUPS_PER_CHECKPOINT: u64 = 16;

/// What the disk has of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// Some groups.
    Part {
        /// The artifact's size when it is whole.
        size_bytes: u64,
        /// The groups that are there.
        groups: GroupSet,
    },
    /// All of it, verified.
    Whole {
        /// Its file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
}

/// Why a download cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginArtifactError {
    /// The device has too little room.
    #[error(
        "the rest of artifact {artifact} needs {needed_bytes} bytes and {free_bytes} are free, of which {reserve_bytes} stay free"
    )]
    NoSpace {
        /// The artifact.
        artifact: ArtifactDigest,
        /// What is still to come.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
        /// What is left alone.
        reserve_bytes: u64,
    },
    /// No artifact may be this large.
    #[error("artifact {artifact} has {size_bytes} bytes; at most {size_bytes_max} are allowed")]
    TooLarge {
        /// The artifact.
        artifact: ArtifactDigest,
        /// What it has.
        size_bytes: u64,
        /// What is allowed.
        size_bytes_max: u64,
    },
    /// The disk failed.
    #[error("the download was not begun")]
    Disk(#[from] DiskError),
}

/// Why a group was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteGroupError {
    /// No download of this artifact has begun.
    #[error("no download of {artifact} has begun")]
    NotBegun {
        /// The artifact.
        artifact: ArtifactDigest,
    },
    /// The artifact has no such group.
    #[error("group {index} of {artifact} does not exist; it has {count}")]
    Index {
        /// The artifact.
        artifact: ArtifactDigest,
        /// What was given.
        index: u64,
        /// How many it has.
        count: u64,
    },
    /// The group has another length.
    #[error("group {index} of {artifact} has {found} bytes, expected {expected}")]
    Length {
        /// The artifact.
        artifact: ArtifactDigest,
        /// Which group.
        index: u64,
        /// What it has.
        expected: u64,
        /// What was given.
        found: u64,
    },
    /// The disk failed.
    #[error("the group was not written")]
    Disk(#[from] DiskError),
}

/// Why an artifact is not whole.
#[derive(Debug, thiserror::Error)]
pub enum FinishArtifactError {
    /// No download of this artifact has begun.
    #[error("no download of {artifact} has begun")]
    NotBegun {
        /// The artifact.
        artifact: ArtifactDigest,
    },
    /// Groups are missing.
    #[error("artifact {artifact} lacks {missing} of {count} groups")]
    Missing {
        /// The artifact.
        artifact: ArtifactDigest,
        /// How many are missing.
        missing: u64,
        /// How many it has.
        count: u64,
    },
    /// The bytes are not the artifact's; they have been thrown away.
    #[error("the downloaded bytes have digest {found}, expected {artifact}")]
    Digest {
        /// The artifact.
        artifact: ArtifactDigest,
        /// What is there.
        found: ArtifactDigest,
    },
    /// The disk failed.
    #[error("the artifact was not finished")]
    Disk(#[from] DiskError),
}

/// Keeps artifacts and what has come of them. Its methods wait for the disk: call them from a blocking thread.
pub trait ArtifactFiles: Send + Sync + 'static {
    /// Begins or resumes a download, after a look at the free space, and says which groups are already there.
    ///
    /// # Errors
    /// [`BeginArtifactError::NoSpace`] and [`BeginArtifactError::TooLarge`] before anything is written.
    fn begin(&self, artifact: &ArtifactDigest, size_bytes: u64) -> Result<GroupSet, BeginArtifactError>;

    /// Says what is there of an artifact.
    ///
    /// # Errors
    /// When the disk fails.
    fn held(&self, artifact: &ArtifactDigest) -> Result<Held, DiskError>;

    /// Writes one group that the caller has verified. Writing it again is no error.
    ///
    /// # Errors
    /// As [`WriteGroupError`] says.
    fn write_group(&self, artifact: &ArtifactDigest, index: u64, bytes: &[u8]) -> Result<(), WriteGroupError>;

    /// Makes every group written so far durable, and marks it: for a link that is lost or an agent that stops.
    ///
    /// # Errors
    /// When the disk fails; the groups are then written again later.
    fn checkpoint(&self, artifact: &ArtifactDigest) -> Result<(), DiskError>;

    /// Verifies the whole artifact, makes it durable and only then gives it its name. Answers with its file. An
    /// artifact that is already whole is no error.
    ///
    /// # Errors
    /// As [`FinishArtifactError`] says; on [`FinishArtifactError::Digest`] the download begins again from nothing.
    fn finish(&self, artifact: &ArtifactDigest) -> Result<PathBuf, FinishArtifactError>;

    /// Removes an artifact, whole or not.
    ///
    /// # Errors
    /// When the disk fails.
    fn discard(&self, artifact: &ArtifactDigest) -> Result<(), DiskError>;

    /// Names every artifact of which something is there, sorted.
    ///
    /// # Errors
    /// When the disk fails.
    fn list(&self) -> Result<Vec<ArtifactDigest>, DiskError>;
}
