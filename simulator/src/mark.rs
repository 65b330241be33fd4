//! Marks: things that ought to happen in some run of a set. A set in which one never did proves less than it seems.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Every mark, in order.
pub const ALL: [&str; 1] = ["a lane began a further epoch"];

/// How often each mark was reached. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    reached: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Marks {
    /// Notes that something happened that ought to happen sometimes.
    pub fn reach(&self, mark: &'static str) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner).entry(mark).or_default() += 1;
    }

    /// How often each was reached.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
