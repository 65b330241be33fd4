//! The rules that every engine of actors keeps, so that two engines run the same actors alike.

use std::time::Duration;

/// Time without an input after which an idle actor is put to rest: long enough that a busy one never is.
pub const REST_AFTER: Duration = Duration::from_secs(30);
/// Time without an input after which an actor that only waits gives up its mailbox and its task. What it knows stays, so
/// that coming back costs little, and thousands that connect at once are not all there at the same time.
pub const PARK_AFTER: Duration = Duration::from_secs(2);
/// Time before a machine's next timer for which it is not worth it.
pub const PARKED_AT_LEAST: Duration = Duration::from_mins(1);
/// First pause before an actor that failed twice in a row is started again.
const RESTART_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause before an actor is started again.
const RESTART_PAUSE_LAST: Duration = Duration::from_secs(10);

/// How long an actor waits to be started again that has failed `failures` times before without a rest between: not at
/// all the first time, then longer each time.
#[must_use]
pub fn restart_pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => (RESTART_PAUSE_FIRST * 2_u32.saturating_pow(n.min(16))).min(RESTART_PAUSE_LAST),
    }
}
