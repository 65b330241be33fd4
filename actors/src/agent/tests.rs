//! The agent stepped by hand, with a real session at the other end of its connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::codec;
use fleetd_sync_core::id::{ArtifactDigest, DeviceId, FleetId, RolloutId};
use fleetd_sync_core::limit;
use fleetd_sync_core::session::message::{Refusal, Renewed};
use fleetd_sync_core::session::{Opening, Output, ServerEvidence, ServerSide, Session, Side};
use fleetd_sync_core::time::{ClockQuality, Wall};
use fleetd_sync_core::trust::{Change, Rank, Role, Sites};

use super::record::Membership;
use super::*;
use crate::report::{Fault, FaultKind, Phase};

const SERVER: &str = "fleet.example.com:4433";

/// A fleet's keys and root records.
struct Fleet {
    root: SecretKey,
    ca: SecretKey,
    authority: SecretKey,
    chain: RootChain,
}

impl Fleet {
    fn new(seed: u8) -> Self {
        let mut entropy = Entropy::from_seed([seed; 32]);
        let [root, ca, authority] = [(); 3].map(|()| SecretKey::generate(&mut entropy));
        let central = Role::Authority { rank: Rank::CENTRAL, sites: Sites::All };
        let roles = [(ca.public(), Role::CertificateAuthority), (authority.public(), central)];
        let first = RootRecord::draft(BTreeSet::from([root.public()]), 1, roles).unwrap().sign(&root);
        let chain = RootChain::found(first.body().fleet, first).unwrap();
        Self { root, ca, authority, chain }
    }

    /// Takes the CA away and puts another in its place.
    fn replace_ca(&mut self) {
        let former = std::mem::replace(&mut self.ca, SecretKey::from_bytes([99; 32]));
        let delegate = Change::Delegate { key: self.ca.public(), role: Role::CertificateAuthority };
        let withdraw = Change::Withdraw { key: former.id() };
        let record = self.chain.draft_next([delegate, withdraw]).unwrap().sign(&self.root);
        self.chain.extend(record).unwrap();
    }
}

/// A leaf that stands in for X.509: who signed it, and for which fleet.
fn leaf(ca: &SecretKey, fleet: FleetId) -> Vec<u8> {
    [ca.public().as_bytes().as_slice(), fleet.as_bytes()].concat()
}

fn verify(evidence: &ServerEvidence<'_>) -> Result<(), String> {
    let mut known =
        evidence.authorities.iter().map(|key| [key.as_bytes().as_slice(), evidence.fleet.as_bytes()].concat());
    if known.any(|known| evidence.leaf == known) { Ok(()) } else { Err("no CA of the fleet issued this".to_owned()) }
}

/// A device that belongs to a fleet.
struct World {
    agent: Agent,
    now: Now,
    records: Vec<Record>,
    effects: Vec<Effect>,
}

impl World {
    fn enrolled(fleet: &Fleet, chain: Option<RootChain>, floor: Option<TrustFloor>) -> Self {
        Self::with_floors(fleet, chain, (floor, ClockFloor::default()))
    }

    fn with_floors(fleet: &Fleet, chain: Option<RootChain>, floors: (Option<TrustFloor>, ClockFloor)) -> Self {
        let key = SecretKey::from_bytes([7; 32]);
        let identity = Identity { key, csr: vec![1], sealing_key: [0; 32], boot: BootId::from_bytes([1; 16]), verify };
        let membership = Membership::Enrolled {
            fleet: fleet.chain.fleet(),
            device: DeviceId::from_bytes([2; 10]),
            name: "brisk-otter".parse().unwrap(),
            certificates: vec![vec![3]],
        };
        let record = AgentRecord { membership, ..AgentRecord::default() };
        let entropy = Entropy::from_seed([5; 32]);
        let agent = Agent::load(identity, record, chain, floors, [], BTreeSet::new(), entropy);
        let now = Now { monotonic: Monotonic(1), wall: Wall(1_800_000_000_000), quality: ClockQuality::Floor };
        let mut world = Self { agent, now, records: Vec::new(), effects: Vec::new() };
        world.input(Input::Configured { token: None, addresses: vec![SERVER.to_owned()] });
        world
    }

    fn turn(&mut self, step: impl FnOnce(&mut Agent, Now, &mut AgentTurn)) {
        let mut turn = Turn::new();
        step(&mut self.agent, self.now, &mut turn);
        let (records, effects) = turn.into_parts();
        self.records.extend(records);
        self.effects.extend(effects);
    }

    fn input(&mut self, input: Input) {
        self.turn(|agent, now, turn| agent.handle(now, input, turn));
    }

    /// Lets time pass until something is due, and does that.
    fn wait(&mut self) {
        let due = self.agent.poll_timeout().expect("it waits for something");
        let passed = due.since(self.now.monotonic);
        (self.now.monotonic, self.now.wall) = (due, self.now.wall + passed);
        self.turn(|agent, now, turn| agent.handle_timeout(now, turn));
    }

    /// Waits until it dials, and answers with the connection.
    fn dial(&mut self) -> ConnectionId {
        for _ in 0..3 {
            let dialled = std::mem::take(&mut self.effects).into_iter().rev().find_map(|effect| match effect {
                Effect::Dial { connection, .. } => Some(connection),
                _ => None,
            });
            match dialled {
                Some(connection) => return connection,
                None => self.wait(),
            }
        }
        panic!("it does not dial");
    }

    /// Joins it with a server, and lets the two talk. Answers with how the device ended it, if it did.
    fn meet(&mut self, server: &Fleet) -> Option<CloseCode> {
        self.meet_as(server, Grade::Full).1
    }

    /// The same, with a server that judges the certificate so.
    fn meet_as(&mut self, server: &Fleet, grade: Grade) -> (ConnectionId, Option<CloseCode>) {
        let connection = self.dial();
        let chain = Arc::new(server.chain.clone());
        let side = Side::Server(ServerSide { chain, grade });
        let opening = Opening { boot: BootId::from_bytes([9; 16]), log_positions: Vec::new(), side };
        let mut entropy = Entropy::from_seed([6; 32]);
        let mut replica = Replica::new(server.chain.fleet(), Some(server.authority.clone()), &mut entropy);
        for document in [DocumentId::Trust, DocumentId::Desired(self.agent.local), DocumentId::Actual(self.agent.local)]
        {
            replica.hold(document);
        }
        let devices = BTreeMap::from([(self.agent.local, self.agent.identity.key.public())]);
        let _ = replica.set_writers(Roster::new(&server.chain, []).writers(devices, BTreeMap::new()));
        let mut session = Session::open(self.now.monotonic, opening, &replica, &mut Vec::new());
        let server_leaf = leaf(&server.ca, server.chain.fleet());
        self.input(Input::Up { connection, server_leaf });
        for _ in 0..10 {
            let said: Vec<_> = std::mem::take(&mut self.effects);
            if let Some(code) = said.iter().find_map(|effect| match effect {
                Effect::Close { code, .. } => Some(*code),
                _ => None,
            }) {
                self.effects = said;
                self.input(Input::Down { connection, end: LinkEnd::Closed(code) });
                return (connection, Some(code));
            }
            let mut answers = Vec::new();
            for effect in said {
                if let Effect::Send { message, .. } = effect {
                    session.on_message(self.now, message, &mut replica, &mut answers);
                }
            }
            for answer in answers {
                if let Output::Send(_, message) = answer {
                    self.input(Input::Message { connection, message });
                }
            }
        }
        (connection, None)
    }

    /// The requests for a new certificate since it was asked last.
    fn asks(&mut self) -> usize {
        let said = std::mem::take(&mut self.effects);
        let renews = said.iter().filter(|effect| matches!(effect, Effect::Send { message: Message::Renew(_), .. }));
        renews.count()
    }

    fn closed(&mut self) -> Option<CloseCode> {
        std::mem::take(&mut self.effects).into_iter().find_map(|effect| match effect {
            Effect::Close { code, .. } => Some(code),
            _ => None,
        })
    }

    fn status(&mut self) -> AgentStatus {
        self.agent.shown.last.clone().expect("it shows itself from the first turn on")
    }

    fn failure(&mut self) -> LinkFailure {
        self.status().failure.expect("a failure is shown")
    }
}

#[test]
fn an_enrolled_device_that_lost_its_root_records_takes_them_from_its_server_without_a_token() {
    let fleet = Fleet::new(1);
    let mut world = World::enrolled(&fleet, None, None);
    assert_eq!(world.meet(&fleet), None);
    assert_eq!((world.status().link, world.status().trust_version), ("live", 1));
    let roots: Vec<_> = world.records.iter().filter(|record| matches!(record, Record::Root(_))).collect();
    assert_eq!(roots, [&Record::Root(Box::new(fleet.chain.newest().clone()))], "it keeps them");
    let reached = TrustFloor { fleet: fleet.chain.fleet(), version: 1 };
    assert!(world.records.contains(&Record::Floor(reached)));
    assert!(world.agent.roster.is_some(), "its word counts");
}

#[test]
fn a_device_that_lost_its_root_records_takes_none_of_another_fleet() {
    let (fleet, other) = (Fleet::new(1), Fleet::new(2));
    let mut world = World::enrolled(&fleet, None, None);
    assert_eq!(world.meet(&other), Some(CloseCode::WrongFleet));
    assert!(!world.records.iter().any(|record| matches!(record, Record::Root(_))));
    let failure = world.failure();
    assert_eq!((failure.code.as_str(), failure.address.as_deref()), ("wrong_fleet", Some(SERVER)));
}

#[test]
fn an_older_root_is_not_believed_again_when_the_newer_one_was_lost() {
    let mut fleet = Fleet::new(1);
    let old = Fleet { chain: fleet.chain.clone(), ..Fleet::new(1) };
    fleet.replace_ca();
    let floor = TrustFloor { fleet: fleet.chain.fleet(), version: 2 };
    // All of them are lost, or the newest: neither a server of the old CA nor the old word counts.
    for chain in [None, Some(old.chain.clone())] {
        let mut world = World::enrolled(&fleet, chain, Some(floor));
        assert_eq!(world.meet(&old), Some(CloseCode::Impostor));
        assert!(world.agent.roster.is_none());
        assert_eq!(world.failure().code, "impostor");
        assert_eq!(world.meet(&fleet), None);
        assert_eq!((world.status().link, world.status().trust_version), ("live", 2));
    }
    // That of another fleet says nothing.
    let floor = TrustFloor { fleet: FleetId::from_bytes([8; 16]), version: 9 };
    assert_eq!(World::enrolled(&fleet, None, Some(floor)).meet(&fleet), None);
}

#[test]
fn a_server_that_cannot_prove_itself_is_shown_as_what_it_is() {
    let fleet = Fleet::new(1);
    let mut world = World::enrolled(&fleet, Some(fleet.chain.clone()), None);
    let impostor = Fleet { ca: SecretKey::from_bytes([66; 32]), ..Fleet::new(1) };
    assert_eq!(world.meet(&impostor), Some(CloseCode::Impostor));
    let (failure, at) = (world.failure(), world.now.wall);
    let message = "the server cannot prove that it belongs to this device's fleet".to_owned();
    let address = Some(SERVER.to_owned());
    assert_eq!(failure, LinkFailure { code: "impostor".to_owned(), message, address, at });
    let next = world.status().next_dial_at.expect("it dials again");
    assert!(next > at && next - at <= Duration::from_mins(15), "{:?}", next - at);
    world.meet(&fleet);
    assert_eq!((world.status().failure, world.status().next_dial_at), (None, None), "it is mended");
}

#[test]
fn a_server_that_cannot_be_reached_is_shown_with_the_cause_and_the_next_dial() {
    let fleet = Fleet::new(1);
    let mut world = World::enrolled(&fleet, Some(fleet.chain.clone()), None);
    let connection = world.dial();
    assert_eq!((world.status().link, world.status().address.as_deref()), ("dialling", Some(SERVER)));
    let cause = "cannot dial fleet.example.com:4433: no such name";
    world.input(Input::Down { connection, end: LinkEnd::Unreachable(cause.to_owned()) });
    assert_eq!(world.status().link, "waiting");
    assert_eq!((world.failure().code.as_str(), world.failure().message.as_str()), ("unreachable", cause));
    let next = world.status().next_dial_at.expect("it waits");
    let due = world.agent.poll_timeout().unwrap();
    assert_eq!(next, world.now.wall + due.since(world.now.monotonic));
    // Its date stays what it was, though the clocks are read again.
    let shown = world.effects.len();
    world.now.wall = world.now.wall + Duration::from_millis(3);
    world.input(Input::Facts(Facts::new()));
    assert!(!world.effects[shown..].iter().any(|effect| matches!(effect, Effect::Show(_))));
}

#[test]
fn a_server_that_never_answers_is_shown_as_silent() {
    let fleet = Fleet::new(1);
    let mut world = World::enrolled(&fleet, Some(fleet.chain.clone()), None);
    let connection = world.dial();
    world.wait();
    assert_eq!((world.failure().code.as_str(), world.status().link), ("timeout", "waiting"));
    // What the link says of it later is no news.
    world.input(Input::Down { connection, end: LinkEnd::Broken("late".to_owned()) });
    assert_eq!(world.failure().code, "timeout");
}

/// How far the dates of what the device wrote can be trusted.
fn written(world: &World) -> Vec<ClockQuality> {
    let written = world.records.iter().filter_map(|record| match record {
        Record::Lane(LaneRecord::Put { bytes, .. }) => Some(codec::decode(bytes).unwrap().body.quality),
        _ => None,
    });
    written.collect()
}

/// The dates that were noted.
fn noted(world: &World) -> Vec<Wall> {
    let noted = world.effects.iter().filter_map(|effect| match effect {
        Effect::NoteDate(floor) => Some(floor.0),
        _ => None,
    });
    noted.collect()
}

#[test]
fn the_date_is_noted_once_an_hour_also_when_nothing_happens() {
    let fleet = Fleet::new(1);
    let mut world = World::enrolled(&fleet, Some(fleet.chain.clone()), None);
    let begin = world.now.wall;
    assert_eq!(noted(&world), [begin]);
    world.now.monotonic = world.now.monotonic + Duration::from_mins(59);
    world.now.wall = world.now.wall + Duration::from_mins(59);
    world.input(Input::Facts(Facts::new()));
    assert_eq!(noted(&world), [begin], "a note is a write to flash");
    // Without addresses nothing else is due.
    world.input(Input::Configured { token: None, addresses: Vec::new() });
    world.input(Input::Stop);
    for hours in 1..4 {
        world.wait();
        let dates = noted(&world);
        assert_eq!((dates.len(), dates.last()), (1 + hours, Some(&world.now.wall)));
    }
}

#[test]
fn a_clock_that_went_back_is_not_trusted_and_lowers_no_floor() {
    let fleet = Fleet::new(1);
    let floor = ClockFloor(Wall(1_900_000_000_000));
    let mut world = World::with_floors(&fleet, Some(fleet.chain.clone()), (None, floor));
    assert!(world.now.wall < floor.0, "the clock went back");
    world.input(Input::Facts(Facts::from([("os".to_owned(), "linux".to_owned())])));
    assert_eq!((noted(&world), written(&world)), (Vec::new(), vec![ClockQuality::None]));
    // It is right again.
    world.now.wall = floor.0 + Duration::from_hours(2);
    world.input(Input::Facts(Facts::from([("os".to_owned(), "beos".to_owned())])));
    assert_eq!((noted(&world), written(&world)), (vec![world.now.wall], vec![ClockQuality::None, ClockQuality::Floor]));
    // A clock that shows 1970 says so itself.
    (world.now.wall, world.now.quality) = (Wall(0), ClockQuality::None);
    world.input(Input::Facts(Facts::new()));
    assert_eq!(noted(&world).len(), 1);
}

#[test]
fn a_device_that_gets_no_new_certificate_comes_again() {
    let fleet = Fleet::new(1);
    let busy = || Refusal { code: "enrolment.busy".to_owned(), message: "ask again".to_owned() };
    for answer in [None, Some(Message::Renewed(Renewed::Refused(busy())))] {
        let mut world = World::enrolled(&fleet, Some(fleet.chain.clone()), None);
        let (connection, ended) = world.meet_as(&fleet, Grade::RenewOnly);
        assert_eq!(ended, None);
        let expected = match answer {
            Some(message) => {
                world.input(Input::Message { connection, message });
                CloseCode::Done
            }
            None => {
                world.wait();
                CloseCode::Timeout
            }
        };
        assert_eq!(world.closed(), Some(expected));
        world.input(Input::Down { connection, end: LinkEnd::Closed(expected) });
        let (at, next) = (world.now.wall, world.status().next_dial_at.expect("it dials again"));
        assert!(next - at >= limit::RENEWAL_TIMEOUT && next - at <= limit::RENEWAL_TIMEOUT * 2, "{:?}", next - at);
        assert_eq!(world.meet(&fleet), None);
    }
}

#[test]
fn a_device_that_is_asked_to_renew_asks_once_and_shows_the_new_certificate_at_once() {
    let fleet = Fleet::new(1);
    let mut world = World::enrolled(&fleet, Some(fleet.chain.clone()), None);
    let (connection, _) = world.meet_as(&fleet, Grade::Full);
    assert_eq!(world.asks(), 0, "it does not judge dates itself");
    for _ in 0..3 {
        world.input(Input::Message { connection, message: Message::RenewalDue });
    }
    assert_eq!(world.asks(), 1);
    let refused = Refusal { code: "enrolment.busy".to_owned(), message: "ask again".to_owned() };
    world.input(Input::Message { connection, message: Message::Renewed(Renewed::Refused(refused)) });
    assert_eq!(world.closed(), None, "the old one is still good");
    world.input(Input::Message { connection, message: Message::RenewalDue });
    assert_eq!(world.asks(), 1, "and it asks when it is asked again");
    let certificates = vec![vec![4]];
    world.records.clear();
    world.input(Input::Message { connection, message: Message::Renewed(Renewed::Issued { certificates }) });
    let kept = world.records.iter().any(|record| match record {
        Record::Agent(record) => {
            matches!(&record.membership, Membership::Enrolled { certificates, .. } if *certificates == [vec![4]])
        }
        _ => false,
    });
    assert!(kept);
    assert_eq!(world.closed(), Some(CloseCode::Redial));
}

/// Reports a phase of an install, and counts what is written of it at once.
fn reports(world: &mut World, phase: Phase, change: impl FnOnce(&mut WorkloadReport)) -> usize {
    let mut report = WorkloadReport {
        phase: Some(phase),
        rollout: Some(RolloutId::from_bytes([4; 10])),
        attempt: 1,
        digest: Some(ArtifactDigest::of(b"release")),
        ..WorkloadReport::default()
    };
    change(&mut report);
    let before = written(world).len();
    world.input(Input::Report { workload: "coffee".parse().unwrap(), report: Box::new(report) });
    written(world).len() - before
}

fn phase_said(world: &World) -> Option<Phase> {
    let reports = report::read_workloads(world.agent.own_state().unwrap());
    reports.values().next().and_then(|report| report.phase)
}

#[test]
fn a_try_is_acknowledged_and_ended_at_once_and_what_lies_between_is_told_together() {
    let fleet = Fleet::new(1);
    let mut world = World::enrolled(&fleet, Some(fleet.chain.clone()), None);
    world.meet(&fleet);
    assert_eq!(reports(&mut world, Phase::Pending, |_| ()), 1, "before anything is risked the server can know of it");
    for phase in [Phase::Download, Phase::Verify, Phase::Stage] {
        assert_eq!(reports(&mut world, phase, |_| ()), 0);
    }
    let begin = world.now.monotonic;
    let count = written(&world).len();
    world.wait();
    assert_eq!(world.now.monotonic.since(begin), PASSING_REPORT_PAUSE);
    assert_eq!((written(&world).len() - count, phase_said(&world)), (1, Some(Phase::Stage)), "the last of them");
    assert_eq!(reports(&mut world, Phase::Switch, |_| ()), 0);
    assert_eq!(reports(&mut world, Phase::Watch, |_| ()), 0);
    assert_eq!(reports(&mut world, Phase::Healthy, |_| ()), 1);
    let count = written(&world).len();
    world.now.monotonic = world.now.monotonic + 2 * PASSING_REPORT_PAUSE;
    world.turn(|agent, now, turn| agent.handle_timeout(now, turn));
    assert_eq!(
        (written(&world).len(), phase_said(&world)),
        (count, Some(Phase::Healthy)),
        "nothing old comes after it"
    );
    // Another try is another acknowledgement, and a fault is told on the way.
    assert_eq!(reports(&mut world, Phase::Download, |report| report.attempt = 2), 1);
    let fault = Fault::new(FaultKind::NoSpace, "1 byte is missing");
    assert_eq!(
        reports(&mut world, Phase::Stage, |report| (report.attempt, report.error) = (2, Some(fault))),
        1,
        "what goes wrong is told at once"
    );
    assert_eq!(reports(&mut world, Phase::Download, |report| report.attempt = 2), 1, "and that it goes on");
    assert_eq!(reports(&mut world, Phase::Stage, |report| report.attempt = 2), 0);
    let count = written(&world).len();
    world.input(Input::Stop);
    assert_eq!((written(&world).len() - count, phase_said(&world)), (1, Some(Phase::Stage)), "before it ends");
}
