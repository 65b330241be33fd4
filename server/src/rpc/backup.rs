//! `BackupService`: copies a server while it serves.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use fleetd_proto::fleetd::backup::v1 as backup;
use fleetd_proto::fleetd::backup::v1::backup_service_server::BackupService;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::backend::Backend;
use super::call_error::CallError;
use super::follower::{Messages, StreamEnd, stream};
use crate::backup::{Sources, taken, write};

/// Bytes of one message.
const PART_BYTES: usize = 256 << 10;
/// Messages that wait for a slow caller before the copying waits too.
const PARTS: usize = 4;
/// Time in which a caller must take a message. The copying holds the store's table open, which the store has to close
/// before it can recover from a full disk: a caller that has fallen asleep must not stand in its way.
const STALLED_AFTER: Duration = Duration::from_secs(30);

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
            let (copied, at) = (Arc::clone(&backend), backend.now());
            let writing = tokio::task::spawn_blocking(move || copy(&copied, sender));
            while let Some(content) = parts.recv().await {
                let sent = tokio::time::timeout(STALLED_AFTER, outlet.send(backup::ReadBackupResponse { content }));
                // Whoever sleeps is taken for gone; the file has no end then, and is no backup.
                sent.await.map_err(|_| StreamEnd::Gone)??;
            }
            let written = writing.await.map_err(|error| CallError::Internal { cause: error.to_string() })?;
            written.map_err(StreamEnd::from)?;
            // The caller has all of it: where the note is lost, the doctor only asks for another backup.
            if let Err(error) = backend.commit(vec![taken(at)]).await {
                tracing::warn!(?error, "that a backup was taken is not noted");
            }
            Ok(())
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
