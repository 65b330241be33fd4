//! The store of a device, without what must outlive it: the agent's record and root records lie in files of their own.
//!
//! [`IdentityStore`] stands before the database. What a turn writes of [`Space::Agent`] and [`Space::RootRecord`]
//! goes to [`IdentityFiles`], durably, and only then the rest of the turn goes to the database: a database that is
//! lost, restored or quarantined makes the device no stranger. A power cut between the two leaves root records that
//! are newer than the documents, which only go forward anyway.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::commit::{ActorKey, Batch, Commit, CommitError, Completion, Mutation, Revision, Space};
use fleetd_sync_store::ab_file::{LoadAbFileError, StoreAbFileError};
use fleetd_sync_store::feed::Subscription;
use fleetd_sync_store::state_store::{
    Cursor, Feed, FeedError, Found, KeyRange, LogPart, ReadError, StateStore, Versioned, Wake,
};

use crate::cause::cause_of;
use crate::driver::agent::AGENT_KEY;
use crate::identity_files::{IdentityFiles, IdentityPart};
use crate::record::{decode_root_chain, encode_root_chain};

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
    files: IdentityFiles,
    blocking: Arc<dyn Blocking>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    actors: BTreeMap<ActorKey, Turns>,
}

/// What the files hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    agent: Vec<u8>,
    root_records: BTreeMap<Vec<u8>, Vec<u8>>,
}

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
        files: IdentityFiles,
        blocking: Arc<dyn Blocking>,
    ) -> Result<Self, OpenIdentityStoreError> {
        let agent = load(&files, IdentityPart::Enrolment, "enrolment")?;
        let chain = load(&files, IdentityPart::RootChain, "root chain")?;
        let records = decode_root_chain(&chain).unwrap_or_else(|error| {
            tracing::error!(error = cause_of(&error), "the device's root chain is damaged: it must enrol again");
            Vec::new()
        });
        let versions = 1_u64..;
        let root_records = versions.map(|version| version.to_be_bytes().to_vec()).zip(records).collect();
        let state = Mutex::new(State { kept: Kept { agent, root_records }, actors: BTreeMap::new() });
        Ok(Self { shared: Arc::new(Shared { database, files, blocking, state }) })
    }

    fn identity(&self, space: Space) -> Option<Vec<Found>> {
        let state = self.shared.state();
        let found = |key: &[u8], value: &[u8]| (key.to_vec(), Versioned { value: value.to_vec(), revision: REVISION });
        match space {
            Space::Agent if state.kept.agent.is_empty() => Some(Vec::new()),
            Space::Agent => Some(vec![found(AGENT_KEY, &state.kept.agent)]),
            Space::RootRecord => Some(state.kept.root_records.iter().map(|(key, value)| found(key, value)).collect()),
            _ => None,
        }
    }
}

fn load(files: &IdentityFiles, part: IdentityPart, name: &'static str) -> Result<Vec<u8>, OpenIdentityStoreError> {
    match files.load(part) {
        Ok(bytes) => Ok(bytes.unwrap_or_default()),
        Err(error @ LoadAbFileError::Damaged { .. }) => {
            tracing::error!(error = cause_of(&error), "the device's {name} is damaged: it must enrol again");
            Ok(Vec::new())
        }
        Err(source @ LoadAbFileError::Io { .. }) => Err(OpenIdentityStoreError { part: name, source }),
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
        let before = self.state().kept.clone();
        let mut after = before.clone();
        for mutation in mutations {
            match mutation {
                Mutation::Put { space: Space::Agent, value, .. } => after.agent = value,
                Mutation::Put { key, value, .. } => {
                    after.root_records.insert(key, value);
                }
                Mutation::Delete { space: Space::Agent, .. } => after.agent.clear(),
                Mutation::Delete { key, .. } => {
                    after.root_records.remove(&key);
                }
                Mutation::Expect { .. } | Mutation::Append { .. } | Mutation::Forget { .. } => {
                    return Err(CommitError::Failed { cause: "a device's identity has no revisions".to_owned() });
                }
            }
        }
        let failed = |error: StoreAbFileError| CommitError::Failed { cause: cause_of(&error) };
        // A chain without an enrolment does no harm; an enrolment without its chain could trust nobody.
        if after.root_records != before.root_records {
            let records = after.root_records.values().cloned().collect();
            self.files.store(IdentityPart::RootChain, &encode_root_chain(records)).map_err(failed)?;
        }
        if after.agent != before.agent {
            self.files.store(IdentityPart::Enrolment, &after.agent).map_err(failed)?;
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
        done(result);
        for (batch, done) in refused {
            done(Err(CommitError::Refused { actor: batch.actor }));
        }
    }
}

fn is_of_identity(mutation: &Mutation) -> bool {
    match mutation {
        Mutation::Put { space, .. } | Mutation::Delete { space, .. } | Mutation::Expect { space, .. } => {
            matches!(space, Space::Agent | Space::RootRecord)
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
        match self.identity(space) {
            Some(found) => Ok(found.into_iter().find(|(found_key, _)| found_key == key).map(|(_, value)| value)),
            None => self.shared.database.get(space, key),
        }
    }

    fn scan(&self, space: Space, range: KeyRange, limit: usize) -> Result<Vec<Found>, ReadError> {
        match self.identity(space) {
            Some(mut found) if range == KeyRange::all() => {
                found.truncate(limit);
                Ok(found)
            }
            Some(_) => Err(ReadError::Failed { cause: "a device's identity is read as a whole".to_owned() }),
            None => self.shared.database.scan(space, range, limit),
        }
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
        self.shared.database.failure()
    }

    fn visit(
        &self,
        space: Space,
        range: KeyRange,
        visit: &mut dyn FnMut(&[u8], Versioned) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        if !matches!(space, Space::Agent | Space::RootRecord) {
            return self.shared.database.visit(space, range, visit);
        }
        for (key, value) in self.scan(space, range, usize::MAX)? {
            if visit(&key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}
