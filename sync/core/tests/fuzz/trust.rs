//! Root records, the chain that they make, and the blocks of text in which they and keys move: in mail, in files, and
//! in a server's first message to a device that knows nothing yet.

use std::collections::BTreeSet;

use fleetd_sync_core::codec::{Reader, Writer};
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::limit;
use fleetd_sync_core::release::SignedManifest;
use fleetd_sync_core::trust::{
    Armoured, Change, Rank, ReadArmourError, Revocation, Role, RootChain, RootRecord, Roster, Sites, read_armour,
};

use super::{CASES, release};

fn record(bytes: &[u8]) -> bool {
    let Ok(record) = RootRecord::decode(bytes) else { return false };
    assert_eq!(record.encode(), bytes, "a root record has one encoding");
    assert!(bytes.len() <= limit::ROOT_RECORD_BYTES_MAX);
    let body = record.body();
    assert!((1..=limit::ROOT_KEYS_MAX).contains(&body.keys.len()));
    assert!(body.threshold > 0 && usize::from(body.threshold) <= body.keys.len());
    assert!(body.delegations.len() <= limit::ROOT_DELEGATIONS_MAX);
    true
}

/// A chain in which each record is behind its length, taken as one that is loaded and one that grows.
fn chain(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let mut records = Vec::new();
    while let Ok(bytes) = reader.bytes("record", limit::ROOT_RECORD_BYTES_MAX) {
        records.push(bytes);
    }
    let Some(first) = records.first().and_then(|bytes| RootRecord::decode(bytes).ok()) else { return false };
    let fleet = first.body().fleet;
    let Ok(mut chain) = RootChain::found(fleet, first) else { return false };
    for bytes in &records {
        if let Ok(record) = RootRecord::decode(bytes) {
            let version = chain.version();
            let _ = chain.extend(record);
            assert!(chain.version() == version || chain.version() == version + 1, "a chain goes on by one");
        }
    }
    let stored: Vec<Vec<u8>> = chain.records().map(RootRecord::encode).collect();
    assert_eq!(RootChain::load(fleet, stored), Ok(chain.clone()), "what a chain stores is that chain");
    let roster = Roster::new(&chain, []);
    assert!(roster.authorities().all(|(id, authority)| authority.key.id() == id));
    true
}

fn block<T: Armoured>(text: &str) -> bool {
    let Ok(value) = read_armour::<T>(text) else { return false };
    let again = read_armour::<T>(&value.to_armour()).map(|value| value.to_armour_bytes());
    assert_eq!(again, Ok(value.to_armour_bytes()), "a block is read as it was written");
    true
}

fn armour(text: &str) -> bool {
    [block::<PublicKey>, block::<SecretKey>, block::<RootRecord>, block::<SignedManifest>]
        .into_iter()
        .any(|block| block(text))
}

/// Bytes in a block whose checksum is right, since none that is changed at random passes it.
macro_rules! raw_block {
    ($name:ident, $of:ty) => {
        struct $name(Vec<u8>);

        impl Armoured for $name {
            const LABEL: &'static str = <$of>::LABEL;

            fn to_armour_bytes(&self) -> Vec<u8> {
                self.0.clone()
            }

            fn from_armour_bytes(bytes: &[u8]) -> Result<Self, ReadArmourError> {
                Ok(Self(bytes.to_vec()))
            }
        }
    };
}

raw_block!(RawPublicKey, PublicKey);
raw_block!(RawSecretKey, SecretKey);
raw_block!(RawRecord, RootRecord);
raw_block!(RawRelease, SignedManifest);

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    match kind {
        0 => record(rest),
        1 => chain(rest),
        2 => block::<PublicKey>(&RawPublicKey(rest.to_vec()).to_armour()),
        3 => block::<SecretKey>(&RawSecretKey(rest.to_vec()).to_armour()),
        4 => block::<RootRecord>(&RawRecord(rest.to_vec()).to_armour()),
        5 => block::<SignedManifest>(&RawRelease(rest.to_vec()).to_armour()),
        _ => std::str::from_utf8(rest).is_ok_and(armour),
    }
}

fn samples() -> Vec<Vec<u8>> {
    let [root, second, ca, authority, ci, other] = [1, 2, 3, 4, 5, 6].map(|seed| SecretKey::from_bytes([seed; 32]));
    let sites = Sites::Only(BTreeSet::from(["berlin".parse().unwrap(), "oslo".parse().unwrap()]));
    let roles = [
        (ca.public(), Role::CertificateAuthority),
        (authority.public(), Role::Authority { rank: Rank::CENTRAL, sites: Sites::All }),
        (other.public(), Role::Authority { rank: Rank::SITE, sites }),
        (ci.public(), Role::Release { workloads: BTreeSet::from(["coffee".parse().unwrap()]) }),
    ];
    let first = RootRecord::draft(BTreeSet::from([root.public()]), 1, roles).unwrap().sign(&root);
    let founded = RootChain::found(first.body().fleet, first.clone()).unwrap();
    let changes = [
        Change::Rotate { keys: BTreeSet::from([root.public(), second.public()]), threshold: 2 },
        Change::Withdraw { key: other.id() },
        Change::Revoke { key: ci.id(), revocation: Revocation::Compromised },
    ];
    let next = founded.draft_next(changes).unwrap().sign(&root).sign(&second);
    let mut writer = Writer::new();
    writer.bytes(&first.encode()).bytes(&next.encode());
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    vec![
        of(0, &first.encode()),
        of(0, &next.encode()),
        of(1, &writer.finish()),
        of(2, &root.public().to_armour_bytes()),
        of(3, &root.to_armour_bytes()),
        of(4, &next.encode()),
        of(5, release::samples().first().unwrap()),
        of(b'-', root.public().to_armour().as_bytes()),
        of(b'-', first.to_armour().as_bytes()),
    ]
}

#[test]
fn every_sample_of_trust_is_what_it_says() {
    assert!(samples().iter().all(|sample| check(sample)));
}

#[test]
fn any_bytes_are_one_root_record_or_block_or_none() {
    bolero::check!(name = "trust").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
