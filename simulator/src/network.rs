//! Links between nodes of the world: frames with a delay, and cuts.
//!
//! A cut behaves as QUIC over a lost path does: what is sent during it arrives when it heals, unless the connection
//! is given up first, after [`limit::IDLE_TIMEOUT`] without a packet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::limit;
use fleetd_sync_core::session::{Class, CloseCode};
use fleetd_sync_core::time::Monotonic;
use fleetd_sync_transport::identity;
use fleetd_sync_transport::link::{
    Accept, DialIdentity, DownReason, Link, LinkEvent, LinkEvents, ListenError, ListenIdentity, Listener, Peer,
    SendError,
};

use crate::clock::new_year_2026;
use crate::world::World;

/// One end of a connection: which node has it, and what the node calls it.
type EndId = (String, ConnectionId);

struct End {
    peer: EndId,
    events: LinkEvents,
    ungranted: usize,
    waiting: VecDeque<(Class, Bytes)>,
}

struct Listening {
    identity: ListenIdentity,
    accept: Accept,
    node: String,
}

/// A frame that sets out, as far as its way depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// From which node.
    pub from: &'a str,
    /// To which node.
    pub to: &'a str,
    /// What kind of frame it is.
    pub class: Class,
    /// How large it is.
    pub bytes: usize,
    /// When it sets out.
    pub now: Monotonic,
    /// How long it takes on a good link.
    pub latency: Duration,
}

/// Says how long a frame takes.
type Shape = Box<dyn FnMut(&Passing<'_>) -> Duration + Send>;

/// A frame on its way.
struct Held {
    from: String,
    to: EndId,
    class: Class,
    frame: Bytes,
}

struct State {
    latency: Duration,
    latencies: BTreeMap<String, Duration>,
    listeners: BTreeMap<String, Listening>,
    ends: BTreeMap<EndId, End>,
    cut: BTreeMap<String, u64>,
    cuts: u64,
    held: Vec<Held>,
    shape: Option<Shape>,
    entropy: Entropy,
    frames: u64,
    bytes: u64,
}

/// The network of one world. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    world: World,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    /// A network on which a frame takes `latency` one way.
    #[must_use]
    pub fn new(world: World, latency: Duration) -> Self {
        let state = State {
            latency,
            latencies: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ends: BTreeMap::new(),
            cut: BTreeMap::new(),
            cuts: 0,
            held: Vec::new(),
            shape: None,
            entropy: world.entropy("network"),
            frames: 0,
            bytes: 0,
        };
        Self { world, state: Arc::new(Mutex::new(state)) }
    }

    /// The link of one node.
    #[must_use]
    pub fn link(&self, node: &str) -> Arc<NodeLink> {
        Arc::new(NodeLink { node: node.to_owned(), network: self.clone() })
    }

    /// Says how long a frame to or from a node takes one way, in place of the network's latency.
    pub fn set_latency(&self, node: &str, latency: Duration) {
        self.lock().latencies.insert(node.to_owned(), latency);
    }

    /// Lets somebody say how long each frame takes from now on: a link that loses frames, or has not the room for them.
    pub fn shape(&self, shape: impl FnMut(&Passing<'_>) -> Duration + Send + 'static) {
        self.lock().shape = Some(Box::new(shape));
    }

    /// How long this frame takes.
    fn takes(&self, frame: &Held) -> Duration {
        let latency = self.latency([&frame.from, &frame.to.0]);
        let now = self.world.monotonic();
        let Some(shape) = &mut self.lock().shape else { return latency };
        shape(&Passing {
            from: &frame.from,
            to: &frame.to.0,
            class: frame.class,
            bytes: frame.frame.len(),
            now,
            latency,
        })
    }

    /// How long a frame takes one way between two nodes: the slower end decides.
    fn latency(&self, nodes: [&str; 2]) -> Duration {
        let state = self.lock();
        let own = nodes.iter().filter_map(|node| state.latencies.get(*node)).max();
        own.copied().unwrap_or(state.latency)
    }

    /// Ends every connection of a node at once; both ends hear of it.
    pub fn reset(&self, node: &str) {
        let ends: Vec<EndId> = {
            let state = self.lock();
            let ends = state.ends.iter().filter(|(id, end)| id.0 == node || end.peer.0 == node);
            ends.map(|(id, _)| id.clone()).collect()
        };
        for end in ends {
            self.end(&end, DownReason::TimedOut);
        }
    }

    /// Cuts a node off from all others.
    pub fn cut(&self, node: &str) {
        let cut = {
            let mut state = self.lock();
            state.cuts += 1;
            let cut = state.cuts;
            state.cut.insert(node.to_owned(), cut);
            cut
        };
        let (network, node) = (self.clone(), node.to_owned());
        self.world.schedule(limit::IDLE_TIMEOUT, "network", b"given up", move || network.give_up(&node, cut));
    }

    /// Ends a cut: what was sent meanwhile arrives now.
    pub fn heal(&self, node: &str) {
        let held = {
            let mut state = self.lock();
            state.cut.remove(node);
            let State { held, cut, .. } = &mut *state;
            let (arriving, rest): (Vec<Held>, Vec<Held>) = std::mem::take(held)
                .into_iter()
                .partition(|frame| !cut.contains_key(&frame.to.0) && !cut.contains_key(&frame.from));
            *held = rest;
            arriving
        };
        for frame in held {
            self.carry(frame);
        }
    }

    /// Ends a node as a power cut does: its ends are gone, and its peers notice when they time out.
    pub fn kill(&self, node: &str) {
        let orphans: Vec<EndId> = {
            let mut state = self.lock();
            state.listeners.retain(|_, listening| listening.node != node);
            let gone: BTreeSet<EndId> = state.ends.keys().filter(|end| end.0 == node).cloned().collect();
            state.ends.retain(|end, _| !gone.contains(end));
            state.ends.iter().filter(|(_, end)| gone.contains(&end.peer)).map(|(id, _)| id.clone()).collect()
        };
        for end in orphans {
            let network = self.clone();
            self.world.schedule(limit::IDLE_TIMEOUT, "network", b"timed out", move || {
                network.end(&end, DownReason::TimedOut);
            });
        }
    }

    /// How many frames have been sent, and how many bytes in them.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let state = self.lock();
        (state.frames, state.bytes)
    }

    /// The most inputs that one end has not taken yet.
    #[must_use]
    pub fn unread_max(&self) -> usize {
        self.lock().ends.values().map(|end| end.ungranted).max().unwrap_or(0)
    }

    fn give_up(&self, node: &str, cut: u64) {
        let ends: Vec<EndId> = {
            let state = self.lock();
            if state.cut.get(node) != Some(&cut) {
                return;
            }
            let ends = state.ends.iter().filter(|(id, end)| id.0 == node || end.peer.0 == node);
            ends.map(|(id, _)| id.clone()).collect()
        };
        for end in ends {
            self.end(&end, DownReason::TimedOut);
        }
    }

    fn end(&self, id: &EndId, reason: DownReason) {
        let ended = {
            let mut state = self.lock();
            state.held.retain(|frame| frame.to != *id);
            state.ends.remove(id)
        };
        if let Some(end) = ended {
            (end.events)(id.1, LinkEvent::Down { reason });
        }
    }

    /// Brings a frame to its end after the latency, or holds it while there is a cut.
    fn carry(&self, frame: Held) {
        let latency = self.takes(&frame);
        let subject = format!("{}/{}", frame.to.0, frame.to.1);
        let what = *blake3::hash(&frame.frame).as_bytes();
        let network = self.clone();
        self.world.schedule(latency, &subject, &what, move || network.arrive(frame));
    }

    fn arrive(&self, frame: Held) {
        let events = {
            let mut state = self.lock();
            if state.cut.contains_key(&frame.to.0) || state.cut.contains_key(&frame.from) {
                state.held.push(frame);
                return;
            }
            let Some(end) = state.ends.get_mut(&frame.to) else { return };
            if end.ungranted >= limit::CONNECTION_CREDITS {
                end.waiting.push_back((frame.class, frame.frame));
                return;
            }
            end.ungranted += 1;
            Arc::clone(&end.events)
        };
        events(frame.to.1, LinkEvent::Frame { class: frame.class, bytes: frame.frame });
    }

    fn join(&self, node: &str, connection: ConnectionId, address: &str, dialled: &DialIdentity, events: &LinkEvents) {
        match self.try_join(node, connection, address, dialled, events) {
            Ok(Joined { leaf, remote_address, tell_server }) => {
                tell_server();
                events(connection, LinkEvent::Up { peer: Peer::Server { leaf }, remote_address });
            }
            Err(cause) => {
                let reason = DownReason::Unreachable { address: address.to_owned(), cause };
                events(connection, LinkEvent::Down { reason });
            }
        }
    }

    fn try_join(
        &self,
        node: &str,
        connection: ConnectionId,
        address: &str,
        dialled: &DialIdentity,
        events: &LinkEvents,
    ) -> Result<Joined, String> {
        let mut state = self.lock();
        if state.cut.contains_key(node) {
            return Err("the link is cut".to_owned());
        }
        let listening = state.listeners.get(address).ok_or("nobody listens there")?;
        if state.cut.contains_key(&listening.node) {
            return Err("the server's link is cut".to_owned());
        }
        let today = new_year_2026() + self.world.monotonic().since(Monotonic(0));
        let peer = identity::grade_peer(&dialled.certificates, &listening.identity.authorities, today)
            .map_err(|error| error.to_string())?;
        let leaf = listening.identity.certificates.first().cloned().ok_or("the server has no certificate")?;
        let (accept, server) = (Arc::clone(&listening.accept), listening.node.clone());
        let accepted = ConnectionId::random(&mut state.entropy);
        drop(state);
        let remote_address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let server_events = accept(accepted, &peer, remote_address);
        let (near, far) = ((node.to_owned(), connection), (server, accepted));
        let mut state = self.lock();
        for (id, other, events) in [(&near, &far, events), (&far, &near, &server_events)] {
            let events = Arc::clone(events);
            let end = End { peer: other.clone(), events, ungranted: 0, waiting: VecDeque::new() };
            state.ends.insert(id.clone(), end);
        }
        let tell = move || server_events(accepted, LinkEvent::Up { peer, remote_address });
        Ok(Joined { leaf, remote_address, tell_server: Box::new(tell) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two ends that were joined, before either has heard of it.
struct Joined {
    leaf: Vec<u8>,
    remote_address: SocketAddr,
    tell_server: Box<dyn FnOnce()>,
}

/// One node's link.
#[derive(Clone, Debug)]
pub struct NodeLink {
    node: String,
    network: Network,
}

impl Link for NodeLink {
    fn dial(&self, connection: ConnectionId, address: &str, identity: DialIdentity, events: LinkEvents) {
        let (network, node, address) = (self.network.clone(), self.node.clone(), address.to_owned());
        let round_trip = self.network.latency([&self.node, ""]) * 2;
        self.network.world.schedule(round_trip, &self.node, b"dial", move || {
            network.join(&node, connection, &address, &identity, &events);
        });
    }

    fn listen(&self, bind: &str, identity: ListenIdentity, accept: Accept) -> Result<Box<dyn Listener>, ListenError> {
        let mut state = self.network.lock();
        if state.listeners.contains_key(bind) {
            return Err(ListenError::InUse { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)) });
        }
        state.listeners.insert(bind.to_owned(), Listening { identity, accept, node: self.node.clone() });
        Ok(Box::new(NodeListener { bind: bind.to_owned(), network: self.network.clone() }))
    }

    fn send(&self, connection: ConnectionId, class: Class, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > limit::FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { bytes: frame.len(), bytes_max: limit::FRAME_BYTES_MAX });
        }
        let to = {
            let mut state = self.network.lock();
            state.frames += 1;
            state.bytes += u64::try_from(frame.len()).unwrap_or(u64::MAX);
            let end = state.ends.get(&(self.node.clone(), connection));
            end.map(|end| end.peer.clone()).ok_or(SendError::Unknown { connection })?
        };
        self.network.carry(Held { from: self.node.clone(), to, class, frame });
        Ok(())
    }

    fn close(&self, connection: ConnectionId, code: CloseCode) {
        let near = (self.node.clone(), connection);
        let far = self.network.lock().ends.get(&near).map(|end| end.peer.clone());
        let far_node = far.as_ref().map_or("", |(node, _)| node.as_str());
        let (network, latency) = (self.network.clone(), self.network.latency([&self.node, far_node]));
        self.network.world.schedule(Duration::ZERO, &self.node, b"close", move || {
            network.end(&near, DownReason::ClosedHere { code });
        });
        if let Some(far) = far {
            let network = self.network.clone();
            self.network.world.schedule(latency, &far.0.clone(), b"closed", move || {
                network.end(&far, DownReason::ClosedByPeer { code });
            });
        }
    }

    fn grant(&self, connection: ConnectionId, credits: usize) {
        let mut released = Vec::new();
        let mut state = self.network.lock();
        let Some(end) = state.ends.get_mut(&(self.node.clone(), connection)) else { return };
        end.ungranted = end.ungranted.saturating_sub(credits);
        while end.ungranted < limit::CONNECTION_CREDITS {
            let Some(frame) = end.waiting.pop_front() else { break };
            end.ungranted += 1;
            released.push((Arc::clone(&end.events), frame));
        }
        drop(state);
        for (events, (class, bytes)) in released {
            events(connection, LinkEvent::Frame { class, bytes });
        }
    }
}

struct NodeListener {
    bind: String,
    network: Network,
}

impl Listener for NodeListener {
    fn local_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 1))
    }

    fn set_identity(&self, identity: ListenIdentity) -> Result<(), ListenError> {
        if let Some(listening) = self.network.lock().listeners.get_mut(&self.bind) {
            listening.identity = identity;
        }
        Ok(())
    }
}

impl Drop for NodeListener {
    fn drop(&mut self) {
        self.network.lock().listeners.remove(&self.bind);
    }
}
