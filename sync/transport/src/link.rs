//! The seam between nodes and the network.
//!
//! A [`Link`] carries frames between two nodes and tells what becomes of each connection. It neither awaits nor
//! blocks, and it can be held as `Arc<dyn Link>`: [`crate::endpoint`] implements it over QUIC, a simulator over
//! virtual time. It never looks into a frame; [`crate::frame`] does.
//!
//! # Events
//! Of one connection, [`LinkEvent::Up`] comes first, at most once; then frames, those of one class in the order in
//! which they were sent; [`LinkEvent::Down`] comes last, exactly once. Frames of two classes may come at the same
//! moment from two threads. An event handler only hands over: it runs on the link's own tasks.
//!
//! # Credits
//! A connection may have [`fleetd_sync_core::limit::CONNECTION_CREDITS`] frames delivered and not yet granted back.
//! Then it reads no further until [`Link::grant`], and the sender's own outbox fills.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fleetd_sync_core::id::{ConnectionId, LocalId};
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::session::{Class, CloseCode};
use fleetd_sync_core::time::Wall;

/// Carries frames between nodes.
pub trait Link: Send + Sync + 'static {
    /// Starts to connect to `address` (`host:port`) as `identity`. What becomes of it is told to `events`, a
    /// failure as [`LinkEvent::Down`].
    fn dial(&self, connection: ConnectionId, address: &str, identity: DialIdentity, events: LinkEvents);

    /// Starts to accept connections at `bind` as `identity`.
    ///
    /// # Errors
    /// [`ListenError`] when the address is taken or no address, or the identity is no identity.
    fn listen(&self, bind: &str, identity: ListenIdentity, accept: Accept) -> Result<Box<dyn Listener>, ListenError>;

    /// Puts a frame into the connection's outbox.
    ///
    /// # Errors
    /// [`SendError::Unknown`] when there is no such connection (any more). [`SendError::Overflow`] when the outbox
    /// is full: the link closes the connection with [`CloseCode::Overflow`], and the next Hello repairs what was
    /// lost. [`SendError::TooLarge`] when the frame is larger than any peer accepts; nothing is sent.
    fn send(&self, connection: ConnectionId, class: Class, frame: Bytes) -> Result<(), SendError>;

    /// Closes the connection; what is in its outbox may be lost. Closing one that is gone does nothing.
    fn close(&self, connection: ConnectionId, code: CloseCode);

    /// Gives back `credits`: so many of the connection's frames were dealt with.
    fn grant(&self, connection: ConnectionId, credits: usize);
}

/// A socket that accepts connections, until it is dropped.
pub trait Listener: Send + Sync + 'static {
    /// The address that it listens on, with the port that the operating system chose where none was asked for.
    fn local_address(&self) -> SocketAddr;

    /// Shows another identity to connections from now on; those that are open stay.
    ///
    /// # Errors
    /// [`ListenError::Identity`] when it is no identity.
    fn set_identity(&self, identity: ListenIdentity) -> Result<(), ListenError>;
}

/// Asked for each connection that was accepted, before its first event: who is told of it.
pub type Accept = Arc<dyn Fn(ConnectionId, &Peer, SocketAddr) -> LinkEvents + Send + Sync>;

/// Told what becomes of a connection.
pub type LinkEvents = Arc<dyn Fn(ConnectionId, LinkEvent) + Send + Sync>;

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The two ends are joined. A device may still be refused: it is in only when the server's Hello has come.
    Up {
        /// Who is at the other end.
        peer: Peer,
        /// Where it is now; it may move without a word.
        remote_address: SocketAddr,
    },
    /// A frame came. It costs a credit.
    Frame {
        /// On which stream.
        class: Class,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The connection is gone, or never was.
    Down {
        /// Why.
        reason: DownReason,
    },
}

/// Who is at the other end, as far as the handshake proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A server that was dialled. It holds the key of this certificate; whether the fleet vouches for it, the
    /// session finds out.
    Server {
        /// Its certificate, in DER.
        leaf: Vec<u8>,
    },
    /// A device without a certificate.
    Anonymous,
    /// A device with a certificate from one of our CAs.
    Device(Box<PeerIdentity>),
}

/// What a device's certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Which device.
    pub device: LocalId,
    /// Its key, whose hash the local id is.
    pub key: PublicKey,
    /// Its certificate's last date.
    pub not_after: Wall,
    /// Whether that has passed.
    pub expired: bool,
}

/// As whom a device dials.
#[derive(Clone, Debug)]
pub struct DialIdentity {
    /// Its key.
    pub key: SecretKey,
    /// Its certificate and those above it, leaf first, in DER; none before enrolment.
    pub certificates: Vec<Vec<u8>>,
}

/// As whom a server listens.
#[derive(Clone)]
pub struct ListenIdentity {
    /// Its certificate and those above it, leaf first, in DER.
    pub certificates: Vec<Vec<u8>>,
    /// The certificate's key.
    pub key: SecretKey,
    /// The certificates of the CAs whose devices it knows, in DER.
    pub authorities: Vec<Vec<u8>>,
}

impl std::fmt::Debug for ListenIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (certificates, authorities) = (self.certificates.len(), self.authorities.len());
        write!(f, "ListenIdentity({certificates} certificates, {authorities} authorities)")
    }
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The other end closed it.
    #[error("the peer closed the connection: {code}")]
    ClosedByPeer {
        /// What it said.
        code: CloseCode,
    },
    /// This end closed it.
    #[error("closed here: {code}")]
    ClosedHere {
        /// What was said.
        code: CloseCode,
    },
    /// Nothing was heard for too long.
    #[error("nothing was heard from the peer for too long")]
    TimedOut,
    /// The address could not be resolved or dialled.
    #[error("cannot dial {address}: {cause}")]
    Unreachable {
        /// What was dialled.
        address: String,
        /// What went wrong.
        cause: String,
    },
    /// The handshake failed, or the peer broke the transport's rules.
    #[error("the connection failed: {cause}")]
    Failed {
        /// What went wrong.
        cause: String,
    },
}

/// Why a frame was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no such connection (any more).
    #[error("there is no connection {connection}")]
    Unknown {
        /// Which was meant.
        connection: ConnectionId,
    },
    /// The peer reads too slowly.
    #[error("the outbox of {connection} is full at {frames} frames and {bytes} bytes")]
    Overflow {
        /// Of which connection.
        connection: ConnectionId,
        /// How many frames wait.
        frames: usize,
        /// How many bytes they have.
        bytes: usize,
    },
    /// No peer would accept the frame.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// What it has.
        bytes: usize,
        /// What it may have.
        bytes_max: usize,
    },
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The text is no address.
    #[error("{bind:?} is no address to listen on; give an IP address and a port")]
    Address {
        /// What was given.
        bind: String,
    },
    /// Another process listens there.
    #[error("another process listens on {address}")]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// The operating system refused.
    #[error("cannot listen on {address}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// What it said.
        source: std::io::Error,
    },
    /// The certificates or the key cannot be used.
    #[error("the server's identity cannot be used: {cause}")]
    Identity {
        /// What is wrong with it.
        cause: String,
    },
}
