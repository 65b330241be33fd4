//! How often a credential may call, and a source address may fail or call without one: in bounded memory.
//!
//! Each key has a bucket that refills steadily (GCRA: one instant a key, at which its bucket is full again). A full
//! bucket is forgotten, so that only those are kept who called lately; beyond a number of keys, the one goes that is
//! nearest to full. A crate would do the same over a concurrent map that nothing bounds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleetd_sync_core::time::Monotonic;

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So often in a second, for as long as one likes.
    pub per_second: u32,
    /// So often at once, after a pause.
    pub burst: u32,
}

/// Why a request is not looked at now. It may be made again after a while; nothing was done for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Its credential was used too often.
    #[error("{name} calls more often than {} times a second", rate.per_second)]
    Credential {
        /// Whose token it is.
        name: String,
        /// What is allowed.
        rate: Rate,
        /// How long to wait.
        wait: Duration,
    },
    /// Too many calls from its address had no credential that counts.
    #[error("too many calls from {source_address} had no credential that counts")]
    Failures {
        /// The address, or the network that it stands for.
        source_address: IpAddr,
        /// How long to wait.
        wait: Duration,
    },
    /// Too many calls without a credential came from its address.
    #[error("too many calls without a credential come from {source_address}")]
    Open {
        /// The address, or the network that it stands for.
        source_address: IpAddr,
        /// How long to wait.
        wait: Duration,
    },
}

impl RateError {
    /// How long to wait.
    #[must_use]
    pub const fn wait(&self) -> Duration {
        match self {
            Self::Credential { wait, .. } | Self::Failures { wait, .. } | Self::Open { wait, .. } => *wait,
        }
    }
}

/// Buckets, one for each key.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    keys_max: usize,
    /// When each bucket is full again.
    full_at: Mutex<BTreeMap<K, Monotonic>>,
}

impl<K: Ord + Clone> Buckets<K> {
    pub(crate) const fn new(rate: Rate, keys_max: usize) -> Self {
        Self { rate, keys_max, full_at: Mutex::new(BTreeMap::new()) }
    }

    pub(crate) const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one from a key's bucket; when it is empty, says how long until there is one.
    ///
    /// # Errors
    /// The time to wait.
    pub(crate) fn take(&self, key: K, now: Monotonic) -> Result<(), Duration> {
        let step = Duration::from_secs(1) / self.rate.per_second.max(1);
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full = full_at.get(&key).copied().unwrap_or(now).max(now) + step;
        let over = full.since(now).saturating_sub(step * self.rate.burst.max(1));
        if over > Duration::ZERO {
            return Err(over);
        }
        if full_at.len() >= self.keys_max && !full_at.contains_key(&key) {
            full_at.retain(|_, full| *full > now);
            if full_at.len() >= self.keys_max {
                let nearest = full_at.iter().min_by_key(|(_, full)| **full).map(|(key, _)| key.clone());
                nearest.and_then(|key| full_at.remove(&key));
            }
        }
        full_at.insert(key, full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Rate = Rate { per_second: 10, burst: 5 };

    #[test]
    fn a_burst_goes_through_and_then_as_many_as_refill() {
        let (buckets, start) = (Buckets::new(TEN, 8), Monotonic(7));
        let taken = |at| (0..20).filter(|_| buckets.take("ci", at).is_ok()).count();
        assert_eq!(taken(start), 5);
        assert_eq!(buckets.take("ci", start), Err(Duration::from_millis(100)), "one comes in so long");
        assert_eq!(taken(start + Duration::from_millis(100)), 1);
        assert_eq!(taken(start + Duration::from_secs(1)), 5, "no more than a burst is saved up");
        let spread = (0..100).filter(|number| buckets.take("ana", start + Duration::from_millis(50) * *number).is_ok());
        assert_eq!(spread.count(), 5 + 49, "over five seconds, twice as often as allowed");
    }

    #[test]
    fn one_key_is_not_held_to_what_another_took() {
        let (buckets, now) = (Buckets::new(TEN, 8), Monotonic(7));
        assert!((0..20).any(|_| buckets.take("ci", now).is_err()));
        assert_eq!(buckets.take("ana", now), Ok(()));
    }

    #[test]
    fn a_flood_of_keys_is_held_in_bounded_memory_and_does_not_free_a_busy_one() {
        let (buckets, now) = (Buckets::new(TEN, 8), Monotonic(7));
        assert!((0..5).all(|_| buckets.take(0_u32, now).is_ok()));
        for key in 1..10_000 {
            assert_eq!(buckets.take(key, now), Ok(()));
        }
        assert_eq!(buckets.full_at.lock().unwrap().len(), 8);
        assert!(buckets.take(0, now).is_err(), "the emptiest bucket is the last to be forgotten");
    }
}
