//! One device, as a server knows it: its documents, its session, and what operators and rollouts want of it.
//!
//! Wishes are rows of the record ([`wanted`]) and cost nothing while the device is away. Once its lanes have reached
//! this server in a session, the difference between the rows and this server's lane is signed and sent. What the
//! device then says of itself comes back in its own lane, and is told to the rollout that waits for it.
//!
//! A device that this server has no record of, and whose certificate is from the fleet's CA, was lost with a store: it
//! gets a record anew and brings back its lanes, this server's own among them ([`recovery`]). Nothing new is asked of it
//! until an operator has approved it.

pub mod command;
mod hold;
pub mod record;
mod recovery;
mod renewal;
pub mod room;
mod serving;
pub mod standing;
#[cfg(test)]
mod tests;
pub mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::id::{BootId, ConnectionId, HoldId, KeyId, LocalId, OperationId, RolloutId};
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::limit;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::replica::{LaneRecord, LoadError, Replica};
use fleetd_sync_core::session::{Class, CloseCode, Grade, LogPosition, Message};
use fleetd_sync_core::time::{Monotonic, Now, Wall};

use crate::authority::Trust;
use crate::orders::Orders;
use crate::report::{self, Phase, WorkloadReport};
use command::{Answer, Command, CommandError};
use record::{DeviceRecord, Membership};
use recovery::Returning;
use serving::Serving;
use wanted::RolloutAssignment;

/// One device, as a server knows it.
#[derive(Debug)]
pub struct Device {
    local: LocalId,
    record: Option<DeviceRecord>,
    replica: Replica,
    trust: Arc<Trust>,
    /// What stands over the whole fleet, as of the last connection.
    orders: Arc<Orders>,
    serving: Option<Serving>,
    /// The connection that waits for the record that this server had lost.
    returning: Option<Returning>,
    /// What this server's lane said before this actor first wrote it; `None` while it has not.
    unwritten: Option<wanted::Wanted>,
    /// Probes that wait for the device's answer.
    probes: Vec<OperationId>,
    owes: bool,
}

/// What can happen to a device.
#[derive(Clone, Debug)]
pub enum Input {
    /// It joined, or joined again: the registration has taken its token.
    Enrol {
        /// Answered by [`Effect::Enrolled`].
        operation: OperationId,
        /// What is known of it then.
        record: Box<DeviceRecord>,
    },
    /// A connection proved to be this device's.
    Connected(Box<Connected>),
    /// Answers [`Effect::Recover`], when the device gets no record now.
    NotRecovered(CloseCode),
    /// It said something.
    Message {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// A connection is gone.
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
    /// Trust has changed.
    Trust(Arc<Trust>),
    /// What stands over the whole fleet has changed.
    Orders(Arc<Orders>),
    /// A rollout wants a release on it.
    Assign(RolloutAssignment),
    /// A rollout takes its assignment back, and its holds with it.
    Withdraw {
        /// The rollout.
        rollout: RolloutId,
        /// The workload.
        workload: WorkloadName,
    },
    /// A rollout is stopped: the device must not act on its assignment.
    Hold {
        /// The rollout.
        rollout: RolloutId,
        /// The stop's hold.
        hold: HoldId,
        /// The workload.
        workload: WorkloadName,
        /// Why, for people.
        reason: String,
    },
    /// A rollout goes on, or is over: its holds end.
    Lift {
        /// The rollout.
        rollout: RolloutId,
        /// The workload.
        workload: WorkloadName,
    },
    /// A rollout wants to know how the device stands.
    Ask {
        /// The rollout.
        rollout: RolloutId,
        /// The workload.
        workload: WorkloadName,
    },
    /// An operator wants something.
    Command {
        /// Answered by [`Effect::Answer`].
        operation: OperationId,
        /// Who.
        caller: String,
        /// What.
        command: Command,
    },
    /// A new certificate was issued for it.
    Renewed {
        /// Answers [`Effect::Renew`].
        connection: ConnectionId,
        /// What to send.
        message: Message,
    },
}

/// A connection that proved to be a device's.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The connection.
    pub connection: ConnectionId,
    /// The key of its certificate.
    pub key: PublicKey,
    /// What its certificate is good for.
    pub grade: Grade,
    /// The certificate's last date.
    pub certificate_not_after: Wall,
    /// This run of the server, for its Hello.
    pub boot: BootId,
    /// How far this server's store of the device's logs has come.
    pub log_positions: Vec<LogPosition>,
    /// What trust is now. Who is not connected is told of no change, and this actor may have been loaded before it.
    pub trust: Arc<Trust>,
    /// What stands over the whole fleet now, for the same reason.
    pub orders: Arc<Orders>,
}

/// What must be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The device's record.
    Device(Box<DeviceRecord>),
    /// A change of its lanes.
    Lane(LaneRecord),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send it a message.
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
    /// The device is served on this connection, up to this grade: its artifacts and logs may pass.
    Serve {
        /// The connection.
        connection: ConnectionId,
        /// The grade.
        grade: Grade,
    },
    /// Hand on a message that is not the device's own business: artifacts, logs.
    Deliver {
        /// From which connection.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// Issue a new certificate for its key.
    Renew {
        /// Answered by [`Input::Renewed`].
        connection: ConnectionId,
        /// The signing request.
        csr: Vec<u8>,
    },
    /// Have a record made for it, with a name of its own: its certificate is from the fleet's CA, and its record is
    /// lost. Answered by [`Input::Enrol`] or [`Input::NotRecovered`].
    Recover {
        /// The key of its certificate.
        key: PublicKey,
    },
    /// Envelopes of the trust document that this server lacked.
    TrustReceived(Vec<Arc<[u8]>>),
    /// The record of a device that joined is durable.
    Enrolled {
        /// The operation.
        operation: OperationId,
    },
    /// Tell a rollout about this device.
    TellRollout {
        /// The rollout.
        rollout: RolloutId,
        /// What.
        news: RolloutNews,
    },
    /// An operator's wish is durable, or refused.
    Answer {
        /// The operation.
        operation: OperationId,
        /// What came of it.
        result: Result<Answer, CommandError>,
    },
    /// Revoke the device's key: an operator asked for it.
    RevokeKey {
        /// The device.
        device: LocalId,
    },
    /// Two hold the device's key: people must be told.
    Forked,
    /// Two write with the key of an authority, as the device shows: an alarm for operators.
    AuthorityForked {
        /// What they write.
        document: DocumentId,
        /// The key.
        lane: KeyId,
    },
}

/// What a rollout is told about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolloutNews {
    /// Its assignment stands among the device's wishes, durably.
    Assigned,
    /// Its assignment does not stand there any more.
    Withdrawn,
    /// This hold of it stands there, durably.
    Held(HoldId),
    /// No hold of it stands there any more.
    Lifted {
        /// Whether another hold keeps the workload as it is.
        is_held: bool,
    },
    /// The device says this of the workload.
    Reported(Box<WorkloadReport>),
    /// Since when the device cannot be reached; `None`: it is there.
    Presence(Option<Wall>),
    /// Another rollout has taken its place.
    Superseded(RolloutId),
    /// The device has left the fleet.
    Gone,
}

type DeviceTurn = Turn<Record, Effect>;

impl Device {
    /// Takes a device up from its record and its stored lanes; without a record it is not of the fleet (yet).
    ///
    /// # Errors
    /// [`LoadError`] when a stored envelope cannot be taken.
    pub fn load(
        local: LocalId,
        record: Option<DeviceRecord>,
        stored: impl IntoIterator<Item = Vec<u8>>,
        authority: SecretKey,
        trust: Arc<Trust>,
        entropy: &mut Entropy,
    ) -> Result<Self, LoadError> {
        let mut replica = Replica::new(trust.chain.fleet(), Some(authority), entropy);
        for document in [DocumentId::Trust, DocumentId::Desired(local), DocumentId::Actual(local)] {
            replica.hold(document);
        }
        for bytes in stored {
            replica.load(&bytes)?;
        }
        Ok(Self {
            local,
            record,
            replica,
            trust,
            orders: Arc::default(),
            serving: None,
            returning: None,
            unwritten: None,
            probes: Vec::new(),
            owes: true,
        })
    }

    /// What is kept of it.
    #[must_use]
    pub const fn record(&self) -> Option<&DeviceRecord> {
        self.record.as_ref()
    }

    /// Its documents.
    #[must_use]
    pub const fn replica(&self) -> &Replica {
        &self.replica
    }
}

impl Machine for Device {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut DeviceTurn) {
        self.pay_debts(now, turn);
        match input {
            Input::Enrol { operation, record } => self.on_enrol(now, operation, *record, turn),
            Input::Connected(connected) => self.on_connected(now, *connected, turn),
            Input::NotRecovered(code) => self.on_not_recovered(code, turn),
            Input::Message { connection, message } => self.on_message(now, connection, message, turn),
            Input::Disconnected { connection } => self.on_disconnected(now, connection, turn),
            Input::Trust(trust) => self.on_trust(now, trust, turn),
            Input::Orders(orders) => self.on_orders(now, orders, turn),
            Input::Assign(assignment) => self.on_assign(now, &assignment, turn),
            Input::Withdraw { rollout, workload } => self.on_withdraw(now, rollout, &workload, turn),
            Input::Hold { rollout, hold, workload, reason } => {
                self.on_hold(now, (rollout, hold), workload, reason, turn);
            }
            Input::Lift { rollout, workload } => self.on_lift(now, rollout, &workload, turn),
            Input::Ask { rollout, workload } => self.on_ask(now, rollout, &workload, turn),
            Input::Command { operation, caller, command } => self.on_command(now, operation, &caller, command, turn),
            Input::Renewed { connection, message } => self.on_renewed(connection, message, turn),
        }
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut DeviceTurn) {
        self.pay_debts(now, turn);
        self.on_session_timeout(now, turn);
        self.ask_to_renew(now, turn);
        self.on_returning_timeout(now, turn);
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        let session = self.serving.as_ref().and_then(Serving::poll_timeout);
        session.into_iter().chain(self.returning.as_ref().map(|returning| returning.until)).min()
    }

    fn phase(&self) -> &'static str {
        match (&self.record, &self.serving) {
            _ if self.returning.is_some() => "returning",
            (None, _) => "unknown",
            (Some(_), None) => "away",
            (Some(_), Some(_)) if self.may_mint() => "live",
            (Some(_), Some(_)) => "meeting",
        }
    }

    fn is_idle(&self) -> bool {
        self.serving.is_none() && self.returning.is_none() && self.probes.is_empty()
    }
}

impl Device {
    fn on_enrol(&mut self, now: Now, operation: OperationId, joining: DeviceRecord, turn: &mut DeviceTurn) {
        match &mut self.record {
            // It joined or came back while this was under way.
            Some(_) if joining.membership == Membership::Recovered => {}
            // The same key is the same device: its labels, its wishes and its history are its own. Whoever made its
            // token has given the word that a recovered one waits for.
            Some(record) => {
                record.facts = joining.facts;
                record.sealing_key = joining.sealing_key;
                if record.membership == Membership::Recovered {
                    record.membership = Membership::Enrolled;
                }
                record.note(now.wall, "enrolled", None, "registered again with the same key".to_owned(), "");
            }
            None => {
                let mut record = joining;
                let (kind, message) = match record.membership {
                    Membership::Recovered => {
                        ("recovered", format!("came back, its record was lost; it is {} now", record.name))
                    }
                    _ => ("enrolled", format!("joined as {}", record.name)),
                };
                record.note(now.wall, kind, None, message, "");
                self.record = Some(record);
            }
        }
        self.persist_record(turn);
        self.settle_writers(turn);
        turn.effect(Effect::Enrolled { operation });
        self.end_returning(CloseCode::Redial, turn);
    }

    fn on_trust(&mut self, now: Now, trust: Arc<Trust>, turn: &mut DeviceTurn) {
        self.take_trust(trust, turn);
        if self.trust.roster.is_device_revoked(self.local) {
            self.end_revoked(now, turn);
            return;
        }
        self.push_trust(now, turn);
    }

    fn on_assign(&mut self, now: Now, assignment: &RolloutAssignment, turn: &mut DeviceTurn) {
        let (rollout, workload) = (assignment.rollout, assignment.workload.clone());
        let tell = |rollout, news| Effect::TellRollout { rollout, news };
        // No plan names one that is recovered: this is of a rollout that the store lost, or a mistake.
        let is_open =
            |record: &&mut DeviceRecord| !matches!(record.membership, Membership::Revoked | Membership::Recovered);
        let Some(record) = self.record.as_mut().filter(is_open) else {
            return turn.effect(tell(rollout, RolloutNews::Gone));
        };
        let before = record.wanted.clone();
        let former = wanted::assigned_rollout(&before, &workload).filter(|former| *former != rollout);
        // In one change: what stops the former rollout must not stop this one.
        if let Some(former) = former {
            hold::lift_all(record, former);
        }
        wanted::assign(&mut record.wanted, assignment);
        if record.wanted != before {
            let with = assignment.configuration.as_ref().map(|configuration| format!(" with {}", configuration.name()));
            let (version, with) = (&assignment.version, with.unwrap_or_default());
            let message = format!("should have {workload}@{version}{with} (attempt {})", assignment.attempt);
            record.note(now.wall, "assigned", Some(&workload), message, &rollout.to_string());
            self.persist_record(turn);
            self.mint(now, turn);
        }
        turn.effect(tell(rollout, RolloutNews::Assigned));
        if self.serving.is_none() {
            let heard_at = self.record.as_ref().and_then(|record| record.last_heard_at);
            turn.effect(tell(rollout, RolloutNews::Presence(Some(heard_at.unwrap_or(now.wall)))));
        }
        if let Some(former) = former {
            turn.effect(tell(former, RolloutNews::Superseded(rollout)));
        }
        // A rollout that asks again may have missed the answer.
        let report = self.record.as_ref().and_then(|record| record.reports.get(&workload));
        if let Some(report) = report.filter(|report| report.rollout == Some(rollout)) {
            turn.effect(tell(rollout, RolloutNews::Reported(Box::new(report.clone()))));
        }
    }

    fn on_withdraw(&mut self, now: Now, rollout: RolloutId, workload: &WorkloadName, turn: &mut DeviceTurn) {
        if let Some(record) = &mut self.record
            && (hold::lift_all(record, rollout) | wanted::withdraw(&mut record.wanted, rollout, workload))
        {
            let message = format!("the assignment of {workload} was taken back");
            record.note(now.wall, "withdrawn", Some(workload), message, &rollout.to_string());
            self.persist_record(turn);
            self.mint(now, turn);
        }
        turn.effect(Effect::TellRollout { rollout, news: RolloutNews::Withdrawn });
    }

    fn on_ask(&self, now: Now, rollout: RolloutId, workload: &WorkloadName, turn: &mut DeviceTurn) {
        let mut tell = |news| turn.effect(Effect::TellRollout { rollout, news });
        let Some(record) = self.record.as_ref().filter(|record| record.membership != Membership::Revoked) else {
            return tell(RolloutNews::Gone);
        };
        tell(match wanted::assigned_rollout(&record.wanted, workload) {
            Some(standing) if standing == rollout => RolloutNews::Assigned,
            Some(other) => RolloutNews::Superseded(other),
            None => RolloutNews::Withdrawn,
        });
        let offline_since = record.last_heard_at.unwrap_or(now.wall);
        tell(RolloutNews::Presence(self.serving.is_none().then_some(offline_since)));
        if let Some(report) = record.reports.get(workload) {
            tell(RolloutNews::Reported(Box::new(report.clone())));
        }
    }

    /// Tells the rollouts whose assignments stand among the wishes what the device says of them: a word of it may have
    /// been lost on its way to them.
    fn tell_reports(&self, turn: &mut DeviceTurn) {
        let Some(record) = &self.record else { return };
        for (workload, report) in &record.reports {
            if let Some(rollout) = report.rollout
                && wanted::assigned_rollout(&record.wanted, workload) == Some(rollout)
            {
                let news = RolloutNews::Reported(Box::new(report.clone()));
                turn.effect(Effect::TellRollout { rollout, news });
            }
        }
    }

    /// Tells every rollout whose assignment stands among the wishes.
    fn tell_rollouts(&self, news: &RolloutNews, turn: &mut DeviceTurn) {
        let Some(record) = &self.record else { return };
        for rollout in wanted::assigned_rollouts(&record.wanted) {
            turn.effect(Effect::TellRollout { rollout, news: news.clone() });
        }
    }

    fn on_renewed(&mut self, connection: ConnectionId, message: Message, turn: &mut DeviceTurn) {
        if self.serves(connection) {
            let class = message.class(Class::Control);
            turn.effect(Effect::Send { connection, class, message });
        }
    }

    /// After a load: lanes are judged by today's trust.
    fn pay_debts(&mut self, _now: Now, turn: &mut DeviceTurn) {
        if self.owes {
            self.owes = false;
            self.settle_writers(turn);
        }
    }

    pub(super) fn take_trust(&mut self, trust: Arc<Trust>, turn: &mut DeviceTurn) {
        if !Arc::ptr_eq(&self.trust, &trust) {
            self.trust = trust;
            self.settle_writers(turn);
        }
    }

    /// Lets today's trust decide which lanes count.
    fn settle_writers(&mut self, turn: &mut DeviceTurn) {
        let key = self.record.as_ref().and_then(|record| record.key.key().ok());
        let devices = key.into_iter().map(|key| (self.local, key)).collect();
        let site = |record: &DeviceRecord| Some((self.local, record.site.parse().ok()?));
        let writers = self.trust.roster.writers(devices, self.record.iter().filter_map(site).collect());
        // First who may write: after a load nobody is known yet, and every envelope would be refused.
        let settled = self.replica.set_writers(writers);
        for envelope in &self.trust.envelopes {
            let _ = self.replica.receive(envelope); // The authority's actor keeps them; this is a copy for the device.
        }
        self.persist_lanes(settled.records, turn);
    }

    /// Signs the difference between what is wanted and what this server's lane says, if the device is there and its
    /// lanes have reached this server.
    fn mint(&mut self, now: Now, turn: &mut DeviceTurn) {
        let (Some(record), true) = (&self.record, self.may_mint()) else { return };
        let is_recovered = record.membership == Membership::Recovered;
        let document = DocumentId::Desired(self.local);
        let Some(lane) = self.replica.own_lane() else { return };
        let empty = BTreeMap::new();
        let state = self.replica.lane_state(document, lane).unwrap_or(&empty);
        let asked = standing::asked(record, &self.orders);
        let mut writes = room::writes(&asked, state);
        if is_recovered {
            // What its lane says stays, until an operator has looked; what stops the whole fleet stops it, too.
            writes.steps.iter_mut().for_each(|ops| ops.retain(wanted::is_about_hold));
            writes.steps.retain(|ops| !ops.is_empty());
            writes.left_out.clear();
        }
        if !writes.steps.is_empty() && self.unwritten.is_none() {
            self.unwritten = Some(state.clone());
        }
        for ops in writes.steps {
            match self.replica.write(now, document, ops) {
                Ok(written) => {
                    self.persist_lanes(written.records, turn);
                    self.push(document, &written.envelopes, turn);
                }
                // What follows rests on it.
                Err(error) => return self.note_unwritable(now, None, &error.to_string(), turn),
            }
        }
        for workload in writes.left_out {
            let bytes_max = limit::ASSIGNED_BYTES_MAX;
            let cause = format!("what is asked of all workloads would take more than {bytes_max} bytes");
            self.note_unwritable(now, workload.parse().ok().as_ref(), &cause, turn);
        }
    }

    fn note_unwritable(&mut self, now: Now, workload: Option<&WorkloadName>, cause: &str, turn: &mut DeviceTurn) {
        let message = format!("the desired document does not take the change: {cause}");
        if self.record.as_mut().is_some_and(|record| record.note_once(now.wall, "unwritable", workload, message)) {
            self.persist_record(turn);
        }
    }

    /// Takes what the device says of itself into the record, and tells rollouts what they wait for.
    fn read_actual(&mut self, now: Now, turn: &mut DeviceTurn) {
        let Some(state) = self.replica.lane_state(DocumentId::Actual(self.local), self.local.into()) else { return };
        let (facts, reports) = (report::read_facts(state), report::read_workloads(state));
        let Some(record) = &mut self.record else { return };
        let changed: Vec<_> =
            reports.iter().filter(|(name, report)| record.reports.get(*name) != Some(*report)).collect();
        let mut told = Vec::new();
        for (name, report) in changed {
            let is_new = record.reports.get(name).is_none_or(|before| before.phase != report.phase);
            if is_new {
                let rollout = report.rollout.map(|rollout| rollout.to_string()).unwrap_or_default();
                let (kind, message) = describe(name, report);
                record.note(now.wall, kind, Some(name), message, &rollout);
            }
            let was_stopped = record.reports.get(name).is_some_and(|before| before.stopped_locally);
            if was_stopped != report.stopped_locally {
                let word = if report.stopped_locally { "stopped" } else { "started" };
                let (kind, message) = (format!("{word}_locally"), format!("somebody {word} {name} at the device"));
                record.note(now.wall, &kind, Some(name), message, "device");
            }
            // One that it spoke of before, and no more, learns that too.
            let former = record.reports.get(name).and_then(|before| before.rollout);
            for rollout in former.filter(|former| report.rollout != Some(*former)).into_iter().chain(report.rollout) {
                told.push(Effect::TellRollout { rollout, news: RolloutNews::Reported(Box::new(report.clone())) });
            }
        }
        if facts != record.facts || reports != record.reports {
            record.facts = facts;
            record.reports = reports;
            self.persist_record(turn);
        }
        told.into_iter().for_each(|effect| turn.effect(effect));
    }

    fn persist_record(&self, turn: &mut DeviceTurn) {
        if let Some(record) = &self.record {
            turn.persist(Record::Device(Box::new(record.clone())));
        }
    }

    /// Persists what belongs to the device; the trust document is the authority's to keep.
    fn persist_lanes(&self, records: Vec<LaneRecord>, turn: &mut DeviceTurn) {
        let own = records.into_iter().filter(|record| record.document() != DocumentId::Trust);
        own.for_each(|record| turn.persist(Record::Lane(record)));
    }
}

/// Says what a report means, in a word and in a sentence.
fn describe(workload: &WorkloadName, report: &WorkloadReport) -> (&'static str, String) {
    let release = report.installed();
    let cause = report.error.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    let Some(phase) = report.phase else { return ("unassigned", format!("{workload} has {release}")) };
    let sentence = match phase {
        Phase::Healthy => format!("{workload}@{release} is healthy"),
        Phase::Restored if report.error.as_ref().is_some_and(|fault| fault.kind.is_refusal()) => {
            format!("{workload} stays at {release}{cause}")
        }
        Phase::Restored => format!("{workload}@{release} was restored{cause}"),
        Phase::Failed => format!("{workload} failed{cause}"),
        Phase::Removed => format!("{workload} was removed"),
        Phase::Pending
        | Phase::Download
        | Phase::Verify
        | Phase::Stage
        | Phase::Wait
        | Phase::Switch
        | Phase::Watch => {
            format!("{workload} is in phase {phase}{cause}")
        }
    };
    (phase.as_str(), sentence)
}
