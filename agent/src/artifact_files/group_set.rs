//! Which groups of an artifact are there: one bit each.

use fleetd_sync_core::limit;

/// A set of an artifact's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSet {
    count: u64,
    bits: Vec<u8>,
}

impl GroupSet {
    /// The empty set of an artifact of this size.
    #[must_use]
    pub fn of_size(size_bytes: u64) -> Self {
        let count = size_bytes.div_ceil(limit::ARTIFACT_GROUP_BYTES);
        Self { count, bits: vec![0; usize::try_from(count.div_ceil(8)).unwrap_or(usize::MAX)] }
    }

    /// Takes a set's bytes; `None` when they are not those of an artifact of this size.
    #[must_use]
    pub fn from_bytes(size_bytes: u64, bits: &[u8]) -> Option<Self> {
        let mut set = Self::of_size(size_bytes);
        if set.bits.len() != bits.len() {
            return None;
        }
        set.bits.copy_from_slice(bits);
        let used_in_last = set.count % 8;
        let stray = set.bits.last().is_some_and(|last| used_in_last != 0 && last >> used_in_last != 0);
        (!stray).then_some(set)
    }

    /// The set's bytes, lowest group first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// How many groups the artifact has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many groups are in the set.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// Says whether every group is in the set.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.present() == self.count
    }

    /// Says whether a group is in the set.
    #[must_use]
    pub fn contains(&self, index: u64) -> bool {
        let byte = usize::try_from(index / 8).ok().and_then(|byte| self.bits.get(byte));
        byte.is_some_and(|byte| byte >> (index % 8) & 1 == 1)
    }

    /// Adds a group; one that the artifact does not have is left out.
    pub fn insert(&mut self, index: u64) {
        if index >= self.count {
            return;
        }
        if let Some(byte) = usize::try_from(index / 8).ok().and_then(|byte| self.bits.get_mut(byte)) {
            *byte |= 1 << (index % 8);
        }
    }

    /// The groups that are not in the set, lowest first.
    pub fn missing(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.count).filter(|index| !self.contains(*index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_survives_its_bytes_and_refuses_those_of_another_size() {
        let size = 19 * limit::ARTIFACT_GROUP_BYTES + 1;
        let mut set = GroupSet::of_size(size);
        assert_eq!(set.count(), 20);
        set.insert(0);
        set.insert(19);
        set.insert(20);
        assert_eq!((set.present(), set.contains(19), set.contains(20)), (2, true, false));
        assert_eq!(set.missing().next(), Some(1));
        assert_eq!(GroupSet::from_bytes(size, set.as_bytes()), Some(set.clone()));
        assert_eq!(GroupSet::from_bytes(size * 2, set.as_bytes()), None);
        assert_eq!(GroupSet::from_bytes(size, &[0, 0, 0b0001_0000]), None, "a bit beyond the last group");
    }

    #[test]
    fn an_empty_artifact_has_no_groups_and_is_complete() {
        assert!(GroupSet::of_size(0).is_complete());
    }
}
