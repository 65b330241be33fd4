//! Bare cells on the world's queue: no runtime, no mailbox but the queue itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_actors::address::{Address, Taken};
use fleetd_actors::cell::{Cell, Submission};
use fleetd_actors::driver::Driver;
use fleetd_actors::release_queue::TurnNumber;
use fleetd_actors::spawn::{Load, Spawn, Spawned};
use fleetd_sync_core::commit::{ActorKey, Commit, CommitError};
use fleetd_sync_core::machine::Machine;
use fleetd_sync_core::time::{Clock, Monotonic};

use crate::world::World;

/// Pause before an actor that could not be loaded is loaded again.
const RELOAD_PAUSE: Duration = Duration::from_millis(50);

struct Shared {
    node: String,
    world: World,
    clock: Arc<dyn Clock>,
    commit: Arc<dyn Commit>,
    alive: Mutex<bool>,
}

/// The engine of one node in the world.
#[derive(Clone)]
pub struct DirectEngine {
    shared: Arc<Shared>,
}

impl DirectEngine {
    /// An engine for the node that traces call `node`.
    #[must_use]
    pub fn new(node: &str, world: World, clock: Arc<dyn Clock>, commit: Arc<dyn Commit>) -> Self {
        let alive = Mutex::new(true);
        Self { shared: Arc::new(Shared { node: node.to_owned(), world, clock, commit, alive }) }
    }

    /// Ends the node as a power cut does: nothing of it happens any more.
    pub fn kill(&self) {
        *self.shared.alive.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

impl Spawn for DirectEngine {
    fn spawn<M: Machine, D: Driver<M>>(&self, key: ActorKey, eager: bool, load: Load<M, D>) -> Spawned<M::Input> {
        let subject = format!("{}/{key}", self.shared.node);
        let state = Mutex::new(State { incarnation: 0, cell: None, armed: None });
        let slot = Arc::new(Slot { shared: Arc::clone(&self.shared), key, subject, load, state });
        if eager {
            let wake = Arc::clone(&slot);
            self.shared.world.schedule(Duration::ZERO, &slot.subject, b"wake", move || wake.wake());
        }
        let loaded = Arc::clone(&slot);
        Spawned { address: slot.address(), is_loaded: Arc::new(move || loaded.lock().cell.is_some()) }
    }
}

struct State<M: Machine, D: Driver<M>> {
    incarnation: u64,
    cell: Option<Cell<M, D>>,
    armed: Option<Monotonic>,
}

struct Slot<M: Machine, D: Driver<M>> {
    shared: Arc<Shared>,
    key: ActorKey,
    subject: String,
    load: Load<M, D>,
    state: Mutex<State<M, D>>,
}

impl<M: Machine, D: Driver<M>> Slot<M, D> {
    fn address(self: &Arc<Self>) -> Address<M::Input> {
        let slot = Arc::clone(self);
        Address::new(move |input, taken| {
            let target = Arc::clone(&slot);
            let incarnation = slot.incarnation_if_loaded();
            slot.shared.world.schedule(Duration::ZERO, &slot.subject, b"input", move || {
                target.on_input(incarnation, input, taken);
            });
        })
    }

    /// The incarnation that an input is queued for: it is dropped with the queue of that one.
    fn incarnation_if_loaded(&self) -> Option<u64> {
        // An actor that sends to itself holds its own lock; it is loaded then, and its incarnation cannot change.
        let state = self.state.try_lock().ok()?;
        state.cell.as_ref().map(|_| state.incarnation)
    }

    fn wake(self: &Arc<Self>) {
        let mut state = self.lock();
        self.ensure_loaded(&mut state);
    }

    fn on_input(self: &Arc<Self>, queued_for: Option<u64>, input: M::Input, taken: Option<Taken>) {
        {
            let mut state = self.lock();
            let is_past = queued_for.is_some_and(|incarnation| incarnation != state.incarnation);
            if self.is_alive() && !is_past && self.ensure_loaded(&mut state) {
                let now = self.shared.clock.now();
                let submission = state.cell.as_mut().and_then(|cell| cell.handle(now, input));
                self.after_turn(&mut state, submission);
            }
        }
        if let Some(taken) = taken {
            taken();
        }
    }

    fn on_due(self: &Arc<Self>, incarnation: u64, due: Monotonic) {
        let mut state = self.lock();
        if !self.is_alive() || state.incarnation != incarnation || state.armed != Some(due) {
            return;
        }
        state.armed = None;
        let now = self.shared.clock.now();
        let submission = state.cell.as_mut().and_then(|cell| cell.handle_timeout(now));
        self.after_turn(&mut state, submission);
    }

    fn on_committed(self: &Arc<Self>, incarnation: u64, turn: TurnNumber, result: &Result<(), CommitError>) {
        let mut state = self.lock();
        if !self.is_alive() || state.incarnation != incarnation {
            return;
        }
        if result.is_err() {
            state.cell = None;
            state.armed = None;
            self.ensure_loaded(&mut state);
            return;
        }
        let now = self.shared.clock.now();
        if let Some(cell) = state.cell.as_mut() {
            cell.committed(now, turn);
        }
        self.after_turn(&mut state, None);
    }

    fn ensure_loaded(self: &Arc<Self>, state: &mut State<M, D>) -> bool {
        if state.cell.is_some() {
            return true;
        }
        self.shared.commit.reloaded(&self.key);
        let Ok((machine, driver)) = (self.load)(&self.address()) else {
            let again = Arc::clone(self);
            self.shared.world.schedule(RELOAD_PAUSE, &self.subject, b"reload", move || again.wake());
            return false;
        };
        state.incarnation += 1;
        let mut cell = Cell::new(self.key.clone(), machine, driver);
        let owed = cell.handle_timeout(self.shared.clock.now());
        state.cell = Some(cell);
        self.after_turn(state, owed);
        true
    }

    fn after_turn(self: &Arc<Self>, state: &mut State<M, D>, submission: Option<Submission>) {
        let incarnation = state.incarnation;
        if let Some(Submission { turn, batch }) = submission {
            let slot = Arc::clone(self);
            let done = move |result| {
                let target = Arc::clone(&slot);
                slot.shared.world.schedule(Duration::ZERO, &slot.subject, b"committed", move || {
                    target.on_committed(incarnation, turn, &result);
                });
            };
            self.shared.commit.submit(batch, Box::new(done));
        }
        let wanted = state.cell.as_ref().and_then(Cell::poll_timeout);
        if wanted != state.armed {
            state.armed = wanted;
            if let Some(due) = wanted {
                let wait = due.since(self.shared.clock.now().monotonic);
                let slot = Arc::clone(self);
                self.shared.world.schedule(wait, &self.subject, b"due", move || slot.on_due(incarnation, due));
            }
        }
    }

    fn is_alive(&self) -> bool {
        *self.shared.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State<M, D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
