//! What checkers see: everything that nodes did to their seams, in the order in which it happened.

use std::sync::{Arc, Mutex, PoisonError};

use fleetd_sync_core::commit::Batch;
use fleetd_sync_core::id::ArtifactDigest;
use fleetd_sync_core::name::WorkloadName;

/// One thing that happened at a seam.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A node handed a turn to its store. It is not durable yet.
    Submitted {
        /// Which node.
        node: Arc<str>,
        /// What it wants to be stored.
        batch: Arc<Batch>,
    },
    /// The store answered a turn.
    Answered {
        /// Which node.
        node: Arc<str>,
        /// What was to be stored.
        batch: Arc<Batch>,
        /// Whether it is durable now.
        is_durable: bool,
    },
    /// A program was started on a device.
    Started {
        /// Which device.
        node: Arc<str>,
        /// Of which workload.
        workload: WorkloadName,
        /// Its artifact.
        artifact: ArtifactDigest,
    },
    /// A program ended on a device.
    Ended {
        /// Which device.
        node: Arc<str>,
        /// Of which workload.
        workload: WorkloadName,
    },
    /// A node lost its power, or its process was killed; its memory is gone.
    Died {
        /// Which node.
        node: Arc<str>,
    },
    /// A node started.
    Booted {
        /// Which node.
        node: Arc<str>,
    },
    /// A node's store was set back or emptied: what it had acknowledged since may be gone.
    Restored {
        /// Which node.
        node: Arc<str>,
    },
}

/// Where seams report to. Clones are the same tap; one that nobody drains keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Tap {
    seen: Arc<Mutex<Option<Vec<Observation>>>>,
}

impl Tap {
    /// Keeps observations from now on.
    pub fn open(&self) {
        self.lock().get_or_insert_default();
    }

    /// Whether somebody wants to know.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// Notes what happened.
    pub fn note(&self, observation: impl FnOnce() -> Observation) {
        if let Some(seen) = self.lock().as_mut() {
            seen.push(observation());
        }
    }

    /// Takes what happened since the last time.
    #[must_use]
    pub fn drain(&self) -> Vec<Observation> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Observation>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
