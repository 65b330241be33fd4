//! A UDP proxy that one agent dials: cutting it is what pulling a cable does.
//!
//! The chaos tests have one of their own, which also counts and cuts by itself. They see no crate of the product but the
//! core, so that no fault of it can hide itself from them, and the demo sees only what a user of the API does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};

/// The largest UDP payload.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Clients that one proxy serves: an agent and its restarts.
const CLIENTS_MAX: usize = 64;

/// Forwards datagrams to one server until it is cut, and again once it heals. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct UdpProxy {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    task: AbortHandle,
}

impl UdpProxy {
    /// Starts a proxy on a free port of the loopback interface.
    pub(crate) async fn start(server: SocketAddr) -> std::io::Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = front.local_addr()?;
        let is_cut = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(forward(front, server, Arc::clone(&is_cut))).abort_handle();
        Ok(Self { address, is_cut, task })
    }

    /// Where the agent dials.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every datagram from now on, both ways.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    /// Forwards again.
    pub(crate) fn heal(&self) {
        self.is_cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(front: Arc<UdpSocket>, server: SocketAddr, is_cut: Arc<AtomicBool>) {
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut returning = JoinSet::new(); // Ends with this task.
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, client)) = front.recv_from(&mut datagram).await else { continue };
        if is_cut.load(Ordering::Relaxed) {
            continue;
        }
        if !backs.contains_key(&client) {
            if backs.len() >= CLIENTS_MAX {
                continue;
            }
            let Ok(back) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { continue };
            let back = Arc::new(back);
            returning.spawn(give_back(Arc::clone(&front), Arc::clone(&back), client, Arc::clone(&is_cut)));
            backs.insert(client, back);
        }
        if let (Some(back), Some(content)) = (backs.get(&client), datagram.get(..length)) {
            let _ = back.send_to(content, server).await; // A datagram may get lost; QUIC sends it again.
        }
    }
}

async fn give_back(front: Arc<UdpSocket>, back: Arc<UdpSocket>, client: SocketAddr, is_cut: Arc<AtomicBool>) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(length) = back.recv(&mut datagram).await else { continue };
        if let (false, Some(content)) = (is_cut.load(Ordering::Relaxed), datagram.get(..length)) {
            let _ = front.send_to(content, client).await;
        }
    }
}
