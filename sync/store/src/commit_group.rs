//! What a group of turns comes to: which are applied, which are refused, and what must then be written.
//!
//! Turns are taken in order, each against what the ones before it leave. Nothing is written here: the same
//! decision serves the disk and its twin.

use std::collections::{BTreeMap, BTreeSet};

use fleetd_sync_core::commit::{ActorKey, Batch, CommitError, Mutation, Revision, Space};

use crate::record::{self, LogState};
use crate::segment_log::is_log_name;
use crate::state_store::{Change, Changed, ReadError};
use crate::table::Write;

/// One thing that was queued.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request<'a> {
    /// A turn's mutations.
    Turn(&'a Batch),
    /// The actor has loaded its state again.
    Reloaded(&'a ActorKey),
}

/// What stands in the store before the group.
pub(crate) trait Standing {
    /// The revision of a record, 0 when it is absent.
    fn revision_of(&self, raw_key: &[u8]) -> Result<Revision, ReadError>;
    /// Where a log stands, if it exists.
    fn log_state(&self, log: &str) -> Result<Option<LogState>, ReadError>;
}

/// What a group does to one log.
#[derive(Clone, Debug)]
pub(crate) struct LogWork<'a> {
    /// Where the log stood; for a new one, its first entry's number as both ends.
    pub(crate) before: LogState,
    /// Where it stands afterwards; `None` when it is removed.
    pub(crate) after: Option<LogState>,
    /// What is appended.
    pub(crate) entries: Vec<(u64, &'a [u8])>,
}

/// What a group comes to.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// One answer for each request; reloads succeed.
    pub(crate) answers: Vec<Result<(), CommitError>>,
    /// The number of the last applied turn.
    pub(crate) revision: Revision,
    /// The new records, without the log states.
    records: BTreeMap<Vec<u8>, Pending<'a>>,
    /// What happens to logs.
    pub(crate) logs: BTreeMap<&'a str, LogWork<'a>>,
    /// What the feed tells.
    pub(crate) changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug)]
struct Pending<'a> {
    revision: Revision,
    value: Option<&'a [u8]>,
}

/// What one turn would do, until it is known to be good.
#[derive(Default)]
struct Turn<'a> {
    records: BTreeMap<Vec<u8>, Option<&'a [u8]>>,
    logs: BTreeMap<&'a str, LogWork<'a>>,
    changes: Vec<Changed>,
}

/// How many of the requests may share a group: one that removes a log is the last of its group, since the log may
/// begin anew only once its segments are gone.
pub(crate) fn group_length(requests: &[Request<'_>]) -> usize {
    let removes = |request: &Request<'_>| match request {
        Request::Turn(batch) => {
            batch.mutations.iter().any(|mutation| matches!(mutation, Mutation::Forget { through: u64::MAX, .. }))
        }
        Request::Reloaded(_) => false,
    };
    requests.iter().position(removes).map_or(requests.len(), |position| position + 1)
}

impl<'a> Group<'a> {
    /// Decides a group whose turns follow commit `revision`, with `refused` as the actors that must reload.
    pub(crate) fn decide(
        standing: &impl Standing,
        revision: Revision,
        refused: &BTreeSet<ActorKey>,
        requests: &[Request<'a>],
    ) -> Self {
        let mut group = Self {
            answers: Vec::with_capacity(requests.len()),
            revision,
            records: BTreeMap::new(),
            logs: BTreeMap::new(),
            changes: Vec::new(),
        };
        let mut refused = refused.clone();
        for request in requests {
            let answer = match *request {
                Request::Reloaded(actor) => {
                    refused.remove(actor);
                    Ok(())
                }
                Request::Turn(batch) if refused.contains(&batch.actor) => {
                    Err(CommitError::Refused { actor: batch.actor.clone() })
                }
                Request::Turn(batch) => group.turn(standing, batch).inspect_err(|_| {
                    refused.insert(batch.actor.clone());
                }),
            };
            group.answers.push(answer);
        }
        group
    }

    /// Says whether the group writes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.logs.is_empty()
    }

    /// The table's writes: records, log states and the store's revision.
    pub(crate) fn writes(&self) -> Vec<Write> {
        let records = self.records.iter().map(|(key, pending)| {
            (key.clone(), pending.value.map(|value| record::encode(key, pending.revision, value)))
        });
        let logs = self.logs.iter().map(|(log, work)| {
            let key = record::log_key(log);
            let value = work.after.map(|state| record::encode(&key, self.revision, &state.to_bytes()));
            (key, value)
        });
        let revision = record::encode(record::REVISION_KEY, self.revision, &[]);
        records.chain(logs).chain([(record::REVISION_KEY.to_vec(), Some(revision))]).collect()
    }

    fn turn(&mut self, standing: &impl Standing, batch: &'a Batch) -> Result<(), CommitError> {
        let mut turn = Turn::default();
        for mutation in &batch.mutations {
            match mutation {
                Mutation::Put { space, key, value } => turn.record(*space, key, Some(value)),
                Mutation::Delete { space, key } => turn.record(*space, key, None),
                Mutation::Expect { space, key, revision } => self.expect(standing, *space, key, *revision)?,
                Mutation::Append { log, sequence, entry } => {
                    let state = self.log(&turn, standing, log)?;
                    turn.append(state, log, *sequence, entry)?;
                }
                Mutation::Forget { log, through } => {
                    let state = self.log(&turn, standing, log)?;
                    turn.forget(state, log, *through);
                }
            }
        }
        self.apply(turn);
        Ok(())
    }

    /// Checks a record against what stood before this turn.
    fn expect(
        &self,
        standing: &impl Standing,
        space: Space,
        key: &[u8],
        expected: Revision,
    ) -> Result<(), CommitError> {
        let raw_key = record::record_key(space, key);
        let found = match self.records.get(&raw_key) {
            Some(Pending { value: None, .. }) => Revision::default(),
            Some(pending) => pending.revision,
            None => standing.revision_of(&raw_key).map_err(failed)?,
        };
        if found == expected { Ok(()) } else { Err(CommitError::Stale { space, expected, found }) }
    }

    /// What this turn, or this group, or the store knows of a log.
    fn log(&self, turn: &Turn<'a>, standing: &impl Standing, log: &str) -> Result<Option<LogState>, CommitError> {
        if let Some(work) = turn.logs.get(log).or_else(|| self.logs.get(log)) {
            return Ok(work.after);
        }
        if !is_log_name(log) {
            return Err(CommitError::Failed { cause: format!("{log:?} cannot name a log") });
        }
        standing.log_state(log).map_err(failed)
    }

    fn apply(&mut self, turn: Turn<'a>) {
        if turn.records.is_empty() && turn.logs.is_empty() {
            return;
        }
        self.revision = Revision(self.revision.0 + 1);
        let revision = self.revision;
        self.records.extend(turn.records.into_iter().map(|(key, value)| (key, Pending { revision, value })));
        for (log, work) in turn.logs {
            let earlier = self.logs.entry(log).or_insert_with(|| LogWork { entries: Vec::new(), ..work });
            earlier.after = work.after;
            earlier.entries.extend(work.entries);
        }
        self.changes.extend(turn.changes.into_iter().map(|changed| Change { revision, changed }));
    }
}

impl<'a> Turn<'a> {
    fn record(&mut self, space: Space, key: &[u8], value: Option<&'a [u8]>) {
        self.records.insert(record::record_key(space, key), value);
        self.changes.push(Changed::Record { space, key: key.to_vec(), present: value.is_some() });
    }

    fn append(
        &mut self,
        state: Option<LogState>,
        log: &'a str,
        sequence: u64,
        entry: &'a [u8],
    ) -> Result<(), CommitError> {
        if self.logs.get(log).is_some_and(|work| work.after.is_none()) {
            return Err(CommitError::Failed { cause: format!("log {log} is removed and begun in one turn") });
        }
        let before = state.unwrap_or(LogState { first: sequence, next: sequence });
        let next = sequence.checked_add(1).filter(|_| sequence == before.next);
        let next =
            next.ok_or_else(|| CommitError::Sequence { log: log.to_owned(), expected: before.next, found: sequence })?;
        let work = self.work(log, before);
        work.after = Some(LogState { first: before.first, next });
        work.entries.push((sequence, entry));
        match self.changes.last_mut() {
            // A turn often appends many entries: the feed tells of them once.
            Some(Changed::Appended { log: grown, last }) if grown == log => *last = sequence,
            _ => self.changes.push(Changed::Appended { log: log.to_owned(), last: sequence }),
        }
        Ok(())
    }

    fn forget(&mut self, state: Option<LogState>, log: &'a str, through: u64) {
        let Some(before) = state else { return };
        let work = self.work(log, before);
        work.after = through
            .checked_add(1)
            .map(|first| LogState { first: first.clamp(before.first, before.next), next: before.next });
        if work.after.is_none() {
            work.entries.clear();
        }
        self.changes.push(Changed::Forgotten { log: log.to_owned(), through });
    }

    fn work(&mut self, log: &'a str, before: LogState) -> &mut LogWork<'a> {
        self.logs.entry(log).or_insert(LogWork { before, after: Some(before), entries: Vec::new() })
    }
}

fn failed(error: ReadError) -> CommitError {
    CommitError::Failed { cause: error.to_string() }
}
