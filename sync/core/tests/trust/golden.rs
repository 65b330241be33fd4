//! The signed bytes that others must make and read too. A change here breaks every fleet that exists.

use std::path::Path;

use data_encoding::HEXLOWER;
use fleetd_sync_core::configuration::{Configuration, ConfiguredFile, pair_digest};
use fleetd_sync_core::id::{ArtifactDigest, FleetId};
use fleetd_sync_core::release::SignedManifest;
use fleetd_sync_core::trust::{Change, Revocation, RootChain, RootRecord};

use super::world::{chain, first_record, key, manifest, public};

/// Compares with `tests/golden/<name>`; with `UPDATE_EXPECT` set, writes it, as expect-test does.
pub(crate) fn check_golden(name: &str, lines: &[(&str, String)]) {
    let text: String = lines.iter().map(|(label, value)| format!("{label} {value}\n")).collect();
    expect_test::expect_file![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)].assert_eq(&text);
}

#[test]
fn root_records_keep_their_bytes() {
    let mut chain = chain();
    let changes = [
        Change::Rotate { keys: public(&["root", "root-2"]), threshold: 2 },
        Change::Withdraw { key: key("site").id() },
        Change::Revoke { key: key("ci").id(), revocation: Revocation::Compromised },
    ];
    let second = chain.draft_next(changes).unwrap().sign(&key("root")).sign(&key("root-2"));
    chain.extend(second.clone()).unwrap();
    let first = first_record();
    check_golden(
        "root_record.txt",
        &[
            ("root_seed", HEXLOWER.encode(&key("root").to_bytes())),
            ("root_key", HEXLOWER.encode(key("root").public().as_bytes())),
            ("root_key_id", key("root").id().to_string()),
            ("root_2_seed", HEXLOWER.encode(&key("root-2").to_bytes())),
            ("fleet", chain.fleet().to_string()),
            ("body_1", HEXLOWER.encode(&first.body().encode())),
            ("record_1", HEXLOWER.encode(&first.encode())),
            ("record_2", HEXLOWER.encode(&second.encode())),
        ],
    );
    let stored = [first.encode(), second.encode()];
    assert_eq!(RootChain::load(first.body().fleet, stored), Ok(chain));
    assert_eq!(RootRecord::decode(&first.encode()), Ok(first));
}

#[test]
fn releases_keep_their_bytes() {
    let release = manifest().sign(&key("ci")).unwrap();
    check_golden(
        "release.txt",
        &[
            ("signer_seed", HEXLOWER.encode(&key("ci").to_bytes())),
            ("manifest", HEXLOWER.encode(&manifest().encode().unwrap())),
            ("release", HEXLOWER.encode(&release.encode())),
            ("digest", release.digest().to_string()),
        ],
    );
    assert_eq!(SignedManifest::decode(&release.encode()), Ok(release));
    assert_ne!(manifest().fleet, FleetId::from_bytes([0; 16]));
}

#[test]
fn configurations_keep_their_bytes() {
    let values = [("ROAST", "dark"), ("SUGAR", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let file = ConfiguredFile { digest: ArtifactDigest::of(b"menu"), size_bytes: 4 };
    let files = [("MENU".to_owned(), file)].into();
    let (workload, name) = ("coffee".parse().unwrap(), "roast-2".parse().unwrap());
    let configuration = Configuration::new(workload, name, values.into(), files).unwrap();
    let manifest = ArtifactDigest::of(b"a signed manifest");
    check_golden(
        "configuration.txt",
        &[
            ("configuration", HEXLOWER.encode(&configuration.encode())),
            ("digest", configuration.digest().to_string()),
            ("release", manifest.to_string()),
            ("pair", pair_digest(manifest, Some(configuration.digest())).to_string()),
        ],
    );
    assert_eq!(Configuration::decode(&configuration.encode()), Ok(configuration));
}
