//! One store over a table and files: what the disk and its twin share.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Bound, ControlFlow};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fleetd_sync_core::commit::{ActorKey, CommitError, Revision, Space};

use crate::commit_group::{Group, Request, Standing, group_length};
use crate::feed::{FeedRing, Subscription, Watchers};
use crate::open_error::is_damage;
use crate::record::{self, LogState};
use crate::segment_log::SegmentLogs;
use crate::segment_log::files::Files;
use crate::state_store::{Cursor, Feed, FeedError, Found, KeyRange, LogPart, ReadError, Versioned, Wake};
use crate::table::Table;
use crate::unpoison::Unpoison;

/// A store over a table and files.
#[derive(Debug)]
pub(crate) struct Engine<T, F> {
    table: T,
    logs: SegmentLogs<F>,
    /// Actors whose turns are refused until they have reloaded. Whoever holds the lock commits.
    refused: Mutex<BTreeSet<ActorKey>>,
    /// Number of the newest commit.
    revision: AtomicU64,
    feed: Mutex<FeedRing>,
    watchers: Watchers,
}

/// What a group came to.
#[derive(Debug)]
pub(crate) struct Committed {
    /// One answer for each request.
    pub(crate) answers: Vec<Result<(), CommitError>>,
    /// Logs to tidy, each with its state; `None` when it was removed.
    logs: BTreeMap<String, Option<LogState>>,
}

/// Why a group was not written.
enum WriteGroupError {
    /// A log could not be appended to: other turns may still succeed.
    Log(CommitError),
    /// The table failed.
    Table(CommitError),
}

impl<T: Table, F: Files> Engine<T, F> {
    /// Opens the store that lies in `table` and `files`. `opening` differs from that of every other opening.
    pub(crate) fn open(table: T, files: F, opening: u64, feed_changes_max: usize) -> Result<Self, ReadError> {
        let logs = SegmentLogs::new(files);
        logs.sweep(|log| Ok(table.get(&record::log_key(log))?.is_some()))?;
        let engine = Self {
            table,
            logs,
            refused: Mutex::default(),
            revision: AtomicU64::default(),
            feed: Mutex::new(FeedRing::new(opening, feed_changes_max)),
            watchers: Watchers::default(),
        };
        let revision = engine.stored_revision()?.unwrap_or_default();
        engine.revision.store(revision.0, Ordering::Release);
        Ok(engine)
    }

    pub(crate) const fn table(&self) -> &T {
        &self.table
    }

    pub(crate) const fn logs(&self) -> &SegmentLogs<F> {
        &self.logs
    }

    /// Why no further commit can succeed, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        self.table.failure()
    }

    /// The number of the newest commit, as it is stored.
    pub(crate) fn stored_revision(&self) -> Result<Option<Revision>, ReadError> {
        Ok(self.read(record::REVISION_KEY)?.map(|found| found.revision))
    }

    fn read(&self, raw_key: &[u8]) -> Result<Option<Versioned>, ReadError> {
        self.table.get(raw_key)?.map(|bytes| record::decode(raw_key, &bytes)).transpose()
    }

    /// Reads every value once and fails at the first that is not what was written.
    pub(crate) fn verify(&self) -> Result<(), ReadError> {
        let mut verified = Ok(());
        self.table.range(Bound::Unbounded, record::STORE_END, &mut |key, bytes| match record::decode(key, bytes) {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                verified = Err(error);
                ControlFlow::Break(())
            }
        })?;
        verified
    }

    /// Makes requests durable and answers each, in order. Readers see them when this returns.
    pub(crate) fn commit(&self, requests: &[Request<'_>]) -> Committed {
        let mut refused = self.refused.lock().unpoison();
        let mut all = Committed { answers: Vec::with_capacity(requests.len()), logs: BTreeMap::new() };
        let mut rest = requests;
        while !rest.is_empty() {
            let (group, behind) = rest.split_at(group_length(rest));
            let committed = self.commit_group(&mut refused, group);
            if !behind.is_empty() {
                self.tidy(&committed.logs);
            }
            all.answers.extend(committed.answers);
            all.logs.extend(committed.logs);
            rest = behind;
        }
        all
    }

    fn commit_group(&self, refused: &mut BTreeSet<ActorKey>, requests: &[Request<'_>]) -> Committed {
        let group = Group::decide(self, self.revision(), refused, requests);
        let committed = match self.write(&group) {
            Ok(()) => {
                self.revision.store(group.revision.0, Ordering::Release);
                let logs = group.logs.iter().map(|(log, work)| ((*log).to_owned(), work.after)).collect();
                self.feed.lock().unpoison().extend(group.changes);
                Committed { answers: group.answers, logs }
            }
            Err(WriteGroupError::Log(_)) if requests.len() > 1 => {
                return self.commit_one_by_one(refused, requests);
            }
            Err(WriteGroupError::Log(error) | WriteGroupError::Table(error)) => {
                let answers = requests.iter().zip(group.answers).map(|(request, answer)| match request {
                    Request::Turn(_) => answer.and(Err(error.clone())),
                    Request::Reloaded(_) => answer,
                });
                let answers = answers.collect();
                // A table that opened itself again after a failure may have kept the group, of which the feed
                // would then say nothing.
                let stored = self.stored_revision().ok().flatten().unwrap_or_default();
                self.revision.fetch_max(stored.0, Ordering::AcqRel);
                self.feed.lock().unpoison().restart();
                Committed { answers, logs: BTreeMap::new() }
            }
        };
        for (request, answer) in requests.iter().zip(&committed.answers) {
            match request {
                Request::Reloaded(actor) => drop(refused.remove(*actor)),
                Request::Turn(batch) if answer.is_err() => drop(refused.insert(batch.actor.clone())),
                Request::Turn(_) => {}
            }
        }
        committed
    }

    /// Commits turns apart, so that one whose log cannot be written takes no other with it.
    fn commit_one_by_one(&self, refused: &mut BTreeSet<ActorKey>, requests: &[Request<'_>]) -> Committed {
        let mut all = Committed { answers: Vec::with_capacity(requests.len()), logs: BTreeMap::new() };
        for request in requests {
            let one = self.commit_group(refused, std::slice::from_ref(request));
            all.answers.extend(one.answers);
            all.logs.extend(one.logs);
        }
        all
    }

    fn write(&self, group: &Group<'_>) -> Result<(), WriteGroupError> {
        if group.is_empty() {
            return Ok(());
        }
        let written = self.append(group).map_err(|error| WriteGroupError::Log(commit_error(&error)));
        let written = written.and_then(|()| {
            self.table.commit(group.writes()).map_err(|error| WriteGroupError::Table(commit_error(&error)))
        });
        if written.is_err() {
            for log in group.logs.keys() {
                self.logs.invalidate(log);
            }
        }
        written
    }

    /// Appends a group's entries to their logs, durably, before the table counts them.
    fn append(&self, group: &Group<'_>) -> io::Result<()> {
        for (log, work) in &group.logs {
            self.logs.append(log, work.before, &work.entries)?;
        }
        Ok(())
    }

    /// Does what nobody waits for: wakes readers, seals and drops segments.
    pub(crate) fn settle(&self, committed: &Committed) {
        if committed.answers.iter().any(Result::is_ok) {
            self.watchers.wake();
        }
        // Only a committer may look at a log's files as their owner.
        let _committing = self.refused.lock().unpoison();
        self.tidy(&committed.logs);
    }

    fn tidy(&self, logs: &BTreeMap<String, Option<LogState>>) {
        for (log, state) in logs {
            if let Err(error) = self.logs.tidy(log, *state) {
                // Nothing is lost: the next turn of this log tries again.
                tracing::warn!(log, %error, "a log's segments could not be tidied");
            }
        }
    }

    pub(crate) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Versioned>, ReadError> {
        self.read(&record::record_key(space, key))
    }

    pub(crate) fn scan(&self, space: Space, range: &KeyRange, limit: usize) -> Result<Vec<Found>, ReadError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let from = match &range.from {
            Bound::Included(key) => Bound::Included(record::record_key(space, key)),
            Bound::Excluded(key) => Bound::Excluded(record::record_key(space, key)),
            Bound::Unbounded => Bound::Included(record::record_key(space, &[])),
        };
        let to = match &range.to {
            Some(key) => record::record_key(space, key),
            None => record::space_end(space),
        };
        let mut found = Vec::new();
        let mut damaged = None;
        self.table.range(from.as_ref().map(Vec::as_slice), &to, &mut |raw_key, bytes| {
            match record::decode(raw_key, bytes) {
                Ok(versioned) => found.push((raw_key.get(1..).unwrap_or_default().to_vec(), versioned)),
                Err(error) => damaged = Some(error),
            }
            let is_done = damaged.is_some() || found.len() >= limit;
            if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        damaged.map_or(Ok(found), Err)
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    pub(crate) fn feed_end(&self) -> Cursor {
        self.feed.lock().unpoison().follow()
    }

    pub(crate) fn feed(&self, after: Cursor, limit: usize) -> Result<Feed, FeedError> {
        self.feed.lock().unpoison().page(after, limit)
    }

    pub(crate) fn subscribe(&self, wake: Wake) -> Subscription {
        self.watchers.subscribe(wake)
    }

    pub(crate) fn read_log(&self, log: &str, from: u64, bytes_max: usize) -> Result<Vec<LogPart>, ReadError> {
        self.logs.read(log, from, bytes_max, || self.log_state(log))
    }

    pub(crate) fn log_range(&self, log: &str) -> Result<Option<(u64, u64)>, ReadError> {
        let state = self.log_state(log)?.filter(|state| state.first < state.next);
        Ok(state.map(|state| (state.first, state.next - 1)))
    }

    pub(crate) fn list_logs(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, ReadError> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(record::log_key(after)),
            _ => Bound::Included(record::log_key(prefix)),
        };
        let mut logs = Vec::new();
        self.table.range(from.as_ref().map(Vec::as_slice), record::LOGS_END, &mut |raw_key, _| {
            match record::log_of_key(raw_key) {
                Some(log) if log.starts_with(prefix) && logs.len() < limit => logs.push(log.to_owned()),
                _ => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        })?;
        Ok(logs)
    }
}

impl<T: Table, F: Files> Standing for Engine<T, F> {
    fn revision_of(&self, raw_key: &[u8]) -> Result<Revision, ReadError> {
        Ok(self.read(raw_key)?.map_or(Revision::default(), |found| found.revision))
    }

    fn log_state(&self, log: &str) -> Result<Option<LogState>, ReadError> {
        let raw_key = record::log_key(log);
        self.table.get(&raw_key)?.map(|bytes| LogState::decode(&raw_key, &bytes)).transpose()
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if is_damage(&error) {
            tracing::error!(%error, "the store is damaged");
            Self::Damaged { place: "the database".to_owned(), problem: "it does not give back what was written" }
        } else {
            Self::Failed { cause: error.to_string() }
        }
    }
}

fn commit_error(error: &io::Error) -> CommitError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => CommitError::Full,
        _ => CommitError::Failed { cause: error.to_string() },
    }
}
