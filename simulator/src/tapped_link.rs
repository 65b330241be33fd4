//! A node's link, as checkers see it: what the node sends, whatever carries it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::session::{Class, CloseCode};
use fleetd_sync_transport::link::{
    Accept, DialIdentity, Link, LinkEvents, ListenError, ListenIdentity, Listener, SendError,
};

use crate::observation::{Observation, Tap};

/// A link that notes each frame before it hands it on.
pub struct TappedLink {
    node: Arc<str>,
    link: Arc<dyn Link>,
    tap: Tap,
}

impl fmt::Debug for TappedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TappedLink({})", self.node)
    }
}

impl TappedLink {
    /// Puts a tap on a node's link.
    #[must_use]
    pub fn new(node: &str, link: Arc<dyn Link>, tap: Tap) -> Arc<Self> {
        Arc::new(Self { node: node.into(), link, tap })
    }
}

impl Link for TappedLink {
    fn dial(&self, connection: ConnectionId, address: &str, identity: DialIdentity, events: LinkEvents) {
        self.link.dial(connection, address, identity, events);
    }

    fn listen(&self, bind: &str, identity: ListenIdentity, accept: Accept) -> Result<Box<dyn Listener>, ListenError> {
        self.link.listen(bind, identity, accept)
    }

    fn send(&self, connection: ConnectionId, class: Class, frame: Bytes) -> Result<(), SendError> {
        self.tap.note(|| Observation::Sent { node: Arc::clone(&self.node), class, frame: frame.clone() });
        self.link.send(connection, class, frame)
    }

    fn close(&self, connection: ConnectionId, code: CloseCode) {
        self.link.close(connection, code);
    }

    fn grant(&self, connection: ConnectionId, credits: usize) {
        self.link.grant(connection, credits);
    }
}
