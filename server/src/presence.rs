//! Who is there, noted now and then, so that a server that is killed knows afterwards when it heard each device last.
//!
//! A device's own record says when it was last heard as of its last connection's end, which a killed server never
//! sees. So once every [`limit::PRESENCE_NOTED_EVERY`] the devices that have come or gone are noted, and after them the
//! time. The next start takes both up: who was there then was heard then. Heartbeats write nothing, and a fleet in
//! which nothing moves costs one small record.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetd_sync_core::commit::{ActorKey, CommitError, Mutation, Space};
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::limit;
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use tokio::time::{MissedTickBehavior, interval};

use crate::commit::commit;
use crate::node::Shared;
use crate::record::{ReadRecordError, device};

/// In whose name the notes are written.
const ACTOR: &str = "presence";
/// The key of the time at which it was last noted who is there.
const NOTED_AT: &[u8] = b"presence-noted-at";
/// What the keys of the devices that were there begin with.
const PRESENT: &[u8] = b"present/";
/// Devices that are noted or taken up in one batch.
const BATCH_DEVICES: usize = 1024;

/// Why presence is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum TakeUpPresenceError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// A device's record is none.
    #[error("the record of {device} is unreadable")]
    Record {
        /// The device.
        device: LocalId,
        /// What is wrong with it.
        source: ReadRecordError,
    },
    /// The store does not take it.
    #[error("the store does not take when devices were last heard")]
    Commit(#[from] CommitError),
}

/// Gives the devices that were there when the last run noted it the time of that note, unless they know a later one.
/// To be called before any actor has a device's record.
///
/// # Errors
/// [`TakeUpPresenceError`].
pub async fn take_up(store: &dyn StateStore) -> Result<(), TakeUpPresenceError> {
    let actor = ActorKey::only(ACTOR);
    let noted_at = store.get(Space::Meta, NOTED_AT)?.and_then(|found| read_time(&found.value));
    loop {
        let page = store.scan(Space::Meta, KeyRange::prefix(PRESENT), BATCH_DEVICES)?;
        if page.is_empty() {
            return Ok(());
        }
        let mut mutations = Vec::new();
        for (key, _) in page {
            if let (Some(device), Some(noted_at)) = (device_of(&key), noted_at) {
                raise(store, device, noted_at, &mut mutations)?;
            }
            mutations.push(Mutation::Delete { space: Space::Meta, key });
        }
        commit(store, &actor, mutations).await?;
    }
}

fn raise(
    store: &dyn StateStore,
    local: LocalId,
    noted_at: Wall,
    mutations: &mut Vec<Mutation>,
) -> Result<(), TakeUpPresenceError> {
    let Some(found) = store.get(Space::Device, local.as_bytes())? else { return Ok(()) };
    let unreadable = |source| TakeUpPresenceError::Record { device: local, source };
    let mut record = device::decode(&found.value).map_err(unreadable)?;
    if record.last_heard_at < Some(noted_at) {
        record.last_heard_at = Some(noted_at);
        device::put(&record, mutations);
    }
    Ok(())
}

/// Notes who is there.
pub struct Presence {
    shared: Arc<Shared>,
    /// Who was there when it was last noted.
    noted: BTreeSet<LocalId>,
}

impl Presence {
    /// Starts with nobody there.
    #[must_use]
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, noted: BTreeSet::new() }
    }

    /// Notes it again and again, until it is dropped.
    pub async fn run(mut self) {
        let mut again = interval(limit::PRESENCE_NOTED_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            again.tick().await;
            if let Err(error) = self.note().await {
                tracing::warn!(%error, "who is there was not noted; the next note brings it");
            }
        }
    }

    /// Notes who has come and gone, and then the time.
    ///
    /// # Errors
    /// [`CommitError`] when that is not durable; the next note brings what this one should have.
    pub async fn note(&mut self) -> Result<(), CommitError> {
        let present: BTreeSet<LocalId> = self.shared.connections.devices().into_iter().collect();
        let came = present.difference(&self.noted).map(|device| (*device, true));
        let gone = self.noted.difference(&present).map(|device| (*device, false));
        let changes: Vec<(LocalId, bool)> = came.chain(gone).collect();
        let (store, actor) = (self.shared.seams.store.as_ref(), ActorKey::only(ACTOR));
        for part in changes.chunks(BATCH_DEVICES) {
            let mutations = part.iter().map(|(device, is_present)| change(*device, *is_present)).collect();
            commit(store, &actor, mutations).await?;
            for (device, is_present) in part {
                if *is_present {
                    self.noted.insert(*device)
                } else {
                    self.noted.remove(device)
                };
            }
        }
        // Nobody there needs no time: what was noted before says all.
        if self.noted.is_empty() {
            return Ok(());
        }
        let value = self.shared.seams.clock.now().wall.0.to_le_bytes().to_vec();
        commit(store, &actor, vec![Mutation::Put { space: Space::Meta, key: NOTED_AT.to_vec(), value }]).await
    }
}

fn change(device: LocalId, is_present: bool) -> Mutation {
    let (space, key) = (Space::Meta, [PRESENT, device.as_bytes()].concat());
    if is_present { Mutation::Put { space, key, value: Vec::new() } } else { Mutation::Delete { space, key } }
}

fn device_of(key: &[u8]) -> Option<LocalId> {
    LocalId::from_slice(key.strip_prefix(PRESENT)?)
}

fn read_time(value: &[u8]) -> Option<Wall> {
    Some(Wall(i64::from_le_bytes(value.try_into().ok()?)))
}
