//! Makes the engines of a fleet's nodes, all of one kind.

use std::sync::Arc;

use fleetd_sync_core::commit::Commit;
use fleetd_sync_core::time::Clock;

use super::{ScenarioError, failed};
use crate::engine::actors::{ActorEngine, Director};
use crate::engine::direct::DirectEngine;
use crate::engine::{EngineKind, NodeEngine};
use crate::world::World;

/// Makes engines in one world.
pub(super) struct Engines {
    world: World,
    director: Option<Director>,
}

impl Engines {
    pub(super) fn new(kind: EngineKind, world: &World) -> Result<Self, ScenarioError> {
        let director = match kind {
            EngineKind::Direct => None,
            EngineKind::Ractor => Some(Director::of(world).map_err(failed)?),
        };
        Ok(Self { world: world.clone(), director })
    }

    /// The engine of a node that starts.
    pub(super) fn engine(
        &self,
        node: &str,
        clock: Arc<dyn Clock>,
        commit: Arc<dyn Commit>,
    ) -> Result<NodeEngine, ScenarioError> {
        let world = self.world.clone();
        Ok(match &self.director {
            None => NodeEngine::Direct(DirectEngine::new(node, world, clock, commit)),
            Some(director) => {
                let engine = ActorEngine::new(node, world, director.clone(), clock, commit);
                NodeEngine::Ractor(engine.map_err(failed)?)
            }
        })
    }
}
