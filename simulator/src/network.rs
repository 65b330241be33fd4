//! Links between nodes of the world: frames with a delay, and all that goes wrong on a path.
//!
//! A frame is what one QUIC stream carries whole: it is never lost, doubled or changed on the way, and those of one
//! class keep their order. So what a bad path does to packets shows as time: what is lost or does not pass arrives when
//! it can, with all that is behind it in its class, unless the connection is given up first, after
//! [`limit::IDLE_TIMEOUT`] without a packet. A sender whose frames do not get away fills its outbox, and then the
//! connection is closed.

mod trouble;

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
use fleetd_sync_core::time::{Clock as _, Monotonic};
use fleetd_sync_transport::identity;
use fleetd_sync_transport::link::{
    Accept, DialIdentity, DownReason, Link, LinkEvent, LinkEvents, ListenError, ListenIdentity, Listener, Peer,
    SendError,
};

pub use self::trouble::Trouble;
use self::trouble::{Path, Way};
pub(crate) use self::trouble::{mangle, resent_after};
use crate::clock::NodeClock;
use crate::world::World;

/// Time for which a dial goes on without an answer.
///
/// # Source
/// An attempt of `sync/transport`'s endpoint, which lasts a third of [`limit::HELLO_TIMEOUT`].
const DIAL_TIMEOUT: Duration = Duration::from_millis(3_333);
/// Time after which a first packet that was not answered is sent again.
const DIAL_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Who imposes what is imposed by hand.
const BY_HAND: u64 = u64::MAX;

/// One end of a connection: which node has it, and what the node calls it.
type EndId = (Arc<str>, ConnectionId);

struct End {
    peer: EndId,
    /// What traces call what arrives here.
    subject: Arc<str>,
    events: LinkEvents,
    ungranted: usize,
    waiting: VecDeque<(Class, Bytes)>,
    /// When the last frame of each class arrives here: none of its class may overtake it.
    arrivals: [Monotonic; Class::ALL.len()],
    /// Frames and bytes that the peer has sent and that have not been taken here: they fill its outbox.
    owed: (usize, usize),
}

impl End {
    fn new(own: &EndId, peer: EndId, events: LinkEvents) -> Self {
        let arrivals = [Monotonic(0); Class::ALL.len()];
        let subject = format!("{}/{}", own.0, own.1).into();
        Self { peer, subject, events, ungranted: 0, waiting: VecDeque::new(), arrivals, owed: (0, 0) }
    }

    fn take(&mut self, length: usize) {
        self.ungranted += 1;
        self.owed = (self.owed.0.saturating_sub(1), self.owed.1.saturating_sub(length));
    }
}

struct Listening {
    identity: ListenIdentity,
    accept: Accept,
    node: Arc<str>,
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
    from: Arc<str>,
    to: EndId,
    class: Class,
    frame: Bytes,
}

struct State {
    latency: Duration,
    paths: BTreeMap<String, Path>,
    clocks: BTreeMap<String, NodeClock>,
    listeners: BTreeMap<String, Listening>,
    ends: BTreeMap<EndId, End>,
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
            paths: BTreeMap::new(),
            clocks: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ends: BTreeMap::new(),
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
        Arc::new(NodeLink { node: node.into(), network: self.clone() })
    }

    /// Says by which clock a node judges the certificates of whoever dials it.
    pub fn set_clock(&self, node: &str, clock: NodeClock) {
        self.lock().clocks.insert(node.to_owned(), clock);
    }

    /// Says how long a frame to or from a node takes one way, in place of the network's latency.
    pub fn set_latency(&self, node: &str, latency: Duration) {
        self.lock().path(node).latency = Some(latency);
    }

    /// Lets somebody say how long each frame takes from now on, given what its path takes.
    pub fn shape(&self, shape: impl FnMut(&Passing<'_>) -> Duration + Send + 'static) {
        self.lock().shape = Some(Box::new(shape));
    }

    /// Ends every connection of a node at once; both ends hear of it.
    pub fn reset(&self, node: &str) {
        for end in self.ends_of(node, |_| true) {
            self.end(&end, DownReason::TimedOut);
        }
    }

    /// Cuts a node off from all others.
    pub fn cut(&self, node: &str) {
        self.impose(node, BY_HAND, Trouble::Cut);
    }

    /// Ends such a cut: what was sent meanwhile arrives now.
    pub fn heal(&self, node: &str) {
        self.relieve(node, BY_HAND);
    }

    /// Leaves a node that was cut off to another trouble that cuts it off: nothing is told, and nothing passes between.
    pub fn hand_over(&self, node: &str) {
        self.lock().path(node).troubles.remove(&BY_HAND);
    }

    /// Lets something go wrong with a node's link, until [`relieve`](Self::relieve) is called with the same id.
    pub fn impose(&self, node: &str, id: u64, trouble: Trouble) {
        let now = self.world.monotonic();
        self.lock().path(node).troubles.insert(id, (trouble, now));
        // An end notices when it has heard nothing for too long: first the one that nothing comes to, then, since it is
        // silent from there on, the other.
        let (first, second) = match trouble {
            Trouble::Cut => (Some(Way::From), Some(Way::To)),
            Trouble::Mute => (Some(Way::From), None),
            Trouble::Deaf => (None, Some(Way::To)),
            _ => return,
        };
        for (way, after) in [(Way::From, first.is_some()), (Way::To, second.is_some())] {
            let after = if after { limit::IDLE_TIMEOUT } else { limit::IDLE_TIMEOUT * 2 };
            let (network, node) = (self.clone(), node.to_owned());
            self.world.schedule(after, "network", b"given up", move || network.give_up(&node, (id, now), way));
        }
    }

    /// Ends what was imposed: what was sent meanwhile arrives now.
    pub fn relieve(&self, node: &str, id: u64) {
        self.lock().path(node).troubles.remove(&id);
        self.release();
        // Whoever still holds a connection that the other end gave up is told so by the next packet.
        let orphans: Vec<EndId> = {
            let state = self.lock();
            let of_node = state.ends.iter().filter(|(id, end)| &*id.0 == node || &*end.peer.0 == node);
            let orphans = of_node.filter(|(_, end)| !state.ends.contains_key(&end.peer));
            orphans.map(|(id, _)| id.clone()).collect()
        };
        for end in orphans {
            let (network, latency) = (self.clone(), self.lock().latency([&end.0, node]));
            self.world.schedule(latency * 2, "network", b"unknown", move || network.end(&end, DownReason::TimedOut));
        }
    }

    /// Gives a node another address without a word: what is sent to it is lost until it has been heard again.
    pub fn rebind(&self, node: &str) {
        self.lock().path(node).is_lost = true;
        let (network, name) = (self.clone(), node.to_owned());
        self.world.schedule(limit::KEEP_ALIVE_NAT, "network", b"keep-alive", move || network.hear(&name));
    }

    /// A node is heard from the address that it has now.
    fn hear(&self, node: &str) {
        let was_lost = std::mem::take(&mut self.lock().path(node).is_lost);
        if was_lost {
            self.release();
        }
    }

    /// Lets frames go on that nothing holds any more, in the order in which they came.
    fn release(&self) {
        let arriving = {
            let mut state = self.lock();
            let held = std::mem::take(&mut state.held);
            let (mut arriving, mut rest, mut behind) = (Vec::new(), Vec::new(), BTreeSet::new());
            for frame in held {
                let class = (frame.to.clone(), frame.class);
                if behind.contains(&class) || state.is_blocked(&frame) {
                    behind.insert(class);
                    rest.push(frame);
                } else {
                    arriving.push(frame);
                }
            }
            state.held = rest;
            arriving
        };
        for frame in arriving {
            self.carry(frame);
        }
    }

    fn ends_of(&self, node: &str, is_meant: impl Fn(&EndId) -> bool) -> Vec<EndId> {
        let state = self.lock();
        let ends = state.ends.iter().filter(|(id, end)| &*id.0 == node || &*end.peer.0 == node);
        ends.map(|(id, _)| id.clone()).filter(is_meant).collect()
    }

    /// Ends a node as a power cut does: its ends are gone, and its peers notice when they time out.
    pub fn kill(&self, node: &str) {
        let orphans: Vec<EndId> = {
            let mut state = self.lock();
            state.listeners.retain(|_, listening| &*listening.node != node);
            state.held.retain(|frame| &*frame.from != node && &*frame.to.0 != node);
            let gone: BTreeSet<EndId> = state.ends.keys().filter(|end| &*end.0 == node).cloned().collect();
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

    /// Ends a node's connections that have heard nothing for too long: at the other end, of what comes from the node,
    /// or here.
    fn give_up(&self, node: &str, (id, since): (u64, Monotonic), way: Way) {
        let goes_on = self.lock().path(node).troubles.get(&id).is_some_and(|(_, begun)| *begun == since);
        if !goes_on {
            return;
        }
        for end in self.ends_of(node, |end| (&*end.0 == node) == (way == Way::To)) {
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

    /// Brings a frame to its end after the time that the path takes.
    fn carry(&self, frame: Held) {
        let now = self.world.monotonic();
        let (wait, subject) = {
            let mut state = self.lock();
            let delay = state.takes(&frame, now);
            let Some(end) = state.ends.get_mut(&frame.to) else { return };
            let Some(last) = end.arrivals.get_mut(usize::from(frame.class.number()) - 1) else { return };
            *last = (*last).max(now + delay);
            (last.since(now), Arc::clone(&end.subject))
        };
        let what = *blake3::hash(&frame.frame).as_bytes();
        let network = self.clone();
        self.world.schedule(wait, &subject, &what, move || network.arrive(frame));
    }

    fn arrive(&self, frame: Held) {
        let events = {
            let mut state = self.lock();
            if state.must_wait(&frame) {
                state.held.push(frame);
                return;
            }
            let Some(end) = state.ends.get_mut(&frame.to) else { return };
            if end.ungranted >= limit::CONNECTION_CREDITS || !end.waiting.is_empty() {
                end.waiting.push_back((frame.class, frame.frame));
                return;
            }
            end.take(frame.frame.len());
            Arc::clone(&end.events)
        };
        events(frame.to.1, LinkEvent::Frame { class: frame.class, bytes: frame.frame });
    }

    /// Goes on with a dial that has lasted for `waited`: its first packet is sent again while nobody answers.
    fn dial(&self, dial: Dial, waited: Duration) {
        self.hear(&dial.node);
        let refusal = {
            let state = self.lock();
            match state.listeners.get(&dial.address) {
                None => Some("nobody listens there"),
                Some(listening) if !state.is_open_between(&dial.node, &listening.node) => Some("nobody answers"),
                Some(_) => None,
            }
        };
        let Some(cause) = refusal else { return self.join(&dial) };
        if waited + DIAL_AGAIN_AFTER > DIAL_TIMEOUT {
            return dial.fail(cause.to_owned());
        }
        let (network, node) = (self.clone(), dial.node.clone());
        self.world.schedule(DIAL_AGAIN_AFTER, &node, b"dial again", move || {
            network.dial(dial, waited + DIAL_AGAIN_AFTER);
        });
    }

    fn join(&self, dial: &Dial) {
        match self.try_join(dial) {
            Ok(Joined { leaf, remote_address, tell_server }) => {
                tell_server();
                (dial.events)(dial.connection, LinkEvent::Up { peer: Peer::Server { leaf }, remote_address });
            }
            Err(cause) => dial.fail(cause),
        }
    }

    fn try_join(&self, dial: &Dial) -> Result<Joined, String> {
        let mut state = self.lock();
        let listening = state.listeners.get(&dial.address).ok_or("nobody listens there")?;
        let clock = state.clocks.get(&*listening.node).cloned();
        let today = clock.unwrap_or_else(|| NodeClock::right(self.world.clone(), true)).now().wall;
        let peer = identity::grade_peer(&dial.identity.certificates, &listening.identity.authorities, today)
            .map_err(|error| error.to_string())?;
        let leaf = listening.identity.certificates.first().cloned().ok_or("the server has no certificate")?;
        let (accept, server) = (Arc::clone(&listening.accept), listening.node.clone());
        let accepted = ConnectionId::random(&mut state.entropy);
        drop(state);
        let remote_address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let server_events = accept(accepted, &peer, remote_address);
        let (near, far) = ((dial.node.clone(), dial.connection), (server, accepted));
        let mut state = self.lock();
        state.ends.insert(near.clone(), End::new(&near, far.clone(), Arc::clone(&dial.events)));
        state.ends.insert(far.clone(), End::new(&far, near, Arc::clone(&server_events)));
        let tell = move || server_events(accepted, LinkEvent::Up { peer, remote_address });
        Ok(Joined { leaf, remote_address, tell_server: Box::new(tell) })
    }

    /// Closes a connection at one end, and tells the other if it can hear that.
    fn close(&self, near: EndId, code: CloseCode) {
        let far = self.lock().ends.get(&near).map(|end| end.peer.clone());
        let far_node = far.as_ref().map_or("", |(node, _)| &**node);
        let latency = self.lock().latency([&near.0, far_node]);
        let (network, here) = (self.clone(), near.clone());
        self.world.schedule(Duration::ZERO, &near.0, b"close", move || {
            network.end(&here, DownReason::ClosedHere { code });
        });
        let Some(far) = far else { return };
        let network = self.clone();
        self.world.schedule(latency, &far.0.clone(), b"closed", move || {
            if network.lock().is_open_between(&near.0, &far.0) {
                return network.end(&far, DownReason::ClosedByPeer { code });
            }
            let again = network.clone();
            network.world.schedule(limit::IDLE_TIMEOUT, "network", b"timed out", move || {
                again.end(&far, DownReason::TimedOut);
            });
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn path(&mut self, node: &str) -> &mut Path {
        if !self.paths.contains_key(node) {
            self.paths.insert(node.to_owned(), Path::default());
        }
        self.paths.entry(node.to_owned()).or_default()
    }

    /// How long a frame takes one way between two nodes when nothing is wrong: the slower end decides.
    fn latency(&self, nodes: [&str; 2]) -> Duration {
        let own = nodes.iter().filter_map(|node| self.paths.get(*node)?.latency).max();
        own.unwrap_or(self.latency)
    }

    /// How long a frame takes now, and whoever shapes the links has the last word.
    fn takes(&mut self, frame: &Held, now: Monotonic) -> Duration {
        let latency = self.delay(frame, now);
        let Some(shape) = &mut self.shape else { return latency };
        let (from, to, class, bytes) = (&frame.from, &frame.to.0, frame.class, frame.frame.len());
        shape(&Passing { from, to, class, bytes, now, latency })
    }

    /// How long a frame takes by its paths.
    fn delay(&mut self, frame: &Held, now: Monotonic) -> Duration {
        let latency = self.latency([&frame.from, &frame.to.0]);
        let mut delay = latency;
        for (node, way) in [(&frame.from, Way::From), (&frame.to.0, Way::To)] {
            if let Some(path) = self.paths.get_mut(&**node).filter(|path| !path.is_sound()) {
                delay += path.delay(way, frame.frame.len(), latency, now, &mut self.entropy);
            }
        }
        delay
    }

    fn is_blocked(&self, frame: &Held) -> bool {
        let blocks = |node: &str, way| self.paths.get(node).is_some_and(|path| path.blocks(way, frame.frame.len()));
        blocks(&frame.from, Way::From) || blocks(&frame.to.0, Way::To)
    }

    /// Says whether a frame stays on the way: nothing passes, or one before it in its class is still there.
    fn must_wait(&self, frame: &Held) -> bool {
        self.is_blocked(frame) || self.held.iter().any(|held| held.class == frame.class && held.to == frame.to)
    }

    /// Says whether small packets pass between two nodes, both ways. The address of whoever dials is heard with it.
    fn is_open_between(&self, near: &str, far: &str) -> bool {
        let is_open =
            |node| self.paths.get(node).is_none_or(|path| !path.blocks(Way::From, 0) && !path.blocks(Way::To, 0));
        is_open(near) && is_open(far)
    }
}

/// A connection that a node wants.
struct Dial {
    node: Arc<str>,
    connection: ConnectionId,
    address: String,
    identity: DialIdentity,
    events: LinkEvents,
}

impl Dial {
    fn fail(&self, cause: String) {
        let reason = DownReason::Unreachable { address: self.address.clone(), cause };
        (self.events)(self.connection, LinkEvent::Down { reason });
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
    node: Arc<str>,
    network: Network,
}

impl Link for NodeLink {
    fn dial(&self, connection: ConnectionId, address: &str, identity: DialIdentity, events: LinkEvents) {
        let (network, round_trip) = (self.network.clone(), self.network.lock().latency([&self.node, ""]) * 2);
        let (node, address) = (self.node.clone(), address.to_owned());
        let dial = Dial { node, connection, address, identity, events };
        self.network.world.schedule(round_trip, &self.node, b"dial", move || network.dial(dial, Duration::ZERO));
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
        let near = (self.node.clone(), connection);
        let mut guard = self.network.lock();
        let state = &mut *guard;
        state.frames += 1;
        state.bytes += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        let to = state.ends.get(&near).map(|end| end.peer.clone()).ok_or(SendError::Unknown { connection })?;
        let path = state.paths.get(&*self.node).filter(|path| !path.is_sound());
        let percent = path.map_or(0, Path::mangled_percent);
        let (entropy, was_lost) = (&mut state.entropy, path.is_some_and(|path| path.is_lost));
        let frame =
            if percent > 0 && entropy.below(100) < percent { Bytes::from(mangle(&frame, entropy)) } else { frame };
        if let Some(end) = state.ends.get_mut(&to) {
            end.owed = (end.owed.0 + 1, end.owed.1 + frame.len());
            let (frames, bytes) = end.owed;
            if frames > limit::OUTBOX_FRAMES_MAX || bytes > limit::OUTBOX_BYTES_MAX {
                drop(guard);
                self.network.close(near, CloseCode::Overflow);
                return Err(SendError::Overflow { connection, frames, bytes });
            }
        }
        drop(guard);
        if was_lost {
            let (network, node) = (self.network.clone(), self.node.clone());
            let latency = self.network.lock().latency([&self.node, &to.0]);
            self.network.world.schedule(latency, "network", b"heard", move || network.hear(&node));
        }
        self.network.carry(Held { from: self.node.clone(), to, class, frame });
        Ok(())
    }

    fn close(&self, connection: ConnectionId, code: CloseCode) {
        self.network.close((self.node.clone(), connection), code);
    }

    fn grant(&self, connection: ConnectionId, credits: usize) {
        let mut released = Vec::new();
        let mut state = self.network.lock();
        let Some(end) = state.ends.get_mut(&(self.node.clone(), connection)) else { return };
        end.ungranted = end.ungranted.saturating_sub(credits);
        while end.ungranted < limit::CONNECTION_CREDITS {
            let Some(frame) = end.waiting.pop_front() else { break };
            end.take(frame.1.len());
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
