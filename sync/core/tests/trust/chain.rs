//! The root chain.

use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::trust::{
    Armoured, Change, DraftError, ExtendError, Extension, LoadChainError, OtherRecord, ReadArmourError,
    ReadRecordError, Revocation, Role, RootChain, RootRecord, read_all_armour, read_armour,
};

use super::world::{central_role, chain, first_record, key, public, release_role};

fn extended(chain: &RootChain, changes: Vec<Change>) -> RootRecord {
    chain.draft_next(changes).unwrap().sign(&key("root"))
}

#[test]
fn the_fleet_id_is_the_hash_of_the_first_record() {
    let first = first_record();
    let fleet = first.body().fleet;
    assert!(RootChain::found(fleet, first.clone()).is_ok());
    let other = FleetId::from_bytes([1; 16]);
    assert!(matches!(RootChain::found(other, first), Err(ExtendError::NotFounding { .. })));
    let roles = [(key("ca").public(), Role::CertificateAuthority)];
    let impostor = RootRecord::draft(public(&["thief"]), 1, roles).unwrap().sign(&key("thief"));
    assert!(matches!(RootChain::found(fleet, impostor), Err(ExtendError::NotFounding { .. })));
}

#[test]
fn a_first_record_that_nobody_signed_founds_nothing() {
    let unsigned = RootRecord::draft(public(&["root"]), 1, []).unwrap();
    let fleet = unsigned.body().fleet;
    let refused = RootChain::found(fleet, unsigned.clone());
    assert_eq!(refused, Err(ExtendError::Threshold { version: 1, by: 1, signed: 0, threshold: 1 }));
    let refused = RootChain::found(fleet, unsigned.sign(&key("thief")));
    assert_eq!(refused, Err(ExtendError::Threshold { version: 1, by: 1, signed: 0, threshold: 1 }));
}

#[test]
fn the_next_record_needs_a_threshold_of_the_old_keys_and_of_its_own() {
    let mut chain = chain();
    let rotate = Change::Rotate { keys: public(&["a", "b", "c"]), threshold: 2 };
    let draft = chain.draft_next([rotate]).unwrap();
    let by_new_only = draft.clone().sign(&key("a")).sign(&key("b"));
    assert!(matches!(chain.extend(by_new_only.clone()), Err(ExtendError::Threshold { by: 1, signed: 0, .. })));
    let by_too_few = draft.sign(&key("root")).sign(&key("a"));
    assert!(matches!(chain.extend(by_too_few), Err(ExtendError::Threshold { by: 2, signed: 1, threshold: 2, .. })));
    assert_eq!(chain.version(), 1);
    assert_eq!(chain.extend(by_new_only.sign(&key("root"))), Ok(Extension::Extended));
    // From here on the old key alone is worth nothing.
    let next = chain.draft_next([]).unwrap();
    assert!(matches!(chain.extend(next.clone().sign(&key("root"))), Err(ExtendError::Threshold { by: 2, .. })));
    assert_eq!(chain.extend(next.sign(&key("c")).sign(&key("b"))), Ok(Extension::Extended));
}

#[test]
fn copies_of_a_draft_that_were_signed_apart_make_one_record() {
    let mut chain = chain();
    let rotate = Change::Rotate { keys: public(&["a", "b"]), threshold: 2 };
    let draft = chain.draft_next([rotate]).unwrap();
    let count = chain.count_signatures(&draft.clone().sign(&key("a")));
    assert!(count.former.signed.is_empty() && count.former.unsigned.contains(&key("root").id()));
    assert_eq!((count.own.threshold, count.own.signed.len(), count.own.unsigned.len()), (2, 1, 1));

    let whole = draft.clone().sign(&key("a")).join(draft.clone().sign(&key("b"))).unwrap();
    let whole = whole.join(draft.clone().sign(&key("root"))).unwrap();
    let other = chain.draft_next([]).unwrap().sign(&key("root"));
    assert_eq!(draft.join(other), Err(OtherRecord), "a signature counts for what was signed");
    assert_eq!(chain.extend(whole), Ok(Extension::Extended));
}

#[test]
fn all_blocks_of_a_text_are_read_and_a_cut_one_is_noticed() {
    let chain = chain();
    let records = [chain.newest().clone(), extended(&chain, vec![])];
    let text: String = records.iter().map(|record| format!("words\n{}", record.to_armour())).collect();
    assert_eq!(read_all_armour::<RootRecord>(&text).unwrap(), records);
    assert_eq!(read_all_armour::<RootRecord>("words").unwrap(), []);
    let cut = &text[..text.len() - 40];
    assert!(matches!(read_all_armour::<RootRecord>(cut), Err(ReadArmourError::Checksum { .. })));
}

#[test]
fn a_chain_goes_only_forward() {
    let mut chain = chain();
    let second = extended(&chain, vec![]);
    assert_eq!(chain.extend(second.clone()), Ok(Extension::Extended));
    let third = extended(&chain, vec![]);
    assert_eq!(chain.extend(third.clone()), Ok(Extension::Extended));
    assert_eq!(chain.extend(second.clone()), Ok(Extension::Known));
    assert_eq!(chain.extend(first_record()), Ok(Extension::Known));
    assert_eq!(chain.version(), 3);
    assert_eq!(chain.records_above(1).cloned().collect::<Vec<_>>(), [second, third.clone()]);
    assert_eq!(chain.records_above(3).count(), 0);
    let mut fresh = super::world::chain();
    assert_eq!(fresh.extend(third), Err(ExtendError::Gap { expected: 2, found: 3 }));
}

#[test]
fn of_two_records_of_one_version_the_first_is_kept_and_an_alarm_is_raised() {
    let mut chain = chain();
    let one = extended(&chain, vec![Change::Withdraw { key: key("ci").id() }]);
    let other = extended(&chain, vec![Change::Withdraw { key: key("site").id() }]);
    assert_eq!(chain.extend(one.clone()), Ok(Extension::Extended));
    assert_eq!(chain.extend(other.clone()), Ok(Extension::Alarm { version: 2 }));
    assert_eq!(chain.newest(), &one);
    // What the root did not sign is no alarm, or anybody could raise one.
    let unsigned = super::world::chain().draft_next([]).unwrap().sign(&key("thief"));
    assert!(matches!(chain.extend(unsigned), Err(ExtendError::Threshold { .. })));
    // A first record that differs founds another fleet.
    let refounded = RootRecord::draft(public(&["root"]), 1, []).unwrap().sign(&key("root"));
    assert!(matches!(chain.extend(refounded), Err(ExtendError::ForeignFleet { .. })));
}

#[test]
fn signatures_of_strangers_are_dropped_and_bad_ones_refused() {
    let mut chain = chain();
    let record = extended(&chain, vec![]).sign(&key("stranger"));
    assert_eq!(chain.extend(record), Ok(Extension::Extended));
    assert_eq!(chain.newest().signers().collect::<Vec<_>>(), [key("root").id()]);

    let good = extended(&chain, vec![]).encode();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(record) = RootRecord::decode(&bytes) else { continue };
        // A flip of the version can give the body of the record before, which changes nothing.
        let outcome = chain.clone().extend(record);
        assert!(matches!(outcome, Err(_) | Ok(Extension::Known)), "bit {bit}: {outcome:?}");
    }
}

#[test]
fn a_generation_never_falls() {
    let mut chain = chain();
    let ci = key("ci").public();
    let widen = Change::Delegate { key: ci, role: release_role(&["coffee", "tea"]) };
    let second = extended(&chain, vec![widen.clone()]);
    assert_eq!(second.body().delegations[&ci.id()].generation, 2);
    assert_eq!(chain.extend(second), Ok(Extension::Extended));
    assert_eq!(chain.extend(extended(&chain, vec![Change::Withdraw { key: ci.id() }])), Ok(Extension::Extended));
    // A draft that forgot what it withdrew, as one made from the first record would be.
    let forgetful = super::world::chain();
    let mut stale = forgetful;
    for _ in 0..3 {
        let next = extended(&stale, vec![]);
        stale.extend(next).unwrap();
    }
    let refused = chain.extend(stale.newest().clone());
    assert_eq!(refused, Err(ExtendError::Generation { version: 4, key: ci.id(), found: 1, floor: 2 }));
    let back = extended(&chain, vec![widen]);
    assert_eq!(back.body().delegations[&ci.id()].generation, 3);
    assert_eq!(chain.extend(back), Ok(Extension::Extended));
}

#[test]
fn a_draft_says_only_what_a_root_may_say() {
    let chain = chain();
    let root_as_ci = Change::Delegate { key: key("root").public(), role: release_role(&["coffee"]) };
    assert_eq!(chain.draft_next([root_as_ci]), Err(DraftError::SharedKey { key: key("root").id() }));
    let nothing = Change::Delegate { key: key("new").public(), role: release_role(&[]) };
    assert_eq!(chain.draft_next([nothing]), Err(DraftError::EmptyScope { key: key("new").id(), role: "release" }));
    let unknown = Change::Withdraw { key: key("new").id() };
    assert_eq!(chain.draft_next([unknown]), Err(DraftError::NoRole { key: key("new").id() }));
    let unreachable = Change::Rotate { keys: public(&["a"]), threshold: 2 };
    assert_eq!(chain.draft_next([unreachable]), Err(DraftError::Threshold { threshold: 2, keys: 1 }));
    let mut revoked = chain.clone();
    let revoke = Change::Revoke { key: key("ci").id(), revocation: Revocation::Compromised };
    revoked.extend(extended(&chain, vec![revoke])).unwrap();
    let again = Change::Delegate { key: key("ci").public(), role: central_role() };
    let refused = revoked.draft_next([again]);
    assert_eq!(refused, Err(DraftError::Revoked { key: key("ci").id(), revocation: Revocation::Compromised }));
    let twice = [(key("ca").public(), Role::Bundle), (key("ca").public(), Role::Time)];
    assert_eq!(RootRecord::draft(public(&["root"]), 1, twice), Err(DraftError::SharedKey { key: key("ca").id() }));
}

#[test]
fn a_chain_is_loaded_from_its_bytes_or_says_what_is_wrong() {
    let mut chain = chain();
    chain.extend(extended(&chain, vec![Change::Withdraw { key: key("site").id() }])).unwrap();
    let stored: Vec<Vec<u8>> = chain.records().map(RootRecord::encode).collect();
    assert_eq!(RootChain::load(chain.fleet(), &stored), Ok(chain.clone()));
    let none: [&[u8]; 0] = [];
    assert_eq!(RootChain::load(chain.fleet(), none), Err(LoadChainError::Empty { fleet: chain.fleet() }));
    let swapped = [&stored[1], &stored[0]];
    assert!(matches!(RootChain::load(chain.fleet(), swapped), Err(LoadChainError::Refused { number: 1, .. })));
    let cut = [stored[0].as_slice(), &stored[1][..40]];
    assert!(matches!(RootChain::load(chain.fleet(), cut), Err(LoadChainError::Read { number: 2, .. })));
}

#[test]
fn a_record_has_one_encoding() {
    let record = first_record();
    let bytes = record.encode();
    assert_eq!(RootRecord::decode(&bytes), Ok(record));
    for length in 0..bytes.len() {
        assert!(RootRecord::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Ok(record) = RootRecord::decode(&flipped) {
            assert_eq!(record.encode(), flipped, "bit {bit}");
        }
    }
    assert!(matches!(RootRecord::decode(&[0; 20_000]), Err(ReadRecordError::TooLarge { .. })));
    let newer = [&bytes[..2], &[2], &bytes[3..]].concat();
    assert_eq!(RootRecord::decode(&newer), Err(ReadRecordError::Newer { layout: 2 }));
}

#[test]
fn keys_and_records_move_as_text() {
    let (secret, record) = (key("ci"), first_record());
    let text = secret.public().to_armour();
    assert_eq!(read_armour::<PublicKey>(&format!("From: ci\n\n{text}\nThanks!\n")), Ok(secret.public()));
    assert_eq!(read_armour::<SecretKey>(&secret.to_armour()).unwrap().id(), secret.id());
    assert_eq!(read_armour::<RootRecord>(&record.to_armour().replace('\n', "\r\n")), Ok(record.clone()));

    let kind = read_armour::<PublicKey>(&secret.to_armour());
    assert_eq!(kind, Err(ReadArmourError::Kind { label: "PUBLIC KEY", found: "FLEETD SECRET KEY".to_owned() }));
    assert_eq!(read_armour::<PublicKey>("ssh-ed25519 AAAA"), Err(ReadArmourError::Missing { label: "PUBLIC KEY" }));
    let whole = record.to_armour();
    let cut = whole.split_once("-----END").unwrap().0;
    assert_eq!(read_armour::<RootRecord>(cut), Err(ReadArmourError::Checksum { label: "ROOT RECORD" }));
    let (start, line) = text.split_once('\n').unwrap();
    let swapped = format!("{start}\n{}", line.replacen(&line[..2], "B0", 1));
    assert_eq!(read_armour::<PublicKey>(&swapped), Err(ReadArmourError::Checksum { label: "PUBLIC KEY" }));
}
