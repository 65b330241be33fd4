//! Work that blocks, as events of the world.

use std::time::Duration;

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

    fn schedule(&self, job: Box<dyn FnOnce() + Send>) {
        self.world.schedule(JOB_DELAY, &self.node, b"job", job);
    }
}

impl fleetd_server::blocking::Blocking for NodeBlocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.schedule(job);
    }
}

impl fleetd_agent::blocking::Blocking for NodeBlocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        self.schedule(job);
    }
}
