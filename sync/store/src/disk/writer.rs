//! The group commit: one thread that takes all turns that wait, makes them durable at once, and answers each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex};

use fleetd_sync_core::commit::{ActorKey, Batch, CommitError, Completion, Mutation};

use crate::commit_group::Request;
use crate::engine::Engine;
use crate::segment_log::files::Files;
use crate::table::Table;
use crate::unpoison::Unpoison;

/// Bytes that a mutation is counted with beside its key and value.
const MUTATION_OVERHEAD_BYTES: usize = 32;

enum Queued {
    Turn { batch: Batch, done: Completion, bytes: usize },
    Reloaded(ActorKey),
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Queued>,
    /// No more turns are taken; what waits is still committed.
    is_closing: bool,
}

/// Turns on their way to the writer thread.
#[derive(Default)]
pub(super) struct WriteQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl std::fmt::Debug for WriteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteQueue")
    }
}

impl WriteQueue {
    /// Queues a turn.
    pub(super) fn submit(&self, batch: Batch, done: Completion) {
        let bytes = batch.mutations.iter().map(mutation_bytes).sum();
        if let Some(Queued::Turn { done, .. }) = self.push(Queued::Turn { batch, done, bytes }) {
            done(Err(CommitError::Failed { cause: "the store is closed".to_owned() }));
        }
    }

    /// Queues a reload, behind the turns that the actor has submitted before it.
    pub(super) fn reloaded(&self, actor: &ActorKey) {
        drop(self.push(Queued::Reloaded(actor.clone())));
    }

    /// Queues something, or gives it back when the store is closing.
    fn push(&self, queued: Queued) -> Option<Queued> {
        let mut waiting = self.waiting.lock().unpoison();
        if waiting.is_closing {
            return Some(queued);
        }
        waiting.queue.push_back(queued);
        self.changed.notify_one();
        None
    }

    /// Takes no more turns and lets the writer end when it has committed what waits.
    pub(super) fn close(&self) {
        self.waiting.lock().unpoison().is_closing = true;
        self.changed.notify_all();
    }

    /// Waits for turns and takes as many as fit a group; `None` when the store is closed and nothing waits.
    fn take(&self, group_bytes: usize) -> Option<Vec<Queued>> {
        let mut waiting = self.waiting.lock().unpoison();
        while waiting.queue.is_empty() {
            if waiting.is_closing {
                return None;
            }
            waiting = self.changed.wait(waiting).unpoison();
        }
        let mut group = Vec::new();
        let mut left = group_bytes;
        while let Some(next) = waiting.queue.front() {
            let bytes = next.bytes();
            if bytes > left && !group.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes);
            group.extend(waiting.queue.pop_front());
        }
        Some(group)
    }
}

impl Queued {
    fn bytes(&self) -> usize {
        match self {
            Self::Turn { bytes, .. } => *bytes,
            Self::Reloaded(_) => 0,
        }
    }

    fn request(&self) -> Request<'_> {
        match self {
            Self::Turn { batch, .. } => Request::Turn(batch),
            Self::Reloaded(actor) => Request::Reloaded(actor),
        }
    }
}

fn mutation_bytes(mutation: &Mutation) -> usize {
    let content = match mutation {
        Mutation::Put { key, value, .. } => key.len() + value.len(),
        Mutation::Delete { key, .. } | Mutation::Expect { key, .. } => key.len(),
        Mutation::Append { log, entry, .. } => log.len() + entry.len(),
        Mutation::Forget { log, .. } => log.len(),
    };
    content + MUTATION_OVERHEAD_BYTES
}

/// Commits groups until the store is closed.
pub(super) fn run<T: Table, F: Files>(queue: &WriteQueue, engine: &Engine<T, F>, group_bytes: usize) {
    // Should this thread ever unwind, nobody waits for it in vain.
    let _closing = CloseOnDrop(queue);
    while let Some(group) = queue.take(group_bytes) {
        let requests: Vec<Request<'_>> = group.iter().map(Queued::request).collect();
        let committed = engine.commit(&requests);
        for (queued, answer) in group.into_iter().zip(committed.answers.iter().cloned()) {
            if let Queued::Turn { batch, done, .. } = queued {
                // One completion that panics must not take the store from everybody else.
                if catch_unwind(AssertUnwindSafe(|| done(answer))).is_err() {
                    tracing::error!(actor = %batch.actor, "a completion panicked");
                }
            }
        }
        engine.settle(&committed);
    }
}

struct CloseOnDrop<'a>(&'a WriteQueue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
        let left = std::mem::take(&mut self.0.waiting.lock().unpoison().queue);
        for queued in left {
            if let Queued::Turn { done, .. } = queued {
                done(Err(CommitError::Failed { cause: "the store is closed".to_owned() }));
            }
        }
    }
}
