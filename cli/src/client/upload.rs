//! Sending an artifact: from where the server has it, and again from there when the connection is lost.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetd_proto::fleetd::artifact::v1::{GetUploadRequest, UploadArtifactRequest, UploadArtifactResponse};
use fleetd_sync_core::artifact::GroupTreeBuilder;
use fleetd_sync_core::id::ArtifactDigest;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

use super::{CallError, FleetClient, request_id};
use crate::error::CommandError;
use crate::output::Output;

/// Bytes of one message: the API takes at most 1 MiB, and small ones show progress on slow lines.
const CHUNK_BYTES: usize = 256 << 10;
/// Lost connections in a row, without a byte more arriving, after which an upload is given up.
const FAILURES_MAX: u32 = 5;
/// Wait before an upload goes on.
const BACKOFF: Duration = Duration::from_secs(1);
/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Why an artifact cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is another than it was when its digest was taken.
    #[error("{} changed while it was sent: it had {expected}, {size_bytes} bytes", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// The digest that it had.
        expected: ArtifactDigest,
        /// The size that it had.
        size_bytes: u64,
    },
    /// The server does not take it.
    #[error("{} was not sent", path.display())]
    Call {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CallError,
    },
}

impl From<UploadError> for CommandError {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::Read { source, .. } => Self::new("artifact.unreadable", message).caused_by(&source),
            UploadError::Changed { .. } => {
                Self::new("artifact.changed", message).next_command("repeat the push when the build is done")
            }
            UploadError::Call { source, .. } => source.into(),
        }
    }
}

/// A file's digest and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The digest.
    pub digest: ArtifactDigest,
    /// The size.
    pub size_bytes: u64,
}

/// Takes a file's digest, without holding it in memory.
///
/// # Errors
/// When the file cannot be read.
pub fn measure(path: &Path) -> io::Result<Measured> {
    let mut file = std::fs::File::open(path)?;
    let mut builder = GroupTreeBuilder::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = io::Read::read(&mut file, &mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        builder.update(bytes);
    }
    let tree = builder.finish();
    Ok(Measured { digest: tree.digest(), size_bytes: tree.size_bytes() })
}

/// Sends the file at `path`, which has been measured. What the server has of it already is not sent again.
///
/// # Errors
/// [`UploadError`] when the file cannot be read or the server does not take it.
pub async fn upload(client: &FleetClient, path: &Path, measured: Measured, output: &Output) -> Result<(), UploadError> {
    let call = |source: CallError| UploadError::Call { path: path.to_owned(), source };
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let mut progress = output.progress(&name, measured.size_bytes);
    let (mut failures, mut reached) = (0, 0);
    loop {
        let request = GetUploadRequest { digest: measured.digest.to_string() };
        let attempt = match client.get_upload(request).await {
            Ok(there) if there.complete => break,
            Ok(there) => {
                if there.received_bytes > reached {
                    (failures, reached) = (0, there.received_bytes);
                }
                progress.set(there.received_bytes);
                let sent = Arc::new(AtomicU64::new(there.received_bytes));
                let sending = send(client, path, measured, there.received_bytes, sent.clone());
                let mut sending = std::pin::pin!(sending);
                loop {
                    tokio::select! {
                        biased;
                        result = &mut sending => break result,
                        () = tokio::time::sleep(PROGRESS_INTERVAL) => progress.set(sent.load(Ordering::Relaxed)),
                    }
                }
            }
            Err(error) => Err(call(error)),
        };
        match attempt {
            Ok(answer) if answer.complete => break,
            Ok(_) => {
                return Err(UploadError::Changed {
                    path: path.to_owned(),
                    expected: measured.digest,
                    size_bytes: measured.size_bytes,
                });
            }
            Err(UploadError::Call { source, .. }) if source.is_lost_connection() && failures < FAILURES_MAX => {
                failures += 1;
                output.note(&format!("{name}: the connection was lost; going on"));
                tokio::time::sleep(BACKOFF).await;
            }
            Err(error) => return Err(error),
        }
    }
    progress.set(measured.size_bytes);
    progress.finish();
    Ok(())
}

async fn send(
    client: &FleetClient,
    path: &Path,
    measured: Measured,
    offset: u64,
    sent: Arc<AtomicU64>,
) -> Result<UploadArtifactResponse, UploadError> {
    let (sender, receiver) = mpsc::channel(2);
    let reading = read_chunks(path, measured, offset, sent, sender);
    let mut artifacts = client.artifacts();
    let calling = artifacts.upload_artifact(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let (read, called) = tokio::join!(reading, calling);
    // A file that cannot be read also ends the call, and is the reason worth telling.
    read.map_err(|source| UploadError::Read { path: path.to_owned(), source })?;
    match called {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(UploadError::Call { path: path.to_owned(), source: status.into() }),
    }
}

async fn read_chunks(
    path: &Path,
    measured: Measured,
    offset: u64,
    sent: Arc<AtomicU64>,
    sender: mpsc::Sender<UploadArtifactRequest>,
) -> io::Result<()> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(io::SeekFrom::Start(offset)).await?;
    let mut first = true;
    loop {
        let mut content = vec![0; CHUNK_BYTES];
        let count = file.read(&mut content).await?;
        content.truncate(count);
        let mut message = UploadArtifactRequest { content, ..UploadArtifactRequest::default() };
        if first {
            message.request_id = request_id();
            message.digest = measured.digest.to_string();
            message.size_bytes = measured.size_bytes;
            message.offset_bytes = offset;
        } else if count == 0 {
            return Ok(());
        }
        first = false;
        // The receiver is gone when the call has ended, and then its answer says why.
        if sender.send(message).await.is_err() {
            return Ok(());
        }
        sent.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
