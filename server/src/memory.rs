//! Memory that a rush leaves behind. Thousands of handshakes leave free pieces between what stays of them, and the
//! allocator of glibc keeps their pages for good: some 8 KB for each device that came back. They go back to the system
//! once the rush is over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::node::Shared;

/// Time between two looks at whether there was a rush.
const LOOKED_EVERY: Duration = Duration::from_secs(10);
/// Connections that came or went, from which on what they left is worth a look at all of the heap.
const RUSH_MIN: u64 = 256;

/// What was seen of connections so far.
#[derive(Debug, Default)]
struct Rush {
    /// At the last look.
    seen: u64,
    /// When memory was given back last.
    given_back_at: u64,
}

impl Rush {
    /// Says whether a rush is over: many connections have come or gone since memory was given back, and none since the
    /// last look.
    const fn is_over(&mut self, moves: u64) -> bool {
        let is_quiet = moves == self.seen;
        self.seen = moves;
        let is_over = is_quiet && moves - self.given_back_at >= RUSH_MIN;
        if is_over {
            self.given_back_at = moves;
        }
        is_over
    }
}

/// Gives memory back after each rush, until it is dropped.
pub(crate) async fn give_back(shared: Arc<Shared>) {
    let (mut rush, mut looks) = (Rush::default(), interval(LOOKED_EVERY));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if rush.is_over(shared.connections.moves()) && tokio::task::spawn_blocking(trim).await.is_err() {
            tracing::debug!("memory was not given back");
        }
    }
}

/// Gives back the pages in which nothing lies.
#[expect(unsafe_code, reason = "glibc has no other way to it, and the call takes no memory from anybody")]
fn trim() {
    // SAFETY: it takes no pointer, and may be called from any thread at any time (malloc_trim(3)).
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rush_is_over_once_when_nobody_comes_any_more() {
        let mut rush = Rush::default();
        let looks = [0, RUSH_MIN - 1, RUSH_MIN - 1, RUSH_MIN, 5_000, 5_000, 5_000, 5_100, 5_100, 5_256, 5_256, 5_256];
        let over: Vec<bool> = looks.iter().map(|moves| rush.is_over(*moves)).collect();
        let expected = [false, false, false, false, false, true, false, false, false, false, true, false];
        assert_eq!(over, expected, "who comes by dozens leaves nothing worth a look");
    }

    #[test]
    fn what_was_freed_goes_back_and_the_rest_stays() {
        let kept: Vec<Vec<u8>> = (0..1000).map(|number| vec![u8::try_from(number % 251).unwrap_or(0); 4096]).collect();
        trim();
        assert!(
            kept.iter().zip(0..).all(|(piece, number)| piece.iter().all(|byte| usize::from(*byte) == number % 251))
        );
    }
}
