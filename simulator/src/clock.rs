//! One node's clock: the world's monotonic time since the node started, and a wall clock that may be wrong.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetd_sync_core::time::{Clock, ClockQuality, Monotonic, Now, Wall};

use crate::world::World;

/// A node's clock in the world.
#[derive(Clone, Debug)]
pub struct NodeClock {
    world: World,
    wall: Arc<Mutex<(Wall, ClockQuality)>>,
}

impl NodeClock {
    /// A clock whose wall stands at `wall` when the world begins.
    #[must_use]
    pub fn new(world: World, wall: Wall, quality: ClockQuality) -> Self {
        Self { world, wall: Arc::new(Mutex::new((wall, quality))) }
    }

    /// Steps the wall clock: `wall` is what it would have shown when the world began.
    pub fn step_to(&self, wall: Wall, quality: ClockQuality) {
        *self.wall.lock().unwrap_or_else(PoisonError::into_inner) = (wall, quality);
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Now {
        let monotonic = self.world.monotonic();
        let (begin, quality) = *self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        Now { monotonic, wall: begin + monotonic.since(Monotonic(0)), quality }
    }
}

/// A wall clock's usual beginning in a scenario: 2026-01-01T00:00:00Z.
#[must_use]
pub fn new_year_2026() -> Wall {
    Wall(0) + Duration::from_secs(1_767_225_600)
}
