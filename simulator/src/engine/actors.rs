//! The product's own ractor actors in the world: every message, timer and restart of theirs passes through the
//! world's queue, and after each event the runtime runs until nothing is left to do.
//!
//! # Source
//! The event interval keeps tokio from looking for IO between tasks; a yield then comes back only when no other task
//! is ready, which is what "nothing left to do" means on one thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleetd_actors::driver::Driver;
use fleetd_actors::shell::{Disarm, Post, ShellEngine};
use fleetd_actors::spawn::{Load, Spawn, Spawned};
use fleetd_sync_core::commit::{ActorKey, Commit};
use fleetd_sync_core::machine::Machine;
use fleetd_sync_core::time::Clock;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::world::World;

/// Tasks between two looks at IO and timers, of which a simulated world has none.
const EVENT_INTERVAL: u32 = u32::MAX >> 1;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
#[error("the runtime of the actors did not start: {cause}")]
pub struct StartEngineError {
    cause: String,
}

fn failed(error: impl fmt::Display) -> StartEngineError {
    StartEngineError { cause: error.to_string() }
}

/// The runtime of one world's actors: one thread, and no time of its own.
#[derive(Clone, Debug)]
pub struct Director {
    runtime: Arc<Runtime>,
}

impl Director {
    /// Makes a runtime, and lets it take every event of the world from now on.
    ///
    /// # Errors
    /// [`StartEngineError`] when the operating system gives no runtime.
    pub fn of(world: &World) -> Result<Self, StartEngineError> {
        let runtime = Builder::new_current_thread().event_interval(EVENT_INTERVAL).build().map_err(failed)?;
        let director = Self { runtime: Arc::new(runtime) };
        let taker = director.clone();
        world.take_events_with(Arc::new(move |action| taker.run(action)));
        Ok(director)
    }

    /// Where work may be started that belongs to the actors' world.
    pub(crate) fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// Lets something happen among the actors, and runs them until nothing is left to do.
    fn run(&self, action: Box<dyn FnOnce() + Send>) {
        self.runtime.block_on(async {
            action();
            tokio::task::yield_now().await;
        });
    }
}

/// The engine of one node in the world.
#[derive(Clone)]
pub struct ActorEngine {
    shell: ShellEngine,
    post: Arc<WorldPost>,
    director: Director,
}

impl ActorEngine {
    /// An engine for the node that traces call `node`.
    ///
    /// # Errors
    /// [`StartEngineError`] when the actors' supervisor does not start.
    pub fn new(
        node: &str,
        world: World,
        director: Director,
        clock: Arc<dyn Clock>,
        commit: Arc<dyn Commit>,
    ) -> Result<Self, StartEngineError> {
        let post = Arc::new(WorldPost { node: node.to_owned(), world, alive: Arc::new(AtomicBool::new(true)) });
        let through: Arc<dyn Post> = Arc::<WorldPost>::clone(&post);
        let shell = director.runtime.block_on(ShellEngine::start_through(clock, commit, through)).map_err(failed)?;
        Ok(Self { shell, post, director })
    }

    /// Ends the node as a power cut does: nothing of it happens any more.
    pub fn kill(&self) {
        self.post.alive.store(false, Ordering::Relaxed);
        let shell = self.shell.clone();
        self.director.run(Box::new(move || shell.stop()));
    }
}

impl Spawn for ActorEngine {
    fn spawn<M: Machine, D: Driver<M>>(&self, key: ActorKey, eager: bool, load: Load<M, D>) -> Spawned<M::Input> {
        self.shell.spawn(key, eager, load)
    }
}

/// Carries one node's messages through the world's queue.
struct WorldPost {
    node: String,
    world: World,
    alive: Arc<AtomicBool>,
}

impl WorldPost {
    /// What happens in the world in place of a message: nothing, once the node is dead.
    fn event(&self, actor: &ActorKey, run: Box<dyn FnOnce() + Send>) -> (String, impl FnOnce() + Send + 'static) {
        let alive = Arc::clone(&self.alive);
        let event = move || {
            if alive.load(Ordering::Relaxed) {
                run();
            }
        };
        (format!("{}/{actor}", self.node), event)
    }
}

impl Post for WorldPost {
    fn post(&self, actor: &ActorKey, what: &'static str, after: Duration, run: Box<dyn FnOnce() + Send>) {
        let (subject, event) = self.event(actor, run);
        self.world.schedule(after, &subject, what.as_bytes(), event);
    }

    fn arm(&self, actor: &ActorKey, after: Duration, run: Box<dyn FnOnce() + Send>) -> Disarm {
        let (subject, event) = self.event(actor, run);
        let timer = self.world.arm(after, &subject, event);
        let world = self.world.clone();
        Box::new(move || world.disarm(timer))
    }
    fn observe(&self, machine: &'static str, phase: &'static str, input: Option<&dyn fmt::Debug>) {
        self.world.coverage().note(machine, phase, input);
    }
}
