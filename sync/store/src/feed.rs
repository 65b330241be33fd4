//! The last changes in commit order, and who is woken by the next.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use crate::state_store::{Change, Cursor, Feed, FeedError, Wake};
use crate::unpoison::Unpoison;

/// A bounded ring of changes. It is not stored: after a restart its readers scan again, which they must be able to
/// anyway, and no commit pays for a second copy of its keys.
#[derive(Debug)]
pub(crate) struct FeedRing {
    opening: u64,
    /// Position of the first change that is kept.
    first: u64,
    changes: VecDeque<Change>,
    changes_max: usize,
    /// Somebody has taken a cursor. Until then there is nobody to keep changes for.
    is_followed: bool,
}

impl FeedRing {
    /// Starts an empty feed. `opening` tells cursors of this opening of the store from those of others.
    pub(crate) fn new(opening: u64, changes_max: usize) -> Self {
        Self { opening, first: 0, changes: VecDeque::new(), changes_max, is_followed: false }
    }

    /// Appends changes and lets the oldest go.
    pub(crate) fn extend(&mut self, changes: Vec<Change>) {
        if !self.is_followed {
            self.first += changes.len() as u64;
            return;
        }
        self.changes.extend(changes);
        let excess = self.changes.len().saturating_sub(self.changes_max);
        self.changes.drain(..excess);
        self.first += excess as u64;
    }

    /// Makes every cursor too old: changes may have been missed.
    pub(crate) fn restart(&mut self) {
        self.first = self.end().position + 1;
        self.changes.clear();
    }

    /// The cursor behind the last change; from now on changes are kept.
    pub(crate) fn follow(&mut self) -> Cursor {
        self.is_followed = true;
        self.end()
    }

    fn end(&self) -> Cursor {
        Cursor { opening: self.opening, position: self.first + self.changes.len() as u64 }
    }

    /// The changes behind a cursor.
    pub(crate) fn page(&self, after: Cursor, limit: usize) -> Result<Feed, FeedError> {
        if after.opening != self.opening || after.position < self.first || after.position > self.end().position {
            return Err(FeedError::TooOld);
        }
        let skipped = usize::try_from(after.position - self.first).map_err(|_| FeedError::TooOld)?;
        let changes: Vec<Change> = self.changes.iter().skip(skipped).take(limit).cloned().collect();
        let position = after.position + changes.len() as u64;
        Ok(Feed { changes, cursor: Cursor { opening: self.opening, position } })
    }
}

#[derive(Default)]
struct Registry {
    next: u64,
    wakes: BTreeMap<u64, Wake>,
}

/// Those who are called after each commit.
#[derive(Clone, Default)]
pub(crate) struct Watchers {
    registry: Arc<Mutex<Registry>>,
}

impl fmt::Debug for Watchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watchers")
    }
}

impl Watchers {
    /// Registers a callback.
    pub(crate) fn subscribe(&self, wake: Wake) -> Subscription {
        let mut registry = self.registry.lock().unpoison();
        let id = registry.next;
        registry.next += 1;
        registry.wakes.insert(id, wake);
        Subscription { registry: Arc::downgrade(&self.registry), id }
    }

    /// Calls everybody, without holding the lock: a callback may subscribe or drop a subscription.
    pub(crate) fn wake(&self) {
        let wakes: Vec<Wake> = self.registry.lock().unpoison().wakes.values().cloned().collect();
        for wake in wakes {
            wake();
        }
    }
}

/// Keeps a callback registered until it is dropped.
#[must_use = "the callback is removed when the subscription is dropped"]
pub struct Subscription {
    registry: Weak<Mutex<Registry>>,
    id: u64,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.id)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            // The callback is dropped outside the lock: it may hold the last handle of something that subscribes.
            let wake = registry.lock().unpoison().wakes.remove(&self.id);
            drop(wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fleetd_sync_core::commit::{Revision, Space};

    use super::*;
    use crate::state_store::Changed;

    fn change(number: u64) -> Change {
        let changed = Changed::Record { space: Space::Device, key: number.to_be_bytes().to_vec(), present: true };
        Change { revision: Revision(number), changed }
    }

    #[test]
    fn a_reader_that_fell_behind_is_told_so() {
        let mut ring = FeedRing::new(1, 4);
        let start = ring.follow();
        ring.extend((1..=4).map(change).collect());
        assert_eq!(ring.page(start, 10).unwrap().changes.len(), 4);
        ring.extend(vec![change(5)]);
        assert_eq!(ring.page(start, 10), Err(FeedError::TooOld));
        assert_eq!(ring.page(ring.end(), 10).unwrap().changes, vec![]);
    }

    #[test]
    fn pages_follow_each_other_without_loss() {
        let mut ring = FeedRing::new(1, 100);
        let mut cursor = ring.follow();
        ring.extend((1..=7).map(change).collect());
        let mut seen = Vec::new();
        for _ in 0..4 {
            let page = ring.page(cursor, 2).unwrap();
            seen.extend(page.changes.iter().map(|change| change.revision.0));
            cursor = page.cursor;
        }
        assert_eq!(seen, (1..=7).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_kept_until_somebody_follows() {
        let mut ring = FeedRing::new(1, 100);
        ring.extend((1..=3).map(change).collect());
        assert_eq!(ring.changes.len(), 0);
        let cursor = ring.follow();
        ring.extend(vec![change(4)]);
        assert_eq!(ring.page(cursor, 10).unwrap().changes, vec![change(4)]);
    }

    #[test]
    fn a_cursor_of_another_opening_is_too_old() {
        let ring = FeedRing::new(2, 100);
        assert_eq!(ring.page(FeedRing::new(1, 100).follow(), 1), Err(FeedError::TooOld));
    }

    #[test]
    fn a_dropped_subscription_is_woken_no_more() {
        let watchers = Watchers::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        let subscription = watchers.subscribe(Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        watchers.wake();
        drop(subscription);
        watchers.wake();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
    }
}
