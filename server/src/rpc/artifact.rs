//! `ArtifactService`: takes and gives the bytes that releases are made of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_proto::fleetd::artifact::v1 as artifact;
use fleetd_proto::fleetd::artifact::v1::artifact_service_server::ArtifactService;
use fleetd_sync_core::audit::Outcome;
use fleetd_sync_core::id::{AccessId, ArtifactDigest};
use fleetd_sync_core::limit;
use prost::{Message, Name};
use tonic::{Request, Response, Status, Streaming};

use super::backend::{Backend, caller};
use super::call_error::{CallError, parsed, required};
use super::follower::{Messages, Outlet, StreamEnd, stream};
use super::status::error_of;
use crate::artifact_store::{ArtifactError, ArtifactStore, Held};
use crate::audit::Intent;
use crate::edge::authenticate::Caller;

/// Bytes of one message that is given.
const PART_BYTES: usize = 256 << 10;
/// Uploads in parts that may be under way at once before the audit log gives one of them up: its next part leaves a new
/// intent then.
const UPLOADS_MAX: usize = 64;

super::service!(
    /// Takes and gives artifacts.
    Artifacts
);

/// Those of some artifacts that the server does not have all of, by what they are called.
pub(super) async fn missing(
    backend: &Backend,
    wanted: Vec<(String, ArtifactDigest)>,
) -> Result<Vec<String>, CallError> {
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

/// Uploads that come in parts, each part a call of its own, with the intent of the first.
#[derive(Default)]
pub(super) struct Uploads {
    open: Mutex<BTreeMap<(AccessId, ArtifactDigest), Intent>>,
}

impl Uploads {
    fn take(&self, key: &(AccessId, ArtifactDigest)) -> Option<Intent> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    fn put(&self, key: (AccessId, ArtifactDigest), intent: Intent) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= UPLOADS_MAX {
            open.pop_first();
        }
        open.insert(key, intent);
    }
}

impl Artifacts {
    /// Notes that an upload begins. Its parts leave no trace of their own: there are many, and they do one thing.
    async fn intend<Q: Message + Name>(
        &self,
        caller: &Caller,
        request_id: &str,
        first: &Q,
    ) -> Result<Intent, CallError> {
        let call = self.backend.call(caller, first);
        Ok(self.backend.node.intend(call, request_id.to_owned()).await?)
    }

    /// Notes how an upload has ended.
    async fn conclude<T>(&self, intent: Intent, ended: Result<T, Status>) -> Result<T, Status> {
        let outcome = match &ended {
            Ok(_) => Outcome::Done,
            Err(status) => Outcome::Refused(error_of(status).map(|error| error.code).unwrap_or_default()),
        };
        let concluded = self.backend.node.conclude(intent, Vec::new(), outcome).await;
        concluded.map_err(|_| CallError::Unconcluded)?;
        ended
    }
}

/// Does something with the artifact store where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    backend: &Backend,
    job: impl FnOnce(&dyn ArtifactStore) -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, CallError> {
    let artifacts = Arc::clone(&backend.shared().seams.artifacts);
    let done = tokio::task::spawn_blocking(move || job(artifacts.as_ref())).await;
    Ok(done.map_err(|error| CallError::Internal { cause: error.to_string() })??)
}

/// How much there is, and whether that is all.
const fn extent(held: Held) -> (u64, bool) {
    match held {
        Held::Nothing => (0, false),
        Held::Part { received_bytes } => (received_bytes, false),
        Held::Whole { size_bytes } => (size_bytes, true),
    }
}

/// One upload, as its first part announced it.
struct Upload {
    digest: ArtifactDigest,
    size_bytes: u64,
    offset_bytes: u64,
    held: Held,
}

impl Upload {
    fn begin(request_id: &str, digest: &str, size_bytes: u64, offset_bytes: u64) -> Result<Self, CallError> {
        required(request_id, "request_id")?;
        let digest = parsed(digest, "digest")?;
        if size_bytes == 0 {
            return Err(CallError::Missing { field: "size_bytes" });
        }
        Ok(Self { digest, size_bytes, offset_bytes, held: Held::Nothing })
    }

    async fn append(&mut self, backend: &Backend, content: Vec<u8>) -> Result<(), CallError> {
        let bytes = content.len();
        if bytes > limit::UPLOAD_PART_BYTES_MAX {
            return Err(CallError::ArtifactPart { bytes, bytes_max: limit::UPLOAD_PART_BYTES_MAX });
        }
        let (digest, size_bytes, offset_bytes) = (self.digest, self.size_bytes, self.offset_bytes);
        let append = move |store: &dyn ArtifactStore| store.append(digest, size_bytes, offset_bytes, &content);
        self.held = blocking(backend, append).await?;
        self.offset_bytes = self.offset_bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        Ok(())
    }
}

#[tonic::async_trait]
impl ArtifactService for Artifacts {
    async fn get_upload(
        &self,
        request: Request<artifact::GetUploadRequest>,
    ) -> Result<Response<artifact::GetUploadResponse>, Status> {
        let digest: ArtifactDigest = parsed(&request.get_ref().digest, "digest")?;
        let (received_bytes, complete) = extent(blocking(&self.backend, move |store| store.held(digest)).await?);
        Ok(Response::new(artifact::GetUploadResponse { received_bytes, complete }))
    }

    async fn upload_artifact(
        &self,
        request: Request<Streaming<artifact::UploadArtifactRequest>>,
    ) -> Result<Response<artifact::UploadArtifactResponse>, Status> {
        let caller = caller(&request)?;
        let mut parts = request.into_inner();
        let first = parts.message().await?.ok_or(CallError::Missing { field: "digest" })?;
        let mut upload = Upload::begin(&first.request_id, &first.digest, first.size_bytes, first.offset_bytes)?;
        let intent = self.intend(&caller, &first.request_id, &first).await?;
        let mut content = first.content;
        let taken = async {
            loop {
                upload.append(&self.backend, std::mem::take(&mut content)).await?;
                match parts.message().await? {
                    Some(part) => content = part.content,
                    None => return Ok(upload.held),
                }
            }
        };
        let taken = taken.await;
        let (received_bytes, complete) = extent(self.conclude(intent, taken).await?);
        Ok(Response::new(artifact::UploadArtifactResponse { received_bytes, complete }))
    }

    async fn upload_artifact_chunk(
        &self,
        request: Request<artifact::UploadArtifactChunkRequest>,
    ) -> Result<Response<artifact::UploadArtifactChunkResponse>, Status> {
        let caller = caller(&request)?;
        let part = request.into_inner();
        let mut upload = Upload::begin(&part.request_id, &part.digest, part.size_bytes, part.offset_bytes)?;
        let key = (caller.id, upload.digest);
        let intent = match self.backend.uploads.take(&key) {
            Some(intent) => intent,
            None => self.intend(&caller, &part.request_id, &part).await?,
        };
        let taken = upload.append(&self.backend, part.content).await;
        let (received_bytes, complete) = extent(upload.held);
        if taken.is_ok() && !complete {
            // The next part goes on with it.
            self.backend.uploads.put(key, intent);
        } else {
            self.conclude(intent, taken.map_err(Status::from)).await?;
        }
        Ok(Response::new(artifact::UploadArtifactChunkResponse { received_bytes, complete }))
    }

    type DownloadArtifactStream = Messages<artifact::DownloadArtifactResponse>;

    async fn download_artifact(
        &self,
        request: Request<artifact::DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        let asked = request.into_inner();
        let digest: ArtifactDigest = parsed(&asked.digest, "digest")?;
        let Held::Whole { size_bytes } = blocking(&self.backend, move |store| store.held(digest)).await? else {
            return Err(CallError::Artifact(ArtifactError::Absent { digest }).into());
        };
        if asked.offset_bytes > size_bytes {
            let error = ArtifactError::Range { digest, offset_bytes: asked.offset_bytes };
            return Err(CallError::Artifact(error).into());
        }
        let backend = Arc::clone(&self.backend);
        Ok(Response::new(stream(|outlet| give(backend, digest, (asked.offset_bytes, size_bytes), outlet))))
    }
}

/// Gives an artifact from an offset on.
async fn give(
    backend: Arc<Backend>,
    digest: ArtifactDigest,
    (mut offset_bytes, size_bytes): (u64, u64),
    outlet: Outlet<artifact::DownloadArtifactResponse>,
) -> Result<(), StreamEnd> {
    let mut announced = size_bytes;
    loop {
        let content = blocking(&backend, move |store| store.read(digest, offset_bytes, PART_BYTES)).await?;
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let is_first = announced > 0 || size_bytes == 0;
        if length == 0 && !is_first {
            return Ok(());
        }
        outlet.send(artifact::DownloadArtifactResponse { size_bytes: std::mem::take(&mut announced), content }).await?;
        offset_bytes = offset_bytes.saturating_add(length);
        if offset_bytes >= size_bytes {
            return Ok(());
        }
    }
}
