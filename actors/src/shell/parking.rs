//! Where the cells of actors are that wait for their next input or for a time that is far, and have no mailbox and no
//! task meanwhile.
//!
//! A server has such an actor for each device that is connected: its machine knows the session, which no store does, and
//! has nothing to do for hours. A cell knows its own address, and so is held here, where the end of the engine lets go of
//! it, and not by whoever holds that address.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::machine::Machine;

use super::post::Disarm;
use crate::cell::Cell;
use crate::driver::Driver;

/// A cell that waits.
pub(super) struct Parked<M: Machine, D: Driver<M>> {
    pub(super) cell: Box<Cell<M, D>>,
    pub(super) _alarm: Option<Alarm>,
}

/// Wakes an actor when its machine's time has come, for as long as this is held: what is to happen holds the actor's
/// place, and that the store.
pub(super) struct Alarm(Option<Disarm>);

impl Alarm {
    pub(super) fn new(disarm: Disarm) -> Self {
        Self(Some(disarm))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(disarm) = self.0.take() {
            disarm();
        }
    }
}

type Cells = BTreeMap<ActorKey, Box<dyn Any + Send>>;

/// The cells of one engine's actors that wait; nothing once the engine has ended.
pub(super) struct Parking(Mutex<Option<Cells>>);

impl Parking {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(Cells::new())))
    }

    /// Keeps a cell; gives it back when the engine has ended.
    pub(super) fn park<M: Machine, D: Driver<M>>(
        &self,
        key: &ActorKey,
        parked: Parked<M, D>,
    ) -> Result<(), Box<Cell<M, D>>> {
        match &mut *self.lock() {
            Some(cells) => {
                cells.insert(key.clone(), Box::new(parked));
                Ok(())
            }
            None => Err(parked.cell),
        }
    }

    /// Takes a cell back.
    pub(super) fn unpark<M: Machine, D: Driver<M>>(&self, key: &ActorKey) -> Option<Box<Cell<M, D>>> {
        // A key is one actor's, and so is the kind of its cell.
        let parked: Box<Parked<M, D>> = self.lock().as_mut()?.remove(key)?.downcast().ok()?;
        Some(parked.cell)
    }

    pub(super) fn has(&self, key: &ActorKey) -> bool {
        self.lock().as_ref().is_some_and(|cells| cells.contains_key(key))
    }

    /// Lets go of all cells, and keeps none any more.
    pub(super) fn close(&self) {
        // Dropped when it is unlocked again: a cell may hold the last word of somebody who looks here.
        let cells = self.lock().take();
        drop(cells);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Cells>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
