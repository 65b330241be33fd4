//! The store of a device, without what must outlive it: that lies in files of its own.
//!
//! [`IdentityStore`] stands before the database. What a turn writes of [`Space::Agent`], [`Space::RootRecord`],
//! [`Space::Floor`] and of the trust document goes to an [`IdentityPlace`], durably, and only then the rest of the turn
//! goes to the database: a database that is lost, restored or quarantined makes the device no stranger, brings back
//! nobody who was revoked and no release that was denied, and forgets no release that failed. A power cut between the
//! two leaves files that are newer than the database, which only go forward anyway.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::commit::{ActorKey, Batch, Commit, CommitError, Completion, Mutation, Revision, Space};
use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::replica::document_prefix;
use fleetd_sync_store::ab_file::{LoadAbFileError, StoreAbFileError};
use fleetd_sync_store::feed::Subscription;
use fleetd_sync_store::state_store::{
    Cursor, Feed, FeedError, Found, KeyRange, LogPart, ReadError, StateStore, Versioned, Wake,
};

use crate::cause::cause_of;
use crate::driver::agent::AGENT_KEY;
use crate::identity_files::{IdentityPart, IdentityPlace};
use crate::record::{decode_kept, decode_root_chain, encode_kept, encode_root_chain};

/// Files know no revisions: what is there has this one.
const REVISION: Revision = Revision(1);

/// Why the identity in the files cannot be taken up.
#[derive(Debug, thiserror::Error)]
#[error("the device's {part} cannot be read")]
pub struct OpenIdentityStoreError {
    part: &'static str,
    source: LoadAbFileError,
}

/// The store of a device, without what must outlive it.
pub struct IdentityStore {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for IdentityStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdentityStore")
    }
}

struct Shared {
    database: Arc<dyn StateStore>,
    files: Arc<dyn IdentityPlace>,
    blocking: Arc<dyn Blocking>,
    state: Mutex<State>,
    /// Held while files are written: turns of several actors change one file.
    writing: Mutex<()>,
    /// Why the files cannot be written any more.
    files_failure: OnceLock<String>,
    /// Told, once, that nothing can be stored any more.
    failed: OnceLock<StoreFailed>,
}

/// Told why a store takes nothing any more. It only wakes somebody.
pub type StoreFailed = Box<dyn Fn(String) + Send + Sync>;

#[derive(Default)]
struct State {
    kept: Kept,
    actors: BTreeMap<ActorKey, Turns>,
}

/// What the files hold, by the keys that it would have in the database.
type Kept = BTreeMap<IdentityPart, Records>;
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// One actor's turns on their way, in order.
#[derive(Default)]
struct Turns {
    waiting: VecDeque<(Batch, Completion)>,
    /// Turns that have been handed on and have not ended.
    under_way: usize,
    /// Somebody hands turns on, or the files are being written.
    is_busy: bool,
    /// A turn failed, and the actor has not loaded again.
    is_refused: bool,
}

impl IdentityStore {
    /// Puts the files before a database. Reads the files: call it from where one may wait.
    ///
    /// A part that is damaged in both its copies is as one that was never there: the device has to enrol again, and
    /// what runs on it goes on.
    ///
    /// # Errors
    /// [`OpenIdentityStoreError`] when the operating system fails.
    pub fn open(
        database: Arc<dyn StateStore>,
        files: Arc<dyn IdentityPlace>,
        blocking: Arc<dyn Blocking>,
    ) -> Result<Self, OpenIdentityStoreError> {
        let mut kept = Kept::new();
        for part in IdentityPart::ALL {
            kept.insert(part, load(files.as_ref(), part)?);
        }
        let state = Mutex::new(State { kept, actors: BTreeMap::new() });
        let shared = Shared {
            database,
            files,
            blocking,
            state,
            writing: Mutex::default(),
            files_failure: OnceLock::new(),
            failed: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Calls `failed` when nothing can be stored any more, until the store is opened by a new process: actors would
    /// be loaded again for ever, and what they decide would never happen. Only the first caller is told. A disk that
    /// is full is no such failure: room may come.
    pub fn on_failure(&self, failed: StoreFailed) {
        let _second = self.shared.failed.set(failed);
    }

    /// What the files hold of a space, in a range; the rest of it is in the database.
    fn kept(&self, space: Space, range: &KeyRange) -> Vec<Found> {
        let Some(part) = part_of_space(space) else { return Vec::new() };
        let state = self.shared.state();
        let records = state.kept.get(&part).into_iter().flatten();
        let asked = records.filter(|(key, _)| range.contains(key));
        asked.map(|(key, value)| (key.clone(), Versioned { value: value.clone(), revision: REVISION })).collect()
    }
}

/// The file that a space's records are in, or some of them.
const fn part_of_space(space: Space) -> Option<IdentityPart> {
    match space {
        Space::Agent => Some(IdentityPart::Enrolment),
        Space::RootRecord => Some(IdentityPart::RootChain),
        Space::Envelope => Some(IdentityPart::TrustDocument),
        Space::Floor => Some(IdentityPart::Floors),
        _ => None,
    }
}

/// The file that a record is in; `None` for one of the database.
fn part_of(space: Space, key: &[u8]) -> Option<IdentityPart> {
    let is_kept = space != Space::Envelope || key.starts_with(&document_prefix(DocumentId::Trust));
    part_of_space(space).filter(|_| is_kept)
}

/// Reads a part; one that is damaged in both its copies is empty.
fn load(files: &dyn IdentityPlace, part: IdentityPart) -> Result<Records, OpenIdentityStoreError> {
    let bytes = match files.load(part) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Records::new()),
        Err(error @ LoadAbFileError::Damaged { .. }) => {
            report_damage(part, &error);
            return Ok(Records::new());
        }
        Err(source @ LoadAbFileError::Io { .. }) => return Err(OpenIdentityStoreError { part: name_of(part), source }),
    };
    let records = match part {
        IdentityPart::Enrolment if bytes.is_empty() => Ok(Records::new()),
        IdentityPart::Enrolment => Ok(Records::from([(AGENT_KEY.to_vec(), bytes)])),
        IdentityPart::RootChain => decode_root_chain(&bytes).map(|records| {
            let versions = 1_u64..;
            versions.map(|version| version.to_be_bytes().to_vec()).zip(records).collect()
        }),
        IdentityPart::TrustDocument | IdentityPart::Floors => decode_kept(&bytes),
    };
    Ok(records.unwrap_or_else(|error| {
        report_damage(part, &error);
        Records::new()
    }))
}

fn report_damage(part: IdentityPart, error: &dyn std::error::Error) {
    let consequence = match part {
        IdentityPart::Enrolment => "the device must enrol again",
        IdentityPart::RootChain | IdentityPart::TrustDocument => "a server is asked for it",
        IdentityPart::Floors => "what failed here may be tried once more",
    };
    tracing::error!(error = cause_of(error), "the device's {} is damaged: {consequence}", name_of(part));
}

const fn name_of(part: IdentityPart) -> &'static str {
    match part {
        IdentityPart::Enrolment => "enrolment",
        IdentityPart::RootChain => "root chain",
        IdentityPart::TrustDocument => "trust document",
        IdentityPart::Floors => "floors",
    }
}

fn encode(part: IdentityPart, records: &Records) -> Vec<u8> {
    match part {
        IdentityPart::Enrolment => records.values().next().cloned().unwrap_or_default(),
        IdentityPart::RootChain => encode_root_chain(records.values().cloned().collect()),
        IdentityPart::TrustDocument | IdentityPart::Floors => encode_kept(records),
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // What is behind the lock is changed in single steps, so that a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the turns of one actor on, as far as they may go.
    fn pump(self: &Arc<Self>, actor: &ActorKey) {
        loop {
            let (batch, done, is_identity) = {
                let mut state = self.state();
                let Some(turns) = state.actors.get_mut(actor).filter(|turns| !turns.is_busy) else { return };
                let Some((batch, _)) = turns.waiting.front() else {
                    if turns.under_way == 0 && !turns.is_refused {
                        state.actors.remove(actor);
                    }
                    return;
                };
                let is_identity = batch.mutations.iter().any(is_of_identity);
                // The files must not run ahead of an earlier turn that may yet fail.
                if is_identity && turns.under_way > 0 {
                    return;
                }
                let Some((batch, done)) = turns.waiting.pop_front() else { return };
                turns.is_busy = true;
                turns.under_way += 1;
                (batch, done, is_identity)
            };
            if is_identity {
                let (shared, actor) = (Arc::clone(self), actor.clone());
                self.blocking.run(Box::new(move || {
                    shared.write_files(&actor, batch, done);
                    shared.rest(&actor);
                    shared.pump(&actor);
                }));
                return;
            }
            self.submit_to_database(batch, done);
            self.rest(actor);
        }
    }

    fn rest(&self, actor: &ActorKey) {
        if let Some(turns) = self.state().actors.get_mut(actor) {
            turns.is_busy = false;
        }
    }

    /// Writes what belongs into the files, and hands the rest on.
    fn write_files(self: &Arc<Self>, actor: &ActorKey, batch: Batch, done: Completion) {
        let (identity, rest): (Vec<_>, Vec<_>) = batch.mutations.into_iter().partition(is_of_identity);
        if let Err(error) = self.keep(identity) {
            return self.complete(actor, Err(error), done);
        }
        if rest.is_empty() {
            return self.complete(actor, Ok(()), done);
        }
        self.submit_to_database(Batch { actor: batch.actor, mutations: rest }, done);
    }

    fn keep(&self, mutations: Vec<Mutation>) -> Result<(), CommitError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state().kept.clone();
        let mut after = before.clone();
        for mutation in mutations {
            match mutation {
                Mutation::Put { space, key, value } => {
                    if let Some(records) = part_of(space, &key).and_then(|part| after.get_mut(&part)) {
                        records.insert(key, value);
                    }
                }
                Mutation::Delete { space, key } => {
                    if let Some(records) = part_of(space, &key).and_then(|part| after.get_mut(&part)) {
                        records.remove(&key);
                    }
                }
                Mutation::Expect { .. } | Mutation::Append { .. } | Mutation::Forget { .. } => {
                    return Err(CommitError::Failed { cause: "a device's identity has no revisions".to_owned() });
                }
            }
        }
        // In the order of the parts: a chain without an enrolment does no harm; an enrolment without its chain could
        // trust nobody.
        for (part, records) in &after {
            if before.get(part) != Some(records) {
                let stored = self.files.store(*part, &encode(*part, records)).map_err(commit_error);
                if let Err(CommitError::Failed { cause }) = &stored {
                    let _known = self.files_failure.set(cause.clone());
                }
                stored?;
            }
        }
        self.state().kept = after;
        Ok(())
    }

    fn submit_to_database(self: &Arc<Self>, batch: Batch, done: Completion) {
        let (shared, actor) = (Arc::clone(self), batch.actor.clone());
        self.database.submit(
            batch,
            Box::new(move |result| {
                shared.complete(&actor, result, done);
                shared.pump(&actor);
            }),
        );
    }

    fn failure(&self) -> Option<String> {
        self.files_failure.get().cloned().or_else(|| self.database.failure())
    }

    /// Ends one turn; after a failure those behind it are refused until the actor has loaded again.
    fn complete(&self, actor: &ActorKey, result: Result<(), CommitError>, done: Completion) {
        let mut refused = VecDeque::new();
        if let Some(turns) = self.state().actors.get_mut(actor) {
            turns.under_way = turns.under_way.saturating_sub(1);
            if result.is_err() {
                turns.is_refused = true;
                refused = std::mem::take(&mut turns.waiting);
            }
        }
        let is_full = matches!(result, Err(CommitError::Full));
        let cause = if result.is_err() && !is_full { self.failure() } else { None };
        done(result);
        if let (Some(failed), Some(cause)) = (self.failed.get(), cause) {
            failed(cause);
        }
        for (batch, done) in refused {
            done(Err(CommitError::Refused { actor: batch.actor }));
        }
    }
}

fn commit_error(error: StoreAbFileError) -> CommitError {
    match &error {
        StoreAbFileError::Io { source, .. } if is_full(source) => CommitError::Full,
        _ => CommitError::Failed { cause: cause_of(&error) },
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn is_of_identity(mutation: &Mutation) -> bool {
    match mutation {
        Mutation::Put { space, key, .. } | Mutation::Delete { space, key } | Mutation::Expect { space, key, .. } => {
            part_of(*space, key).is_some()
        }
        Mutation::Append { .. } | Mutation::Forget { .. } => false,
    }
}

impl Commit for IdentityStore {
    fn submit(&self, batch: Batch, done: Completion) {
        let actor = batch.actor.clone();
        {
            let mut state = self.shared.state();
            let turns = state.actors.entry(actor.clone()).or_default();
            if turns.is_refused {
                drop(state);
                return done(Err(CommitError::Refused { actor }));
            }
            turns.waiting.push_back((batch, done));
        }
        self.shared.pump(&actor);
    }

    fn reloaded(&self, actor: &ActorKey) {
        if let Some(turns) = self.shared.state().actors.get_mut(actor) {
            turns.is_refused = false;
        }
        self.shared.database.reloaded(actor);
    }
}

impl StateStore for IdentityStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Versioned>, ReadError> {
        if part_of(space, key).is_none() {
            return self.shared.database.get(space, key);
        }
        let found = self.kept(space, &KeyRange::prefix(key)).into_iter().find(|(found_key, _)| found_key == key);
        Ok(found.map(|(_, value)| value))
    }

    fn scan(&self, space: Space, range: KeyRange, limit: usize) -> Result<Vec<Found>, ReadError> {
        let mut found = self.kept(space, &range);
        if part_of_space(space).is_none_or(|part| part == IdentityPart::TrustDocument) {
            found.extend(self.shared.database.scan(space, range, limit)?);
            found.sort_by(|(one, _), (other, _)| one.cmp(other));
            // Of a key that both have, the file's value comes first and stands.
            found.dedup_by(|(later, _), (first, _)| later == first);
        }
        found.truncate(limit);
        Ok(found)
    }

    fn revision(&self) -> Revision {
        self.shared.database.revision()
    }

    fn feed_end(&self) -> Cursor {
        self.shared.database.feed_end()
    }

    fn feed(&self, after: Cursor, limit: usize) -> Result<Feed, FeedError> {
        self.shared.database.feed(after, limit)
    }

    fn subscribe(&self, wake: Wake) -> Subscription {
        self.shared.database.subscribe(wake)
    }

    fn read_log(&self, log: &str, from_sequence: u64, bytes_max: usize) -> Result<Vec<LogPart>, ReadError> {
        self.shared.database.read_log(log, from_sequence, bytes_max)
    }

    fn log_range(&self, log: &str) -> Result<Option<(u64, u64)>, ReadError> {
        self.shared.database.log_range(log)
    }

    fn list_logs(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, ReadError> {
        self.shared.database.list_logs(prefix, after, limit)
    }

    fn failure(&self) -> Option<String> {
        self.shared.failure()
    }
}
