//! Artifacts in verified groups.

use fleetd_sync_core::artifact::{
    GroupTree, GroupTreeBuilder, GroupTreeError, VerifyGroupError, group_bytes, group_count,
};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::limit::{ARTIFACT_BYTES_MAX, ARTIFACT_GROUP_BYTES};
use proptest::prelude::*;

const GROUP: usize = 16 << 10;

fn content(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    Entropy::from_seed([11; 32]).fill(&mut bytes);
    bytes
}

fn built(bytes: &[u8], piece: usize) -> GroupTree {
    let mut builder = GroupTreeBuilder::new();
    for piece in bytes.chunks(piece.max(1)) {
        builder.update(piece);
    }
    builder.finish()
}

/// Checks an artifact against the reference hash, group by group, in reverse order.
fn check(bytes: &[u8], piece: usize) {
    let digest = ArtifactDigest::of(bytes);
    let size_bytes = u64::try_from(bytes.len()).unwrap();
    let tree = built(bytes, piece);
    assert_eq!((tree.digest(), tree.size_bytes()), (digest, size_bytes), "{} bytes", bytes.len());
    let received = GroupTree::of(digest, size_bytes, tree.as_bytes()).unwrap();
    assert_eq!(received, tree);
    let mut verified = 0;
    let mut groups: Vec<&[u8]> = bytes.chunks(GROUP).collect();
    if groups.is_empty() {
        groups.push(&[]);
    }
    assert_eq!(u64::try_from(groups.len()), Ok(received.group_count()));
    for (index, group) in groups.into_iter().enumerate().rev() {
        let index = u64::try_from(index).unwrap();
        assert_eq!(u64::try_from(group.len()), Ok(group_bytes(size_bytes, index)));
        assert_eq!(received.verify(index, group), Ok(()), "group {index} of {} bytes", bytes.len());
        verified += group.len();
    }
    assert_eq!(verified, bytes.len());
    let beyond = received.verify(received.group_count(), &[]);
    assert_eq!(beyond, Err(VerifyGroupError::Index { index: tree.group_count(), count: tree.group_count() }));
}

#[test]
fn the_tree_agrees_with_blake3_around_every_boundary() {
    let bytes = content(33 * GROUP + 5);
    let mut sizes = vec![0, 1, 1023, 1024, 1025, 2048, 2049];
    for groups in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33] {
        for around in [groups * GROUP - 1025, groups * GROUP - 1, groups * GROUP, groups * GROUP + 1] {
            sizes.push(around);
        }
    }
    for size in sizes {
        check(&bytes[..size], 10_007);
    }
}

#[test]
fn an_artifact_of_one_group_has_the_digest_for_its_value() {
    for size in [1, 1024, GROUP] {
        let bytes = content(size);
        let tree = built(&bytes, size);
        assert_eq!(tree.as_bytes(), ArtifactDigest::of(&bytes).as_bytes());
    }
    assert_eq!(group_count(0), 1);
    assert_eq!(group_count(ARTIFACT_GROUP_BYTES), 1);
    assert_eq!(group_count(ARTIFACT_GROUP_BYTES + 1), 2);
}

#[test]
fn groups_that_change_places_are_refused() {
    let bytes = content(4 * GROUP);
    let tree = built(&bytes, GROUP);
    let refused = tree.verify(1, &bytes[2 * GROUP..3 * GROUP]);
    assert_eq!(refused, Err(VerifyGroupError::Content { index: 1 }));
    // Even equal bytes have another value at another place.
    let same = vec![7; 4 * GROUP];
    let tree = built(&same, GROUP);
    let values: Vec<&[u8]> = tree.as_bytes().chunks(32).collect();
    assert_ne!(values[0], values[1]);
    let swapped = [values[1], values[0], values[2], values[3]].concat();
    assert!(matches!(GroupTree::of(tree.digest(), 4 << 14, &swapped), Err(GroupTreeError::Digest { .. })));
}

#[test]
fn a_list_of_the_wrong_length_is_refused_before_it_is_hashed() {
    let bytes = content(3 * GROUP);
    let tree = built(&bytes, GROUP);
    let size_bytes = tree.size_bytes();
    for values in [&tree.as_bytes()[..64], &tree.as_bytes()[..95], &[]] {
        let found = u64::try_from(values.len()).unwrap();
        let refused = GroupTree::of(tree.digest(), size_bytes, values);
        assert_eq!(refused, Err(GroupTreeError::Count { size_bytes, expected: 96, found }));
    }
    let refused = GroupTree::of(tree.digest(), ARTIFACT_BYTES_MAX + 1, tree.as_bytes());
    assert!(matches!(refused, Err(GroupTreeError::TooLarge { .. })));
    assert!(matches!(tree.verify(0, &bytes[..GROUP - 1]), Err(VerifyGroupError::Length { .. })));
}

#[test]
fn a_run_of_values_is_cut_where_the_list_ends() {
    let tree = built(&content(3 * GROUP), GROUP);
    assert_eq!(tree.run(0, 3), tree.as_bytes());
    assert_eq!(tree.run(1, 1), &tree.as_bytes()[32..64]);
    assert_eq!(tree.run(2, u64::MAX), &tree.as_bytes()[64..]);
    assert!(tree.run(3, 1).is_empty() && tree.run(u64::MAX, 1).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_artifact_of_any_size_in_any_pieces_is_verified(size in 0_usize..12 * GROUP, piece in 1_usize..3 * GROUP) {
        check(&content(size), piece);
    }

    #[test]
    fn no_flipped_bit_survives(size in 1_usize..9 * GROUP, at in any::<proptest::sample::Index>()) {
        let mut bytes = content(size);
        let tree = built(&bytes, GROUP);
        let bit = at.index(size * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let group = bit / 8 / GROUP;
        let end = size.min((group + 1) * GROUP);
        let index = u64::try_from(group).unwrap();
        let refused = tree.verify(index, &bytes[group * GROUP..end]);
        prop_assert_eq!(refused, Err(VerifyGroupError::Content { index }));

        let mut values = tree.as_bytes().to_vec();
        let bit = at.index(values.len() * 8);
        values[bit / 8] ^= 1 << (bit % 8);
        let refused = GroupTree::of(tree.digest(), tree.size_bytes(), &values);
        let is_digest = matches!(refused, Err(GroupTreeError::Digest { .. }));
        prop_assert!(is_digest);
    }
}
