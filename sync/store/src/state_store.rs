//! What every store can do: commit turns, read records, follow changes, read logs.
//!
//! Servers and agents hold an `Arc<dyn StateStore>`. Reads are synchronous and see only what is durable; they run
//! on the caller's thread and are bounded by a limit that the caller names.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use fleetd_sync_core::commit::{Batch, Commit, CommitError, Revision, Space};

use crate::feed::Subscription;

/// Records that [`StateStore::visit`] reads at once.
const VISIT_PAGE_RECORDS: usize = 256;

/// A value and the number of the commit that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub value: Vec<u8>,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// A record as a scan finds it: its key, its value.
pub type Found = (Vec<u8>, Versioned);

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// What lies there is not what was written; the store should be quarantined.
    #[error("{place} is damaged: {problem}")]
    Damaged {
        /// Which record.
        place: String,
        /// How it shows.
        problem: &'static str,
    },
    /// The store or the operating system failed.
    #[error("the store cannot read: {cause}")]
    Failed {
        /// What went wrong.
        cause: String,
    },
}

/// Which keys of a space a scan visits, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub(crate) from: Bound<Vec<u8>>,
    /// Exclusive; `None` for the end of the space.
    pub(crate) to: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    #[must_use]
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: None }
    }

    /// The keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut to = prefix.to_vec();
        // The end is the prefix with its last byte raised; bytes that cannot be raised fall away.
        while let Some(last) = to.pop() {
            if let Some(raised) = last.checked_add(1) {
                to.push(raised);
                break;
            }
        }
        Self { from: Bound::Included(prefix.to_vec()), to: (!to.is_empty()).then_some(to) }
    }

    /// The keys from `from` up to and without `to`.
    #[must_use]
    pub fn between(from: &[u8], to: &[u8]) -> Self {
        Self { from: Bound::Included(from.to_vec()), to: Some(to.to_vec()) }
    }

    /// Says whether a key is in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let is_from = match &self.from {
            Bound::Unbounded => true,
            Bound::Included(from) => key >= &**from,
            Bound::Excluded(from) => key > &**from,
        };
        is_from && self.to.as_ref().is_none_or(|to| key < &**to)
    }

    /// The same range behind `key`: the page after the one that ended with it.
    #[must_use]
    pub fn after(self, key: &[u8]) -> Self {
        Self { from: Bound::Excluded(key.to_vec()), to: self.to }
    }
}

/// A place in the feed of one opening of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) opening: u64,
    pub(crate) position: u64,
}

/// What a commit changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The commit.
    pub revision: Revision,
    /// What it changed.
    pub changed: Changed,
}

/// One thing that a commit changed. The reader asks for what stands there now, which may be newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A record was written or removed.
    Record {
        /// Where.
        space: Space,
        /// Under which key.
        key: Vec<u8>,
        /// False when it was removed.
        present: bool,
    },
    /// A log has grown; entries that follow each other in a turn are told of once.
    Appended {
        /// The log's name.
        log: String,
        /// Its last entry.
        last: u64,
    },
    /// A log has forgotten entries.
    Forgotten {
        /// The log's name.
        log: String,
        /// The last entry that is gone.
        through: u64,
    },
}

/// A page of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Changes in commit order.
    pub changes: Vec<Change>,
    /// Where the next page begins.
    pub cursor: Cursor,
}

/// Why the feed has no page for a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The changes behind the cursor are no longer kept: take [`StateStore::feed_end`], then scan.
    #[error("the feed no longer reaches back to this cursor")]
    TooOld,
}

/// A part of a log, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// An entry.
    Entry {
        /// Its number.
        sequence: u64,
        /// What was appended.
        entry: Vec<u8>,
    },
    /// Entries that were durable once and were lost to damage.
    Gap {
        /// The first that is missing.
        first: u64,
        /// The last that is missing.
        last: u64,
    },
}

/// Called after each commit, on the store's own thread: it only wakes somebody.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A store of records and logs.
///
/// A batch with [`Append`](fleetd_sync_core::commit::Mutation::Append) names entries from the log's next number
/// on; a log that does not exist yet begins at any number. [`Forget`](fleetd_sync_core::commit::Mutation::Forget)
/// is exact for readers at once, and gives its space back in whole segments; `through: u64::MAX` removes the log
/// itself, so that it is no longer listed and may begin anew.
/// [`Expect`](fleetd_sync_core::commit::Mutation::Expect) looks at what stood before its batch.
pub trait StateStore: Commit {
    /// Reads one record.
    ///
    /// # Errors
    /// [`ReadError`]: the record is damaged, or the store failed.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Versioned>, ReadError>;

    /// Reads at most `limit` records of a range in key order.
    ///
    /// # Errors
    /// [`ReadError`]: a record is damaged, or the store failed.
    fn scan(&self, space: Space, range: KeyRange, limit: usize) -> Result<Vec<Found>, ReadError>;

    /// The number of the newest commit.
    fn revision(&self) -> Revision;

    /// The end of the feed: what is committed from now on lies behind it.
    fn feed_end(&self) -> Cursor;

    /// Reads at most `limit` changes behind a cursor, in commit order.
    ///
    /// # Errors
    /// [`FeedError::TooOld`]: the reader fell too far behind, or the cursor is from before the store was opened.
    fn feed(&self, after: Cursor, limit: usize) -> Result<Feed, FeedError>;

    /// Calls `wake` after each commit until the subscription is dropped.
    fn subscribe(&self, wake: Wake) -> Subscription;

    /// Reads entries of a log from `from_sequence` on, at least one and otherwise at most `bytes_max` of them.
    /// A log that does not exist has none.
    ///
    /// # Errors
    /// [`ReadError::Failed`]: the store failed. Damage is no error: it shows as [`LogPart::Gap`].
    fn read_log(&self, log: &str, from_sequence: u64, bytes_max: usize) -> Result<Vec<LogPart>, ReadError>;

    /// The first and the last entry of a log; `None` when it has none.
    ///
    /// # Errors
    /// [`ReadError`]: the log's state is damaged, or the store failed.
    fn log_range(&self, log: &str) -> Result<Option<(u64, u64)>, ReadError>;

    /// The names of at most `limit` logs that begin with `prefix` and come after `after`, in order. Empty logs
    /// are listed until they are removed.
    ///
    /// # Errors
    /// [`ReadError`]: the store failed.
    fn list_logs(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, ReadError>;

    /// Why the store takes no commits until it is opened again, if so.
    fn failure(&self) -> Option<String>;

    /// Visits the records of a range in key order, page by page, until `visit` breaks.
    ///
    /// # Errors
    /// Those of [`StateStore::scan`].
    fn visit(
        &self,
        space: Space,
        range: KeyRange,
        visit: &mut dyn FnMut(&[u8], Versioned) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut rest = range;
        loop {
            let page = self.scan(space, rest.clone(), VISIT_PAGE_RECORDS)?;
            let is_last = page.len() < VISIT_PAGE_RECORDS;
            for (key, versioned) in page {
                if visit(&key, versioned).is_break() {
                    return Ok(());
                }
                rest = rest.after(&key);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Submits a batch and waits until it is durable or has failed: for starting up and for tests, never for an actor.
/// A twin whose steps are taken by hand does not answer it.
///
/// # Errors
/// [`CommitError`], as the completion would get it.
pub fn commit_and_wait(store: &(impl Commit + ?Sized), batch: Batch) -> Result<(), CommitError> {
    let (answer, answered) = std::sync::mpsc::channel();
    store.submit(batch, Box::new(move |result| drop(answer.send(result))));
    answered.recv().unwrap_or_else(|_| Err(CommitError::Failed { cause: "the store was closed".to_owned() }))
}

/// Implements [`StateStore`] for a store that holds an `engine`.
macro_rules! delegate_to_engine {
    ($store:ty) => {
        impl StateStore for $store {
            fn get(&self, space: Space, key: &[u8]) -> Result<Option<Versioned>, ReadError> {
                self.engine.get(space, key)
            }

            fn scan(&self, space: Space, range: KeyRange, limit: usize) -> Result<Vec<Found>, ReadError> {
                self.engine.scan(space, &range, limit)
            }

            fn revision(&self) -> Revision {
                self.engine.revision()
            }

            fn feed_end(&self) -> Cursor {
                self.engine.feed_end()
            }

            fn feed(&self, after: Cursor, limit: usize) -> Result<Feed, FeedError> {
                self.engine.feed(after, limit)
            }

            fn subscribe(&self, wake: Wake) -> Subscription {
                self.engine.subscribe(wake)
            }

            fn read_log(&self, log: &str, from_sequence: u64, bytes_max: usize) -> Result<Vec<LogPart>, ReadError> {
                self.engine.read_log(log, from_sequence, bytes_max)
            }

            fn log_range(&self, log: &str) -> Result<Option<(u64, u64)>, ReadError> {
                self.engine.log_range(log)
            }

            fn list_logs(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, ReadError> {
                self.engine.list_logs(prefix, after, limit)
            }

            fn failure(&self) -> Option<String> {
                self.engine.failure()
            }
        }
    };
}
pub(crate) use delegate_to_engine;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_what_a_scan_of_it_finds() {
        assert!(KeyRange::all().contains(b""));
        assert!(KeyRange::prefix(b"ab").contains(b"ab") && KeyRange::prefix(b"ab").contains(b"abc"));
        assert!(!KeyRange::prefix(b"ab").contains(b"ac") && !KeyRange::prefix(b"ab").contains(b"a"));
        assert!(!KeyRange::prefix(b"ab").after(b"ab").contains(b"ab"));
        assert!(!KeyRange::between(b"a", b"c").contains(b"c"));
    }

    #[test]
    fn a_prefix_of_the_highest_bytes_has_no_end() {
        assert_eq!(KeyRange::prefix(b"ab").to, Some(b"ac".to_vec()));
        assert_eq!(KeyRange::prefix(&[1, 0xFF]).to, Some(vec![2]));
        assert_eq!(KeyRange::prefix(&[0xFF, 0xFF]).to, None);
        assert_eq!(KeyRange::prefix(b"").to, None);
    }
}
