//! The one ractor actor: gives a cell its mailbox, its timer, its commits and its restarts.
//!
//! The shell hands a turn's mutations to the group commit and takes the next input at once; the commit's completion
//! comes back as a message and releases the turn's effects. When a commit fails, or a machine's assertion does, the
//! actor stops with everything that it had queued, and its supervisor loads it again from the store.

mod parking;
mod post;
mod slot;
mod supervisor;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::commit::{ActorKey, Commit, CommitError};
use fleetd_sync_core::machine::Machine;
use fleetd_sync_core::time::{Clock, Monotonic};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::runtime::Handle;

use crate::address::Taken;
use crate::cell::{Cell, Submission};
use crate::driver::Driver;
use crate::engine::{PARK_AFTER, PARKED_AT_LEAST, REST_AFTER};
use crate::release_queue::TurnNumber;
use crate::spawn::{Load, Spawn, Spawned};
use parking::Parking;
use post::PostOffice;
pub use post::{Disarm, Post};
use slot::Slot;
use supervisor::SupervisorMessage;

/// What an actor in a shell finds in its mailbox.
enum ShellMessage<I> {
    Input(I, Option<Taken>),
    Committed(TurnNumber, Result<(), CommitError>),
    Due(Monotonic),
    Rest(Monotonic),
}

/// What every shell of one node shares.
struct Shared {
    clock: Arc<dyn Clock>,
    commit: Arc<dyn Commit>,
    post: PostOffice,
    /// Where actors run: whoever sends to one may be on a thread that has no runtime.
    runtime: Handle,
    supervisor: ActorRef<SupervisorMessage>,
    parking: Parking,
}

/// The engine of the product: every actor is a ractor actor on the tokio runtime.
#[derive(Clone)]
pub struct ShellEngine {
    shared: Arc<Shared>,
}

impl fmt::Debug for ShellEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShellEngine")
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[error("the actors' supervisor did not start: {cause}")]
pub struct StartEngineError {
    cause: String,
}

impl ShellEngine {
    /// Starts an engine on the present tokio runtime.
    ///
    /// # Errors
    /// [`StartEngineError`] when the runtime does not run the supervisor.
    pub async fn start(clock: Arc<dyn Clock>, commit: Arc<dyn Commit>) -> Result<Self, StartEngineError> {
        Self::start_on(clock, commit, PostOffice::AtOnce(Handle::current())).await
    }

    /// Starts an engine on the present runtime all of whose messages, timers and restarts go through `post`, which
    /// runs each on that runtime.
    ///
    /// # Errors
    /// [`StartEngineError`] when the runtime does not run the supervisor.
    pub async fn start_through(
        clock: Arc<dyn Clock>,
        commit: Arc<dyn Commit>,
        post: Arc<dyn Post>,
    ) -> Result<Self, StartEngineError> {
        Self::start_on(clock, commit, PostOffice::Through(post)).await
    }

    async fn start_on(
        clock: Arc<dyn Clock>,
        commit: Arc<dyn Commit>,
        post: PostOffice,
    ) -> Result<Self, StartEngineError> {
        let supervisor = supervisor::start().await.map_err(|error| StartEngineError { cause: error.to_string() })?;
        let (runtime, parking) = (Handle::current(), Parking::new());
        Ok(Self { shared: Arc::new(Shared { clock, commit, post, runtime, supervisor, parking }) })
    }

    /// Stops every actor, without waiting for what they have open: the store has all that counts.
    pub fn stop(&self) {
        self.shared.parking.close();
        self.shared.supervisor.stop(None);
    }
}

impl Spawn for ShellEngine {
    fn spawn<M: Machine, D: Driver<M>>(&self, key: ActorKey, eager: bool, load: Load<M, D>) -> Spawned<M::Input> {
        let slot = Slot::new(Arc::clone(&self.shared), key, load);
        if eager {
            slot.wake();
        }
        Spawned { address: slot.address(), is_loaded: Arc::new(move || slot.is_loaded()) }
    }
}

struct Shell;

/// An actor that has been loaded.
struct Loaded<M: Machine, D: Driver<M>> {
    cell: Cell<M, D>,
    /// The one timer: when it goes off, and how it is taken back.
    armed: Option<(Monotonic, Disarm)>,
    last_input: Monotonic,
    /// When somebody will ask whether the actor may rest, and how that is taken back: what waits to ask keeps the
    /// mailbox of an actor that has ended.
    rest: Option<(Monotonic, Disarm)>,
    taken: u64,
}

/// An actor between its spawning and its end; loading happens in `post_start`, so that a failure is supervised.
struct ShellState<M: Machine, D: Driver<M>> {
    slot: Arc<Slot<M, D>>,
    loaded: Option<Loaded<M, D>>,
}

impl Shell {
    fn actor<M: Machine, D: Driver<M>>() -> ShellActor<M, D> {
        ShellActor { kind: std::marker::PhantomData }
    }
}

struct ShellActor<M, D> {
    kind: std::marker::PhantomData<fn() -> (M, D)>,
}

impl<M: Machine, D: Driver<M>> Actor for ShellActor<M, D> {
    type Msg = ShellMessage<M::Input>;
    type State = ShellState<M, D>;
    type Arguments = Arc<Slot<M, D>>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        slot: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(ShellState { slot, loaded: None })
    }

    async fn post_start(&self, myself: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let slot = Arc::clone(&state.slot);
        if let Some(cell) = slot.unpark() {
            let last_input = slot.shared.clock.now().monotonic;
            state.loaded = Some(Loaded { cell: *cell, armed: None, last_input, rest: None, taken: 0 });
            state.after_turn(&myself, None);
            return Ok(());
        }
        slot.shared.commit.reloaded(&slot.key);
        let (machine, driver) = (slot.load)(&slot.address())?;
        let now = slot.shared.clock.now();
        let mut cell = Cell::new(slot.key.clone(), machine, driver);
        let owed = cell.handle_timeout(now);
        let loaded = Loaded { cell, armed: None, last_input: now.monotonic, rest: None, taken: 0 };
        state.loaded = Some(loaded);
        state.after_turn(&myself, owed);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShellMessage::Input(input, taken) => state.on_input(&myself, input, taken),
            ShellMessage::Committed(turn, result) => return state.on_committed(&myself, turn, result),
            ShellMessage::Due(due) => state.on_due(&myself, due),
            ShellMessage::Rest(due) => state.on_rest(&myself, due),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Self::Msg>,
        _event: SupervisionEvent,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(()) // A shell has no children; ractor's default would stop it.
    }
}

impl<M: Machine, D: Driver<M>> ShellState<M, D> {
    fn on_input(&mut self, myself: &ActorRef<ShellMessage<M::Input>>, input: M::Input, taken: Option<Taken>) {
        let now = self.slot.shared.clock.now();
        let Some(loaded) = &mut self.loaded else { return };
        loaded.last_input = now.monotonic;
        loaded.taken += 1;
        self.slot.shared.post.observe(loaded.cell.machine(), Some(&input));
        let submission = loaded.cell.handle(now, input);
        self.after_turn(myself, submission);
        drop(taken);
    }

    fn on_committed(
        &mut self,
        myself: &ActorRef<ShellMessage<M::Input>>,
        turn: TurnNumber,
        result: Result<(), CommitError>,
    ) -> Result<(), ActorProcessingErr> {
        result?;
        let now = self.slot.shared.clock.now();
        if let Some(loaded) = &mut self.loaded {
            loaded.cell.committed(now, turn);
        }
        self.after_turn(myself, None);
        Ok(())
    }

    fn on_due(&mut self, myself: &ActorRef<ShellMessage<M::Input>>, due: Monotonic) {
        let now = self.slot.shared.clock.now();
        let Some(loaded) = &mut self.loaded else { return };
        if loaded.armed.as_ref().is_none_or(|(armed, _)| *armed != due) {
            return; // It was on its way already when a newer timer took its place.
        }
        loaded.armed = None;
        self.slot.shared.post.observe(loaded.cell.machine(), None);
        let submission = loaded.cell.handle_timeout(now);
        self.after_turn(myself, submission);
    }

    fn on_rest(&mut self, myself: &ActorRef<ShellMessage<M::Input>>, due: Monotonic) {
        let now = self.slot.shared.clock.now();
        let Some(loaded) = &mut self.loaded else { return };
        if loaded.rest.as_ref().is_none_or(|(asked, _)| *asked != due) {
            return; // Somebody has asked sooner.
        }
        loaded.rest = None;
        let quiet = now.monotonic.since(loaded.last_input);
        if self.loaded.as_ref().is_some_and(|loaded| quiet >= self.quiet_wanted(loaded)) && self.end_for_now(myself) {
            return myself.stop(None);
        }
        self.ask_for_rest(myself);
    }

    /// Lets an actor that is idle be forgotten, and one that only waits give up its mailbox and its task; says whether
    /// it ends.
    fn end_for_now(&mut self, myself: &ActorRef<ShellMessage<M::Input>>) -> bool {
        let Some(loaded) = self.loaded.take() else { return false };
        if loaded.cell.is_idle() && self.slot.rest(myself, loaded.taken) {
            return true;
        }
        if !self.may_park(&loaded) {
            self.loaded = Some(loaded);
            return false;
        }
        let Loaded { cell, armed, last_input, rest, taken } = loaded;
        match self.slot.park(myself, taken, Box::new(cell)) {
            Ok(()) => {
                // The timer of a parked cell is its place's.
                if let Some((_, disarm)) = armed {
                    disarm();
                }
                true
            }
            Err(cell) => {
                self.loaded = Some(Loaded { cell: *cell, armed, last_input, rest, taken });
                false
            }
        }
    }

    /// How long nothing must have come in before the actor ends for now.
    fn quiet_wanted(&self, loaded: &Loaded<M, D>) -> Duration {
        if self.may_park(loaded) { PARK_AFTER } else { REST_AFTER }
    }

    /// In a simulation nothing is gained by it, and its queue would be one event longer on this engine than on bare cells.
    fn may_park(&self, loaded: &Loaded<M, D>) -> bool {
        let now = self.slot.shared.clock.now().monotonic;
        let is_long = loaded.cell.poll_timeout().is_none_or(|due| due.since(now) >= PARKED_AT_LEAST);
        is_long
            && loaded.cell.is_waiting()
            && !loaded.cell.is_idle()
            && matches!(self.slot.shared.post, PostOffice::AtOnce(_))
    }

    /// Submits what a turn left to store, arms the timer that the machine now wants, and lets it rest later.
    fn after_turn(&mut self, myself: &ActorRef<ShellMessage<M::Input>>, submission: Option<Submission>) {
        if let Some(Submission { turn, batch }) = submission {
            let (actor, slot) = (myself.clone(), Arc::clone(&self.slot));
            let done = move |result| {
                // An actor that has ended needs no word.
                let tell = move || drop(actor.cast(ShellMessage::Committed(turn, result)));
                slot.post("committed", Duration::ZERO, tell);
            };
            self.slot.shared.commit.submit(batch, Box::new(done));
        }
        let Some(loaded) = &mut self.loaded else { return };
        let wanted = loaded.cell.poll_timeout();
        if wanted != loaded.armed.as_ref().map(|(due, _)| *due) {
            if let Some((_, disarm)) = loaded.armed.take() {
                disarm();
            }
            loaded.armed = wanted.map(|due| {
                let wait = due.since(self.slot.shared.clock.now().monotonic);
                let actor = myself.clone();
                (due, self.slot.arm(wait, move || drop(actor.cast(ShellMessage::Due(due)))))
            });
        }
        self.ask_for_rest(myself);
    }

    /// Sees to it that somebody asks whether an actor that is idle now may rest, or one that only waits may park: that
    /// is asked sooner, though the other is asked already.
    fn ask_for_rest(&mut self, myself: &ActorRef<ShellMessage<M::Input>>) {
        let Some(loaded) = &self.loaded else { return };
        if !(loaded.cell.is_idle() || self.may_park(loaded)) {
            return;
        }
        let wanted = self.quiet_wanted(loaded);
        let now = self.slot.shared.clock.now().monotonic;
        let Some(loaded) = &mut self.loaded else { return };
        let quiet = now.since(loaded.last_input);
        // An input that is on its way keeps the actor: whoever asks then asks again, and not at once.
        let wait = wanted.checked_sub(quiet).filter(|wait| !wait.is_zero()).unwrap_or(wanted);
        let due = now + wait;
        if loaded.rest.as_ref().is_some_and(|(asked, _)| *asked <= due) {
            return;
        }
        let actor = myself.clone();
        let asked = self.slot.ask("rest", wait, move || drop(actor.cast(ShellMessage::Rest(due))));
        if let Some((_, disarm)) = loaded.rest.replace((due, asked)) {
            disarm();
        }
    }
}
