//! What the server's machines decide, carried out: sending, storing, issuing certificates, waking each other.

mod artifact;
mod audit;
mod authority;
mod device;
mod lobby;
mod log_store;
mod orders;
mod registration;
mod rollout;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use fleetd_actors::address::Taken;
use fleetd_actors::device::{Connected, Input as DeviceInput};
use fleetd_actors::lobby::Input as LobbyInput;
use fleetd_sync_core::id::{ConnectionId, LocalId};
use fleetd_sync_core::session::{Class, CloseCode, Grade, Message};
use fleetd_sync_transport::frame;
use fleetd_sync_transport::link::{Accept, Link, LinkEvent, LinkEvents, Peer, PeerIdentity, SendError};

use crate::node::Node;
use crate::record;

pub use audit::AuditDriver;
pub use authority::AuthorityDriver;
pub use device::DeviceDriver;
pub use lobby::LobbyDriver;
pub use log_store::{LogStoreDriver, LogStoreKey};
pub use orders::OrdersDriver;
pub use registration::RegistrationDriver;
pub use rollout::RolloutDriver;

/// Decides for each new connection who hears of it.
pub(crate) fn accept(node: Node) -> Accept {
    Arc::new(move |_, peer, address| -> LinkEvents {
        let node = node.clone();
        match peer.clone() {
            Peer::Device(identity) => {
                Arc::new(move |connection, event| on_device(&node, connection, &identity, address, event))
            }
            Peer::Anonymous => Arc::new(move |connection, event| on_stranger(&node, connection, event)),
            // Servers do not dial servers yet.
            Peer::Server { .. } => Arc::new(move |connection, event| {
                if matches!(event, LinkEvent::Up { .. }) {
                    node.shared.seams.link.close(connection, CloseCode::Unexpected);
                }
            }),
        }
    })
}

fn on_device(node: &Node, connection: ConnectionId, peer: &PeerIdentity, address: SocketAddr, event: LinkEvent) {
    let (shared, device) = (&node.shared, peer.device);
    let now = shared.seams.clock.now();
    match event {
        LinkEvent::Up { .. } => {
            shared.connections.insert(connection, peer, address, now.wall);
            let grade = if peer.expired { Grade::RenewOnly } else { Grade::Full };
            let log_positions = record::log::positions(shared.seams.store.as_ref(), device).unwrap_or_default();
            let (key, boot) = (peer.key, shared.identity.boot);
            // Held until it is sent, so that no newer trust, of which the device's actor is told, comes before it.
            let trust = shared.trust.read().unwrap_or_else(PoisonError::into_inner);
            let orders = shared.orders.read().unwrap_or_else(PoisonError::into_inner);
            let connected = Connected {
                connection,
                key,
                grade,
                certificate_not_after: peer.not_after,
                boot,
                log_positions,
                trust: Arc::clone(&trust),
                orders: Arc::clone(&orders),
            };
            node.actors.devices.send(&device, DeviceInput::Connected(Box::new(connected)));
            drop((trust, orders));
        }
        LinkEvent::Frame { bytes, .. } => {
            shared.connections.heard(connection, now.wall);
            match frame::decode(&bytes) {
                Ok(Some(message)) => {
                    let link = Arc::clone(&shared.seams.link);
                    let taken = Taken::new(move || link.grant(connection, 1));
                    node.actors.devices.send_then(&device, DeviceInput::Message { connection, message }, taken);
                }
                // A kind that this version does not know is passed over.
                Ok(None) => shared.seams.link.grant(connection, 1),
                Err(error) => refuse(node, connection, &error),
            }
        }
        LinkEvent::Down { .. } => {
            shared.connections.remove(connection);
            node.actors.devices.send(&device, DeviceInput::Disconnected { connection });
        }
    }
}

fn on_stranger(node: &Node, connection: ConnectionId, event: LinkEvent) {
    let lobby = &node.actors.lobby;
    match event {
        LinkEvent::Up { .. } => lobby.send(LobbyInput::Connected(connection)),
        LinkEvent::Frame { bytes, .. } => match frame::decode(&bytes) {
            Ok(Some(message)) => {
                let link = Arc::clone(&node.shared.seams.link);
                let taken = Taken::new(move || link.grant(connection, 1));
                lobby.send_then(LobbyInput::Message { connection, message }, taken);
            }
            Ok(None) => node.shared.seams.link.grant(connection, 1),
            Err(error) => refuse(node, connection, &error),
        },
        LinkEvent::Down { .. } => lobby.send(LobbyInput::Disconnected(connection)),
    }
}

fn refuse(node: &Node, connection: ConnectionId, error: &frame::DecodeFrameError) {
    tracing::warn!(%connection, %error, "a peer sent what is no message");
    node.shared.seams.link.close(connection, CloseCode::Malformed);
}

/// Sends a message. One that cannot be sent closes the session, and the next Hello repairs what was lost.
fn send(link: &dyn Link, connection: ConnectionId, class: Class, message: &Message) {
    let frame: Bytes = match frame::encode(message) {
        Ok(frame) => frame,
        Err(error) => {
            tracing::error!(%connection, %error, "a message fits no frame");
            link.close(connection, CloseCode::Internal);
            return;
        }
    };
    match link.send(connection, class, frame) {
        // One that is gone is told so by its events; an overflow closes itself.
        Ok(()) | Err(SendError::Unknown { .. } | SendError::Overflow { .. }) => {}
        Err(error @ SendError::TooLarge { .. }) => {
            tracing::error!(%connection, %error, "a message was not sent");
            link.close(connection, CloseCode::Internal);
        }
    }
}

/// The connection on which a device may be told something outside its session: acks and artifacts.
fn open_connection(node: &crate::node::Shared, device: LocalId) -> Option<ConnectionId> {
    node.connections.of_device(device).map(|(connection, _)| connection)
}
