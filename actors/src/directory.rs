//! The directory: the only place that creates actors of a kind, one for each id that somebody speaks to.
//!
//! An idle device is a record in the store, not an actor: the directory loads an actor when the first input for its
//! id arrives, and the engine puts it to rest when it is idle. A million registered devices are a million records.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::machine::Machine;

use crate::address::{Address, Taken};
use crate::driver::Driver;
use crate::spawn::{Load, Spawn, Spawned};

/// Entries above which a new id makes the directory forget those at rest.
const SWEEP_ABOVE: usize = 1024;

type Create<K, I> = dyn Fn(&K, bool) -> Spawned<I> + Send + Sync;

struct Entries<K, I> {
    spawned: BTreeMap<K, Spawned<I>>,
    sweep_above: usize,
}

/// The actors of one kind, by id.
pub struct Directory<K, I> {
    create: Arc<Create<K, I>>,
    entries: Arc<Mutex<Entries<K, I>>>,
}

impl<K, I> Clone for Directory<K, I> {
    fn clone(&self) -> Self {
        Self { create: Arc::clone(&self.create), entries: Arc::clone(&self.entries) }
    }
}

impl<K, I> fmt::Debug for Directory<K, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Directory")
    }
}

impl<K: Ord + Clone + fmt::Display + Send + Sync + 'static, I: Send + 'static> Directory<K, I> {
    /// Makes the directory of one kind; `load` makes the actor of one id from the store.
    pub fn new<S: Spawn, M: Machine<Input = I>, D: Driver<M>>(
        engine: S,
        kind: &'static str,
        load: impl Fn(&K) -> Load<M, D> + Send + Sync + 'static,
    ) -> Self {
        let create = move |id: &K, eager: bool| engine.spawn(ActorKey::new(kind, id), eager, load(id));
        let entries = Entries { spawned: BTreeMap::new(), sweep_above: SWEEP_ABOVE };
        Self { create: Arc::new(create), entries: Arc::new(Mutex::new(entries)) }
    }

    /// Sends an input to the actor of `id`, which is loaded if it rests.
    pub fn send(&self, id: &K, input: I) {
        self.address(id, false).send(input);
    }

    /// Sends an input and learns when the actor has taken it.
    pub fn send_then(&self, id: &K, input: I, taken: Taken) {
        self.address(id, false).send_then(input, taken);
    }

    /// Loads the actor of `id` at once: it may owe effects from before a restart.
    pub fn wake(&self, id: &K) {
        let _ = self.address(id, true);
    }

    /// How many actors of this kind are loaded.
    #[must_use]
    pub fn loaded(&self) -> usize {
        self.lock().spawned.values().filter(|spawned| (spawned.is_loaded)()).count()
    }

    fn address(&self, id: &K, eager: bool) -> Address<I> {
        let mut entries = self.lock();
        if let Some(spawned) = entries.spawned.get(id) {
            return spawned.address.clone();
        }
        if entries.spawned.len() >= entries.sweep_above {
            entries.spawned.retain(|_, spawned| (spawned.is_loaded)());
            entries.sweep_above = (entries.spawned.len() * 2).max(SWEEP_ABOVE);
        }
        let spawned = (self.create)(id, eager);
        let address = spawned.address.clone();
        entries.spawned.insert(id.clone(), spawned);
        address
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries<K, I>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
