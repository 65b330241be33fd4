//! The lobby: connections of devices that have no certificate yet. They may register, and nothing else.

use std::collections::BTreeMap;
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
    waiting: BTreeMap<ConnectionId, (Session, Replica)>,
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
        Self { boot, trust, entropy, waiting: BTreeMap::new() }
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
            Input::Disconnected(connection) => drop(self.waiting.remove(&connection)),
            Input::Answered { connection, message } => self.on_answered(connection, message, turn),
            Input::Trust(trust) => self.trust = trust,
        }
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut LobbyTurn) {
        let due = |session: &Session| session.poll_timeout().is_some_and(|due| due <= now.monotonic);
        let waiting = self.waiting.iter_mut().filter(|(_, (session, _))| due(session));
        let mut decided = Vec::new();
        for (connection, (session, _)) in waiting {
            let mut out = Vec::new();
            session.handle_timeout(now.monotonic, &mut out);
            decided.push((*connection, out));
        }
        decided.into_iter().for_each(|(connection, out)| self.carry_out(connection, out, turn));
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        self.waiting.values().filter_map(|(session, _)| session.poll_timeout()).min()
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
        let chain = Arc::new(self.trust.chain.clone());
        let replica = Replica::new(chain.fleet(), None, &mut self.entropy);
        let side = Side::Server(ServerSide { chain, grade: Grade::Enroll });
        let mut out = Vec::new();
        let opening = Opening { boot: self.boot, log_positions: Vec::new(), side };
        let session = Session::open(now.monotonic, opening, &replica, &mut out);
        self.waiting.insert(connection, (session, replica));
        self.carry_out(connection, out, turn);
    }

    fn on_message(&mut self, now: Now, connection: ConnectionId, message: Message, turn: &mut LobbyTurn) {
        let Some((session, replica)) = self.waiting.get_mut(&connection) else { return };
        let mut out = Vec::new();
        session.on_message(now, message, replica, &mut out);
        self.carry_out(connection, out, turn);
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
