//! Drivers: each carries out what one kind of machine decided, and tells what came of it.
//!
//! A driver never decides and never waits. What needs the disk is a job of the blocking seam, whose end is an input.

pub(crate) mod agent;
pub(crate) mod fetch;
pub(crate) mod log_spool;
pub(crate) mod workload;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use fleetd_sync_core::entropy::Entropy;

use crate::node::{Exchange, NodeOptions, Seams, StatusBoard};

/// What every driver of a node works with.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) seams: Seams,
    pub(crate) options: NodeOptions,
    pub(crate) board: StatusBoard,
    /// Weak, since the exchange holds the actors, and they hold this.
    exchange: Weak<Exchange>,
    loads: AtomicU64,
}

impl Surroundings {
    pub(crate) fn new(seams: Seams, options: NodeOptions, exchange: Weak<Exchange>) -> Self {
        Self { seams, options, board: StatusBoard::default(), exchange, loads: AtomicU64::new(0) }
    }

    /// The other actors, while the node lives.
    pub(crate) fn exchange(&self) -> Option<Arc<Exchange>> {
        self.exchange.upgrade()
    }

    /// A stream of randomness for one load of one actor, unlike that of any other load.
    pub(crate) fn entropy(&self, purpose: &str) -> Entropy {
        let load = self.loads.fetch_add(1, Ordering::Relaxed);
        self.seams.entropy.stream(&format!("{purpose} {load}"))
    }

    /// Does something that waits for the disk.
    pub(crate) fn run_blocking(self: &Arc<Self>, job: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let surroundings = Arc::clone(self);
        self.seams.blocking.run(Box::new(move || job(&surroundings)));
    }
}
