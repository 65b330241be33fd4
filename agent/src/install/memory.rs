//! The twin in memory: the very same code as on the device, on a disk that a test or the simulator holds.

use super::FolderInstaller;
use crate::disk::memory::{DATA_DIRECTORY, MemoryDisk};

/// Workload folders in memory.
pub type MemoryInstaller = FolderInstaller<MemoryDisk>;

impl MemoryInstaller {
    /// Keeps workload folders on `disk`, in [`DATA_DIRECTORY`].
    #[must_use]
    pub fn on(disk: &MemoryDisk) -> Self {
        Self::new(disk.clone(), DATA_DIRECTORY)
    }
}
