//! The few file operations on which installing and downloading stand, behind a seam.
//!
//! [`Disk`] is deliberately low: one method, one system call. So the code that orders these calls (write, sync,
//! reveal) is the same in the product and in the simulator, and a test can cut the power between any two of them on
//! [`memory::MemoryDisk`], which forgets what was not synced.

pub mod memory;
mod os;

use std::io;
use std::path::{Path, PathBuf};

use fleetd_sync_core::id::ArtifactDigest;

pub use os::OsDisk;

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct DiskError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// Says whether no space was left on the device.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// Who may use a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMode {
    /// The agent alone reads and writes it (0600).
    Private,
    /// Everybody may read and execute it (0755).
    Executable,
    /// Everybody may read it (0444).
    Readable,
}

/// The file operations of one device, each done when it returns but none durable until its file and its directory are synced.
///
/// # Errors
/// Every method fails with a [`DiskError`] that names the path and carries the operating system's error.
pub trait Disk: Send + Sync + 'static {
    /// Creates a directory and those above it; one that is there is no error. Durable with its parent's sync.
    ///
    /// # Errors
    /// See [`Disk`].
    fn create_directory(&self, path: &Path) -> Result<(), DiskError>;

    /// Writes a whole file, created or emptied first.
    ///
    /// # Errors
    /// See [`Disk`].
    fn write(&self, path: &Path, bytes: &[u8], mode: FileMode) -> Result<(), DiskError>;

    /// Writes a part of a file, created if it is not there; what lies before it and was never written reads as zero.
    ///
    /// # Errors
    /// See [`Disk`].
    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Reads a whole file, or `None` when there is none.
    ///
    /// # Errors
    /// See [`Disk`].
    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, DiskError>;

    /// Reads up to `length` bytes of a file from `offset`; fewer only at its end.
    ///
    /// # Errors
    /// See [`Disk`].
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>, DiskError>;

    /// Says whether something has this name: a file, a directory, or a link, whatever that leads to.
    ///
    /// # Errors
    /// See [`Disk`].
    fn is_there(&self, path: &Path) -> Result<bool, DiskError>;

    /// Returns a file's length in bytes, or `None` when there is none.
    ///
    /// # Errors
    /// See [`Disk`].
    fn length(&self, path: &Path) -> Result<Option<u64>, DiskError>;

    /// Makes a file's content durable.
    ///
    /// # Errors
    /// See [`Disk`].
    fn sync_file(&self, path: &Path) -> Result<(), DiskError>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// See [`Disk`].
    fn sync_directory(&self, path: &Path) -> Result<(), DiskError>;

    /// Renames a file, link or directory; a file or link of the new name is replaced in the same instant.
    ///
    /// # Errors
    /// See [`Disk`].
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Gives a file a second name; `false` when the file system cannot, and nothing was done.
    ///
    /// # Errors
    /// See [`Disk`].
    fn link(&self, from: &Path, to: &Path) -> Result<bool, DiskError>;

    /// Copies a file's content to a new name.
    ///
    /// # Errors
    /// See [`Disk`].
    fn copy(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Sets who may use a file.
    ///
    /// # Errors
    /// See [`Disk`].
    fn set_mode(&self, path: &Path, mode: FileMode) -> Result<(), DiskError>;

    /// Creates a symbolic link; the name must be free.
    ///
    /// # Errors
    /// See [`Disk`].
    fn symlink(&self, target: &Path, link: &Path) -> Result<(), DiskError>;

    /// Reads where a symbolic link points, or `None` when there is none.
    ///
    /// # Errors
    /// See [`Disk`].
    fn read_link(&self, path: &Path) -> Result<Option<PathBuf>, DiskError>;

    /// Lists the names in a directory, sorted; a directory that is not there has none.
    ///
    /// # Errors
    /// See [`Disk`].
    fn list(&self, path: &Path) -> Result<Vec<String>, DiskError>;

    /// Removes a file or link; one that is not there is no error.
    ///
    /// # Errors
    /// See [`Disk`].
    fn remove_file(&self, path: &Path) -> Result<(), DiskError>;

    /// Removes a directory and everything in it; one that is not there is no error.
    ///
    /// # Errors
    /// See [`Disk`].
    fn remove_directory(&self, path: &Path) -> Result<(), DiskError>;

    /// Returns how many bytes an unprivileged writer can still write below a path.
    ///
    /// # Errors
    /// See [`Disk`].
    fn free_bytes(&self, path: &Path) -> Result<u64, DiskError>;
}

/// Bytes read at once while a file is digested: large enough for the disk, small enough for the device.
const DIGEST_CHUNK_BYTES: usize = 64 << 10;

/// Digests a file without holding it in memory.
///
/// # Errors
/// When the disk fails.
pub fn digest_of_file(disk: &impl Disk, path: &Path) -> Result<ArtifactDigest, DiskError> {
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0_u64;
    loop {
        let bytes = disk.read_at(path, offset, DIGEST_CHUNK_BYTES)?;
        if bytes.is_empty() {
            return Ok(ArtifactDigest::from_bytes(*hasher.finalize().as_bytes()));
        }
        hasher.update(&bytes);
        offset = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
}
