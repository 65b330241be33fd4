//! Receipts: what is stored in one batch with a change, so that the change is known to have been made.
//!
//! A request's receipt is in scope while the request is answered. Whoever changes the store for it takes the receipt
//! along: [`Answers`](crate::answers::Answers) with the operation that an actor is asked for, and those who write
//! records of their own with [`receipt`]. Each receipt is fenced: a second change for the same request is refused.

use fleetd_sync_core::commit::Mutation;

tokio::task_local! {
    static RECEIPT: Vec<Mutation>;
}

/// Runs `change` with a receipt in scope.
pub(crate) async fn with_receipt<T>(receipt: Vec<Mutation>, change: impl Future<Output = T>) -> T {
    RECEIPT.scope(receipt, change).await
}

/// Runs `change` with more beside the receipt that is in scope: a fence, say.
pub(crate) async fn with_more<T>(more: Mutation, change: impl Future<Output = T>) -> T {
    let mut mutations = receipt();
    mutations.push(more);
    with_receipt(mutations, change).await
}

/// The receipt that is in scope; empty outside a request.
#[must_use]
pub(crate) fn receipt() -> Vec<Mutation> {
    RECEIPT.try_with(Clone::clone).unwrap_or_default()
}
