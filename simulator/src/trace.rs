//! What happened, as one number: two runs that differ anywhere differ here.

use fleetd_sync_core::time::Monotonic;

/// Events between two checkpoints of the hash: few enough to look at one by one where two runs part, and a hash of
/// that many costs next to nothing.
pub const CHECKPOINT_EVENTS: u64 = 10_000;

/// A rolling hash over everything that happened.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hasher: blake3::Hasher,
    events: u64,
    checkpoints: Vec<u64>,
}

impl Trace {
    /// Adds one event: when, to whom, and what.
    pub fn record(&mut self, at: Monotonic, subject: &str, what: &[u8]) {
        self.events += 1;
        self.hasher.update(&at.0.to_le_bytes());
        self.hasher.update(&length(subject.len())).update(subject.as_bytes());
        self.hasher.update(&length(what.len())).update(what);
        if self.events.is_multiple_of(CHECKPOINT_EVENTS) {
            self.checkpoints.push(self.hash());
        }
    }

    /// How many events there were.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The hash after each [`CHECKPOINT_EVENTS`] events.
    #[must_use]
    pub fn checkpoints(&self) -> &[u64] {
        &self.checkpoints
    }

    /// The hash of all events so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

fn length(length: usize) -> [u8; 8] {
    u64::try_from(length).unwrap_or(u64::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_tells_order_time_and_content_apart() {
        let hash = |events: &[(u64, &str, &[u8])]| {
            let mut trace = Trace::default();
            for (at, subject, what) in events {
                trace.record(Monotonic(*at), subject, what);
            }
            trace.hash()
        };
        let base = hash(&[(1, "a", b"x"), (2, "b", b"y")]);
        assert_eq!(base, hash(&[(1, "a", b"x"), (2, "b", b"y")]));
        assert_ne!(base, hash(&[(2, "b", b"y"), (1, "a", b"x")]));
        assert_ne!(base, hash(&[(1, "a", b"x"), (3, "b", b"y")]));
        assert_ne!(base, hash(&[(1, "ax", b""), (2, "b", b"y")]));
    }
}
