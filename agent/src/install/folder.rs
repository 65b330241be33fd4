//! Workload folders on a [`Disk`].

pub(crate) mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::name::{Version, WorkloadName};

use super::{
    DamagedRelease, FREE_BYTES_RESERVE, InstalledWorkload, Installer, Slot, StageError, StagedRelease, Staging,
    SwitchError, VerifyReleaseError,
};
use crate::disk::{Disk, DiskError, FileMode, digest_of_file};
use verdict::Verdict;

const ARTIFACT: &str = "artifact";
const MANIFEST: &str = "manifest";
const VERDICT: &str = "verdict";
const CONFIG: &str = "config";
/// Starts the name of a configuration's file; the name of its variable follows.
const CONFIGURED_FILE: &str = "file-";
const RELEASES: &str = "releases";
const CURRENT: &str = "current";
const PREVIOUS: &str = "previous";
/// The file in a workload's data by which it asks not to be updated.
const UPDATE_LOCK: &str = "update-lock";
/// Starts the name of whatever is not yet, or no longer, part of a folder: it may go at any time.
const UNFINISHED: &str = ".unfinished-";

/// Workload folders on a [`Disk`].
#[derive(Clone, Debug)]
pub struct FolderInstaller<D> {
    disk: D,
    data_directory: PathBuf,
}

/// What [`FolderInstaller::read_release`] makes of a folder: a release, or why it is none.
type Reading = Result<StagedRelease, String>;
/// A configuration with its files, or why it is none.
type ConfigurationReading = Result<(Option<Arc<Configuration>>, BTreeMap<String, PathBuf>), String>;

impl<D: Disk> FolderInstaller<D> {
    /// Keeps workload folders in a data directory that is there.
    pub fn new(disk: D, data_directory: impl Into<PathBuf>) -> Self {
        Self { disk, data_directory: data_directory.into() }
    }

    fn workloads_directory(&self) -> PathBuf {
        self.data_directory.join("workloads")
    }

    fn folder(&self, workload: &WorkloadName) -> PathBuf {
        self.workloads_directory().join(workload.as_str())
    }

    fn releases(&self, workload: &WorkloadName) -> PathBuf {
        self.folder(workload).join(RELEASES)
    }

    fn data(&self, workload: &WorkloadName) -> PathBuf {
        self.folder(workload).join("data")
    }

    fn create_folder(&self, workload: &WorkloadName) -> Result<(), DiskError> {
        self.disk.create_directory(&self.releases(workload))?;
        self.disk.create_directory(&self.data(workload))?;
        // From the inside out: a folder is durable once the folder around it is.
        self.disk.sync_directory(&self.folder(workload))?;
        self.disk.sync_directory(&self.workloads_directory())?;
        self.disk.sync_directory(&self.data_directory)
    }

    fn check_space(&self, needed_bytes: u64) -> Result<(), StageError> {
        let free_bytes = self.disk.free_bytes(&self.data_directory)?;
        if needed_bytes.saturating_add(FREE_BYTES_RESERVE) > free_bytes {
            return Err(StageError::NoSpace { needed_bytes, free_bytes, reserve_bytes: FREE_BYTES_RESERVE });
        }
        Ok(())
    }

    /// Fills a release's folder under a name that nobody looks at.
    fn fill(&self, folder: &Path, staging: &Staging, artifact_bytes: u64) -> Result<(), StageError> {
        let (artifact, manifest, verdict) = (folder.join(ARTIFACT), folder.join(MANIFEST), folder.join(VERDICT));
        self.disk.remove_directory(folder)?;
        self.disk.create_directory(folder)?;
        if !self.disk.link(&staging.artifact_file, &artifact)? {
            self.check_space(artifact_bytes)?;
            self.disk.copy(&staging.artifact_file, &artifact)?;
        }
        self.disk.set_mode(&artifact, FileMode::Executable)?;
        self.disk.sync_file(&artifact)?;
        self.disk.write(&manifest, &staging.manifest, FileMode::Private)?;
        self.disk.sync_file(&manifest)?;
        self.fill_configuration(folder, staging)?;
        self.disk.write(&verdict, &Verdict::of(staging, artifact_bytes).encode(), FileMode::Private)?;
        self.disk.sync_file(&verdict)?;
        Ok(self.disk.sync_directory(folder)?)
    }

    /// Lays a configuration out beside the program. Its files are copied: whoever runs may change its own, and finds
    /// those of the release before it as they were.
    fn fill_configuration(&self, folder: &Path, staging: &Staging) -> Result<(), StageError> {
        let Some(configuration) = &staging.configuration else { return Ok(()) };
        for (name, file) in configuration.files() {
            let source = staging.files.get(&file.digest).filter(|path| matches!(self.disk.length(path), Ok(Some(_))));
            let Some(source) = source else {
                return Err(StageError::NoArtifact { artifact: file.digest, path: folder.join(name) });
            };
            self.check_space(file.size_bytes)?;
            let path = folder.join(format!("{CONFIGURED_FILE}{name}"));
            self.disk.copy(source, &path)?;
            self.disk.set_mode(&path, FileMode::Readable)?;
            self.disk.sync_file(&path)?;
        }
        let path = folder.join(CONFIG);
        self.disk.write(&path, &configuration.encode(), FileMode::Private)?;
        Ok(self.disk.sync_file(&path)?)
    }

    /// Reads what lies with a release. The outer error is the disk's; the inner one says why that is not whole.
    fn read_configuration(
        &self,
        folder: &Path,
        digest: Option<ArtifactDigest>,
    ) -> Result<ConfigurationReading, DiskError> {
        let Some(digest) = digest else { return Ok(Ok((None, BTreeMap::new()))) };
        let Some(bytes) = self.disk.read(&folder.join(CONFIG))? else {
            return Ok(Err("it has no configuration".to_owned()));
        };
        let configuration = Configuration::decode(&bytes).ok().filter(|configuration| configuration.digest() == digest);
        let Some(configuration) = configuration else {
            return Ok(Err("its configuration is not the one that was verified".to_owned()));
        };
        let mut files = BTreeMap::new();
        for (name, file) in configuration.files() {
            let path = folder.join(format!("{CONFIGURED_FILE}{name}"));
            match self.disk.length(&path)? {
                Some(_) => files.insert(name.clone(), path),
                None => return Ok(Err(format!("its configuration's file {name} ({}) is gone", file.digest))),
            };
        }
        Ok(Ok((Some(Arc::new(configuration)), files)))
    }

    /// Gives a release that is there, and may be running, another verdict; at no point has it none.
    fn replace_verdict(&self, staging: &Staging, artifact_bytes: u64) -> Result<(), DiskError> {
        let folder = self.releases(&staging.workload).join(staging.slot.folder_name());
        let fresh = folder.join(format!("{UNFINISHED}{VERDICT}"));
        self.disk.write(&fresh, &Verdict::of(staging, artifact_bytes).encode(), FileMode::Private)?;
        self.disk.sync_file(&fresh)?;
        self.disk.rename(&fresh, &folder.join(VERDICT))?;
        self.disk.sync_directory(&folder)
    }

    /// Reads a release's folder. The outer error is the disk's; the inner one says why the folder is no release.
    fn read_release(&self, workload: &WorkloadName, folder_name: &str) -> Result<Reading, DiskError> {
        let folder = self.releases(workload).join(folder_name);
        let Some(version) = folder_name.rsplit_once('-').and_then(|(version, _digits)| version.parse::<Version>().ok())
        else {
            return Ok(Err("its name is not a version and a digest".to_owned()));
        };
        let Some(verdict) = self.disk.read(&folder.join(VERDICT))? else {
            return Ok(Err("it has no verdict".to_owned()));
        };
        let Some(verdict) = Verdict::decode(&verdict) else {
            return Ok(Err("its verdict's checksum is wrong".to_owned()));
        };
        let slot = Slot { version, artifact: verdict.artifact, configuration: verdict.configuration };
        if slot.folder_name() != folder_name {
            return Ok(Err("its verdict is another release's".to_owned()));
        }
        let Some(manifest) = self.disk.read(&folder.join(MANIFEST))? else {
            return Ok(Err("it has no manifest".to_owned()));
        };
        if *blake3::hash(&manifest).as_bytes() != verdict.manifest_hash {
            return Ok(Err("its manifest is not the one that was verified".to_owned()));
        }
        let (configuration, files) = match self.read_configuration(&folder, verdict.configuration)? {
            Ok(read) => read,
            Err(cause) => return Ok(Err(cause)),
        };
        let program = folder.join(ARTIFACT);
        Ok(match self.disk.length(&program)? {
            Some(length) if length == verdict.artifact_bytes => {
                Ok(StagedRelease { slot, program, manifest, configuration, files, verdict: verdict.statement })
            }
            Some(length) => Err(format!("its artifact has {length} bytes, expected {}", verdict.artifact_bytes)),
            None => Err("it has no artifact".to_owned()),
        })
    }

    /// Returns the folder that a link names, if it names one of this workload's releases.
    fn read_link(&self, workload: &WorkloadName, link: &str) -> Result<Option<String>, DiskError> {
        let target = self.disk.read_link(&self.folder(workload).join(link))?;
        Ok(target.and_then(|target| Some(target.strip_prefix(RELEASES).ok()?.to_str()?.to_owned())))
    }

    /// Points a link at a release: a new link is durable before it takes the old one's name.
    fn point(&self, workload: &WorkloadName, link: &str, folder_name: &str) -> Result<(), DiskError> {
        let folder = self.folder(workload);
        let fresh = folder.join(format!("{UNFINISHED}{link}"));
        self.disk.remove_file(&fresh)?;
        self.disk.symlink(&Path::new(RELEASES).join(folder_name), &fresh)?;
        self.disk.sync_directory(&folder)?;
        self.disk.rename(&fresh, &folder.join(link))?;
        self.disk.sync_directory(&folder)
    }

    /// Takes a folder out of sight in one instant, then removes it at leisure.
    fn remove_folder(&self, parent: &Path, name: &str) -> Result<(), DiskError> {
        let unfinished = parent.join(format!("{UNFINISHED}{name}"));
        self.disk.remove_directory(&unfinished)?;
        self.disk.rename(&parent.join(name), &unfinished)?;
        self.disk.sync_directory(parent)?;
        self.disk.remove_directory(&unfinished)
    }
}

impl<D: Disk> Installer for FolderInstaller<D> {
    fn stage(&self, staging: &Staging) -> Result<(), StageError> {
        let (workload, folder_name) = (&staging.workload, staging.slot.folder_name());
        let Some(artifact_bytes) = self.disk.length(&staging.artifact_file)? else {
            let path = staging.artifact_file.clone();
            return Err(StageError::NoArtifact { artifact: staging.slot.artifact, path });
        };
        let there = self.read_release(workload, &folder_name)?.ok();
        let there = there.filter(|release| release.slot == staging.slot && release.manifest == staging.manifest);
        // Damage of what runs shows when it is restored; of anything else it is mended here, or each try would find it.
        let is_whole = |_: &StagedRelease| match self.verify(workload, &staging.slot) {
            Err(VerifyReleaseError::Digest { .. }) => {
                self.read_link(workload, CURRENT).is_ok_and(|current| current.as_ref() == Some(&folder_name))
            }
            _ => true,
        };
        if let Some(release) = there.filter(is_whole) {
            let same = release.verdict == staging.verdict;
            return if same { Ok(()) } else { Ok(self.replace_verdict(staging, artifact_bytes)?) };
        }
        self.check_space(u64::try_from(staging.manifest.len() + staging.verdict.len()).unwrap_or(u64::MAX))?;
        self.create_folder(workload)?;
        let releases = self.releases(workload);
        let unfinished = releases.join(format!("{UNFINISHED}{folder_name}"));
        self.fill(&unfinished, staging, artifact_bytes)?;
        // A folder of this name is damaged, or another manifest of the same bytes: it makes room.
        self.disk.remove_directory(&releases.join(&folder_name))?;
        self.disk.rename(&unfinished, &releases.join(&folder_name))?;
        Ok(self.disk.sync_directory(&releases)?)
    }

    fn switch(&self, workload: &WorkloadName, slot: &Slot) -> Result<(), SwitchError> {
        let folder = slot.folder_name();
        if let Err(cause) = self.read_release(workload, &folder)? {
            return Err(SwitchError::NotStaged { workload: workload.clone(), folder, cause });
        }
        match self.read_link(workload, CURRENT)? {
            Some(current) if current == folder => return Ok(self.disk.sync_directory(&self.folder(workload))?),
            // Before the switch, so that no power cut forgets which release to go back to.
            Some(current) => self.point(workload, PREVIOUS, &current)?,
            None => {}
        }
        Ok(self.point(workload, CURRENT, &folder)?)
    }

    fn installed(&self, workload: &WorkloadName) -> Result<InstalledWorkload, DiskError> {
        let mut installed = InstalledWorkload { data_directory: self.data(workload), ..InstalledWorkload::default() };
        let current = self.read_link(workload, CURRENT)?;
        let previous = self.read_link(workload, PREVIOUS)?;
        for folder in self.disk.list(&self.releases(workload))? {
            if folder.starts_with(UNFINISHED) {
                continue;
            }
            match self.read_release(workload, &folder)? {
                Ok(release) => {
                    installed.slots.push(release.slot.clone());
                    if previous.as_ref() == Some(&folder) {
                        installed.previous = Some(release.clone());
                    }
                    if current.as_ref() == Some(&folder) {
                        installed.current = Some(release);
                    }
                }
                Err(cause) => installed.damaged.push(DamagedRelease { folder, cause }),
            }
        }
        Ok(installed)
    }

    fn workloads(&self) -> Result<Vec<WorkloadName>, DiskError> {
        let names = self.disk.list(&self.workloads_directory())?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn verify(&self, workload: &WorkloadName, slot: &Slot) -> Result<(), VerifyReleaseError> {
        let folder = slot.folder_name();
        let release = match self.read_release(workload, &folder)? {
            Ok(release) => release,
            Err(cause) => return Err(VerifyReleaseError::NotStaged { workload: workload.clone(), folder, cause }),
        };
        let found = digest_of_file(&self.disk, &release.program)?;
        if found != slot.artifact {
            return Err(VerifyReleaseError::Digest { expected: slot.artifact, found });
        }
        for (name, file) in release.configuration.iter().flat_map(|configuration| configuration.files()) {
            let Some(path) = release.files.get(name) else { continue };
            let found = digest_of_file(&self.disk, path)?;
            if found != file.digest {
                return Err(VerifyReleaseError::Digest { expected: file.digest, found });
            }
        }
        Ok(())
    }

    fn collect_garbage(&self, workload: &WorkloadName, keep: &[Slot]) -> Result<Vec<String>, DiskError> {
        let mut kept: Vec<String> = keep.iter().map(Slot::folder_name).collect();
        kept.extend(self.read_link(workload, CURRENT)?);
        kept.extend(self.read_link(workload, PREVIOUS)?);
        let releases = self.releases(workload);
        let mut gone = Vec::new();
        for folder in self.disk.list(&releases)? {
            if folder.starts_with(UNFINISHED) {
                self.disk.remove_directory(&releases.join(&folder))?;
            } else if !kept.contains(&folder) {
                self.remove_folder(&releases, &folder)?;
                gone.push(folder);
            }
        }
        let workloads = self.workloads_directory();
        for folder in self.disk.list(&workloads)?.iter().filter(|name| name.starts_with(UNFINISHED)) {
            self.disk.remove_directory(&workloads.join(folder))?;
        }
        Ok(gone)
    }

    fn update_lock(&self, workload: &WorkloadName) -> PathBuf {
        self.data(workload).join(UPDATE_LOCK)
    }

    fn is_update_locked(&self, workload: &WorkloadName) -> Result<bool, DiskError> {
        self.disk.is_there(&self.update_lock(workload))
    }

    fn remove_update_lock(&self, workload: &WorkloadName) -> Result<(), DiskError> {
        let lock = self.update_lock(workload);
        if self.disk.is_there(&lock)? { self.disk.remove_file(&lock) } else { Ok(()) }
    }

    fn remove(&self, workload: &WorkloadName) -> Result<(), DiskError> {
        let workloads = self.workloads_directory();
        if !self.disk.list(&workloads)?.iter().any(|name| name == workload.as_str()) {
            return Ok(());
        }
        self.remove_folder(&workloads, workload.as_str())
    }
}

#[cfg(test)]
mod tests;
