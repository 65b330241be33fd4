//! Randomness as a stream that is handed in: a seed from the operating system in the product, from the scenario in
//! the simulator. One stream for each purpose, so that taking one draw away leaves all others unchanged.

use std::time::Duration;

/// A stream of random bytes, the output of BLAKE3 over a seed.
///
/// # Source
/// BLAKE3 paper, section 2.6 (extendable output): the stream is indistinguishable from random without the seed.
#[derive(Clone)]
pub struct Entropy {
    key: [u8; 32],
    reader: blake3::OutputReader,
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

/// Where a stream stands: from here on it can be drawn again. Whoever has it can foretell every draw.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EntropyPosition {
    /// The stream's own seed, from which no other stream's follows.
    pub seed: [u8; 32],
    /// Bytes that were drawn.
    pub drawn_bytes: u64,
}

impl std::fmt::Debug for EntropyPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EntropyPosition({})", self.drawn_bytes)
    }
}

impl Entropy {
    /// Starts the stream of `seed`.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let reader = blake3::Hasher::new_keyed(&seed).update(b"fleetd entropy stream").finalize_xof();
        Self { key: seed, reader }
    }

    /// Starts the stream of one purpose below this one, whatever was drawn from this one before.
    #[must_use]
    pub fn stream(&self, purpose: &str) -> Self {
        Self::from_seed(*blake3::keyed_hash(&self.key, purpose.as_bytes()).as_bytes())
    }

    /// Where the stream stands.
    #[must_use]
    pub fn position(&self) -> EntropyPosition {
        EntropyPosition { seed: self.key, drawn_bytes: self.reader.position() }
    }

    /// Takes a stream up where it stood.
    #[must_use]
    pub fn at(position: EntropyPosition) -> Self {
        let mut entropy = Self::from_seed(position.seed);
        entropy.reader.set_position(position.drawn_bytes);
        entropy
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.reader.fill(bytes);
    }

    /// Draws an array.
    #[must_use]
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// Draws a number.
    #[must_use]
    pub fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Draws a number below `bound`, or 0 when `bound` is 0.
    #[must_use]
    pub fn below(&mut self, bound: u64) -> u64 {
        // The widening multiplication is biased by at most bound / 2^64, which nothing here can notice.
        u64::try_from((u128::from(self.next_u64()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// Draws a duration from zero to `ceiling`: full jitter, which spreads a herd best.
    ///
    /// # Source
    /// "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    #[must_use]
    pub fn jitter(&mut self, ceiling: Duration) -> Duration {
        let ceiling_ns = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(ceiling_ns.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_do_not_disturb_each_other() {
        let root = Entropy::from_seed([7; 32]);
        let mut first = root.stream("link");
        let mut drained = root.clone();
        let _ = drained.next_u64();
        let mut second = drained.stream("link");
        assert_eq!(first.next_u64(), second.next_u64());
        assert_ne!(root.stream("link").next_u64(), root.stream("store").next_u64());
    }

    #[test]
    fn a_stream_goes_on_where_it_stood() {
        let mut entropy = Entropy::from_seed([7; 32]);
        let _ = entropy.bytes::<37>();
        let mut other = Entropy::at(entropy.position());
        assert_eq!(other.bytes::<99>(), entropy.bytes::<99>());
        assert_eq!(other.stream("link").next_u64(), entropy.stream("link").next_u64());
    }

    #[test]
    fn draws_stay_below_their_bound() {
        let mut entropy = Entropy::from_seed([1; 32]);
        assert!((0..1000).all(|_| entropy.below(7) < 7));
        assert_eq!(entropy.below(0), 0);
        assert!(entropy.jitter(Duration::from_millis(5)) <= Duration::from_millis(5));
    }
}
