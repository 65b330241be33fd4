//! Artifacts in groups of 16 KiB, each verified against the digest before a byte of it counts.
//!
//! BLAKE3 is a tree over chunks of 1 KiB; a group is a subtree of 16 of them. The list of all groups' values merges
//! to the digest in one way only, so a list that does is the right one, and each group can then be checked alone, in
//! any order, against its own value. A server makes the list with [`GroupTreeBuilder`] as the bytes stream by; a
//! device checks the list with [`GroupTree::of`] and each group with [`GroupTree::verify`].
//!
//! An artifact of one group has no tree: its only value is the digest itself.
//!
//! # Source
//! The BLAKE3 paper, section 2.1 (tree structure), and the documentation of `blake3::hazmat`.

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::id::ArtifactDigest;
use crate::limit::{ARTIFACT_BYTES_MAX, ARTIFACT_GROUP_BYTES};

/// The BLAKE3 chaining value of one group.
pub type GroupValue = [u8; 32];

// A subtree must be a power of two of chunks, or groups would not be nodes of the tree.
const _: () = assert!(ARTIFACT_GROUP_BYTES.is_power_of_two() && ARTIFACT_GROUP_BYTES >= 1024);

/// Why a list of group values is not an artifact's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupTreeError {
    /// No artifact may be this large.
    #[error("{size_bytes} bytes; an artifact has at most {size_bytes_max}")]
    TooLarge {
        /// What it has.
        size_bytes: u64,
        /// What it may have.
        size_bytes_max: u64,
    },
    /// Another number of values than groups.
    #[error("{found} bytes of group values; {size_bytes} bytes of artifact need {expected}")]
    Count {
        /// The artifact's size.
        size_bytes: u64,
        /// Bytes that the list should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The values do not merge to the digest.
    #[error("the group values merge to {found}, not to {expected}")]
    Digest {
        /// The artifact.
        expected: ArtifactDigest,
        /// What they merge to.
        found: ArtifactDigest,
    },
}

/// Why bytes are not the group they were sent as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyGroupError {
    /// There is no such group.
    #[error("there is no group {index}: the artifact has {count}")]
    Index {
        /// What was asked for.
        index: u64,
        /// How many there are.
        count: u64,
    },
    /// Too few or too many bytes.
    #[error("group {index} has {expected} bytes, not {found}")]
    Length {
        /// Which group.
        index: u64,
        /// What it has.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Other bytes.
    #[error("group {index} is not what the digest promises")]
    Content {
        /// Which group.
        index: u64,
    },
}

/// The values of all groups of one artifact, known to belong to its digest.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupTree {
    digest: ArtifactDigest,
    size_bytes: u64,
    values: Vec<GroupValue>,
}

impl GroupTree {
    /// Checks that `values`, 32 bytes for each group in order, are those of the artifact.
    ///
    /// # Errors
    /// [`GroupTreeError`] when they are too many, too few, or do not merge to the digest.
    pub fn of(digest: ArtifactDigest, size_bytes: u64, values: &[u8]) -> Result<Self, GroupTreeError> {
        if size_bytes > ARTIFACT_BYTES_MAX {
            return Err(GroupTreeError::TooLarge { size_bytes, size_bytes_max: ARTIFACT_BYTES_MAX });
        }
        let expected = group_values_bytes(size_bytes);
        let found = length(values);
        let (values, rest) = values.as_chunks::<32>();
        if found != expected || !rest.is_empty() {
            return Err(GroupTreeError::Count { size_bytes, expected, found });
        }
        let found = root_of(values);
        if found != digest {
            return Err(GroupTreeError::Digest { expected: digest, found });
        }
        Ok(Self { digest, size_bytes, values: values.to_vec() })
    }

    /// Checks the bytes of one group.
    ///
    /// # Errors
    /// [`VerifyGroupError`] when there is no such group, or it has other bytes.
    pub fn verify(&self, index: u64, bytes: &[u8]) -> Result<(), VerifyGroupError> {
        let missing = VerifyGroupError::Index { index, count: self.group_count() };
        let position = usize::try_from(index).map_err(|_| missing.clone())?;
        let value = self.values.get(position).ok_or(missing)?;
        let expected = group_bytes(self.size_bytes, index);
        if length(bytes) != expected {
            return Err(VerifyGroupError::Length { index, expected, found: length(bytes) });
        }
        let found = match self.values.as_slice() {
            [_] => *blake3::hash(bytes).as_bytes(),
            _ => group_hasher(index).update(bytes).finalize_non_root(),
        };
        if found == *value { Ok(()) } else { Err(VerifyGroupError::Content { index }) }
    }

    /// The artifact.
    #[must_use]
    pub const fn digest(&self) -> ArtifactDigest {
        self.digest
    }

    /// The artifact's size.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How many groups there are.
    #[must_use]
    pub fn group_count(&self) -> u64 {
        group_count(self.size_bytes)
    }

    /// The values as they travel and are stored: 32 bytes for each group, in order.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.values.as_flattened()
    }

    /// A run of the values, cut where the list ends.
    #[must_use]
    pub fn run(&self, group_first: u64, group_count: u64) -> &[u8] {
        let first = usize::try_from(group_first).unwrap_or(usize::MAX).min(self.values.len());
        let count = usize::try_from(group_count).unwrap_or(usize::MAX);
        let rest = self.values.get(first..).unwrap_or_default();
        rest.get(..count.min(rest.len())).unwrap_or_default().as_flattened()
    }
}

impl std::fmt::Debug for GroupTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupTree({}, {} groups)", self.digest, self.values.len())
    }
}

/// How many groups an artifact has; an empty one has one empty group.
#[must_use]
pub const fn group_count(size_bytes: u64) -> u64 {
    match size_bytes.div_ceil(ARTIFACT_GROUP_BYTES) {
        0 => 1,
        count => count,
    }
}

/// How many bytes a group has: all have the same but the last.
#[must_use]
pub const fn group_bytes(size_bytes: u64, index: u64) -> u64 {
    let left = size_bytes.saturating_sub(index.saturating_mul(ARTIFACT_GROUP_BYTES));
    if left < ARTIFACT_GROUP_BYTES { left } else { ARTIFACT_GROUP_BYTES }
}

/// How many bytes an artifact's list of group values has.
#[must_use]
pub const fn group_values_bytes(size_bytes: u64) -> u64 {
    group_count(size_bytes).saturating_mul(32)
}

/// Makes an artifact's digest and group values while its bytes stream by.
#[derive(Debug)]
pub struct GroupTreeBuilder {
    group: Hasher,
    group_bytes: u64,
    values: Vec<GroupValue>,
}

impl Default for GroupTreeBuilder {
    fn default() -> Self {
        Self { group: group_hasher(0), group_bytes: 0, values: Vec::new() }
    }
}

impl GroupTreeBuilder {
    /// Starts with no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes there were.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        u64::try_from(self.values.len()).unwrap_or(u64::MAX) * ARTIFACT_GROUP_BYTES + self.group_bytes
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) -> &mut Self {
        while !bytes.is_empty() {
            // A full group is closed only when more follows: the only one must be hashed as the root.
            if self.group_bytes == ARTIFACT_GROUP_BYTES {
                self.values.push(self.group.finalize_non_root());
                self.group = group_hasher(u64::try_from(self.values.len()).unwrap_or(u64::MAX));
                self.group_bytes = 0;
            }
            let room = usize::try_from(ARTIFACT_GROUP_BYTES - self.group_bytes).unwrap_or(usize::MAX);
            let (taken, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.group.update(taken);
            self.group_bytes += length(taken);
            bytes = rest;
        }
        self
    }

    /// Ends the artifact.
    #[must_use]
    pub fn finish(mut self) -> GroupTree {
        let size_bytes = self.size_bytes();
        let last =
            if self.values.is_empty() { *self.group.finalize().as_bytes() } else { self.group.finalize_non_root() };
        self.values.push(last);
        GroupTree { digest: root_of(&self.values), size_bytes, values: self.values }
    }
}

fn group_hasher(index: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(index.saturating_mul(ARTIFACT_GROUP_BYTES));
    hasher
}

/// Merges group values to the artifact's digest.
fn root_of(values: &[GroupValue]) -> ArtifactDigest {
    let root = match values {
        [] => *blake3::hash(&[]).as_bytes(),
        [only] => *only,
        _ => {
            let (left, right) = split(values);
            *merge_subtrees_root(&node_of(left), &node_of(right), Mode::Hash).as_bytes()
        }
    };
    ArtifactDigest::from_bytes(root)
}

/// Merges group values to the value of the node above them. The depth is the logarithm of their number: 19 at most.
fn node_of(values: &[GroupValue]) -> GroupValue {
    match values {
        [] => [0; 32],
        [only] => *only,
        _ => {
            let (left, right) = split(values);
            merge_subtrees_non_root(&node_of(left), &node_of(right), Mode::Hash)
        }
    }
}

/// Splits at the largest power of two that leaves the right side something.
fn split(values: &[GroupValue]) -> (&[GroupValue], &[GroupValue]) {
    values.split_at_checked(values.len().div_ceil(2).next_power_of_two()).unwrap_or((values, &[]))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
