//! Who may write which lane: what trust says, as lanes need it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::envelope::DocumentId;
use crate::id::{KeyId, LocalId};
use crate::key::PublicKey;
use crate::lane::Refusal;
use crate::name::LabelValue;
use crate::trust::{Rank, Sites};

/// A key that may write desired state and revocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityWriter {
    /// The key.
    pub key: PublicKey,
    /// How much its word weighs beside another authority's: the higher wins.
    pub rank: Rank,
    /// For whose devices it writes.
    pub sites: Sites,
}

/// Who may write which lane. What is the same for every device of a fleet is shared: a server has one of these for each
/// device that is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// The authorities, by their keys' ids.
    pub authorities: Arc<BTreeMap<KeyId, AuthorityWriter>>,
    /// The devices' keys, boxed since a map sets room for eleven aside where most have one. A node that is a device need
    /// not name itself.
    pub devices: BTreeMap<LocalId, Box<PublicKey>>,
    /// The sites of devices, for authorities that write for some sites only. A device that is not named here
    /// has none.
    pub sites: BTreeMap<LocalId, LabelValue>,
    /// The keys whose lanes are void.
    pub revoked: Arc<BTreeSet<KeyId>>,
    /// The version of the newest root record.
    pub trust_version: u64,
}

impl Writers {
    /// The key that may write lane `lane` of `document`.
    ///
    /// # Errors
    /// [`Refusal::ForeignLane`] when none may, and [`Refusal::Revoked`].
    pub fn key(&self, document: DocumentId, lane: KeyId) -> Result<&PublicKey, Refusal> {
        let key = match document {
            DocumentId::Trust => self.authorities.get(&lane).map(|authority| &authority.key),
            DocumentId::Desired(device) => self
                .authorities
                .get(&lane)
                .filter(|authority| self.reaches(&authority.sites, device))
                .map(|authority| &authority.key),
            DocumentId::Actual(device) if KeyId::from(device) == lane => self.devices.get(&device).map(|key| &**key),
            DocumentId::Actual(_) => None,
        };
        let key = key.ok_or(Refusal::ForeignLane { document, lane })?;
        if self.revoked.contains(&lane) {
            return Err(Refusal::Revoked { lane });
        }
        Ok(key)
    }

    fn reaches(&self, sites: &Sites, device: LocalId) -> bool {
        match sites {
            Sites::All => true,
            Sites::Only(names) => self.sites.get(&device).is_some_and(|site| names.contains(site)),
        }
    }
}
