//! Artifacts as files.
//!
//! ```text
//! DATA/artifacts/b3_….part     an upload, as far as it has come
//! DATA/artifacts/b3_…          the whole artifact, verified
//! DATA/artifacts/b3_….groups   its group values
//! ```
//! A file has its final name only once it is durable and its digest is right.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_sync_core::artifact::{GroupTree, GroupTreeBuilder};
use fleetd_sync_core::id::ArtifactDigest;

use super::memory::check_size;
use super::{ArtifactError, ArtifactStore, Held};

/// Bytes that are read at once when a whole artifact is hashed.
const READ_BYTES: usize = 256 << 10;

/// Artifacts in one directory.
#[derive(Debug)]
pub struct DiskArtifactStore {
    directory: PathBuf,
    /// One upload writes at a time.
    writing: Mutex<()>,
}

impl DiskArtifactStore {
    /// Opens a directory, and makes it if it is not there.
    ///
    /// # Errors
    /// [`ArtifactError::Failed`].
    pub fn open(directory: &Path) -> Result<Self, ArtifactError> {
        fs::create_dir_all(directory).map_err(failed)?;
        Ok(Self { directory: directory.to_owned(), writing: Mutex::new(()) })
    }

    fn path(&self, digest: ArtifactDigest, suffix: &str) -> PathBuf {
        self.directory.join(format!("{digest}{suffix}"))
    }

    fn finish(&self, digest: ArtifactDigest, size_bytes: u64) -> Result<Held, ArtifactError> {
        let part = self.path(digest, ".part");
        let tree = tree_of(&part).map_err(failed)?;
        if tree.digest() != digest {
            fs::remove_file(&part).map_err(failed)?;
            return Err(ArtifactError::Digest { expected: digest, found: tree.digest() });
        }
        let groups = self.path(digest, ".groups");
        write_durably(&groups, tree.as_bytes()).map_err(failed)?;
        fs::rename(&part, self.path(digest, "")).map_err(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(Held::Whole { size_bytes })
    }
}

impl ArtifactStore for DiskArtifactStore {
    fn held(&self, digest: ArtifactDigest) -> Result<Held, ArtifactError> {
        if let Some(size_bytes) = length_of(&self.path(digest, ""))? {
            return Ok(Held::Whole { size_bytes });
        }
        let part = length_of(&self.path(digest, ".part"))?;
        Ok(part.map_or(Held::Nothing, |received_bytes| Held::Part { received_bytes }))
    }

    fn list(&self) -> Result<Vec<ArtifactDigest>, ArtifactError> {
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            digests.extend(name.to_str().and_then(|name| name.parse::<ArtifactDigest>().ok()));
        }
        digests.sort_unstable();
        Ok(digests)
    }

    fn append(
        &self,
        digest: ArtifactDigest,
        size_bytes: u64,
        offset_bytes: u64,
        content: &[u8],
    ) -> Result<Held, ArtifactError> {
        check_size(digest, size_bytes, offset_bytes, content)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let received_bytes = match self.held(digest)? {
            whole @ Held::Whole { .. } => return Ok(whole),
            Held::Part { received_bytes } => received_bytes,
            Held::Nothing => 0,
        };
        if received_bytes != offset_bytes {
            return Err(ArtifactError::Offset { digest, received_bytes, offset_bytes });
        }
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(digest, ".part")).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let received_bytes = file.metadata().map_err(failed)?.len();
        if received_bytes < size_bytes { Ok(Held::Part { received_bytes }) } else { self.finish(digest, size_bytes) }
    }

    fn read(&self, digest: ArtifactDigest, offset_bytes: u64, length: usize) -> Result<Vec<u8>, ArtifactError> {
        let mut file = match File::open(self.path(digest, "")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ArtifactError::Absent { digest }),
            Err(error) => return Err(failed(error)),
        };
        let size_bytes = file.metadata().map_err(failed)?.len();
        if offset_bytes > size_bytes {
            return Err(ArtifactError::Range { digest, offset_bytes });
        }
        file.seek(SeekFrom::Start(offset_bytes)).map_err(failed)?;
        let mut content = Vec::new();
        file.take(u64::try_from(length).unwrap_or(u64::MAX)).read_to_end(&mut content).map_err(failed)?;
        Ok(content)
    }

    fn tree(&self, digest: ArtifactDigest) -> Result<Arc<GroupTree>, ArtifactError> {
        let Held::Whole { size_bytes } = self.held(digest)? else { return Err(ArtifactError::Absent { digest }) };
        let kept = fs::read(self.path(digest, ".groups")).ok();
        if let Some(tree) = kept.and_then(|values| GroupTree::of(digest, size_bytes, &values).ok()) {
            return Ok(Arc::new(tree));
        }
        // The values are lost or damaged; the artifact has them.
        let tree = tree_of(&self.path(digest, "")).map_err(failed)?;
        if tree.digest() != digest {
            return Err(ArtifactError::Digest { expected: digest, found: tree.digest() });
        }
        write_durably(&self.path(digest, ".groups"), tree.as_bytes()).map_err(failed)?;
        Ok(Arc::new(tree))
    }
}

fn tree_of(path: &Path) -> io::Result<GroupTree> {
    let mut file = File::open(path)?;
    let mut builder = GroupTreeBuilder::new();
    let mut content = vec![0; READ_BYTES];
    loop {
        let length = file.read(&mut content)?;
        match content.get(..length) {
            Some([]) | None => return Ok(builder.finish()),
            Some(read) => drop(builder.update(read)),
        }
    }
}

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn length_of(path: &Path) -> Result<Option<u64>, ArtifactError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: io::Error) -> ArtifactError {
    ArtifactError::Failed { cause: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryArtifactStore;
    use super::*;

    fn check(store: &dyn ArtifactStore) {
        let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let (digest, size) = (ArtifactDigest::of(&content), u64::try_from(content.len()).unwrap());
        assert_eq!(store.held(digest), Ok(Held::Nothing));
        assert_eq!(store.append(digest, size, 0, &content[..50_000]), Ok(Held::Part { received_bytes: 50_000 }));
        assert!(matches!(
            store.append(digest, size, 7, b"x"),
            Err(ArtifactError::Offset { received_bytes: 50_000, .. })
        ));
        assert_eq!(store.read(digest, 0, 1), Err(ArtifactError::Absent { digest }));
        assert!(matches!(store.append(digest, 10, 50_000, b"x"), Err(ArtifactError::TooLarge { .. })));
        assert_eq!(store.append(digest, size, 50_000, &content[50_000..]), Ok(Held::Whole { size_bytes: size }));
        assert_eq!(store.append(digest, size, 0, b"again"), Ok(Held::Whole { size_bytes: size }));
        assert_eq!(store.read(digest, 399_990, 100).unwrap(), &content[399_990..]);
        assert!(matches!(store.read(digest, size + 1, 1), Err(ArtifactError::Range { .. })));
        let tree = store.tree(digest).unwrap();
        assert_eq!((tree.digest(), tree.size_bytes()), (digest, size));
    }

    fn check_wrong_bytes(store: &dyn ArtifactStore) {
        let digest = ArtifactDigest::of(b"right");
        assert!(matches!(store.append(digest, 5, 0, b"wrong"), Err(ArtifactError::Digest { .. })));
        assert_eq!(store.held(digest), Ok(Held::Nothing));
        assert_eq!(store.append(digest, 5, 0, b"right"), Ok(Held::Whole { size_bytes: 5 }));
    }

    #[test]
    fn an_upload_resumes_and_counts_only_when_its_digest_is_right() {
        let directory = tempfile::tempdir().unwrap();
        let disk = DiskArtifactStore::open(directory.path()).unwrap();
        for store in [&disk as &dyn ArtifactStore, &MemoryArtifactStore::default()] {
            check(store);
            check_wrong_bytes(store);
        }
    }

    #[test]
    fn lost_group_values_are_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskArtifactStore::open(directory.path()).unwrap();
        let digest = ArtifactDigest::of(b"coffee");
        store.append(digest, 6, 0, b"coffee").unwrap();
        fs::write(store.path(digest, ".groups"), b"damaged").unwrap();
        assert_eq!(store.tree(digest).unwrap().digest(), digest);
    }
}
