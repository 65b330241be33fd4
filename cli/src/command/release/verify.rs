//! `release verify`: a release's signature and digests, checked here.

use fleetd_proto::fleetd::artifact::v1::DownloadArtifactRequest;
use fleetd_proto::fleetd::release::v1::GetReleaseRequest;
use fleetd_proto::fleetd::trust::v1::{GetTrustRequest, Trust};
use fleetd_sync_core::artifact::GroupTreeBuilder;
use fleetd_sync_core::name::Platform;
use fleetd_sync_core::release::{Artifact, Purpose, SignedManifest, Verified};
use fleetd_sync_core::trust::{RootChain, Roster};
use serde_json::json;

use super::artifact::{self, LocalArtifact};
use super::{Verify, manifest};
use crate::client::upload::Measured;
use crate::client::{CallError, FleetClient};
use crate::command::{Session, login, trust, wording};
use crate::error::CommandError;
use crate::output::bytes;

impl Verify {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let local = artifact::inspect(&self.artifacts)?;
        let client = session.client().await?;
        let request = GetReleaseRequest {
            workload: self.release.workload.to_string(),
            version: self.release.version.to_string(),
        };
        let release = login::need(client.get_release(request).await?.release, "release")?;
        let message = login::need(release.signed_manifest, "signed manifest")?;
        let signed = manifest::from_message(&message).map_err(|error| {
            CommandError::new("release.malformed", "the server's release cannot be read").caused_by(&error)
        })?;
        let answer = client.get_trust(GetTrustRequest {}).await?;
        let chain = trust::chain(client.fleet(), &answer)?;
        let verified = self.check_signature(&signed, &chain)?;
        if let Some(revocation) = revocation(answer.trust.as_ref(), &message.key_id) {
            session.output.note(&format!("warning: the server says that {} is {revocation}", message.key_id));
        }
        for artifact in &local {
            check_local(&verified, artifact)?;
        }
        let mut checked = Vec::new();
        for (platform, artifact) in &verified.manifest.artifacts {
            if local.is_empty() {
                check_fetched(session, &client, platform, artifact).await?;
            } else if !local.iter().any(|local| local.platform == *platform) {
                continue;
            }
            checked.push(json!({ "platform": platform.to_string(), "digest": artifact.digest.to_string() }));
        }
        let object = json!({
            "workload": self.release.workload.to_string(),
            "version": self.release.version.to_string(),
            "keyId": verified.key.to_string(),
            "trustVersion": chain.version(),
            "artifacts": checked,
        });
        session.output.answer(&object, || {
            format!(
                "{} {} is signed by {}, which root record {} delegates for it; artifacts that have their digest: {} of {}",
                self.release.workload,
                self.release.version,
                verified.key,
                chain.version(),
                checked.len(),
                verified.manifest.artifacts.len(),
            )
        })
    }

    fn check_signature(&self, signed: &SignedManifest, chain: &RootChain) -> Result<Verified, CommandError> {
        let roster = Roster::new(chain, []);
        let refuse = |cause: String| {
            CommandError::new("release.refused", format!("no device would run {}", self.release.workload)).cause(cause)
        };
        let verified = signed
            .verify(&self.release.workload, Purpose::Install, &roster)
            .map_err(|error| refuse(crate::error::chain(&error)))?;
        if verified.manifest.version != self.release.version {
            return Err(refuse(format!(
                "the server gave version {} for {}",
                verified.manifest.version, self.release.version
            )));
        }
        Ok(verified)
    }
}

fn revocation(trust: Option<&Trust>, key: &str) -> Option<String> {
    let revocation = trust?.revocations.iter().find(|revocation| revocation.key_id == key)?;
    Some(wording::revocation_kind(revocation.kind))
}

fn check_local(verified: &Verified, local: &LocalArtifact) -> Result<(), CommandError> {
    let mismatch = |cause: String| {
        let message = format!("{} is not an artifact of this release", local.path.display());
        CommandError::new("release.other_artifact", message).cause(cause)
    };
    let promised = verified.manifest.artifacts.get(&local.platform);
    let promised = promised.ok_or_else(|| mismatch(format!("it has none for {}", local.platform)))?;
    if promised.digest == local.measured.digest {
        return Ok(());
    }
    Err(mismatch(format!("the manifest promises {}, the file has {}", promised.digest, local.measured.digest)))
}

async fn check_fetched(
    session: &Session<'_>,
    client: &FleetClient,
    platform: &Platform,
    promised: &Artifact,
) -> Result<(), CommandError> {
    let request = DownloadArtifactRequest { digest: promised.digest.to_string(), offset_bytes: 0 };
    let mut stream = client.download_artifact(request).await?;
    let mut builder = GroupTreeBuilder::new();
    let mut progress = session.output.progress(platform.as_str(), promised.size_bytes);
    while let Some(part) = stream.message().await.map_err(CallError::from)? {
        builder.update(&part.content);
        progress.set(builder.size_bytes());
        if builder.size_bytes() > promised.size_bytes {
            break;
        }
    }
    progress.finish();
    let tree = builder.finish();
    let found = Measured { digest: tree.digest(), size_bytes: tree.size_bytes() };
    if found.digest == promised.digest {
        return Ok(());
    }
    let message = format!("the server's artifact for {platform} is not what the manifest promises");
    Err(CommandError::new("release.other_artifact", message).cause(format!(
        "promised {} of {}, got {} of {}",
        promised.digest,
        bytes(promised.size_bytes),
        found.digest,
        bytes(found.size_bytes)
    )))
}
