//! What goes over the network: datagrams, counted at the sockets, and frames, counted at the seam of sessions.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::session::{Class, CloseCode};
use fleetd_sync_transport::endpoint::{Ground, OsGround, Resolving, Task};
use fleetd_sync_transport::link::{
    Accept, DialIdentity, Link, LinkEvent, LinkEvents, ListenError, ListenIdentity, Listener, SendError,
};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use tokio::task::AbortHandle;

/// Headers of IPv4 and UDP, which each datagram has besides its payload.
const HEADER_BYTES: u64 = 28;

/// What went one way.
#[derive(Debug, Default)]
pub(crate) struct Way {
    datagrams: AtomicU64,
    datagram_bytes: AtomicU64,
    frames: AtomicU64,
    frame_bytes: AtomicU64,
}

impl Way {
    fn datagrams(&self, bytes: usize, each: Option<usize>) {
        let count = each.filter(|each| *each > 0).map_or(1, |each| bytes.div_ceil(each));
        let (count, bytes) = (u64::try_from(count).unwrap_or(0), u64::try_from(bytes).unwrap_or(0));
        self.datagrams.fetch_add(count, Ordering::Relaxed);
        self.datagram_bytes.fetch_add(bytes + count * HEADER_BYTES, Ordering::Relaxed);
    }

    fn frame(&self, bytes: usize) {
        // A frame's length takes a byte below 128, two below 16,384 and three above.
        let length = 1 + usize::from(bytes >= 1 << 7) + usize::from(bytes >= 1 << 14);
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.frame_bytes.fetch_add(u64::try_from(bytes + length).unwrap_or(0), Ordering::Relaxed);
    }

    fn show(&self) -> serde_json::Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        serde_json::json!({
            "datagrams": read(&self.datagrams),
            "datagramBytes": read(&self.datagram_bytes),
            "frames": read(&self.frames),
            "frameBytes": read(&self.frame_bytes),
        })
    }
}

/// What went both ways.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: Way,
    received: Way,
}

impl Traffic {
    pub(crate) fn show(&self) -> serde_json::Value {
        serde_json::json!({ "sent": self.sent.show(), "received": self.received.show() })
    }
}

/// The operating system's ground, whose sockets count.
#[derive(Clone)]
pub(crate) struct MeteredGround {
    ground: OsGround,
    traffic: Arc<Traffic>,
}

impl MeteredGround {
    pub(crate) const fn new(ground: OsGround, traffic: Arc<Traffic>) -> Self {
        Self { ground, traffic }
    }
}

impl fmt::Debug for MeteredGround {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeteredGround")
    }
}

impl Ground for MeteredGround {
    fn start(&self, task: Task) -> AbortHandle {
        self.ground.start(task)
    }

    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let (socket, traffic) = (self.ground.bind(address)?, Arc::clone(&self.traffic));
        Ok(Arc::new(MeteredSocket { socket, traffic }))
    }

    fn resolve<'a>(&'a self, address: &'a str) -> Resolving<'a> {
        self.ground.resolve(address)
    }
}

impl Runtime for MeteredGround {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        self.ground.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.ground.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        self.ground.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        self.ground.now()
    }
}

#[derive(Debug)]
struct MeteredSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    traffic: Arc<Traffic>,
}

impl AsyncUdpSocket for MeteredSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)?;
        self.traffic.sent.datagrams(transmit.contents.len(), transmit.segment_size);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let polled = self.socket.poll_recv(context, buffers, meta);
        if let Poll::Ready(Ok(count)) = &polled {
            meta.iter().take(*count).for_each(|meta| self.traffic.received.datagrams(meta.len, Some(meta.stride)));
        }
        polled
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// A link that counts the frames that pass it.
pub(crate) struct MeteredLink<L> {
    link: L,
    traffic: Arc<Traffic>,
}

impl<L> MeteredLink<L> {
    pub(crate) const fn new(link: L, traffic: Arc<Traffic>) -> Self {
        Self { link, traffic }
    }
}

impl<L: Link> Link for MeteredLink<L> {
    fn dial(&self, connection: ConnectionId, address: &str, identity: DialIdentity, events: LinkEvents) {
        let traffic = Arc::clone(&self.traffic);
        let counted: LinkEvents = Arc::new(move |connection, event| {
            if let LinkEvent::Frame { bytes, .. } = &event {
                traffic.received.frame(bytes.len());
            }
            events(connection, event);
        });
        self.link.dial(connection, address, identity, counted);
    }

    fn listen(&self, bind: &str, identity: ListenIdentity, accept: Accept) -> Result<Box<dyn Listener>, ListenError> {
        self.link.listen(bind, identity, accept)
    }

    fn send(&self, connection: ConnectionId, class: Class, frame: Bytes) -> Result<(), SendError> {
        self.traffic.sent.frame(frame.len());
        self.link.send(connection, class, frame)
    }

    fn close(&self, connection: ConnectionId, code: CloseCode) {
        self.link.close(connection, code);
    }

    fn grant(&self, connection: ConnectionId, credits: usize) {
        self.link.grant(connection, credits);
    }
}
