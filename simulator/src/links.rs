//! The links of a fleet: frames that are handed over as they are, or the packets of the product's own QUIC.
//!
//! Both take the same faults. What a fault means is the same for a node and may not be the same on the way: a cut holds
//! frames back until it heals, and loses packets, which QUIC sends again.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_transport::endpoint::Settings;
use fleetd_sync_transport::link::Link;

use crate::clock::NodeClock;
use crate::fleet::{SERVER, ScenarioError};
use crate::network::{Network, Passing, Trouble};
use crate::quic::condition::Condition;
use crate::quic::network::UdpNetwork;

/// The links of a fleet. Clones are the same links.
#[derive(Clone, Debug)]
pub enum Links {
    /// Frames.
    Frames(Network),
    /// Packets.
    Packets(Box<UdpNetwork>),
}

impl Links {
    /// The link of a node that starts.
    #[must_use]
    pub fn link(&self, node: &str) -> Arc<dyn Link> {
        match self {
            Self::Frames(network) => network.link(node),
            Self::Packets(network) => {
                network.link(node, if node == SERVER { Settings::server() } else { Settings::default() })
            }
        }
    }

    /// What a node has to listen on that is to be reached at an address.
    #[must_use]
    pub fn listen_address(&self, address: &str) -> String {
        match self {
            Self::Frames(_) => address.to_owned(),
            Self::Packets(network) => network.listen_address(address),
        }
    }

    /// Says how long it takes one way to or from a node.
    pub fn set_latency(&self, node: &str, latency: Duration) {
        match self {
            Self::Frames(network) => network.set_latency(node, latency),
            Self::Packets(network) => network.set_latency(node, latency),
        }
    }

    /// Says by which clock a node judges the certificates of whoever dials it.
    pub fn set_clock(&self, node: &str, clock: NodeClock) {
        match self {
            Self::Frames(network) => network.set_clock(node, clock),
            Self::Packets(network) => network.set_clock(node, clock),
        }
    }

    /// Lets something go wrong with a node's link, until [`relieve`](Self::relieve) is called with the same id.
    pub fn impose(&self, node: &str, id: u64, trouble: Trouble) {
        match self {
            Self::Frames(network) => network.impose(node, id, trouble),
            Self::Packets(network) => network.impose(node, id, Condition::from(trouble)),
        }
    }

    /// Ends what was imposed.
    pub fn relieve(&self, node: &str, id: u64) {
        match self {
            Self::Frames(network) => network.relieve(node, id),
            Self::Packets(network) => network.relieve(node, id),
        }
    }

    /// Gives a node another address without a word.
    pub fn rebind(&self, node: &str) {
        match self {
            Self::Frames(network) => network.rebind(node),
            Self::Packets(network) => network.rebind(node),
        }
    }

    /// Cuts a node off from all others.
    pub fn cut(&self, node: &str) {
        match self {
            Self::Frames(network) => network.cut(node),
            Self::Packets(network) => network.cut(node),
        }
    }

    /// Leaves a node that was cut off to another trouble that cuts it off.
    pub fn hand_over(&self, node: &str) {
        match self {
            Self::Frames(network) => network.hand_over(node),
            Self::Packets(network) => network.heal(node),
        }
    }

    /// Ends a cut.
    pub fn heal(&self, node: &str) {
        match self {
            Self::Frames(network) => network.heal(node),
            Self::Packets(network) => network.heal(node),
        }
    }

    /// Ends every connection of a node.
    pub fn reset(&self, node: &str) {
        match self {
            Self::Frames(network) => network.reset(node),
            Self::Packets(network) => network.reset(node),
        }
    }

    /// Ends a node as a power cut does.
    pub fn kill(&self, node: &str) {
        match self {
            Self::Frames(network) => network.kill(node),
            Self::Packets(network) => network.kill(node),
        }
    }

    /// Lets somebody say how long each frame takes from now on.
    ///
    /// # Errors
    /// [`ScenarioError`] where there are packets: how long those take follows from the conditions of their links.
    pub fn shape(&self, shape: impl FnMut(&Passing<'_>) -> Duration + Send + 'static) -> Result<(), ScenarioError> {
        match self {
            Self::Frames(network) => network.shape(shape),
            Self::Packets(_) => return Err(ScenarioError::new("a rehearsal does not run on the engine quic")),
        }
        Ok(())
    }

    /// The most inputs that one end has not taken yet. Of packets the product's own endpoint keeps count, and no frame
    /// beyond its credits is read.
    #[must_use]
    pub fn unread_max(&self) -> usize {
        match self {
            Self::Frames(network) => network.unread_max(),
            Self::Packets(_) => 0,
        }
    }

    /// How many frames or packets have been sent, and how many bytes in them.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        match self {
            Self::Frames(network) => network.traffic(),
            Self::Packets(network) => network.traffic(),
        }
    }
}
