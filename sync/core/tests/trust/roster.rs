//! What chain and trust document say together.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Op, Value};
use fleetd_sync_core::id::{ArtifactDigest, LocalId};
use fleetd_sync_core::lane::Refusal;
use fleetd_sync_core::replica::Replica;
use fleetd_sync_core::time::Now;
use fleetd_sync_core::trust::{Change, Rank, Revocation, RootChain, Roster, Standing, deny_path, revoke_path};
use proptest::prelude::*;

use super::world::{Trust, chain, key, release_role};

fn after(changes: Vec<Change>) -> RootChain {
    let mut chain = chain();
    let next = chain.draft_next(changes).unwrap().sign(&key("root"));
    chain.extend(next).unwrap();
    chain
}

fn revoke(lane: &'static str, target: &str, word: &'static str) -> (&'static str, String, &'static str) {
    (lane, revoke_path(key(target).id()), word)
}

#[test]
fn authorities_are_those_of_the_newest_record() {
    let roster = Trust::new(&[]).roster(&chain());
    assert_eq!(roster.authority(key("central").id()).map(|authority| authority.rank), Some(Rank::CENTRAL));
    assert_eq!(roster.authorities().count(), 2);
    assert!(roster.authority(key("root").id()).is_none());
    assert!(roster.authority(key("ci").id()).is_none());
    let roster = Trust::new(&[]).roster(&after(vec![Change::Withdraw { key: key("site").id() }]));
    assert!(roster.authority(key("site").id()).is_none());
    assert_eq!(roster.authorities().count(), 1);
}

#[test]
fn a_release_key_is_active_retired_or_compromised() {
    let coffee = "coffee".parse().unwrap();
    let standing = |trust: &[_], chain: &RootChain| {
        Trust::new(trust).roster(chain).release_key(key("ci").id(), &coffee).map(|(_, standing)| standing)
    };
    assert_eq!(standing(&[], &chain()), Some(Standing::Active));
    let withdrawn = after(vec![Change::Withdraw { key: key("ci").id() }]);
    assert_eq!(standing(&[], &withdrawn), Some(Standing::Retired));
    let moved = after(vec![Change::Delegate { key: key("ci").public(), role: release_role(&["tea"]) }]);
    assert_eq!(standing(&[], &moved), Some(Standing::Retired));
    assert_eq!(standing(&[revoke("central", "ci", "retired")], &chain()), Some(Standing::Retired));
    assert_eq!(standing(&[revoke("central", "ci", "compromised")], &chain()), Some(Standing::Compromised));
    assert_eq!(standing(&[revoke("central", "ci", "a word of 2030")], &chain()), Some(Standing::Compromised));
    assert_eq!(standing(&[revoke("central", "ci", "stopped")], &withdrawn), Some(Standing::Stopped));
    let by_root = after(vec![Change::Revoke { key: key("ci").id(), revocation: Revocation::Compromised }]);
    assert_eq!(standing(&[revoke("central", "ci", "retired")], &by_root), Some(Standing::Compromised));
    let roster = Trust::new(&[]).roster(&chain());
    assert!(roster.release_key(key("ci").id(), &"fleetd-agent".parse().unwrap()).is_none());
    assert!(roster.release_key(key("stranger").id(), &coffee).is_none());
}

#[test]
fn devices_believe_the_newest_certificate_authority_and_servers_older_ones_too() {
    use fleetd_sync_core::trust::Role;
    let renewed = || {
        vec![
            Change::Withdraw { key: key("ca").id() },
            Change::Delegate { key: key("ca-2").public(), role: Role::CertificateAuthority },
        ]
    };
    let roster = Trust::new(&[]).roster(&after(renewed()));
    assert_eq!(roster.certificate_authorities().collect::<Vec<_>>(), [key("ca-2").public()]);
    assert_eq!(roster.certificate_authorities_ever().count(), 2);
    let mut changes = renewed();
    changes.push(Change::Revoke { key: key("ca").id(), revocation: Revocation::Compromised });
    let roster = Trust::new(&[]).roster(&after(changes));
    assert_eq!(roster.certificate_authorities_ever().collect::<Vec<_>>(), [key("ca-2").public()]);
    // An authority has no say here: it could cut every device off.
    let roster = Trust::new(&[revoke("central", "ca", "compromised")]).roster(&chain());
    assert_eq!(roster.certificate_authorities().collect::<Vec<_>>(), [key("ca").public()]);
}

#[test]
fn authorities_revoke_devices_and_lower_ranks_only() {
    let device = LocalId::from(key("device").id());
    let roster = Trust::new(&[revoke("site", "device", "stolen")]).roster(&chain());
    assert!(roster.is_device_revoked(device));
    let roster = Trust::new(&[revoke("site", "central", "compromised")]).roster(&chain());
    assert!(roster.authority(key("central").id()).is_some());
    let roster = Trust::new(&[revoke("central", "site", "compromised")]).roster(&chain());
    assert!(roster.authority(key("site").id()).is_none());
    // A site's word does not reach what the whole fleet runs.
    let release = ArtifactDigest::of(b"release");
    let roster = Trust::new(&[revoke("site", "ci", "stopped"), ("site", deny_path(release), "bad")]).roster(&chain());
    assert!(!roster.is_revoked(key("ci").id()));
    assert_eq!(roster.denial(release), None);
    let roster = Trust::new(&[("central", deny_path(release), "burns beans")]).roster(&chain());
    assert_eq!(roster.denial(release), Some("burns beans"));
}

#[test]
fn a_revoked_authoritys_revocations_are_void() {
    let trust = [revoke("site", "device", "stolen"), revoke("central", "site", "compromised")];
    let roster = Trust::new(&trust).roster(&chain());
    assert!(!roster.is_device_revoked(LocalId::from(key("device").id())));
    // The same from a key that never was an authority, or is no longer one.
    let roster = Trust::new(&[revoke("stranger", "device", "stolen")]).roster(&chain());
    assert_eq!(roster.revoked().count(), 0);
    let withdrawn = after(vec![Change::Withdraw { key: key("site").id() }]);
    assert_eq!(Trust::new(&[revoke("site", "device", "stolen")]).roster(&withdrawn).revoked().count(), 0);
}

#[test]
fn entries_that_are_not_understood_change_nothing() {
    let odd = [
        ("central", "revoke/nobody".to_owned(), "retired"),
        ("central", format!("{}/more", revoke_path(key("device").id())), "retired"),
        ("central", "deny/b3_0".to_owned(), "short"),
        ("central", "praise/coffee".to_owned(), "good"),
    ];
    assert_eq!(Trust::new(&odd).roster(&chain()), Trust::new(&[]).roster(&chain()));
}

#[test]
fn a_replica_believes_the_authorities_of_its_roster_and_a_revocation_in_it_voids_lanes() {
    let fleet = chain().fleet();
    let mut entropy = Entropy::from_seed([8; 32]);
    let mut central = Replica::new(fleet, Some(key("central")), &mut entropy);
    central.hold(DocumentId::Trust);
    let writers = |replica: &Replica| Roster::of(&chain(), replica).writers(BTreeMap::new(), BTreeMap::new());
    let _ = central.set_writers(writers(&central));
    let op =
        Op::Set { path: revoke_path(key("site").id()).parse().unwrap(), value: Value::Text("compromised".to_owned()) };
    let written = central.write(Now::default(), DocumentId::Trust, vec![op]).unwrap();

    let mut device = Replica::new(fleet, Some(key("device")), &mut entropy);
    device.hold(DocumentId::Trust);
    let _ = device.set_writers(writers(&device));
    assert!(device.writers().key(DocumentId::Trust, key("site").id()).is_ok());
    let received = device.receive(&written.envelopes[0]);
    assert_eq!(received.changed, BTreeSet::from([DocumentId::Trust]));
    let _ = device.set_writers(writers(&device));
    let site = key("site").id();
    assert_eq!(device.writers().key(DocumentId::Trust, site), Err(Refusal::Revoked { lane: site }));
    assert!(device.writers().key(DocumentId::Trust, key("central").id()).is_ok());
    assert_eq!(device.writers().trust_version, 1);
}

const LANES: [&str; 4] = ["central", "site", "ci", "stranger"];
const TARGETS: [&str; 6] = ["central", "site", "ci", "ca", "device", "root"];
const WORDS: [&str; 4] = ["retired", "compromised", "stopped", "other"];

proptest! {
    #[test]
    fn a_roster_does_not_depend_on_the_order_in_which_things_came(
        picks in proptest::collection::vec((0_usize..4, 0_usize..7, 0_usize..4), 0..12),
        arrivals in proptest::collection::vec(0_usize..5, 20..40),
    ) {
        // The chain, delivered record by record in some order until nothing is missing.
        let mut whole = chain();
        for change in [
            Change::Delegate { key: key("ci").public(), role: release_role(&["coffee", "tea"]) },
            Change::Withdraw { key: key("ci").id() },
            Change::Revoke { key: key("device-2").id(), revocation: Revocation::Retired },
            Change::Delegate { key: key("ci").public(), role: release_role(&["tea"]) },
        ] {
            let next = whole.draft_next([change]).unwrap().sign(&key("root"));
            whole.extend(next).unwrap();
        }
        let mut heard = chain();
        for version in arrivals.into_iter().chain([1, 2, 3, 4]) {
            let _ = heard.extend(whole.record(u64::try_from(version).unwrap() + 1).unwrap().clone());
        }
        prop_assert_eq!(&heard, &whole);

        let entry = |(lane, target, word): (usize, usize, usize)| {
            let path = TARGETS.get(target).map_or_else(
                || deny_path(ArtifactDigest::of(b"release")),
                |target| revoke_path(key(target).id()),
            );
            (LANES[lane], path, WORDS[word])
        };
        let trust = Trust::new(&picks.into_iter().map(entry).collect::<Vec<_>>());
        prop_assert_eq!(trust.roster(&heard), trust.reversed().roster(&whole));
    }
}
