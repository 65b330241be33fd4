//! The device's connection: one session at a time, and what it leads to.

use std::sync::Arc;

use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::{ConnectionId, KeyId, OperationId};
use fleetd_sync_core::planted::{Bug, is_planted};
use fleetd_sync_core::session::{Class, CloseCode, Grade, Message, Opening, Output, ServerSide, Session, Side};
use fleetd_sync_core::time::{Monotonic, Now};

use super::record::Membership;
use super::renewal::Renewal;
use super::{Connected, Device, DeviceTurn, Effect, RolloutNews};

/// The device's connection, and its session on it.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) connection: ConnectionId,
    session: Session,
    renewal: Renewal,
}

impl Serving {
    pub(super) fn poll_timeout(&self) -> Option<Monotonic> {
        let renewal = self.is_met().then(|| self.renewal.poll_timeout());
        self.session.poll_timeout().into_iter().chain(renewal).min()
    }

    /// Whether both ends have what the other had, and the device gets all that there is for it.
    fn is_met(&self) -> bool {
        self.session.is_live() && self.session.grade() == Some(Grade::Full)
    }
}

impl Device {
    pub(super) fn on_connected(&mut self, now: Now, connected: Connected, turn: &mut DeviceTurn) {
        let connection = connected.connection;
        self.take_trust(connected.trust, turn);
        self.orders = connected.orders;
        if is_planted(Bug::DeniedOffered) {
            Arc::make_mut(&mut self.orders).denials.clear();
        }
        if is_planted(Bug::StopForgotten) {
            Arc::make_mut(&mut self.orders).stops.clear();
        }
        if let Some(code) = self.refusal() {
            turn.effect(Effect::Close { connection, code });
            return;
        }
        if self.record.is_none() {
            return self.begin_returning(now, connection, connected.key, turn);
        }
        if let Some(former) = self.serving.take() {
            turn.effect(Effect::Close { connection: former.connection, code: CloseCode::Replaced });
        }
        let side = Side::Server(ServerSide { chain: Arc::clone(&self.trust.chain), grade: connected.grade });
        let opening = Opening { boot: connected.boot, log_positions: connected.log_positions, side };
        let mut out = Vec::new();
        let session = Session::open(now.monotonic, opening, &self.replica, &mut out);
        let renewal = Renewal::new(now, self.local, connected.certificate_not_after);
        self.serving = Some(Serving { connection, session, renewal });
        turn.effect(Effect::Serve { connection, grade: connected.grade });
        self.carry_out(now, out, turn);
    }

    pub(super) fn on_message(&mut self, now: Now, connection: ConnectionId, message: Message, turn: &mut DeviceTurn) {
        // Only a push can bring envelopes of this server's own lane.
        let before = matches!(message, Message::Push(_)).then(|| self.own_words());
        let Some(serving) = self.serving.as_mut().filter(|serving| serving.connection == connection) else { return };
        let mut out = Vec::new();
        serving.session.on_message(now, message, &mut self.replica, &mut out);
        if let Some(before) = before {
            self.adopt(now, &before, turn);
        }
        self.carry_out(now, out, turn);
    }

    pub(super) fn on_disconnected(&mut self, now: Now, connection: ConnectionId, turn: &mut DeviceTurn) {
        self.forget_returning(connection);
        if !self.serves(connection) {
            return;
        }
        self.serving = None;
        if let Some(record) = &mut self.record {
            record.last_heard_at = Some(now.wall);
            self.persist_record(turn);
        }
        self.tell_rollouts(&RolloutNews::Presence(Some(now.wall)), turn);
        self.answer_probes(false, turn);
    }

    pub(super) fn on_session_timeout(&mut self, now: Now, turn: &mut DeviceTurn) {
        let mut out = Vec::new();
        if let Some(serving) = &mut self.serving {
            serving.session.handle_timeout(now.monotonic, &mut out);
        }
        self.carry_out(now, out, turn);
    }

    /// Asks a device whose certificate has lasted half of its time to renew it.
    pub(super) fn ask_to_renew(&mut self, now: Now, turn: &mut DeviceTurn) {
        let Some(serving) = self.serving.as_mut().filter(|serving| serving.is_met()) else { return };
        if serving.renewal.is_due(now) {
            let (connection, class) = (serving.connection, Class::Control);
            turn.effect(Effect::Send { connection, class, message: Message::RenewalDue });
        }
    }

    /// Asks the device whether it is there; false when it is not connected.
    pub(super) fn probe(&mut self, now: Now, operation: OperationId, turn: &mut DeviceTurn) -> bool {
        let Some(serving) = &mut self.serving else { return false };
        let mut out = Vec::new();
        serving.session.probe(now.monotonic, &mut out);
        self.probes.push(operation);
        self.carry_out(now, out, turn);
        true
    }

    /// Says whether this server may write the device's lane: what it has said has reached this server.
    pub(super) fn may_mint(&self) -> bool {
        self.serving.as_ref().is_some_and(Serving::is_met)
    }

    pub(super) fn serves(&self, connection: ConnectionId) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.connection == connection)
    }

    /// Sends envelopes that were written here.
    pub(super) fn push(&mut self, document: DocumentId, envelopes: &[Arc<[u8]>], turn: &mut DeviceTurn) {
        let Some(serving) = &mut self.serving else { return };
        let connection = serving.connection;
        let mut out = Vec::new();
        serving.session.on_local_change(document, envelopes, &mut out);
        for output in out {
            if let Output::Send(class, message) = output {
                turn.effect(Effect::Send { connection, class, message });
            }
        }
    }

    /// Tells the device what trust is now.
    pub(super) fn push_trust(&mut self, now: Now, turn: &mut DeviceTurn) {
        let Some(serving) = &mut self.serving else { return };
        let mut out = Vec::new();
        let chain = Arc::clone(&self.trust.chain);
        serving.session.on_chain_extended(&chain, &mut out);
        serving.session.on_local_change(DocumentId::Trust, &self.trust.envelopes, &mut out);
        self.carry_out(now, out, turn);
    }

    /// Ends what a revoked device has.
    pub(super) fn end_revoked(&mut self, now: Now, turn: &mut DeviceTurn) {
        if let Some(record) = &mut self.record
            && record.membership != Membership::Revoked
        {
            record.membership = Membership::Revoked;
            record.note(now.wall, "revoked", None, "its key was revoked".to_owned(), "");
            self.persist_record(turn);
        }
        self.tell_rollouts(&RolloutNews::Gone, turn);
        self.end_returning(CloseCode::Revoked, turn);
        if let Some(serving) = self.serving.take() {
            turn.effect(Effect::Close { connection: serving.connection, code: CloseCode::Revoked });
            self.answer_probes(false, turn);
        }
    }

    fn refusal(&self) -> Option<CloseCode> {
        let membership = self.record.as_ref().map(|record| record.membership);
        match membership {
            Some(Membership::Revoked) if is_planted(Bug::RevokedLetIn) => None,
            _ if self.trust.roster.is_device_revoked(self.local) => Some(CloseCode::Revoked),
            Some(Membership::Revoked) => Some(CloseCode::Revoked),
            Some(Membership::Enrolled | Membership::Recovered) | None => None,
            Some(Membership::Quarantined) => Some(CloseCode::Retired),
        }
    }

    fn carry_out(&mut self, now: Now, out: Vec<Output>, turn: &mut DeviceTurn) {
        let Some(connection) = self.serving.as_ref().map(|serving| serving.connection) else { return };
        let mut actual_changed = false;
        for output in out {
            match output {
                Output::Send(class, message) => turn.effect(Effect::Send { connection, class, message }),
                Output::Persist(record) => self.persist_lanes(vec![record], turn),
                Output::Applied { document: DocumentId::Trust, envelope, .. } => {
                    turn.effect(Effect::TrustReceived(vec![envelope]));
                }
                Output::Changed(DocumentId::Actual(_)) => actual_changed = true,
                Output::Fork { lane, .. } if lane == self.local.into() => self.on_fork(now, turn),
                Output::Fork { document, lane, .. } => self.on_fork_of_authority(now, document, lane, turn),
                Output::Deliver(Message::Renew(renew)) => turn.effect(Effect::Renew { connection, csr: renew.csr }),
                Output::Deliver(message) => turn.effect(Effect::Deliver { connection, message }),
                Output::Probed { answered } => self.answer_probes(answered, turn),
                Output::Close(code) => turn.effect(Effect::Close { connection, code }),
                Output::Live => self.on_live(now, turn),
                Output::NeedsAgent { document, .. } => {
                    if let Some(record) = &mut self.record {
                        let message = format!("{document} says what only a newer server understands");
                        record.note(now.wall, "needs_agent", None, message, "");
                    }
                    self.persist_record(turn);
                }
                // These are a device's business.
                Output::RootRecords(_)
                | Output::RootAlarm { .. }
                | Output::Welcomed(_)
                | Output::LogPositions(_)
                | Output::RetryAfter(_)
                | Output::Applied { .. }
                | Output::Changed(_) => {}
            }
        }
        if actual_changed {
            self.read_actual(now, turn);
        }
    }

    fn on_live(&mut self, now: Now, turn: &mut DeviceTurn) {
        if let Some(record) = &mut self.record {
            record.last_heard_at = Some(now.wall);
            self.persist_record(turn);
        }
        self.tell_rollouts(&RolloutNews::Presence(None), turn);
        self.tell_reports(turn);
        self.read_actual(now, turn);
        self.mint(now, turn);
        self.ask_to_renew(now, turn);
    }

    fn on_fork(&mut self, now: Now, turn: &mut DeviceTurn) {
        if let Some(record) = &mut self.record {
            record.membership = Membership::Quarantined;
            record.note(now.wall, "forked", None, "two hold its key: it is quarantined".to_owned(), "");
            self.persist_record(turn);
        }
        turn.effect(Effect::Forked);
    }

    /// The device shows that an authority's key is held twice: a server that went on beside the one restored from its backup,
    /// say. That is no fault of the device; sync goes on with what is held.
    fn on_fork_of_authority(&mut self, now: Now, document: DocumentId, lane: KeyId, turn: &mut DeviceTurn) {
        let message = format!("two write {document} with the authority's key {lane}");
        if self.record.as_mut().is_some_and(|record| record.note_once(now.wall, "authority_forked", None, message)) {
            self.persist_record(turn);
        }
        turn.effect(Effect::AuthorityForked { document, lane });
    }

    fn answer_probes(&mut self, answered: bool, turn: &mut DeviceTurn) {
        for operation in std::mem::take(&mut self.probes) {
            self.answer(operation, Ok(answered), turn);
        }
    }
}
