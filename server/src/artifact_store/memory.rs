//! The in-memory twin of the artifact store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::artifact::{GroupTree, GroupTreeBuilder};
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::limit;

use super::{ArtifactError, ArtifactStore, Held};

#[derive(Debug, Default)]
struct Kept {
    parts: BTreeMap<ArtifactDigest, Vec<u8>>,
    whole: BTreeMap<ArtifactDigest, (Vec<u8>, Arc<GroupTree>)>,
}

/// Artifacts in memory.
#[derive(Debug, Default)]
pub struct MemoryArtifactStore {
    kept: Mutex<Kept>,
}

impl MemoryArtifactStore {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl ArtifactStore for MemoryArtifactStore {
    fn held(&self, digest: ArtifactDigest) -> Result<Held, ArtifactError> {
        let kept = self.lock();
        Ok(match (kept.whole.get(&digest), kept.parts.get(&digest)) {
            (Some((whole, _)), _) => Held::Whole { size_bytes: size(whole) },
            (None, Some(part)) => Held::Part { received_bytes: size(part) },
            (None, None) => Held::Nothing,
        })
    }

    fn list(&self) -> Result<Vec<ArtifactDigest>, ArtifactError> {
        Ok(self.lock().whole.keys().copied().collect())
    }

    fn append(
        &self,
        digest: ArtifactDigest,
        size_bytes: u64,
        offset_bytes: u64,
        content: &[u8],
    ) -> Result<Held, ArtifactError> {
        check_size(digest, size_bytes, offset_bytes, content)?;
        if let whole @ Held::Whole { .. } = self.held(digest)? {
            return Ok(whole);
        }
        let mut kept = self.lock();
        let part = kept.parts.entry(digest).or_default();
        let received_bytes = size(part);
        if received_bytes != offset_bytes {
            return Err(ArtifactError::Offset { digest, received_bytes, offset_bytes });
        }
        part.extend_from_slice(content);
        let received_bytes = size(part);
        if received_bytes < size_bytes {
            return Ok(Held::Part { received_bytes });
        }
        let whole = kept.parts.remove(&digest).unwrap_or_default();
        let mut builder = GroupTreeBuilder::new();
        builder.update(&whole);
        let tree = builder.finish();
        if tree.digest() != digest {
            return Err(ArtifactError::Digest { expected: digest, found: tree.digest() });
        }
        kept.whole.insert(digest, (whole, Arc::new(tree)));
        Ok(Held::Whole { size_bytes })
    }

    fn read(&self, digest: ArtifactDigest, offset_bytes: u64, length: usize) -> Result<Vec<u8>, ArtifactError> {
        let kept = self.lock();
        let (whole, _) = kept.whole.get(&digest).ok_or(ArtifactError::Absent { digest })?;
        let range = ArtifactError::Range { digest, offset_bytes };
        let begin = usize::try_from(offset_bytes).map_err(|_| range.clone())?;
        let rest = whole.get(begin..).ok_or(range)?;
        Ok(rest.get(..length).unwrap_or(rest).to_vec())
    }

    fn tree(&self, digest: ArtifactDigest) -> Result<Arc<GroupTree>, ArtifactError> {
        let kept = self.lock();
        kept.whole.get(&digest).map(|(_, tree)| Arc::clone(tree)).ok_or(ArtifactError::Absent { digest })
    }
}

/// Refuses an upload that is too large, or larger than it said.
pub(super) fn check_size(
    digest: ArtifactDigest,
    size_bytes: u64,
    offset_bytes: u64,
    content: &[u8],
) -> Result<(), ArtifactError> {
    let end = offset_bytes.saturating_add(size(content));
    if size_bytes > limit::ARTIFACT_BYTES_MAX {
        return Err(ArtifactError::TooLarge { digest, size_bytes, size_bytes_max: limit::ARTIFACT_BYTES_MAX });
    }
    if end > size_bytes {
        return Err(ArtifactError::TooLarge { digest, size_bytes: end, size_bytes_max: size_bytes });
    }
    Ok(())
}
