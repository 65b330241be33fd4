//! Where the cells of actors are that wait for their next input alone, and have no mailbox and no task meanwhile.
//!
//! A server has such an actor for each device that is connected: its machine knows the session, which no store does, and
//! has nothing to do for hours. A cell knows its own address, and so is held here, where the end of the engine lets go of
//! it, and not by whoever holds that address.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::machine::Machine;

use crate::cell::Cell;
use crate::driver::Driver;

type Parked = BTreeMap<ActorKey, Box<dyn Any + Send>>;

/// The cells of one engine's actors that wait; nothing once the engine has ended.
pub(super) struct Parking(Mutex<Option<Parked>>);

impl Parking {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(Parked::new())))
    }

    /// Keeps a cell; gives it back when the engine has ended.
    pub(super) fn park<M: Machine, D: Driver<M>>(
        &self,
        key: &ActorKey,
        cell: Box<Cell<M, D>>,
    ) -> Result<(), Box<Cell<M, D>>> {
        match &mut *self.lock() {
            Some(parked) => {
                parked.insert(key.clone(), cell);
                Ok(())
            }
            None => Err(cell),
        }
    }

    /// Takes a cell back.
    pub(super) fn unpark<M: Machine, D: Driver<M>>(&self, key: &ActorKey) -> Option<Box<Cell<M, D>>> {
        // A key is one actor's, and so is the kind of its cell.
        self.lock().as_mut()?.remove(key)?.downcast().ok()
    }

    pub(super) fn has(&self, key: &ActorKey) -> bool {
        self.lock().as_ref().is_some_and(|parked| parked.contains_key(key))
    }

    /// Lets go of all cells, and keeps none any more.
    pub(super) fn close(&self) {
        // Dropped when it is unlocked again: a cell may hold the last word of somebody who looks here.
        let parked = self.lock().take();
        drop(parked);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Parked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
