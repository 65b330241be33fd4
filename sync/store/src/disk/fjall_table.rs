//! The table on fjall, with the traps of fjall 3.1 that were found walked around here and nowhere else.
//!
//! Only the writer thread commits: more writers outrun flushing and memory grows without limit. It pauses while
//! too much is gathered. A failed commit poisons the database; where space was the reason it is opened again.

use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use fjall::{Database, Keyspace, PersistMode, Readable};

use super::profile::Profile;
use crate::table::{Table, Visit, Write};
use crate::unpoison::Unpoison;

/// The one keyspace: several would each hold memory, and a rarely written one would hold back old journals.
const KEYSPACE: &str = "records";
/// fjall's own marker: a folder without it is taken for an empty database and would be begun anew.
const FJALL_MARKER: &str = "version";
/// How long the writer waits before it looks again whether enough was flushed.
const FLUSH_POLL: Duration = Duration::from_millis(1);
/// Looks at most: a flush that takes longer than this has stopped, and the commit will say why.
const FLUSH_POLLS_MAX: u32 = 10_000;

/// An open database.
struct Opened {
    // Fields drop in this order: the keyspace before its database.
    records: Keyspace,
    database: Database,
}

/// Why the database takes no commits.
#[derive(Clone, Debug)]
enum Failure {
    /// It may work again once it is opened again.
    Reopen(String),
    /// A write or a sync failed, so that what the operating system remembers may not be what lies on the medium:
    /// only a new process may go on.
    Final(String),
}

/// The table on fjall.
pub(super) struct FjallTable {
    path: PathBuf,
    profile: Profile,
    opened: RwLock<Option<Opened>>,
    failure: Mutex<Option<Failure>>,
    /// No commit has succeeded since space ran out.
    is_full: AtomicBool,
}

impl std::fmt::Debug for FjallTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FjallTable({})", self.path.display())
    }
}

impl FjallTable {
    /// Makes an empty database.
    pub(super) fn create(path: &Path, profile: Profile) -> Result<Self, fjall::Error> {
        Ok(Self::new(path, profile, open(path, profile)?))
    }

    /// Opens a database that was made before.
    pub(super) fn open(path: &Path, profile: Profile) -> Result<Self, fjall::Error> {
        Ok(Self::new(path, profile, open_existing(path, profile)?))
    }

    fn new(path: &Path, profile: Profile, opened: Opened) -> Self {
        Self {
            path: path.to_owned(),
            profile,
            opened: RwLock::new(Some(opened)),
            failure: Mutex::default(),
            is_full: AtomicBool::new(false),
        }
    }

    fn with<A>(&self, work: impl FnOnce(&Opened) -> io::Result<A>) -> io::Result<A> {
        match &*self.opened.read().unpoison() {
            Some(opened) => work(opened),
            None => Err(io::Error::other("the database is closed after a failure")),
        }
    }

    /// Opens the database again after a failure. The commit that meets this fails in any case: its revisions were
    /// drawn before it was known what the database had kept.
    fn reopen(&self) {
        let mut opened = self.opened.write().unpoison();
        *opened = None;
        let result = open_existing(&self.path, self.profile);
        let mut failure = self.failure.lock().unpoison();
        match result {
            Ok(again) => {
                *opened = Some(again);
                *failure = None;
            }
            Err(error) => *failure = Some(Failure::Reopen(io_error(error).to_string())),
        }
    }

    fn write(&self, writes: Vec<Write>) -> io::Result<()> {
        self.with(|opened| {
            self.wait_for_flush(&opened.database);
            let mut batch = opened.database.batch().durability(Some(PersistMode::SyncAll));
            for (key, value) in writes {
                match value {
                    Some(value) => batch.insert(&opened.records, key, value),
                    None => batch.remove(&opened.records, key),
                }
            }
            batch.commit().map_err(io_error)
        })
    }

    fn wait_for_flush(&self, database: &Database) {
        for _ in 0..FLUSH_POLLS_MAX {
            if database.write_buffer_size() <= self.profile.write_buffer_bytes_max() {
                return;
            }
            std::thread::sleep(FLUSH_POLL);
        }
        tracing::warn!(path = %self.path.display(), "the database is not flushing");
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Says whether a background thread failed to flush and poisoned the database: the journal still has everything.
fn is_poisoned(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref::<fjall::Error>());
    source.is_some_and(|source| matches!(source, fjall::Error::Poisoned))
}

fn open(path: &Path, profile: Profile) -> Result<Opened, fjall::Error> {
    let database = Database::builder(path)
        .cache_size(profile.cache_bytes())
        .worker_threads(profile.workers())
        .max_cached_files(Some(profile.open_files()))
        .max_journaling_size(profile.journal_bytes())
        .open()?;
    let records = database.keyspace(KEYSPACE, || profile.keyspace())?;
    Ok(Opened { records, database })
}

fn open_existing(path: &Path, profile: Profile) -> Result<Opened, fjall::Error> {
    if !path.join(FJALL_MARKER).try_exists()? {
        return Err(fjall::Error::Unrecoverable);
    }
    // Opening a damaged database can panic inside fjall, which then holds nothing that outlives the unwinding.
    let opened = catch_unwind(AssertUnwindSafe(|| open(path, profile)));
    opened.unwrap_or(Err(fjall::Error::Unrecoverable))
}

/// The operating system's error, or damage by what kind of error it is.
pub(super) fn io_error(error: fjall::Error) -> io::Error {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => error,
        fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => io::Error::other(error),
        fjall::Error::Locked => io::Error::new(io::ErrorKind::WouldBlock, error),
        damage => io::Error::new(io::ErrorKind::InvalidData, damage),
    }
}

impl Table for FjallTable {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        // A snapshot, since a plain read sees the half of a batch that is being applied.
        self.with(|opened| {
            let value = opened.database.snapshot().get(&opened.records, key).map_err(io_error)?;
            Ok(value.map(|value| value.to_vec()))
        })
    }

    fn range(&self, from: Bound<&[u8]>, to: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        let is_crossed = match from {
            Bound::Included(from) | Bound::Excluded(from) => from >= to,
            Bound::Unbounded => false,
        };
        if is_crossed {
            return Ok(());
        }
        self.with(|opened| {
            let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (from, Bound::Excluded(to));
            for found in opened.database.snapshot().range::<&[u8], _>(&opened.records, bounds) {
                let (key, value) = found.into_inner().map_err(io_error)?;
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, writes: Vec<Write>) -> io::Result<()> {
        let failure = self.failure.lock().unpoison().clone();
        match failure {
            Some(Failure::Final(cause)) => return Err(io::Error::other(cause)),
            Some(Failure::Reopen(cause)) => {
                self.reopen();
                let is_full = self.is_full.load(Ordering::Relaxed);
                return Err(if is_full { io::ErrorKind::StorageFull.into() } else { io::Error::other(cause) });
            }
            None => {}
        }
        let Err(error) = self.write(writes) else {
            self.is_full.store(false, Ordering::Relaxed);
            return Ok(());
        };
        let (is_full, is_poisoned) = (is_full(&error), is_poisoned(&error));
        // While space is out, flushing fails for the same reason, and poison tells less than the reason does.
        let was_full = self.is_full.fetch_or(is_full, Ordering::Relaxed);
        let error = if is_poisoned && was_full { io::Error::from(io::ErrorKind::StorageFull) } else { error };
        let cause = error.to_string();
        if is_full || is_poisoned {
            *self.failure.lock().unpoison() = Some(Failure::Reopen(cause));
            self.reopen();
        } else {
            *self.failure.lock().unpoison() = Some(Failure::Final(cause));
        }
        Err(error)
    }

    fn failure(&self) -> Option<String> {
        self.failure.lock().unpoison().as_ref().map(|failure| match failure {
            Failure::Reopen(cause) | Failure::Final(cause) => cause.clone(),
        })
    }
}
