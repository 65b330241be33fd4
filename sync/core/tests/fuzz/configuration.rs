//! Configurations: from an operator's command, the API, and the documents of a device.

use std::collections::BTreeMap;

use fleetd_sync_core::configuration::{Configuration, ConfiguredFile, ReadConfigurationError, pair_digest};
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::limit;

use super::CASES;

fn check(bytes: &[u8]) -> bool {
    let Ok(configuration) = Configuration::decode(bytes) else { return false };
    assert!(bytes.len() <= limit::CONFIGURATION_BYTES_MAX);
    assert_eq!(configuration.encode(), bytes, "a configuration has one encoding");
    assert_eq!(configuration.digest(), ArtifactDigest::of(bytes));
    let (values, files) = (configuration.values(), configuration.files());
    assert!(values.values().map(String::len).sum::<usize>() <= limit::CONFIGURATION_VALUES_BYTES_MAX);
    assert!(!values.is_empty() || !files.is_empty());
    for name in values.keys().chain(files.keys()) {
        assert!(!name.is_empty() && !name.contains(['=', '\0', '/', '.']), "{name:?} is no variable, or leaves");
    }
    assert!(values.values().all(|value| !value.contains('\0')));
    assert!(files.values().all(|file| (1..=limit::ARTIFACT_BYTES_MAX).contains(&file.size_bytes)));
    true
}

fn configuration(values: &[(&str, &str)], files: &[(&str, u64)]) -> Configuration {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let file = |(name, size_bytes): &(&str, u64)| {
        ((*name).to_owned(), ConfiguredFile { digest: ArtifactDigest::of(name.as_bytes()), size_bytes: *size_bytes })
    };
    let files: BTreeMap<_, _> = files.iter().map(file).collect();
    Configuration::new("coffee".parse().unwrap(), "roast-2".parse().unwrap(), values, files).unwrap()
}

pub(super) fn samples() -> Vec<Vec<u8>> {
    let large = "x".repeat(limit::CONFIGURATION_VALUES_BYTES_MAX);
    [
        configuration(&[("ROAST", "dark")], &[]),
        configuration(&[], &[("MENU", 1)]),
        configuration(&[("EMPTY", ""), ("ROAST", "dark")], &[("BEANS", 7), ("MENU", limit::ARTIFACT_BYTES_MAX)]),
        configuration(&[("ROAST", &large)], &[("MENU", 1 << 20)]),
    ]
    .iter()
    .map(Configuration::encode)
    .collect()
}

#[test]
fn every_sample_of_a_configuration_is_one() {
    assert!(samples().iter().all(|sample| check(sample)));
}

#[test]
fn a_configuration_that_is_too_long_is_not_looked_into() {
    let error = Configuration::decode(&vec![1; limit::CONFIGURATION_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, ReadConfigurationError::TooLarge { .. }), "{error:?}");
}

#[test]
fn any_bytes_are_one_configuration_or_none() {
    bolero::check!(name = "configuration").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}

#[test]
fn a_pair_is_its_manifest_alone_only_without_a_configuration() {
    let (one, other) = (ArtifactDigest::of(b"one"), ArtifactDigest::of(b"other"));
    assert_eq!(pair_digest(one, None), one);
    let pairs = [pair_digest(one, Some(other)), pair_digest(other, Some(one)), pair_digest(one, Some(one)), one, other];
    let distinct: std::collections::BTreeSet<_> = pairs.iter().collect();
    assert_eq!(distinct.len(), pairs.len());
}
