//! Devices whose records were lost, and the lanes that they bring back.

use fleetd_sync_core::envelope::{Head, Op, Value};
use fleetd_sync_core::resolve;
use fleetd_sync_core::session::message::Push;
use fleetd_sync_core::session::{DeviceSide, Opening, Output, Session, Side};
use fleetd_sync_core::time::Wall;

use super::*;

/// The device at the other end.
pub(super) struct Far {
    pub(super) replica: Replica,
    chain: RootChain,
    session: Option<Session>,
    pushed: usize,
}

impl Far {
    pub(super) fn new(world: &mut World) -> Self {
        let trust = Arc::clone(&world.device.trust);
        let mut replica = Replica::new(trust.chain.fleet(), Some(world.key.clone()), &mut world.entropy);
        let local = world.device.local;
        for document in [DocumentId::Trust, DocumentId::Desired(local), DocumentId::Actual(local)] {
            replica.hold(document);
        }
        let _ = replica.set_writers(trust.roster.writers(BTreeMap::new(), BTreeMap::new()));
        let path = "fact/platform".parse().unwrap();
        let fact = Op::Set { path, value: Value::Text("linux/arm64".to_owned()) };
        let _ = replica.write(Now::default(), DocumentId::Actual(local), vec![fact]).unwrap();
        Self { replica, chain: RootChain::clone(&trust.chain), session: None, pushed: 0 }
    }

    fn take(&mut self, message: Message) -> Vec<Message> {
        let mut out = Vec::new();
        self.pushed += usize::from(matches!(message, Message::Push(_)));
        if let Some(session) = &mut self.session {
            session.on_message(Now::default(), message, &mut self.replica, &mut out);
        }
        sent(out)
    }

    fn heads(&self) -> Vec<Head> {
        self.replica.heads().into_iter().map(|lane| lane.head).collect()
    }
}

fn sent(out: Vec<Output>) -> Vec<Message> {
    let sent = out.into_iter().filter_map(|output| match output {
        Output::Send(_, message) => Some(message),
        _ => None,
    });
    sent.collect()
}

fn to_device(effects: &[Effect]) -> Vec<Message> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => Some(message.clone()),
        _ => None,
    });
    sent.collect()
}

impl World {
    /// Another server with the same keys and an empty store.
    fn lose_store(&mut self) {
        self.load(None, Vec::new());
    }

    fn load(&mut self, record: Option<DeviceRecord>, stored: Vec<Vec<u8>>) {
        let (trust, authority) = trust(&mut Entropy::from_seed([8; 32]));
        let local = self.device.local;
        self.device = Device::load(local, record, stored, authority, trust, &mut self.entropy).unwrap();
    }

    /// Joins both ends, and lets them say all that they have to say.
    pub(super) fn meet(&mut self, far: &mut Far) -> (Vec<Record>, Vec<Effect>) {
        let connection = ConnectionId::random(&mut self.entropy);
        let verify = |_: &fleetd_sync_core::session::ServerEvidence<'_>| Ok(());
        let side = Side::Device(DeviceSide {
            fleet: far.chain.fleet(),
            chain: Some(far.chain.clone()),
            trust_version_min: 0,
            server_leaf: Vec::new(),
            verify,
        });
        let opening = Opening { boot: BootId::random(&mut self.entropy), log_positions: Vec::new(), side };
        let mut out = Vec::new();
        far.session = Some(Session::open(Monotonic(0), opening, &far.replica, &mut out));
        let connected = self.connected(connection);
        let (mut records, mut effects) = self.step(Input::Connected(Box::new(connected)));
        let mut to_server = sent(out);
        let mut to_far = to_device(&effects);
        while !to_server.is_empty() || !to_far.is_empty() {
            for message in std::mem::take(&mut to_server) {
                let (more, then) = self.step(Input::Message { connection, message });
                to_far.extend(to_device(&then));
                records.extend(more);
                effects.extend(then);
            }
            for message in std::mem::take(&mut to_far) {
                to_server.extend(far.take(message));
            }
        }
        (records, effects)
    }

    /// Hands what a step sent to the device, and lets it answer.
    pub(super) fn deliver(&mut self, far: &mut Far, effects: &[Effect]) {
        let connection = self.device.serving.as_ref().unwrap().connection;
        for message in to_device(effects) {
            for message in far.take(message) {
                self.step(Input::Message { connection, message });
            }
        }
    }

    /// Lets the registration make the record that the device asks for.
    fn recover(&mut self, connection: ConnectionId) -> Vec<Effect> {
        let connected = self.connected(connection);
        let (records, effects) = self.step(Input::Connected(Box::new(connected)));
        let key = self.key.public();
        assert!(records.is_empty());
        assert!(matches!(effects.as_slice(), [Effect::Recover { key: asked }] if *asked == key), "{effects:?}");
        let (operation, mut record) = (self.operation(), Box::new(self.record()));
        record.membership = Membership::Recovered;
        self.step(Input::Enrol { operation, record }).1
    }
}

/// A device that was asked for a release and then held, and knows it.
fn asked() -> (World, Far, HoldId) {
    let mut world = world();
    world.enrol();
    let mut far = Far::new(&mut world);
    let assignment = world.assignment("1.0");
    world.step(Input::Assign(assignment));
    let hold = HoldId::random(&mut world.entropy);
    let workload = Some("coffee".parse().unwrap());
    world.command(Command::Hold { hold, workload, reason: "open machine".to_owned() }).unwrap();
    world.meet(&mut far);
    assert_eq!(far.heads().len(), 2, "its own lane and the server's");
    (world, far, hold)
}

#[test]
fn a_device_without_a_record_gets_one_and_dials_again() {
    let mut world = world();
    let connection = ConnectionId::random(&mut world.entropy);
    let effects = world.recover(connection);
    let is_redial = |effect: &Effect| matches!(effect, Effect::Close { connection: closed, code: CloseCode::Redial } if *closed == connection);
    assert!(effects.iter().any(is_redial), "{effects:?}");
    assert_eq!(world.device.record().unwrap().membership, Membership::Recovered);
    assert!(world.device.is_idle());
}

#[test]
fn a_device_that_gets_no_record_in_time_is_sent_away_to_come_again() {
    let mut world = world();
    let connection = ConnectionId::random(&mut world.entropy);
    let connected = world.connected(connection);
    world.step(Input::Connected(Box::new(connected.clone())));
    let due = world.device.poll_timeout().unwrap();
    let mut turn = Turn::new();
    world.device.handle_timeout(Now { monotonic: due, ..Now::default() }, &mut turn);
    let busy = [Effect::Close { connection, code: CloseCode::Busy }];
    assert_eq!(format!("{:?}", turn.into_parts().1), format!("{busy:?}"));
    world.step(Input::Connected(Box::new(connected)));
    let (_, effects) = world.step(Input::NotRecovered(CloseCode::Revoked));
    assert!(matches!(effects.as_slice(), [Effect::Close { code: CloseCode::Revoked, .. }]));
    assert_eq!(world.command(Command::Look), Err(CommandError::Unknown));
}

#[test]
fn what_a_lost_store_had_asked_comes_back_and_nothing_is_taken_from_the_device() {
    let (mut world, mut far, hold) = asked();
    let (heads, pushed) = (far.heads(), far.pushed);
    let wanted = world.device.record().unwrap().wanted.clone();
    world.lose_store();
    let connection = ConnectionId::random(&mut world.entropy);
    world.recover(connection);
    let (records, _) = world.meet(&mut far);
    assert_eq!((far.heads(), far.pushed), (heads, pushed), "the server wrote nothing");
    let record = world.device.record().unwrap();
    assert_eq!((record.membership, &record.wanted), (Membership::Recovered, &wanted));
    let row = record.holds.get(&hold).unwrap();
    assert_eq!(
        (row.reason.as_str(), row.workload.as_ref().map(WorkloadName::as_str)),
        ("open machine", Some("coffee"))
    );
    assert_eq!(record.facts.get("platform").map(String::as_str), Some("linux/arm64"));
    let kept = records.iter().rev().find_map(|kept| match kept {
        Record::Device(kept) => Some(kept.wanted.clone()),
        Record::Lane(_) => None,
    });
    assert_eq!(kept, Some(wanted), "durably");
    assert!(records.iter().any(|record| matches!(record, Record::Lane(LaneRecord::Put { .. }))));
}

#[test]
fn a_stop_of_the_fleet_reaches_a_recovered_device_and_its_end_does_too() {
    let (mut world, mut far, _) = asked();
    let wanted = world.device.record().unwrap().wanted.clone();
    world.lose_store();
    world.step(Input::Orders(Arc::new(standing::stopped())));
    let connection = ConnectionId::random(&mut world.entropy);
    world.recover(connection);
    world.meet(&mut far);
    let lane = world.device.replica().own_lane().unwrap();
    let document = DocumentId::Desired(world.device.local);
    let there = |far: &Far| far.replica.lane(document, lane).unwrap().state().clone();
    let stop = (HoldId::from_bytes([1; 10]), None, "the whole fleet is stopped: smoke".to_owned());
    assert!(wanted::holds(&there(&far)).any(|hold| hold == stop), "{:?}", there(&far));
    let record = world.device.record().unwrap();
    assert_eq!((record.membership, &record.wanted), (Membership::Recovered, &wanted), "it is no row");

    let (_, effects) = world.step(Input::Orders(Arc::default()));
    world.deliver(&mut far, &effects);
    assert_eq!(there(&far), wanted, "and nothing else was changed");
}

/// As where a server went on beside the one that was restored from its backup.
#[test]
fn a_device_that_shows_an_authoritys_key_held_twice_is_not_the_one_that_is_quarantined() {
    let mut world = world();
    world.enrol();
    let mut far = Far::new(&mut world);
    world.meet(&mut far);
    let (fleet, document) = (world.device.trust.chain.fleet(), DocumentId::Desired(world.device.local));
    let envelopes = ["one", "other"].map(|reason| {
        let (trust, authority) = trust(&mut Entropy::from_seed([8; 32]));
        // The same stamp, drawn twice: what each writes first takes one position.
        let mut server = Replica::new(fleet, Some(authority), &mut Entropy::from_seed([9; 32]));
        server.hold(document);
        let _ = server.set_writers(trust.roster.writers(BTreeMap::new(), BTreeMap::new()));
        let path = resolve::hold_path(HoldId::from_bytes([7; 10]), None);
        let op = Op::Set { path, value: Value::Text(reason.to_owned()) };
        Arc::clone(&server.write(Now::default(), document, vec![op]).unwrap().envelopes[0])
    });
    let connection = world.device.serving.as_ref().unwrap().connection;
    let message = Message::Push(Push { envelopes: envelopes.to_vec() });
    let (_, effects) = world.step(Input::Message { connection, message });
    let lane = world.device.replica.own_lane().unwrap();
    let is_alarm = |effect: &Effect| matches!(effect, Effect::AuthorityForked { document: of, lane: by } if (*of, *by) == (document, lane));
    assert!(effects.iter().any(is_alarm), "{effects:?}");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Forked)));
    let record = world.device.record().unwrap();
    assert_eq!(record.membership, Membership::Enrolled);
    assert!(record.events.iter().any(|event| event.kind == "authority_forked"));

    // Sync goes on.
    let hold = HoldId::random(&mut world.entropy);
    let operation = world.operation();
    let command = Command::Hold { hold, workload: None, reason: "smoke".to_owned() };
    let (_, effects) = world.step(Input::Command { operation, caller: String::new(), command });
    world.deliver(&mut far, &effects);
    let lane = far.replica.lane(document, lane).unwrap();
    assert!(wanted::holds(lane.state()).any(|(there, ..)| there == hold));
}

#[test]
fn wishes_for_a_recovered_device_wait_for_an_operators_word() {
    let (mut world, mut far, hold) = asked();
    world.lose_store();
    let connection = ConnectionId::random(&mut world.entropy);
    world.recover(connection);
    world.meet(&mut far);
    let workload: WorkloadName = "coffee".parse().unwrap();
    let stop = Command::Run { workload: workload.clone(), run: Run::Stopped, reason: String::new() };
    for wish in [stop, Command::Restart { workload }, Command::Lift { hold }] {
        assert_eq!(world.command(wish), Err(CommandError::Recovered));
    }
    let assignment = world.assignment("2.0");
    let (records, effects) = world.step(Input::Assign(assignment.clone()));
    assert!(records.is_empty());
    assert_eq!(told(&effects), [(assignment.rollout, RolloutNews::Gone)]);

    world.command(Command::Approve).unwrap();
    assert_eq!(world.command(Command::Approve), Err(CommandError::NotRecovered));
    world.command(Command::Lift { hold }).unwrap();
    let (records, _) = world.step(Input::Assign(assignment.clone()));
    assert!(records.iter().any(|record| matches!(record, Record::Lane(LaneRecord::Put { .. }))));
    world.meet(&mut far);
    assert_eq!(far.replica.fork_proofs().count(), 0, "it was written above what the device had");
    let lane = world.device.replica().own_lane().unwrap();
    let document = DocumentId::Desired(world.device.local);
    let [here, there] = [&world.device.replica, &far.replica].map(|replica| replica.lane(document, lane).unwrap());
    assert_eq!(here.head(), there.head());
    assert_eq!(there.head().unwrap().position.epoch, 2, "a new stamp opens a new epoch");
    let wanted = &world.device.record().unwrap().wanted;
    assert_eq!(
        (there.state(), wanted::assigned_rollout(wanted, &assignment.workload)),
        (wanted, Some(assignment.rollout))
    );
}

/// The word may come before the device's lanes do: what it brings is not taken for what is to be deleted.
#[test]
fn a_device_that_was_approved_before_it_synced_keeps_what_it_has() {
    let (mut world, mut far, _) = asked();
    let wanted = world.device.record().unwrap().wanted.clone();
    world.lose_store();
    let connection = ConnectionId::random(&mut world.entropy);
    world.recover(connection);
    world.command(Command::Approve).unwrap();
    let heads = far.heads();
    world.meet(&mut far);
    assert_eq!(far.heads(), heads);
    assert_eq!(world.device.record().unwrap().wanted, wanted);
}

#[test]
fn an_older_store_takes_back_what_it_forgot_and_keeps_what_was_wished_since() {
    let (mut world, mut far, hold) = asked();
    let record = world.device.record().cloned();
    let lane = world.device.replica().own_lane().unwrap();
    let (local, document) = (world.device.local, DocumentId::Desired(world.device.local));
    let stored = |world: &World| {
        let mut stored = Vec::new();
        for (document, lane) in [(document, lane), (DocumentId::Actual(local), local.into())] {
            let envelopes = world.device.replica().envelopes_after(document, lane, None);
            stored.extend(envelopes.iter().map(|bytes| bytes.to_vec()));
        }
        stored
    };
    let backup = stored(&world);
    world.command(Command::Lift { hold }).unwrap();
    let newer = world.assignment("2.0");
    let (_, effects) = world.step(Input::Assign(newer.clone()));
    world.deliver(&mut far, &effects);
    world.meet(&mut far);

    world.load(record, backup);
    let other = HoldId::random(&mut world.entropy);
    let place = Command::Hold { hold: other, workload: None, reason: "looking".to_owned() };
    world.command(place).unwrap();
    assert!(world.device.record().unwrap().holds.contains_key(&hold), "the backup has it");
    world.meet(&mut far);
    let record = world.device.record().unwrap();
    assert_eq!(record.holds.keys().collect::<Vec<_>>(), [&other]);
    assert_eq!(wanted::assigned_rollout(&record.wanted, &newer.workload), Some(newer.rollout));
    let there = far.replica.lane(document, lane).unwrap();
    assert_eq!(there.state(), &record.wanted);
    assert_eq!(far.replica.fork_proofs().count(), 0);
}

/// A session may go live before the server's own lane has come, and the server may write then.
#[test]
fn what_was_written_before_the_lane_came_back_is_written_again_above_it() {
    let (mut world, mut far, hold) = asked();
    let lose = |world: &mut World| {
        world.lose_store();
        let connection = ConnectionId::random(&mut world.entropy);
        world.recover(connection);
        world.command(Command::Approve).unwrap();
    };
    lose(&mut world);
    world.meet(&mut far);
    world.command(Command::Lift { hold }).unwrap();
    world.meet(&mut far);

    lose(&mut world);
    let mut without_lanes = Far::new(&mut world);
    world.meet(&mut without_lanes);
    let newer = world.assignment("3.0");
    world.step(Input::Assign(newer.clone()));
    world.meet(&mut far);
    let wanted = &world.device.record().unwrap().wanted;
    assert_eq!(wanted::assigned_rollout(wanted, &newer.workload), Some(newer.rollout));
    let lane = world.device.replica().own_lane().unwrap();
    let there = far.replica.lane(DocumentId::Desired(world.device.local), lane).unwrap();
    assert_eq!((there.state(), there.head().unwrap().position.epoch), (wanted, 3));
    assert_eq!(far.replica.fork_proofs().count(), 0);
}

#[test]
fn a_recovered_device_that_turns_out_to_be_revoked_is_closed() {
    let (mut world, mut far, _) = asked();
    world.lose_store();
    let connection = ConnectionId::random(&mut world.entropy);
    world.recover(connection);
    world.meet(&mut far);
    let mut trust = Trust::clone(&world.device.trust);
    let lane = world.device.replica().own_lane().unwrap();
    let path = fleetd_sync_core::trust::revoke_path(world.key.id()).parse().unwrap();
    let value = Value::Text("compromised".to_owned());
    let statement = fleetd_sync_core::trust::Statement { lane, path: &path, value: &value };
    trust.roster = Arc::new(Roster::new(&trust.chain, [statement]));
    let (_, effects) = world.step(Input::Trust(Arc::new(trust)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Close { code: CloseCode::Revoked, .. })));
    let record = world.device.record().unwrap();
    assert_eq!(record.membership, Membership::Revoked);
    assert!(record.last_heard_at.is_some_and(|at| at >= Wall(0)));
    assert_eq!(world.command(Command::Approve), Err(CommandError::Revoked));
}

#[test]
fn a_token_is_the_word_that_a_recovered_device_waits_for() {
    let mut world = world();
    let connection = ConnectionId::random(&mut world.entropy);
    world.recover(connection);
    world.enrol();
    let record = world.device.record().unwrap();
    assert_eq!(record.membership, Membership::Enrolled);
}
