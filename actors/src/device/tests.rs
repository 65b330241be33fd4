//! The device's machine, stepped by hand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fleetd_sync_core::id::{ArtifactDigest, DeviceId, HoldId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::resolve::Run;
use fleetd_sync_core::trust::{Rank, Role, RootChain, RootRecord, Roster, Sites};

use super::record::{DeviceRecord, Membership};
use super::*;
use crate::window::DeviceTerms;

mod recovery;
mod room;
mod standing;

struct World {
    device: Device,
    entropy: Entropy,
    key: SecretKey,
}

fn trust(entropy: &mut Entropy) -> (Arc<Trust>, SecretKey) {
    let (root, authority) = (SecretKey::generate(entropy), SecretKey::generate(entropy));
    let roles = [(authority.public(), Role::Authority { rank: Rank::CENTRAL, sites: Sites::All })];
    let first = RootRecord::draft([root.public()].into(), 1, roles).unwrap().sign(&root);
    let chain = RootChain::found(first.body().fleet, first).unwrap();
    let roster = Arc::new(Roster::new(&chain, []));
    (Arc::new(Trust { chain: Arc::new(chain), roster, envelopes: Vec::new() }), authority)
}

fn world() -> World {
    let mut entropy = Entropy::from_seed([8; 32]);
    let (trust, authority) = trust(&mut entropy);
    let key = SecretKey::generate(&mut entropy);
    let local = LocalId::from(key.id());
    let device = Device::load(local, None, [], authority, trust, &mut entropy).unwrap();
    World { device, entropy, key }
}

impl World {
    fn record(&mut self) -> DeviceRecord {
        DeviceRecord {
            local: self.key.id().into(),
            device: DeviceId::random(&mut self.entropy),
            name: "brisk-otter".parse().unwrap(),
            key: self.key.public().into(),
            sealing_key: [0; 32],
            token: None,
            membership: Membership::Enrolled,
            labels: BTreeMap::new(),
            site: String::new(),
            facts: BTreeMap::new(),
            registered_at: Wall(0),
            last_heard_at: None,
            wanted: BTreeMap::new(),
            holds: BTreeMap::new(),
            pins: BTreeMap::new(),
            reports: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    fn connected(&mut self, connection: ConnectionId) -> Connected {
        let (key, boot) = (self.key.public(), BootId::random(&mut self.entropy));
        let (trust, orders) = (Arc::clone(&self.device.trust), Arc::clone(&self.device.orders));
        let certificate_not_after = Wall(0) + limit::DEVICE_CERTIFICATE_LIFETIME;
        let grade = Grade::Full;
        Connected { connection, key, grade, certificate_not_after, boot, log_positions: Vec::new(), trust, orders }
    }

    fn operation(&mut self) -> OperationId {
        OperationId::random(&mut self.entropy)
    }

    fn step(&mut self, input: Input) -> (Vec<Record>, Vec<Effect>) {
        let mut turn = Turn::new();
        self.device.handle(Now::default(), input, &mut turn);
        turn.into_parts()
    }

    fn enrol(&mut self) {
        let (operation, record) = (self.operation(), Box::new(self.record()));
        let (records, effects) = self.step(Input::Enrol { operation, record });
        assert!(matches!(records.as_slice(), [Record::Device(_)]));
        assert!(matches!(effects.as_slice(), [Effect::Enrolled { .. }]));
    }

    fn command(&mut self, command: Command) -> Result<Answer, CommandError> {
        let operation = self.operation();
        let (_, effects) = self.step(Input::Command { operation, caller: "acc_test".to_owned(), command });
        let answers = effects.into_iter().filter_map(|effect| match effect {
            Effect::Answer { result, .. } => Some(result),
            _ => None,
        });
        answers.last().unwrap()
    }

    fn assignment(&mut self, version: &str) -> RolloutAssignment {
        RolloutAssignment {
            rollout: RolloutId::random(&mut self.entropy),
            attempt: 1,
            workload: "coffee".parse().unwrap(),
            version: version.parse().unwrap(),
            manifest: ArtifactDigest::of(version.as_bytes()),
            configuration: None,
            terms: DeviceTerms::default(),
        }
    }
}

fn told(effects: &[Effect]) -> Vec<(RolloutId, RolloutNews)> {
    let news = effects.iter().filter_map(|effect| match effect {
        Effect::TellRollout { rollout, news } => Some((*rollout, news.clone())),
        _ => None,
    });
    news.collect()
}

#[test]
fn registering_twice_is_one_device_with_its_own_labels() {
    let mut world = world();
    world.enrol();
    let set = BTreeMap::from([("site".parse().unwrap(), "oslo".parse().unwrap())]);
    world.command(Command::Label { set: set.clone(), remove: Vec::new() }).unwrap();
    let first = world.device.record().unwrap().device;
    world.enrol();
    let record = world.device.record().unwrap();
    assert_eq!((record.device, &record.labels), (first, &set));
}

#[test]
fn wishes_for_an_absent_device_are_rows_and_sign_nothing() {
    let mut world = world();
    world.enrol();
    let assignment = world.assignment("1.0");
    let (records, effects) = world.step(Input::Assign(assignment.clone()));
    assert!(records.iter().all(|record| matches!(record, Record::Device(_))), "nothing is signed in advance");
    let away = RolloutNews::Presence(Some(Wall(0)));
    assert_eq!(told(&effects), [(assignment.rollout, RolloutNews::Assigned), (assignment.rollout, away)]);
    let wanted = &world.device.record().unwrap().wanted;
    assert_eq!(wanted::assigned_rollout(wanted, &assignment.workload), Some(assignment.rollout));
}

#[test]
fn a_new_assignment_supersedes_the_one_before_it() {
    let mut world = world();
    world.enrol();
    let (first, second) = (world.assignment("1.0"), world.assignment("2.0"));
    world.step(Input::Assign(first.clone()));
    let (_, effects) = world.step(Input::Assign(second.clone()));
    let expected = [
        (second.rollout, RolloutNews::Assigned),
        (second.rollout, RolloutNews::Presence(Some(Wall(0)))),
        (first.rollout, RolloutNews::Superseded(second.rollout)),
    ];
    assert_eq!(told(&effects), expected);
    let withdraw = Input::Withdraw { rollout: first.rollout, workload: first.workload.clone() };
    world.step(withdraw);
    let wanted = &world.device.record().unwrap().wanted;
    assert_eq!(wanted::assigned_rollout(wanted, &first.workload), Some(second.rollout), "not the first one's to take");
}

#[test]
fn a_rollout_that_takes_a_device_over_replaces_assignment_and_hold_in_one_change() {
    let mut world = world();
    world.enrol();
    let (first, second) = (world.assignment("1.0"), world.assignment("2.0"));
    world.step(Input::Assign(first.clone()));
    let (hold, workload) = (HoldId::from_bytes([1; 10]), first.workload.clone());
    world.step(Input::Hold { rollout: first.rollout, hold, workload, reason: "it is paused".to_owned() });
    let (records, _) = world.step(Input::Assign(second.clone()));
    assert_eq!(records.len(), 1);
    let record = world.device.record().unwrap();
    assert_eq!(wanted::holds(&record.wanted).count() + record.holds.len(), 0, "what stops the one stops not the other");
    assert_eq!(wanted::assigned_rollout(&record.wanted, &second.workload), Some(second.rollout));
}

#[test]
fn a_stop_stands_beside_the_assignment_until_it_is_lifted_or_the_assignment_is_taken_back() {
    let mut world = world();
    world.enrol();
    let assignment = world.assignment("1.0");
    let (rollout, workload) = (assignment.rollout, assignment.workload.clone());
    let ids = [1, 2].map(|number| HoldId::from_bytes([number; 10]));
    let hold = |hold| Input::Hold { rollout, hold, workload: workload.clone(), reason: "it is paused".to_owned() };
    let holds = |world: &World| -> Vec<HoldId> {
        wanted::holds(&world.device.record().unwrap().wanted).map(|(hold, ..)| hold).collect()
    };
    // The stop may come first.
    let (_, effects) = world.step(hold(ids[0]));
    assert_eq!(told(&effects), [(rollout, RolloutNews::Held(ids[0]))]);
    world.step(Input::Assign(assignment.clone()));
    assert_eq!(holds(&world), [ids[0]]);
    let (records, _) = world.step(hold(ids[0]));
    assert!(records.is_empty(), "said twice, it is said once");
    world.step(hold(ids[1]));
    assert_eq!(holds(&world), [ids[1]], "a later stop takes the place of an earlier one");

    let other = HoldId::from_bytes([3; 10]);
    let reason = "an operator looks".to_owned();
    world.command(Command::Hold { hold: other, workload: None, reason }).unwrap();
    let (_, effects) = world.step(Input::Lift { rollout, workload: workload.clone() });
    assert_eq!(told(&effects), [(rollout, RolloutNews::Lifted { is_held: true })], "an operator's hold is not its own");
    assert_eq!(holds(&world), [other]);
    world.step(hold(ids[0]));
    world.command(Command::Lift { hold: other }).unwrap();
    world.step(Input::Withdraw { rollout, workload });
    let record = world.device.record().unwrap();
    assert!(record.wanted.is_empty() && record.holds.is_empty(), "{:?}", record.wanted);
}

#[test]
fn a_rollout_that_asks_is_told_how_the_device_stands() {
    let mut world = world();
    world.enrol();
    let (first, second) = (world.assignment("1.0"), world.assignment("2.0"));
    let ask = |assignment: &RolloutAssignment| Input::Ask {
        rollout: assignment.rollout,
        workload: assignment.workload.clone(),
    };
    let away = || RolloutNews::Presence(Some(Wall(0)));
    let (_, effects) = world.step(ask(&first));
    assert_eq!(told(&effects), [(first.rollout, RolloutNews::Withdrawn), (first.rollout, away())]);
    world.step(Input::Assign(first.clone()));
    let (records, effects) = world.step(ask(&first));
    assert_eq!(told(&effects), [(first.rollout, RolloutNews::Assigned), (first.rollout, away())]);
    assert!(records.is_empty(), "asking changes nothing");
    world.step(Input::Assign(second.clone()));
    let (_, effects) = world.step(ask(&first));
    let superseded = RolloutNews::Superseded(second.rollout);
    assert_eq!(told(&effects), [(first.rollout, superseded), (first.rollout, away())]);
    world.command(Command::Revoke { reason: String::new() }).unwrap();
    let (_, effects) = world.step(ask(&second));
    assert_eq!(told(&effects), [(second.rollout, RolloutNews::Gone)]);
}

#[test]
fn a_stop_is_a_wish_of_its_own_and_survives_a_new_assignment() {
    let mut world = world();
    world.enrol();
    let workload: WorkloadName = "coffee".parse().unwrap();
    let stop = Command::Run { workload: workload.clone(), run: Run::Stopped, reason: "descaling".to_owned() };
    assert!(matches!(world.command(stop.clone()), Err(CommandError::NoWorkload { .. })));
    let (first, second) = (world.assignment("1.0"), world.assignment("2.0"));
    world.step(Input::Assign(first));
    world.command(stop).unwrap();
    world.step(Input::Assign(second));
    assert!(wanted::is_stopped(&world.device.record().unwrap().wanted, &workload));
}

#[test]
fn a_hold_is_lifted_by_its_id_and_by_no_other() {
    let mut world = world();
    world.enrol();
    let [hold, other] = std::array::from_fn(|_| HoldId::random(&mut world.entropy));
    world.command(Command::Hold { hold, workload: None, reason: "open machine".to_owned() }).unwrap();
    assert_eq!(world.command(Command::Lift { hold: other }), Err(CommandError::NoHold { hold: other }));
    assert_eq!(world.device.record().unwrap().holds.len(), 1);
    world.command(Command::Lift { hold }).unwrap();
    let record = world.device.record().unwrap();
    assert!(record.holds.is_empty() && record.wanted.is_empty());
}

#[test]
fn a_revoked_device_takes_no_wishes_and_its_rollouts_hear_that_it_is_gone() {
    let mut world = world();
    world.enrol();
    let operation = world.operation();
    let command = Command::Revoke { reason: "stolen".to_owned() };
    let (_, effects) = world.step(Input::Command { operation, caller: String::new(), command });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::RevokeKey { .. })));
    assert_eq!(world.command(Command::Restart { workload: "coffee".parse().unwrap() }), Err(CommandError::Revoked));
    let assignment = world.assignment("1.0");
    let (_, effects) = world.step(Input::Assign(assignment.clone()));
    assert_eq!(told(&effects), [(assignment.rollout, RolloutNews::Gone)]);
}

#[test]
fn a_stop_and_a_start_at_the_device_are_events() {
    let mut world = world();
    world.enrol();
    let (fleet, document) = (world.device.trust.chain.fleet(), DocumentId::Actual(world.device.local));
    let mut device = Replica::new(fleet, Some(world.key.clone()), &mut world.entropy);
    device.hold(document);
    let coffee: WorkloadName = "coffee".parse().unwrap();
    let mut before = None;
    for stopped_locally in [false, true, true, false] {
        let report = WorkloadReport { phase: Some(Phase::Healthy), stopped_locally, ..WorkloadReport::default() };
        let ops = report::workload_ops(&coffee, before.as_ref(), Some(&report));
        if !ops.is_empty() {
            for envelope in &device.write(Now::default(), document, ops).unwrap().envelopes {
                let _ = world.device.replica.receive(envelope);
            }
        }
        world.device.read_actual(Now::default(), &mut Turn::new());
        before = Some(report);
    }
    let events = world.device.record().unwrap().events.iter().filter(|event| event.workload.is_some());
    let told: Vec<_> = events.map(|event| (event.kind.as_str(), event.message.as_str())).collect();
    assert_eq!(
        told,
        [
            ("healthy", "coffee@nothing is healthy"),
            ("stopped_locally", "somebody stopped coffee at the device"),
            ("started_locally", "somebody started coffee at the device"),
        ]
    );
}

#[test]
fn a_device_that_does_not_answer_is_given_up_before_whoever_asked_is_told() {
    let mut world = world();
    world.enrol();
    let connected = world.connected(ConnectionId::from_bytes([4; 8]));
    world.step(Input::Connected(Box::new(connected)));
    let operation = world.operation();
    world.step(Input::Command { operation, caller: String::new(), command: Command::Probe });
    let (due, mut turn) = (world.device.poll_timeout().unwrap(), Turn::new());
    world.device.handle_timeout(Now { monotonic: due, ..Now::default() }, &mut turn);
    let (_, effects) = turn.into_parts();
    let is_told = |effect: &Effect| matches!(effect, Effect::Answer { result: Ok(answer), .. } if !answer.is_present);
    let given_up = effects.iter().position(|effect| matches!(effect, Effect::Close { .. }));
    assert!(given_up.is_some() && given_up < effects.iter().position(is_told), "{effects:?}");
}

#[test]
fn what_happened_lately_is_kept_and_no_more() {
    let mut world = world();
    world.enrol();
    for _ in 0..limit::DEVICE_EVENTS_MAX * 2 {
        world.command(Command::Rename("brisk-otter".parse().unwrap())).unwrap();
    }
    assert_eq!(world.device.record().unwrap().events.len(), limit::DEVICE_EVENTS_MAX);
}
