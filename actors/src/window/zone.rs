//! Time zones, from the database that is built in: every node knows the same ones, with the same rules.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use fleetd_sync_core::time::Wall;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

/// The longest name of a zone.
const NAME_CHARS_MAX: usize = 64;

/// There is no such zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no time zone: use a name such as Europe/Berlin, or utc")]
pub struct UnknownZoneError {
    name: String,
}

/// A time zone by its IANA name.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone {
    name: Arc<str>,
    rules: TimeZone,
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".into(), rules: TimeZone::UTC }
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({self})")
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Zone {
    type Err = UnknownZoneError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name.eq_ignore_ascii_case("utc") {
            return Ok(Self::default());
        }
        let shown = || name.chars().take(NAME_CHARS_MAX).collect();
        let is_name = name.len() <= NAME_CHARS_MAX && name.chars().all(|sign| sign.is_ascii_graphic());
        let found = is_name.then(|| TimeZoneDatabase::bundled().get(name).ok()).flatten();
        let rules = found.ok_or_else(|| UnknownZoneError { name: shown() })?;
        let name = rules.iana_name().unwrap_or(name).into();
        Ok(Self { name, rules })
    }
}

impl Zone {
    /// What its clocks show at a date; `None` for one that no calendar has.
    pub(super) fn local(&self, at: Wall) -> Option<DateTime> {
        Some(self.rules.to_datetime(Timestamp::from_millisecond(at.0).ok()?))
    }

    /// The first moment at which its clocks show this time or a later one. A time that they skip is the moment at which
    /// they skip it, and one that they show twice is the first of the two.
    pub(super) fn first(&self, shown: DateTime) -> Option<Wall> {
        let ambiguous = self.rules.to_ambiguous_timestamp(shown);
        let is_skipped = matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
        let found = ambiguous.compatible().ok()?;
        // What precedes a moment is strictly before it, and the skipped time may be the very first one.
        let behind = found.checked_add(SignedDuration::from_millis(1)).ok()?;
        let skip = || self.rules.preceding(behind).next().map(|transition| transition.timestamp());
        let first = if is_skipped { skip().unwrap_or(found) } else { found };
        Some(Wall(first.as_millisecond()))
    }

    /// The moment at which a day begins.
    pub(super) fn day_begins(&self, day: Date) -> Option<Wall> {
        self.first(day.to_datetime(jiff::civil::Time::midnight()))
    }

    /// A date as its clocks show it: `2026-12-24 02:00 CET`.
    #[must_use]
    pub fn show(&self, at: Wall) -> String {
        let Ok(timestamp) = Timestamp::from_millisecond(at.0) else { return at.to_string() };
        timestamp.to_zoned(self.rules.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
    }
}
