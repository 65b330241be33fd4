//! Carries out what the lobby decides.

use std::sync::Arc;

use fleetd_actors::driver::Driver;
use fleetd_actors::lobby::{Effect, Input, Lobby, Record};
use fleetd_actors::registration;
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::session::Message;
use fleetd_sync_core::session::message::{Refusal, Register, Registered};
use fleetd_sync_core::time::Now;
use fleetd_sync_transport::identity;

use super::send;
use crate::node::{Later, Shared};

/// The lobby's driver.
pub struct LobbyDriver {
    shared: Arc<Shared>,
    later: Later,
}

impl LobbyDriver {
    /// Makes the driver.
    #[must_use]
    pub const fn new(shared: Arc<Shared>, later: Later) -> Self {
        Self { shared, later }
    }

    fn register(&self, connection: ConnectionId, request: Box<Register>) {
        let Some(actors) = self.later.actors() else { return };
        let lobby = actors.lobby.clone();
        let answer = move |registered| {
            lobby.send(Input::Answered { connection, message: Message::Registered(registered) });
        };
        match identity::verify_signing_request(&request.csr) {
            Ok(key) => {
                let operation = self.shared.registered_answers.open(Box::new(answer));
                actors.registration.send(registration::Input::Register { operation, key, request });
            }
            Err(error) => {
                let code = "enrolment.request.invalid".to_owned();
                answer(Registered::Refused(Refusal { code, message: error.to_string() }));
            }
        }
    }
}

impl Driver<Lobby> for LobbyDriver {
    fn store(&mut self, record: Record, _mutations: &mut Vec<Mutation>) {
        match record {}
    }

    fn start(&mut self, _now: Now, effect: Effect) {
        let link = self.shared.seams.link.as_ref();
        match effect {
            Effect::Send { connection, class, message } => send(link, connection, class, &message),
            Effect::Close { connection, code } => link.close(connection, code),
            Effect::Register { connection, request } => self.register(connection, request),
        }
    }
}
