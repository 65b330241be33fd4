//! A node's store in the world: the in-memory twin, whose batches become durable as events.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::commit::{ActorKey, Batch, Commit, Completion, Mutation, Revision, Space};
use fleetd_sync_store::feed::Subscription;
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::state_store::{
    Cursor, Feed, FeedError, Found, KeyRange, LogPart, ReadError, StateStore, Versioned, Wake,
};

use crate::observation::{Observation, Tap};
use crate::world::World;

/// Time from a batch's submission until it is durable.
const COMMIT_DELAY: Duration = Duration::from_micros(200);

/// A store whose commits take virtual time.
#[derive(Clone)]
pub struct NodeStore {
    node: Arc<str>,
    world: World,
    memory: Arc<MemoryStore>,
    tap: Tap,
}

impl NodeStore {
    /// Puts a twin whose steps are taken by hand into the world.
    #[must_use]
    pub fn new(node: &str, world: World, memory: Arc<MemoryStore>, tap: Tap) -> Self {
        Self { node: node.into(), world, memory, tap }
    }

    /// The twin itself, for faults and images.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryStore> {
        &self.memory
    }
}

impl NodeStore {
    /// Lets checkers see a turn twice: when it is handed over, and when it is answered.
    fn tapped(&self, batch: &Batch, done: Completion) -> Completion {
        if !self.tap.is_open() {
            return done;
        }
        let (node, batch, tap) = (Arc::clone(&self.node), Arc::new(batch.clone()), self.tap.clone());
        tap.note(|| Observation::Submitted { node: Arc::clone(&node), batch: Arc::clone(&batch) });
        Box::new(move |result| {
            let is_durable = result.is_ok();
            tap.note(|| Observation::Answered { node, batch, is_durable });
            done(result);
        })
    }
}

impl Commit for NodeStore {
    fn submit(&self, batch: Batch, done: Completion) {
        let what = digest(&batch);
        let done = self.tapped(&batch, done);
        self.memory.submit(batch, done);
        let memory = Arc::clone(&self.memory);
        self.world.schedule(COMMIT_DELAY, &self.node, &what, move || {
            memory.step();
        });
    }

    fn reloaded(&self, actor: &ActorKey) {
        self.memory.reloaded(actor);
    }
}

impl StateStore for NodeStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Versioned>, ReadError> {
        self.memory.get(space, key)
    }

    fn scan(&self, space: Space, range: KeyRange, limit: usize) -> Result<Vec<Found>, ReadError> {
        self.memory.scan(space, range, limit)
    }

    fn revision(&self) -> Revision {
        self.memory.revision()
    }

    fn feed_end(&self) -> Cursor {
        self.memory.feed_end()
    }

    fn feed(&self, after: Cursor, limit: usize) -> Result<Feed, FeedError> {
        self.memory.feed(after, limit)
    }

    fn subscribe(&self, wake: Wake) -> Subscription {
        self.memory.subscribe(wake)
    }

    fn read_log(&self, log: &str, from_sequence: u64, bytes_max: usize) -> Result<Vec<LogPart>, ReadError> {
        self.memory.read_log(log, from_sequence, bytes_max)
    }

    fn log_range(&self, log: &str) -> Result<Option<(u64, u64)>, ReadError> {
        self.memory.log_range(log)
    }

    fn list_logs(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, ReadError> {
        self.memory.list_logs(prefix, after, limit)
    }

    fn failure(&self) -> Option<String> {
        self.memory.failure()
    }
}

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
