//! Releases.

use std::time::Duration;

use fleetd_actors::orders::Denial;
use fleetd_proto::fleetd::release::v1::{self as release, probe};
use fleetd_proto::fleetd::trust::v1::RevocationKind;
use fleetd_sync_core::id::KeyId;
use fleetd_sync_core::key::Signature;
use fleetd_sync_core::release::{EnvironmentValue, Probe, ProbeCheck, SignedManifest};
use fleetd_sync_core::trust::Standing;

use super::super::call_error::{CallError, parsed};
use crate::record::release::{StoredRelease, join, manifest_bytes, signature_bytes};
use crate::record::timestamp;

/// Reads a signed manifest. Whether its signature counts is not decided here.
pub(crate) fn read(message: &release::SignedManifest) -> Result<SignedManifest, CallError> {
    if message.manifest.is_empty() {
        return Err(CallError::Missing { field: "signed_manifest.manifest" });
    }
    let key: KeyId = parsed(&message.key_id, "signed_manifest.key_id")?;
    let field = "signed_manifest.signature";
    let length = message.signature.len();
    let signature = match message.signature.as_slice().try_into() {
        Ok(signature) => signature,
        Err(_) if length == 0 => return Err(CallError::Missing { field }),
        Err(_) => {
            let cause = format!("it has {length} bytes, not {}", Signature::LENGTH);
            return Err(CallError::Invalid { field, cause });
        }
    };
    Ok(join(&message.manifest, key, &signature)?)
}

/// A release as the API shows it. Its signer has no standing where root never let it sign for the workload.
pub(crate) fn show(
    stored: &StoredRelease,
    complete: bool,
    denial: Option<&Denial>,
    signer: Option<Standing>,
) -> release::Release {
    let claims = stored.signed.claims();
    let artifacts = claims.artifacts.iter().map(|(platform, artifact)| release::ReleaseArtifact {
        platform: platform.to_string(),
        digest: artifact.digest.to_string(),
        size_bytes: artifact.size_bytes,
    });
    let environment = claims.environment.iter().map(|(name, value)| {
        let value = match value {
            EnvironmentValue::Fixed(value) => value.clone(),
            EnvironmentValue::FromConfig => String::new(),
        };
        (name.clone(), value)
    });
    release::Release {
        workload: claims.workload.to_string(),
        version: claims.version.to_string(),
        signed_manifest: Some(release::SignedManifest {
            manifest: manifest_bytes(&stored.signed),
            key_id: stored.signed.key().to_string(),
            signature: signature_bytes(&stored.signed),
        }),
        manifest_digest: stored.signed.digest().to_string(),
        artifacts: artifacts.collect(),
        arguments: claims.argv.clone(),
        environment: environment.collect(),
        probe: probe(&claims.probe),
        user: claims.user.clone().unwrap_or_default(),
        grace: Some(duration(claims.probe.grace)),
        created_at: Some(timestamp(stored.created_at)),
        created_by: stored.created_by.map(|by| by.to_string()).unwrap_or_default(),
        complete,
        denied_at: denial.map(|denial| timestamp(denial.created_at)),
        denied_reason: denial.map(|denial| denial.reason.clone()).unwrap_or_default(),
        signer_revocation: signer_revocation(signer).into(),
    }
}

const fn signer_revocation(standing: Option<Standing>) -> RevocationKind {
    match standing {
        Some(Standing::Active) => RevocationKind::Unspecified,
        Some(Standing::Retired) => RevocationKind::Retired,
        Some(Standing::Compromised | Standing::Stopped) | None => RevocationKind::Compromised,
    }
}

fn probe(shown: &Probe) -> Option<release::Probe> {
    let kind = match &shown.check {
        ProbeCheck::Alive => return None,
        ProbeCheck::Notify => probe::Kind::Notify(release::NotifyProbe {}),
        ProbeCheck::Exec { argv } => probe::Kind::Command(release::ProbeCommand { arguments: argv.clone() }),
        ProbeCheck::Tcp { port } => probe::Kind::TcpPort(u32::from(*port)),
        ProbeCheck::Http { port, path } => probe::Kind::HttpUrl(format!("http://127.0.0.1:{port}{path}")),
    };
    let (interval, timeout) = (Some(duration(shown.interval)), Some(duration(shown.timeout)));
    Some(release::Probe { interval, timeout, kind: Some(kind) })
}

/// A span of time as protobuf has it.
pub(crate) fn duration(span: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: i32::try_from(span.subsec_nanos()).unwrap_or(0) }
}
