//! Whose word counts, by the root records and the words of authorities that a node holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::envelope::Value;
use fleetd_sync_core::id::{FleetId, KeyId};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::trust::{Role, RootRecord};

/// A key that was ever allowed to sign releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The key.
    pub key: PublicKey,
    /// Of which workloads.
    pub workloads: BTreeSet<WorkloadName>,
}

/// Whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// The fleet.
    pub fleet: Option<FleetId>,
    /// The version of the newest root record.
    pub version: u64,
    /// Each authority, with how much its word weighs.
    pub authorities: BTreeMap<KeyId, (PublicKey, u8)>,
    /// Each key that was ever allowed to sign releases.
    pub signers: BTreeMap<KeyId, Signer>,
    /// Each revoked key, with the word for why.
    pub revoked: BTreeMap<KeyId, String>,
}

impl Trusted {
    /// Reads who is trusted from root records, by version.
    #[must_use]
    pub fn of(roots: &BTreeMap<u64, Arc<RootRecord>>) -> Self {
        let mut trusted = Self::default();
        for record in roots.values() {
            let body = record.body();
            trusted.fleet = Some(body.fleet);
            trusted.version = body.version;
            trusted.authorities.clear();
            for (id, delegation) in &body.delegations {
                match &delegation.role {
                    Role::Authority { rank, .. } => {
                        trusted.authorities.insert(*id, (delegation.key, rank.0));
                    }
                    Role::Release { workloads } => {
                        let none = || Signer { key: delegation.key, workloads: BTreeSet::new() };
                        trusted.signers.entry(*id).or_insert_with(none).workloads.extend(workloads.iter().cloned());
                    }
                    _ => {}
                }
            }
            for (key, revocation) in &body.revocations {
                trusted.revoked.insert(*key, revocation.as_str().to_owned());
            }
        }
        trusted
    }

    /// Hears what authorities say in the trust document: the one whose word weighs most first, since only it can
    /// take the word from another.
    pub fn hear(&mut self, lanes: &BTreeMap<KeyId, BTreeMap<String, Value>>) {
        let mut speakers: Vec<(u8, KeyId)> = Vec::new();
        for lane in lanes.keys() {
            if let Some((_, rank)) = self.authorities.get(lane) {
                speakers.push((*rank, *lane));
            }
        }
        speakers.sort();
        for (rank, speaker) in speakers.into_iter().rev() {
            if self.revoked.contains_key(&speaker) {
                continue;
            }
            for (path, value) in lanes.get(&speaker).into_iter().flatten() {
                let (Some(key), Value::Text(word)) = (path.strip_prefix("revoke/"), value) else { continue };
                let Ok(key) = key.parse::<KeyId>() else { continue };
                let is_below = self.authorities.get(&key).is_none_or(|(_, other)| *other < rank);
                if is_below {
                    self.revoked.insert(key, word.clone());
                }
            }
        }
    }

    /// Says how much the word of a lane's writer weighs in a desired document; `None`: it does not count.
    #[must_use]
    pub fn weight(&self, lane: KeyId) -> Option<u8> {
        if self.revoked.contains_key(&lane) {
            return None;
        }
        self.authorities.get(&lane).map(|(_, rank)| *rank)
    }
}
