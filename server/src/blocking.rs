//! Where work that blocks is done: on threads of the runtime.

use fleetd_sync_core::blocking::Blocking;

/// The threads that a tokio runtime keeps for such work.
#[derive(Clone, Debug)]
pub struct RuntimeThreads(pub tokio::runtime::Handle);

impl Blocking for RuntimeThreads {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        drop(self.0.spawn_blocking(job)); // Nobody waits for it: what it does, it tells by itself.
    }
}
