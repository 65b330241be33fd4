//! Maintenance windows: when a device may switch to another release, by the clock that hangs on its wall.
//!
//! A window opens by a cron expression in a time zone, and stays open for a length of time. Several are a union. On a
//! blackout's days, of the same zone, none is open. Server, agent and simulator ask the same code, and the zones' rules
//! are built in: what a plan says is what a device does, also one whose system has no zones at all.
//!
//! A time that the clocks skip in spring counts as the moment at which they skip it; one that they show twice in autumn
//! counts once, the first time. A window's length is time that passes, not what a clock shows: one of 3 hours lasts 3
//! hours in every night.

mod cron;
mod terms;
#[cfg(test)]
mod tests;
mod zone;

use std::time::Duration;

use fleetd_sync_core::time::Wall;

pub use cron::{Blackout, ParseBlackoutError, ParseWindowError, Window};
pub use terms::{DeviceTerms, ParseTermsError, Terms, TermsError, VETO_LIMIT_DEFAULT, VETO_LIMIT_MAX, ZoneChoice};
pub use zone::{UnknownZoneError, Zone};

/// Windows of one rollout.
pub const WINDOWS_MAX: usize = 8;
/// Blackouts of one rollout.
pub const BLACKOUTS_MAX: usize = 24;
/// How far ahead an opening is looked for: who waits longer than a year has written something else than was meant.
pub const OPENS_WITHIN: Duration = Duration::from_hours(366 * 24);

/// A time that passes, as people write it: `1h30m`.
#[must_use]
pub fn spell(length: Duration) -> String {
    match length.as_secs() {
        seconds if seconds % 60 != 0 => format!("{seconds}s"),
        _ => cron::show_length(length),
    }
}

/// When windows are open in one zone. Without a window it is always, but on blackout days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// The zone.
    pub zone: Zone,
    /// The windows.
    pub windows: Vec<Window>,
    /// The days on which none is open.
    pub blackouts: Vec<Blackout>,
}

impl Calendar {
    /// Says whether there are times at which none is open.
    #[must_use]
    pub const fn is_bounded(&self) -> bool {
        !(self.windows.is_empty() && self.blackouts.is_empty())
    }

    /// Says whether a window is open. None is at a date that no calendar has.
    #[must_use]
    pub fn is_open(&self, at: Wall) -> bool {
        let Some(shown) = self.zone.local(at) else { return false };
        let is_dark = self.blackouts.iter().any(|blackout| blackout.covers(shown.date()));
        !is_dark && (self.windows.is_empty() || self.windows.iter().any(|window| window.is_open(&self.zone, at)))
    }

    /// The first moment from `at` on at which a window is open; `None` when that is further off than [`OPENS_WITHIN`].
    #[must_use]
    pub fn opens(&self, at: Wall) -> Option<Wall> {
        let (last, mut moment) = (at + OPENS_WITHIN, at);
        while moment <= last {
            if self.is_open(moment) {
                return Some(moment);
            }
            moment = self.next_change(moment)?;
        }
        None
    }

    /// The first moment after `at`, when no window is open, at which one may be.
    fn next_change(&self, at: Wall) -> Option<Wall> {
        let today = self.zone.local(at)?.date();
        let dark = self.blackouts.iter().filter(|blackout| blackout.covers(today));
        let ends: Vec<_> = dark.filter_map(|blackout| self.zone.day_begins(blackout.day_after()?)).collect();
        match ends.into_iter().max().filter(|end| *end > at) {
            // No opening before the last of these days counts.
            Some(end) => Some(end),
            None => self.windows.iter().filter_map(|window| window.opens_after(&self.zone, at)).min(),
        }
    }
}
