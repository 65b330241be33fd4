//! Artifacts on the server: uploads that resume, and groups with their tree for devices.

pub mod disk;
pub mod memory;

use std::sync::Arc;

use fleetd_sync_core::artifact::GroupTree;
use fleetd_sync_core::id::ArtifactDigest;

/// What the server has of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// Its first bytes.
    Part {
        /// How many.
        received_bytes: u64,
    },
    /// All of it, verified.
    Whole {
        /// Its size.
        size_bytes: u64,
    },
}

/// Why an artifact cannot be stored or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// The upload does not go on where it ended.
    #[error("{received_bytes} bytes of {digest} are here, the upload goes on at {offset_bytes}")]
    Offset {
        /// The artifact.
        digest: ArtifactDigest,
        /// What is here.
        received_bytes: u64,
        /// Where the upload would go on.
        offset_bytes: u64,
    },
    /// More bytes came than were announced, or more than are allowed.
    #[error("{digest} would have {size_bytes} bytes, at most {size_bytes_max} are allowed")]
    TooLarge {
        /// The artifact.
        digest: ArtifactDigest,
        /// What it would have.
        size_bytes: u64,
        /// What it may have.
        size_bytes_max: u64,
    },
    /// The bytes are not those that the digest names; they were thrown away.
    #[error("the bytes have digest {found}, not {expected}")]
    Digest {
        /// What they should have.
        expected: ArtifactDigest,
        /// What they have.
        found: ArtifactDigest,
    },
    /// It is not here, or not whole.
    #[error("{digest} is not here")]
    Absent {
        /// The artifact.
        digest: ArtifactDigest,
    },
    /// What was asked for lies beyond its end.
    #[error("{digest} ends before byte {offset_bytes}")]
    Range {
        /// The artifact.
        digest: ArtifactDigest,
        /// Where the reading would begin.
        offset_bytes: u64,
    },
    /// The operating system failed.
    #[error("the artifact store failed: {cause}")]
    Failed {
        /// What it said.
        cause: String,
    },
}

/// Keeps artifacts. Its methods block: they are called away from the actors.
pub trait ArtifactStore: Send + Sync + 'static {
    /// What is here of an artifact.
    ///
    /// # Errors
    /// [`ArtifactError::Failed`].
    fn held(&self, digest: ArtifactDigest) -> Result<Held, ArtifactError>;

    /// Every whole artifact, in order.
    ///
    /// # Errors
    /// [`ArtifactError::Failed`].
    fn list(&self) -> Result<Vec<ArtifactDigest>, ArtifactError>;

    /// Appends bytes to an upload of `size_bytes`; the last ones make it whole once its digest is right.
    ///
    /// # Errors
    /// [`ArtifactError::Offset`], [`ArtifactError::TooLarge`], [`ArtifactError::Digest`], [`ArtifactError::Failed`].
    fn append(
        &self,
        digest: ArtifactDigest,
        size_bytes: u64,
        offset_bytes: u64,
        content: &[u8],
    ) -> Result<Held, ArtifactError>;

    /// Reads at most `length` bytes of a whole artifact.
    ///
    /// # Errors
    /// [`ArtifactError::Absent`], [`ArtifactError::Range`], [`ArtifactError::Failed`].
    fn read(&self, digest: ArtifactDigest, offset_bytes: u64, length: usize) -> Result<Vec<u8>, ArtifactError>;

    /// The group values of a whole artifact.
    ///
    /// # Errors
    /// [`ArtifactError::Absent`], [`ArtifactError::Failed`].
    fn tree(&self, digest: ArtifactDigest) -> Result<Arc<GroupTree>, ArtifactError>;
}
