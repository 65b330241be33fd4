//! The store on disk: fjall for records, segment files for logs, one thread that commits.
//!
//! A store is a folder: `FORMAT`, `records/` (fjall), `logs/NAME/` (segments), `CLOSED` (the newest commit at the
//! last orderly close). One process at a time has it open.

mod fjall_table;
mod layout;
mod profile;
mod writer;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use fleetd_sync_core::commit::{ActorKey, Batch, Commit, Completion, Revision, Space};

use self::fjall_table::FjallTable;
pub use self::profile::Profile;
use self::writer::WriteQueue;
use crate::copy::{self, CopyStore, NextPiece, RestoreError, TakePiece};
use crate::engine::Engine;
use crate::feed::Subscription;
use crate::open_error::{OpenStoreError, open_error};
use crate::segment_log::files::OsFiles;
use crate::state_store::{Cursor, Feed, FeedError, Found, KeyRange, LogPart, ReadError, StateStore, Versioned, Wake};

/// A store on disk. Dropping it commits what is queued, answers it, and closes the store.
#[derive(Debug)]
pub struct DiskStore {
    path: PathBuf,
    engine: Arc<Engine<FjallTable, OsFiles>>,
    queue: Arc<WriteQueue>,
    writer: Option<JoinHandle<()>>,
}

impl DiskStore {
    /// Opens the store in `path`, and makes it where there is none. Every value is read once and must be what was
    /// written.
    ///
    /// # Errors
    /// [`OpenStoreError`]: another process has it, a newer program wrote it, this user may not, it is damaged (then
    /// [`quarantine`] it and open again), or the operating system failed.
    pub fn open(path: &Path, profile: Profile) -> Result<Self, OpenStoreError> {
        layout::create_if_missing(path, profile)?;
        layout::check_format(path)?;
        let table = FjallTable::open(&layout::records_path(path), profile)
            .map_err(|error| open_error(path, fjall_table::io_error(error)))?;
        let closed_at = layout::closed_at(path).map_err(|error| open_error(path, error))?;
        let opening = getrandom::u64().map_err(|error| open_error(path, io::Error::other(error)))?;
        let files = OsFiles::new(layout::logs_path(path));
        let engine = catch_unwind(AssertUnwindSafe(|| {
            let engine = Engine::open(table, files, opening, profile.feed_changes())?;
            engine.verify()?;
            Ok(engine)
        }));
        let engine = engine.unwrap_or_else(|_| {
            Err(ReadError::Damaged { place: "the database".to_owned(), problem: "reading it failed an assertion" })
        });
        let engine = engine.map_err(|error| read_error(path, error))?;
        check_nothing_lost(path, engine.stored_revision(), closed_at)?;
        Self::start(path, profile, Arc::new(engine))
    }

    fn start(path: &Path, profile: Profile, engine: Arc<Engine<FjallTable, OsFiles>>) -> Result<Self, OpenStoreError> {
        let queue = Arc::<WriteQueue>::default();
        let run = {
            let (queue, engine) = (Arc::clone(&queue), Arc::clone(&engine));
            move || writer::run(&queue, &engine, profile.group_bytes())
        };
        let writer = thread::Builder::new().name("store-writer".to_owned()).spawn(run);
        let writer = writer.map_err(|error| open_error(path, error))?;
        Ok(Self { path: path.to_owned(), engine, queue, writer: Some(writer) })
    }
}

fn read_error(path: &Path, error: ReadError) -> OpenStoreError {
    let path = path.to_owned();
    match error {
        ReadError::Damaged { .. } => OpenStoreError::Damaged { path, cause: error.to_string() },
        ReadError::Failed { cause } => OpenStoreError::Io { path, source: io::Error::other(cause) },
    }
}

/// A store is made with revision 0 written, so a database without one has lost it.
fn check_nothing_lost(
    path: &Path,
    stored: Result<Option<Revision>, ReadError>,
    closed_at: Revision,
) -> Result<(), OpenStoreError> {
    let damaged = |cause: String| OpenStoreError::Damaged { path: path.to_owned(), cause };
    match stored.map_err(|error| read_error(path, error))? {
        None => Err(damaged("it has lost its revision".to_owned())),
        Some(stored) if stored < closed_at => {
            Err(damaged(format!("it was closed at commit {}, and only {} are left", closed_at.0, stored.0)))
        }
        Some(_) => Ok(()),
    }
}

/// Puts a damaged store aside, as `NAME.quarantined-N`, and returns where it is now. Only the newest two are kept.
///
/// # Errors
/// The operating system's, when the folder cannot be renamed.
pub fn quarantine(path: &Path) -> io::Result<PathBuf> {
    layout::quarantine(path)
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        self.queue.close();
        let Some(writer) = self.writer.take() else { return };
        if writer.thread().id() == thread::current().id() {
            // The last handle was held by a completion: the writer ends by itself once that returns.
            return;
        }
        let is_orderly = writer.join().is_ok() && self.engine.failure().is_none();
        if is_orderly && let Err(error) = layout::note_close(&self.path, self.engine.revision()) {
            tracing::warn!(path = %self.path.display(), %error, "the store could not note that it was closed");
        }
    }
}

impl Commit for DiskStore {
    fn submit(&self, batch: Batch, done: Completion) {
        self.queue.submit(batch, done);
    }

    fn reloaded(&self, actor: &ActorKey) {
        self.queue.reloaded(actor);
    }
}

impl CopyStore for DiskStore {
    fn copy(&self, take: &mut TakePiece<'_>) -> Result<(), ReadError> {
        self.engine.copy(take)
    }
}

/// Makes a store in `path`, where nothing may be yet, of a copy. It is there whole, or not at all.
///
/// # Errors
/// As [`RestoreError`] says; [`io::ErrorKind::AlreadyExists`] when something is there.
pub fn restore(path: &Path, profile: Profile, next: &mut NextPiece<'_>) -> Result<(), RestoreError> {
    if !layout::is_free(path)? {
        return Err(RestoreError::Io(io::ErrorKind::AlreadyExists.into()));
    }
    layout::create_with(path, profile, |table, logs| copy::fill(table, logs, next))
}

crate::state_store::delegate_to_engine!(DiskStore);
