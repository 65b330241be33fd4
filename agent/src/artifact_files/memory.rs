//! The twin in memory: the very same code as on the device, on a disk that a test or the simulator holds.

use std::path::Path;

use super::DiskArtifactFiles;
use crate::disk::memory::{DATA_DIRECTORY, MemoryDisk};

/// Artifact files in memory.
pub type MemoryArtifactFiles = DiskArtifactFiles<MemoryDisk>;

impl MemoryArtifactFiles {
    /// Keeps artifacts on `disk`, in [`DATA_DIRECTORY`].
    #[must_use]
    pub fn on(disk: &MemoryDisk) -> Self {
        Self::new(disk.clone(), Path::new(DATA_DIRECTORY).join("artifacts"))
    }
}
