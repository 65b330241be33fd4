//! One node's clock: the world's monotonic time, and a wall clock that may be wrong in every way that clocks are.
//!
//! A wall clock outlives its node's process. Whatever happens to it, monotonic time goes on as it was: timers read
//! nothing else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_sync_core::time::{Clock, ClockQuality, Monotonic, Now, Wall};

use crate::world::World;

/// Parts in a million, in which drift is told.
const MILLION: i64 = 1_000_000;

/// A wall clock: what it showed once, and how fast it has gone since.
#[derive(Clone, Copy, Debug)]
struct WallClock {
    at: Monotonic,
    shown: Wall,
    drift_ppm: i64,
    /// Whether somebody vouches for it: NTP, on a server.
    is_synced: bool,
}

impl WallClock {
    fn read(self, now: Monotonic) -> Wall {
        let elapsed_ms = i64::try_from(now.since(self.at).as_millis()).unwrap_or(i64::MAX);
        // Whole seconds first: ten years in milliseconds times a drift would not fit.
        let drifted_ms = (elapsed_ms / 1000).saturating_mul(self.drift_ppm) / (MILLION / 1000);
        Wall(self.shown.0.saturating_add(elapsed_ms).saturating_add(drifted_ms))
    }
}

/// A node's clock in the world. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct NodeClock {
    world: World,
    wall: Arc<Mutex<WallClock>>,
}

impl NodeClock {
    /// A clock that is right.
    #[must_use]
    pub fn right(world: World, is_synced: bool) -> Self {
        let wall = WallClock { at: Monotonic(0), shown: world.begins(), drift_ppm: 0, is_synced };
        Self { world, wall: Arc::new(Mutex::new(wall)) }
    }

    /// The time that it should show.
    #[must_use]
    pub fn true_time(&self) -> Wall {
        self.world.begins() + self.world.monotonic().since(Monotonic(0))
    }

    /// Steps the wall clock.
    pub fn jump(&self, to: Wall) {
        let now = self.world.monotonic();
        let mut wall = self.lock();
        (wall.at, wall.shown) = (now, to);
    }

    /// Steps the wall clock by so many milliseconds, forwards or back.
    pub fn shift(&self, by_ms: i64) {
        let shown = self.lock().read(self.world.monotonic());
        self.jump(Wall(shown.0.saturating_add(by_ms)));
    }

    /// Lets the wall clock gain so many millionths from now on, or lose them.
    pub fn drift(&self, drift_ppm: i64) {
        let now = self.world.monotonic();
        let mut wall = self.lock();
        (wall.at, wall.shown) = (now, wall.read(now));
        wall.drift_ppm = drift_ppm;
    }

    /// Sets the wall clock right, as NTP does.
    pub fn set_right(&self) {
        self.drift(0);
        self.jump(self.true_time());
    }

    fn lock(&self) -> MutexGuard<'_, WallClock> {
        self.wall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Now {
        let monotonic = self.world.monotonic();
        let clock = *self.lock();
        let wall = clock.read(monotonic);
        // As the product's own clock judges: below the build's date no clock is right.
        let quality = match clock.is_synced {
            true => ClockQuality::Synced,
            false if wall < new_year_2026() => ClockQuality::None,
            false => ClockQuality::Floor,
        };
        Now { monotonic, wall, quality }
    }
}

/// The date so much earlier than another.
pub(crate) fn earlier(date: Wall, span: Duration) -> Wall {
    Wall(date.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
}

/// The date at which scenarios begin that name no other: 2026-01-01T00:00:00Z. Programs were built before it.
#[must_use]
pub fn new_year_2026() -> Wall {
    Wall(0) + Duration::from_secs(1_767_225_600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_or_drifts_leaves_monotonic_time_alone() {
        let world = World::new(1);
        let clock = NodeClock::right(world.clone(), false);
        world.run_for(Duration::from_secs(100));
        assert_eq!(clock.now().wall, new_year_2026() + Duration::from_secs(100));
        assert_eq!(clock.now().quality, ClockQuality::Floor);

        clock.jump(Wall(0));
        world.run_for(Duration::from_secs(10));
        let now = clock.now();
        assert_eq!((now.wall, now.quality), (Wall(10_000), ClockQuality::None));
        assert_eq!(now.monotonic, Monotonic(0) + Duration::from_secs(110));

        clock.drift(200_000);
        world.run_for(Duration::from_secs(10));
        assert_eq!(clock.now().wall, Wall(22_000));
        clock.shift(-30_000);
        assert_eq!(clock.now().wall, Wall(-8_000), "there are dates before 1970");

        clock.set_right();
        world.run_for(Duration::from_secs(1));
        assert_eq!(clock.now().wall, new_year_2026() + Duration::from_secs(121));
    }
}
