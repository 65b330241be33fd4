//! How what is meant for an actor gets to it: at once in the product, through a queue of its own in a simulation.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::commit::ActorKey;

/// Carries what is meant for actors. What it is given it runs once, later, in an order of its own.
pub trait Post: Send + Sync + 'static {
    /// Runs `run` after `after`. `what` names it: an input, a commit's answer, a timer, a start.
    fn post(&self, actor: &ActorKey, what: &'static str, after: Duration, run: Box<dyn FnOnce() + Send>);
}

/// The post of one engine.
#[derive(Clone)]
pub(super) enum PostOffice {
    /// What is due at once happens at once; the rest sleeps on the runtime.
    AtOnce,
    /// All of it goes through somebody else's queue.
    Through(Arc<dyn Post>),
}

impl PostOffice {
    pub(super) fn post(
        &self,
        actor: &ActorKey,
        what: &'static str,
        after: Duration,
        run: impl FnOnce() + Send + 'static,
    ) {
        match self {
            Self::AtOnce if after.is_zero() => run(),
            Self::AtOnce => {
                drop(tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    run();
                }));
            }
            Self::Through(post) => post.post(actor, what, after, Box::new(run)),
        }
    }
}
