//! Which connections are open, and when each device was last heard. Heartbeats end here and never reach an actor.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::id::{ConnectionId, LocalId};
use fleetd_sync_core::session::Grade;
use fleetd_sync_core::time::Wall;
use fleetd_sync_transport::link::PeerIdentity;

/// One open connection of a device.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Whose it is.
    pub device: LocalId,
    /// Where the device is.
    pub address: SocketAddr,
    /// The last date of the certificate that it showed.
    pub certificate_not_after: Wall,
    /// Since when.
    pub since: Wall,
    /// When it was last heard.
    pub heard_at: Wall,
    /// What its actor lets it do; `None` until its actor has taken it.
    pub grade: Option<Grade>,
}

#[derive(Debug, Default)]
struct Open {
    by_connection: BTreeMap<ConnectionId, Connection>,
    by_device: BTreeMap<LocalId, ConnectionId>,
}

/// The connections of one server.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    open: Mutex<Open>,
    moves: AtomicU64,
}

impl ConnectionTable {
    /// Adds a connection that proved to be a device's.
    pub fn insert(&self, connection: ConnectionId, peer: &PeerIdentity, address: SocketAddr, now: Wall) {
        let mut open = self.lock();
        let (device, certificate_not_after) = (peer.device, peer.not_after);
        let entry = Connection { device, address, certificate_not_after, since: now, heard_at: now, grade: None };
        open.by_connection.insert(connection, entry);
        open.by_device.insert(device, connection);
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections have come or gone so far.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Notes that a device said something.
    pub fn heard(&self, connection: ConnectionId, now: Wall) {
        if let Some(entry) = self.lock().by_connection.get_mut(&connection) {
            entry.heard_at = now;
        }
    }

    /// Notes that a connection's actor has taken it.
    pub fn serve(&self, connection: ConnectionId, grade: Grade) {
        if let Some(entry) = self.lock().by_connection.get_mut(&connection) {
            entry.grade = Some(grade);
        }
    }

    /// Notes that a connection's actor has given it up: it reaches nobody, though it has yet to end.
    pub fn give_up(&self, connection: ConnectionId) {
        if let Some(entry) = self.lock().by_connection.get_mut(&connection) {
            entry.grade = None;
        }
    }

    /// Removes a connection that is gone, and says whose it was.
    pub fn remove(&self, connection: ConnectionId) -> Option<LocalId> {
        let mut open = self.lock();
        let device = open.by_connection.remove(&connection)?.device;
        self.moves.fetch_add(1, Ordering::Relaxed);
        if open.by_device.get(&device) == Some(&connection) {
            open.by_device.remove(&device);
        }
        Some(device)
    }

    /// The connection of a device that its actor has taken.
    #[must_use]
    pub fn of_device(&self, device: LocalId) -> Option<(ConnectionId, Connection)> {
        let open = self.lock();
        let connection = *open.by_device.get(&device)?;
        let entry = open.by_connection.get(&connection).filter(|entry| entry.grade.is_some())?;
        Some((connection, entry.clone()))
    }

    /// Whose a connection is.
    #[must_use]
    pub fn device_of(&self, connection: ConnectionId) -> Option<LocalId> {
        self.lock().by_connection.get(&connection).map(|entry| entry.device)
    }

    /// The devices that are connected.
    #[must_use]
    pub fn devices(&self) -> Vec<LocalId> {
        self.lock().by_device.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetd_sync_core::key::SecretKey;

    #[test]
    fn a_connection_that_was_given_up_reaches_nobody_and_is_whose_it_was_until_it_ends() {
        let (table, connection) = (ConnectionTable::default(), ConnectionId::from_bytes([1; 8]));
        let key = SecretKey::from_bytes([2; 32]).public();
        let peer = PeerIdentity { device: key.id().into(), key, not_after: Wall(1), expired: false };
        let device = peer.device;
        table.insert(connection, &peer, "127.0.0.1:1".parse().unwrap(), Wall(0));
        assert!(table.of_device(device).is_none(), "no actor has taken it");
        table.serve(connection, Grade::Full);
        assert!(table.of_device(device).is_some());
        table.give_up(connection);
        assert!(table.of_device(device).is_none());
        assert_eq!((table.device_of(connection), table.remove(connection)), (Some(device), Some(device)));
        assert_eq!((table.remove(connection), table.moves()), (None, 2), "one came and went");
    }
}
