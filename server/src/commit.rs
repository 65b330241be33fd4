//! Waiting for the store: for those who are no actors and write a record of their own.

use fleetd_sync_core::commit::{ActorKey, Batch, CommitError, Mutation};
use fleetd_sync_store::state_store::StateStore;
use tokio::sync::oneshot;

/// Submits mutations and waits until they are durable or have failed. They are made or not made even when nobody
/// waits any more.
///
/// # Errors
/// [`CommitError`]; nothing was changed then.
pub async fn commit(store: &dyn StateStore, actor: &ActorKey, mutations: Vec<Mutation>) -> Result<(), CommitError> {
    let (done, committed) = oneshot::channel();
    let batch = Batch { actor: actor.clone(), mutations };
    store.submit(batch, Box::new(move |result| drop(done.send(result))));
    let result = committed.await.unwrap_or_else(|_| Err(CommitError::Failed { cause: "the store was closed".into() }));
    if result.is_err() {
        // Nothing is kept in memory that the store does not have: there is nothing to load again.
        store.reloaded(actor);
    }
    result
}
