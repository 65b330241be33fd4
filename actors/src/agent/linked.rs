//! The agent's connection: enrolment, renewal and sync on one session at a time.

use std::sync::Arc;

use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::{ConnectionId, FleetId};
use fleetd_sync_core::limit;
use fleetd_sync_core::replica::Replica;
use fleetd_sync_core::session::dial::{DialOutput, Phase};
use fleetd_sync_core::session::message::{Register, Registered, Renew, Renewed};
use fleetd_sync_core::session::{
    Class, CloseCode, DeviceSide, Grade, LogPosition, Message, Opening, Output, Session, Side,
};
use fleetd_sync_core::time::{Monotonic, Now};
use fleetd_sync_core::trust::{RootChain, RootRecord};

use super::record::Membership;
use super::{Agent, AgentTurn, Effect, LinkEnd, Record};

/// The agent's connection, and its session on it.
#[derive(Debug)]
pub(super) struct Linked {
    connection: ConnectionId,
    session: Session,
    /// Stands in for the device's replica while it does not know its fleet.
    unenrolled: Option<Box<Replica>>,
    /// Until when the server may take to answer a request for a new certificate.
    renewal: Option<Monotonic>,
}

impl Linked {
    pub(super) fn poll_timeout(&self) -> Option<Monotonic> {
        self.session.poll_timeout().into_iter().chain(self.renewal).min()
    }
}

impl Agent {
    pub(super) fn on_up(&mut self, now: Now, connection: ConnectionId, server_leaf: Vec<u8>, turn: &mut AgentTurn) {
        let Some(fleet) = self.fleet().filter(|_| self.dialler.is_current(connection)) else {
            turn.effect(Effect::Close { connection, code: CloseCode::Done });
            return;
        };
        self.dialler.on_up(connection);
        let side = Side::Device(DeviceSide {
            fleet,
            chain: self.chain.clone(),
            trust_version_min: self.trust_version_min(),
            server_leaf,
            verify: self.identity.verify,
        });
        let positions = self.log_positions.iter();
        let log_positions =
            positions.map(|(stream, sequence)| LogPosition { stream: stream.clone(), sequence: *sequence });
        let opening = Opening { boot: self.identity.boot, log_positions: log_positions.collect(), side };
        let mut unenrolled = None;
        if self.replica.is_none() {
            unenrolled = Some(Box::new(Replica::new(fleet, None, &mut self.entropy)));
        }
        let mut out = Vec::new();
        let Some(replica) = self.replica.as_ref().or(unenrolled.as_deref()) else { return };
        let session = Session::open(now.monotonic, opening, replica, &mut out);
        self.linked = Some(Linked { connection, session, unenrolled, renewal: None });
        self.carry_out(now, out, turn);
    }

    pub(super) fn on_message(&mut self, now: Now, connection: ConnectionId, message: Message, turn: &mut AgentTurn) {
        let Some(linked) = self.linked.as_mut().filter(|linked| linked.connection == connection) else { return };
        let Some(replica) = self.replica.as_mut().or(linked.unenrolled.as_deref_mut()) else { return };
        let mut out = Vec::new();
        linked.session.on_message(now, message, replica, &mut out);
        self.carry_out(now, out, turn);
    }

    pub(super) fn on_down(&mut self, now: Now, connection: ConnectionId, end: &LinkEnd, turn: &mut AgentTurn) {
        if self.linked.as_ref().is_some_and(|linked| linked.connection == connection) {
            self.linked = None;
            turn.effect(Effect::Linked(None));
        }
        if self.dialler.is_current(connection) {
            self.note_end(now, end);
        }
        let mut out = Vec::new();
        self.dialler.on_down(now.monotonic, connection, end.code(), &mut out);
        self.dial(out, turn);
    }

    pub(super) fn on_link_timeout(&mut self, now: Now, turn: &mut AgentTurn) {
        if matches!(self.dialler.phase(), Phase::Dial { deadline, .. } if *deadline <= now.monotonic) {
            self.note_end(now, &LinkEnd::Closed(CloseCode::Timeout));
        }
        let mut dialled = Vec::new();
        self.dialler.handle_timeout(now.monotonic, &mut dialled);
        self.dial(dialled, turn);
        let mut out = Vec::new();
        if let Some(linked) = &mut self.linked {
            linked.session.handle_timeout(now.monotonic, &mut out);
        }
        self.carry_out(now, out, turn);
        self.on_renewal_timeout(now, turn);
    }

    pub(super) fn on_stop(&mut self, now: Now, turn: &mut AgentTurn) {
        let mut out = Vec::new();
        self.dialler.stop(now.monotonic, &mut out);
        self.dial(out, turn);
    }

    /// Sends envelopes that were written here.
    pub(super) fn push(&mut self, document: DocumentId, envelopes: &[Arc<[u8]>], turn: &mut AgentTurn) {
        let Some(linked) = &mut self.linked else { return };
        let connection = linked.connection;
        let mut out = Vec::new();
        linked.session.on_local_change(document, envelopes, &mut out);
        for output in out {
            if let Output::Send(class, message) = output {
                turn.effect(Effect::Send { connection, class, message });
            }
        }
    }

    /// The fleet that it belongs to, or whose token it has.
    pub(super) fn fleet(&self) -> Option<FleetId> {
        self.record.fleet().or(self.token.as_ref().map(|token| token.fleet()))
    }

    fn carry_out(&mut self, now: Now, out: Vec<Output>, turn: &mut AgentTurn) {
        let Some(connection) = self.linked.as_ref().map(|linked| linked.connection) else { return };
        let mut changed = false;
        for output in out {
            match output {
                Output::Send(class, message) => turn.effect(Effect::Send { connection, class, message }),
                Output::Persist(record) => turn.persist(Record::Lane(record)),
                Output::RootRecords(records) => self.on_root_records(records, turn),
                Output::RootAlarm { version } => {
                    turn.effect(Effect::Warn(format!("there are two root records of version {version}")));
                }
                Output::Welcomed(grade) => self.on_welcomed(now, connection, grade, turn),
                Output::Changed(DocumentId::Trust) => {
                    self.settle_trust(turn);
                    changed = true;
                }
                Output::Changed(DocumentId::Desired(_)) => changed = true,
                Output::Changed(DocumentId::Actual(_)) | Output::Applied { .. } | Output::Probed { .. } => {}
                Output::Fork { document, .. } => {
                    turn.effect(Effect::Warn(format!("a key that writes {document} is held twice")));
                }
                Output::NeedsAgent { document, .. } => {
                    turn.effect(Effect::Warn(format!("{document} says what only a newer agent understands")));
                }
                Output::LogPositions(positions) => turn.effect(Effect::LogPositions(positions)),
                Output::Deliver(message) => self.on_delivered(now, message, turn),
                Output::Live => self.on_live(now, connection, turn),
                Output::RetryAfter(pause) => self.dialler.on_retry_after(connection, pause),
                Output::Close(code) => self.close(now, code, turn),
            }
        }
        if changed {
            self.assign(false, turn);
        }
    }

    fn on_root_records(&mut self, records: Vec<RootRecord>, turn: &mut AgentTurn) {
        for record in records {
            // One that is enrolled knows its fleet without a token, and any server's chain proves itself by that.
            let fleet = self.fleet();
            let taken = match (&mut self.chain, fleet) {
                (Some(chain), _) => chain.extend(record.clone()).is_ok(),
                (None, Some(fleet)) => match RootChain::found(fleet, record.clone()) {
                    Ok(chain) => {
                        self.chain = Some(chain);
                        true
                    }
                    Err(_) => false,
                },
                (None, None) => false,
            };
            if taken {
                turn.persist(Record::Root(Box::new(record)));
            }
        }
        self.settle_trust(turn);
    }

    fn on_welcomed(&mut self, now: Now, connection: ConnectionId, grade: Grade, turn: &mut AgentTurn) {
        let mut out = Vec::new();
        self.dialler.on_welcomed(connection, grade, &mut out);
        self.dial(out, turn);
        match grade {
            Grade::Enroll => {
                if let Some(message) = self.registration(self.identity.csr.clone()) {
                    turn.effect(Effect::Send { connection, class: Class::Control, message });
                }
            }
            Grade::RenewOnly => self.ask_for_certificate(now, turn),
            Grade::Full => {}
        }
    }

    /// The request for an identity; without a token there is nothing to ask with.
    fn registration(&self, csr: Vec<u8>) -> Option<Message> {
        let token = self.token.as_ref()?;
        Some(Message::Register(Register {
            token: token.id(),
            secret: token.secret().as_bytes().to_vec(),
            csr,
            facts: self.facts.clone(),
            sealing_key: self.identity.sealing_key,
        }))
    }

    fn on_delivered(&mut self, now: Now, message: Message, turn: &mut AgentTurn) {
        match message {
            Message::Registered(registered) => self.on_registered(now, registered, turn),
            Message::Renewed(renewed) => self.on_renewed(now, renewed, turn),
            Message::RenewalDue => self.ask_for_certificate(now, turn),
            other => turn.effect(Effect::Deliver(other)),
        }
    }

    fn on_registered(&mut self, now: Now, registered: Registered, turn: &mut AgentTurn) {
        let Some(fleet) = self.fleet() else { return };
        match registered {
            Registered::Issued { device, name, certificates } => {
                self.record.membership = Membership::Enrolled { fleet, device, name, certificates };
                self.persist(turn);
                self.begin_documents(fleet, turn);
                self.write_facts(now, turn);
                self.close(now, CloseCode::Redial, turn);
            }
            Registered::Pending { retry_after } => {
                self.record.membership = Membership::Pending { fleet };
                self.persist(turn);
                if let Some(linked) = &self.linked {
                    self.dialler.on_retry_after(linked.connection, retry_after);
                }
                self.close(now, CloseCode::Done, turn);
            }
            Registered::Refused(refusal) => {
                turn.effect(Effect::Warn(format!("the server refuses this device: {}", refusal.message)));
                self.record.membership = Membership::Refused { code: refusal.code, message: refusal.message };
                self.persist(turn);
                // The answer to the same token will be the same: another token comes with a new configuration.
                if let Some(linked) = &self.linked {
                    self.dialler.on_retry_after(linked.connection, limit::DIAL_BACKOFF_REFUSED);
                }
                self.close(now, CloseCode::Done, turn);
            }
        }
    }

    /// Asks for a new certificate for the key that the device has, unless an answer is on its way.
    fn ask_for_certificate(&mut self, now: Now, turn: &mut AgentTurn) {
        let csr = self.identity.csr.clone();
        let Some(linked) = self.linked.as_mut().filter(|linked| linked.renewal.is_none()) else { return };
        linked.renewal = Some(now.monotonic + limit::RENEWAL_TIMEOUT);
        let (connection, message) = (linked.connection, Message::Renew(Renew { csr, facts: None }));
        turn.effect(Effect::Send { connection, class: Class::Control, message });
    }

    fn on_renewed(&mut self, now: Now, renewed: Renewed, turn: &mut AgentTurn) {
        if let Some(linked) = &mut self.linked {
            linked.renewal = None;
        }
        match (renewed, &mut self.record.membership) {
            (Renewed::Issued { certificates: new }, Membership::Enrolled { certificates, .. }) => {
                *certificates = new;
                self.persist(turn);
                // The new one is shown at once: if the server takes it amiss, the old one's time is not over yet.
                self.close(now, CloseCode::Redial, turn);
            }
            (Renewed::Refused(refusal), _) => {
                turn.effect(Effect::Warn(format!("no new certificate: {}", refusal.message)));
                self.give_up_renewal(now, CloseCode::Done, turn);
            }
            (Renewed::Issued { .. }, _) => {}
        }
    }

    fn on_renewal_timeout(&mut self, now: Now, turn: &mut AgentTurn) {
        let Some(linked) = &mut self.linked else { return };
        if linked.renewal.is_some_and(|until| until <= now.monotonic) {
            linked.renewal = None;
            turn.effect(Effect::Warn("no new certificate: the server did not answer".to_owned()));
            self.give_up_renewal(now, CloseCode::Timeout, turn);
        }
    }

    /// A session that is for nothing but a new certificate ends without one, and the device comes again. Any other goes
    /// on: the server asks again.
    fn give_up_renewal(&mut self, now: Now, code: CloseCode, turn: &mut AgentTurn) {
        let Some(linked) = self.linked.as_ref().filter(|linked| linked.session.grade() == Some(Grade::RenewOnly))
        else {
            return;
        };
        self.dialler.on_retry_after(linked.connection, limit::RENEWAL_TIMEOUT);
        self.close(now, code, turn);
    }

    /// Now that the fleet is known, the device has documents.
    fn begin_documents(&mut self, fleet: FleetId, turn: &mut AgentTurn) {
        if self.replica.is_some() {
            return;
        }
        let mut replica = Replica::new(fleet, Some(self.identity.key.clone()), &mut self.entropy);
        for document in [DocumentId::Trust, DocumentId::Desired(self.local), DocumentId::Actual(self.local)] {
            replica.hold(document);
        }
        self.replica = Some(replica);
        self.settle_trust(turn);
    }

    fn on_live(&mut self, now: Now, connection: ConnectionId, turn: &mut AgentTurn) {
        self.forget_failure();
        let mut out = Vec::new();
        self.dialler.on_live(connection, &mut out);
        self.dial(out, turn);
        self.write_facts(now, turn);
        let grade = self.linked.as_ref().and_then(|linked| linked.session.grade());
        turn.effect(Effect::Linked(grade.map(|grade| (connection, grade))));
    }

    fn close(&mut self, now: Now, code: CloseCode, turn: &mut AgentTurn) {
        // Noted here too: the connection may not be seen to end in time.
        self.note_end(now, &LinkEnd::Closed(code));
        let mut out = Vec::new();
        self.dialler.close(now.monotonic, code, &mut out);
        self.dial(out, turn);
    }

    fn dial(&mut self, out: Vec<DialOutput>, turn: &mut AgentTurn) {
        for output in out {
            match output {
                DialOutput::Dial { connection, address } => {
                    self.shown.address = Some(address.clone());
                    let certificates = match &self.record.membership {
                        Membership::Enrolled { certificates, .. } => certificates.clone(),
                        Membership::Unknown | Membership::Pending { .. } | Membership::Refused { .. } => Vec::new(),
                    };
                    turn.effect(Effect::Dial { connection, address, certificates });
                }
                DialOutput::Close { connection, code } => turn.effect(Effect::Close { connection, code }),
                DialOutput::Failures(failures) => {
                    self.record.dial_failures = failures;
                    self.persist(turn);
                }
                DialOutput::Reached(address) => {
                    self.record.address = Some(address);
                    self.persist(turn);
                }
            }
        }
    }

    fn persist(&self, turn: &mut AgentTurn) {
        turn.persist(Record::Agent(Box::new(self.record.clone())));
    }
}
