//! `ReleaseService`: takes and shows signed versions of workloads.

use fleetd_proto::fleetd::release::v1 as release;
use fleetd_proto::fleetd::release::v1::release_service_server::ReleaseService;
use fleetd_sync_core::commit::{Mutation, Revision, Space};
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_core::release::{Manifest, Purpose, SignedManifest};
use fleetd_sync_store::state_store::KeyRange;
use tonic::{Request, Response, Status};

use super::artifact::blocking;
use super::backend::{Backend, caller};
use super::call_error::{CallError, optional, parsed};
use super::convert;
use super::page::{newest_first, page};
use super::request_log::Kept;
use crate::artifact_store::Held;
use crate::edge::authenticate::Caller;
use crate::record;
use crate::record::release::StoredRelease;

super::service!(
    /// Takes releases that somebody signed, and shows them.
    Releases
);

/// The artifacts of a release that the server does not have, each with its platform.
pub(super) async fn missing_artifacts(backend: &Backend, manifest: &Manifest) -> Result<Vec<String>, CallError> {
    let wanted: Vec<(String, ArtifactDigest)> = manifest
        .artifacts
        .iter()
        .map(|(platform, artifact)| (format!("{platform} {}", artifact.digest), artifact.digest))
        .collect();
    blocking(backend, move |store| {
        let mut missing = Vec::new();
        for (name, digest) in wanted {
            if !matches!(store.held(digest)?, Held::Whole { .. }) {
                missing.push(name);
            }
        }
        Ok(missing)
    })
    .await
}

impl Releases {
    async fn show(&self, stored: &StoredRelease) -> Result<release::Release, CallError> {
        let missing = missing_artifacts(&self.backend, stored.signed.claims()).await?;
        Ok(convert::release::show(stored, missing.is_empty()))
    }

    async fn create(&self, caller: &Caller, signed: SignedManifest) -> Result<release::Release, CallError> {
        let claims = signed.claims();
        let (workload, version) = (claims.workload.clone(), claims.version.clone());
        WorkloadName::for_release(workload.as_str()).map_err(CallError::ReservedName)?;
        signed.verify(&workload, Purpose::Install, &self.backend.shared().trust().roster)?;
        let missing = missing_artifacts(&self.backend, claims).await?;
        if !missing.is_empty() {
            let (workload, version) = (workload.to_string(), version.to_string());
            return Err(CallError::IncompleteRelease { workload, version, missing });
        }
        if let Some(known) = self.backend.catalog.release(&workload, &version)? {
            return if known.signed == signed {
                self.show(&known).await
            } else {
                Err(CallError::DuplicateRelease { workload: workload.to_string(), version: version.to_string() })
            };
        }
        // Devices fetch the manifest like any artifact, by the digest that their documents name.
        let (digest, bytes) = (signed.digest(), signed.encode());
        let size_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        blocking(&self.backend, move |store| {
            let have = match store.held(digest)? {
                Held::Nothing => 0,
                Held::Part { received_bytes } => received_bytes,
                whole @ Held::Whole { .. } => return Ok(whole),
            };
            let rest = bytes.get(usize::try_from(have).unwrap_or(usize::MAX)..).unwrap_or_default();
            store.append(digest, size_bytes, have, rest)
        })
        .await?;
        let stored = StoredRelease { signed, created_at: self.backend.now(), created_by: Some(caller.id) };
        let key = record::release::release_key(&workload, &version);
        let absent = Mutation::Expect { space: Space::Release, key, revision: Revision(0) };
        self.backend.commit(vec![absent, record::release::put(&stored)]).await?;
        self.show(&stored).await
    }
}

#[tonic::async_trait]
impl ReleaseService for Releases {
    async fn create_release(
        &self,
        request: Request<release::CreateReleaseRequest>,
    ) -> Result<Response<release::CreateReleaseResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let created = async {
            let message = asked.signed_manifest.as_ref().ok_or(CallError::Missing { field: "signed_manifest" })?;
            let signed = convert::release::read(message)?;
            Ok(release::CreateReleaseResponse { release: Some(self.create(&caller, signed).await?) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, created).await
    }

    async fn list_releases(
        &self,
        request: Request<release::ListReleasesRequest>,
    ) -> Result<Response<release::ListReleasesResponse>, Status> {
        let asked = request.into_inner();
        let range = match optional::<WorkloadName>(&asked.workload, "workload")? {
            Some(workload) => KeyRange::prefix(&record::release::workload_prefix(&workload)),
            None => KeyRange::all(),
        };
        let mut stored = Vec::new();
        self.backend.visit(Space::Release, range, |key, value, _| {
            let release = record::release::decode(value)?;
            stored.push((newest_first(release.created_at.0, key), release));
            Ok(())
        })?;
        stored.sort_by(|(key, _), (other, _)| key.cmp(other));
        let (stored, next_page_token) = page(stored, asked.page_size, &asked.page_token)?;
        let mut releases = Vec::with_capacity(stored.len());
        for release in &stored {
            releases.push(self.show(release).await?);
        }
        Ok(Response::new(release::ListReleasesResponse { releases, next_page_token }))
    }

    async fn get_release(
        &self,
        request: Request<release::GetReleaseRequest>,
    ) -> Result<Response<release::GetReleaseResponse>, Status> {
        let asked = request.into_inner();
        let (workload, version): (WorkloadName, Version) =
            (parsed(&asked.workload, "workload")?, parsed(&asked.version, "version")?);
        let found = self.backend.catalog.release(&workload, &version)?;
        let found = found.ok_or(CallError::UnknownRelease { workload: asked.workload, version: asked.version })?;
        Ok(Response::new(release::GetReleaseResponse { release: Some(self.show(&found).await?) }))
    }
}
