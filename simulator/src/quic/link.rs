//! One node's link over packets: the product's endpoint, below a node whose memory changes what it says.

use std::fmt;

use bytes::Bytes;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::session::{Class, CloseCode};
use fleetd_sync_transport::endpoint::Endpoint;
use fleetd_sync_transport::link::{
    Accept, DialIdentity, Link, LinkEvents, ListenError, ListenIdentity, Listener, SendError,
};

use super::network::UdpNetwork;

/// The link of one start of a node. A frame that is changed is changed before it is sealed, so that it arrives.
pub struct PacketLink {
    node: String,
    network: UdpNetwork,
    endpoint: Endpoint,
}

impl fmt::Debug for PacketLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketLink({})", self.node)
    }
}

impl PacketLink {
    pub(super) fn new(node: &str, network: UdpNetwork, endpoint: Endpoint) -> Self {
        Self { node: node.to_owned(), network, endpoint }
    }
}

impl Link for PacketLink {
    fn dial(&self, connection: ConnectionId, address: &str, identity: DialIdentity, events: LinkEvents) {
        self.endpoint.dial(connection, address, identity, events);
    }

    fn listen(&self, bind: &str, identity: ListenIdentity, accept: Accept) -> Result<Box<dyn Listener>, ListenError> {
        self.endpoint.listen(bind, identity, accept)
    }

    fn send(&self, connection: ConnectionId, class: Class, frame: Bytes) -> Result<(), SendError> {
        self.endpoint.send(connection, class, self.network.said_by(&self.node, frame))
    }

    fn close(&self, connection: ConnectionId, code: CloseCode) {
        self.endpoint.close(connection, code);
    }

    fn grant(&self, connection: ConnectionId, credits: usize) {
        self.endpoint.grant(connection, credits);
    }
}
