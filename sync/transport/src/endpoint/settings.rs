//! How QUIC is set up: small, quiet, and without what would outlive a revocation.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::limit;
use fleetd_sync_core::time::Wall;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{AsyncUdpSocket, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;

use super::accepted_tls::AcceptedTls;
use super::ground::Ground;
use crate::identity;
use crate::link::{DialIdentity, ListenIdentity, Peer};

/// Streams that a peer may open: one for each class, and two that a later version may add.
const STREAMS_MAX: u32 = 8;
/// Bytes of one stream, and of all, that a server takes before it has dealt with them. It has many peers.
const SERVER_WINDOW_BYTES: (u32, u32) = (64 << 10, 128 << 10);
/// Bytes of one stream, and of all, that a device takes before it has dealt with them. It has one peer, and an
/// artifact's window must fit.
const DEVICE_WINDOW_BYTES: (u32, u32) = (1 << 20, 2 << 20);
/// Bytes that may be on their way to a peer: the window of an artifact.
const SEND_WINDOW_BYTES: u64 = 512 << 10;
/// Bytes of a handshake that arrive out of order: certificates have about 500.
const CRYPTO_BUFFER_BYTES: usize = 16 << 10;
/// Handshakes that wait for their turn; one more is refused.
const WAITING_MAX: usize = 4096;
/// Bytes that one of them, and all of them, may have sent ahead.
const WAITING_BYTES_MAX: (u64, u64) = (16 << 10, 16 << 20);

/// What differs from one network to another.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often a device says that it is there.
    pub keep_alive_interval: Duration,
    /// After which silence a connection is given up; the shorter one of both ends holds.
    pub idle_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self::nat()
    }
}

impl Settings {
    /// For a device that may be behind a NAT.
    #[must_use]
    pub const fn nat() -> Self {
        Self { keep_alive_interval: limit::KEEP_ALIVE_NAT, idle_timeout: limit::IDLE_TIMEOUT }
    }

    /// For a server: it sends no keep-alive, and leaves it to each device how long a silence may be.
    #[must_use]
    pub const fn server() -> Self {
        Self { keep_alive_interval: Duration::MAX, idle_timeout: limit::IDLE_TIMEOUT_LAN }
    }

    /// For a device on a LAN, where no router forgets it.
    #[must_use]
    pub const fn lan() -> Self {
        Self { keep_alive_interval: limit::KEEP_ALIVE_LAN, idle_timeout: limit::IDLE_TIMEOUT_LAN }
    }

    fn transport(&self, window_bytes: (u32, u32), keep_alive: bool) -> TransportConfig {
        let mut transport = TransportConfig::default();
        let idle_timeout = IdleTimeout::try_from(self.idle_timeout).ok();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
            .stream_receive_window(VarInt::from_u32(window_bytes.0))
            .receive_window(VarInt::from_u32(window_bytes.1))
            .send_window(SEND_WINDOW_BYTES)
            .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
            .datagram_receive_buffer_size(None)
            .mtu_discovery_config(None)
            .max_idle_timeout(idle_timeout)
            .keep_alive_interval(Some(self.keep_alive_interval).filter(|_| keep_alive));
        transport
    }
}

pub(super) fn client_config(settings: &Settings, identity: &DialIdentity) -> Result<quinn::ClientConfig, String> {
    let tls = identity::device_tls(identity).map_err(|error| error.to_string())?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(settings.transport(DEVICE_WINDOW_BYTES, true)));
    Ok(config)
}

pub(super) fn server_config(settings: &Settings, identity: &ListenIdentity) -> Result<quinn::ServerConfig, String> {
    let tls = identity::server_tls(identity).map_err(|error| error.to_string())?;
    let crypto = AcceptedTls::new(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut tokens = quinn::ValidationTokenConfig::default();
    // A token that spares a known address its retry is not worth its bytes: few handshakes are ever retried.
    tokens.sent(0);
    config
        .transport_config(Arc::new(settings.transport(SERVER_WINDOW_BYTES, false)))
        .validation_token_config(tokens)
        .max_incoming(WAITING_MAX)
        .incoming_buffer_size(WAITING_BYTES_MAX.0)
        .incoming_buffer_size_total(WAITING_BYTES_MAX.1);
    Ok(config)
}

/// Drives a bound socket.
pub(super) fn open(
    ground: &Arc<dyn Ground>,
    socket: Arc<dyn AsyncUdpSocket>,
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> std::io::Result<quinn::Endpoint> {
    quinn::Endpoint::new_with_abstract_socket(config, server, socket, Arc::<dyn Ground>::clone(ground))
}

/// The other end's certificates, leaf first.
fn peer_certificates(joined: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let chain = joined.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    chain.map(|chain| *chain).unwrap_or_default()
}

/// The other end's certificate, in DER.
pub(super) fn peer_leaf(joined: &quinn::Connection) -> Option<Vec<u8>> {
    peer_certificates(joined).first().map(|leaf| leaf.to_vec())
}

/// Who dialled.
pub(super) fn peer(joined: &quinn::Connection, now: Wall) -> Result<Peer, String> {
    let chain = peer_certificates(joined);
    if chain.is_empty() {
        return Ok(Peer::Anonymous);
    }
    identity::peer_identity(&chain, now).map(|peer| Peer::Device(Box::new(peer))).map_err(|error| error.to_string())
}
