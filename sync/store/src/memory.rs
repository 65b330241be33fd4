//! The in-memory twin: the same store over a medium that can fail in every way that a disk can.
//!
//! It runs the engine and the segment logs of the real store; only the table and the files below are its own. A
//! store made by [`MemoryStore::immediate`] commits within `submit`; one made by [`MemoryStore::manual`] queues
//! turns until [`MemoryStore::step`] makes the next group durable and answers it, so that batch boundaries and
//! completions are the caller's events.

#[cfg(test)]
mod fuzz;
mod medium;

use std::collections::VecDeque;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fleetd_sync_core::commit::{ActorKey, Batch, Commit, Completion, Revision, Space};
use fleetd_sync_core::entropy::Entropy;

pub use self::medium::{Fault, Image};
use self::medium::{Medium, Session};
use crate::commit_group::Request;
use crate::copy::{CopyStore, TakePiece};
use crate::engine::Engine;
use crate::feed::Subscription;
use crate::open_error::OpenStoreError;
use crate::record::STORE_END;
use crate::state_store::{Cursor, Feed, FeedError, Found, KeyRange, LogPart, ReadError, StateStore, Versioned, Wake};
use crate::unpoison::Unpoison;

/// Changes that the twin's feed keeps.
const FEED_CHANGES_MAX: usize = 1024;
/// Events that [`MemoryStore::events`] keeps.
const EVENTS_KEPT: usize = 4096;
/// A turn that the power cut meets is cut within its first few writing operations.
const CUT_OPERATIONS: u64 = 6;

/// Who decides when queued turns become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Immediate,
    Manual,
}

/// What happened to a turn, named by the order of its submission from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// It is durable.
    Durable(u64),
    /// Its completion is about to be called.
    Completed {
        /// The turn.
        turn: u64,
        /// Whether it succeeded.
        is_ok: bool,
    },
}

enum Queued {
    Turn { number: u64, batch: Batch, done: Completion },
    Reloaded(ActorKey),
}

impl Queued {
    fn request(&self) -> Request<'_> {
        match self {
            Self::Turn { batch, .. } => Request::Turn(batch),
            Self::Reloaded(actor) => Request::Reloaded(actor),
        }
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Queued>,
    submitted: u64,
    is_stepping: bool,
    is_held: bool,
    /// Kept once somebody asked for them: a simulated fleet has many stores.
    events: Option<VecDeque<StoreEvent>>,
}

impl Queue {
    fn event(&mut self, event: StoreEvent) {
        let Some(events) = &mut self.events else { return };
        if events.len() == EVENTS_KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }
}

/// The twin. Clones are handles of one opening of one store.
#[derive(Clone)]
pub struct MemoryStore {
    engine: Arc<Engine<Session, Session>>,
    queue: Arc<Mutex<Queue>>,
    session: Session,
    mode: Mode,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryStore(opening {})", self.session.opening)
    }
}

impl MemoryStore {
    /// Makes an empty store that commits within `submit`.
    #[must_use]
    pub fn immediate() -> Self {
        Self::empty(Mode::Immediate)
    }

    /// Makes an empty store that commits when it is stepped.
    #[must_use]
    pub fn manual() -> Self {
        Self::empty(Mode::Manual)
    }

    fn empty(mode: Mode) -> Self {
        #[expect(clippy::expect_used, reason = "an empty medium has nothing that could be damaged")]
        Self::open(&Arc::default(), mode).expect("an empty store opens")
    }

    /// Opens a copy of an image, with the mode of `self`.
    ///
    /// # Errors
    /// [`OpenStoreError::Damaged`]: the image is.
    pub fn from_image(&self, image: &Image) -> Result<Self, OpenStoreError> {
        Self::open(&Arc::new(Mutex::new(Medium::from_image(image))), self.mode)
    }

    fn open(medium: &Arc<Mutex<Medium>>, mode: Mode) -> Result<Self, OpenStoreError> {
        let damaged = |cause: String| OpenStoreError::Damaged { path: PathBuf::from("memory"), cause };
        let opening = {
            let mut medium = medium.lock().unpoison();
            if medium.is_open {
                return Err(OpenStoreError::Locked { path: PathBuf::from("memory") });
            }
            if medium.will_not_open {
                return Err(damaged("it was told not to open".to_owned()));
            }
            medium.open()
        };
        let session = Session { medium: Arc::clone(medium), opening };
        let opened = Engine::open(session.clone(), session.clone(), opening, FEED_CHANGES_MAX)
            .and_then(|engine| engine.verify().map(|()| engine));
        match opened {
            Ok(engine) => Ok(Self { engine: Arc::new(engine), queue: Arc::default(), session, mode }),
            Err(error) => {
                medium.lock().unpoison().is_open = false;
                Err(damaged(error.to_string()))
            }
        }
    }

    /// Opens the same medium again, after [`crash`](Self::crash), [`kill`](Self::kill) or [`close`](Self::close).
    ///
    /// # Errors
    /// [`OpenStoreError::Locked`]: it is still open. [`OpenStoreError::Damaged`]: it was told not to open.
    pub fn reopen(&self) -> Result<Self, OpenStoreError> {
        Self::open(&self.session.medium, self.mode)
    }

    /// Makes the next group durable, all that is queued, and answers it. Returns how many turns it had.
    pub fn step(&self) -> usize {
        self.step_of(usize::MAX)
    }

    /// Makes the next group durable, of at most `requests_max` turns and reloads, and answers it.
    pub fn step_of(&self, requests_max: usize) -> usize {
        let group: Vec<Queued> = {
            let mut queue = self.queue.lock().unpoison();
            if queue.is_stepping || queue.waiting.is_empty() {
                return 0;
            }
            queue.is_stepping = true;
            let count = queue.waiting.len().min(requests_max);
            queue.waiting.drain(..count).collect()
        };
        let committed = self.engine.commit(&requests(&group));
        if !self.session.is_alive() {
            // A crash from another thread met the group: its actors are gone.
            return 0;
        }
        for (queued, answer) in group.iter().zip(&committed.answers) {
            if let (Queued::Turn { number, .. }, Ok(())) = (queued, answer) {
                self.queue.lock().unpoison().event(StoreEvent::Durable(*number));
            }
        }
        let mut turns = 0;
        for (queued, answer) in group.into_iter().zip(committed.answers.iter().cloned()) {
            if let Queued::Turn { number, done, .. } = queued {
                turns += 1;
                self.queue.lock().unpoison().event(StoreEvent::Completed { turn: number, is_ok: answer.is_ok() });
                done(answer);
            }
        }
        self.engine.settle(&committed);
        self.queue.lock().unpoison().is_stepping = false;
        turns
    }

    /// Lets what is submitted from now on wait, as a slow disk does, until it is let go.
    pub fn hold(&self) {
        self.queue.lock().unpoison().is_held = true;
    }

    /// Ends a [`hold`](Self::hold): what has waited is made durable and answered.
    pub fn let_go(&self) {
        self.queue.lock().unpoison().is_held = false;
        self.work();
    }

    /// How many turns and reloads are queued.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.lock().unpoison().waiting.len()
    }

    /// Keeps events from now on.
    pub fn keep_events(&self) {
        self.queue.lock().unpoison().events.get_or_insert_default();
    }

    /// What happened since [`keep_events`](Self::keep_events), oldest first; only the last few thousand are kept.
    #[must_use]
    pub fn events(&self) -> Vec<StoreEvent> {
        self.queue.lock().unpoison().events.iter().flatten().copied().collect()
    }

    /// Closes the store in order: what is queued is made durable and answered first.
    pub fn close(&self) {
        while self.step() > 0 {}
        self.session.medium.lock().unpoison().kill();
    }

    /// Kills the process: queued turns are gone and unanswered, what was written stays.
    pub fn kill(&self) {
        self.queue.lock().unpoison().waiting.clear();
        self.session.medium.lock().unpoison().kill();
    }

    /// Cuts the power: what was answered stays; of queued turns a prefix that `entropy` chooses becomes durable
    /// without an answer, and the next one may leave bytes in its logs that no record counts.
    pub fn crash(&self, entropy: &mut Entropy) {
        let waiting = std::mem::take(&mut self.queue.lock().unpoison().waiting);
        let waiting: Vec<Queued> = waiting.into();
        let is_powered = {
            let mut medium = self.session.medium.lock().unpoison();
            medium.commit_fault = None;
            medium.append_fault = None;
            medium.operations_left.is_none()
        };
        if is_powered && self.session.is_alive() {
            let requests = requests(&waiting);
            let kept = usize::try_from(entropy.below(requests.len() as u64 + 1)).unwrap_or(0);
            let (durable, lost) = requests.split_at(kept);
            self.engine.commit(durable);
            self.session.medium.lock().unpoison().operations_left = Some(entropy.below(CUT_OPERATIONS));
            self.engine.commit(lost.get(..1).unwrap_or_default());
        }
        self.session.medium.lock().unpoison().crash(entropy);
    }

    /// Makes the next commit of records fail.
    pub fn fail_next_commit(&self, fault: Fault) {
        self.session.medium.lock().unpoison().commit_fault = Some(fault);
    }

    /// Makes the next write to a log fail half-way.
    pub fn fail_next_append(&self, fault: Fault) {
        self.session.medium.lock().unpoison().append_fault = Some(fault);
    }

    /// Lets so many more writing operations happen, and fails all further ones; then call
    /// [`crash`](Self::crash).
    pub fn cut_power_after(&self, operations: u64) {
        self.session.medium.lock().unpoison().operations_left = Some(operations);
    }

    /// Takes back every fault that was ordered and has not come.
    pub fn forget_faults(&self) {
        let mut medium = self.session.medium.lock().unpoison();
        (medium.commit_fault, medium.append_fault) = (None, None);
        medium.operations_left = medium.operations_left.filter(|left| *left == 0);
    }

    /// Says whether the power has failed that [`cut_power_after`](Self::cut_power_after) let fail.
    #[must_use]
    pub fn is_out_of_power(&self) -> bool {
        self.session.medium.lock().unpoison().operations_left == Some(0)
    }

    /// Changes one bit of what is stored behind everybody's back, as flash does that forgets. Returns whether there
    /// was one to change.
    pub fn rot(&self, entropy: &mut Entropy) -> bool {
        self.session.medium.lock().unpoison().rot(entropy)
    }

    /// Makes [`reopen`](Self::reopen) fail as damaged until the store is quarantined or restored.
    pub fn refuse_to_open(&self) {
        self.session.medium.lock().unpoison().will_not_open = true;
    }

    /// Puts aside what is stored; the store opens empty.
    pub fn quarantine(&self) {
        self.restore(&Image::default());
    }

    /// A copy of what is durable.
    #[must_use]
    pub fn image(&self) -> Image {
        self.session.medium.lock().unpoison().image()
    }

    /// Puts an old image in place of what is stored. Do so while the store is closed.
    pub fn restore(&self, image: &Image) {
        self.session.medium.lock().unpoison().restore(image);
    }

    fn queue(&self, queued: impl FnOnce(&mut Queue) -> Queued) {
        if !self.session.is_alive() {
            // The process that submitted is gone with its store: nobody is there to be answered.
            return;
        }
        {
            let mut queue = self.queue.lock().unpoison();
            let queued = queued(&mut queue);
            queue.waiting.push_back(queued);
        }
        self.work();
    }

    /// Does what is queued, in a store that commits within `submit`.
    fn work(&self) {
        // A completion may submit again: the outer call takes that on, so that answers never nest.
        while self.mode == Mode::Immediate && self.has_idle_work() {
            self.step();
        }
    }

    fn has_idle_work(&self) -> bool {
        let queue = self.queue.lock().unpoison();
        !queue.is_stepping && !queue.is_held && !queue.waiting.is_empty()
    }
}

fn requests(group: &[Queued]) -> Vec<Request<'_>> {
    group.iter().map(Queued::request).collect()
}

impl Commit for MemoryStore {
    fn submit(&self, batch: Batch, done: Completion) {
        self.queue(|queue| {
            let number = queue.submitted;
            queue.submitted += 1;
            Queued::Turn { number, batch, done }
        });
    }

    fn reloaded(&self, actor: &ActorKey) {
        self.queue(|_| Queued::Reloaded(actor.clone()));
    }
}

impl CopyStore for MemoryStore {
    fn copy(&self, take: &mut TakePiece<'_>) -> Result<(), ReadError> {
        // Of a table that nobody holds: a log, read on the way, wants the medium too.
        for (key, value) in self.session.table()?.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(STORE_END))) {
            if self.engine.copy_record(key, value, take)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

crate::state_store::delegate_to_engine!(MemoryStore);
