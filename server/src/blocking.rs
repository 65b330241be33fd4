//! Where work that blocks is done: away from the actors.

/// Runs jobs that read files or compute for long.
pub trait Blocking: Send + Sync + 'static {
    /// Runs `job` soon, somewhere else.
    fn run(&self, job: Box<dyn FnOnce() + Send>);
}
