//! A device and a server on a virtual link: messages of one class keep their order, those of two may overtake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::*;
use crate::entropy::Entropy;
use crate::envelope::{Op, Value};
use crate::id::{BootId, LocalId};
use crate::key::SecretKey;
use crate::replica::{AuthorityWriter, Writers};
use crate::time::{ClockQuality, Wall};
use crate::trust::{Change, Rank, Role, RootRecord, Roster, Sites};

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const ONE_WAY: Duration = Duration::from_millis(50);

/// The keys of a small fleet.
#[derive(Clone)]
pub(super) struct Fleet {
    pub(super) root: SecretKey,
    pub(super) ca: SecretKey,
    pub(super) authority: SecretKey,
    pub(super) device: SecretKey,
    pub(super) chain: RootChain,
}

impl Fleet {
    pub(super) fn new(seed: u8) -> Self {
        let mut entropy = Entropy::from_seed([seed; 32]);
        let [root, ca, authority, device] = [(); 4].map(|()| SecretKey::generate(&mut entropy));
        let roles = [(ca.public(), Role::CertificateAuthority), (authority.public(), authority_role())];
        let record = RootRecord::draft(BTreeSet::from([root.public()]), 1, roles).unwrap().sign(&root);
        let chain = RootChain::found(record.body().fleet, record).unwrap();
        Self { root, ca, authority, device, chain }
    }

    pub(super) fn id(&self) -> FleetId {
        self.chain.fleet()
    }

    pub(super) fn local(&self) -> LocalId {
        self.device.id().into()
    }

    pub(super) fn desired(&self) -> DocumentId {
        DocumentId::Desired(self.local())
    }

    pub(super) fn actual(&self) -> DocumentId {
        DocumentId::Actual(self.local())
    }

    /// Delegates to another authority in a new root record.
    pub(super) fn delegate(&mut self, key: &SecretKey) {
        let change = Change::Delegate { key: key.public(), role: authority_role() };
        let record = self.chain.draft_next([change]).unwrap().sign(&self.root);
        self.chain.extend(record).unwrap();
    }
}

fn authority_role() -> Role {
    Role::Authority { rank: Rank::CENTRAL, sites: Sites::All }
}

/// Who may write, as a chain says.
pub(super) fn writers(chain: &RootChain, device: &SecretKey) -> Writers {
    let authorities = Roster::new(chain, []);
    let authorities = authorities
        .authorities()
        .map(|(id, authority)| (id, AuthorityWriter { key: authority.key, rank: authority.rank, sites: Sites::All }));
    Writers {
        authorities: Arc::new(authorities.collect()),
        devices: BTreeMap::from([(device.id().into(), Box::new(device.public()))]),
        sites: BTreeMap::new(),
        revoked: Arc::default(),
        trust_version: chain.version(),
    }
}

/// A leaf that stands in for X.509: who signed it, and for which fleet.
pub(super) fn leaf(ca: &SecretKey, fleet: FleetId) -> Vec<u8> {
    [ca.public().as_bytes().as_slice(), fleet.as_bytes()].concat()
}

pub(super) fn verify(evidence: &ServerEvidence<'_>) -> Result<(), String> {
    let known = |key: &PublicKey| evidence.leaf == [key.as_bytes().as_slice(), evidence.fleet.as_bytes()].concat();
    if evidence.authorities.iter().any(known) { Ok(()) } else { Err("no CA of the fleet issued this".to_owned()) }
}

pub(super) fn set(path: &str, value: i64) -> Op {
    Op::Set { path: path.parse().unwrap(), value: Value::Integer(value) }
}

/// One end.
pub(super) struct Node {
    pub(super) replica: Replica,
    pub(super) chain: Option<RootChain>,
    pub(super) session: Option<Session>,
    pub(super) log_positions: Vec<LogPosition>,
    /// What the session decided, with the time in milliseconds.
    pub(super) outputs: Vec<(u64, Output)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Device,
    Server,
}

impl End {
    const fn other(self) -> Self {
        match self {
            Self::Device => Self::Server,
            Self::Server => Self::Device,
        }
    }
}

pub(super) struct World {
    pub(super) fleet: Fleet,
    pub(super) now: Monotonic,
    pub(super) device: Node,
    pub(super) server: Node,
    pub(super) grade: Grade,
    /// The trust version that the device has seen before.
    pub(super) trust_version_min: u64,
    /// The certificate that the server shows.
    pub(super) leaf: Vec<u8>,
    /// Every message that was sent, by its sender.
    pub(super) sent: Vec<(End, Message)>,
    delays: Option<Entropy>,
    on_the_way: BTreeMap<(Monotonic, u64), (End, Message)>,
    last_of_stream: BTreeMap<(End, Class), Monotonic>,
    count: u64,
}

impl World {
    /// Both know the fleet, and neither has anything yet. With `delays`, streams overtake each other.
    pub(super) fn new(fleet: Fleet, delays: Option<Entropy>) -> Self {
        let mut entropy = Entropy::from_seed([9; 32]);
        let mut node = |key: &SecretKey| {
            let mut replica = Replica::new(fleet.id(), Some(key.clone()), &mut entropy);
            for document in [DocumentId::Trust, fleet.desired(), fleet.actual()] {
                replica.hold(document);
            }
            let _ = replica.set_writers(writers(&fleet.chain, &fleet.device));
            let chain = Some(fleet.chain.clone());
            Node { replica, chain, session: None, log_positions: Vec::new(), outputs: Vec::new() }
        };
        Self {
            now: Monotonic(0),
            device: node(&fleet.device),
            server: node(&fleet.authority),
            grade: Grade::Full,
            trust_version_min: 0,
            leaf: leaf(&fleet.ca, fleet.id()),
            sent: Vec::new(),
            delays,
            on_the_way: BTreeMap::new(),
            last_of_stream: BTreeMap::new(),
            count: 0,
            fleet,
        }
    }

    pub(super) fn time(&self) -> Now {
        Now { monotonic: self.now, wall: Wall(0), quality: ClockQuality::None }
    }

    pub(super) fn node(&mut self, end: End) -> &mut Node {
        match end {
            End::Device => &mut self.device,
            End::Server => &mut self.server,
        }
    }

    /// Joins the two ends, as a handshake does.
    pub(super) fn connect(&mut self) {
        self.cut();
        let device = Side::Device(DeviceSide {
            fleet: self.fleet.id(),
            chain: self.device.chain.clone(),
            trust_version_min: self.trust_version_min,
            server_leaf: self.leaf.clone(),
            verify,
        });
        let chain = Arc::new(self.server.chain.clone().unwrap());
        let server = Side::Server(ServerSide { chain, grade: self.grade });
        for (end, side) in [(End::Server, server), (End::Device, device)] {
            let (now, mut out) = (self.now, Vec::new());
            let node = self.node(end);
            let log_positions = node.log_positions.clone();
            let opening = Opening { boot: BootId::from_bytes([1; 16]), log_positions, side };
            node.session = Some(Session::open(now, opening, &node.replica, &mut out));
            self.carry_out(end, out);
        }
    }

    /// Loses the connection and all that is on its way.
    pub(super) fn cut(&mut self) {
        self.device.session = None;
        self.server.session = None;
        self.on_the_way.clear();
        self.last_of_stream.clear();
    }

    pub(super) fn write(&mut self, end: End, document: DocumentId, ops: Vec<Op>) {
        let now = self.time();
        let node = self.node(end);
        let written = node.replica.write(now, document, ops).unwrap();
        let mut out = Vec::new();
        if let Some(session) = &mut node.session {
            session.on_local_change(document, &written.envelopes, &mut out);
        }
        self.carry_out(end, out);
    }

    pub(super) fn carry_out(&mut self, end: End, outputs: Vec<Output>) {
        for output in outputs {
            let device = self.fleet.device.clone();
            match &output {
                Output::Send(class, message) => self.send(end, *class, message.clone()),
                Output::RootRecords(records) => {
                    let node = self.node(end);
                    for record in records {
                        match &mut node.chain {
                            Some(chain) => {
                                chain.extend(record.clone()).unwrap();
                            }
                            None => node.chain = Some(RootChain::found(record.body().fleet, record.clone()).unwrap()),
                        }
                    }
                    let _ = node.replica.set_writers(writers(node.chain.as_ref().unwrap(), &device));
                }
                _ => {}
            }
            let now = self.now.0 / 1_000_000;
            self.node(end).outputs.push((now, output));
        }
    }

    /// Hands a message to an end, and says what it decided.
    pub(super) fn deliver(&mut self, to: End, message: Message) -> Vec<Output> {
        let (now, mut out) = (self.time(), Vec::new());
        let node = self.node(to);
        node.session.as_mut().unwrap().on_message(now, message, &mut node.replica, &mut out);
        self.carry_out(to, out.clone());
        out
    }

    fn send(&mut self, from: End, class: Class, message: Message) {
        self.sent.push((from, message.clone()));
        let extra = self.delays.as_mut().map_or(Duration::ZERO, |delays| delays.jitter(200 * MILLISECOND));
        let earliest = self.last_of_stream.get(&(from, class)).copied().unwrap_or_default();
        let at = (self.now + ONE_WAY + extra).max(earliest);
        self.last_of_stream.insert((from, class), at);
        self.count += 1;
        self.on_the_way.insert((at, self.count), (from.other(), message));
    }

    /// Delivers the next message or runs the next timeout, if any is due until then.
    fn step(&mut self, until: Monotonic) -> bool {
        let message = self.on_the_way.first_key_value().map(|((at, _), _)| *at);
        let timers = [End::Device, End::Server]
            .map(|end| self.node(end).session.as_ref().and_then(Session::poll_timeout).map(|at| (at, end)));
        let timer = timers.into_iter().flatten().min();
        let mut out = Vec::new();
        let end = match (message, timer) {
            (Some(at), timer) if at <= until && timer.is_none_or(|(due, _)| at <= due) => {
                self.now = self.now.max(at);
                let (_, (end, message)) = self.on_the_way.pop_first().unwrap();
                let now = self.time();
                let node = self.node(end);
                let Some(session) = &mut node.session else { return true };
                session.on_message(now, message, &mut node.replica, &mut out);
                end
            }
            (_, Some((at, end))) if at <= until => {
                self.now = self.now.max(at);
                let now = self.now;
                self.node(end).session.as_mut().unwrap().handle_timeout(now, &mut out);
                end
            }
            _ => return false,
        };
        self.carry_out(end, out);
        true
    }

    pub(super) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
        self.now = until;
    }

    /// Runs until nothing is on its way and no timer runs.
    pub(super) fn settle(&mut self) {
        let until = self.now + Duration::from_secs(120);
        while self.step(until) {}
    }

    pub(super) fn is_live(&self) -> bool {
        [&self.device, &self.server].into_iter().all(|node| node.session.as_ref().is_some_and(Session::is_live))
    }

    /// Connects and waits until both are live, with nothing left to say.
    pub(super) fn meet(&mut self) {
        self.connect();
        self.settle();
        assert!(self.is_live(), "not live: {:?} {:?}", self.device.session, self.server.session);
    }

    pub(super) fn assert_equal(&self) {
        assert_eq!(self.device.replica.heads(), self.server.replica.heads());
        assert_eq!(
            self.device.replica.digest(&self.device.log_positions),
            self.server.replica.digest(&self.server.log_positions)
        );
    }

    /// What an end's session decided, without what it sent and stored.
    pub(super) fn decisions(&self, end: End) -> Vec<Output> {
        let node = match end {
            End::Device => &self.device,
            End::Server => &self.server,
        };
        let quiet = |output: &&Output| !matches!(output, Output::Send(..) | Output::Persist(_));
        node.outputs.iter().map(|(_, output)| output).filter(quiet).cloned().collect()
    }

    /// When an end first decided something, in milliseconds.
    pub(super) fn first(&self, end: End, wanted: impl Fn(&Output) -> bool) -> Option<u64> {
        let node = match end {
            End::Device => &self.device,
            End::Server => &self.server,
        };
        node.outputs.iter().find(|(_, output)| wanted(output)).map(|(at, _)| *at)
    }

    pub(super) fn forget_outputs(&mut self) {
        self.device.outputs.clear();
        self.server.outputs.clear();
        self.sent.clear();
    }
}
