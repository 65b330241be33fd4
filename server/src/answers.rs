//! Who waits for what: an actor's answer to an operation goes to the one who asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::OperationId;

/// Takes an answer, once.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Operations that are open, each with the one who waits for its answer.
pub struct Answers<T> {
    open: Mutex<(Entropy, BTreeMap<OperationId, Reply<T>>)>,
}

impl<T> std::fmt::Debug for Answers<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answers")
    }
}

impl<T> Answers<T> {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(entropy: Entropy) -> Self {
        Self { open: Mutex::new((entropy, BTreeMap::new())) }
    }

    /// Opens an operation whose answer goes to `reply`.
    pub fn open(&self, reply: Reply<T>) -> OperationId {
        let mut open = self.lock();
        let operation = OperationId::random(&mut open.0);
        open.1.insert(operation, reply);
        operation
    }

    /// Gives an operation its answer; one that nobody waits for is dropped.
    pub fn answer(&self, operation: OperationId, answer: T) {
        let reply = self.lock().1.remove(&operation);
        if let Some(reply) = reply {
            reply(answer);
        }
    }

    /// Forgets an operation whose asker has gone.
    pub fn forget(&self, operation: OperationId) {
        self.lock().1.remove(&operation);
    }

    fn lock(&self) -> MutexGuard<'_, (Entropy, BTreeMap<OperationId, Reply<T>>)> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
