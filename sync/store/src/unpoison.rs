//! Locks outlive a panic of their holder: what they guard here is valid between any two statements.

use std::sync::{LockResult, PoisonError};

/// Takes a lock whether or not a holder panicked.
pub(crate) trait Unpoison {
    /// The lock's guard.
    type Guard;

    /// Takes the guard.
    fn unpoison(self) -> Self::Guard;
}

impl<G> Unpoison for LockResult<G> {
    type Guard = G;

    fn unpoison(self) -> G {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}
