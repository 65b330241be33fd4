//! How the actors of a simulated node are run: bare, or as the product's own ractor actors; the latter over a simulated
//! link or over the product's own QUIC.

pub mod actors;
pub mod direct;

use std::fmt;
use std::str::FromStr;

use fleetd_actors::driver::Driver;
use fleetd_actors::spawn::{Load, Spawn, Spawned};
use fleetd_sync_core::commit::ActorKey;
use fleetd_sync_core::machine::Machine;

use self::actors::ActorEngine;
use self::direct::DirectEngine;

/// Which engine runs a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    /// Bare cells on the world's queue.
    #[default]
    Direct,
    /// The product's ractor actors, whose messages pass through the world's queue.
    Ractor,
    /// The same, and the product's QUIC endpoint in place of a simulated link.
    Quic,
    /// The same, and the bytes of packets are in the trace. They repeat only where randomness is a seed's.
    QuicBytes,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Ractor => "ractor",
            Self::Quic => "quic",
            Self::QuicBytes => "quic-bytes",
        })
    }
}

/// Why a text names no engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of direct, ractor, quic")]
pub struct ParseEngineError(String);

impl FromStr for EngineKind {
    type Err = ParseEngineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "direct" => Ok(Self::Direct),
            "ractor" => Ok(Self::Ractor),
            "quic" => Ok(Self::Quic),
            "quic-bytes" => Ok(Self::QuicBytes),
            _ => Err(ParseEngineError(text.to_owned())),
        }
    }
}

/// One node's engine.
#[derive(Clone)]
pub enum NodeEngine {
    /// Bare cells.
    Direct(DirectEngine),
    /// Ractor actors.
    Ractor(ActorEngine),
}

impl NodeEngine {
    /// Ends the node as a power cut does: nothing of it happens any more.
    pub fn kill(&self) {
        match self {
            Self::Direct(engine) => engine.kill(),
            Self::Ractor(engine) => engine.kill(),
        }
    }
}

impl Spawn for NodeEngine {
    fn spawn<M: Machine, D: Driver<M>>(&self, key: ActorKey, eager: bool, load: Load<M, D>) -> Spawned<M::Input> {
        match self {
            Self::Direct(engine) => engine.spawn(key, eager, load),
            Self::Ractor(engine) => engine.spawn(key, eager, load),
        }
    }
}
