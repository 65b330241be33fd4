//! Time as machines see it: a monotonic clock for timers, a wall clock for dates, and how far to trust the latter.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on this process's monotonic clock.
///
/// # Units
/// Nanoseconds since an origin that is fixed for one run of one node. Never stored and never sent: what survives
/// a restart is a remaining time or a [`Wall`] deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// Returns the time from `earlier` to `self`, or zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A date as this node believes it.
///
/// # Units
/// Milliseconds since 1970-01-01T00:00:00Z. A device without a battery clock starts at 0: a date is for people and
/// for windows, never for ordering or for refusing a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

impl Add<Duration> for Wall {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub for Wall {
    type Output = Duration;

    /// Returns the time between two dates, or zero when the right one is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

/// How far a [`Wall`] can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClockQuality {
    /// Nothing is known: the clock may say 1970.
    #[default]
    None,
    /// At least the floor (build date, last persisted time) has passed.
    Floor,
    /// A signed beacon vouched for it.
    Beacon,
    /// The operating system says that it is synchronized.
    Synced,
}

/// The time of one turn: every decision of a turn sees the same instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers, and for nothing else.
    pub monotonic: Monotonic,
    /// For dates that people read.
    pub wall: Wall,
    /// How far `wall` can be trusted.
    pub quality: ClockQuality,
}

/// A date that has passed for certain: a clock that shows an earlier one is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClockFloor(pub Wall);

impl ClockFloor {
    /// Returns the time with no more trust in its date than the floor leaves. The date itself stays as the clock shows
    /// it: two dates of one clock still tell how long it was between them. A clock that somebody vouched for is right
    /// also below the floor: then another, earlier, was wrong.
    #[must_use]
    pub fn judge(self, now: Now) -> Now {
        let is_wrong = now.quality == ClockQuality::Floor && now.wall < self.0;
        Now { quality: if is_wrong { ClockQuality::None } else { now.quality }, ..now }
    }
}

/// Where a node reads its time: the operating system in the product, a virtual clock in the simulator.
pub trait Clock: Send + Sync + 'static {
    /// Returns the present time.
    fn now(&self) -> Now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_below_the_floor_is_not_trusted_unless_somebody_vouched_for_it() {
        let floor = ClockFloor(Wall(1000));
        let at = |wall, quality| Now { monotonic: Monotonic(7), wall: Wall(wall), quality };
        for (wall, quality, judged) in [
            (1000, ClockQuality::Floor, ClockQuality::Floor),
            (999, ClockQuality::Floor, ClockQuality::None),
            (999, ClockQuality::Beacon, ClockQuality::Beacon),
            (999, ClockQuality::Synced, ClockQuality::Synced),
            (2000, ClockQuality::None, ClockQuality::None),
        ] {
            assert_eq!(floor.judge(at(wall, quality)), at(wall, judged));
        }
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        assert_eq!(Monotonic(u64::MAX) + Duration::from_secs(1), Monotonic(u64::MAX));
        assert_eq!(Monotonic(1).since(Monotonic(5)), Duration::ZERO);
        assert_eq!(Wall(i64::MAX) + Duration::from_secs(1), Wall(i64::MAX));
        assert_eq!(Wall(0) - Wall(10), Duration::ZERO);
    }
}
