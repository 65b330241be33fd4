//! Work that blocks, as events of the world.

use std::time::Duration;

use fleetd_sync_core::blocking::Blocking;

use crate::fuse::Fuse;
use crate::world::World;

/// Time that such a job takes until it begins.
const JOB_DELAY: Duration = Duration::from_micros(100);

/// Runs one node's blocking jobs.
#[derive(Clone, Debug)]
pub struct NodeBlocking {
    node: String,
    world: World,
    fuse: Fuse,
}

impl NodeBlocking {
    /// The jobs of one node.
    #[must_use]
    pub fn new(node: &str, world: World) -> Self {
        Self { node: node.to_owned(), world, fuse: Fuse::default() }
    }

    /// Gives them a fuse that may end their node.
    #[must_use]
    pub fn with(self, fuse: Fuse) -> Self {
        Self { fuse, ..self }
    }
}

impl Blocking for NodeBlocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        let fuse = self.fuse.clone();
        self.world.schedule(JOB_DELAY, &self.node, b"job", move || {
            if fuse.spend() {
                job();
            }
        });
    }
}
