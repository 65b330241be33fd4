//! The copy of trust: what may lie beside a server's keys in its place.

use std::collections::BTreeSet;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::trust::{Armoured as _, Change, Rank, Role, RootChain, RootRecord, Sites, read_armour};

use super::{ENVELOPES_MAX, Encoded, RECORDS_MAX, check_forward};

/// Inputs that are tried at random in every run of the tests, after the corpus.
const CASES: usize = 2000;

fn founding() -> (SecretKey, RootRecord) {
    let mut entropy = Entropy::from_seed([9; 32]);
    let [root, authority] = std::array::from_fn(|_| SecretKey::generate(&mut entropy));
    let delegations = [(authority.public(), Role::Authority { rank: Rank::CENTRAL, sites: Sites::All })];
    let record = RootRecord::draft(BTreeSet::from([root.public()]), 1, delegations).unwrap().sign(&root);
    (root, record)
}

thread_local! {
    static FIRST: RootRecord = founding().1;
}

/// Bytes within the block: the checksum around them is put right.
fn check(bytes: &[u8]) -> bool {
    let Ok(encoded) = Encoded::from_armour_bytes(bytes) else { return false };
    assert_eq!(encoded.to_armour_bytes(), bytes, "a copy has one encoding");
    assert!(encoded.records.len() <= RECORDS_MAX && encoded.envelopes.len() <= ENVELOPES_MAX);
    assert!(encoded.records.iter().all(|record| record.len() <= limit::ROOT_RECORD_BYTES_MAX));
    assert!(encoded.envelopes.iter().all(|envelope| envelope.len() <= limit::SNAPSHOT_BYTES_MAX));
    let again: Encoded = read_armour(&encoded.to_armour()).unwrap();
    assert_eq!((&again.records, &again.envelopes), (&encoded.records, &encoded.envelopes));
    let first = FIRST.with(Clone::clone);
    let founded = RootChain::found(first.body().fleet, first.clone()).unwrap();
    match RootChain::load(first.body().fleet, encoded.records.clone()) {
        Ok(chain) => {
            assert!(chain.records().map(RootRecord::encode).eq(encoded.records), "a chain is all its records");
            assert!(check_forward(&founded, &chain).is_ok(), "it goes on from the first record, which is the fleet");
            true
        }
        Err(_) => false,
    }
}

fn samples() -> Vec<Vec<u8>> {
    let (root, first) = founding();
    let mut chain = RootChain::found(first.body().fleet, first).unwrap();
    let of = |chain: &RootChain, envelopes: Vec<Vec<u8>>| {
        Encoded { records: chain.records().map(RootRecord::encode).collect(), envelopes }.to_armour_bytes()
    };
    let alone = of(&chain, Vec::new());
    let key = SecretKey::generate(&mut Entropy::from_seed([7; 32]));
    let role = Role::Release { workloads: BTreeSet::from(["coffee".parse().unwrap()]) };
    let record = chain.draft_next([Change::Delegate { key: key.public(), role }]).unwrap();
    chain.extend(record.sign(&root)).unwrap();
    vec![alone, of(&chain, vec![b"as it came".to_vec(), Vec::new()])]
}

#[test]
fn every_sample_of_a_copy_of_trust_is_one() {
    assert!(samples().iter().all(|sample| check(sample)));
}

#[test]
fn any_bytes_are_one_copy_of_trust_or_none() {
    bolero::check!(name = "trust_file").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
