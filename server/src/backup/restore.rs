//! Making a server of a backup again.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use fleetd_actors::audit::{Audit, Call, Input, action};
use fleetd_sync_core::audit::Outcome;
use fleetd_sync_core::commit::{ActorKey, Batch};
use fleetd_sync_core::id::{ArtifactDigest, FleetId};
use fleetd_sync_core::machine::{Machine as _, Turn};
use fleetd_sync_core::time::{Clock as _, Wall};
use fleetd_sync_store::copy::{Piece, RestoreError};
use fleetd_sync_store::disk::{self, DiskStore, Profile};
use fleetd_sync_store::open_error::OpenStoreError;
use fleetd_sync_store::state_store::commit_and_wait;
use fleetd_sync_transport::clock::{SystemClock, system_entropy};
use serde::de::DeserializeOwned;
use tar::{Archive, Entries, Entry};

use super::{ARTIFACTS, Contents, END, FORMAT, HEAD, Head, PART_BYTES, STORE, STORE_END};
use crate::artifact_store::disk::DiskArtifactStore;
use crate::artifact_store::{ArtifactError, ArtifactStore as _, Held};
use crate::history::History;
use crate::keys::{Keys, OpenKeysError};
use crate::record;
use crate::record::backup::decode_piece;

/// Bytes of one part of a store: pieces are at most a few MiB each, and a part ends with the one that fills it.
const PART_BYTES_MAX: u64 = 64 * PART_BYTES as u64;
/// Bytes of a part that is a text.
const TEXT_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an artifact that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// Why no server was made of a backup. What the data directory had is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreBackupError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is no backup, or a part of one.
    #[error("{} is no whole backup: {problem}", path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A newer program wrote it.
    #[error("the backup has format {format}, and this program reads up to {FORMAT}")]
    Newer {
        /// Its format.
        format: u32,
    },
    /// The data directory has no keys.
    #[error("there are no keys in {}", keys.display())]
    NoKeys {
        /// Where they should be.
        keys: PathBuf,
    },
    /// The keys cannot be opened.
    #[error("the server's keys cannot be opened")]
    Keys(#[from] OpenKeysError),
    /// The keys are of another fleet.
    #[error("the backup is of fleet {backup}, and the keys are of {keys}")]
    OtherFleet {
        /// The backup's fleet.
        backup: String,
        /// The keys' fleet.
        keys: FleetId,
    },
    /// There is a store already.
    #[error("there is a store in {} already", store.display())]
    Exists {
        /// Where.
        store: PathBuf,
    },
    /// The data directory cannot be written.
    #[error("{} cannot be written", path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An artifact cannot be kept.
    #[error("an artifact cannot be kept")]
    Artifact(#[from] ArtifactError),
    /// The restored audit log cannot be gone on with.
    #[error("the restore cannot be noted in the audit log: {cause}")]
    Audit {
        /// Why.
        cause: String,
    },
    /// What was made cannot be opened.
    #[error("the store that was made cannot be opened")]
    Store(#[from] OpenStoreError),
}

/// Makes the store and the artifacts of the server in `data` of a backup. Its keys must lie there already, and no store.
/// All of it is made aside and comes into its place when it is whole.
///
/// # Errors
/// As [`RestoreBackupError`] says.
pub fn restore(path: &Path, data: &Path) -> Result<(Head, Contents), RestoreBackupError> {
    let store = data.join("store");
    if store.exists() {
        return Err(RestoreBackupError::Exists { store });
    }
    let keys =
        Keys::fleet_in(&data.join("keys"))?.ok_or_else(|| RestoreBackupError::NoKeys { keys: data.join("keys") })?;
    let file = File::open(path).map_err(|source| RestoreBackupError::File { path: path.to_owned(), source })?;
    let aside = data.join("restoring");
    let disk = |source| RestoreBackupError::Disk { path: aside.clone(), source };
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(disk)?;
    }
    fs::create_dir(&aside).map_err(disk)?;
    let made = make(path, file, keys, &aside);
    let placed = made.and_then(|made| {
        let artifacts = data.join("artifacts");
        merge(&aside.join("artifacts"), &artifacts).map_err(disk)?;
        fs::rename(aside.join("store"), &store).map_err(disk)?;
        File::open(data).and_then(|data| data.sync_all()).map_err(disk)?;
        Ok(made)
    });
    let cleared = fs::remove_dir_all(&aside).map_err(disk);
    placed.and_then(|made| cleared.map(|()| made))
}

/// Makes store and artifacts in `aside`.
fn make(path: &Path, file: File, keys: FleetId, aside: &Path) -> Result<(Head, Contents), RestoreBackupError> {
    let no_backup = |problem: String| RestoreBackupError::NoBackup { path: path.to_owned(), problem };
    let damaged = |error: io::Error| no_backup(error.to_string());
    let decoder = zstd::Decoder::new(BufReader::new(file)).map_err(damaged)?;
    let mut archive = Archive::new(decoder);
    // Raw: the names of others that tar knows, and files with holes, are of any length and read whole.
    let mut parts = Parts { entries: archive.entries().map_err(damaged)?.raw(true), page: Vec::new(), at: 0 };

    let head: Head = parts.text(HEAD).map_err(damaged)?;
    if head.format > FORMAT {
        return Err(RestoreBackupError::Newer { format: head.format });
    }
    if head.fleet_id != keys.to_string() {
        return Err(RestoreBackupError::OtherFleet { backup: head.fleet_id, keys });
    }
    let mut contents = Contents::default();
    disk::restore(&aside.join("store"), Profile::Server, &mut || {
        let piece = parts.next_piece()?;
        match &piece {
            Some(Piece::Record { .. }) => contents.records += 1,
            Some(Piece::Entry { .. }) => contents.log_entries += 1,
            None => {}
        }
        Ok(piece)
    })
    .map_err(|error| match error {
        RestoreError::Io(error) => damaged(error),
        RestoreError::Damaged(_) | RestoreError::Cut | RestoreError::LogName { .. } => no_backup(error.to_string()),
    })?;
    let end = parts.artifacts(&aside.join("artifacts"), &mut contents, &damaged)?;
    drop(parts);
    // The checksum of all lies behind the last part.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(damaged)?;
    if end != contents {
        return Err(no_backup(format!("it should have {end:?}, and has {contents:?}")));
    }
    // It reads every record once more, from where it lies now.
    let store = DiskStore::open(&aside.join("store"), Profile::Server)?;
    note_restore(&store, keys, &head)?;
    Ok((head, contents))
}

/// Notes in the audit log of the restored store that what comes after this is not what came after it before.
fn note_restore(store: &DiskStore, fleet: FleetId, head: &Head) -> Result<(), RestoreBackupError> {
    let unnoted = |error: &dyn std::fmt::Display| RestoreBackupError::Audit { cause: error.to_string() };
    let now = SystemClock::default().now();
    let (standing, open) = record::audit::load(store, fleet).map_err(|error| unnoted(&error))?;
    let written_at = record::timestamp(Wall(head.written_at_ms));
    let request = format!("a backup that fleetd {} wrote at {written_at}", head.version);
    let call = Call::own(action::RESTORE, None, request);
    let mut turn = Turn::new();
    Audit::load(&standing, open).handle(now, Input::Note { operation: None, call, outcome: Outcome::Done }, &mut turn);
    let mut mutations = Vec::new();
    turn.into_parts().0.into_iter().for_each(|record| record::audit::put(record, &mut mutations));
    let mut entropy = system_entropy().map_err(|error| unnoted(&error))?;
    mutations.push(History::draw(&mut entropy).put());
    commit_and_wait(store, Batch { actor: ActorKey::only("audit"), mutations }).map_err(|error| unnoted(&error))
}

/// Moves artifacts to where they belong; those that are there already have the same bytes.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    File::open(to)?.sync_all()
}

/// The parts of a backup, one after the other.
struct Parts<'a, R: Read> {
    entries: Entries<'a, R>,
    /// The part of the store that is being read, and how far it was.
    page: Vec<u8>,
    at: usize,
}

impl<'a, R: Read> Parts<'a, R> {
    /// The next part, where one is expected that has this name or comes before it.
    fn next(&mut self, expected: &str) -> io::Result<Entry<'a, R>> {
        let entry = self.entries.next().ok_or_else(|| missing(expected))??;
        if !entry.header().entry_type().is_file() {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is no plain file")));
        }
        Ok(entry)
    }

    /// Reads the next part, which must be this text.
    fn text<T: DeserializeOwned>(&mut self, name: &str) -> io::Result<T> {
        let entry = self.next(name)?;
        if entry.path_bytes().as_ref() != name.as_bytes() {
            return Err(missing(name));
        }
        let mut bytes = Vec::new();
        entry.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        while self.at >= self.page.len() {
            let mut entry = self.next(STORE_END)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if name == STORE_END {
                return Ok(None);
            }
            if !name.starts_with(STORE) || entry.size() > PART_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} has no place in a store")));
            }
            (self.page, self.at) = (Vec::new(), 0);
            entry.read_to_end(&mut self.page)?;
        }
        let mut rest = self.page.get(self.at..).unwrap_or_default();
        let before = rest.len();
        let piece = decode_piece(&mut rest).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.at += before - rest.len();
        Ok(Some(piece))
    }

    /// Keeps the artifacts, and reads what the backup says at its end.
    fn artifacts(
        &mut self,
        directory: &Path,
        contents: &mut Contents,
        damaged: &impl Fn(io::Error) -> RestoreBackupError,
    ) -> Result<Contents, RestoreBackupError> {
        let store = DiskArtifactStore::open(directory)?;
        loop {
            let mut entry = self.next(END).map_err(damaged)?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if name == END {
                let mut bytes = Vec::new();
                entry.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).map_err(damaged)?;
                return serde_json::from_slice(&bytes).map_err(|error| damaged(error.into()));
            }
            let digest = name.strip_prefix(ARTIFACTS).and_then(|name| name.parse::<ArtifactDigest>().ok());
            let digest = digest.ok_or_else(|| damaged(missing(END)))?;
            if store.held(digest)? != Held::Nothing {
                let twice = io::Error::new(io::ErrorKind::InvalidData, format!("{name} is there twice"));
                return Err(damaged(twice));
            }
            let size_bytes = entry.size();
            let (mut offset_bytes, mut page) = (0, vec![0; WRITE_BYTES]);
            loop {
                let read = entry.read(&mut page).map_err(damaged)?;
                let held = store.append(digest, size_bytes, offset_bytes, page.get(..read).unwrap_or_default())?;
                offset_bytes += u64::try_from(read).unwrap_or(u64::MAX);
                if matches!(held, Held::Whole { .. }) {
                    break;
                }
                // An empty artifact is whole with its first, empty part; any other goes on until its bytes end.
                if read == 0 {
                    return Err(damaged(missing(&name)));
                }
            }
            contents.artifacts += 1;
            contents.artifact_bytes += size_bytes;
        }
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} is missing"))
}
