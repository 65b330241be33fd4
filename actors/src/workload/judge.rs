//! Judging releases: only what this file lets through may ever be executed.

use std::sync::Arc;

use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::name::{Platform, WorkloadName};
use fleetd_sync_core::release::{Purpose, SignedManifest, VerifyReleaseError};
use fleetd_sync_core::trust::{Roster, Standing};

use super::record::{Release, Target, Verdict};
use crate::report::{Fault, FaultKind};

/// Judges fetched bytes: are they the manifest that was assigned, does its signature admit an install, and is there
/// an artifact for this device?
pub(super) fn judge_manifest(
    signed: &[u8],
    target: &Target,
    workload: &WorkloadName,
    platform: &Platform,
    roster: &Roster,
) -> Result<Release, Fault> {
    let digest = ArtifactDigest::of(signed);
    if digest != target.manifest {
        return Err(Fault::new(FaultKind::Manifest, format!("fetched {digest}, assigned {}", target.manifest)));
    }
    let verified = SignedManifest::decode(signed)
        .map_err(|error| Fault::new(FaultKind::Manifest, error))?
        .verify(workload, Purpose::Install, roster)
        .map_err(|error| refusal(&error))?;
    let manifest = verified.manifest;
    if manifest.version != target.version {
        let detail = format!("the manifest is of version {}, assigned was {}", manifest.version, target.version);
        return Err(Fault::new(FaultKind::Manifest, detail));
    }
    if let Some(configuration) = &target.configuration {
        configuration.check_fits(&manifest).map_err(|error| Fault::new(FaultKind::Config, error))?;
    }
    let Some((_, artifact)) = manifest.artifact_for(platform) else {
        let built: Vec<_> = manifest.artifacts.keys().map(ToString::to_string).collect();
        let detail = format!("this device is {platform}; the release is for {}", built.join(", "));
        return Err(Fault::new(FaultKind::Platform, detail));
    };
    Ok(Release {
        artifact: artifact.digest,
        size_bytes: artifact.size_bytes,
        manifest: Arc::new(manifest.clone()),
        signed: signed.into(),
        digest: target.digest(),
        configuration: target.configuration.clone(),
        rollout: target.rollout,
        attempt: target.attempt,
        healthy: false,
        verdict: Verdict::Good,
    })
}

/// Judges a release that is on the device already.
pub(super) fn judge_installed(release: &Release, workload: &WorkloadName, roster: &Roster) -> Verdict {
    let Ok(signed) = SignedManifest::decode(&release.signed) else { return Verdict::Unrestorable };
    if signed.verify(workload, Purpose::Restore, roster).is_ok() {
        return Verdict::Good;
    }
    match roster.release_key(signed.key(), workload) {
        Some((_, Standing::Stopped)) => Verdict::MustStop,
        _ => Verdict::Unrestorable,
    }
}

fn refusal(error: &VerifyReleaseError) -> Fault {
    let kind = match error {
        VerifyReleaseError::ForeignFleet { .. } | VerifyReleaseError::WrongWorkload { .. } => FaultKind::Manifest,
        VerifyReleaseError::Undelegated { .. } | VerifyReleaseError::Signature { .. } => FaultKind::Signature,
        VerifyReleaseError::Retired { .. } => FaultKind::Retired,
        VerifyReleaseError::Compromised { .. } => FaultKind::Compromised,
        VerifyReleaseError::Denied { .. } => FaultKind::Denied,
    };
    Fault::new(kind, error)
}
