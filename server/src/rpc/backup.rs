//! `BackupService`: copies a server while it serves.

use std::io::{self, Write};
use std::sync::Arc;

use fleetd_proto::fleetd::backup::v1 as backup;
use fleetd_proto::fleetd::backup::v1::backup_service_server::BackupService;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::backend::Backend;
use super::call_error::CallError;
use super::follower::{Messages, StreamEnd, stream};
use crate::backup::{Sources, write};

/// Bytes of one message.
const PART_BYTES: usize = 256 << 10;
/// Messages that wait for a slow caller before the copying waits too.
const PARTS: usize = 4;

super::service!(
    /// Copies a server.
    Backups
);

#[tonic::async_trait]
impl BackupService for Backups {
    type ReadBackupStream = Messages<backup::ReadBackupResponse>;

    async fn read_backup(
        &self,
        _request: Request<backup::ReadBackupRequest>,
    ) -> Result<Response<Self::ReadBackupStream>, Status> {
        let backend = Arc::clone(&self.backend);
        Ok(Response::new(stream(|outlet| async move {
            let (sender, mut parts) = mpsc::channel(PARTS);
            let writing = tokio::task::spawn_blocking(move || copy(&backend, sender));
            while let Some(content) = parts.recv().await {
                outlet.send(backup::ReadBackupResponse { content }).await?;
            }
            let written = writing.await.map_err(|error| CallError::Internal { cause: error.to_string() })?;
            written.map_err(StreamEnd::from)
        })))
    }
}

fn copy(backend: &Backend, sender: mpsc::Sender<Vec<u8>>) -> Result<(), CallError> {
    let seams = &backend.shared().seams;
    let sources = Sources {
        fleet: backend.shared().trust().roster.fleet(),
        at: backend.now(),
        store: backend.copies.as_ref(),
        artifacts: seams.artifacts.as_ref(),
    };
    let mut out = io::BufWriter::with_capacity(PART_BYTES, Sending(sender));
    let contents = write(&mut out, sources)?;
    tracing::info!(?contents, "a backup was written");
    Ok(())
}

/// Sends what is written, a message at a time.
struct Sending(mpsc::Sender<Vec<u8>>);

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = bytes.get(..bytes.len().min(PART_BYTES)).unwrap_or_default();
        self.0.blocking_send(part.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
