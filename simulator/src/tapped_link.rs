//! A node's link, whatever carries it: checkers see what the node sends, and its fuse may blow at any call.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::session::{Class, CloseCode};
use fleetd_sync_transport::link::{
    Accept, DialIdentity, Link, LinkEvent, LinkEvents, ListenError, ListenIdentity, Listener, SendError,
};

use crate::fuse::Fuse;
use crate::observation::{Observation, Tap};

/// A link that notes each frame before it hands it on, and hands on nothing for a node that is gone.
pub struct TappedLink {
    node: Arc<str>,
    link: Arc<dyn Link>,
    tap: Tap,
    fuse: Fuse,
    /// Connections that the node has dialled and that stand.
    dialled: Arc<Mutex<BTreeSet<ConnectionId>>>,
}

impl fmt::Debug for TappedLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TappedLink({})", self.node)
    }
}

impl TappedLink {
    /// Puts a tap and a fuse on a node's link.
    #[must_use]
    pub fn new(node: &str, link: Arc<dyn Link>, tap: Tap, fuse: Fuse) -> Arc<Self> {
        Arc::new(Self { node: node.into(), link, tap, fuse, dialled: Arc::default() })
    }

    /// Sends on every connection that the node has dialled what the node itself never would.
    pub fn send_besides(&self, mut frame: impl FnMut() -> (Class, Bytes)) {
        let connections = self.dialled.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for connection in connections.into_iter().filter(|_| !self.fuse.is_blown()) {
            let (class, frame) = frame();
            let _ = self.link.send(connection, class, frame); // One that is gone or full takes no more.
        }
    }
}

impl Link for TappedLink {
    fn dial(&self, connection: ConnectionId, address: &str, identity: DialIdentity, events: LinkEvents) {
        if !self.fuse.spend() {
            return;
        }
        let dialled = Arc::clone(&self.dialled);
        let noted: LinkEvents = Arc::new(move |connection, event| {
            let mut dialled = dialled.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                LinkEvent::Up { .. } => drop(dialled.insert(connection)),
                LinkEvent::Down { .. } => drop(dialled.remove(&connection)),
                LinkEvent::Frame { .. } => {}
            }
            drop(dialled);
            events(connection, event);
        });
        self.link.dial(connection, address, identity, noted);
    }

    fn listen(&self, bind: &str, identity: ListenIdentity, accept: Accept) -> Result<Box<dyn Listener>, ListenError> {
        self.link.listen(bind, identity, accept)
    }

    fn send(&self, connection: ConnectionId, class: Class, frame: Bytes) -> Result<(), SendError> {
        if !self.fuse.spend() {
            return Ok(());
        }
        self.tap.note(|| Observation::Sent { node: Arc::clone(&self.node), class, frame: frame.clone() });
        self.link.send(connection, class, frame)
    }

    fn close(&self, connection: ConnectionId, code: CloseCode) {
        if self.fuse.spend() {
            self.link.close(connection, code);
        }
    }

    fn grant(&self, connection: ConnectionId, credits: usize) {
        self.link.grant(connection, credits);
    }
}
