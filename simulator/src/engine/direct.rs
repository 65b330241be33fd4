//! Bare cells on the world's queue: no runtime, no mailbox but the queue itself.

use std::any::type_name;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_actors::address::{Address, Taken};
use fleetd_actors::cell::{Cell, Submission};
use fleetd_actors::driver::Driver;
use fleetd_actors::engine::{REST_AFTER, restart_pause};
use fleetd_actors::release_queue::TurnNumber;
use fleetd_actors::spawn::{Load, Spawn, Spawned};
use fleetd_sync_core::commit::{ActorKey, Commit, CommitError};
use fleetd_sync_core::machine::Machine;
use fleetd_sync_core::time::{Clock, Monotonic};

use crate::world::{Timer, World};

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
        let state = Mutex::new(State { incarnations: 0, failures: 0, stage: Stage::Resting });
        let slot = Arc::new(Slot { shared: Arc::clone(&self.shared), key, subject, load, state });
        let watched = Arc::downgrade(&slot);
        self.shared.world.watch().offer(&slot.subject, move || watched.upgrade()?.state_text());
        if eager {
            let wake = Arc::clone(&slot);
            self.shared.world.schedule(Duration::ZERO, &slot.subject, b"wake", move || wake.wake());
        }
        let loaded = Arc::clone(&slot);
        Spawned { address: slot.address(), is_loaded: Arc::new(move || loaded.is_loaded()) }
    }
}

/// An actor that has been loaded.
struct Loaded<M: Machine, D: Driver<M>> {
    cell: Cell<M, D>,
    armed: Option<(Monotonic, Timer)>,
    last_input: Monotonic,
    /// Whether somebody will ask whether the actor may rest.
    rest_asked: bool,
}

/// Where an actor stands, by the rules of [`fleetd_actors::engine`].
enum Stage<M: Machine, D: Driver<M>> {
    Resting,
    Loaded(Loaded<M, D>),
    /// It has failed, and starts again later. What is sent to it until then is dropped.
    Failed,
}

struct State<M: Machine, D: Driver<M>> {
    incarnations: u64,
    failures: u32,
    stage: Stage<M, D>,
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
            let incarnation = slot.incarnation();
            slot.schedule(Duration::ZERO, b"input", move || target.on_input(incarnation, input, taken));
        })
    }

    fn schedule(&self, after: Duration, what: &[u8], action: impl FnOnce() + Send + 'static) {
        self.shared.world.schedule(after, &self.subject, what, action);
    }

    /// The incarnation that an input is queued for: it is dropped with the queue of that one.
    fn incarnation(&self) -> Option<u64> {
        // An actor that sends to itself holds its own lock; it is loaded then, and its incarnation cannot change.
        let Ok(state) = self.state.try_lock() else { return None };
        (!matches!(state.stage, Stage::Resting)).then_some(state.incarnations)
    }

    fn is_loaded(&self) -> bool {
        !matches!(self.lock().stage, Stage::Resting)
    }

    /// Counts that the machine is given an input, or its time, in the middle of what it does.
    fn note(&self, machine: &M, input: Option<&M::Input>) {
        let input = input.map(|input| input as &dyn fmt::Debug);
        self.shared.world.coverage().note(type_name::<M>(), machine.phase(), input);
    }

    /// The machine as it is now, for whoever watches.
    fn state_text(&self) -> Option<String> {
        let state = self.state.try_lock().ok()?;
        match &state.stage {
            Stage::Loaded(loaded) => Some(format!("{:#?}", loaded.cell.machine())),
            Stage::Resting | Stage::Failed => None,
        }
    }

    fn wake(self: &Arc<Self>) {
        if self.is_alive() {
            self.ensure_loaded(&mut self.lock());
        }
    }

    fn on_input(self: &Arc<Self>, queued_for: Option<u64>, input: M::Input, taken: Option<Taken>) {
        let mut state = self.lock();
        self.shared.world.watch().note(|| format!("{input:?}"));
        let is_past = queued_for.is_some_and(|incarnation| incarnation != state.incarnations);
        if !self.is_alive() || is_past {
            return;
        }
        self.ensure_loaded(&mut state);
        let Stage::Loaded(loaded) = &mut state.stage else { return };
        let now = self.shared.clock.now();
        loaded.last_input = now.monotonic;
        self.note(loaded.cell.machine(), Some(&input));
        let submission = loaded.cell.handle(now, input);
        self.after_turn(&mut state, submission);
        drop(taken);
    }

    fn on_due(self: &Arc<Self>, incarnation: u64, due: Monotonic) {
        let mut state = self.lock();
        let now = self.shared.clock.now();
        let Some(loaded) = self.loaded(&mut state, incarnation) else { return };
        if loaded.armed.is_none_or(|(armed, _)| armed != due) {
            return;
        }
        loaded.armed = None;
        self.note(loaded.cell.machine(), None);
        let submission = loaded.cell.handle_timeout(now);
        self.after_turn(&mut state, submission);
    }

    fn on_committed(self: &Arc<Self>, incarnation: u64, turn: TurnNumber, result: &Result<(), CommitError>) {
        let mut state = self.lock();
        let now = self.shared.clock.now();
        let Some(loaded) = self.loaded(&mut state, incarnation) else { return };
        if result.is_err() {
            self.fail(&mut state);
            return;
        }
        loaded.cell.committed(now, turn);
        self.after_turn(&mut state, None);
    }

    fn on_rest(self: &Arc<Self>, incarnation: u64) {
        let mut state = self.lock();
        let now = self.shared.clock.now();
        let Some(loaded) = self.loaded(&mut state, incarnation) else { return };
        loaded.rest_asked = false;
        if now.monotonic.since(loaded.last_input) >= REST_AFTER && loaded.cell.is_idle() {
            state.stage = Stage::Resting;
            state.failures = 0;
            return;
        }
        self.ask_for_rest(&mut state);
    }

    fn on_restart(self: &Arc<Self>) {
        let mut state = self.lock();
        if self.is_alive() && matches!(state.stage, Stage::Failed) {
            state.stage = Stage::Resting;
            self.ensure_loaded(&mut state);
        }
    }

    /// The present incarnation, if it is the one that was meant.
    fn loaded<'a>(&self, state: &'a mut State<M, D>, incarnation: u64) -> Option<&'a mut Loaded<M, D>> {
        let is_meant = self.is_alive() && state.incarnations == incarnation;
        match &mut state.stage {
            Stage::Loaded(loaded) if is_meant => Some(loaded),
            Stage::Loaded(_) | Stage::Resting | Stage::Failed => None,
        }
    }

    fn ensure_loaded(self: &Arc<Self>, state: &mut State<M, D>) {
        if !matches!(state.stage, Stage::Resting) {
            return;
        }
        state.incarnations += 1;
        self.shared.commit.reloaded(&self.key);
        let Ok((machine, driver)) = (self.load)(&self.address()) else {
            self.fail(state);
            return;
        };
        let now = self.shared.clock.now();
        let mut cell = Cell::new(self.key.clone(), machine, driver);
        let owed = cell.handle_timeout(now);
        state.stage = Stage::Loaded(Loaded { cell, armed: None, last_input: now.monotonic, rest_asked: false });
        self.after_turn(state, owed);
    }

    /// Drops the actor with all that it had not released, and starts it again later.
    fn fail(self: &Arc<Self>, state: &mut State<M, D>) {
        let pause = restart_pause(state.failures);
        state.failures += 1;
        state.stage = Stage::Failed;
        let slot = Arc::clone(self);
        self.schedule(pause, b"restart", move || slot.on_restart());
    }

    fn after_turn(self: &Arc<Self>, state: &mut State<M, D>, submission: Option<Submission>) {
        let incarnation = state.incarnations;
        if let Some(Submission { turn, batch }) = submission {
            let slot = Arc::clone(self);
            let done = move |result| {
                let target = Arc::clone(&slot);
                slot.schedule(Duration::ZERO, b"committed", move || target.on_committed(incarnation, turn, &result));
            };
            self.shared.commit.submit(batch, Box::new(done));
        }
        let Stage::Loaded(loaded) = &mut state.stage else { return };
        let wanted = loaded.cell.poll_timeout();
        if wanted != loaded.armed.map(|(due, _)| due) {
            if let Some((_, timer)) = loaded.armed.take() {
                self.shared.world.disarm(timer);
            }
            loaded.armed = wanted.map(|due| {
                let wait = due.since(self.shared.clock.now().monotonic);
                let slot = Arc::clone(self);
                (due, self.shared.world.arm(wait, &self.subject, move || slot.on_due(incarnation, due)))
            });
        }
        self.ask_for_rest(state);
    }

    /// Sees to it that somebody asks whether an actor that is idle now may rest.
    fn ask_for_rest(self: &Arc<Self>, state: &mut State<M, D>) {
        let incarnation = state.incarnations;
        let Stage::Loaded(loaded) = &mut state.stage else { return };
        if loaded.rest_asked || !loaded.cell.is_idle() {
            return;
        }
        loaded.rest_asked = true;
        let quiet = self.shared.clock.now().monotonic.since(loaded.last_input);
        let wait = REST_AFTER.checked_sub(quiet).filter(|wait| !wait.is_zero()).unwrap_or(REST_AFTER);
        let slot = Arc::clone(self);
        self.schedule(wait, b"rest", move || slot.on_rest(incarnation));
    }

    fn is_alive(&self) -> bool {
        *self.shared.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State<M, D>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
