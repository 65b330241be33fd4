//! How a node makes actors without knowing what runs them: a shell in the product, bare cells in the simulator.

use std::sync::Arc;

use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::machine::Machine;

use crate::address::Address;
use crate::driver::Driver;

/// Why an actor could not be loaded; the engine tries again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not load the actor: {cause}")]
pub struct LoadActorError {
    /// What went wrong.
    pub cause: String,
}

/// Makes a machine and its driver from the store; called at every start and restart, with the actor's own address.
pub type Load<M, D> = Arc<dyn Fn(&Address<<M as Machine>::Input>) -> Result<(M, D), LoadActorError> + Send + Sync>;

/// An actor as its engine made it.
pub struct Spawned<I> {
    /// Where its inputs go. The actor is loaded at the first, and again after it was put to rest.
    pub address: Address<I>,
    /// Says whether the actor is loaded now.
    pub is_loaded: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// An engine: makes actors, gives them their inputs one at a time, and their timers.
pub trait Spawn: Clone + Send + Sync + 'static {
    /// Makes an actor. It is loaded when the first input arrives, or at once with `eager`, which is for actors that
    /// may owe effects from before a restart.
    fn spawn<M: Machine, D: Driver<M>>(&self, key: ActorKey, eager: bool, load: Load<M, D>) -> Spawned<M::Input>;
}
