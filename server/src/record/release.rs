//! Releases.

use fleetd_proto::fleetd::record::v1 as stored;
use fleetd_sync_core::codec::Writer;
use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_core::id::{AccessId, KeyId};
use fleetd_sync_core::key::Signature;
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_core::release::SignedManifest;
use fleetd_sync_core::time::Wall;
use prost::Message as _;

use super::{ReadRecordError, field, timestamp, wall};

/// A release as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRelease {
    /// What was signed, and by whom.
    pub signed: SignedManifest,
    /// When the server took it.
    pub created_at: Wall,
    /// Who pushed it.
    pub created_by: Option<AccessId>,
}

/// The key of a release in its space.
#[must_use]
pub fn release_key(workload: &WorkloadName, version: &Version) -> Vec<u8> {
    [workload.as_str().as_bytes(), &[0], version.as_str().as_bytes()].concat()
}

/// What the keys of all releases of a workload start with.
#[must_use]
pub fn workload_prefix(workload: &WorkloadName) -> Vec<u8> {
    [workload.as_str().as_bytes(), &[0]].concat()
}

/// The change of the store that keeps a release.
#[must_use]
pub fn put(release: &StoredRelease) -> Mutation {
    let claims = release.signed.claims();
    let record = stored::ReleaseRecord {
        workload: claims.workload.to_string(),
        version: claims.version.to_string(),
        manifest: manifest_bytes(&release.signed),
        key_id: release.signed.key().as_bytes().to_vec(),
        signature: signature_bytes(&release.signed),
        created_at: Some(timestamp(release.created_at)),
        created_by: release.created_by.map(|by| by.as_bytes().to_vec()).unwrap_or_default(),
        denied_at: None,
    };
    let key = release_key(&claims.workload, &claims.version);
    Mutation::Put { space: Space::Release, key, value: record.encode_to_vec() }
}

/// Reads a release.
///
/// # Errors
/// [`ReadRecordError`] when it is none.
pub fn decode(bytes: &[u8]) -> Result<StoredRelease, ReadRecordError> {
    let record = stored::ReleaseRecord::decode(bytes)?;
    let key = field(KeyId::from_slice(&record.key_id), "key_id")?;
    let signature = field(record.signature.as_slice().try_into().ok(), "signature")?;
    Ok(StoredRelease {
        signed: field(join(&record.manifest, key, &signature).ok(), "manifest")?,
        created_at: record.created_at.as_ref().map(wall).unwrap_or_default(),
        created_by: AccessId::from_slice(&record.created_by),
    })
}

/// Puts the parts of a signed manifest together.
///
/// # Errors
/// Those of [`SignedManifest::decode`].
pub fn join(
    manifest: &[u8],
    key: KeyId,
    signature: &[u8; Signature::LENGTH],
) -> Result<SignedManifest, fleetd_sync_core::release::ReadReleaseError> {
    let mut writer = Writer::new();
    writer.bytes(manifest).array(key.as_bytes()).array(signature);
    SignedManifest::decode(&writer.finish())
}

/// The bytes that the signature covers.
#[must_use]
pub fn manifest_bytes(signed: &SignedManifest) -> Vec<u8> {
    // What was decoded is canonical, so that encoding it again gives the signed bytes.
    signed.claims().encode().unwrap_or_default()
}

/// The signature's bytes.
#[must_use]
pub fn signature_bytes(signed: &SignedManifest) -> Vec<u8> {
    signed.encode().last_chunk::<{ Signature::LENGTH }>().map(|bytes| bytes.to_vec()).unwrap_or_default()
}
