//! Where work that waits for the disk is done: away from the actors.

/// Runs jobs that read or write files.
pub trait Blocking: Send + Sync + 'static {
    /// Runs `job` soon, somewhere else. Jobs may run side by side, and in any order.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}
