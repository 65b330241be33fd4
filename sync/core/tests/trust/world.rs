//! A small fleet: a root, two authorities, a release key, and what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{Path, Value};
use fleetd_sync_core::id::{ArtifactDigest, KeyId};
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::release::{Artifact, EnvironmentValue, Manifest, Probe, ProbeCheck};
use fleetd_sync_core::trust::{Rank, Role, RootChain, RootRecord, Roster, Sites, Statement};

/// The secret key of one of the fleet's people or programs.
pub(crate) fn key(name: &str) -> SecretKey {
    SecretKey::generate(&mut Entropy::from_seed([42; 32]).stream(name))
}

pub(crate) fn public(names: &[&str]) -> BTreeSet<PublicKey> {
    names.iter().map(|name| key(name).public()).collect()
}

pub(crate) fn release_role(workloads: &[&str]) -> Role {
    Role::Release { workloads: workloads.iter().map(|name| name.parse().unwrap()).collect() }
}

pub(crate) fn site_role(site: &str) -> Role {
    Role::Authority { rank: Rank::SITE, sites: Sites::Only(BTreeSet::from([site.parse().unwrap()])) }
}

pub(crate) fn central_role() -> Role {
    Role::Authority { rank: Rank::CENTRAL, sites: Sites::All }
}

/// The first record: root of one key, one CA, a central authority, a site's, and a release key for coffee.
pub(crate) fn first_record() -> RootRecord {
    let delegations = [
        (key("ca").public(), Role::CertificateAuthority),
        (key("central").public(), central_role()),
        (key("site").public(), site_role("berlin")),
        (key("ci").public(), release_role(&["coffee"])),
    ];
    RootRecord::draft(public(&["root"]), 1, delegations).unwrap().sign(&key("root"))
}

pub(crate) fn chain() -> RootChain {
    let first = first_record();
    RootChain::found(first.body().fleet, first).unwrap()
}

/// Entries of the trust document, each in the lane of a named key.
pub(crate) struct Trust(Vec<(KeyId, Path, Value)>);

impl Trust {
    pub(crate) fn new(entries: &[(&str, String, &str)]) -> Self {
        let entry = |(lane, path, word): &(&str, String, &str)| {
            (key(lane).id(), path.parse().unwrap(), Value::Text((*word).to_owned()))
        };
        Self(entries.iter().map(entry).collect())
    }

    pub(crate) fn roster(&self, chain: &RootChain) -> Roster {
        Roster::new(chain, self.0.iter().map(|(lane, path, value)| Statement { lane: *lane, path, value }))
    }

    pub(crate) fn reversed(&self) -> Self {
        Self(self.0.iter().rev().cloned().collect())
    }
}

pub(crate) fn manifest() -> Manifest {
    let artifact = |bytes: &[u8], name: &str| Artifact {
        digest: ArtifactDigest::of(bytes),
        size_bytes: u64::try_from(bytes.len()).unwrap(),
        file_name: name.to_owned(),
    };
    Manifest {
        fleet: chain().fleet(),
        workload: "coffee".parse().unwrap(),
        version: "1.8.0".parse().unwrap(),
        artifacts: BTreeMap::from([
            ("linux/arm64".parse().unwrap(), artifact(b"arm", "coffee")),
            ("any".parse().unwrap(), artifact(b"script", "coffee.sh")),
        ]),
        argv: vec!["--cups".to_owned(), "2".to_owned()],
        environment: BTreeMap::from([
            ("BEANS".to_owned(), EnvironmentValue::Fixed("arabica".to_owned())),
            ("WATER_TANK".to_owned(), EnvironmentValue::FromConfig),
        ]),
        probe: Probe { check: ProbeCheck::Http { port: 8080, path: "/health".to_owned() }, ..Probe::default() },
        user: Some("coffee".to_owned()),
        stop_grace: Duration::from_secs(10),
    }
}
