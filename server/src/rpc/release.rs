//! `ReleaseService`: takes and shows signed versions of workloads.

use std::sync::Arc;

use fleetd_actors::orders::{self, Denial};
use fleetd_proto::fleetd::release::v1 as release;
use fleetd_proto::fleetd::release::v1::release_service_server::ReleaseService;
use fleetd_sync_core::commit::{Mutation, Revision, Space};
use fleetd_sync_core::id::{ArtifactDigest, HoldId};
use fleetd_sync_core::name::{Version, WorkloadName};
use fleetd_sync_core::release::{Manifest, Purpose, SignedManifest};
use fleetd_sync_store::state_store::KeyRange;
use tonic::{Request, Response, Status};

use super::artifact::{blocking, missing};
use super::backend::{Backend, caller};
use super::call_error::{CallError, optional, parsed, reason};
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
    missing(backend, wanted).await
}

impl Releases {
    async fn show(&self, stored: &StoredRelease) -> Result<release::Release, CallError> {
        let missing = missing_artifacts(&self.backend, stored.signed.claims()).await?;
        let orders = self.backend.shared().orders();
        let trust = self.backend.shared().trust();
        let signer = trust.roster.release_key(stored.signed.key(), &stored.signed.claims().workload);
        let standing = signer.map(|(_, standing)| standing);
        Ok(convert::release::show(stored, missing.is_empty(), orders.denials.get(&stored.signed.digest()), standing))
    }

    fn find(&self, workload: &str, version: &str) -> Result<Arc<StoredRelease>, CallError> {
        let (name, number): (WorkloadName, Version) = (parsed(workload, "workload")?, parsed(version, "version")?);
        let unknown = || CallError::UnknownRelease { workload: workload.to_owned(), version: version.to_owned() };
        self.backend.catalog.release(&name, &number)?.ok_or_else(unknown)
    }

    /// Denies a release. Nothing is planned or started in between, so that no rollout of it escapes.
    async fn deny(&self, caller: &Caller, asked: &release::DenyReleaseRequest) -> Result<release::Release, CallError> {
        let found = self.find(&asked.workload, &asked.version)?;
        let _turn = self.backend.planning.lock().await;
        let claims = found.signed.claims();
        let denial = Box::new(Denial {
            hold: HoldId::random(&mut self.backend.shared().entropy()),
            manifest: found.signed.digest(),
            workload: claims.workload.clone(),
            version: claims.version.clone(),
            reason: reason(&asked.reason)?,
            created_by: caller.id.to_string(),
            created_at: self.backend.now(),
        });
        self.backend.order(|operation| orders::Input::Deny { operation, denial }).await?;
        self.show(&found).await
    }

    async fn allow(&self, asked: &release::AllowReleaseRequest) -> Result<release::Release, CallError> {
        let found = self.find(&asked.workload, &asked.version)?;
        let _turn = self.backend.planning.lock().await;
        let manifest = found.signed.digest();
        self.backend.order(|operation| orders::Input::Allow { operation, manifest }).await?;
        self.show(&found).await
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
        let found = self.find(&asked.workload, &asked.version)?;
        Ok(Response::new(release::GetReleaseResponse { release: Some(self.show(&found).await?) }))
    }

    async fn deny_release(
        &self,
        request: Request<release::DenyReleaseRequest>,
    ) -> Result<Response<release::DenyReleaseResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let denied = async { Ok(release::DenyReleaseResponse { release: Some(self.deny(&caller, &asked).await?) }) };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, denied).await
    }

    async fn allow_release(
        &self,
        request: Request<release::AllowReleaseRequest>,
    ) -> Result<Response<release::AllowReleaseResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let allowed = async { Ok(release::AllowReleaseResponse { release: Some(self.allow(&asked).await?) }) };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, allowed).await
    }
}
