//! Signed releases: from a developer's file, the API and any peer.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetd_sync_core::id::{ArtifactDigest, FleetId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::release::{Artifact, EnvironmentValue, Manifest, Probe, ProbeCheck, SignedManifest};

use super::CASES;

fn check(bytes: &[u8]) -> bool {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert!(bytes.len() <= limit::MANIFEST_BYTES_MAX);
        assert_eq!(manifest.encode().as_deref(), Ok(bytes), "a manifest has one encoding");
        hold_limits(&manifest);
    }
    let Ok(signed) = SignedManifest::decode(bytes) else { return false };
    assert_eq!(signed.encode(), bytes, "a signed manifest has one encoding");
    assert_eq!(signed.digest(), ArtifactDigest::of(bytes));
    hold_limits(signed.claims());
    true
}

/// What is relied on wherever a manifest is acted on.
fn hold_limits(manifest: &Manifest) {
    assert!((1..=limit::RELEASE_ARTIFACTS_MAX).contains(&manifest.artifacts.len()));
    for artifact in manifest.artifacts.values() {
        let name = artifact.file_name.as_str();
        assert!(!name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..", "{name:?} leaves");
        assert!((1..=limit::ARTIFACT_BYTES_MAX).contains(&artifact.size_bytes));
    }
    assert!(manifest.argv.iter().all(|argument| !argument.contains('\0')));
    for (name, value) in &manifest.environment {
        assert!(!name.is_empty() && !name.contains(['=', '\0']), "{name:?} is no variable");
        assert!(!matches!(value, EnvironmentValue::Fixed(value) if value.contains('\0')));
    }
    assert!(manifest.stop_grace <= limit::MANIFEST_DURATION_MAX);
}

pub(super) fn samples() -> Vec<Vec<u8>> {
    let artifact = |name: &str| Artifact {
        digest: ArtifactDigest::of(name.as_bytes()),
        size_bytes: 1 << 20,
        file_name: name.to_owned(),
    };
    let manifest = Manifest {
        fleet: FleetId::from_bytes(*b"a golden fleet.."),
        workload: "coffee".parse().unwrap(),
        version: "1.8.0".parse().unwrap(),
        artifacts: BTreeMap::from([
            ("any".parse().unwrap(), artifact("brew")),
            ("linux/arm64".parse().unwrap(), artifact("brew-arm")),
        ]),
        argv: vec!["--port".to_owned(), "80".to_owned()],
        environment: BTreeMap::from([
            ("A".to_owned(), EnvironmentValue::Fixed("b".to_owned())),
            ("C".to_owned(), EnvironmentValue::FromConfig),
        ]),
        probe: Probe::default(),
        user: Some("nobody".to_owned()),
        stop_grace: Duration::from_secs(5),
    };
    let http = ProbeCheck::Http { port: 80, path: "/well".to_owned() };
    let command = ProbeCheck::Exec { argv: vec!["true".to_owned()] };
    let others = [ProbeCheck::Notify, http, command].map(|check| Manifest {
        probe: Probe { check, ..Probe::default() },
        user: None,
        ..manifest.clone()
    });
    let key = SecretKey::from_bytes([3; 32]);
    let signed = |manifest: Manifest| manifest.sign(&key).unwrap().encode();
    let bare = manifest.encode().unwrap();
    let mut samples: Vec<Vec<u8>> = others.into_iter().chain([manifest]).map(signed).collect();
    samples.push(bare);
    samples
}

#[test]
fn every_sample_of_a_release_is_one() {
    let samples = samples();
    assert!(samples.iter().filter(|sample| check(sample)).count() == samples.len() - 1);
}

#[test]
fn any_bytes_are_one_release_or_none() {
    bolero::check!(name = "release").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
