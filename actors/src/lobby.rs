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
    /// Its deadline as it stands among the others.
    deadline: Option<Monotonic>,
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
            Input::Answered { connection, message } => self.on_answered(connection, message, turn),
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
        self.waiting.insert(connection, Stranger { session, replica, deadline: None });
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
        let deadline = stranger.session.poll_timeout();
        let former = std::mem::replace(&mut stranger.deadline, deadline);
        if former != deadline {
            former.map(|former| self.deadlines.remove(&(former, connection)));
            self.deadlines.extend(deadline.map(|deadline| (deadline, connection)));
        }
    }

    fn on_answered(&self, connection: ConnectionId, message: Message, turn: &mut LobbyTurn) {
        if self.waiting.contains_key(&connection) {
            turn.effect(Effect::Send { connection, class: Class::Control, message });
        }
    }

    fn carry_out(&self, connection: ConnectionId, out: Vec<Output>, turn: &mut LobbyTurn) {
        for output in out {
            match output {
                Output::Send(class, message) => turn.effect(Effect::Send { connection, class, message }),
                Output::Close(code) => turn.effect(Effect::Close { connection, code }),
                Output::Deliver(Message::Register(request)) => {
                    turn.effect(Effect::Register { connection, request: Box::new(request) });
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

    use fleetd_sync_core::key::SecretKey;
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
