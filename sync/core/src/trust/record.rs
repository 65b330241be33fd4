//! One record of the root chain, and its canonical bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::role::{Delegation, Revocation, Role, read_key, write_key};
use crate::codec::{ReadError, Reader, Writer};
use crate::id::{FleetId, KeyId};
use crate::key::{Domain, PublicKey, SecretKey, Signature, VerifyError};
use crate::limit;

/// The version of the layout below.
const LAYOUT: u8 = 1;

/// Why bytes are no root record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRecordError {
    /// Larger than any record.
    #[error("a root record has at most {length_max} bytes, not {length}")]
    TooLarge {
        /// What there was.
        length: usize,
        /// What there may be.
        length_max: usize,
    },
    /// Written by a newer version.
    #[error("the root record has layout {layout}; this version reads {LAYOUT}")]
    Newer {
        /// Its layout.
        layout: u8,
    },
    /// Not canonical.
    #[error("the bytes are no root record")]
    Malformed(#[from] ReadError),
    /// Says something that no root may say.
    #[error("the root record is invalid")]
    Invalid(#[from] DraftError),
}

/// Why a record cannot be drafted as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// No version 0, and none above what a number holds.
    #[error("{version} is no version of a root record")]
    Version {
        /// The version.
        version: u64,
    },
    /// No key at all, or too many.
    #[error("{count} root keys; there must be 1 to {count_max}")]
    Keys {
        /// How many.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// More signatures asked for than there are keys, or none.
    #[error("a threshold of {threshold} with {keys} keys")]
    Threshold {
        /// What was asked.
        threshold: u8,
        /// How many keys there are.
        keys: usize,
    },
    /// Too many delegations or revocations.
    #[error("{count} {what}; there may be {count_max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// One key for two purposes.
    #[error("{key} already has a role; each role needs a key of its own")]
    SharedKey {
        /// The key.
        key: KeyId,
    },
    /// A release key for no workload, or an authority for no site.
    #[error("{key} as {role} needs at least one name to reach")]
    EmptyScope {
        /// The key.
        key: KeyId,
        /// The role's word.
        role: &'static str,
    },
    /// There is no delegation to withdraw.
    #[error("{key} has no role")]
    NoRole {
        /// The key.
        key: KeyId,
    },
    /// A revoked key never gets a role again.
    #[error("{key} is revoked as {revocation}; make a new key")]
    Revoked {
        /// The key.
        key: KeyId,
        /// Why it is revoked.
        revocation: Revocation,
    },
    /// Too many bytes.
    #[error("the record would have {length} bytes; it may have {length_max}")]
    TooLarge {
        /// What it would have.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
}

/// Two records do not say the same, so that the signatures of one mean nothing under the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the two root records do not say the same")]
pub struct OtherRecord;

/// What changes from one record to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Gives a key a role, or changes how far it reaches.
    Delegate {
        /// The key.
        key: PublicKey,
        /// Its role.
        role: Role,
    },
    /// Takes a key's role away, without a word against what it signed.
    Withdraw {
        /// The key.
        key: KeyId,
    },
    /// Takes a key's role away for ever, and says why.
    Revoke {
        /// The key.
        key: KeyId,
        /// Why.
        revocation: Revocation,
    },
    /// Gives the root other keys.
    Rotate {
        /// All keys that the root has from now on.
        keys: BTreeSet<PublicKey>,
        /// How many of them must sign.
        threshold: u8,
    },
}

/// What a root record says, and what its signatures cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootBody {
    /// The fleet.
    pub fleet: FleetId,
    /// One above the record before it; the first is 1.
    pub version: u64,
    /// The root's keys.
    pub keys: BTreeSet<PublicKey>,
    /// How many of them must sign.
    pub threshold: u8,
    /// What other keys may do, by their ids.
    pub delegations: BTreeMap<KeyId, Delegation>,
    /// Keys that lost their role for ever. One record is enough: later ones need not repeat it.
    pub revocations: BTreeMap<KeyId, Revocation>,
}

impl RootBody {
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_for(self.fleet.as_bytes())
    }

    /// The fleet that this body founds: its own hash, taken with the fleet left empty.
    #[must_use]
    pub fn founded_fleet(&self) -> FleetId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"fleetd/fleet/1\0").update(&self.encode_for(&[]));
        let mut id = [0; FleetId::LENGTH];
        hasher.finalize_xof().fill(&mut id);
        FleetId::from_bytes(id)
    }

    fn encode_for(&self, fleet: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(LAYOUT).bytes(fleet).varint(self.version);
        writer.count(self.keys.len());
        for key in &self.keys {
            write_key(&mut writer, key);
        }
        writer.u8(self.threshold).count(self.delegations.len());
        for delegation in self.delegations.values() {
            delegation.write(&mut writer);
        }
        writer.count(self.revocations.len());
        for (key, revocation) in &self.revocations {
            writer.array(key.as_bytes()).u8(revocation.code());
        }
        writer.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, ReadRecordError> {
        let mut reader = Reader::new(bytes);
        let layout = reader.u8("layout")?;
        if layout != LAYOUT {
            return Err(ReadRecordError::Newer { layout });
        }
        let fleet = reader.bytes("fleet", FleetId::LENGTH)?;
        let fleet = FleetId::from_slice(fleet).ok_or(ReadError::Value { what: "fleet", value: 0 })?;
        let version = reader.varint("version")?;
        let keys = read_keys(&mut reader)?;
        let threshold = reader.u8("threshold")?;
        let delegations = read_delegations(&mut reader)?;
        let revocations = read_revocations(&mut reader)?;
        reader.finish()?;
        let body = Self { fleet, version, keys, threshold, delegations, revocations };
        body.check()?;
        Ok(body)
    }

    fn check(&self) -> Result<(), DraftError> {
        if self.version == 0 {
            return Err(DraftError::Version { version: self.version });
        }
        if self.keys.is_empty() || self.keys.len() > limit::ROOT_KEYS_MAX {
            return Err(DraftError::Keys { count: self.keys.len(), count_max: limit::ROOT_KEYS_MAX });
        }
        if self.threshold == 0 || usize::from(self.threshold) > self.keys.len() {
            return Err(DraftError::Threshold { threshold: self.threshold, keys: self.keys.len() });
        }
        let too_many = |what, count, count_max| Err(DraftError::TooMany { what, count, count_max });
        if self.delegations.len() > limit::ROOT_DELEGATIONS_MAX {
            return too_many("delegations", self.delegations.len(), limit::ROOT_DELEGATIONS_MAX);
        }
        if self.revocations.len() > limit::ROOT_REVOCATIONS_MAX {
            return too_many("revocations", self.revocations.len(), limit::ROOT_REVOCATIONS_MAX);
        }
        for (id, delegation) in &self.delegations {
            check_delegation(*id, delegation)?;
            if self.keys.contains(&delegation.key) {
                return Err(DraftError::SharedKey { key: *id });
            }
            if let Some(revocation) = self.revocations.get(id) {
                return Err(DraftError::Revoked { key: *id, revocation: *revocation });
            }
        }
        let length = self.encode().len() + limit::ROOT_SIGNATURES_MAX * (KeyId::LENGTH + Signature::LENGTH) + 8;
        if length > limit::ROOT_RECORD_BYTES_MAX {
            return Err(DraftError::TooLarge { length, length_max: limit::ROOT_RECORD_BYTES_MAX });
        }
        Ok(())
    }

    fn apply(&mut self, change: Change, floor: impl Fn(KeyId) -> u64) -> Result<(), DraftError> {
        match change {
            Change::Delegate { key, role } => {
                let unchanged = self.delegations.get(&key.id()).is_some_and(|present| present.role == role);
                if !unchanged {
                    let generation = floor(key.id()).saturating_add(1);
                    self.delegations.insert(key.id(), Delegation { key, role, generation });
                }
            }
            Change::Withdraw { key } => {
                self.delegations.remove(&key).ok_or(DraftError::NoRole { key })?;
            }
            Change::Revoke { key, revocation } => {
                self.delegations.remove(&key);
                let stands = self.revocations.entry(key).or_insert(revocation);
                *stands = (*stands).max(revocation);
            }
            Change::Rotate { keys, threshold } => {
                self.keys = keys;
                self.threshold = threshold;
            }
        }
        Ok(())
    }
}

fn check_delegation(id: KeyId, delegation: &Delegation) -> Result<(), DraftError> {
    let reaches_nothing = match &delegation.role {
        Role::Release { workloads } => workloads.is_empty(),
        Role::Authority { sites: super::Sites::Only(sites), .. } => sites.is_empty(),
        _ => false,
    };
    if reaches_nothing {
        return Err(DraftError::EmptyScope { key: id, role: delegation.role.name() });
    }
    Ok(())
}

fn read_keys(reader: &mut Reader<'_>) -> Result<BTreeSet<PublicKey>, ReadError> {
    let mut keys = BTreeSet::new();
    for _ in 0..reader.count("keys", limit::ROOT_KEYS_MAX)? {
        let key = read_key(reader)?;
        if keys.last().is_some_and(|last| *last >= key) {
            return Err(ReadError::Value { what: "order of keys", value: 0 });
        }
        keys.insert(key);
    }
    Ok(keys)
}

fn read_delegations(reader: &mut Reader<'_>) -> Result<BTreeMap<KeyId, Delegation>, ReadError> {
    let mut delegations = BTreeMap::new();
    for _ in 0..reader.count("delegations", limit::ROOT_DELEGATIONS_MAX)? {
        let delegation = Delegation::read(reader)?;
        insert_ascending(&mut delegations, delegation.key.id(), delegation, "order of delegations")?;
    }
    Ok(delegations)
}

fn read_revocations(reader: &mut Reader<'_>) -> Result<BTreeMap<KeyId, Revocation>, ReadError> {
    let mut revocations = BTreeMap::new();
    for _ in 0..reader.count("revocations", limit::ROOT_REVOCATIONS_MAX)? {
        let key = KeyId::from_bytes(reader.array("revoked key")?);
        let revocation = Revocation::read(reader.u8("revocation")?)?;
        insert_ascending(&mut revocations, key, revocation, "order of revocations")?;
    }
    Ok(revocations)
}

fn insert_ascending<V>(
    map: &mut BTreeMap<KeyId, V>,
    key: KeyId,
    value: V,
    what: &'static str,
) -> Result<(), ReadError> {
    if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
        return Err(ReadError::Value { what, value: 0 });
    }
    map.insert(key, value);
    Ok(())
}

/// A root record: what it says, and who vouches for it. Clones share what it says: a node has its chain in several
/// places, and a server for each device that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootRecord {
    body: Arc<RootBody>,
    signatures: BTreeMap<KeyId, Signature>,
}

impl RootRecord {
    /// Drafts the first record of a fleet, which nobody has signed yet.
    ///
    /// # Errors
    /// [`DraftError`] when it asks for what no root may say.
    pub fn draft(
        keys: BTreeSet<PublicKey>,
        threshold: u8,
        delegations: impl IntoIterator<Item = (PublicKey, Role)>,
    ) -> Result<Self, DraftError> {
        let mut body = RootBody {
            fleet: FleetId::from_bytes([0; FleetId::LENGTH]),
            version: 1,
            keys,
            threshold,
            delegations: BTreeMap::new(),
            revocations: BTreeMap::new(),
        };
        for (key, role) in delegations {
            if body.delegations.contains_key(&key.id()) {
                return Err(DraftError::SharedKey { key: key.id() });
            }
            body.apply(Change::Delegate { key, role }, |_| 0)?;
        }
        body.check()?;
        body.fleet = body.founded_fleet();
        Ok(Self { body: Arc::new(body), signatures: BTreeMap::new() })
    }

    /// Drafts the record after this one; `floor` is the highest generation that a key has had.
    pub(super) fn draft_next(
        &self,
        changes: impl IntoIterator<Item = Change>,
        revoked: &BTreeMap<KeyId, Revocation>,
        floor: impl Fn(KeyId) -> u64,
    ) -> Result<Self, DraftError> {
        let version = self.body.version;
        let next = version.checked_add(1).ok_or(DraftError::Version { version })?;
        let mut body = RootBody { version: next, ..self.body().clone() };
        for change in changes {
            if let Change::Delegate { key, .. } = &change
                && let Some(revocation) = revoked.get(&key.id())
            {
                return Err(DraftError::Revoked { key: key.id(), revocation: *revocation });
            }
            body.apply(change, &floor)?;
        }
        body.check()?;
        Ok(Self { body: Arc::new(body), signatures: BTreeMap::new() })
    }

    /// Adds one key's signature.
    #[must_use]
    pub fn sign(mut self, key: &SecretKey) -> Self {
        self.signatures.insert(key.id(), key.sign(Domain::Root, &self.body.encode()));
        self
    }

    /// Adds the signatures of a copy that somebody else has signed.
    ///
    /// # Errors
    /// [`OtherRecord`] when the two do not say the same.
    pub fn join(mut self, copy: Self) -> Result<Self, OtherRecord> {
        if self.body != copy.body {
            return Err(OtherRecord);
        }
        self.signatures.extend(copy.signatures);
        Ok(self)
    }

    /// What the record says.
    #[must_use]
    pub fn body(&self) -> &RootBody {
        &self.body
    }

    /// Whose signatures it carries; whether they count is for [`super::RootChain`] to say.
    pub fn signers(&self) -> impl Iterator<Item = KeyId> {
        self.signatures.keys().copied()
    }

    /// Says how many of `keys` have signed.
    ///
    /// # Errors
    /// [`VerifyError`] when one of their signatures is not good.
    pub(super) fn count_signed(&self, keys: &BTreeSet<PublicKey>) -> Result<usize, VerifyError> {
        let bytes = self.body.encode();
        let mut signed = 0;
        for key in keys {
            if let Some(signature) = self.signatures.get(&key.id()) {
                key.verify(Domain::Root, &bytes, signature)?;
                signed += 1;
            }
        }
        Ok(signed)
    }

    /// Drops the signatures of keys that are neither its own nor among `others`: they were checked by nobody.
    #[must_use]
    pub(super) fn signed_by_only(mut self, others: &[KeyId]) -> Self {
        let own: BTreeSet<KeyId> = self.body.keys.iter().map(PublicKey::id).collect();
        self.signatures.retain(|signer, _| own.contains(signer) || others.contains(signer));
        self
    }

    /// The record's bytes, for the wire and the disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.bytes(&self.body.encode()).count(self.signatures.len());
        for (key, signature) in &self.signatures {
            writer.array(key.as_bytes()).array(signature.as_bytes());
        }
        writer.finish()
    }

    /// Reads a record. Whether its signatures count is not decided here.
    ///
    /// # Errors
    /// [`ReadRecordError`] when the bytes are too many, of a newer layout, not canonical, or say what no root may.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadRecordError> {
        let length_max = limit::ROOT_RECORD_BYTES_MAX;
        if bytes.len() > length_max {
            return Err(ReadRecordError::TooLarge { length: bytes.len(), length_max });
        }
        let mut reader = Reader::new(bytes);
        let body = RootBody::decode(reader.bytes("body", length_max)?)?;
        let mut signatures = BTreeMap::new();
        for _ in 0..reader.count("signatures", limit::ROOT_SIGNATURES_MAX)? {
            let key = KeyId::from_bytes(reader.array("signer")?);
            let signature = Signature::from_slice(&reader.array::<{ Signature::LENGTH }>("signature")?)
                .ok_or(ReadError::Value { what: "signature", value: 0 })?;
            insert_ascending(&mut signatures, key, signature, "order of signatures")?;
        }
        reader.finish()?;
        Ok(Self { body: Arc::new(body), signatures })
    }
}
