//! The authority's machine, stepped by hand.

use std::collections::BTreeSet;

use fleetd_sync_core::trust::{Change, Rank, Role, Sites};

use super::*;

struct World {
    root: SecretKey,
    key: SecretKey,
    first: RootChain,
    entropy: Entropy,
}

fn world() -> World {
    let mut entropy = Entropy::from_seed([3; 32]);
    let (root, key) = (SecretKey::generate(&mut entropy), SecretKey::generate(&mut entropy));
    let role = Role::Authority { rank: Rank::CENTRAL, sites: Sites::All };
    let first = RootRecord::draft(BTreeSet::from([root.public()]), 1, [(key.public(), role)]).unwrap().sign(&root);
    let first = RootChain::found(first.body().fleet, first).unwrap();
    World { root, key, first, entropy }
}

impl World {
    /// A server whose store and copy hold this much.
    fn load(&mut self, stored: &RootChain, lanes: Vec<Vec<u8>>, kept: &KeptTrust) -> Authority {
        let stored = StoredTrust { chain: stored.clone(), lanes };
        Authority::load(stored, kept, self.key.clone(), &mut self.entropy).unwrap()
    }

    fn nothing(&self) -> KeptTrust {
        KeptTrust { chain: self.first.clone(), envelopes: Vec::new() }
    }

    /// The record that follows a chain and lets another new key sign releases.
    fn next(&mut self, chain: &RootChain) -> RootRecord {
        let key = SecretKey::generate(&mut self.entropy).public();
        let role = Role::Release { workloads: BTreeSet::from(["coffee".parse().unwrap()]) };
        chain.draft_next([Change::Delegate { key, role }]).unwrap().sign(&self.root)
    }

    fn operation(&mut self) -> OperationId {
        OperationId::random(&mut self.entropy)
    }

    fn revoke(&mut self, authority: &mut Authority, key: KeyId) -> (Vec<Record>, Vec<Effect>) {
        let operation = self.operation();
        step(authority, Input::Revoke { operation, key, revocation: Revocation::Compromised })
    }
}

fn step(authority: &mut Authority, input: Input) -> (Vec<Record>, Vec<Effect>) {
    let mut turn = Turn::new();
    authority.handle(Now::default(), input, &mut turn);
    turn.into_parts()
}

fn start(authority: &mut Authority) -> (Vec<Record>, Vec<Effect>) {
    let mut turn = Turn::new();
    authority.handle_timeout(Now::default(), &mut turn);
    turn.into_parts()
}

fn kept(effects: &[Effect]) -> Option<KeptTrust> {
    effects.iter().find_map(|effect| match effect {
        Effect::Keep(kept) => Some(KeptTrust::clone(kept)),
        _ => None,
    })
}

fn lanes(records: Vec<Record>) -> Vec<Vec<u8>> {
    let bytes = records.into_iter().filter_map(|record| match record {
        Record::Lane(LaneRecord::Put { bytes, .. }) => Some(bytes.to_vec()),
        Record::Lane(_) | Record::Root(_) => None,
    });
    bytes.collect()
}

fn is_revoked(authority: &Authority, key: KeyId) -> bool {
    authority.trust().roster.is_device_revoked(key.into())
}

#[test]
fn a_root_record_counts_once_it_is_kept_beside_the_keys() {
    let mut world = world();
    let nothing = world.nothing();
    let mut authority = world.load(&nothing.chain, Vec::new(), &nothing);
    start(&mut authority);
    let record = Box::new(world.next(&nothing.chain));
    let operation = world.operation();
    let (records, effects) = step(&mut authority, Input::AddRootRecord { operation, record: record.clone() });
    assert!(records.is_empty() && matches!(effects.as_slice(), [Effect::Keep(_)]), "{effects:?}");
    assert_eq!(kept(&effects).unwrap().chain.newest(), &*record);
    let (records, effects) = step(&mut authority, Input::Kept(Ok(())));
    assert_eq!(records, [Record::Root(record)]);
    assert!(matches!(effects.as_slice(), [Effect::Announce(_), Effect::Answer { result: Ok(()), .. }]), "{effects:?}");
    assert_eq!(authority.trust().chain.version(), 2);
}

#[test]
fn a_root_record_that_cannot_be_kept_is_refused() {
    let mut world = world();
    let nothing = world.nothing();
    let mut authority = world.load(&nothing.chain, Vec::new(), &nothing);
    start(&mut authority);
    let (operation, record) = (world.operation(), Box::new(world.next(&nothing.chain)));
    step(&mut authority, Input::AddRootRecord { operation, record: record.clone() });
    let (records, effects) = step(&mut authority, Input::Kept(Err("no space".to_owned())));
    assert!(records.is_empty());
    let is_told = |effect: &Effect| matches!(effect, Effect::Answer { result: Err(AuthorityError::Keep { .. }), .. });
    assert!(effects.iter().all(is_told) && effects.len() == 1, "{effects:?}");
    assert_eq!(authority.trust().chain.version(), 1);
    let (_, effects) = step(&mut authority, Input::AddRootRecord { operation, record });
    assert!(kept(&effects).is_some(), "it may be tried again");
}

#[test]
fn a_second_root_record_waits_for_the_first_and_is_judged_after_it() {
    let mut world = world();
    let nothing = world.nothing();
    let mut authority = world.load(&nothing.chain, Vec::new(), &nothing);
    start(&mut authority);
    let rivals = [world.next(&nothing.chain), world.next(&nothing.chain)].map(Box::new);
    for record in rivals {
        let operation = world.operation();
        step(&mut authority, Input::AddRootRecord { operation, record });
    }
    let (_, effects) = step(&mut authority, Input::Kept(Ok(())));
    let is_refused = |effect: &Effect| {
        matches!(effect, Effect::Answer { result: Err(AuthorityError::Contradiction { version: 2 }), .. })
    };
    assert!(effects.iter().any(is_refused), "{effects:?}");
    assert!(kept(&effects).is_none());
}

#[test]
fn a_lost_store_starts_with_the_whole_chain_and_takes_no_second_record_of_a_version() {
    let mut world = world();
    let first = world.first.clone();
    let mut chain = first.clone();
    chain.extend(world.next(&first)).unwrap();
    let copy = KeptTrust { chain: chain.clone(), envelopes: Vec::new() };
    let mut authority = world.load(&first, Vec::new(), &copy);
    assert_eq!(*authority.trust().chain, chain);
    let (records, effects) = start(&mut authority);
    assert_eq!(records, [Record::Root(Box::new(chain.newest().clone()))], "the store gets it back");
    assert!(kept(&effects).is_none(), "the copy has it");
    let (operation, rival) = (world.operation(), Box::new(world.next(&first)));
    let (_, effects) = step(&mut authority, Input::AddRootRecord { operation, record: rival });
    let is_refused = |effect: &Effect| {
        matches!(effect, Effect::Answer { result: Err(AuthorityError::Contradiction { version: 2 }), .. })
    };
    assert!(effects.iter().any(is_refused), "{effects:?}");
}

#[test]
fn a_store_that_has_more_than_the_copy_fills_it() {
    let mut world = world();
    let mut chain = world.first.clone();
    chain.extend(world.next(&chain)).unwrap();
    let nothing = world.nothing();
    let mut authority = world.load(&chain, Vec::new(), &nothing);
    let (records, effects) = start(&mut authority);
    assert!(records.is_empty());
    assert_eq!(kept(&effects).unwrap().chain, chain);
}

#[test]
fn a_revocation_outlives_a_lost_store() {
    let mut world = world();
    let nothing = world.nothing();
    let key = SecretKey::generate(&mut world.entropy).id();
    let mut before = world.load(&nothing.chain, Vec::new(), &nothing);
    start(&mut before);
    let (_, effects) = world.revoke(&mut before, key);
    let copy = kept(&effects).unwrap();
    let mut after = world.load(&nothing.chain, Vec::new(), &copy);
    assert!(is_revoked(&after, key));
    let (records, effects) = start(&mut after);
    assert!(kept(&effects).is_none(), "the copy has it");
    let again = world.load(&nothing.chain, lanes(records), &nothing);
    assert!(is_revoked(&again, key), "the store has it again");
}

#[test]
fn a_copy_that_is_being_replaced_is_replaced_again_for_what_came_meanwhile() {
    let mut world = world();
    let nothing = world.nothing();
    let mut authority = world.load(&nothing.chain, Vec::new(), &nothing);
    start(&mut authority);
    let keys: Vec<KeyId> = (0..3).map(|_| SecretKey::generate(&mut world.entropy).id()).collect();
    let replaced = keys.iter().filter(|key| kept(&world.revoke(&mut authority, **key).1).is_some()).count();
    assert_eq!(replaced, 1, "one after the other");
    let (_, effects) = step(&mut authority, Input::Kept(Ok(())));
    let copy = kept(&effects).unwrap();
    let (_, effects) = step(&mut authority, Input::Kept(Ok(())));
    assert!(kept(&effects).is_none());
    let after = world.load(&nothing.chain, Vec::new(), &copy);
    assert!(keys.iter().all(|key| is_revoked(&after, *key)));
}

/// The copy may be older than the store was, where the keys came from a backup: devices know better then.
#[test]
fn revocations_that_a_device_brings_back_stand_beside_those_made_since() {
    let mut world = world();
    let nothing = world.nothing();
    let [old, new] = std::array::from_fn(|_| SecretKey::generate(&mut world.entropy).id());
    // Its second epoch: the device's branch is above all that a server without a store writes first.
    let mut first = world.load(&nothing.chain, Vec::new(), &nothing);
    let (records, _) = world.revoke(&mut first, SecretKey::generate(&mut Entropy::from_seed([9; 32])).id());
    let mut before = world.load(&nothing.chain, lanes(records), &nothing);
    world.revoke(&mut before, old);
    let on_devices = before.trust().envelopes.clone();

    let mut after = world.load(&nothing.chain, Vec::new(), &nothing);
    start(&mut after);
    world.revoke(&mut after, new);
    assert!(!is_revoked(&after, old));
    let (records, effects) = step(&mut after, Input::Received(on_devices));
    assert!(is_revoked(&after, old) && is_revoked(&after, new));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Announce(_))));
    let again = world.load(&nothing.chain, lanes(records), &nothing);
    assert!(is_revoked(&again, old) && is_revoked(&again, new), "durably");
}
