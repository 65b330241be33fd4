//! What ends a node in the middle of what it does: a fuse that blows at the N-th call that it makes to its seams.
//!
//! The power fails between two writes, two frames, two effects of one turn; not only between two events. From the call
//! on at which the fuse blew, nothing that the process asks for happens any more. Each process has a fuse of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nobody has lit it.
const WHOLE: u64 = 0;
/// The node is gone.
const BLOWN: u64 = 1;

/// One process's fuse. Clones are the same fuse.
#[derive(Clone, Debug, Default)]
pub struct Fuse {
    /// [`WHOLE`], [`BLOWN`], or one more than the calls that are left.
    state: Arc<AtomicU64>,
}

impl Fuse {
    /// Lets the node end at the N-th call from now on.
    pub fn light(&self, calls: u64) {
        self.state.store(calls.max(1).saturating_add(BLOWN), Ordering::Relaxed);
    }

    /// Takes back that it was lit, unless it has blown.
    pub fn spare(&self) {
        if !self.is_blown() {
            self.state.store(WHOLE, Ordering::Relaxed);
        }
    }

    /// Ends the process now.
    pub fn blow(&self) {
        self.state.store(BLOWN, Ordering::Relaxed);
    }

    /// Counts a call. Returns whether it happens.
    #[must_use]
    pub fn spend(&self) -> bool {
        match self.state.load(Ordering::Relaxed) {
            WHOLE => true,
            BLOWN => false,
            left => {
                self.state.store(left - 1, Ordering::Relaxed);
                left - 1 != BLOWN
            }
        }
    }

    /// Says whether the node is gone.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        self.state.load(Ordering::Relaxed) == BLOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fuse_blows_at_the_call_that_was_named_and_stays_so() {
        let fuse = Fuse::default();
        assert!(fuse.spend() && fuse.spend(), "nobody lit it");
        fuse.light(3);
        assert_eq!([fuse.spend(), fuse.spend(), fuse.spend(), fuse.spend()], [true, true, false, false]);
        assert!(fuse.is_blown());
        fuse.spare();
        assert!(fuse.is_blown(), "what has happened is not taken back");
    }
}
