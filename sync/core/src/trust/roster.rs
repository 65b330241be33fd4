//! What the root chain and the trust document together say of every key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::chain::RootChain;
use super::role::{Rank, Revocation, Role, Sites};
use crate::envelope::{DocumentId, Path, Value};
use crate::id::{ArtifactDigest, FleetId, KeyId, LocalId};
use crate::key::PublicKey;
use crate::name::{LabelValue, WorkloadName};
use crate::replica::{AuthorityWriter, Replica, Writers};

const REVOKE: &str = "revoke";
const DENY: &str = "deny";

/// The path in the trust document that revokes a key; its value is a [`Revocation`]'s word.
#[must_use]
pub fn revoke_path(key: KeyId) -> String {
    format!("{REVOKE}/{key}")
}

/// The path in the trust document that denies a release, by its digest; its value is a reason for people.
#[must_use]
pub fn deny_path(release: ArtifactDigest) -> String {
    format!("{DENY}/{release}")
}

/// One entry of the trust document.
#[derive(Clone, Copy, Debug)]
pub struct Statement<'a> {
    /// Whose lane it stands in.
    pub lane: KeyId,
    /// What it is about.
    pub path: &'a Path,
    /// What it says.
    pub value: &'a Value,
}

/// A key that may write desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The key.
    pub key: PublicKey,
    /// How much its word weighs.
    pub rank: Rank,
    /// For whose devices.
    pub sites: Sites,
}

/// What a release key's signature is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It signs releases.
    Active,
    /// What it signed stays good where it is installed, and nothing new is admitted.
    Retired,
    /// Nothing that it signed is installed or restored; what runs goes on.
    Compromised,
    /// Nothing that it signed is installed or restored, and what runs must stop.
    Stopped,
}

/// A key that signs releases, or once did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseKey {
    /// The key.
    pub key: PublicKey,
    /// The workloads that the newest record lets it sign.
    pub now: BTreeSet<WorkloadName>,
    /// Those that any record let it sign.
    pub ever: BTreeSet<WorkloadName>,
}

/// All that a roster consists of, for those who write one down and read it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterParts {
    /// The fleet.
    pub fleet: FleetId,
    /// The newest root record's version.
    pub version: u64,
    /// Keys that issue or issued certificates, and whether the newest record names them.
    pub certificate_authorities: Vec<(PublicKey, bool)>,
    /// Keys that may write desired state.
    pub authorities: Vec<Authority>,
    /// Keys that sign releases.
    pub release_keys: Vec<ReleaseKey>,
    /// Revoked keys.
    pub revoked: BTreeMap<KeyId, Revocation>,
    /// Denied releases, each with a reason for people.
    pub denied: BTreeMap<ArtifactDigest, String>,
}

/// What the root chain and the trust document together say of every key.
///
/// The root's word always counts. An authority's revocation counts for devices; for release keys and releases, which
/// reach the whole fleet, only from an authority of all sites; and for another authority only if that one has a
/// lower rank. So no two keys can revoke each other, and the same chain and the same statements give the same roster
/// whatever the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    fleet: FleetId,
    version: u64,
    certificate_authorities: BTreeMap<KeyId, (PublicKey, bool)>,
    authorities: BTreeMap<KeyId, Authority>,
    release_keys: BTreeMap<KeyId, ReleaseKey>,
    revoked: BTreeMap<KeyId, Revocation>,
    denied: BTreeMap<ArtifactDigest, String>,
    /// What [`Roster::writers`] gives to each who asks.
    shared: SharedWriters,
}

/// What is the same in the [`Writers`] of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SharedWriters {
    authorities: Arc<BTreeMap<KeyId, AuthorityWriter>>,
    revoked: Arc<BTreeSet<KeyId>>,
}

impl Roster {
    /// Takes what the chain and the trust document's lanes say. Lanes of keys that are no authority, or that were
    /// revoked, are ignored.
    #[must_use]
    pub fn new<'a>(chain: &RootChain, statements: impl IntoIterator<Item = Statement<'a>>) -> Self {
        let mut roster = Self {
            fleet: chain.fleet(),
            version: chain.version(),
            certificate_authorities: BTreeMap::new(),
            authorities: BTreeMap::new(),
            release_keys: BTreeMap::new(),
            revoked: chain.revocations(),
            denied: BTreeMap::new(),
            shared: SharedWriters::default(),
        };
        roster.take_delegations(chain);
        roster.take_statements(statements);
        roster.share()
    }

    /// Takes what the chain says, and what the trust document that a replica holds.
    #[must_use]
    pub fn of(chain: &RootChain, replica: &Replica) -> Self {
        let entries = replica.entries(DocumentId::Trust);
        Self::new(chain, entries.map(|(lane, path, value)| Statement { lane, path, value }))
    }

    /// Takes the roster apart.
    #[must_use]
    pub fn parts(&self) -> RosterParts {
        RosterParts {
            fleet: self.fleet,
            version: self.version,
            certificate_authorities: self.certificate_authorities.values().copied().collect(),
            authorities: self.authorities.values().cloned().collect(),
            release_keys: self.release_keys.values().cloned().collect(),
            revoked: self.revoked.clone(),
            denied: self.denied.clone(),
        }
    }

    /// Puts a roster together again from its parts, whoever wrote them down: nothing is verified.
    #[must_use]
    pub fn from_unverified(parts: RosterParts) -> Self {
        let certificate_authorities = parts.certificate_authorities.into_iter();
        Self {
            fleet: parts.fleet,
            version: parts.version,
            certificate_authorities: certificate_authorities.map(|(key, newest)| (key.id(), (key, newest))).collect(),
            authorities: parts.authorities.into_iter().map(|authority| (authority.key.id(), authority)).collect(),
            release_keys: parts.release_keys.into_iter().map(|key| (key.key.id(), key)).collect(),
            revoked: parts.revoked,
            denied: parts.denied,
            shared: SharedWriters::default(),
        }
        .share()
    }

    /// Notes what all who ask for writers get, once it is known.
    fn share(mut self) -> Self {
        let writer = |authority: &Authority| AuthorityWriter {
            key: authority.key,
            rank: authority.rank,
            sites: authority.sites.clone(),
        };
        let authorities = self.authorities.iter().map(|(key, authority)| (*key, writer(authority))).collect();
        self.shared = SharedWriters {
            authorities: Arc::new(authorities),
            revoked: Arc::new(self.revoked.keys().copied().collect()),
        };
        self
    }

    /// Who may write which lane, for [`Replica::set_writers`]. A node that is a device names no devices; a node
    /// without authorities of single sites names no sites.
    #[must_use]
    pub fn writers(&self, devices: BTreeMap<LocalId, PublicKey>, sites: BTreeMap<LocalId, LabelValue>) -> Writers {
        Writers {
            authorities: Arc::clone(&self.shared.authorities),
            devices: devices.into_iter().map(|(device, key)| (device, Box::new(key))).collect(),
            sites,
            revoked: Arc::clone(&self.shared.revoked),
            trust_version: self.version,
        }
    }

    fn take_delegations(&mut self, chain: &RootChain) {
        for record in chain.records() {
            let newest = record.body().version == self.version;
            for (id, delegation) in &record.body().delegations {
                match &delegation.role {
                    Role::CertificateAuthority => {
                        self.certificate_authorities.insert(*id, (delegation.key, newest));
                    }
                    Role::Authority { rank, sites } if newest => {
                        let authority = Authority { key: delegation.key, rank: *rank, sites: sites.clone() };
                        self.authorities.insert(*id, authority);
                    }
                    Role::Release { workloads } => {
                        let none = || ReleaseKey { key: delegation.key, now: BTreeSet::new(), ever: BTreeSet::new() };
                        let release_key = self.release_keys.entry(*id).or_insert_with(none);
                        release_key.ever.extend(workloads.iter().cloned());
                        if newest {
                            release_key.now.clone_from(workloads);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn take_statements<'a>(&mut self, statements: impl IntoIterator<Item = Statement<'a>>) {
        let mut lanes: BTreeMap<(Rank, KeyId), Vec<Statement<'a>>> = BTreeMap::new();
        for statement in statements {
            if let Some(authority) = self.authorities.get(&statement.lane) {
                lanes.entry((authority.rank, statement.lane)).or_default().push(statement);
            }
        }
        // From the highest rank down: whether a lane counts is settled before it is read, since only a higher rank
        // can make it void.
        for ((rank, lane), statements) in lanes.into_iter().rev() {
            if self.revoked.contains_key(&lane) {
                continue;
            }
            let fleet_wide = self.authorities.get(&lane).is_some_and(|authority| authority.sites == Sites::All);
            for statement in statements {
                self.take_statement(statement, rank, fleet_wide);
            }
        }
    }

    fn take_statement(&mut self, statement: Statement<'_>, rank: Rank, fleet_wide: bool) {
        let Value::Text(reason) = statement.value else { return };
        let mut segments = statement.path.segments();
        match (segments.next(), segments.next(), segments.next()) {
            (Some(REVOKE), Some(key), None) => {
                let Ok(key) = key.parse::<KeyId>() else { return };
                if self.may_revoke(key, rank, fleet_wide) {
                    let revocation = Revocation::from_word(reason);
                    let stands = self.revoked.entry(key).or_insert(revocation);
                    *stands = (*stands).max(revocation);
                }
            }
            (Some(DENY), Some(release), None) if fleet_wide => {
                let Ok(release) = release.parse::<ArtifactDigest>() else { return };
                // Of several reasons the first in the order of text stands, so that no order of arrival shows.
                let stands = self.denied.entry(release).or_insert_with(|| reason.clone());
                if *reason < *stands {
                    stands.clone_from(reason);
                }
            }
            _ => {}
        }
    }

    fn may_revoke(&self, key: KeyId, rank: Rank, fleet_wide: bool) -> bool {
        if let Some(authority) = self.authorities.get(&key) {
            return authority.rank < rank;
        }
        if self.certificate_authorities.contains_key(&key) {
            return false;
        }
        fleet_wide || !self.release_keys.contains_key(&key)
    }

    /// The fleet.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// The trust version: that of the newest root record.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What a key may write, if it is an authority in the newest record and not revoked.
    #[must_use]
    pub fn authority(&self, key: KeyId) -> Option<&Authority> {
        self.authorities.get(&key).filter(|_| !self.is_revoked(key))
    }

    /// Every authority that may write.
    pub fn authorities(&self) -> impl Iterator<Item = (KeyId, &Authority)> {
        self.authorities.iter().filter(|(key, _)| !self.is_revoked(**key)).map(|(key, authority)| (*key, authority))
    }

    /// What a key's signature under a release of `workload` is worth; nothing at all if it never had that role.
    #[must_use]
    pub fn release_key(&self, key: KeyId, workload: &WorkloadName) -> Option<(PublicKey, Standing)> {
        let release_key = self.release_keys.get(&key)?;
        let standing = match self.revoked.get(&key) {
            _ if !release_key.ever.contains(workload) => return None,
            Some(Revocation::Stopped) => Standing::Stopped,
            Some(Revocation::Compromised) => Standing::Compromised,
            Some(Revocation::Retired) => Standing::Retired,
            None if release_key.now.contains(workload) => Standing::Active,
            None => Standing::Retired,
        };
        Some((release_key.key, standing))
    }

    /// The keys whose certificates a device believes: those that the newest record names.
    pub fn certificate_authorities(&self) -> impl Iterator<Item = PublicKey> {
        let newest =
            self.certificate_authorities.iter().filter(|(key, (_, newest))| *newest && !self.is_revoked(**key));
        newest.map(|(_, (key, _))| *key)
    }

    /// The keys whose certificates a server believes of a device: also those of older records, unless they were
    /// compromised, since a device renews its certificate only when it comes back.
    pub fn certificate_authorities_ever(&self) -> impl Iterator<Item = PublicKey> {
        let revocation = |key| self.revoked.get(key).copied().unwrap_or(Revocation::Retired);
        let kept = self.certificate_authorities.iter().filter(move |(key, _)| revocation(key) == Revocation::Retired);
        kept.map(|(_, (key, _))| *key)
    }

    /// Why a key was revoked, if it was.
    #[must_use]
    pub fn revocation(&self, key: KeyId) -> Option<Revocation> {
        self.revoked.get(&key).copied()
    }

    /// Says whether a key was revoked.
    #[must_use]
    pub fn is_revoked(&self, key: KeyId) -> bool {
        self.revoked.contains_key(&key)
    }

    /// Says whether a device's key was revoked.
    #[must_use]
    pub fn is_device_revoked(&self, device: LocalId) -> bool {
        self.is_revoked(device.into())
    }

    /// Every revoked key.
    pub fn revoked(&self) -> impl Iterator<Item = (KeyId, Revocation)> {
        self.revoked.iter().map(|(key, revocation)| (*key, *revocation))
    }

    /// Why a release was denied, if it was.
    #[must_use]
    pub fn denial(&self, release: ArtifactDigest) -> Option<&str> {
        self.denied.get(&release).map(String::as_str)
    }
}
