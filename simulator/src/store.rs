//! A node's store in the world: the in-memory twin, whose batches become durable as events, and what ails its disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fleetd_sync_core::commit::{ActorKey, Batch, Commit, CommitError, Completion, Mutation, Revision, Space};
use fleetd_sync_store::feed::Subscription;
use fleetd_sync_store::memory::{Fault, MemoryStore};
use fleetd_sync_store::state_store::{
    Cursor, Feed, FeedError, Found, KeyRange, LogPart, ReadError, StateStore, Versioned, Wake,
};

use crate::fuse::Fuse;
use crate::observation::{Observation, Tap};
use crate::world::World;

/// Time from a batch's submission until it is durable.
const COMMIT_DELAY: Duration = Duration::from_micros(200);

/// What ails a node's disk for a while. Clones are the same, and outlive the node's process.
#[derive(Clone, Debug, Default)]
pub struct Ailment {
    full: Arc<AtomicBool>,
    slow_ms: Arc<AtomicU64>,
}

impl Ailment {
    /// Says whether there is no space left.
    pub fn set_full(&self, is_full: bool) {
        self.full.store(is_full, Ordering::Relaxed);
    }

    /// Says how many milliseconds more each commit takes.
    pub fn set_slow_ms(&self, slow_ms: u64) {
        self.slow_ms.store(slow_ms, Ordering::Relaxed);
    }
}

/// Told, once, that a store takes nothing any more.
pub type StoreFailed = Arc<dyn Fn() + Send + Sync>;

/// A store whose commits take virtual time.
#[derive(Clone)]
pub struct NodeStore {
    node: Arc<str>,
    world: World,
    memory: Arc<MemoryStore>,
    ailment: Ailment,
    fuse: Fuse,
    failed: Option<StoreFailed>,
}

impl NodeStore {
    /// Puts a twin whose steps are taken by hand into the world.
    #[must_use]
    pub fn new(node: &str, world: World, memory: Arc<MemoryStore>) -> Self {
        let (ailment, fuse) = (Ailment::default(), Fuse::default());
        Self { node: node.into(), world, memory, ailment, fuse, failed: None }
    }

    /// Gives it a disk that may ail, and a fuse that may end its node.
    #[must_use]
    pub fn with(self, ailment: Ailment, fuse: Fuse) -> Self {
        Self { ailment, fuse, ..self }
    }

    /// Has somebody told when it takes nothing any more.
    #[must_use]
    pub fn on_failure(self, failed: StoreFailed) -> Self {
        Self { failed: Some(failed), ..self }
    }

    /// The twin itself, for faults and images.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryStore> {
        &self.memory
    }
}

impl Commit for NodeStore {
    fn submit(&self, batch: Batch, done: Completion) {
        if !self.fuse.spend() {
            return;
        }
        let what = digest(&batch);
        self.memory.submit(batch, done);
        let delay = COMMIT_DELAY + Duration::from_millis(self.ailment.slow_ms.load(Ordering::Relaxed));
        let (memory, ailment, failed) = (Arc::clone(&self.memory), self.ailment.clone(), self.failed.clone());
        self.world.schedule(delay, &self.node, &what, move || {
            if ailment.full.load(Ordering::Relaxed) {
                memory.fail_next_commit(Fault::Full);
            }
            let turns = memory.step();
            if turns > 0 && memory.failure().is_some() {
                failed.iter().for_each(|failed| failed());
            }
        });
    }

    fn reloaded(&self, actor: &ActorKey) {
        self.memory.reloaded(actor);
    }
}

/// A node's whole store, as its actors have it: checkers see each turn twice, when it is handed over and when it is
/// answered.
#[derive(Clone)]
pub struct TappedStore {
    node: Arc<str>,
    store: Arc<dyn StateStore>,
    tap: Tap,
}

impl TappedStore {
    /// Puts a tap on a store.
    #[must_use]
    pub fn new(node: &str, store: Arc<dyn StateStore>, tap: Tap) -> Self {
        Self { node: node.into(), store, tap }
    }
}

impl Commit for TappedStore {
    fn submit(&self, batch: Batch, done: Completion) {
        let (node, seen, tap) = (Arc::clone(&self.node), Arc::new(batch.clone()), self.tap.clone());
        let was_open = tap.is_open();
        tap.note(|| Observation::Submitted { node: Arc::clone(&node), batch: Arc::clone(&seen) });
        let done = Box::new(move |result: Result<(), CommitError>| {
            let is_durable = result.is_ok();
            if !was_open {
                // A turn that was under way when the tap was opened: whoever looked at the store then did not find it.
                tap.note(|| Observation::Submitted { node: Arc::clone(&node), batch: Arc::clone(&seen) });
            }
            tap.note(|| Observation::Answered { node, batch: seen, is_durable });
            done(result);
        });
        self.store.submit(batch, done);
    }

    fn reloaded(&self, actor: &ActorKey) {
        self.store.reloaded(actor);
    }
}

/// Reads what another store has.
macro_rules! read_from {
    ($store:ident . $inner:ident) => {
        impl StateStore for $store {
            fn get(&self, space: Space, key: &[u8]) -> Result<Option<Versioned>, ReadError> {
                self.$inner.get(space, key)
            }

            fn scan(&self, space: Space, range: KeyRange, limit: usize) -> Result<Vec<Found>, ReadError> {
                self.$inner.scan(space, range, limit)
            }

            fn revision(&self) -> Revision {
                self.$inner.revision()
            }

            fn feed_end(&self) -> Cursor {
                self.$inner.feed_end()
            }

            fn feed(&self, after: Cursor, limit: usize) -> Result<Feed, FeedError> {
                self.$inner.feed(after, limit)
            }

            fn subscribe(&self, wake: Wake) -> Subscription {
                self.$inner.subscribe(wake)
            }

            fn read_log(&self, log: &str, from_sequence: u64, bytes_max: usize) -> Result<Vec<LogPart>, ReadError> {
                self.$inner.read_log(log, from_sequence, bytes_max)
            }

            fn log_range(&self, log: &str) -> Result<Option<(u64, u64)>, ReadError> {
                self.$inner.log_range(log)
            }

            fn list_logs(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, ReadError> {
                self.$inner.list_logs(prefix, after, limit)
            }

            fn failure(&self) -> Option<String> {
                self.$inner.failure()
            }
        }
    };
}

read_from!(NodeStore.memory);
read_from!(TappedStore.store);

/// What a batch writes, for the trace.
fn digest(batch: &Batch) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes()).update(bytes);
    };
    add(batch.actor.as_str().as_bytes());
    for mutation in &batch.mutations {
        match mutation {
            Mutation::Put { space, key, value } => [&[*space as u8], key.as_slice(), value].map(&mut add),
            Mutation::Delete { space, key } => [&[*space as u8], key.as_slice(), b"delete"].map(&mut add),
            Mutation::Expect { space, key, revision } => {
                [&[*space as u8], key.as_slice(), &revision.0.to_le_bytes()].map(&mut add)
            }
            Mutation::Append { log, sequence, entry } => [log.as_bytes(), &sequence.to_le_bytes(), entry].map(&mut add),
            Mutation::Forget { log, through } => [log.as_bytes(), &through.to_le_bytes(), b"forget"].map(&mut add),
        };
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_was_under_way_when_the_tap_was_opened_is_seen_whole() {
        let (memory, tap) = (Arc::new(MemoryStore::manual()), Tap::default());
        let store = TappedStore::new("device-1", Arc::<MemoryStore>::clone(&memory), tap.clone());
        let (space, key, value) = (Space::Device, b"key".to_vec(), b"value".to_vec());
        let mutations = vec![Mutation::Put { space, key, value }];
        store.submit(Batch { actor: ActorKey::only("test"), mutations }, Box::new(|_| ()));
        tap.open();
        memory.step();
        let seen = tap.drain();
        let [Observation::Submitted { batch, .. }, Observation::Answered { batch: answered, is_durable, .. }] =
            &seen[..]
        else {
            panic!("{seen:?}")
        };
        assert!(Arc::ptr_eq(batch, answered) && *is_durable);
    }
}
