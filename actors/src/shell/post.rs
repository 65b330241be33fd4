//! How what is meant for an actor gets to it: at once in the product, through a queue of its own in a simulation.

use std::any::type_name;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::machine::Machine;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Takes a timer back, unless it has gone off.
pub type Disarm = Box<dyn FnOnce() + Send>;

/// Carries what is meant for actors. What it is given it runs once, later, in an order of its own.
pub trait Post: Send + Sync + 'static {
    /// Runs `run` after `after`. `what` names it: an input, a commit's answer, a timer, a start.
    fn post(&self, actor: &ActorKey, what: &'static str, after: Duration, run: Box<dyn FnOnce() + Send>);

    /// Runs `run` after `after`, unless the answer is called before. Whoever arms a timer anew takes the former back:
    /// it would wait for its own time, and an actor whose time is now near and now far would leave one each time.
    fn arm(&self, actor: &ActorKey, after: Duration, run: Box<dyn FnOnce() + Send>) -> Disarm;

    /// Hears which input a machine is about to be given, and in the middle of what; none stands for its time.
    fn observe(&self, machine: &'static str, phase: &'static str, input: Option<&dyn fmt::Debug>);
}

/// The post of one engine.
#[derive(Clone)]
pub(super) enum PostOffice {
    /// What is due at once happens at once; the rest sleeps on this runtime.
    AtOnce(Handle),
    /// All of it goes through somebody else's queue.
    Through(Arc<dyn Post>),
}

impl PostOffice {
    /// Tells whoever carries the messages what a machine is about to be given.
    pub(super) fn observe<M: Machine>(&self, machine: &M, input: Option<&M::Input>) {
        if let Self::Through(post) = self {
            post.observe(type_name::<M>(), machine.phase(), input.map(|input| input as &dyn fmt::Debug));
        }
    }

    pub(super) fn post(
        &self,
        actor: &ActorKey,
        what: &'static str,
        after: Duration,
        run: impl FnOnce() + Send + 'static,
    ) {
        match self {
            Self::AtOnce(_) if after.is_zero() => run(),
            Self::AtOnce(runtime) => drop(sleep(runtime, after, run)),
            Self::Through(post) => post.post(actor, what, after, Box::new(run)),
        }
    }

    /// Runs `run` after `after`, unless the answer is called before. In a simulation it cannot be taken back: whatever
    /// is posted there is posted by an engine of bare cells too, with which this one is compared.
    pub(super) fn ask(
        &self,
        actor: &ActorKey,
        what: &'static str,
        after: Duration,
        run: impl FnOnce() + Send + 'static,
    ) -> Disarm {
        match self {
            Self::AtOnce(_) => self.arm(actor, after, run),
            Self::Through(post) => {
                post.post(actor, what, after, Box::new(run));
                Box::new(|| ())
            }
        }
    }

    pub(super) fn arm(&self, actor: &ActorKey, after: Duration, run: impl FnOnce() + Send + 'static) -> Disarm {
        match self {
            Self::AtOnce(runtime) => {
                let sleeper = sleep(runtime, after, run).abort_handle();
                Box::new(move || sleeper.abort())
            }
            Self::Through(post) => post.arm(actor, after, Box::new(run)),
        }
    }
}

/// Runs something on the runtime when its time has come.
fn sleep(runtime: &Handle, after: Duration, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    runtime.spawn(async move {
        tokio::time::sleep(after).await;
        run();
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_taken_back_leaves_nothing_behind_and_never_goes_off() {
        let (key, gone_off) = (ActorKey::new("test", 1), Arc::new(AtomicUsize::new(0)));
        let arm = |after| {
            let gone_off = Arc::clone(&gone_off);
            PostOffice::AtOnce(Handle::current()).arm(&key, after, move || {
                gone_off.fetch_add(1, Ordering::Relaxed);
            })
        };
        for _ in 0..100 {
            arm(Duration::from_secs(3600))();
        }
        let _left = arm(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((gone_off.load(Ordering::Relaxed), Handle::current().metrics().num_alive_tasks()), (1, 0));
        tokio::time::sleep(Duration::from_secs(7200)).await;
        assert_eq!(gone_off.load(Ordering::Relaxed), 1);
    }
}
