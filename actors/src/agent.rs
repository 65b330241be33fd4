//! One device, as it knows itself: its documents, its way to a server, and what its workloads are told.
//!
//! The agent holds the device's key and documents. It enrols with its token, keeps a session with one server while it
//! can, tells each workload what the documents say, and writes into its own lane what workloads report. None of this
//! is needed to keep a workload alive: with no server, no token and no link, what ran goes on.

mod linked;
pub mod record;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Op};
use fleetd_sync_core::id::{BootId, ConnectionId, LocalId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::lane::State;
use fleetd_sync_core::machine::{Machine, Turn};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::replica::{LaneRecord, Replica};
use fleetd_sync_core::resolve::{self, Resolved};
use fleetd_sync_core::session::dial::Dialler;
use fleetd_sync_core::session::message::Facts;
use fleetd_sync_core::session::{Class, CloseCode, Grade, LogPosition, LogStream, Message, VerifyServer};
use fleetd_sync_core::time::{ClockFloor, ClockQuality, Monotonic, Now};
use fleetd_sync_core::trust::{RootChain, RootRecord, Roster};

use crate::report::{self, WorkloadReport};
use crate::workload::{AssignedTerms, Assignment, RunWish, Target};
use linked::Linked;
use record::{AgentRecord, TrustFloor};
use status::Shown;
pub use status::{AgentStatus, LinkEnd, LinkFailure};

/// Time after which the date is noted again: seldom, since each note is a write to flash, and a clock that went back by
/// less hardly misleads anybody.
const CLOCK_NOTE_PERIOD: Duration = Duration::from_hours(1);
/// How long what passes by is kept from the server: an install goes through six phases, each of which would be signed
/// here, stored and answered there, and most are over before anybody could read of them.
const PASSING_REPORT_PAUSE: Duration = Duration::from_secs(1);

/// What a device brings to its agent at each start.
#[derive(Debug)]
pub struct Identity {
    /// Its key, made on it.
    pub key: SecretKey,
    /// A certificate signing request for the key, in DER.
    pub csr: Vec<u8>,
    /// The public half of its X25519 key, for what only it may read.
    pub sealing_key: [u8; 32],
    /// This start of its operating system.
    pub boot: BootId,
    /// Judges a server's certificate.
    pub verify: VerifyServer,
}

/// One device, as it knows itself.
#[derive(Debug)]
pub struct Agent {
    identity: Identity,
    local: LocalId,
    record: AgentRecord,
    token: Option<EnrolmentToken>,
    chain: Option<RootChain>,
    /// The trust version below which nobody is believed.
    floor: Option<TrustFloor>,
    /// The date that is known to have passed, as it was noted last.
    clock_floor: ClockFloor,
    /// When the date is next looked at.
    clock_due: Monotonic,
    roster: Option<Arc<Roster>>,
    replica: Option<Replica>,
    dialler: Dialler,
    linked: Option<Linked>,
    shown: Shown,
    entropy: Entropy,
    facts: Facts,
    log_positions: BTreeMap<LogStream, u64>,
    /// What workloads went through since they were last written of, and when it is written if nothing else comes.
    passing: BTreeMap<WorkloadName, WorkloadReport>,
    passing_due: Option<Monotonic>,
    /// What each workload was told last.
    assigned: BTreeMap<WorkloadName, Assignment>,
    /// Workloads that are on the device, whether documents name them or not.
    present: BTreeSet<WorkloadName>,
    owes: bool,
}

/// What can happen to an agent.
#[derive(Clone, Debug)]
pub enum Input {
    /// Its configuration was read: a token, and addresses that replace the token's.
    Configured {
        /// The enrolment token.
        token: Option<Box<EnrolmentToken>>,
        /// Addresses of servers (`host:port`).
        addresses: Vec<String>,
    },
    /// What the device is was read.
    Facts(Facts),
    /// A connection stands.
    Up {
        /// Which.
        connection: ConnectionId,
        /// The certificate whose key the server holds, in DER.
        server_leaf: Vec<u8>,
    },
    /// The server said something.
    Message {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        message: Message,
    },
    /// A connection is gone.
    Down {
        /// Which.
        connection: ConnectionId,
        /// Why.
        end: LinkEnd,
    },
    /// A workload says how it is.
    Report {
        /// Which workload.
        workload: WorkloadName,
        /// What it says.
        report: Box<WorkloadReport>,
    },
    /// A log stream of this device has come this far.
    Logged(LogPosition),
    /// Something says that a server may be reached now.
    Wake,
    /// The agent is about to end: its connection is closed in order.
    Stop,
}

/// What must be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The agent's own record.
    Agent(Box<AgentRecord>),
    /// A root record.
    Root(Box<RootRecord>),
    /// The trust version that the device has reached.
    Floor(TrustFloor),
    /// A change of the device's lanes.
    Lane(LaneRecord),
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Dial a server.
    Dial {
        /// As this connection.
        connection: ConnectionId,
        /// Which address.
        address: String,
        /// With these certificates; none before enrolment.
        certificates: Vec<Vec<u8>>,
    },
    /// Send the server a message.
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
    /// The server may be asked for artifacts and given logs (`Full`), or given logs only; `None`: no longer.
    Linked(Option<(ConnectionId, Grade)>),
    /// How far the server's store has come in each log stream.
    LogPositions(Vec<LogPosition>),
    /// Hand on a message that is not the agent's own business: artifacts, acks of logs.
    Deliver(Message),
    /// Tell a workload what the documents say of it.
    Assign {
        /// Which workload.
        workload: WorkloadName,
        /// What.
        assignment: Assignment,
    },
    /// Tell every workload whose word counts.
    Trust(Arc<Roster>),
    /// Trust no clock that shows an earlier date, and keep that if there is room: it is no record, since nothing must
    /// fail with it.
    NoteDate(ClockFloor),
    /// Show this to whoever asks at the device.
    Show(AgentStatus),
    /// Something went wrong that people should know.
    Warn(String),
}

type AgentTurn = Turn<Record, Effect>;

impl Agent {
    /// Takes an agent up from what is stored. Envelopes that cannot be taken are left out: the server has them, and
    /// sends what is missing.
    #[must_use]
    pub fn load(
        identity: Identity,
        record: AgentRecord,
        chain: Option<RootChain>,
        (floor, clock_floor): (Option<TrustFloor>, ClockFloor),
        stored: impl IntoIterator<Item = Vec<u8>>,
        present: BTreeSet<WorkloadName>,
        mut entropy: Entropy,
    ) -> Self {
        let local = LocalId::from(identity.key.id());
        let dialler = Dialler::new(entropy.stream("dial"), record.dial_failures, record.address.clone());
        let mut replica = record.fleet().map(|fleet| {
            let mut replica = Replica::new(fleet, Some(identity.key.clone()), &mut entropy);
            for document in [DocumentId::Trust, DocumentId::Desired(local), DocumentId::Actual(local)] {
                replica.hold(document);
            }
            replica
        });
        if let Some(replica) = &mut replica {
            for bytes in stored {
                let _ = replica.load(&bytes);
            }
        }
        Self {
            identity,
            local,
            record,
            token: None,
            chain,
            floor,
            clock_floor,
            clock_due: Monotonic::default(),
            roster: None,
            replica,
            dialler,
            linked: None,
            shown: Shown::default(),
            entropy,
            facts: Facts::new(),
            log_positions: BTreeMap::new(),
            passing: BTreeMap::new(),
            passing_due: None,
            assigned: BTreeMap::new(),
            present,
            owes: true,
        }
    }

    /// What is kept.
    #[must_use]
    pub const fn record(&self) -> &AgentRecord {
        &self.record
    }

    /// The device's documents, once it knows its fleet.
    #[must_use]
    pub const fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// The hash of the device's key.
    #[must_use]
    pub const fn local(&self) -> LocalId {
        self.local
    }
}

impl Machine for Agent {
    type Input = Input;
    type Record = Record;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input, turn: &mut AgentTurn) {
        let now = self.note_date(now, turn);
        self.pay_debts(turn);
        match input {
            Input::Configured { token, addresses } => self.on_configured(now, token, addresses),
            Input::Facts(facts) => self.on_facts(now, facts, turn),
            Input::Up { connection, server_leaf } => self.on_up(now, connection, server_leaf, turn),
            Input::Message { connection, message } => self.on_message(now, connection, message, turn),
            Input::Down { connection, end } => self.on_down(now, connection, &end, turn),
            Input::Report { workload, report } => self.on_report(now, workload, *report, turn),
            Input::Logged(position) => self.on_logged(position),
            Input::Wake => self.dialler.on_wake(now.monotonic),
            Input::Stop => {
                self.write_passing(now, turn);
                self.on_stop(now, turn);
            }
        }
        self.show(now, turn);
    }

    fn handle_timeout(&mut self, now: Now, turn: &mut AgentTurn) {
        let now = self.note_date(now, turn);
        self.pay_debts(turn);
        if self.passing_due.is_some_and(|due| due <= now.monotonic) {
            self.write_passing(now, turn);
        }
        self.on_link_timeout(now, turn);
        self.show(now, turn);
    }

    fn poll_timeout(&self) -> Option<Monotonic> {
        let session = self.linked.as_ref().and_then(Linked::poll_timeout);
        self.dialler.poll_timeout().into_iter().chain(session).chain(self.passing_due).chain([self.clock_due]).min()
    }

    fn phase(&self) -> &'static str {
        self.dialler.phase().name()
    }
}

impl Agent {
    fn on_configured(&mut self, now: Now, token: Option<Box<EnrolmentToken>>, addresses: Vec<String>) {
        self.token = token.map(|token| *token);
        let mut known = addresses;
        if known.is_empty() {
            known = self.token.iter().flat_map(|token| token.addresses()).map(ToString::to_string).collect();
        }
        if known.is_empty() {
            known.extend(self.record.address.clone());
        }
        let may_dial = self.record.membership.is_enrolled() || self.token.is_some();
        self.dialler.on_addresses(now.monotonic, if may_dial { &known } else { &[] });
    }

    fn on_facts(&mut self, now: Now, facts: Facts, turn: &mut AgentTurn) {
        self.facts = facts;
        self.write_facts(now, turn);
    }

    /// Writes at once of a new try, which acknowledges it before anything is risked, of a fault, and of an end. Steps on
    /// the way are written of together.
    fn on_report(&mut self, now: Now, workload: WorkloadName, report: WorkloadReport, turn: &mut AgentTurn) {
        self.present.insert(workload.clone());
        let known = self.own_state().map(report::read_workloads).unwrap_or_default();
        if known.get(&workload).is_some_and(|before| report.is_passing_after(before)) {
            self.passing.insert(workload, report);
            self.passing_due.get_or_insert(now.monotonic + PASSING_REPORT_PAUSE);
            return;
        }
        self.passing.remove(&workload);
        let ops = report::workload_ops(&workload, known.get(&workload), Some(&report));
        self.write(now, ops, turn);
    }

    fn write_passing(&mut self, now: Now, turn: &mut AgentTurn) {
        self.passing_due = None;
        let known = self.own_state().map(report::read_workloads).unwrap_or_default();
        for (workload, report) in std::mem::take(&mut self.passing) {
            let ops = report::workload_ops(&workload, known.get(&workload), Some(&report));
            self.write(now, ops, turn);
        }
    }

    fn on_logged(&mut self, position: LogPosition) {
        self.log_positions.insert(position.stream, position.sequence);
    }

    /// Lets the floor judge the date, and notes it now and then, so that a clock which goes back is noticed also after
    /// a restart. A date that is not trusted is no floor: it may be 1970.
    fn note_date(&mut self, now: Now, turn: &mut AgentTurn) -> Now {
        let now = self.clock_floor.judge(now);
        if self.clock_due <= now.monotonic {
            self.clock_due = now.monotonic + CLOCK_NOTE_PERIOD;
        }
        if now.quality != ClockQuality::None && now.wall - self.clock_floor.0 >= CLOCK_NOTE_PERIOD {
            self.clock_floor = ClockFloor(now.wall);
            turn.effect(Effect::NoteDate(self.clock_floor));
        }
        now
    }

    /// After a load: tells workloads what the documents say, also when that is nothing.
    fn pay_debts(&mut self, turn: &mut AgentTurn) {
        if !self.owes {
            return;
        }
        self.owes = false;
        self.settle_trust(turn);
        self.assign(true, turn);
    }

    /// Lets chain and trust document decide whose word counts.
    fn settle_trust(&mut self, turn: &mut AgentTurn) {
        let version_min = self.trust_version_min();
        let (Some(chain), Some(replica)) = (&self.chain, &mut self.replica) else { return };
        let (fleet, version) = (chain.fleet(), chain.version());
        if version < version_min {
            // An older copy of the chain: whom a newer record took off it, it still trusts. The server has the newer.
            return;
        }
        if version > version_min {
            self.floor = Some(TrustFloor { fleet, version });
            turn.persist(Record::Floor(TrustFloor { fleet, version }));
        }
        let roster = Roster::of(chain, replica);
        let settled = replica.set_writers(roster.writers(BTreeMap::new(), BTreeMap::new()));
        settled.records.into_iter().for_each(|record| turn.persist(Record::Lane(record)));
        let roster = Arc::new(roster);
        if self.roster.as_ref() != Some(&roster) {
            self.roster = Some(Arc::clone(&roster));
            turn.effect(Effect::Trust(roster));
        }
    }

    /// The trust version that the device has reached in its fleet; 0 before it has.
    fn trust_version_min(&self) -> u64 {
        let fleet = self.fleet();
        self.floor.filter(|floor| Some(floor.fleet) == fleet).map_or(0, |floor| floor.version)
    }

    /// Tells each workload what the documents now say of it, if that has changed or `all` asks for it.
    fn assign(&mut self, all: bool, turn: &mut AgentTurn) {
        let resolved = self.replica.as_ref().map(|replica| replica.resolve(self.local)).unwrap_or_default();
        let names: BTreeSet<_> = self.present.iter().chain(resolved.workloads.keys()).cloned().collect();
        for workload in names {
            let assignment = assignment_of(&workload, &resolved);
            let before = self.assigned.get(&workload);
            let is_same = before.is_some_and(|before| says_the_same(before, &assignment));
            if all || !is_same {
                self.assigned.insert(workload.clone(), assignment.clone());
                turn.effect(Effect::Assign { workload, assignment });
            }
        }
    }

    fn write_facts(&mut self, now: Now, turn: &mut AgentTurn) {
        let Some(state) = self.own_state() else { return };
        let ops = report::fact_ops(&report::read_facts(state), &self.facts);
        self.write(now, ops, turn);
    }

    /// Writes into the device's own lane, and tells the server at once if it is there.
    fn write(&mut self, now: Now, ops: Vec<Op>, turn: &mut AgentTurn) {
        let (document, Some(replica)) = (DocumentId::Actual(self.local), &mut self.replica) else { return };
        if ops.is_empty() {
            return;
        }
        match replica.write(now, document, ops) {
            Ok(written) => {
                written.records.into_iter().for_each(|record| turn.persist(Record::Lane(record)));
                self.push(document, &written.envelopes, turn);
            }
            Err(error) => turn.effect(Effect::Warn(format!("what happens here cannot be reported: {error}"))),
        }
    }

    fn own_state(&self) -> Option<&State> {
        static EMPTY: State = BTreeMap::new();
        let replica = self.replica.as_ref()?;
        let state = replica.lane_state(DocumentId::Actual(self.local), self.local.into());
        Some(state.unwrap_or(&EMPTY))
    }
}

/// What the documents say of one workload.
fn assignment_of(workload: &WorkloadName, resolved: &Resolved) -> Assignment {
    let held = resolved.holds(workload);
    let Some(desired) = resolved.workloads.get(workload) else { return Assignment { held, ..Assignment::default() } };
    let (target, terms, remove) = match &desired.assignment {
        Some(resolve::Assignment::Install { version, manifest, configuration, rollout, attempt, terms }) => {
            let target = Target {
                version: version.clone(),
                manifest: *manifest,
                configuration: configuration.clone(),
                rollout: *rollout,
                attempt: u32::try_from(*attempt).unwrap_or(u32::MAX),
            };
            (Some(target), terms.as_deref().map(AssignedTerms::of), false)
        }
        Some(resolve::Assignment::Remove) => (None, None, true),
        None => (None, None, false),
    };
    Assignment {
        target,
        run: desired.run.map(|run| match run {
            resolve::Run::Running => RunWish::Running,
            resolve::Run::Stopped => RunWish::Stopped,
        }),
        restarts: desired.restarts,
        held: held || desired.held,
        conflict: desired.conflict,
        remove,
        terms,
        desired_head: desired.head.map(|head| head.hash),
    }
}

/// Says whether two assignments differ in nothing but the head that they were read from.
fn says_the_same(one: &Assignment, other: &Assignment) -> bool {
    Assignment { desired_head: None, ..one.clone() } == Assignment { desired_head: None, ..other.clone() }
}
