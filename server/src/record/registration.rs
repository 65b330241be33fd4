//! Enrolment tokens, their uses, and devices that wait for approval.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_actors::registration::token::{Decision, Given, PendingDevice, TokenRecord};
use fleetd_actors::registration::{Record, Registration};
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::enrolment::{TokenHash, TokenState};
use fleetd_sync_core::id::{LocalId, TokenId};
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::name::{LabelKey, LabelValue};
use fleetd_sync_store::state_store::{Found, KeyRange, ReadError, StateStore};
use prost::Message as _;

use super::{ReadRecordError, field, timestamp, wall};
use crate::node::Shared;

/// Records that are read at once.
const PAGE_RECORDS: usize = 1024;

/// Why a registration cannot be taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadRegistrationError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// A record is none.
    #[error("a stored token or device is unreadable")]
    Record(#[from] ReadRecordError),
}

/// Takes the registration up.
///
/// # Errors
/// [`LoadRegistrationError`].
pub fn load(shared: &Shared) -> Result<Registration, LoadRegistrationError> {
    let store = shared.seams.store.as_ref();
    let mut uses: BTreeMap<TokenId, BTreeSet<LocalId>> = BTreeMap::new();
    for (key, _) in all(store, Space::TokenUse)? {
        let (token, device) = key.split_at_checked(TokenId::LENGTH).unwrap_or_default();
        if let (Some(token), Some(device)) = (TokenId::from_slice(token), LocalId::from_slice(device)) {
            uses.entry(token).or_default().insert(device);
        }
    }
    let mut tokens = Vec::new();
    for (_, found) in all(store, Space::EnrolmentToken)? {
        tokens.push(decode_token(&found.value, &mut uses)?);
    }
    let mut pending = Vec::new();
    for (_, found) in all(store, Space::PendingDevice)? {
        pending.push(decode_pending(&found.value)?);
    }
    Ok(Registration::load(tokens, pending, shared.trust().roster.clone(), shared.entropy()))
}

/// The change of the store that keeps what the registration remembers.
#[must_use]
pub fn mutation(record: Record) -> Mutation {
    match record {
        Record::Token(token) => Mutation::Put {
            space: Space::EnrolmentToken,
            key: token.token.as_bytes().to_vec(),
            value: encode_token(&token).encode_to_vec(),
        },
        Record::TokenUsed { token, device } => Mutation::Put {
            space: Space::TokenUse,
            key: [token.as_bytes().as_slice(), device.as_bytes()].concat(),
            value: Vec::new(),
        },
        Record::Pending(device) => Mutation::Put {
            space: Space::PendingDevice,
            key: device.local.as_bytes().to_vec(),
            value: encode_pending(&device).encode_to_vec(),
        },
        Record::PendingGone(device) => {
            Mutation::Delete { space: Space::PendingDevice, key: device.as_bytes().to_vec() }
        }
    }
}

fn all(store: &dyn StateStore, space: Space) -> Result<Vec<Found>, ReadError> {
    let (mut found, mut range) = (Vec::new(), KeyRange::all());
    loop {
        let page = store.scan(space, range.clone(), PAGE_RECORDS)?;
        let is_last = page.len() < PAGE_RECORDS;
        if let Some((key, _)) = page.last() {
            range = range.after(key);
        }
        found.extend(page);
        if is_last {
            return Ok(found);
        }
    }
}

fn encode_token(token: &TokenRecord) -> stored::EnrolmentTokenRecord {
    stored::EnrolmentTokenRecord {
        token_id: token.token.as_bytes().to_vec(),
        note: token.note.clone(),
        secret_hash: token.state.secret_hash.as_bytes().to_vec(),
        labels: texts(&token.labels),
        site: token.site.clone(),
        uses_max: token.state.uses_max,
        needs_approval: token.state.needs_approval,
        created_at: Some(timestamp(token.created_at)),
        expires_at: token.state.expires_at.map(timestamp),
        revoked_at: token.state.revoked_at.map(timestamp),
        created_by_id: token.created_by.clone(),
    }
}

fn decode_token(bytes: &[u8], uses: &mut BTreeMap<TokenId, BTreeSet<LocalId>>) -> Result<TokenRecord, ReadRecordError> {
    let record = stored::EnrolmentTokenRecord::decode(bytes)?;
    let token = field(TokenId::from_slice(&record.token_id), "token_id")?;
    let hash: [u8; 32] = field(record.secret_hash.as_slice().try_into().ok(), "secret_hash")?;
    Ok(TokenRecord {
        token,
        note: record.note,
        labels: labels(&record.labels, "labels")?,
        site: record.site,
        state: TokenState {
            secret_hash: TokenHash::from_bytes(hash),
            uses_max: record.uses_max,
            used_by: uses.remove(&token).unwrap_or_default(),
            needs_approval: record.needs_approval,
            expires_at: record.expires_at.as_ref().map(wall),
            revoked_at: record.revoked_at.as_ref().map(wall),
        },
        created_at: record.created_at.as_ref().map(wall).unwrap_or_default(),
        created_by: record.created_by_id,
    })
}

fn texts(labels: &BTreeMap<LabelKey, LabelValue>) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn labels(
    texts: &BTreeMap<String, String>,
    name: &'static str,
) -> Result<BTreeMap<LabelKey, LabelValue>, ReadRecordError> {
    texts.iter().map(|(key, value)| Ok((field(key.parse().ok(), name)?, field(value.parse().ok(), name)?))).collect()
}

fn encode_pending(device: &PendingDevice) -> stored::PendingDeviceRecord {
    let decision = match device.decision {
        Decision::Waiting => "",
        Decision::Approved => "approved",
        Decision::Denied => "denied",
    };
    stored::PendingDeviceRecord {
        local_id: device.local.as_bytes().to_vec(),
        public_key: device.key.as_bytes().to_vec(),
        token_id: device.token.as_bytes().to_vec(),
        fact_values: device.facts.clone(),
        requested_at: Some(timestamp(device.requested_at)),
        decision: decision.to_owned(),
        given_name: device.given.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        given_labels: texts(&device.given.labels),
    }
}

fn decode_pending(bytes: &[u8]) -> Result<PendingDevice, ReadRecordError> {
    let record = stored::PendingDeviceRecord::decode(bytes)?;
    let decision = match record.decision.as_str() {
        "approved" => Decision::Approved,
        "denied" => Decision::Denied,
        _ => Decision::Waiting,
    };
    let name = Some(record.given_name.as_str()).filter(|name| !name.is_empty());
    let given = Given {
        name: name.map(|name| field(name.parse().ok(), "given_name")).transpose()?,
        labels: labels(&record.given_labels, "given_labels")?,
    };
    Ok(PendingDevice {
        local: field(LocalId::from_slice(&record.local_id), "local_id")?,
        key: field(PublicKey::from_slice(&record.public_key).ok(), "public_key")?,
        token: field(TokenId::from_slice(&record.token_id), "token_id")?,
        facts: record.fact_values,
        requested_at: record.requested_at.as_ref().map(wall).unwrap_or_default(),
        decision,
        given,
    })
}
