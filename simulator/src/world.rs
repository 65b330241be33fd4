//! The world: virtual time and one queue of what will happen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::time::{Monotonic, Wall};

use crate::clock::new_year_2026;
use crate::coverage::Coverage;
use crate::trace::Trace;
use crate::watch::Watch;

/// What happens at an event.
pub type Action = Box<dyn FnOnce() + Send>;
/// An actor's timer, among the events that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer(Monotonic, u64);

/// Who lets an event happen, in place of a plain call.
pub type Taker = Arc<dyn Fn(Action) + Send + Sync>;

struct Event {
    name: EventName,
    action: Action,
}

/// To whom an event happens, and what it is: two texts in one piece of memory, since most of a large world's memory
/// traffic is events.
struct EventName {
    text: Box<[u8]>,
    subject_bytes: usize,
}

impl EventName {
    fn new(subject: &str, what: &[u8]) -> Self {
        Self { text: [subject.as_bytes(), what].concat().into(), subject_bytes: subject.len() }
    }

    fn parts(&self) -> (&str, &[u8]) {
        let (subject, what) = self.text.split_at_checked(self.subject_bytes).unwrap_or_default();
        (str::from_utf8(subject).unwrap_or_default(), what)
    }
}

struct Queue {
    now: Monotonic,
    /// The date at which it begins.
    begins: Wall,
    next: u64,
    events: BTreeMap<(Monotonic, u64), Event>,
    trace: Trace,
    taker: Option<Taker>,
}

/// The world of one run. Clones are the same world.
#[derive(Clone)]
pub struct World {
    queue: Arc<Mutex<Queue>>,
    entropy: Entropy,
    watch: Watch,
    coverage: Coverage,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({:?})", self.monotonic())
    }
}

impl World {
    /// A world that depends on `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::watched(seed, Watch::default())
    }

    /// Such a world, some of whose events somebody watches.
    #[must_use]
    pub fn watched(seed: u64, watch: Watch) -> Self {
        let queue = Queue {
            now: Monotonic(0),
            begins: new_year_2026(),
            next: 0,
            events: BTreeMap::new(),
            trace: Trace::default(),
            taker: None,
        };
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(seed.to_le_bytes()).for_each(|(byte, seed)| *byte = seed);
        Self {
            queue: Arc::new(Mutex::new(queue)),
            entropy: Entropy::from_seed(bytes),
            watch,
            coverage: Coverage::default(),
        }
    }

    /// The stream of one purpose; whatever is drawn from it, the other streams stay as they are.
    #[must_use]
    pub fn entropy(&self, purpose: &str) -> Entropy {
        self.entropy.stream(purpose)
    }

    /// Lets it begin at another date than a scenario's usual one; before anybody in it has looked at a clock.
    pub fn begin_at(&self, begins: Wall) {
        self.lock().begins = begins;
    }

    /// The date at which it begins.
    #[must_use]
    pub fn begins(&self) -> Wall {
        self.lock().begins
    }

    /// The present.
    #[must_use]
    pub fn monotonic(&self) -> Monotonic {
        self.lock().now
    }

    /// Lets something happen after `delay`. `subject` and `what` name it in the trace.
    pub fn schedule(&self, delay: Duration, subject: &str, what: &[u8], action: impl FnOnce() + Send + 'static) {
        self.insert(delay, subject, what, Box::new(action));
    }

    /// Lets an actor's timer go off after `delay`, unless it is taken back before.
    pub(crate) fn arm(&self, delay: Duration, subject: &str, action: impl FnOnce() + Send + 'static) -> Timer {
        self.insert(delay, subject, b"due", Box::new(action))
    }

    /// Takes a timer back; one that has gone off stays as it is.
    pub(crate) fn disarm(&self, Timer(at, order): Timer) {
        // It is dropped when the queue is free again: it may hold the last word of an actor.
        let taken_back = self.lock().events.remove(&(at, order));
        drop(taken_back);
    }

    fn insert(&self, delay: Duration, subject: &str, what: &[u8], action: Action) -> Timer {
        let mut queue = self.lock();
        let at = queue.now + delay;
        let order = queue.next;
        queue.next += 1;
        let event = Event { name: EventName::new(subject, what), action };
        queue.events.insert((at, order), event);
        Timer(at, order)
    }

    /// Lets `taker` make each event happen from now on.
    pub fn take_events_with(&self, taker: Taker) {
        self.lock().taker = Some(taker);
    }

    /// Lets the next event happen; false when there is none.
    pub fn step(&self) -> bool {
        let (action, taker) = {
            let mut queue = self.lock();
            let Some(((at, _), event)) = queue.events.pop_first() else { return false };
            queue.now = at;
            let (subject, what) = event.name.parts();
            queue.trace.record(at, subject, what);
            self.watch.begin(queue.trace.events(), at, subject, what);
            (event.action, queue.taker.clone())
        };
        match taker {
            Some(taker) => taker(action),
            None => action(),
        }
        self.watch.end();
        true
    }

    /// Runs until `done` holds, and returns the time it took; `None` when `limit` passed first.
    pub fn run_until(&self, limit: Duration, mut done: impl FnMut() -> bool) -> Option<Duration> {
        let begin = self.monotonic();
        let end = begin + limit;
        loop {
            if done() {
                return Some(self.monotonic().since(begin));
            }
            if self.next_at().is_none_or(|at| at > end) {
                return None;
            }
            self.step();
        }
    }

    /// Runs everything that happens within `span`, and lets the clock stand at its end.
    pub fn run_for(&self, span: Duration) {
        let end = self.monotonic() + span;
        while self.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.stand_at(end);
    }

    /// Lets the clock stand at a time before which nothing more happens.
    ///
    /// # Panics
    /// When something would have happened before.
    pub fn stand_at(&self, at: Monotonic) {
        assert!(self.next_at().is_none_or(|next| next >= at), "the clock would pass over an event");
        let mut queue = self.lock();
        queue.now = queue.now.max(at);
    }

    /// How many events there were, and the hash over them.
    #[must_use]
    pub fn trace(&self) -> (u64, u64) {
        let queue = self.lock();
        (queue.trace.events(), queue.trace.hash())
    }

    /// The hash after each [`CHECKPOINT_EVENTS`](crate::trace::CHECKPOINT_EVENTS) events.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<u64> {
        self.lock().trace.checkpoints().to_vec()
    }

    /// Who watches.
    #[must_use]
    pub const fn watch(&self) -> &Watch {
        &self.watch
    }

    /// What its machines were seen to go through.
    #[must_use]
    pub const fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// When the next event happens.
    #[must_use]
    pub fn next_at(&self) -> Option<Monotonic> {
        self.lock().events.first_key_value().map(|((at, _), _)| *at)
    }

    /// How many events wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().events.len()
    }

    /// For whom the most events wait, and how many.
    #[must_use]
    pub fn waited_for_most(&self) -> Option<(String, usize)> {
        let queue = self.lock();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        queue.events.values().for_each(|event| *counts.entry(event.name.parts().0).or_default() += 1);
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(subject, count)| (subject.to_owned(), count))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_happen_in_order_of_time_then_of_scheduling() {
        let world = World::new(1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for (delay_ms, name) in [(5, "late"), (1, "first"), (1, "second")] {
            let seen = Arc::clone(&seen);
            world.schedule(Duration::from_millis(delay_ms), "test", b"", move || seen.lock().unwrap().push(name));
        }
        world.run_for(Duration::from_secs(1));
        assert_eq!(*seen.lock().unwrap(), ["first", "second", "late"]);
        assert_eq!(world.monotonic(), Monotonic(0) + Duration::from_secs(1));
    }
}
