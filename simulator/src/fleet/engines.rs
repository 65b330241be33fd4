//! Makes the engines of a fleet's nodes, all of one kind, and the links that go with them.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::commit::Commit;
use fleetd_sync_core::time::Clock;

use super::{ScenarioError, failed};
use crate::engine::actors::{ActorEngine, Director};
use crate::engine::direct::DirectEngine;
use crate::engine::{EngineKind, NodeEngine};
use crate::links::Links;
use crate::network::Network;
use crate::quic::network::{Traced, UdpNetwork};
use crate::world::World;

/// Makes engines in one world.
pub(super) struct Engines {
    kind: EngineKind,
    world: World,
    director: Option<Director>,
}

impl Engines {
    pub(super) fn new(kind: EngineKind, world: &World) -> Result<Self, ScenarioError> {
        let director = match kind {
            EngineKind::Direct => None,
            EngineKind::Ractor | EngineKind::Quic | EngineKind::QuicBytes => Some(Director::of(world).map_err(failed)?),
        };
        Ok(Self { kind, world: world.clone(), director })
    }

    /// The links of a fleet, on which a frame or a packet takes `latency` one way.
    pub(super) fn links(&self, latency: Duration) -> Links {
        let world = self.world.clone();
        let packets = |traced| {
            let runtime = self.director.as_ref().map(Director::handle)?;
            Some(Links::Packets(Box::new(UdpNetwork::new(world.clone(), runtime, latency, traced))))
        };
        let quic = match self.kind {
            EngineKind::Direct | EngineKind::Ractor => None,
            EngineKind::Quic => packets(Traced::Sizes),
            EngineKind::QuicBytes => packets(Traced::Bytes),
        };
        quic.unwrap_or_else(|| Links::Frames(Network::new(world.clone(), latency)))
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
