//! The lobby: connections of devices that have no certificate yet. They may register, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{BootId, ConnectionId};
use fleetd_sync_core::limit;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::replica::Replica;
use fleetd_sync_core::session::message::Register;
use fleetd_sync_core::session::{Class, CloseCode, Grade, Message, Opening, Output, ServerSide, Session, Side};
use fleetd_sync_core::time::{Monotonic, Now};

use crate::authority::Trust;

/// Connections of devices that have no certificate yet.
#[derive(Debug)]
pub struct Lobby {
    boot: BootId,
    trust: Arc<Trust>,
    entropy: Entropy,
    waiting: BTreeMap<ConnectionId, Stranger>,
    /// When each of them has something to give up next, the soonest first: thousands may wait at once, and the soonest
    /// is asked for after each input.
    deadlines: BTreeSet<(Monotonic, ConnectionId)>,
}

/// One of them.
#[derive(Debug)]
struct Stranger {
    session: Session,
    replica: Replica,
    /// What it asked, which it may once on a connection.
    asked: Asked,
    /// Its deadline as it stands among the others.
    deadline: Option<Monotonic>,
}

/// How far a stranger's request is.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Nothing,
    /// It waits for its answer, with all the time that this takes.
    Waits,
    /// It has its answer, whatever that was, and leaves: its place is for others.
    LeavesBy(Monotonic),
    /// It was sent away.
    Gone,
}

impl Stranger {
    fn due(&self) -> Option<Monotonic> {
        let leaves_by = if let Asked::LeavesBy(leaves_by) = self.asked { Some(leaves_by) } else { None };
        self.session.poll_timeout().into_iter().chain(leaves_by).min()
    }
}

/// What can happen to it.
#[derive(Clone, Debug)]
pub enum Input {
    /// A device without a certificate has connected.
    Connected(ConnectionId),
    /// It said something.
    Message {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// A connection is gone.
    Disconnected(ConnectionId),
    /// A request to register was answered.
    Answered {
        /// On which connection it came.
        connection: ConnectionId,
        /// What to send.
        message: Message,
    },
    /// Trust has changed.
    Trust(Arc<Trust>),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// On which stream.
        class: Class,
        /// What.
        message: Message,
    },
    /// End a connection.
    Close {
        /// Which.
        connection: ConnectionId,
        /// Why.
        code: CloseCode,
    },
    /// A device asks for an identity.
    Register {
        /// On which connection; answered by [`Input::Answered`].
        connection: ConnectionId,
        /// The request.
        request: Box<Register>,
    },
}

/// A lobby remembers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {}

type LobbyTurn = Turn<Record, Effect>;

impl Lobby {
    /// Opens a lobby.
    #[must_use]
    pub const fn new(boot: BootId, trust: Arc<Trust>, entropy: Entropy) -> Self {
        Self { boot, trust, entropy, waiting: BTreeMap::new(), deadlines: BTreeSet::new() }
    }
}

impl Machine for Lobby {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut LobbyTurn) {
        match input {
            Input::Connected(connection) => self.on_connected(now, connection, turn),
            Input::Message { connection, message } => self.on_message(now, connection, message, turn),
            Input::Disconnected(connection) => self.on_disconnected(connection),
            Input::Answered { connection, message } => self.on_answered(now, connection, message, turn),
            Input::Trust(trust) => self.trust = trust,
        }
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut LobbyTurn) {
        let due: BTreeSet<ConnectionId> = self
            .deadlines
            .iter()
            .take_while(|(due, _)| *due <= now.monotonic)
            .map(|(_, connection)| *connection)
            .collect();
        for connection in due {
            let Some(stranger) = self.waiting.get_mut(&connection) else { continue };
            let mut out = Vec::new();
            stranger.session.handle_timeout(now.monotonic, &mut out);
            if matches!(stranger.asked, Asked::LeavesBy(leaves_by) if leaves_by <= now.monotonic) {
                stranger.asked = Asked::Gone;
                out.push(Output::Close(CloseCode::Timeout));
            }
            self.note_deadline(connection);
            self.carry_out(connection, out, turn);
        }
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Lobby {
    fn on_connected(&mut self, now: Now, connection: ConnectionId, turn: &mut LobbyTurn) {
        if self.waiting.len() >= limit::LOBBY_CONNECTIONS_MAX {
            turn.effect(Effect::Close { connection, code: CloseCode::Busy });
            return;
        }
        let chain = Arc::clone(&self.trust.chain);
        let replica = Replica::new(chain.fleet(), None, &mut self.entropy);
        let side = Side::Server(ServerSide { chain, grade: Grade::Enroll });
        let mut out = Vec::new();
        let opening = Opening { boot: self.boot, log_positions: Vec::new(), side };
        let session = Session::open(now.monotonic, opening, &replica, &mut out);
        self.waiting.insert(connection, Stranger { session, replica, asked: Asked::Nothing, deadline: None });
        self.note_deadline(connection);
        self.carry_out(connection, out, turn);
    }

    fn on_message(&mut self, now: Now, connection: ConnectionId, message: Message, turn: &mut LobbyTurn) {
        let Some(stranger) = self.waiting.get_mut(&connection) else { return };
        let mut out = Vec::new();
        stranger.session.on_message(now, message, &mut stranger.replica, &mut out);
        self.note_deadline(connection);
        self.carry_out(connection, out, turn);
    }

    fn on_disconnected(&mut self, connection: ConnectionId) {
        let Some(stranger) = self.waiting.remove(&connection) else { return };
        if let Some(deadline) = stranger.deadline {
            self.deadlines.remove(&(deadline, connection));
        }
    }

    /// Notes when a session has something to give up next.
    fn note_deadline(&mut self, connection: ConnectionId) {
        let Some(stranger) = self.waiting.get_mut(&connection) else { return };
        let deadline = stranger.due();
        let former = std::mem::replace(&mut stranger.deadline, deadline);
        if former != deadline {
            former.map(|former| self.deadlines.remove(&(former, connection)));
            self.deadlines.extend(deadline.map(|deadline| (deadline, connection)));
        }
    }

    fn on_answered(&mut self, now: Now, connection: ConnectionId, message: Message, turn: &mut LobbyTurn) {
        let Some(stranger) = self.waiting.get_mut(&connection) else { return };
        stranger.asked = Asked::LeavesBy(now.monotonic + limit::HELLO_TIMEOUT);
        self.note_deadline(connection);
        turn.effect(Effect::Send { connection, class: Class::Control, message });
    }

    fn carry_out(&mut self, connection: ConnectionId, out: Vec<Output>, turn: &mut LobbyTurn) {
        for output in out {
            match output {
                Output::Send(class, message) => turn.effect(Effect::Send { connection, class, message }),
                Output::Close(code) => turn.effect(Effect::Close { connection, code }),
                Output::Deliver(Message::Register(request)) => {
                    // Each costs signatures to check: it may ask once, and dials again to ask again.
                    let first = self.waiting.get_mut(&connection).filter(|it| matches!(it.asked, Asked::Nothing));
                    if let Some(stranger) = first {
                        stranger.asked = Asked::Waits;
                        turn.effect(Effect::Register { connection, request: Box::new(request) });
                    }
                }
                // A session of this grade has no documents, and decides nothing else.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetd_sync_core::id::TokenId;
    use fleetd_sync_core::key::SecretKey;
    use fleetd_sync_core::session::DeviceSide;
    use fleetd_sync_core::session::message::{Facts, Registered};
    use fleetd_sync_core::time::{ClockQuality, Wall};
    use fleetd_sync_core::trust::{RootChain, RootRecord, Roster};

    use super::*;

    fn lobby() -> Lobby {
        let mut entropy = Entropy::from_seed([7; 32]);
        let root = SecretKey::generate(&mut entropy);
        let first = RootRecord::draft([root.public()].into(), 1, []).unwrap().sign(&root);
        let chain = RootChain::found(first.body().fleet, first).unwrap();
        let roster = Arc::new(Roster::new(&chain, []));
        let trust = Arc::new(Trust { chain: Arc::new(chain), roster, envelopes: Vec::new() });
        Lobby::new(BootId::random(&mut entropy), trust, entropy)
    }

    fn at(seconds: u64) -> Now {
        Now { monotonic: Monotonic(0) + Duration::from_secs(seconds), wall: Wall(0), quality: ClockQuality::None }
    }

    fn closed(turn: LobbyTurn) -> Vec<ConnectionId> {
        let (_, effects) = turn.into_parts();
        let closed = |effect| if let Effect::Close { connection, .. } = effect { Some(connection) } else { None };
        effects.into_iter().filter_map(closed).collect()
    }

    /// A stranger that may ask to register.
    fn let_in(lobby: &mut Lobby, connection: ConnectionId) -> Register {
        let mut entropy = Entropy::from_seed([5; 32]);
        let side = Side::Device(DeviceSide {
            fleet: lobby.trust.chain.fleet(),
            chain: None,
            trust_version_min: 0,
            server_leaf: Vec::new(),
            verify: |_| Ok(()),
        });
        let opening = Opening { boot: BootId::random(&mut entropy), log_positions: Vec::new(), side };
        let mut replica = Replica::new(lobby.trust.chain.fleet(), None, &mut entropy);
        let mut out = Vec::new();
        let mut device = Session::open(at(0).monotonic, opening, &replica, &mut out);
        let mut turn = Turn::new();
        lobby.handle(at(0), Input::Connected(connection), &mut turn);
        while !out.iter().any(|output| matches!(output, Output::Welcomed(Grade::Enroll))) {
            for output in std::mem::take(&mut out) {
                if let Output::Send(_, message) = output {
                    lobby.handle(at(0), Input::Message { connection, message }, &mut turn);
                }
            }
            for effect in std::mem::take(&mut turn).into_parts().1 {
                if let Effect::Send { message, .. } = effect {
                    device.on_message(at(0), message, &mut replica, &mut out);
                }
            }
        }
        Register {
            token: TokenId::from_bytes([1; 10]),
            secret: Vec::new(),
            csr: Vec::new(),
            facts: Facts::default(),
            sealing_key: [0; 32],
        }
    }

    #[test]
    fn a_stranger_asks_once_and_gives_its_place_up_when_it_has_its_answer() {
        let (mut lobby, connection) = (lobby(), ConnectionId::from_bytes([1; 8]));
        let request = let_in(&mut lobby, connection);
        let mut turn = Turn::new();
        for _ in 0..3 {
            let message = Message::Register(request.clone());
            lobby.handle(at(1), Input::Message { connection, message }, &mut turn);
        }
        let (_, effects) = std::mem::take(&mut turn).into_parts();
        assert!(matches!(effects.as_slice(), [Effect::Register { .. }]), "{effects:?}");
        assert_eq!(lobby.poll_timeout(), None, "its answer takes the time that it takes");

        let message = Message::Registered(Registered::Pending { retry_after: Duration::from_secs(9) });
        lobby.handle(at(60), Input::Answered { connection, message }, &mut turn);
        assert_eq!(lobby.poll_timeout(), Some(at(60).monotonic + limit::HELLO_TIMEOUT));
        let message = Message::Register(request);
        lobby.handle(at(61), Input::Message { connection, message }, &mut turn);
        let (_, effects) = std::mem::take(&mut turn).into_parts();
        assert!(matches!(effects.as_slice(), [Effect::Send { .. }]), "{effects:?}");
        lobby.handle_timeout(Now { monotonic: at(60).monotonic + limit::HELLO_TIMEOUT, ..at(0) }, &mut turn);
        assert_eq!(closed(turn), [connection]);
        assert_eq!(lobby.poll_timeout(), None);
    }

    #[test]
    fn strangers_that_say_nothing_are_each_sent_away_in_their_own_time() {
        let (mut lobby, mut turn) = (lobby(), Turn::new());
        let [first, gone, last] = [3, 2, 1].map(|id| ConnectionId::from_bytes([id; 8]));
        for (seconds, connection) in [(0, first), (1, gone), (2, last)] {
            lobby.handle(at(seconds), Input::Connected(connection), &mut turn);
        }
        lobby.handle(at(2), Input::Disconnected(gone), &mut turn);
        for (expected, seconds) in [(first, 0), (last, 2)] {
            let due = lobby.poll_timeout().unwrap();
            assert_eq!(due, at(seconds).monotonic + limit::HELLO_TIMEOUT);
            let mut turn = Turn::new();
            lobby.handle_timeout(Now { monotonic: due, ..at(0) }, &mut turn);
            assert_eq!(closed(turn), [expected]);
        }
        assert_eq!(lobby.poll_timeout(), None);
        lobby.handle(at(60), Input::Disconnected(first), &mut turn);
        lobby.handle(at(60), Input::Disconnected(last), &mut turn);
        assert!(lobby.is_idle());
    }
}
