//! One peer's half of a sync session.
//!
//! A session turns what a peer says into changes of a [`Replica`], and changes made here into what the peer must
//! hear. It never sends: it says what to send, and its owner does so once the turn is durable. Both ends run the
//! same code; only the opening differs.
//!
//! The device says Hello first, with a digest of all it has, as soon as the handshake lets it. The server answers
//! with its own, and with what proves that it is of the fleet. Equal digests end it there. Otherwise each tells its
//! heads, pushes what the other lacks, and asks for what does not follow. From then on every change is pushed as it
//! happens.
//!
//! Where to start reading: [`message`] (what is said), [`output`] (what is decided), [`close`] (how it ends) and
//! [`dial`] (how a device finds its server).

pub mod class;
pub mod close;
pub mod dial;
pub mod message;
pub mod output;

mod greeting;
mod reconcile;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::envelope::{DocumentId, Position};
use crate::id::{BootId, FleetId, KeyId};
use crate::key::PublicKey;
use crate::limit;
use crate::replica::Replica;
use crate::time::{Monotonic, Now};
use crate::trust::RootChain;

pub use class::Class;
pub use close::CloseCode;
pub use message::{Grade, Hello, LaneHead, LogPosition, LogStream, Message, Push, Summary, Want, Welcome};
pub use output::Output;

/// What a server shows of itself, and by what a device judges it.
#[derive(Clone, Copy, Debug)]
pub struct ServerEvidence<'a> {
    /// The certificate whose key the server holds, as the handshake proved; in DER.
    pub leaf: &'a [u8],
    /// The keys that the newest root record lets issue certificates.
    pub authorities: &'a [PublicKey],
    /// The fleet that the leaf must name.
    pub fleet: FleetId,
}

/// Judges a server: its leaf is signed by one of the keys, and names a server of the fleet. It must not look at
/// dates. The text says what is wrong.
pub type VerifyServer = fn(&ServerEvidence<'_>) -> Result<(), String>;

/// What both ends bring to a session.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The start of the operating system, or of the process where it is a server.
    pub boot: BootId,
    /// How far each log stream has come: written here on a device, durable here on a server.
    pub log_positions: Vec<LogPosition>,
    /// What only this side brings.
    pub side: Side,
}

/// What only one side brings.
#[derive(Clone, Debug)]
pub enum Side {
    /// A device, which dialled.
    Device(DeviceSide),
    /// A server, which accepted.
    Server(ServerSide),
}

/// What a device brings.
#[derive(Clone, Debug)]
pub struct DeviceSide {
    /// The fleet that its token named.
    pub fleet: FleetId,
    /// The root chain, as far as it has it; `None` before the first contact.
    pub chain: Option<RootChain>,
    /// The trust version that it has seen before, even if it has lost the records since: a server that cannot show as
    /// much is not believed.
    pub trust_version_min: u64,
    /// The certificate that the server showed in this connection's handshake.
    pub server_leaf: Vec<u8>,
    /// Judges it.
    pub verify: VerifyServer,
}

/// What a server brings.
#[derive(Clone, Debug)]
pub struct ServerSide {
    /// The root chain.
    pub chain: Arc<RootChain>,
    /// What the session is for, as the device's certificate was judged.
    pub grade: Grade,
}

/// How many messages of a peer had no effect, by reason. What became of envelopes, the replica counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Came too early, too late, from the wrong side, or beyond what the grade allows.
    pub unexpected: u64,
    /// Envelopes of documents that the grade keeps out.
    pub kept_out: u64,
    /// Envelopes that did not follow what is held.
    pub gaps: u64,
}

/// One peer's half of a sync session.
#[derive(Debug)]
pub struct Session {
    opening: Opening,
    phase: Phase,
    grade: Option<Grade>,
    announced: Announced,
    wanted: BTreeMap<(DocumentId, KeyId), Monotonic>,
    /// The documents in which this node's own lane has a higher branch, which it has to write above.
    reopen: BTreeSet<DocumentId>,
    /// Until when the peer may take to answer a probe.
    probe: Option<Monotonic>,
    /// How many probes there were.
    probes: u64,
    counters: SessionCounters,
}

#[derive(Debug)]
enum Phase {
    /// The peer's first Hello has not come, or is not whole.
    Greeting { deadline: Monotonic, early: Vec<Push> },
    /// The device may register, and nothing else.
    Enrolling { deadline: Option<Monotonic> },
    /// The peer's heads are not known yet.
    Comparing { deadline: Monotonic },
    /// Pushes travel; the peer has what is listed, and it has not come.
    Reconciling { deadline: Monotonic, awaited: BTreeMap<(DocumentId, KeyId), Position> },
    /// Both have what the other had.
    Live,
    /// Nothing more is said.
    Closed,
}

/// What this end has said that it has.
#[derive(Debug, Default)]
struct Announced {
    digest: [u8; 16],
    heads: Vec<LaneHead>,
    /// Whether the heads themselves were told, and not only their digest.
    full: bool,
}

impl Session {
    /// Opens a session. A device says Hello at once; a server waits for the device's.
    #[must_use]
    pub fn open(now: Monotonic, mut opening: Opening, replica: &Replica, out: &mut Vec<Output>) -> Self {
        opening.log_positions.truncate(limit::HELLO_STREAMS_MAX);
        opening.log_positions.sort_unstable();
        let phase = Phase::Greeting { deadline: now + limit::HELLO_TIMEOUT, early: Vec::new() };
        let mut session = Self {
            opening,
            phase,
            grade: None,
            announced: Announced::default(),
            wanted: BTreeMap::new(),
            reopen: BTreeSet::new(),
            probe: None,
            probes: 0,
            counters: SessionCounters::default(),
        };
        if matches!(session.opening.side, Side::Device(_)) {
            session.announce(replica, false, None, out);
        }
        session
    }

    /// What the session is for, once the server has said so and the device believes it.
    #[must_use]
    pub const fn grade(&self) -> Option<Grade> {
        self.grade
    }

    /// Says whether both ends have what the other had.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// How many messages of the peer had no effect.
    #[must_use]
    pub const fn counters(&self) -> &SessionCounters {
        &self.counters
    }

    /// Takes a message from the peer.
    pub fn on_message(&mut self, now: Now, message: Message, replica: &mut Replica, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.on_heard(out);
        match message {
            Message::Hello(hello) => self.on_hello(now, *hello, replica, out),
            Message::Push(push) => self.on_push(now, push, replica, out),
            Message::Want(want) => self.on_want(want, replica, out),
            Message::Ping(nonce) => out.push(Output::Send(Class::Control, Message::Pong(nonce))),
            Message::Pong(_) => {}
            Message::RetryAfter(pause) => self.on_retry_after(pause, out),
            carried => self.carry(carried, out),
        }
    }

    /// Extends the root chain in the middle of a session, and tells the device.
    pub fn on_chain_extended(&mut self, chain: &Arc<RootChain>, out: &mut Vec<Output>) {
        let before = self.chain_version();
        if let Side::Server(side) = &mut self.opening.side {
            side.chain = Arc::clone(chain);
        }
        if !matches!(self.phase, Phase::Greeting { .. } | Phase::Closed) {
            self.welcome(before, out);
        }
    }

    /// Asks whether the peer is there, because somebody waits to know. The answer is [`Output::Probed`]; with no answer
    /// the session ends.
    pub fn probe(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        if self.probe.is_some() || matches!(self.phase, Phase::Closed) {
            return;
        }
        self.probes = self.probes.wrapping_add(1);
        self.probe = Some(now + limit::PROBE_TIMEOUT);
        out.push(Output::Send(Class::Control, Message::Ping(self.probes)));
    }

    /// When [`Session::handle_timeout`] next has work.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Monotonic> {
        let phase = match &self.phase {
            Phase::Greeting { deadline, .. } | Phase::Comparing { deadline } | Phase::Reconciling { deadline, .. } => {
                Some(*deadline)
            }
            Phase::Enrolling { deadline } => *deadline,
            Phase::Live | Phase::Closed => None,
        };
        phase.into_iter().chain(self.probe).min()
    }

    /// Gives up what took too long.
    pub fn handle_timeout(&mut self, now: Monotonic, out: &mut Vec<Output>) {
        if self.probe.is_some_and(|deadline| deadline <= now) {
            // A connection on which nobody answers is given up, so that all who wait know it too, and no later than
            // the one who asked. The peer, if it is there after all, dials again.
            self.close(CloseCode::Timeout, out);
            return out.push(Output::Probed { answered: false });
        }
        match &self.phase {
            Phase::Greeting { deadline, .. } | Phase::Comparing { deadline } if *deadline <= now => {
                self.close(CloseCode::Timeout, out);
            }
            Phase::Enrolling { deadline: Some(deadline) } if *deadline <= now => self.close(CloseCode::Timeout, out),
            Phase::Reconciling { deadline, .. } if *deadline <= now => self.give_up_awaiting(out),
            _ => {}
        }
    }

    fn on_heard(&mut self, out: &mut Vec<Output>) {
        // Whatever it says, it is there.
        if self.probe.take().is_some() {
            out.push(Output::Probed { answered: true });
        }
    }

    fn on_retry_after(&mut self, pause: Duration, out: &mut Vec<Output>) {
        match self.opening.side {
            Side::Device(_) => out.push(Output::RetryAfter(pause)),
            Side::Server(_) => self.counters.unexpected += 1,
        }
    }

    /// Hands on what is not the session's own business, where the side and the grade allow it.
    fn carry(&mut self, message: Message, out: &mut Vec<Output>) {
        let Some(grade) = self.grade else {
            self.counters.unexpected += 1;
            return;
        };
        let from_device = matches!(
            message,
            Message::Register(_) | Message::Renew(_) | Message::ArtifactWant(_) | Message::LogPush(_)
        );
        let allowed = match &message {
            Message::Register(_) | Message::Registered(_) => grade == Grade::Enroll,
            Message::Renew(_) | Message::Renewed(_) | Message::LogPush(_) | Message::LogAck(_) => {
                grade != Grade::Enroll
            }
            _ => grade == Grade::Full,
        };
        if !allowed || from_device == matches!(self.opening.side, Side::Device(_)) {
            self.counters.unexpected += 1;
            return;
        }
        if let Phase::Enrolling { deadline } = &mut self.phase {
            // What becomes of the request may be for a person to decide.
            *deadline = None;
        }
        out.push(Output::Deliver(message));
    }

    fn close(&mut self, code: CloseCode, out: &mut Vec<Output>) {
        self.phase = Phase::Closed;
        self.probe = None;
        out.push(Output::Close(code));
    }
}
