//! The paths between sockets of the world: packets with a delay, and what a link may do to them.
//!
//! Nothing is held and nothing is repaired here: a packet that a link does not bring is lost, as it is in life, and
//! QUIC above it sends again, probes, moves to another path, or gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::time::Monotonic;
use fleetd_sync_transport::endpoint::{Endpoint, Settings};
use quinn::AsyncUdpSocket;
use tokio::runtime::Handle;

use super::condition::Condition;
use super::firewall::Firewall;
use super::ground::{NodeGround, Tasks};
use super::link::PacketLink;
use super::socket::{Inbox, SimulatedSocket};
use super::timer::Timers;
use crate::clock::NodeClock;
use crate::network::mangle;
use crate::world::World;

/// The first port that a node chooses for a socket.
const FIRST_PORT: u16 = 49_152;
/// The first port that a NAT shows to the world for one.
const FIRST_OUTER_PORT: u16 = 20_000;
/// The addresses of the world's nodes: 10.0.0.1 and those after it.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([10, 0, 0, 1]);

/// Who imposes what is imposed by hand.
const BY_HAND: u64 = u64::MAX;

/// Says whether packets are told apart by their bytes in the trace, besides by their times, ends and sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traced {
    /// By times, ends and sizes.
    #[default]
    Sizes,
    /// By their bytes as well.
    Bytes,
}

/// One node as the network knows it.
#[derive(Default)]
struct Node {
    next_port: u16,
    next_outer_port: u16,
    starts: u32,
    tasks: Tasks,
    /// What its link does to packets, by who imposed it, and what that comes to.
    imposed: BTreeMap<u64, Condition>,
    condition: Condition,
    /// By which it judges the certificates of whoever dials it.
    clock: Option<NodeClock>,
    firewall: Firewall,
    /// Until when its link is busy with what it sent.
    busy_until: Monotonic,
}

impl Node {
    fn sum_up(&mut self) {
        self.condition = self.imposed.values().fold(Condition::default(), |sum, condition| sum.and(condition));
    }
}

struct Bound {
    node: String,
    inbox: Arc<Mutex<Inbox>>,
    /// Where the world sees it; a socket that chose its own port is behind a NAT, which knows none until it has sent.
    outer: Option<SocketAddr>,
    is_behind_nat: bool,
}

struct State {
    latency: Duration,
    latencies: BTreeMap<String, Duration>,
    nodes: BTreeMap<String, Node>,
    /// Which node has an address, and which address a node.
    addresses: BTreeMap<Ipv4Addr, String>,
    names: BTreeMap<String, Ipv4Addr>,
    bound: BTreeMap<SocketAddr, Bound>,
    /// Where a packet to an address of the world goes.
    routes: BTreeMap<SocketAddr, SocketAddr>,
    /// A stream for each direction between two nodes.
    draws: BTreeMap<(String, String), Entropy>,
    packets: u64,
    bytes: u64,
}

/// The UDP network of one world. Clones are the same network.
#[derive(Clone)]
pub struct UdpNetwork {
    world: World,
    timers: Timers,
    runtime: Handle,
    traced: Traced,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for UdpNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UdpNetwork")
    }
}

/// A packet on its way.
struct Packet {
    from: (String, SocketAddr),
    to: (String, SocketAddr),
    contents: Vec<u8>,
}

impl UdpNetwork {
    /// A network on which a packet takes `latency` one way, whose tasks run on `runtime`.
    #[must_use]
    pub fn new(world: World, runtime: Handle, latency: Duration, traced: Traced) -> Self {
        let state = State {
            latency,
            latencies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            names: BTreeMap::new(),
            bound: BTreeMap::new(),
            routes: BTreeMap::new(),
            draws: BTreeMap::new(),
            packets: 0,
            bytes: 0,
        };
        let timers = Timers::of(world.clone());
        Self { world, timers, runtime, traced, state: Arc::new(Mutex::new(state)) }
    }

    /// The link of a node that starts: the product's endpoint on this network.
    #[must_use]
    pub fn link(&self, node: &str, settings: Settings) -> Arc<PacketLink> {
        let (start, tasks, clock) = {
            let mut state = self.lock();
            state.address_of(node);
            let known = state.nodes.entry(node.to_owned()).or_default();
            known.starts += 1;
            known.tasks = Tasks::default();
            (known.starts, known.tasks.clone(), known.clock.clone())
        };
        let ground = NodeGround {
            node: node.to_owned(),
            network: self.clone(),
            timers: self.timers.clone(),
            runtime: self.runtime.clone(),
            tasks,
        };
        let right = || NodeClock::right(self.world.clone(), true);
        let clock = Arc::new(clock.unwrap_or_else(right));
        let entropy = self.world.entropy(node).stream(&format!("endpoint {start}"));
        Arc::new(PacketLink::new(node, self.clone(), Endpoint::on(Arc::new(ground), settings, clock, entropy)))
    }

    /// Says how long a packet to or from a node takes one way, in place of the network's latency.
    pub fn set_latency(&self, node: &str, latency: Duration) {
        self.lock().latencies.insert(node.to_owned(), latency);
    }

    /// Cuts a node off from all others. What is on its way is lost.
    pub fn cut(&self, node: &str) {
        self.impose(node, BY_HAND, Condition { is_cut: true, ..Condition::default() });
    }

    /// Ends such a cut.
    pub fn heal(&self, node: &str) {
        self.relieve(node, BY_HAND);
    }

    /// Lets a node's link do something to its packets, until [`relieve`](Self::relieve) is called with the same id.
    pub fn impose(&self, node: &str, id: u64, condition: Condition) {
        let mut state = self.lock();
        let known = state.nodes.entry(node.to_owned()).or_default();
        known.imposed.insert(id, condition);
        known.sum_up();
    }

    /// Ends what was imposed.
    pub fn relieve(&self, node: &str, id: u64) {
        let mut state = self.lock();
        let known = state.nodes.entry(node.to_owned()).or_default();
        known.imposed.remove(&id);
        known.sum_up();
    }

    /// Says by which clock a node that starts from now on judges the certificates of whoever dials it.
    pub fn set_clock(&self, node: &str, clock: NodeClock) {
        self.lock().nodes.entry(node.to_owned()).or_default().clock = Some(clock);
    }

    /// The middle forgets every flow of a node, as a firewall does that was started again: packets of connections that
    /// were joined pass no more, and those of new ones do. Each end notices when it has heard nothing for too long.
    pub fn reset(&self, node: &str) {
        self.lock().nodes.entry(node.to_owned()).or_default().firewall.forget();
    }

    /// The NAT of a node takes new ports for its sockets, and knows the ones before no more.
    pub fn rebind(&self, node: &str) {
        let mut state = self.lock();
        let State { bound, routes, .. } = &mut *state;
        for socket in bound.values_mut().filter(|socket| socket.node == node && socket.is_behind_nat) {
            if let Some(outer) = socket.outer.take() {
                routes.remove(&outer);
            }
        }
    }

    /// Ends a node as a power cut does: its sockets and all that its endpoint has under way are gone, and nobody is
    /// told.
    pub fn kill(&self, node: &str) {
        let (tasks, gone) = {
            let mut state = self.lock();
            let addresses: Vec<SocketAddr> =
                state.bound.iter().filter(|(_, socket)| socket.node == node).map(|(address, _)| *address).collect();
            let gone: Vec<Option<Bound>> = addresses.into_iter().map(|address| state.take(address)).collect();
            (state.nodes.get(node).map(|known| known.tasks.clone()), gone)
        };
        // Outside the lock: what goes with them may ask the network.
        drop(gone);
        if let Some(tasks) = tasks {
            tasks.end();
        }
    }

    /// What a node says when it means to say a frame.
    pub(super) fn said_by(&self, node: &str, frame: Bytes) -> Bytes {
        let mut state = self.lock();
        let percent = state.nodes.get(node).map_or(0, |known| known.condition.mangled_percent);
        if percent == 0 {
            return frame;
        }
        let draws = state.draws(&self.world, node, "anybody");
        if draws.below(100) < percent { mangle(&frame, draws).into() } else { frame }
    }

    /// How many packets have been sent, and how many bytes of UDP in them.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let state = self.lock();
        (state.packets, state.bytes)
    }

    /// The address of `host:port`, where the host is a node's name.
    pub(super) fn resolve(&self, address: &str) -> io::Result<SocketAddr> {
        if let Ok(address) = address.parse() {
            return Ok(address);
        }
        let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no node at `{address}`"));
        let (host, port) = address.rsplit_once(':').ok_or_else(unknown)?;
        let port: u16 = port.parse().map_err(|_| unknown())?;
        let found = self.lock().names.get(host).copied();
        found.map(|found| SocketAddr::from((found, port))).ok_or_else(unknown)
    }

    /// Where a node listens that is to be reached at `host:port`, whether it has started or not.
    #[must_use]
    pub fn listen_address(&self, address: &str) -> String {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
        format!("{}:{port}", self.lock().address_of(host))
    }

    /// Binds a socket of a node.
    pub(super) fn bind(&self, node: &str, wanted: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.lock();
        let ip = state.address_of(node);
        if !wanted.is_ipv4() || !(wanted.ip().is_unspecified() || wanted.ip() == ip) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let is_behind_nat = wanted.port() == 0;
        let port = if is_behind_nat { state.next_port(node) } else { wanted.port() };
        let address = SocketAddr::from((ip, port));
        if state.bound.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let inbox = Arc::<Mutex<Inbox>>::default();
        let outer = (!is_behind_nat).then_some(address);
        if outer.is_some() {
            state.routes.insert(address, address);
        }
        let bound = Bound { node: node.to_owned(), inbox: Arc::clone(&inbox), outer, is_behind_nat };
        state.bound.insert(address, bound);
        drop(state);
        Ok(Arc::new(SimulatedSocket { node: node.to_owned(), address, inbox, network: self.clone() }))
    }

    /// Frees the address of a socket that nobody has any more.
    pub(super) fn unbind(&self, address: SocketAddr, inbox: &Arc<Mutex<Inbox>>) {
        let gone = {
            let mut state = self.lock();
            let is_own = state.bound.get(&address).is_some_and(|bound| Arc::ptr_eq(&bound.inbox, inbox));
            if is_own { state.take(address) } else { None }
        };
        drop(gone);
    }

    /// Sends a packet off, if the link takes it.
    pub(super) fn send(&self, socket: &SimulatedSocket, to: SocketAddr, contents: &[u8]) {
        let now = self.world.monotonic();
        let (packet, delays) = {
            let mut state = self.lock();
            let Some(from) = state.outer(socket) else { return };
            state.packets += 1;
            state.bytes += u64::try_from(contents.len()).unwrap_or(u64::MAX);
            let Some(node) = state.node_at(to) else { return };
            let ends = [socket.node.as_str(), node.as_str()];
            let delays = state.delays(&self.world, now, ends, contents.len());
            (Packet { from: (socket.node.clone(), from), to: (node, to), contents: contents.to_vec() }, delays)
        };
        let (last, copies) = match delays.as_slice() {
            [] => return,
            [first, copies @ ..] => (*first, copies),
        };
        for delay in copies {
            let (from, to) = (packet.from.clone(), packet.to.clone());
            self.carry(*delay, Packet { from, to, contents: packet.contents.clone() });
        }
        self.carry(last, packet);
    }

    fn carry(&self, delay: Duration, packet: Packet) {
        let subject = format!("{}/udp", packet.to.0);
        let (from, to, size) = (packet.from.1, packet.to.1, packet.contents.len());
        let what = match self.traced {
            Traced::Sizes => format!("{size} B {from} > {to}"),
            Traced::Bytes => format!("{size} B {from} > {to} {}", blake3::hash(&packet.contents).to_hex()),
        };
        let network = self.clone();
        self.world.schedule(delay, &subject, what.as_bytes(), move || network.arrive(packet));
    }

    fn arrive(&self, packet: Packet) {
        let inbox = {
            let mut state = self.lock();
            if !state.passes(&packet) {
                return;
            }
            // A NAT knows no address but those that it shows now.
            let Some(inner) = state.routes.get(&packet.to.1).copied() else { return };
            let Some(bound) = state.bound.get(&inner) else { return };
            Arc::clone(&bound.inbox)
        };
        let reader = inbox.lock().unwrap_or_else(PoisonError::into_inner).put(packet.from.1, packet.contents);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The address of a node, which gets one when it is first asked for.
    fn address_of(&mut self, node: &str) -> Ipv4Addr {
        if let Some(address) = self.names.get(node) {
            return *address;
        }
        let count = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX);
        let address = Ipv4Addr::from(FIRST_ADDRESS.saturating_add(count));
        self.addresses.insert(address, node.to_owned());
        self.names.insert(node.to_owned(), address);
        address
    }

    fn node_at(&self, address: SocketAddr) -> Option<String> {
        match address {
            SocketAddr::V4(four) => self.addresses.get(four.ip()).cloned(),
            SocketAddr::V6(_) => None,
        }
    }

    fn next_port(&mut self, node: &str) -> u16 {
        let known = self.nodes.entry(node.to_owned()).or_default();
        let port = FIRST_PORT + known.next_port % (u16::MAX - FIRST_PORT);
        known.next_port = known.next_port.wrapping_add(1);
        port
    }

    /// Takes a socket away, with what leads to it.
    fn take(&mut self, address: SocketAddr) -> Option<Bound> {
        let bound = self.bound.remove(&address)?;
        if let Some(outer) = bound.outer {
            self.routes.remove(&outer);
        }
        Some(bound)
    }

    /// Where the world sees a socket; nothing when it is no socket any more.
    fn outer(&mut self, socket: &SimulatedSocket) -> Option<SocketAddr> {
        let bound = self.bound.get_mut(&socket.address).filter(|bound| Arc::ptr_eq(&bound.inbox, &socket.inbox))?;
        if let Some(outer) = bound.outer {
            return Some(outer);
        }
        let known = self.nodes.entry(socket.node.clone()).or_default();
        let port = FIRST_OUTER_PORT + known.next_outer_port % (FIRST_PORT - FIRST_OUTER_PORT);
        known.next_outer_port = known.next_outer_port.wrapping_add(1);
        let outer = SocketAddr::new(socket.address.ip(), port);
        bound.outer = Some(outer);
        self.routes.insert(outer, socket.address);
        Some(outer)
    }

    /// How long a packet takes, once for each time that it arrives: none when it is lost.
    fn delays(&mut self, world: &World, now: Monotonic, ends: [&str; 2], size: usize) -> Vec<Duration> {
        let [from, to] = ends;
        let own = ends.iter().filter_map(|node| self.latencies.get(*node)).max();
        let latency = own.copied().unwrap_or(self.latency);
        let condition = |node: &str| self.nodes.get(node).map(|known| known.condition.clone()).unwrap_or_default();
        let (leaving, coming) = (condition(from), condition(to));
        if leaving.stops_leaving(size) || coming.stops_coming(size) {
            return Vec::new();
        }
        let Some(queued) = self.queue(from, &leaving, now, size) else { return Vec::new() };
        let base = latency + queued + leaving.slower + coming.slower;
        if leaving.is_even() && coming.is_even() {
            return vec![base];
        }
        let draws = self.draws(world, from, to);
        let [leaving, coming] = [leaving.fate(draws), coming.fate(draws)];
        if leaving.is_lost || coming.is_lost {
            return Vec::new();
        }
        let mut delays = vec![base + leaving.later + coming.later];
        delays.extend([leaving.copy, coming.copy].into_iter().flatten().map(|later| base + later));
        delays
    }

    /// The stream of what goes from one node to another.
    fn draws(&mut self, world: &World, from: &str, to: &str) -> &mut Entropy {
        let key = (from.to_owned(), to.to_owned());
        self.draws.entry(key).or_insert_with(|| world.entropy("udp").stream(&format!("{from} > {to}")))
    }

    /// How long a packet waits until those before it have left; nothing when there is no room to wait.
    fn queue(&mut self, from: &str, leaving: &Condition, now: Monotonic, size: usize) -> Option<Duration> {
        let Some(span) = leaving.sending_time(size) else { return Some(Duration::ZERO) };
        let known = self.nodes.entry(from.to_owned()).or_default();
        let begin = known.busy_until.max(now);
        if begin.since(now) > super::condition::QUEUE_MAX {
            return None;
        }
        known.busy_until = begin + span;
        Some(known.busy_until.since(now))
    }

    /// Says whether a packet that has come through gets past the cuts and firewalls of both ends.
    fn passes(&mut self, packet: &Packet) -> bool {
        let ends: BTreeSet<&str> = [packet.from.0.as_str(), packet.to.0.as_str()].into();
        let mut passes = true;
        for node in ends {
            let known = self.nodes.entry(node.to_owned()).or_default();
            let size = packet.contents.len();
            let condition = &known.condition;
            let is_stopped =
                if node == packet.to.0 { condition.stops_coming(size) } else { condition.stops_leaving(size) };
            passes &= !is_stopped && known.firewall.lets_pass(&packet.contents);
        }
        passes
    }
}
