//! Root records that are drafted and signed on the operator's machine.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;

use fleetd::command::trust::draft::{complete, sign};
use fleetd::command::trust::record_file::{self, RecordFile};
use fleetd::exit::Exit;
use fleetd::key_file::{self, KeyFileError};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::trust::{Change, Extension, Revocation, Role, RootChain, RootRecord};

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

fn next(chain: &RootChain, change: Change) -> RootRecord {
    chain.draft_next([change]).unwrap()
}

fn delegate(key: &SecretKey) -> Change {
    Change::Delegate { key: key.public(), role: coffee() }
}

#[test]
fn a_signed_delegation_extends_the_chain() {
    let [root, release] = keys();
    let mut chain = chain(&[&root], 1);
    let record = sign(&chain, next(&chain, delegate(&release)), &[root]).unwrap();
    complete(&chain, &record).unwrap();
    assert_eq!(chain.extend(record), Ok(Extension::Extended));
    assert_eq!(chain.newest().body().delegations[&release.id()].role, coffee());
}

#[test]
fn a_key_that_is_not_the_roots_signs_nothing() {
    let [root, other, release] = keys();
    let chain = chain(&[&root], 1);
    let error = sign(&chain, next(&chain, delegate(&release)), &[other]).unwrap_err();
    assert_eq!(error.code, "trust.not_root");
}

#[test]
fn one_of_two_needed_keys_is_too_few_and_the_same_twice_too() {
    let [first, second, release] = keys();
    let chain = chain(&[&first, &second], 2);
    let record = sign(&chain, next(&chain, delegate(&release)), &[first.clone(), first]).unwrap();
    let error = complete(&chain, &record).unwrap_err();
    assert_eq!((error.code.as_str(), error.exit), ("trust.threshold", Exit::Usage));
    assert!(error.to_string().contains(&second.id().to_string()), "{error}");
    complete(&chain, &sign(&chain, record, &[second]).unwrap()).unwrap();
}

#[test]
fn a_draft_travels_as_a_file_that_says_what_would_change() {
    let [root, anna, ben] = keys();
    let chain = chain(&[&root], 1);
    let rotate = Change::Rotate { keys: BTreeSet::from([anna.public(), ben.public()]), threshold: 2 };
    let record = next(&chain, rotate);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("next.record");
    record_file::create(&path, &RecordFile { chain: chain.clone(), record }).unwrap();
    let exists = record_file::create(&path, &record_file::read(&path).unwrap()).unwrap_err();
    assert_eq!(exists.code, "trust.draft_exists");

    for (key, signed) in [(&anna, 1), (&root, 2), (&ben, 3)] {
        let mut file = record_file::read(&path).unwrap();
        assert!(complete(&file.chain, &file.record).is_err(), "{signed} keys");
        file.record = sign(&file.chain, file.record, std::slice::from_ref(key)).unwrap();
        record_file::replace(&path, &file).unwrap();
    }
    let file = record_file::read(&path).unwrap();
    assert_eq!(file.chain, chain);
    let words = record_file::describe(&file);
    assert!(words.contains("the root is 2 of") && words.contains(&chain.fleet().to_string()), "{words}");
    complete(&chain, &file.record).unwrap();
}

#[test]
fn a_file_that_was_changed_or_drafted_on_another_chain_is_refused() {
    let [root, release] = keys();
    let mut grown = chain(&[&root], 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("next.record");
    let record = sign(&grown, next(&grown, delegate(&release)), std::slice::from_ref(&root)).unwrap();
    record_file::create(&path, &RecordFile { chain: grown.clone(), record: record.clone() }).unwrap();

    let late = next(&grown, Change::Revoke { key: release.id(), revocation: Revocation::Retired }).sign(&root);
    grown.extend(late).unwrap();
    assert_eq!(complete(&grown, &record).unwrap_err().code, "trust.draft_stale");

    let text = std::fs::read_to_string(&path).unwrap();
    for (broken, what) in [(text[..text.len() / 2].to_owned(), "cut"), (String::new(), "empty")] {
        std::fs::write(&path, broken).unwrap();
        assert_eq!(record_file::read(&path).unwrap_err().code, "trust.draft_malformed", "{what}");
    }
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
