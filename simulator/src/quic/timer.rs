//! Timers of QUIC as events of the world: one event for the earliest of them, whoever has it.
//!
//! A connection moves its timer with almost every packet. An event for each move would fill the queue with what never
//! happens, so the queue holds only the earliest time, and when that comes, whatever is due is woken in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use fleetd_sync_core::time::Monotonic;
use quinn::AsyncTimer;

use crate::world::World;

/// What traces call an event at which timers are due.
const SUBJECT: &str = "quic";

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Who waits, by when and then by which timer was made first.
    wakers: BTreeMap<(Monotonic, u64), Waker>,
    /// Times for which the world has an event.
    scheduled: BTreeSet<Monotonic>,
}

/// The timers of one world. Clones are the same.
#[derive(Clone)]
pub(super) struct Timers {
    world: World,
    /// What the world's beginning is called in the language of QUIC. Only differences from it are ever looked at.
    begin: Instant,
    waiting: Arc<Mutex<Waiting>>,
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timers")
    }
}

impl Timers {
    /// The timers of a world.
    #[must_use]
    pub(super) fn of(world: World) -> Self {
        Self { world, begin: Instant::now(), waiting: Arc::default() }
    }

    /// The world's time as QUIC reads it.
    #[must_use]
    pub(super) fn now(&self) -> Instant {
        self.begin + self.world.monotonic().since(Monotonic(0))
    }

    /// A timer that is due at a time.
    #[must_use]
    pub(super) fn timer(&self, at: Instant) -> Timer {
        let number = {
            let mut waiting = self.lock();
            waiting.next += 1;
            waiting.next
        };
        Timer { timers: self.clone(), number, at: self.moment(at) }
    }

    fn moment(&self, at: Instant) -> Monotonic {
        Monotonic(0) + at.saturating_duration_since(self.begin)
    }

    fn wait(&self, key: (Monotonic, u64), waker: Waker) {
        let mut waiting = self.lock();
        let before = waiting.wakers.insert(key, waker);
        self.schedule(&mut waiting);
        drop(waiting);
        // A waker may be the last that holds a task, and a task has timers: it goes when nothing is locked.
        drop(before);
    }

    fn forget(&self, key: (Monotonic, u64)) -> Option<Waker> {
        self.lock().wakers.remove(&key)
    }

    /// Sees to it that the world has an event for the earliest timer.
    fn schedule(&self, waiting: &mut Waiting) {
        let Some(((earliest, _), _)) = waiting.wakers.first_key_value() else { return };
        let (earliest, covered) = (*earliest, waiting.scheduled.first());
        if covered.is_some_and(|covered| *covered <= earliest) {
            return;
        }
        waiting.scheduled.insert(earliest);
        let (timers, wait) = (self.clone(), earliest.since(self.world.monotonic()));
        self.world.schedule(wait, SUBJECT, b"timers", move || timers.fire(earliest));
    }

    fn fire(&self, at: Monotonic) {
        let due: Vec<Waker> = {
            let mut waiting = self.lock();
            waiting.scheduled.remove(&at);
            let later = waiting.wakers.split_off(&(Monotonic(at.0.saturating_add(1)), 0));
            let due = std::mem::replace(&mut waiting.wakers, later);
            self.schedule(&mut waiting);
            due.into_values().collect()
        };
        due.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One timer.
#[derive(Debug)]
pub(super) struct Timer {
    timers: Timers,
    number: u64,
    at: Monotonic,
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        let (before, at) = ((self.at, self.number), self.timers.moment(at));
        self.at = at;
        if let Some(waker) = self.timers.forget(before) {
            self.timers.wait((at, self.number), waker);
        }
    }

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let key = (self.at, self.number);
        if self.at.since(self.timers.world.monotonic()) > Duration::ZERO {
            self.timers.wait(key, context.waker().clone());
            return Poll::Pending;
        }
        drop(self.timers.forget(key));
        Poll::Ready(())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        drop(self.timers.forget((self.at, self.number)));
    }
}
