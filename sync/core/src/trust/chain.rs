//! The chain of root records: each vouched for by the one before it.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Change, DraftError, ReadRecordError, RootRecord};
use super::role::Revocation;
use crate::id::{FleetId, KeyId};
use crate::key::{PublicKey, VerifyError};

/// What a valid record meant to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// It is the chain's newest record now: store it.
    Extended,
    /// The chain has it already.
    Known,
    /// The root's keys signed two different records of one version: the first is kept, and people must be told.
    Alarm {
        /// The version that there are two records of.
        version: u64,
    },
}

/// Why a record does not enter a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtendError {
    /// It is another fleet's.
    #[error("the root record is of fleet {found}, not of {expected}")]
    ForeignFleet {
        /// The chain's fleet.
        expected: FleetId,
        /// The record's.
        found: FleetId,
    },
    /// The first record is not the one that the fleet id is the hash of.
    #[error("the record of version {version} founds {founded}, not {expected}")]
    NotFounding {
        /// Its version.
        version: u64,
        /// The fleet that it would found.
        founded: FleetId,
        /// The fleet that was asked for.
        expected: FleetId,
    },
    /// Records between the chain's newest and this one are missing.
    #[error("the root record has version {found}; the chain goes on with {expected}")]
    Gap {
        /// The version that comes next.
        expected: u64,
        /// The record's.
        found: u64,
    },
    /// Too few of the keys that must sign have signed.
    #[error("version {version} is signed by {signed} keys of version {by}, which asks for {threshold}")]
    Threshold {
        /// The record's version.
        version: u64,
        /// The version whose keys were counted: the one before, or its own.
        by: u64,
        /// How many signed.
        signed: usize,
        /// How many must.
        threshold: u8,
    },
    /// A signature is not good.
    #[error("version {version} carries a signature that is not good")]
    Signature {
        /// The record's version.
        version: u64,
        /// What is wrong with it.
        source: VerifyError,
    },
    /// It would take a key's delegation back to an older one.
    #[error("version {version} gives {key} generation {found}; it has had {floor}")]
    Generation {
        /// The record's version.
        version: u64,
        /// The key.
        key: KeyId,
        /// Its generation there.
        found: u64,
        /// The highest that it has had.
        floor: u64,
    },
}

/// Why stored records are no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadChainError {
    /// There is none.
    #[error("there is no root record of fleet {fleet}")]
    Empty {
        /// The fleet.
        fleet: FleetId,
    },
    /// A record cannot be read.
    #[error("root record number {number} cannot be read")]
    Read {
        /// Which, counted from 1.
        number: usize,
        /// Why.
        source: ReadRecordError,
    },
    /// A record does not follow from those before it.
    #[error("root record number {number} does not belong to the chain")]
    Refused {
        /// Which, counted from 1.
        number: usize,
        /// Why.
        source: ExtendError,
    },
}

/// Who has signed a record, of the keys of one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerCount {
    /// How many must.
    pub threshold: u8,
    /// Who has; whether the signatures are good, [`RootChain::extend`] says.
    pub signed: BTreeSet<KeyId>,
    /// Who could.
    pub unsigned: BTreeSet<KeyId>,
}

/// Who has signed a record, and who could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureCount {
    /// Of the keys of the root that it follows.
    pub former: SignerCount,
    /// Of its own keys.
    pub own: SignerCount,
}

/// The root records of one fleet, from the first to the newest known. It only goes forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootChain {
    first: RootRecord,
    later: Vec<RootRecord>,
}

impl RootChain {
    /// Starts the chain of `fleet` with its first record.
    ///
    /// # Errors
    /// [`ExtendError::NotFounding`] when the fleet's id is not the record's hash, [`ExtendError::Threshold`] and
    /// [`ExtendError::Signature`].
    pub fn found(fleet: FleetId, first: RootRecord) -> Result<Self, ExtendError> {
        let body = first.body();
        let founded = body.founded_fleet();
        if body.version != 1 || founded != fleet || body.fleet != fleet {
            return Err(ExtendError::NotFounding { version: body.version, founded, expected: fleet });
        }
        check_threshold(&first, &first)?;
        let first = first.signed_by_only(&[]);
        Ok(Self { first, later: Vec::new() })
    }

    /// Takes a record that came from a peer, a file or a bundle.
    ///
    /// # Errors
    /// [`ExtendError`] says why it is refused; the chain is unchanged then.
    pub fn extend(&mut self, record: RootRecord) -> Result<Extension, ExtendError> {
        let version = record.body().version;
        if record.body().fleet != self.fleet() {
            return Err(ExtendError::ForeignFleet { expected: self.fleet(), found: record.body().fleet });
        }
        if let Some(present) = self.record(version) {
            if present.body() == record.body() {
                return Ok(Extension::Known);
            }
            // Only a record that could have entered is worth an alarm; anybody can send another.
            let before = version.checked_sub(1).and_then(|before| self.record(before));
            let before = before.ok_or_else(|| ExtendError::NotFounding {
                version,
                founded: record.body().founded_fleet(),
                expected: self.fleet(),
            })?;
            check_threshold(&record, before)?;
            check_threshold(&record, &record)?;
            return Ok(Extension::Alarm { version });
        }
        let expected = self.version().saturating_add(1);
        if version != expected {
            return Err(ExtendError::Gap { expected, found: version });
        }
        check_threshold(&record, self.newest())?;
        check_threshold(&record, &record)?;
        self.check_generations(&record)?;
        let before = self.newest().body().keys.iter().map(PublicKey::id).collect::<Vec<_>>();
        self.later.push(record.signed_by_only(&before));
        Ok(Extension::Extended)
    }

    /// Drafts the record that would follow, which nobody has signed yet.
    ///
    /// # Errors
    /// [`DraftError`] when it asks for what no root may say.
    pub fn draft_next(&self, changes: impl IntoIterator<Item = Change>) -> Result<RootRecord, DraftError> {
        self.newest().draft_next(changes, &self.revocations(), |key| self.generation_floor(key))
    }

    /// Says who has signed a record that would follow, and who could.
    #[must_use]
    pub fn count_signatures(&self, record: &RootRecord) -> SignatureCount {
        let signers: BTreeSet<KeyId> = record.signers().collect();
        let count = |by: &RootRecord| {
            let keys = by.body().keys.iter().map(PublicKey::id);
            let (signed, unsigned) = keys.partition(|key| signers.contains(key));
            SignerCount { threshold: by.body().threshold, signed, unsigned }
        };
        SignatureCount { former: count(self.newest()), own: count(record) }
    }

    /// Loads a chain from the bytes of its records, in order.
    ///
    /// # Errors
    /// [`LoadChainError`] when there are none, or one is damaged or does not follow.
    pub fn load<B: AsRef<[u8]>>(fleet: FleetId, records: impl IntoIterator<Item = B>) -> Result<Self, LoadChainError> {
        let mut chain: Option<Self> = None;
        for (index, bytes) in records.into_iter().enumerate() {
            let number = index + 1;
            let record =
                RootRecord::decode(bytes.as_ref()).map_err(|source| LoadChainError::Read { number, source })?;
            let refused = |source| LoadChainError::Refused { number, source };
            match &mut chain {
                None => chain = Some(Self::found(fleet, record).map_err(refused)?),
                Some(chain) => {
                    chain.extend(record).map_err(refused)?;
                }
            }
        }
        chain.ok_or(LoadChainError::Empty { fleet })
    }

    /// The fleet.
    #[must_use]
    pub fn fleet(&self) -> FleetId {
        self.first.body().fleet
    }

    /// The newest record's version, which is the trust version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.newest().body().version
    }

    /// The newest record.
    #[must_use]
    pub fn newest(&self) -> &RootRecord {
        self.later.last().unwrap_or(&self.first)
    }

    /// The record of one version.
    #[must_use]
    pub fn record(&self, version: u64) -> Option<&RootRecord> {
        match version {
            0 => None,
            1 => Some(&self.first),
            _ => usize::try_from(version - 2).ok().and_then(|index| self.later.get(index)),
        }
    }

    /// All records, from the first.
    pub fn records(&self) -> impl Iterator<Item = &RootRecord> {
        std::iter::once(&self.first).chain(&self.later)
    }

    /// What a peer lacks whose newest record has `version`; 0 for one that has none.
    pub fn records_above(&self, version: u64) -> impl Iterator<Item = &RootRecord> {
        self.records().filter(move |record| record.body().version > version)
    }

    /// Every key that the root has ever revoked, each for its strongest reason.
    #[must_use]
    pub fn revocations(&self) -> BTreeMap<KeyId, Revocation> {
        let mut revocations = BTreeMap::new();
        for (key, revocation) in self.records().flat_map(|record| &record.body().revocations) {
            let stands = revocations.entry(*key).or_insert(*revocation);
            *stands = (*stands).max(*revocation);
        }
        revocations
    }

    fn generation_floor(&self, key: KeyId) -> u64 {
        let generations = self.records().filter_map(|record| record.body().delegations.get(&key));
        generations.map(|delegation| delegation.generation).max().unwrap_or(0)
    }

    fn check_generations(&self, record: &RootRecord) -> Result<(), ExtendError> {
        let present = &self.newest().body().delegations;
        for (key, delegation) in &record.body().delegations {
            let floor = self.generation_floor(*key);
            // What is new, has changed, or comes back needs a generation of its own.
            let unchanged = present.get(key).is_some_and(|present| present.role == delegation.role);
            let found = delegation.generation;
            if found < floor || (!unchanged && found == floor) {
                return Err(ExtendError::Generation { version: record.body().version, key: *key, found, floor });
            }
        }
        Ok(())
    }
}

fn check_threshold(record: &RootRecord, by: &RootRecord) -> Result<(), ExtendError> {
    let version = record.body().version;
    let signed = record.count_signed(&by.body().keys).map_err(|source| ExtendError::Signature { version, source })?;
    let threshold = by.body().threshold;
    if signed < usize::from(threshold) {
        return Err(ExtendError::Threshold { version, by: by.body().version, signed, threshold });
    }
    Ok(())
}
