//! The contract of work that blocks: done away from the actors, by whatever an engine has for it.

/// Runs jobs that read or write files, or compute for long.
pub trait Blocking: Send + Sync + 'static {
    /// Runs `job` soon, somewhere else. Jobs may run side by side, and in any order.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}
