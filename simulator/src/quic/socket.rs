//! A socket that exists only in the world: what is sent becomes an event, what comes waits here until it is read.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::network::UdpNetwork;

/// Packets that a socket holds until they are read; one more is lost, as from a kernel's buffer of 200 KiB.
const INBOX_PACKETS_MAX: usize = 160;

/// What has come to a socket.
#[derive(Default)]
pub(super) struct Inbox {
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    reader: Option<Waker>,
}

impl Inbox {
    /// Takes a packet in, and gives who is to be woken.
    pub(super) fn put(&mut self, from: SocketAddr, packet: Vec<u8>) -> Option<Waker> {
        if self.packets.len() < INBOX_PACKETS_MAX {
            self.packets.push_back((from, packet));
        }
        self.reader.take()
    }
}

/// A socket of one node.
pub(super) struct SimulatedSocket {
    pub(super) node: String,
    pub(super) address: SocketAddr,
    pub(super) inbox: Arc<Mutex<Inbox>>,
    pub(super) network: UdpNetwork,
}

impl fmt::Debug for SimulatedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedSocket({} at {})", self.node, self.address)
    }
}

impl SimulatedSocket {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for SimulatedSocket {
    fn drop(&mut self) {
        self.network.unbind(self.address, &self.inbox);
    }
}

impl AsyncUdpSocket for SimulatedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.network.send(self, transmit.destination, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.lock();
        // One at a time: quinn comes again at once, and touches one page of its buffer in place of 32.
        let (Some((from, packet)), Some(buffer), Some(meta)) =
            (inbox.packets.pop_front(), buffers.first_mut(), meta.first_mut())
        else {
            inbox.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let length = packet.len().min(buffer.len());
        if let (Some(into), Some(bytes)) = (buffer.get_mut(..length), packet.get(..length)) {
            into.copy_from_slice(bytes);
        }
        *meta = RecvMeta { addr: from, len: length, stride: length, ecn: None, dst_ip: None };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// Nothing waits to send: a packet for which a link has no room is lost.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
