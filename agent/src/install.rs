//! Workload folders: releases side by side, one of them current, the previous one kept.
//!
//! ```text
//! DATA/workloads/coffee/
//!     current  -> releases/1.8.0-4f2k9x0c      switched by rename, never edited
//!     previous -> releases/1.7.2-9h1d0s3m
//!     releases/1.8.0-4f2k9x0c/{artifact, manifest, verdict}
//!     releases/1.8.0-4f2k9x0c+7m3t0q1z/{artifact, manifest, config, file-MENU, verdict}    with a configuration
//!     data/                                    the workload's own, kept from release to release
//! ```
//! A folder alone is enough to boot its workload: the manifest says how to run the artifact, and the verdict says
//! that it was verified, with its digest. Nothing is named by a link or a final name before it is durable, so a
//! power cut at any point leaves the old release current, or the new one whole.

pub(crate) mod folder;
pub mod memory;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::name::{Version, WorkloadName};

use crate::disk::DiskError;
pub use folder::FolderInstaller;

/// Bytes that installing leaves free: logs, records and the next manifest still fit on a device that is "full".
pub const FREE_BYTES_RESERVE: u64 = 4 << 20;

/// One release's place in a workload's folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The release's version.
    pub version: Version,
    /// The artifact of this device's platform.
    pub artifact: ArtifactDigest,
    /// The digest of the configuration that lies with it, if one does.
    pub configuration: Option<ArtifactDigest>,
}

impl Slot {
    /// The folder's name: the version, and the first 8 digits of the digest so that two builds of one version
    /// have two folders; likewise for two configurations of one build.
    #[must_use]
    pub fn folder_name(&self) -> String {
        let digits = |digest: ArtifactDigest| -> String {
            digest.to_string().chars().skip(ArtifactDigest::PREFIX.len()).take(8).collect()
        };
        let configuration = self.configuration.map(|digest| format!("+{}", digits(digest))).unwrap_or_default();
        format!("{}-{}{configuration}", self.version, digits(self.artifact))
    }
}

/// A release to bring into a workload's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staging {
    /// Whose folder.
    pub workload: WorkloadName,
    /// Which release.
    pub slot: Slot,
    /// The artifact's file, already verified against its digest.
    pub artifact_file: PathBuf,
    /// The signed manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// What goes with the release: the one whose digest the slot has.
    pub configuration: Option<Arc<Configuration>>,
    /// The contents of its files, already verified against their digests.
    pub files: BTreeMap<ArtifactDigest, PathBuf>,
    /// What Verify decided and why, in the caller's own encoding.
    pub verdict: Vec<u8>,
}

/// A release in a workload's folder, whole and readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedRelease {
    /// Which release.
    pub slot: Slot,
    /// The program's file.
    pub program: PathBuf,
    /// The signed manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// What goes with the release.
    pub configuration: Option<Arc<Configuration>>,
    /// Its files, by the names of the variables that say where they lie.
    pub files: BTreeMap<String, PathBuf>,
    /// What Verify decided.
    pub verdict: Vec<u8>,
}

/// What a workload's folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstalledWorkload {
    /// The release that `current` names, if it is whole.
    pub current: Option<StagedRelease>,
    /// The release that `previous` names, if it is whole.
    pub previous: Option<StagedRelease>,
    /// Every whole release, by folder name.
    pub slots: Vec<Slot>,
    /// Folders of releases that cannot be read, and why.
    pub damaged: Vec<DamagedRelease>,
    /// The directory in which the workload runs and keeps its own files.
    pub data_directory: PathBuf,
}

/// A release's folder that cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRelease {
    /// Its folder's name.
    pub folder: String,
    /// What is wrong with it.
    pub cause: String,
}

/// Why a release was not staged. What was there before is untouched.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The device has too little room.
    #[error("staging needs {needed_bytes} bytes and {free_bytes} are free, of which {reserve_bytes} stay free")]
    NoSpace {
        /// What it needs.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
        /// What is left alone.
        reserve_bytes: u64,
    },
    /// The artifact's file is not there.
    #[error("artifact {artifact} is not at {}", path.display())]
    NoArtifact {
        /// The artifact.
        artifact: ArtifactDigest,
        /// Where it should be.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("the release was not staged")]
    Disk(#[from] DiskError),
}

/// Why `current` still names what it named.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The release is not in the folder, or not whole.
    #[error("{workload} has no whole release in {folder}: {cause}")]
    NotStaged {
        /// The workload.
        workload: WorkloadName,
        /// The folder that was looked for.
        folder: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The disk failed.
    #[error("the release was not switched")]
    Disk(#[from] DiskError),
}

/// Why a release's artifact must not run.
#[derive(Debug, thiserror::Error)]
pub enum VerifyReleaseError {
    /// The release is not in the folder, or not whole.
    #[error("{workload} has no whole release in {folder}: {cause}")]
    NotStaged {
        /// The workload.
        workload: WorkloadName,
        /// The folder that was looked for.
        folder: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The file's bytes are not those that were verified.
    #[error("the file has digest {found}, expected {expected}")]
    Digest {
        /// What was verified.
        expected: ArtifactDigest,
        /// What is there.
        found: ArtifactDigest,
    },
    /// The disk failed.
    #[error("the release was not verified")]
    Disk(#[from] DiskError),
}

/// Keeps the releases of a device's workloads. Its methods wait for the disk: call them from a blocking thread.
pub trait Installer: Send + Sync + 'static {
    /// Brings a release into its workload's folder, durably and next to what is there. A release that is already
    /// staged is no error; a damaged one is replaced.
    ///
    /// # Errors
    /// [`StageError::NoSpace`] before anything is written; the others as they say.
    fn stage(&self, staging: &Staging) -> Result<(), StageError>;

    /// Makes a staged release the current one, and the current one the previous. Doing it twice is doing it once.
    ///
    /// # Errors
    /// [`SwitchError::NotStaged`] when the release is not there or not whole.
    fn switch(&self, workload: &WorkloadName, slot: &Slot) -> Result<(), SwitchError>;

    /// Reads what a workload's folder holds; an empty answer when there is none.
    ///
    /// # Errors
    /// When the disk fails; damage of a single release is part of the answer.
    fn installed(&self, workload: &WorkloadName) -> Result<InstalledWorkload, DiskError>;

    /// Names the workloads that have a folder, sorted.
    ///
    /// # Errors
    /// When the disk fails.
    fn workloads(&self) -> Result<Vec<WorkloadName>, DiskError>;

    /// Reads the artifact again and compares it with its digest.
    ///
    /// # Errors
    /// [`VerifyReleaseError::Digest`] when flash or somebody's hand has changed it.
    fn verify(&self, workload: &WorkloadName, slot: &Slot) -> Result<(), VerifyReleaseError>;

    /// Removes the releases that are neither current, nor previous, nor in `keep`, and what interrupted work left.
    /// Answers with the names of the folders that went.
    ///
    /// # Errors
    /// When the disk fails.
    fn collect_garbage(&self, workload: &WorkloadName, keep: &[Slot]) -> Result<Vec<String>, DiskError>;

    /// Where a workload puts the file by which it asks not to be updated, among its data.
    fn update_lock(&self, workload: &WorkloadName) -> PathBuf;

    /// Says whether that file is there.
    ///
    /// # Errors
    /// When the disk fails.
    fn is_update_locked(&self, workload: &WorkloadName) -> Result<bool, DiskError>;

    /// Removes that file: what made it has ended.
    ///
    /// # Errors
    /// When the disk fails.
    fn remove_update_lock(&self, workload: &WorkloadName) -> Result<(), DiskError>;

    /// Removes a workload's folder with its releases and its data: only ever on an explicit remove.
    ///
    /// # Errors
    /// When the disk fails.
    fn remove(&self, workload: &WorkloadName) -> Result<(), DiskError>;
}
