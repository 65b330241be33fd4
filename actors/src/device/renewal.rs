//! When a device is asked to renew its certificate.
//!
//! Devices ignore dates: a clock at 1970 is normal. So the server, which judges certificates, says when one has lasted half
//! of its time, and it says so on a connection that has stood for months, too. A device that does not heed it is let in to
//! renew once the certificate has run out ([`fleetd_sync_core::session::Grade::RenewOnly`]).

use std::time::Duration;

use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::limit;
use fleetd_sync_core::time::{Monotonic, Now, Wall};

/// Longest time after which the date is looked at again: the server's own clock may have been set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// When the device of one connection is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    due_at: Wall,
    look_at: Monotonic,
}

impl Renewal {
    /// For a connection on which a certificate was shown.
    pub(super) fn new(now: Now, device: LocalId, not_after: Wall) -> Self {
        Self { due_at: due_at(device, not_after), look_at: now.monotonic }
    }

    /// When [`Renewal::is_due`] should be asked next.
    pub(super) const fn poll_timeout(&self) -> Monotonic {
        self.look_at
    }

    /// Says whether the device is to be asked now.
    pub(super) fn is_due(&mut self, now: Now) -> bool {
        if now.monotonic < self.look_at {
            return false;
        }
        let is_due = now.wall >= self.due_at;
        let pause = if is_due { limit::RENEWAL_ASKED_EVERY } else { (self.due_at - now.wall).min(LOOK_EVERY) };
        self.look_at = now.monotonic + pause;
        is_due
    }
}

/// Half of a certificate's time, and a device's own share of [`limit::RENEWAL_SPREAD`] after it.
fn due_at(device: LocalId, not_after: Wall) -> Wall {
    let [first, second, ..] = *device.as_bytes();
    let share = limit::RENEWAL_SPREAD / (u32::from(u16::MAX) + 1) * u32::from(u16::from_be_bytes([first, second]));
    let half = i64::try_from((limit::DEVICE_CERTIFICATE_LIFETIME / 2).as_millis()).unwrap_or(i64::MAX);
    Wall(not_after.0.saturating_sub(half)) + share
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetd_sync_core::time::ClockQuality;

    const NOT_AFTER: Wall = Wall(2_000_000_000_000);
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn device(first: u8) -> LocalId {
        let mut bytes = [0; 16];
        bytes[0] = first;
        LocalId::from_bytes(bytes)
    }

    fn now(monotonic: Monotonic, wall: Wall) -> Now {
        Now { monotonic, wall, quality: ClockQuality::Synced }
    }

    #[test]
    fn devices_are_asked_after_half_of_the_time_and_not_all_at_once() {
        let (first, last) = (due_at(device(0), NOT_AFTER), due_at(device(255), NOT_AFTER));
        assert_eq!(NOT_AFTER - first, limit::DEVICE_CERTIFICATE_LIFETIME / 2);
        assert!(last - first > limit::RENEWAL_SPREAD * 9 / 10 && last - first < limit::RENEWAL_SPREAD);
    }

    #[test]
    fn a_connection_that_lasts_is_asked_when_the_day_comes_and_then_once_a_day() {
        let due = due_at(device(0), NOT_AFTER);
        let begin = Monotonic::default();
        let early = Wall(due.0 - i64::try_from((DAY * 10).as_millis()).unwrap());
        let mut renewal = Renewal::new(now(begin, early), device(0), NOT_AFTER);
        let mut asked = Vec::new();
        for _ in 0..5 {
            let at = renewal.poll_timeout();
            if renewal.is_due(now(at, early + at.since(begin))) {
                asked.push(at.since(begin));
            }
        }
        assert_eq!(asked, [DAY * 10, DAY * 11, DAY * 12], "looked at on days 0, 7, 10, 11 and 12");
    }

    #[test]
    fn a_clock_that_is_set_right_is_noticed_within_a_week() {
        let begin = Monotonic::default();
        let mut renewal = Renewal::new(now(begin, Wall(0)), device(0), NOT_AFTER);
        assert!(!renewal.is_due(now(begin, Wall(0))), "the server believes that it is 1970");
        assert_eq!(renewal.poll_timeout(), begin + LOOK_EVERY);
        assert!(renewal.is_due(now(begin + LOOK_EVERY, NOT_AFTER)));
    }
}
