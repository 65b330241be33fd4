//! A UDP proxy that one agent dials: cutting it is what pulling a cable does.
//!
//! The demo has a smaller one. Sharing it would have the tests link the program that they look at from outside.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a thread looks whether its proxy is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Switch {
    is_cut: AtomicBool,
    is_gone: AtomicBool,
    /// What came from the server so far.
    received_bytes: AtomicU64,
    /// What may come from the server before the link cuts itself.
    cut_at_bytes: AtomicU64,
    /// Woken with each datagram from the server.
    heard: Condvar,
    hearing: Mutex<()>,
}

/// Forwards datagrams to one server until it is cut, and again once it heals.
#[derive(Debug)]
pub struct UdpProxy {
    address: SocketAddr,
    switch: Arc<Switch>,
}

impl UdpProxy {
    /// Starts a proxy on a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
        front.set_read_timeout(Some(LOOK_AGAIN))?;
        let address = front.local_addr()?;
        let switch = Arc::new(Switch {
            is_cut: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            received_bytes: AtomicU64::new(0),
            cut_at_bytes: AtomicU64::new(u64::MAX),
            heard: Condvar::new(),
            hearing: Mutex::new(()),
        });
        let shared = Arc::clone(&switch);
        thread::spawn(move || forward(&front, server, &shared));
        Ok(Self { address, switch })
    }

    /// Where the agent dials.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops every datagram from now on, both ways.
    pub fn cut(&self) {
        self.switch.is_cut.store(true, Ordering::Relaxed);
    }

    /// Cuts by itself once so many more bytes have come from the server.
    pub fn cut_after(&self, bytes: u64) {
        self.switch.cut_at_bytes.store(self.received_bytes().saturating_add(bytes), Ordering::Relaxed);
    }

    /// Says whether it is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.switch.is_cut.load(Ordering::Relaxed)
    }

    /// How many bytes have come from the server so far.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.switch.received_bytes.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes have come from the server in all; says whether they have within `limit`.
    #[must_use]
    pub fn wait_for(&self, bytes: u64, limit: Duration) -> bool {
        let hearing = self.switch.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.switch.heard.wait_timeout_while(hearing, limit, |()| self.received_bytes() < bytes);
        drop(waited);
        self.received_bytes() >= bytes
    }

    /// Forwards again, and does not cut by itself any more.
    pub fn heal(&self) {
        self.switch.cut_at_bytes.store(u64::MAX, Ordering::Relaxed);
        self.switch.is_cut.store(false, Ordering::Relaxed);
    }
}

impl Switch {
    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let received = self.received_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if received >= self.cut_at_bytes.load(Ordering::Relaxed) {
            self.is_cut.store(true, Ordering::Relaxed);
        }
        // Locked, so that nobody who has just looked and is about to wait misses it.
        let _hearing = self.hearing.lock().unwrap_or_else(PoisonError::into_inner);
        self.heard.notify_all();
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.switch.is_gone.store(true, Ordering::Relaxed);
    }
}

fn forward(front: &Arc<UdpSocket>, server: SocketAddr, switch: &Arc<Switch>) {
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut datagram = vec![0; usize::from(u16::MAX)];
    while !switch.is_gone.load(Ordering::Relaxed) {
        let Ok((length, client)) = front.recv_from(&mut datagram) else { continue };
        if switch.is_cut.load(Ordering::Relaxed) {
            continue;
        }
        let known = match backs.entry(client) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(unknown) => match back(front, client, switch) {
                Ok(back) => Arc::clone(unknown.insert(back)),
                Err(_) => continue,
            },
        };
        if let Some(content) = datagram.get(..length) {
            let _ = known.send_to(content, server); // A datagram may get lost; QUIC sends it again.
        }
    }
}

/// Opens the socket that stands for one client, and forwards what the server answers.
fn back(front: &Arc<UdpSocket>, client: SocketAddr, switch: &Arc<Switch>) -> io::Result<Arc<UdpSocket>> {
    let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?);
    back.set_read_timeout(Some(LOOK_AGAIN))?;
    let (front, answering, switch) = (Arc::clone(front), Arc::clone(&back), Arc::clone(switch));
    thread::spawn(move || {
        let mut datagram = vec![0; usize::from(u16::MAX)];
        while !switch.is_gone.load(Ordering::Relaxed) {
            let Ok(length) = answering.recv(&mut datagram) else { continue };
            if let (false, Some(content)) = (switch.is_cut.load(Ordering::Relaxed), datagram.get(..length)) {
                switch.count(content.len());
                let _ = front.send_to(content, client);
            }
        }
    });
    Ok(back)
}
