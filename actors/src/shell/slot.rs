//! Where an actor stands between its incarnations: messages for one that rests or has failed start the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::machine::Machine;
use ractor::{ActorRef, ActorRuntime};

use super::parking::{Alarm, Parked};
use super::post::Disarm;
use super::supervisor::{Respawn, SupervisorMessage};
use super::{Shared, Shell, ShellMessage};
use crate::address::{Address, Taken};
use crate::cell::Cell;
use crate::driver::Driver;
use crate::spawn::Load;

struct Incarnation<I> {
    actor: ActorRef<ShellMessage<I>>,
    sent: u64,
}

struct Present<I> {
    /// How many incarnations there have been.
    incarnations: u64,
    /// The last of them, until it is put to rest. It may have failed, and then takes nothing until the next is there.
    incarnation: Option<Incarnation<I>>,
}

/// One actor's place.
pub(super) struct Slot<M: Machine, D: Driver<M>> {
    pub(super) shared: Arc<Shared>,
    pub(super) key: ActorKey,
    pub(super) load: Load<M, D>,
    present: Mutex<Present<M::Input>>,
}

impl<M: Machine, D: Driver<M>> Slot<M, D> {
    pub(super) fn new(shared: Arc<Shared>, key: ActorKey, load: Load<M, D>) -> Arc<Self> {
        Arc::new(Self { shared, key, load, present: Mutex::new(Present { incarnations: 0, incarnation: None }) })
    }

    pub(super) fn address(self: &Arc<Self>) -> Address<M::Input> {
        let slot = Arc::clone(self);
        Address::new(move |input, taken| {
            let (target, queued_for) = (Arc::clone(&slot), slot.incarnation());
            slot.post("input", Duration::ZERO, move || target.deliver(queued_for, input, taken));
        })
    }

    /// Lets something happen to the actor, now or later.
    pub(super) fn post(&self, what: &'static str, after: Duration, run: impl FnOnce() + Send + 'static) {
        self.shared.post.post(&self.key, what, after, run);
    }

    pub(super) fn ask(&self, what: &'static str, after: Duration, run: impl FnOnce() + Send + 'static) -> Disarm {
        self.shared.post.ask(&self.key, what, after, run)
    }

    pub(super) fn arm(&self, after: Duration, run: impl FnOnce() + Send + 'static) -> Disarm {
        self.shared.post.arm(&self.key, after, run)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.lock().incarnation.is_some() || self.shared.parking.has(&self.key)
    }

    /// Loads the actor if it rests.
    pub(super) fn wake(self: &Arc<Self>) {
        let slot = Arc::clone(self);
        self.post("wake", Duration::ZERO, move || slot.ensure_present(&mut slot.lock()));
    }

    /// Puts the actor to rest, unless an input is on its way to it.
    pub(super) fn rest(&self, actor: &ActorRef<ShellMessage<M::Input>>, taken: u64) -> bool {
        let mut present = self.lock();
        match &present.incarnation {
            Some(incarnation) if incarnation.actor.get_id() == actor.get_id() && incarnation.sent == taken => {
                present.incarnation = None;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Lets the actor end and keeps its cell for the next incarnation, which the next input starts, or the machine's
    /// time; unless an input is on its way to it: then the cell comes back.
    ///
    /// # Errors
    /// The cell, when the actor goes on.
    pub(super) fn park(
        self: &Arc<Self>,
        actor: &ActorRef<ShellMessage<M::Input>>,
        taken: u64,
        mut cell: Box<Cell<M, D>>,
    ) -> Result<(), Box<Cell<M, D>>> {
        let mut present = self.lock();
        match &present.incarnation {
            Some(incarnation) if incarnation.actor.get_id() == actor.get_id() && incarnation.sent == taken => {
                let now = self.shared.clock.now().monotonic;
                let slot = Arc::clone(self);
                cell.shrink();
                let alarm = cell.poll_timeout().map(|due| Alarm::new(self.arm(due.since(now), move || slot.wake())));
                self.shared.parking.park(&self.key, Parked { cell, _alarm: alarm })?;
                present.incarnation = None;
                Ok(())
            }
            Some(_) | None => Err(cell),
        }
    }

    /// Takes what an earlier incarnation has left for this one.
    pub(super) fn unpark(&self) -> Option<Box<Cell<M, D>>> {
        self.shared.parking.unpark(&self.key)
    }

    /// The incarnation that an input is queued for: it is dropped with the queue of that one.
    fn incarnation(&self) -> Option<u64> {
        let present = self.lock();
        present.incarnation.as_ref().map(|_| present.incarnations)
    }

    fn deliver(self: &Arc<Self>, queued_for: Option<u64>, input: M::Input, taken: Option<Taken>) {
        let mut present = self.lock();
        if queued_for.is_some_and(|incarnation| incarnation != present.incarnations) {
            return;
        }
        self.ensure_present(&mut present);
        if let Some(incarnation) = &mut present.incarnation {
            incarnation.sent += 1;
            // A failed send means that the actor has just ended: its queue is dropped, and this input with it.
            let _ = incarnation.actor.cast(ShellMessage::Input(input, taken));
        }
    }

    fn ensure_present(self: &Arc<Self>, present: &mut Present<M::Input>) {
        if present.incarnation.is_none() {
            present.incarnation = self.incarnate();
            present.incarnations += 1;
        }
    }

    fn incarnate(self: &Arc<Self>) -> Option<Incarnation<M::Input>> {
        let supervisor = &self.shared.supervisor;
        let _runtime = self.shared.runtime.enter();
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

    fn lock(&self) -> MutexGuard<'_, Present<M::Input>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Machine, D: Driver<M>> Respawn for Slot<M, D> {
    fn key(&self) -> &ActorKey {
        &self.key
    }

    fn respawn_after(self: Arc<Self>, pause: Duration, failed: ractor::ActorId) {
        let slot = Arc::clone(&self);
        self.post("restart", pause, move || slot.respawn(failed));
    }
}

impl<M: Machine, D: Driver<M>> Slot<M, D> {
    fn respawn(self: &Arc<Self>, failed: ractor::ActorId) {
        let mut present = self.lock();
        if present.incarnation.as_ref().is_some_and(|incarnation| incarnation.actor.get_id() == failed) {
            present.incarnation = None;
            self.ensure_present(&mut present);
        }
    }
}
