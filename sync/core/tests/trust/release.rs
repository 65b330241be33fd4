//! Signed releases.

use std::time::Duration;

use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::name::Platform;
use fleetd_sync_core::release::{
    EnvironmentValue, InvalidManifest, Manifest, ProbeCheck, Purpose, ReadReleaseError, SignedManifest,
    VerifyReleaseError,
};
use fleetd_sync_core::trust::{Armoured, Change, Roster, Standing, deny_path, read_armour, revoke_path};

use super::world::{Trust, chain, key, manifest};

fn signed() -> SignedManifest {
    manifest().sign(&key("ci")).unwrap()
}

fn roster_after(word: &str) -> Roster {
    Trust::new(&[("central", revoke_path(key("ci").id()), word)]).roster(&chain())
}

fn verify(release: &SignedManifest, purpose: Purpose, roster: &Roster) -> Result<Standing, VerifyReleaseError> {
    release.verify(&"coffee".parse().unwrap(), purpose, roster).map(|verified| verified.standing)
}

#[test]
fn a_release_signed_by_a_delegated_key_is_verified() {
    let roster = Trust::new(&[]).roster(&chain());
    let verified = signed().verify(&"coffee".parse().unwrap(), Purpose::Install, &roster).unwrap();
    assert_eq!(verified.manifest, manifest());
    assert_eq!(verified.digest, signed().digest());
    assert_eq!((verified.key, verified.standing), (key("ci").id(), Standing::Active));
}

#[test]
fn a_release_of_an_undelegated_key_or_another_workload_is_refused() {
    let roster = Trust::new(&[]).roster(&chain());
    for stranger in ["stranger", "central", "root"] {
        let release = manifest().sign(&key(stranger)).unwrap();
        let refused = verify(&release, Purpose::Install, &roster);
        assert!(matches!(refused, Err(VerifyReleaseError::Undelegated { .. })), "{stranger}: {refused:?}");
    }
    let tea = Manifest { workload: "tea".parse().unwrap(), ..manifest() }.sign(&key("ci")).unwrap();
    assert!(matches!(verify(&tea, Purpose::Install, &roster), Err(VerifyReleaseError::WrongWorkload { .. })));
    let as_tea = tea.verify(&"tea".parse().unwrap(), Purpose::Install, &roster);
    assert!(matches!(as_tea, Err(VerifyReleaseError::Undelegated { .. })));
    let foreign = Manifest { fleet: FleetId::from_bytes([1; 16]), ..manifest() }.sign(&key("ci")).unwrap();
    assert!(matches!(verify(&foreign, Purpose::Install, &roster), Err(VerifyReleaseError::ForeignFleet { .. })));
}

#[test]
fn a_retired_key_admits_no_new_release_and_a_compromised_one_no_restore() {
    let release = signed();
    for (word, purpose, expected) in [
        ("retired", Purpose::Install, None),
        ("retired", Purpose::Restore, Some(Standing::Retired)),
        ("compromised", Purpose::Install, None),
        ("compromised", Purpose::Restore, None),
        ("stopped", Purpose::Restore, None),
    ] {
        assert_eq!(verify(&release, purpose, &roster_after(word)).ok(), expected, "{word} {purpose:?}");
    }
    let mut withdrawn = chain();
    let next = withdrawn.draft_next([Change::Withdraw { key: key("ci").id() }]).unwrap().sign(&key("root"));
    withdrawn.extend(next).unwrap();
    let roster = Trust::new(&[]).roster(&withdrawn);
    assert!(matches!(verify(&release, Purpose::Install, &roster), Err(VerifyReleaseError::Retired { .. })));
    assert_eq!(verify(&release, Purpose::Restore, &roster), Ok(Standing::Retired));
}

#[test]
fn a_denied_release_is_refused_and_others_are_not() {
    let release = signed();
    let roster = Trust::new(&[("central", deny_path(release.digest()), "burns beans")]).roster(&chain());
    let denied = VerifyReleaseError::Denied { release: release.digest(), reason: "burns beans".to_owned() };
    assert_eq!(verify(&release, Purpose::Restore, &roster), Err(denied));
    let next = Manifest { version: "1.8.1".parse().unwrap(), ..manifest() }.sign(&key("ci")).unwrap();
    assert_eq!(verify(&next, Purpose::Install, &roster), Ok(Standing::Active));
}

#[test]
fn no_flipped_bit_of_a_release_survives() {
    let roster = Trust::new(&[]).roster(&chain());
    let bytes = signed().encode();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let Ok(release) = SignedManifest::decode(&flipped) else { continue };
        assert_eq!(release.encode(), flipped, "bit {bit}");
        assert!(verify(&release, Purpose::Restore, &roster).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(SignedManifest::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn a_manifest_edited_by_hand_is_not_what_was_signed() {
    let roster = Trust::new(&[]).roster(&chain());
    let text = signed().to_armour();
    assert_eq!(read_armour::<SignedManifest>(&text), Ok(signed()));
    let bytes = signed().encode();
    let edited = String::from_utf8_lossy(&bytes).find("arabica").unwrap();
    assert!(edited > 0);
    let at = bytes.windows(7).position(|window| window == b"arabica").unwrap();
    let mut bytes = bytes;
    bytes[at..at + 7].copy_from_slice(b"robusta");
    let refused = verify(&SignedManifest::decode(&bytes).unwrap(), Purpose::Install, &roster);
    assert!(matches!(refused, Err(VerifyReleaseError::Signature { .. })));
}

#[test]
fn a_device_takes_its_own_platforms_artifact_or_the_one_for_any() {
    let manifest = manifest();
    let named = |platform: &str| {
        let platform: Platform = platform.parse().unwrap();
        manifest.artifact_for(&platform).map(|(_, artifact)| artifact.file_name.as_str())
    };
    assert_eq!(named("linux/arm64"), Some("coffee"));
    assert_eq!(named("linux/riscv64"), Some("coffee.sh"));
    let mut native_only = manifest.clone();
    native_only.artifacts.remove(&Platform::any());
    assert_eq!(native_only.artifact_for(&"linux/riscv64".parse().unwrap()), None);
}

#[test]
fn a_manifest_says_only_what_a_device_can_take() {
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = manifest();
        change(&mut manifest);
        manifest.encode().unwrap_err()
    };
    let arm: Platform = "linux/arm64".parse().unwrap();
    assert_eq!(refused(&|m| m.artifacts.clear()), InvalidManifest::NoArtifact);
    for name in ["", "../coffee", "a/b", ".hidden", "-rf", "a b", "a\0"] {
        let found = refused(&|m| m.artifacts.get_mut(&arm).unwrap().file_name = name.to_owned());
        assert_eq!(found, InvalidManifest::Text { what: "a file name", text: name.to_owned() });
    }
    for size_bytes in [0, u64::MAX] {
        let found = refused(&|m| m.artifacts.get_mut(&arm).unwrap().size_bytes = size_bytes);
        assert!(matches!(found, InvalidManifest::Size { .. }));
    }
    for name in ["A=B", "", "1A", "A\0"] {
        let found = refused(&|m| drop(m.environment.insert(name.to_owned(), EnvironmentValue::FromConfig)));
        assert!(matches!(found, InvalidManifest::Text { .. }), "{name:?}");
    }
    assert!(matches!(refused(&|m| m.argv = vec!["a\0b".to_owned()]), InvalidManifest::Text { .. }));
    assert!(matches!(refused(&|m| m.argv = vec![String::new(); 65]), InvalidManifest::TooMany { .. }));
    assert!(matches!(refused(&|m| m.argv = vec!["a".repeat(20_000)]), InvalidManifest::TooLarge { .. }));
    for grace in [Duration::ZERO, Duration::from_micros(1500), Duration::MAX] {
        assert!(matches!(refused(&|m| m.stop_grace = grace), InvalidManifest::Duration { .. }));
    }
    assert!(matches!(refused(&|m| m.probe.failures_max = 0), InvalidManifest::Never { .. }));
    assert!(matches!(refused(&|m| m.probe.check = ProbeCheck::Exec { argv: vec![] }), InvalidManifest::Text { .. }));
    assert!(matches!(refused(&|m| m.probe.check = ProbeCheck::Tcp { port: 0 }), InvalidManifest::Never { .. }));
    assert!(matches!(refused(&|m| m.user = Some("-root".to_owned())), InvalidManifest::Text { .. }));
}

#[test]
fn a_manifest_of_a_newer_layout_says_so() {
    let mut bytes = manifest().encode().unwrap();
    assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
    bytes[0] = 2;
    assert_eq!(Manifest::decode(&bytes), Err(ReadReleaseError::Newer { layout: 2 }));
    assert!(matches!(Manifest::decode(&[1; 20_000]), Err(ReadReleaseError::TooLarge { .. })));
}
