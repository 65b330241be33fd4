//! The operating system's clock and entropy: what a node reads where the simulator has its own.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::time::{Clock, ClockQuality, Monotonic, Now, Wall};

/// The build's date, below which no clock is right: 2026-11-01T00:00:00Z.
///
/// # Units
/// Milliseconds since 1970.
pub const BUILD_FLOOR: Wall = Wall(1_793_491_200_000);

/// The operating system's clock. Its monotonic time begins when it is made.
#[derive(Clone, Debug)]
pub struct SystemClock {
    begin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { begin: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let monotonic = Monotonic(u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        let wall = wall_now();
        let quality = if wall < BUILD_FLOOR { ClockQuality::None } else { ClockQuality::Floor };
        Now { monotonic, wall, quality }
    }
}

fn wall_now() -> Wall {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Wall(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
        Err(before) => Wall(i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms)),
    }
}

/// The operating system gives no random bytes: nothing that needs a key can go on.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gives no random bytes: {cause}")]
pub struct NoEntropyError {
    cause: String,
}

/// Starts a stream from the operating system's random bytes.
///
/// # Errors
/// [`NoEntropyError`] when it gives none.
pub fn system_entropy() -> Result<Entropy, NoEntropyError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| NoEntropyError { cause: error.to_string() })?;
    Ok(Entropy::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_begins_with_the_clock_and_never_falls() {
        let clock = SystemClock::default();
        let (first, second) = (clock.now(), clock.now());
        assert!(first.monotonic <= second.monotonic);
        assert!(first.monotonic < Monotonic(60_000_000_000));
    }

    #[test]
    fn two_streams_of_the_operating_system_differ() {
        assert_ne!(system_entropy().unwrap().next_u64(), system_entropy().unwrap().next_u64());
    }
}
