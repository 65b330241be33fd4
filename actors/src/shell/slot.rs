//! Where an actor stands between its incarnations: messages for one that rests or has failed start the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::machine::Machine;
use ractor::{ActorRef, ActorRuntime};

use super::supervisor::{Respawn, SupervisorMessage};
use super::{Shared, Shell, ShellMessage};
use crate::address::{Address, Taken};
use crate::driver::Driver;
use crate::spawn::Load;

struct Incarnation<I> {
    actor: ActorRef<ShellMessage<I>>,
    sent: u64,
}

/// One actor's place.
pub(super) struct Slot<M: Machine, D: Driver<M>> {
    pub(super) shared: Arc<Shared>,
    pub(super) key: ActorKey,
    pub(super) load: Load<M, D>,
    present: Mutex<Option<Incarnation<M::Input>>>,
}

impl<M: Machine, D: Driver<M>> Slot<M, D> {
    pub(super) fn new(shared: Arc<Shared>, key: ActorKey, load: Load<M, D>) -> Arc<Self> {
        Arc::new(Self { shared, key, load, present: Mutex::new(None) })
    }

    pub(super) fn address(self: &Arc<Self>) -> Address<M::Input> {
        let slot = Arc::clone(self);
        Address::new(move |input, taken| slot.deliver(input, taken))
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.lock().is_some()
    }

    /// Loads the actor if it rests.
    pub(super) fn wake(self: &Arc<Self>) {
        let mut present = self.lock();
        if present.is_none() {
            *present = self.incarnate();
        }
    }

    /// Puts the actor to rest, unless an input is on its way to it.
    pub(super) fn rest(&self, actor: &ActorRef<ShellMessage<M::Input>>, taken: u64) -> bool {
        let mut present = self.lock();
        match &*present {
            Some(incarnation) if incarnation.actor.get_id() == actor.get_id() && incarnation.sent == taken => {
                *present = None;
                true
            }
            Some(_) | None => false,
        }
    }

    fn deliver(self: &Arc<Self>, input: M::Input, taken: Option<Taken>) {
        let mut present = self.lock();
        if present.is_none() {
            *present = self.incarnate();
        }
        if let Some(incarnation) = &mut *present {
            incarnation.sent += 1;
            // A failed send means that the actor has just ended: its queue is dropped, and this input with it.
            let _ = incarnation.actor.cast(ShellMessage::Input(input, taken));
        }
    }

    fn incarnate(self: &Arc<Self>) -> Option<Incarnation<M::Input>> {
        let supervisor = &self.shared.supervisor;
        let spawned =
            ActorRuntime::spawn_linked_instant(None, Shell::actor::<M, D>(), Arc::clone(self), supervisor.get_cell());
        match spawned {
            Ok((actor, _join)) => {
                let respawn: Arc<dyn Respawn> = Arc::<Self>::clone(self);
                let _ = supervisor.cast(SupervisorMessage::Watch(actor.get_id(), respawn));
                Some(Incarnation { actor, sent: 0 })
            }
            Err(error) => {
                tracing::error!(actor = %self.key, %error, "an actor could not be spawned");
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Incarnation<M::Input>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Machine, D: Driver<M>> Respawn for Slot<M, D> {
    fn key(&self) -> &ActorKey {
        &self.key
    }

    fn respawn(self: Arc<Self>, failed: ractor::ActorId) {
        let mut present = self.lock();
        if present.as_ref().is_some_and(|incarnation| incarnation.actor.get_id() == failed) {
            *present = self.incarnate();
        }
    }
}
