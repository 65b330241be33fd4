//! Writing a backup.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use fleetd_sync_core::id::{ArtifactDigest, FleetId};
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::copy::{CopyStore, Piece};
use fleetd_sync_store::state_store::ReadError;
use tar::{Builder, Header};

use super::{ARTIFACTS, Contents, END, FORMAT, HEAD, Head, PART_BYTES, STORE, STORE_END};
use crate::artifact_store::{ArtifactError, ArtifactStore, Held};
use crate::record::backup::encode_piece;

/// How hard zstd tries: a backup is made often, and mostly of logs, which are compressed already.
const LEVEL: i32 = 3;
/// Bytes of an artifact that are read at once.
const READ_BYTES: usize = 256 << 10;

/// What a backup is made of.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The fleet.
    pub fleet: FleetId,
    /// When it is written.
    pub at: Wall,
    /// Records and logs.
    pub store: &'a dyn CopyStore,
    /// Artifacts.
    pub artifacts: &'a dyn ArtifactStore,
}

/// Why a backup was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteBackupError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] ReadError),
    /// An artifact cannot be read.
    #[error("an artifact cannot be read")]
    Artifact(#[from] ArtifactError),
    /// Whoever takes the file does not.
    #[error("the backup cannot be written")]
    Write(#[from] io::Error),
}

/// Writes a backup. It blocks, and holds up nobody who uses the store meanwhile.
///
/// # Errors
/// As [`WriteBackupError`] says; what was written until then has no end, and `restore` refuses it.
pub fn write(out: impl Write, sources: Sources<'_>) -> Result<Contents, WriteBackupError> {
    let mut encoder = zstd::Encoder::new(out, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut archive = Builder::new(encoder);
    let head = Head {
        format: FORMAT,
        fleet_id: sources.fleet.to_string(),
        written_at_ms: sources.at.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    append(&mut archive, HEAD, &serde_json::to_vec_pretty(&head).map_err(io::Error::from)?)?;
    let mut contents = write_store(&mut archive, sources.store)?;
    append(&mut archive, STORE_END, &[])?;
    // After the store: an artifact that a copied record names was there before the record.
    for digest in sources.artifacts.list()? {
        let Held::Whole { size_bytes } = sources.artifacts.held(digest)? else { continue };
        let reader = Reading { store: sources.artifacts, digest, offset_bytes: 0, page: io::Cursor::default() };
        let mut header = Header::new_gnu();
        header.set_size(size_bytes);
        header.set_mode(0o600);
        archive.append_data(&mut header, format!("{ARTIFACTS}{digest}"), reader)?;
        contents.artifacts += 1;
        contents.artifact_bytes += size_bytes;
    }
    append(&mut archive, END, &serde_json::to_vec_pretty(&contents).map_err(io::Error::from)?)?;
    archive.into_inner()?.finish()?.flush()?;
    Ok(contents)
}

fn append(archive: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    header.set_mode(0o600);
    archive.append_data(&mut header, name, bytes)
}

fn write_store(archive: &mut Builder<impl Write>, store: &dyn CopyStore) -> Result<Contents, WriteBackupError> {
    let (mut contents, mut part, mut number, mut written) = (Contents::default(), Vec::new(), 0_u64, Ok(()));
    let mut end_part = |part: &mut Vec<u8>| {
        number += 1;
        let appended = append(archive, &format!("{STORE}{number:08}"), part);
        part.clear();
        appended
    };
    store.copy(&mut |piece| {
        match &piece {
            Piece::Record { .. } => contents.records += 1,
            Piece::Entry { .. } => contents.log_entries += 1,
        }
        encode_piece(piece, &mut part);
        if part.len() >= PART_BYTES {
            written = end_part(&mut part);
        }
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    if !part.is_empty() {
        end_part(&mut part)?;
    }
    Ok(contents)
}

/// One artifact, as something to read.
struct Reading<'a> {
    store: &'a dyn ArtifactStore,
    digest: ArtifactDigest,
    offset_bytes: u64,
    page: io::Cursor<Vec<u8>>,
}

impl Read for Reading<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.page.read(into)?;
        if read > 0 || into.is_empty() {
            return Ok(read);
        }
        let page = self.store.read(self.digest, self.offset_bytes, READ_BYTES).map_err(io::Error::other)?;
        self.offset_bytes += u64::try_from(page.len()).unwrap_or(u64::MAX);
        self.page = io::Cursor::new(page);
        self.page.read(into)
    }
}
