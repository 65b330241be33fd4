//! Root records that are drafted and signed on the operator's machine.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use fleetd::command::trust::sign_next;
use fleetd::exit::Exit;
use fleetd::key_file::{self, KeyFileError};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::trust::{Extension, Role, RootChain, RootRecord};

fn keys<const N: usize>() -> [SecretKey; N] {
    let mut entropy = Entropy::from_seed([8; 32]);
    std::array::from_fn(|_| SecretKey::generate(&mut entropy))
}

fn chain(roots: &[&SecretKey], threshold: u8) -> RootChain {
    let public: BTreeSet<_> = roots.iter().map(|key| key.public()).collect();
    let record = RootRecord::draft(public, threshold, []).unwrap();
    let record = roots.iter().fold(record, |record, root| record.sign(root));
    RootChain::found(record.body().fleet, record).unwrap()
}

fn coffee() -> Role {
    Role::Release { workloads: BTreeSet::from(["coffee".parse().unwrap()]) }
}

#[test]
fn a_signed_delegation_extends_the_chain() {
    let [root, release] = keys();
    let mut chain = chain(&[&root], 1);
    let record = sign_next(&chain, release.public(), coffee(), &[root]).unwrap();
    assert_eq!(chain.extend(record), Ok(Extension::Extended));
    assert_eq!(chain.newest().body().delegations[&release.id()].role, coffee());
}

#[test]
fn a_key_that_is_not_the_roots_signs_nothing() {
    let [root, other, release] = keys();
    let error = sign_next(&chain(&[&root], 1), release.public(), coffee(), &[other]).unwrap_err();
    assert_eq!(error.code, "trust.not_root");
}

#[test]
fn one_of_two_needed_keys_is_too_few_and_the_same_twice_too() {
    let [first, second, release] = keys();
    let chain = chain(&[&first, &second], 2);
    let error = sign_next(&chain, release.public(), coffee(), &[first.clone(), first.clone()]).unwrap_err();
    assert_eq!((error.code.as_str(), error.exit), ("trust.threshold", Exit::Usage));
    assert!(sign_next(&chain, release.public(), coffee(), &[first, second]).is_ok());
}

#[test]
fn a_key_pair_is_written_once_and_its_secret_half_for_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ci.key");
    let [key] = keys();
    let public = key_file::create(&path, &key).unwrap();
    assert_eq!(public, folder.path().join("ci.pub"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(key_file::read_secret(&path).unwrap().id(), key.id());
    assert_eq!(key_file::read_public(&public).unwrap(), key.public());
    assert!(matches!(key_file::create(&path, &key), Err(KeyFileError::Exists { .. })));
    assert!(matches!(key_file::read_public(&path), Err(KeyFileError::Content { .. })), "a secret is no public key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(key_file::read_secret(&path), Err(KeyFileError::Permissions { mode: 0o644, .. })));
}
