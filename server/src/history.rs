//! Which history a store's revisions count in: a restored backup goes on from where it was taken, so that its later
//! revisions stand for other changes than those that were lost.

use fleetd_sync_core::commit::{ActorKey, CommitError, Mutation, Space};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_store::state_store::{ReadError, StateStore};

use crate::commit::commit;

const KEY: &[u8] = b"history";
const ACTOR: &str = "history";

/// The name of a history, drawn when it begins. A store that was never given one has the zero name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History([u8; Self::LENGTH]);

/// Why a store's history is not known.
#[derive(Debug, thiserror::Error)]
pub enum TakeUpHistoryError {
    /// It cannot be read.
    #[error("the name of the store's history cannot be read")]
    Read(#[from] ReadError),
    /// It cannot be given one.
    #[error("the store does not take the name of its history")]
    Commit(#[from] CommitError),
}

impl History {
    /// Bytes of a name.
    pub const LENGTH: usize = 8;

    /// The name of a history that begins now.
    #[must_use]
    pub fn draw(entropy: &mut Entropy) -> Self {
        Self(entropy.bytes())
    }

    /// The history of a store.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn of(store: &dyn StateStore) -> Result<Self, ReadError> {
        let found = store.get(Space::Meta, KEY)?;
        Ok(found.and_then(|found| found.value.as_slice().try_into().ok()).map(Self).unwrap_or_default())
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// Puts it in the place of what a store's was.
    #[must_use]
    pub fn put(self) -> Mutation {
        Mutation::Put { space: Space::Meta, key: KEY.to_vec(), value: self.0.to_vec() }
    }
}

/// Gives a store that has no history yet one of its own.
///
/// # Errors
/// [`TakeUpHistoryError`].
pub async fn take_up(store: &dyn StateStore, entropy: &mut Entropy) -> Result<(), TakeUpHistoryError> {
    if store.get(Space::Meta, KEY)?.is_none() {
        commit(store, &ActorKey::only(ACTOR), vec![History::draw(entropy).put()]).await?;
    }
    Ok(())
}
