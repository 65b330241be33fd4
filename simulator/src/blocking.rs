//! Work that blocks, as events of the world.

use std::time::Duration;

use fleetd_sync_core::blocking::Blocking;

use crate::world::World;

/// Time that such a job takes until it begins.
const JOB_DELAY: Duration = Duration::from_micros(100);

/// Runs one node's blocking jobs.
#[derive(Clone, Debug)]
pub struct NodeBlocking {
    node: String,
    world: World,
}

impl NodeBlocking {
    /// The jobs of one node.
    #[must_use]
    pub fn new(node: &str, world: World) -> Self {
        Self { node: node.to_owned(), world }
    }
}

impl Blocking for NodeBlocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.world.schedule(JOB_DELAY, &self.node, b"job", job);
    }
}
