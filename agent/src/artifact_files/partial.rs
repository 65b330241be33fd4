//! Artifact files on a [`Disk`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::limit;

use super::{
    ArtifactFiles, BeginArtifactError, FinishArtifactError, GROUPS_PER_CHECKPOINT, GroupSet, Held, WriteGroupError,
};
use crate::disk::{Disk, DiskError, FileMode, digest_of_file};
use crate::install::FREE_BYTES_RESERVE;

/// Starts every file of marks; the digit is the layout's version.
const MARKS_MAGIC: &[u8; 8] = b"FLGROUP1";
/// Bytes of the checksum that ends a file of marks.
const CHECKSUM_BYTES: usize = 16;

/// Artifact files on a [`Disk`].
#[derive(Debug)]
pub struct DiskArtifactFiles<D> {
    disk: D,
    directory: PathBuf,
    open: Mutex<BTreeMap<ArtifactDigest, Partial>>,
}

/// A download that this process has begun or resumed.
#[derive(Debug)]
struct Partial {
    size_bytes: u64,
    /// Written, though perhaps only to the operating system's memory.
    written: GroupSet,
    /// Groups written since the last checkpoint.
    unmarked: u64,
}

impl<D: Disk> DiskArtifactFiles<D> {
    /// Keeps artifacts in `directory`, which is created when it is needed, in a data directory that is there.
    pub fn new(disk: D, directory: impl Into<PathBuf>) -> Self {
        Self { disk, directory: directory.into(), open: Mutex::new(BTreeMap::new()) }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<ArtifactDigest, Partial>> {
        // What a panic in another thread left is at worst a group that will be written again.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn whole_path(&self, artifact: &ArtifactDigest) -> PathBuf {
        self.directory.join(artifact.to_string())
    }

    fn part_path(&self, artifact: &ArtifactDigest) -> PathBuf {
        self.directory.join(format!("{artifact}.part"))
    }

    fn marks_path(&self, artifact: &ArtifactDigest) -> PathBuf {
        self.directory.join(format!("{artifact}.groups"))
    }

    /// Reads the durable marks; `None` when there are none that can be trusted.
    fn read_marks(&self, artifact: &ArtifactDigest) -> Result<Option<(u64, GroupSet)>, DiskError> {
        let Some(bytes) = self.disk.read(&self.marks_path(artifact))? else { return Ok(None) };
        let marks = decode_marks(&bytes);
        let part_bytes = self.disk.length(&self.part_path(artifact))?;
        // Marks without their bytes come from a directory that somebody tidied by hand.
        Ok(marks.filter(|(_size, groups)| part_bytes.is_some() || groups.present() == 0))
    }

    /// Makes the groups durable first, and only then the marks that vouch for them.
    fn write_marks(&self, artifact: &ArtifactDigest, partial: &mut Partial) -> Result<(), DiskError> {
        let fresh = self.marks_path(artifact).with_extension("groups.new");
        self.disk.sync_file(&self.part_path(artifact))?;
        self.disk.write(&fresh, &encode_marks(partial.size_bytes, &partial.written), FileMode::Private)?;
        self.disk.sync_file(&fresh)?;
        self.disk.rename(&fresh, &self.marks_path(artifact))?;
        self.disk.sync_directory(&self.directory)?;
        partial.unmarked = 0;
        Ok(())
    }

    fn check_space(
        &self,
        artifact: &ArtifactDigest,
        size_bytes: u64,
        held_bytes: u64,
    ) -> Result<(), BeginArtifactError> {
        let free_bytes = self.disk.free_bytes(&self.directory)?;
        let needed_bytes = size_bytes.saturating_sub(held_bytes);
        if needed_bytes.saturating_add(FREE_BYTES_RESERVE) > free_bytes {
            let reserve_bytes = FREE_BYTES_RESERVE;
            return Err(BeginArtifactError::NoSpace { artifact: *artifact, needed_bytes, free_bytes, reserve_bytes });
        }
        Ok(())
    }

    fn remove_part(&self, artifact: &ArtifactDigest) -> Result<(), DiskError> {
        // The marks go first: marks without their bytes would vouch for zeroes.
        self.disk.remove_file(&self.marks_path(artifact))?;
        self.disk.sync_directory(&self.directory)?;
        self.disk.remove_file(&self.part_path(artifact))?;
        self.disk.remove_file(&self.marks_path(artifact).with_extension("groups.new"))?;
        self.disk.sync_directory(&self.directory)
    }
}

fn encode_marks(size_bytes: u64, groups: &GroupSet) -> Vec<u8> {
    let mut bytes = MARKS_MAGIC.to_vec();
    bytes.extend_from_slice(&size_bytes.to_le_bytes());
    bytes.extend_from_slice(groups.as_bytes());
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes().first_chunk::<CHECKSUM_BYTES>().unwrap_or(&[0; CHECKSUM_BYTES]));
    bytes
}

fn decode_marks(bytes: &[u8]) -> Option<(u64, GroupSet)> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if !blake3::hash(body).as_bytes().starts_with(checksum) {
        return None;
    }
    let (size, bits) = body.strip_prefix(MARKS_MAGIC)?.split_first_chunk::<8>()?;
    let size_bytes = u64::from_le_bytes(*size);
    if size_bytes > limit::ARTIFACT_BYTES_MAX {
        return None;
    }
    Some((size_bytes, GroupSet::from_bytes(size_bytes, bits)?))
}

fn group_length(size_bytes: u64, index: u64) -> u64 {
    size_bytes.saturating_sub(index.saturating_mul(limit::ARTIFACT_GROUP_BYTES)).min(limit::ARTIFACT_GROUP_BYTES)
}

impl<D: Disk> ArtifactFiles for DiskArtifactFiles<D> {
    fn begin(&self, artifact: &ArtifactDigest, size_bytes: u64) -> Result<GroupSet, BeginArtifactError> {
        if size_bytes > limit::ARTIFACT_BYTES_MAX {
            let size_bytes_max = limit::ARTIFACT_BYTES_MAX;
            return Err(BeginArtifactError::TooLarge { artifact: *artifact, size_bytes, size_bytes_max });
        }
        let mut open = self.open();
        if let Some(partial) = open.get(artifact).filter(|partial| partial.size_bytes == size_bytes) {
            return Ok(partial.written.clone());
        }
        self.disk.create_directory(&self.directory)?;
        if let Some(data_directory) = self.directory.parent() {
            self.disk.sync_directory(data_directory)?;
        }
        let (size_held, groups) = match self.held(artifact)? {
            Held::Whole { size_bytes: whole_bytes, .. } if whole_bytes == size_bytes => {
                let mut groups = GroupSet::of_size(size_bytes);
                (0..groups.count()).for_each(|index| groups.insert(index));
                // Still there if the power was cut right after the artifact had got its name.
                self.disk.remove_file(&self.marks_path(artifact))?;
                return Ok(groups);
            }
            Held::Part { size_bytes: part_bytes, groups } if part_bytes == size_bytes => (groups.present(), groups),
            Held::Nothing | Held::Part { .. } | Held::Whole { .. } => {
                self.remove_part(artifact)?;
                (0, GroupSet::of_size(size_bytes))
            }
        };
        self.check_space(artifact, size_bytes, size_held.saturating_mul(limit::ARTIFACT_GROUP_BYTES))?;
        // An empty write creates the file, so that an artifact without a byte has one too.
        self.disk.write_at(&self.part_path(artifact), 0, &[])?;
        open.insert(*artifact, Partial { size_bytes, written: groups.clone(), unmarked: 0 });
        Ok(groups)
    }

    fn held(&self, artifact: &ArtifactDigest) -> Result<Held, DiskError> {
        let path = self.whole_path(artifact);
        if let Some(size_bytes) = self.disk.length(&path)? {
            return Ok(Held::Whole { path, size_bytes });
        }
        Ok(match self.read_marks(artifact)? {
            Some((size_bytes, groups)) => Held::Part { size_bytes, groups },
            None => Held::Nothing,
        })
    }

    fn write_group(&self, artifact: &ArtifactDigest, index: u64, bytes: &[u8]) -> Result<(), WriteGroupError> {
        let mut open = self.open();
        let Some(partial) = open.get_mut(artifact) else {
            return Err(WriteGroupError::NotBegun { artifact: *artifact });
        };
        let count = partial.written.count();
        if index >= count {
            return Err(WriteGroupError::Index { artifact: *artifact, index, count });
        }
        let expected = group_length(partial.size_bytes, index);
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if found != expected {
            return Err(WriteGroupError::Length { artifact: *artifact, index, expected, found });
        }
        if partial.written.contains(index) {
            return Ok(());
        }
        self.disk.write_at(&self.part_path(artifact), index * limit::ARTIFACT_GROUP_BYTES, bytes)?;
        partial.written.insert(index);
        partial.unmarked += 1;
        if partial.unmarked >= GROUPS_PER_CHECKPOINT {
            self.write_marks(artifact, partial)?;
        }
        Ok(())
    }

    fn checkpoint(&self, artifact: &ArtifactDigest) -> Result<(), DiskError> {
        match self.open().get_mut(artifact) {
            Some(partial) if partial.unmarked > 0 => self.write_marks(artifact, partial),
            _ => Ok(()),
        }
    }

    fn finish(&self, artifact: &ArtifactDigest) -> Result<PathBuf, FinishArtifactError> {
        let mut open = self.open();
        let whole = self.whole_path(artifact);
        let Some(partial) = open.get(artifact) else {
            return match self.disk.length(&whole)? {
                Some(_size) => Ok(whole),
                None => Err(FinishArtifactError::NotBegun { artifact: *artifact }),
            };
        };
        let (present, count) = (partial.written.present(), partial.written.count());
        if present < count {
            return Err(FinishArtifactError::Missing { artifact: *artifact, missing: count - present, count });
        }
        let part = self.part_path(artifact);
        self.disk.sync_file(&part)?;
        let found = digest_of_file(&self.disk, &part)?;
        if found != *artifact {
            open.remove(artifact);
            self.remove_part(artifact)?;
            return Err(FinishArtifactError::Digest { artifact: *artifact, found });
        }
        self.disk.rename(&part, &whole)?;
        self.disk.sync_directory(&self.directory)?;
        open.remove(artifact);
        // Only now: until the name was durable, the marks were still needed to resume.
        self.disk.remove_file(&self.marks_path(artifact))?;
        Ok(whole)
    }

    fn discard(&self, artifact: &ArtifactDigest) -> Result<(), DiskError> {
        self.open().remove(artifact);
        if self.disk.list(&self.directory)?.is_empty() {
            return Ok(());
        }
        self.disk.remove_file(&self.whole_path(artifact))?;
        self.remove_part(artifact)
    }

    fn list(&self) -> Result<Vec<ArtifactDigest>, DiskError> {
        let names = self.disk.list(&self.directory)?;
        let mut artifacts: Vec<ArtifactDigest> =
            names.iter().filter_map(|name| Path::new(name).file_stem()?.to_str()?.parse().ok()).collect();
        artifacts.sort_unstable();
        artifacts.dedup();
        Ok(artifacts)
    }
}

#[cfg(test)]
mod tests;
