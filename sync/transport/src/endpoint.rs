//! QUIC behind the [`Link`] seam.
//!
//! One connection carries at most one unidirectional stream of each class and direction. A stream begins with its
//! class's number and then carries frames, each a varint length and so many bytes. Streams are opened when they are
//! first needed, and a better class's goes first when the network is slow. A connection at rest has one task and no
//! buffer of its own, since a server has many of them.

mod accepted_tls;
mod connection;
mod ground;
mod outbox;
mod reader;
mod secret;
mod server;
mod settings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::limit;
use fleetd_sync_core::session::{Class, CloseCode, ServerEvidence};
use fleetd_sync_core::time::Clock;
use quinn::AsyncUdpSocket;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::identity;
use crate::link::{
    Accept, DialIdentity, DownReason, Link, LinkEvent, LinkEvents, ListenError, ListenIdentity, Listener, Peer,
    SendError,
};

use connection::Connection;
use ground::within;
pub use ground::{Ground, OsGround, Resolving, Task};
pub use settings::Settings;

/// What a connection's address name is in the handshake: nobody checks it, the session checks who answers.
const SERVER_NAME: &str = "fleetd";

/// QUIC behind the [`Link`] seam. Clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    ground: Arc<dyn Ground>,
    settings: Settings,
    connections: Mutex<BTreeMap<ConnectionId, Entry>>,
    sockets: Mutex<Sockets>,
    clock: Arc<dyn Clock>,
    entropy: Mutex<Entropy>,
}

/// The sockets that devices dial from, one for each family, and those that are listened on.
#[derive(Default)]
struct Sockets {
    four: Option<quinn::Endpoint>,
    six: Option<quinn::Endpoint>,
    listening: BTreeMap<SocketAddr, quinn::Endpoint>,
    /// Sockets that are bound already and listened on later, by the address that was asked for.
    reserved: BTreeMap<SocketAddr, Arc<dyn AsyncUdpSocket>>,
}

enum Entry {
    Dialling { task: AbortHandle, events: LinkEvents },
    Open(Arc<Connection>),
}

/// Judges a server for a session: its leaf is signed by a CA that the root names, and names a server of the fleet.
/// Dates are not looked at.
///
/// # Errors
/// What is wrong with the leaf.
pub fn verify_server(evidence: &ServerEvidence<'_>) -> Result<(), String> {
    let verified = identity::verify_server_leaf(evidence.leaf, evidence.authorities.iter().copied(), evidence.fleet);
    verified.map(|_| ()).map_err(|error| error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole between any two statements, so that a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoint {
    /// Makes an endpoint on the operating system, whose tasks run on `runtime`.
    #[must_use]
    pub fn new(runtime: Handle, settings: Settings, clock: Arc<dyn Clock>, entropy: Entropy) -> Self {
        Self::on(Arc::new(OsGround::new(runtime)), settings, clock, entropy)
    }

    /// Makes an endpoint on a ground. The clock tells which certificates have expired; `entropy` names the connections
    /// that are accepted, and is what QUIC draws from.
    #[must_use]
    pub fn on(ground: Arc<dyn Ground>, settings: Settings, clock: Arc<dyn Clock>, entropy: Entropy) -> Self {
        let (connections, sockets, entropy) = (Mutex::default(), Mutex::default(), Mutex::new(entropy));
        Self { inner: Arc::new(Inner { ground, settings, connections, sockets, clock, entropy }) }
    }

    /// Takes an address for [`Link::listen`] to use later: who is to make something that others rely on first learns
    /// whether it can be reached at all.
    ///
    /// # Errors
    /// [`ListenError`] when the address is taken, or cannot be bound.
    pub fn reserve(&self, address: SocketAddr) -> Result<(), ListenError> {
        let socket = self.inner.ground.bind(address).map_err(|source| server::unbound(address, source))?;
        lock(&self.inner.sockets).reserved.insert(address, socket);
        Ok(())
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.inner.connections).values().filter(|entry| matches!(entry, Entry::Open(_))).count()
    }

    /// Closes every connection with [`CloseCode::Done`], stops listening, and waits until the other ends know, for
    /// at most `deadline`.
    pub async fn shut_down(&self, deadline: Duration) {
        let known: Vec<ConnectionId> = lock(&self.inner.connections).keys().copied().collect();
        for connection in known {
            self.close(connection, CloseCode::Done);
        }
        let sockets = {
            let mut sockets = lock(&self.inner.sockets);
            let taken = std::mem::take(&mut *sockets);
            taken.four.into_iter().chain(taken.six).chain(taken.listening.into_values()).collect::<Vec<_>>()
        };
        let idle = async {
            for socket in &sockets {
                socket.set_server_config(None);
                socket.wait_idle().await;
            }
        };
        if within(&*self.inner.ground, deadline, idle).await.is_none() {
            tracing::debug!("some peers did not answer the close in time");
            for socket in &sockets {
                socket.close(connection::wire_code(CloseCode::Done), b"");
            }
        }
    }

    /// Moves the sockets that devices dial from to new ones, as after a change of networks: connections go on.
    ///
    /// # Errors
    /// The operating system's, when it gives no socket.
    pub fn rebind(&self) -> std::io::Result<()> {
        let sockets = lock(&self.inner.sockets);
        if let Some(socket) = &sockets.four {
            socket.rebind_abstract(self.inner.ground.bind((Ipv4Addr::UNSPECIFIED, 0).into())?)?;
        }
        if let Some(socket) = &sockets.six {
            socket.rebind_abstract(self.inner.ground.bind((Ipv6Addr::UNSPECIFIED, 0).into())?)?;
        }
        Ok(())
    }
}

impl Link for Endpoint {
    fn dial(&self, connection: ConnectionId, address: &str, identity: DialIdentity, events: LinkEvents) {
        let inner = Arc::clone(&self.inner);
        let address = address.to_owned();
        let mut connections = lock(&self.inner.connections);
        let told = Arc::clone(&events);
        let dialling = async move {
            match inner.connect(&address, &identity).await {
                Ok((dialled, peer)) => inner.open(connection, dialled, peer, told).await,
                Err(reason) => {
                    if lock(&inner.connections).remove(&connection).is_some() {
                        told(connection, LinkEvent::Down { reason });
                    }
                }
            }
        };
        let task = self.inner.ground.start(Box::pin(dialling));
        connections.insert(connection, Entry::Dialling { task, events });
    }

    fn listen(&self, bind: &str, identity: ListenIdentity, accept: Accept) -> Result<Box<dyn Listener>, ListenError> {
        server::listen(&self.inner, bind, identity, accept)
    }

    fn send(&self, connection: ConnectionId, class: Class, frame: Bytes) -> Result<(), SendError> {
        let (bytes, bytes_max) = (frame.len(), limit::FRAME_BYTES_MAX);
        if bytes > bytes_max {
            return Err(SendError::TooLarge { bytes, bytes_max });
        }
        match self.inner.find(connection) {
            Some(open) => open.send(&*self.inner.ground, class, frame),
            None => Err(SendError::Unknown { connection }),
        }
    }

    fn close(&self, connection: ConnectionId, code: CloseCode) {
        let mut connections = lock(&self.inner.connections);
        let (task, events) = match connections.get(&connection) {
            Some(Entry::Dialling { task, events }) => (task.clone(), Arc::clone(events)),
            Some(Entry::Open(open)) => {
                let open = Arc::clone(open);
                drop(connections);
                return open.close(&self.inner.ground, code);
            }
            None => return,
        };
        connections.remove(&connection);
        task.abort();
        // From a task, as every event: the caller may hold what its event handler needs.
        let reason = DownReason::ClosedHere { code };
        self.inner.ground.start(Box::pin(async move { events(connection, LinkEvent::Down { reason }) }));
    }

    fn grant(&self, connection: ConnectionId, credits: usize) {
        if let Some(open) = self.inner.find(connection) {
            open.grant(credits);
        }
    }
}

impl Inner {
    fn find(&self, connection: ConnectionId) -> Option<Arc<Connection>> {
        match lock(&self.connections).get(&connection) {
            Some(Entry::Open(open)) => Some(Arc::clone(open)),
            Some(Entry::Dialling { .. }) | None => None,
        }
    }

    /// Runs a connection that was joined from its first event to its last.
    async fn open(&self, id: ConnectionId, joined: quinn::Connection, peer: Peer, events: LinkEvents) {
        let remote_address = joined.remote_address();
        let open = Arc::new(Connection::new(id, joined));
        {
            let mut connections = lock(&self.connections);
            let wanted = match connections.get(&id) {
                // A dial that was closed in the meantime is told by whoever closed it.
                None => matches!(peer, Peer::Anonymous | Peer::Device(_)),
                Some(Entry::Dialling { .. }) => true,
                Some(Entry::Open(_)) => false,
            };
            if !wanted {
                open.abandon();
                return;
            }
            connections.insert(id, Entry::Open(Arc::clone(&open)));
        }
        events(id, LinkEvent::Up { peer, remote_address });
        let reason = open.run(&*self.ground, &events).await;
        lock(&self.connections).remove(&id);
        events(id, LinkEvent::Down { reason });
    }

    async fn connect(&self, address: &str, identity: &DialIdentity) -> Result<(quinn::Connection, Peer), DownReason> {
        let unreachable = |cause: String| DownReason::Unreachable { address: address.to_owned(), cause };
        let config = settings::client_config(&self.settings, identity).map_err(unreachable)?;
        let resolved = self.ground.resolve(address).await.map_err(|error| unreachable(error.to_string()))?;
        let mut last = unreachable("the name has no address".to_owned());
        for target in resolved {
            let attempt = async {
                let socket = self.socket(target.ip()).map_err(|error| unreachable(error.to_string()))?;
                let connecting = socket
                    .connect_with(config.clone(), target, SERVER_NAME)
                    .map_err(|error| unreachable(error.to_string()))?;
                connecting.await.map_err(|error| connection::down_reason(error, None))
            };
            // Each of a name's addresses has its share of the time that a dial may take.
            last = match within(&*self.ground, limit::HELLO_TIMEOUT / 3, attempt).await {
                Some(Ok(joined)) => {
                    let leaf = settings::peer_leaf(&joined).unwrap_or_default();
                    return Ok((joined, Peer::Server { leaf }));
                }
                Some(Err(reason)) => reason,
                None => DownReason::TimedOut,
            };
        }
        Err(last)
    }

    /// A stream for one socket.
    fn new_entropy(&self) -> Entropy {
        Entropy::from_seed(lock(&self.entropy).bytes())
    }

    fn socket(&self, target: IpAddr) -> std::io::Result<quinn::Endpoint> {
        let mut sockets = lock(&self.sockets);
        let (socket, bind): (_, SocketAddr) = match target {
            IpAddr::V4(_) => (&mut sockets.four, (Ipv4Addr::UNSPECIFIED, 0).into()),
            IpAddr::V6(_) => (&mut sockets.six, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        match socket {
            Some(socket) => Ok(socket.clone()),
            None => {
                let config = secret::dialling(self.new_entropy());
                let bound = settings::open(&self.ground, self.ground.bind(bind)?, config, None)?;
                *socket = Some(bound.clone());
                Ok(bound)
            }
        }
    }
}
