//! Access tokens of the API.

use fleetd_proto::fleetd::access::v1 as access;
use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::AccessId;
use prost::Message as _;

use super::{ReadRecordError, field, timestamp, wall};
use crate::access::AccessToken;
use crate::edge::authenticate::Role;

/// The change of the store that keeps a token.
#[must_use]
pub fn put(token: &AccessToken) -> Mutation {
    let record = stored::AccessTokenRecord {
        access_id: token.id.as_bytes().to_vec(),
        name: token.name.clone(),
        secret_hash: token.secret_hash.as_bytes().to_vec(),
        role: role_number(token.role).into(),
        created_at: Some(timestamp(token.created_at)),
        expires_at: token.expires_at.map(timestamp),
        revoked_at: token.revoked_at.map(timestamp),
        created_by: token.created_by.map(|by| by.as_bytes().to_vec()).unwrap_or_default(),
    };
    Mutation::Put { space: Space::AccessToken, key: token.id.as_bytes().to_vec(), value: record.encode_to_vec() }
}

/// Reads a token.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn decode(bytes: &[u8]) -> Result<AccessToken, ReadRecordError> {
    let record = stored::AccessTokenRecord::decode(bytes)?;
    let hash: [u8; 32] = field(record.secret_hash.as_slice().try_into().ok(), "secret_hash")?;
    Ok(AccessToken {
        id: field(AccessId::from_slice(&record.access_id), "access_id")?,
        name: record.name,
        secret_hash: blake3::Hash::from_bytes(hash),
        role: field(role(record.role), "role")?,
        created_at: record.created_at.as_ref().map(wall).unwrap_or_default(),
        expires_at: record.expires_at.as_ref().map(wall),
        revoked_at: record.revoked_at.as_ref().map(wall),
        created_by: AccessId::from_slice(&record.created_by),
    })
}

/// How the API calls a role.
#[must_use]
pub const fn role_number(role: Role) -> access::Role {
    match role {
        Role::Viewer => access::Role::Viewer,
        Role::Deployer => access::Role::Deployer,
        Role::Admin => access::Role::Admin,
    }
}

/// The role that the API calls so.
#[must_use]
pub fn role(number: i32) -> Option<Role> {
    match access::Role::try_from(number) {
        Ok(access::Role::Viewer) => Some(Role::Viewer),
        Ok(access::Role::Deployer) => Some(Role::Deployer),
        Ok(access::Role::Admin) => Some(Role::Admin),
        Ok(access::Role::Unspecified) | Err(_) => None,
    }
}
