//! Drivers: each carries out what one kind of machine decided, and tells what came of it.
//!
//! A driver never decides and never waits. What needs the disk is a job of the blocking seam, whose end is an input.

pub(crate) mod agent;
pub(crate) mod fetch;
pub(crate) mod log_spool;
pub(crate) mod workload;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use fleetd_actors::workload::device_queue::DeviceQueue;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::time::{ClockFloor, Now, Wall};

use crate::node::{Exchange, Flights, NodeOptions, Seams, StatusBoard};

/// What every driver of a node works with.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) seams: Seams,
    pub(crate) options: NodeOptions,
    pub(crate) board: StatusBoard,
    pub(crate) flights: Flights,
    /// Weak, since the exchange holds the actors, and they hold this.
    exchange: Weak<Exchange>,
    loads: AtomicU64,
    /// The date that is known to have passed, which the agent keeps.
    clock_floor_ms: AtomicI64,
    /// The workloads that switch, or want to.
    queue: Mutex<DeviceQueue>,
}

impl Surroundings {
    pub(crate) fn new(seams: Seams, options: NodeOptions, exchange: Weak<Exchange>, floor: ClockFloor) -> Self {
        Self {
            seams,
            options,
            board: StatusBoard::default(),
            flights: Flights::default(),
            exchange,
            loads: AtomicU64::new(0),
            clock_floor_ms: AtomicI64::new(floor.0.0),
            queue: Mutex::default(),
        }
    }

    /// The workloads that switch, or want to.
    pub(crate) fn queue(&self) -> MutexGuard<'_, DeviceQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Trusts no earlier date from now on.
    pub(crate) fn raise_clock_floor(&self, floor: ClockFloor) {
        self.clock_floor_ms.store(floor.0.0, Ordering::Relaxed);
    }

    /// The date that is known to have passed.
    pub(crate) fn clock_floor(&self) -> ClockFloor {
        ClockFloor(Wall(self.clock_floor_ms.load(Ordering::Relaxed)))
    }

    /// A driver's time with no more trust in its date than the floor leaves.
    pub(crate) fn judge(&self, now: Now) -> Now {
        self.clock_floor().judge(now)
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
