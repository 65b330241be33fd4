//! The accepting side: who may begin a handshake, and when.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};

use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::limit;
use fleetd_sync_core::session::CloseCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::{Inner, connection, lock, secret, settings, within};
use crate::link::{Accept, ListenError, ListenIdentity, Listener};
use crate::source::source;

pub(super) fn listen(
    inner: &Arc<Inner>,
    bind: &str,
    identity: ListenIdentity,
    accept: Accept,
) -> Result<Box<dyn Listener>, ListenError> {
    let address: SocketAddr = bind.parse().map_err(|_| ListenError::Address { bind: bind.to_owned() })?;
    let config =
        settings::server_config(&inner.settings, &identity).map_err(|cause| ListenError::Identity { cause })?;
    let failed = |source| unbound(address, source);
    let reserved = lock(&inner.sockets).reserved.remove(&address);
    let bound = reserved.map_or_else(|| inner.ground.bind(address), Ok).map_err(failed)?;
    let secrets = secret::listening(&identity.key, inner.new_entropy());
    let socket = settings::open(&inner.ground, bound, secrets, Some(config)).map_err(failed)?;
    let local_address = socket.local_addr().map_err(failed)?;
    lock(&inner.sockets).listening.insert(local_address, socket.clone());
    let task = inner.ground.start(Box::pin(accept_all(Arc::downgrade(inner), socket.clone(), accept)));
    Ok(Box::new(QuicListener { inner: Arc::downgrade(inner), socket, local_address, task }))
}

pub(super) fn unbound(address: SocketAddr, source: std::io::Error) -> ListenError {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::InUse { address },
        _ => ListenError::Socket { address, source },
    }
}

struct QuicListener {
    inner: Weak<Inner>,
    socket: quinn::Endpoint,
    local_address: SocketAddr,
    task: AbortHandle,
}

impl Listener for QuicListener {
    fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    fn set_identity(&self, identity: ListenIdentity) -> Result<(), ListenError> {
        let Some(inner) = self.inner.upgrade() else { return Ok(()) };
        let config = settings::server_config(&inner.settings, &identity);
        self.socket.set_server_config(Some(config.map_err(|cause| ListenError::Identity { cause })?));
        Ok(())
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        self.task.abort();
        self.socket.set_server_config(None);
        // The port is free again once the connections that came in by it are gone.
        if let Some(inner) = self.inner.upgrade() {
            lock(&inner.sockets).listening.remove(&self.local_address);
        }
    }
}

/// Handshakes that are under way, by the address that they come from.
#[derive(Default)]
struct BySource(Mutex<BTreeMap<IpAddr, usize>>);

/// One of them, until it is dropped.
struct UnderWay {
    of: Arc<BySource>,
    source: IpAddr,
}

impl BySource {
    fn count(&self, source: IpAddr) -> usize {
        lock(&self.0).get(&source).copied().unwrap_or_default()
    }

    fn begin(self: &Arc<Self>, source: IpAddr) -> UnderWay {
        *lock(&self.0).entry(source).or_default() += 1;
        UnderWay { of: Arc::clone(self), source }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut sources = lock(&self.of.0);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// Accepts until the listener is dropped. Handshakes are counted: those beyond the limit wait where they cost a
/// packet each. As long as many are under way, a stranger must first show that its address is its own, and no address
/// gets more than its part of them.
async fn accept_all(inner: Weak<Inner>, socket: quinn::Endpoint, accept: Accept) {
    let handshakes = Arc::new(Semaphore::new(limit::HANDSHAKES_MAX));
    let by_source = Arc::new(BySource::default());
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let Some(incoming) = socket.accept().await else { return };
        let Some(endpoint) = inner.upgrade() else { return };
        let busy = handshakes.available_permits() < limit::HANDSHAKES_MAX / 2;
        if busy && !incoming.remote_address_validated() && incoming.may_retry() {
            // The answer carries a token, and nothing is kept here.
            let _ = incoming.retry();
            continue;
        }
        // Only who has shown that an address is its own is counted for it: others could use up what is a stranger's.
        let source = incoming.remote_address_validated().then(|| source(incoming.remote_address().ip()));
        if busy && source.is_some_and(|source| by_source.count(source) >= limit::HANDSHAKES_EACH_MAX) {
            // It is not answered, and sends its first packet again in a second.
            incoming.ignore();
            continue;
        }
        let ground = Arc::clone(&endpoint.ground);
        let place = (permit, source.map(|source| by_source.begin(source)));
        ground.start(Box::pin(shake_hands(endpoint, incoming, place, Arc::clone(&accept))));
    }
}

async fn shake_hands(
    inner: Arc<Inner>,
    incoming: quinn::Incoming,
    place: (OwnedSemaphorePermit, Option<UnderWay>),
    accept: Accept,
) {
    let Ok(connecting) = incoming.accept() else { return };
    let Some(Ok(joined)) = within(&*inner.ground, limit::HELLO_TIMEOUT, connecting).await else { return };
    drop(place);
    let peer = match settings::peer(&joined, inner.clock.now().wall) {
        Ok(peer) => peer,
        Err(cause) => {
            tracing::debug!(%cause, remote = %joined.remote_address(), "a peer's certificate names no device");
            joined.close(connection::wire_code(CloseCode::WrongFleet), b"");
            return;
        }
    };
    let id = ConnectionId::random(&mut lock(&inner.entropy));
    let events = accept(id, &peer, joined.remote_address());
    inner.open(id, joined, peer, events).await;
}
