//! What is to be done with a fleet between two events: a process that ended by itself is started again, an operator
//! who got no answer asks again.
//!
//! An event happens inside a node and has no hold on the fleet; what it asks for is noted here and done once it is over.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One thing that is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// A node's process ends, since its store takes nothing any more.
    Fail(String),
    /// A node is started again.
    Start(String),
    /// An operator looks after an errand.
    Pursue(u64),
}

/// What is to be done. Clones are the same agenda.
#[derive(Clone, Debug, Default)]
pub struct Agenda {
    tasks: Arc<Mutex<VecDeque<Task>>>,
    is_due: Arc<AtomicBool>,
}

impl Agenda {
    /// Adds something.
    pub fn add(&self, task: Task) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
        self.is_due.store(true, Ordering::Relaxed);
    }

    /// Takes what is to be done next.
    #[must_use]
    pub fn take(&self) -> Option<Task> {
        if !self.is_due.load(Ordering::Relaxed) {
            return None;
        }
        let task = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if task.is_none() {
            self.is_due.store(false, Ordering::Relaxed);
        }
        task
    }
}
