//! Who waits for what: an actor's answer to an operation goes to the one who asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::OperationId;

use crate::receipt::receipt;

/// Receipts of operations that no actor has answered. An actor that is loaded again drops what it was asked, and its
/// receipts with it: so many are kept before the first goes.
const RECEIPTS_MAX: usize = 4096;

/// Takes an answer, once.
pub type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Operations that are open, each with the one who waits for its answer.
pub struct Answers<T> {
    open: Mutex<Open<T>>,
}

struct Open<T> {
    entropy: Entropy,
    replies: BTreeMap<OperationId, Reply<T>>,
    /// What is to be stored with the change that an operation asks for. It outlives the one who asked: the change may
    /// be made when nobody waits for it any more.
    receipts: BTreeMap<OperationId, Vec<Mutation>>,
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
        Self { open: Mutex::new(Open { entropy, replies: BTreeMap::new(), receipts: BTreeMap::new() }) }
    }

    /// Opens an operation whose answer goes to `reply`. The receipt that is in scope goes with it.
    pub fn open(&self, reply: Reply<T>) -> OperationId {
        let receipt = receipt();
        let mut open = self.lock();
        let operation = OperationId::random(&mut open.entropy);
        open.replies.insert(operation, reply);
        if !receipt.is_empty() {
            if open.receipts.len() >= RECEIPTS_MAX {
                open.receipts.pop_first();
            }
            open.receipts.insert(operation, receipt);
        }
        operation
    }

    /// Takes what is to be stored with the change that an operation asked for.
    pub fn take_receipt(&self, operation: OperationId) -> Vec<Mutation> {
        self.lock().receipts.remove(&operation).unwrap_or_default()
    }

    /// Gives an operation its answer; one that nobody waits for is dropped.
    pub fn answer(&self, operation: OperationId, answer: T) {
        let reply = {
            let mut open = self.lock();
            open.receipts.remove(&operation);
            open.replies.remove(&operation)
        };
        if let Some(reply) = reply {
            reply(answer);
        }
    }

    /// Forgets an operation whose asker has gone.
    pub fn forget(&self, operation: OperationId) {
        self.lock().replies.remove(&operation);
    }

    /// Forgets every operation.
    pub fn forget_all(&self) {
        let forgotten = std::mem::take(&mut self.lock().replies);
        drop(forgotten); // Without the lock: who is forgotten may hold others.
    }

    fn lock(&self) -> MutexGuard<'_, Open<T>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
