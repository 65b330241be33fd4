//! What the tests build turns from.

use std::sync::{Arc, Mutex};

use fleetd_sync_core::commit::{ActorKey, Batch, Commit, CommitError, Mutation, Revision, Space};
use fleetd_sync_store::state_store::{LogPart, StateStore};

pub(crate) fn actor(name: &str) -> ActorKey {
    ActorKey::new("test", name)
}

pub(crate) fn turn(name: &str, mutations: Vec<Mutation>) -> Batch {
    Batch { actor: actor(name), mutations }
}

pub(crate) fn put(key: &str, value: &str) -> Mutation {
    Mutation::Put { space: Space::Device, key: key.into(), value: value.into() }
}

pub(crate) fn delete(key: &str) -> Mutation {
    Mutation::Delete { space: Space::Device, key: key.into() }
}

pub(crate) fn expect(key: &str, revision: u64) -> Mutation {
    Mutation::Expect { space: Space::Device, key: key.into(), revision: Revision(revision) }
}

pub(crate) fn append(log: &str, sequence: u64, entry: &[u8]) -> Mutation {
    Mutation::Append { log: log.to_owned(), sequence, entry: entry.to_vec() }
}

pub(crate) fn forget(log: &str, through: u64) -> Mutation {
    Mutation::Forget { log: log.to_owned(), through }
}

/// The value under a key of the tests' space.
pub(crate) fn value(store: &(impl StateStore + ?Sized), key: &str) -> Option<String> {
    let found = store.get(Space::Device, key.as_bytes()).unwrap();
    found.map(|found| String::from_utf8(found.value).unwrap())
}

/// The numbers of all entries of a log; panics on a gap.
pub(crate) fn sequences(store: &(impl StateStore + ?Sized), log: &str) -> Vec<u64> {
    let parts = store.read_log(log, 0, usize::MAX).unwrap();
    let sequence = |part| match part {
        LogPart::Entry { sequence, .. } => sequence,
        LogPart::Gap { first, last } => panic!("entries {first} to {last} of {log} are missing"),
    };
    parts.into_iter().map(sequence).collect()
}

/// A turn's number and its answer.
type Answer = (u64, Result<(), CommitError>);

/// Answers in the order in which they came.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Answers {
    /// Submits a batch whose answer is kept under `number`.
    pub(crate) fn submit(&self, store: &(impl Commit + ?Sized), number: u64, batch: Batch) {
        let answers = Arc::clone(&self.answers);
        store.submit(batch, Box::new(move |answer| answers.lock().unwrap().push((number, answer))));
    }

    /// All answers so far.
    pub(crate) fn all(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    /// The numbers of the turns that succeeded.
    pub(crate) fn succeeded(&self) -> Vec<u64> {
        self.all().into_iter().filter(|(_, answer)| answer.is_ok()).map(|(number, _)| number).collect()
    }
}
