//! Devices that ask to join, stepped by hand, and many at once.

use fleetd_sync_core::enrolment::AdmitError;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::session::message::Facts;
use fleetd_sync_core::time::Wall;
use fleetd_sync_core::trust::{Change, Revocation, RootChain, RootRecord};
use proptest::prelude::*;

use super::*;

fn device_key(index: u8) -> SecretKey {
    SecretKey::from_bytes([index; 32])
}

fn local(index: u8) -> LocalId {
    LocalId::from(device_key(index).id())
}

fn root() -> SecretKey {
    SecretKey::from_bytes([200; 32])
}

fn chain() -> RootChain {
    let ca = (SecretKey::from_bytes([201; 32]).public(), fleetd_sync_core::trust::Role::CertificateAuthority);
    let first = RootRecord::draft(BTreeSet::from([root().public()]), 1, [ca]).unwrap().sign(&root());
    RootChain::found(first.body().fleet, first).unwrap()
}

fn wish(uses_max: u32) -> TokenWish {
    TokenWish {
        note: "for the kitchen".to_owned(),
        labels: BTreeMap::from([("floor".parse().unwrap(), "2".parse().unwrap())]),
        site: "berlin".to_owned(),
        uses_max,
        expires_at: None,
        needs_approval: None,
    }
}

fn approve(index: u8, given: Given) -> Command {
    Command::Approve { device: local(index), given }
}

fn given(name: &str, labels: &[(&str, &str)]) -> Given {
    let labels = labels.iter().map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()));
    Given { name: Some(name.parse().unwrap()), labels: labels.collect() }
}

/// The registration, the store below it, the CA and the devices' actors.
struct Bench {
    machine: Registration,
    now: Now,
    tokens: BTreeMap<TokenId, TokenRecord>,
    used: BTreeMap<TokenId, BTreeSet<LocalId>>,
    pending: BTreeMap<LocalId, PendingDevice>,
    devices: BTreeMap<LocalId, DeviceRecord>,
    /// What the audit log has, each with the name that it was to get.
    traced: Vec<(LocalId, Option<DeviceName>)>,
    queue: VecDeque<Effect>,
    answers: Vec<Effect>,
    loads: u8,
}

impl Bench {
    fn new() -> Self {
        let machine = Registration::load([], [], Arc::new(Roster::new(&chain(), [])), Entropy::from_seed([1; 32]));
        Self {
            machine,
            now: Now { wall: Wall(1000), ..Now::default() },
            tokens: BTreeMap::new(),
            used: BTreeMap::new(),
            pending: BTreeMap::new(),
            devices: BTreeMap::new(),
            traced: Vec::new(),
            queue: VecDeque::new(),
            answers: vec![],
            loads: 0,
        }
    }

    fn take(&mut self, turn: RegistrationTurn) {
        let (records, effects) = turn.into_parts();
        for record in records {
            if let Record::TokenUsed { device, .. } | Record::PendingGone(device) = &record {
                assert!(self.is_traced(*device), "{device} joins without a trace");
            }
            match record {
                Record::Token(token) => drop(self.tokens.insert(token.token, *token)),
                Record::TokenUsed { token, device } => drop(self.used.entry(token).or_default().insert(device)),
                Record::Pending(device) if !self.is_traced(device.local) => panic!("{device:?} waits without a trace"),
                Record::Pending(device) => drop(self.pending.insert(device.local, *device)),
                Record::PendingGone(device) => drop(self.pending.remove(&device)),
            }
        }
        self.queue.extend(effects);
    }

    fn input(&mut self, input: Input) {
        let mut turn = Turn::new();
        self.machine.handle(self.now, input, &mut turn);
        self.take(turn);
    }

    /// Carries out one effect that waits.
    fn step(&mut self, index: usize) {
        let Some(effect) = self.queue.remove(index) else { return };
        match effect {
            Effect::Find { operation, device, name } => {
                let known = self.devices.get(&device).map(|record| KnownDevice {
                    device: record.device,
                    name: record.name.clone(),
                    membership: record.membership,
                });
                let name_is_free = self.devices.values().all(|record| record.name != name);
                self.input(Input::Found { operation, known, name_is_free });
            }
            Effect::Trace { operation, device, name, .. } => {
                self.traced.push((device, name));
                self.input(Input::Traced { operation });
            }
            Effect::Issue { operation, key } => {
                let device = LocalId::from(key.id());
                self.input(Input::Issued { operation, result: Ok(vec![device.as_bytes().to_vec()]) });
            }
            Effect::Enrol { operation, record } => {
                assert!(self.is_traced(record.local), "{} becomes a member without a trace", record.local);
                self.devices.entry(record.local).or_insert(*record);
                self.input(Input::Enrolled { operation });
            }
            answer => self.answers.push(answer),
        }
    }

    fn is_traced(&self, device: LocalId) -> bool {
        self.traced.iter().any(|(traced, _)| *traced == device)
    }

    fn run(&mut self) {
        while !self.queue.is_empty() {
            self.step(0);
        }
    }

    fn restart(&mut self) {
        self.loads += 1;
        self.queue.clear();
        let tokens: Vec<_> = self.tokens.values().cloned().collect();
        let tokens = tokens.into_iter().map(|mut token| {
            token.state.used_by = self.used.get(&token.token).cloned().unwrap_or_default();
            token
        });
        let roster = Arc::new(Roster::new(&chain(), []));
        let entropy = Entropy::from_seed([2; 32]).stream(&self.loads.to_string());
        self.machine = Registration::load(tokens, self.pending.values().cloned(), roster, entropy);
    }

    fn command(&mut self, command: Command) -> Result<Answer, CommandError> {
        let operation = OperationId::from_bytes([9; 8]);
        self.input(Input::Command { operation, caller: "ada".to_owned(), command });
        let Some(Effect::Answer { result, .. }) = self.queue.pop_back() else { panic!("a command is answered") };
        result
    }

    fn token(&mut self, wish: TokenWish) -> (TokenId, Vec<u8>) {
        let Ok(Answer::Created { token, secret }) = self.command(Command::CreateToken(wish)) else {
            panic!("a token is made")
        };
        (token.token, secret.as_bytes().to_vec())
    }

    fn ask(&mut self, index: u8, (token, secret): &(TokenId, Vec<u8>)) {
        let request = Register {
            token: *token,
            secret: secret.clone(),
            csr: vec![index],
            facts: Facts::from([("arch".to_owned(), "arm64".to_owned())]),
            sealing_key: [index; 32],
        };
        let operation = OperationId::from_bytes([index; 8]);
        self.input(Input::Register { operation, key: device_key(index).public(), request: Box::new(request) });
    }

    fn register(&mut self, index: u8, token: &(TokenId, Vec<u8>)) -> Registered {
        self.ask(index, token);
        self.run();
        match self.answers.pop() {
            Some(Effect::Registered { operation, registered }) => {
                assert_eq!(operation, OperationId::from_bytes([index; 8]));
                registered
            }
            other => panic!("{other:?} is no answer to a device"),
        }
    }

    fn refusal(&mut self, index: u8, token: &(TokenId, Vec<u8>)) -> String {
        match self.register(index, token) {
            Registered::Refused(refusal) => refusal.code,
            other => panic!("{other:?} is no refusal"),
        }
    }

    fn revoke(&mut self, index: u8) {
        let mut chain = chain();
        let revoke = Change::Revoke { key: device_key(index).id(), revocation: Revocation::Compromised };
        chain.extend(chain.draft_next([revoke]).unwrap().sign(&root())).unwrap();
        self.input(Input::Trust(Arc::new(Roster::new(&chain, []))));
    }
}

#[test]
fn a_device_joins_with_a_name_and_what_its_token_gives() {
    let mut bench = Bench::new();
    let token = bench.token(wish(1));
    let Registered::Issued { device, name, certificates } = bench.register(1, &token) else { panic!("it may join") };
    let record = bench.devices.get(&local(1)).unwrap();
    assert_eq!((record.device, &record.name), (device, &name));
    assert_eq!(certificates, [local(1).as_bytes().to_vec()], "issued for the hash of its key");
    assert_eq!(record.site, "berlin");
    assert_eq!(record.labels.len(), 1);
    assert_eq!(record.facts.get("arch").map(String::as_str), Some("arm64"));
    assert_eq!(name.as_str().matches('-').count(), 1);
}

#[test]
fn asking_twice_is_asking_once() {
    let mut bench = Bench::new();
    let token = bench.token(wish(1));
    let first = bench.register(1, &token);
    assert_eq!(bench.register(1, &token), first);
    bench.restart();
    assert_eq!(bench.register(1, &token), first);
    assert_eq!(bench.used.get(&token.0), Some(&BTreeSet::from([local(1)])));
    assert_eq!(bench.devices.len(), 1);
}

#[test]
fn each_bad_token_has_a_code_of_its_own() {
    let mut bench = Bench::new();
    let token = bench.token(wish(1));
    bench.register(1, &token);
    assert_eq!(bench.refusal(2, &token), "enrolment.token.used_up");
    assert_eq!(bench.refusal(2, &(token.0, vec![0; 32])), "enrolment.token.wrong");
    assert_eq!(bench.refusal(2, &(token.0, vec![0; 3])), "enrolment.token.wrong");
    let foreign = TokenId::from_bytes([77; 10]);
    assert_eq!(bench.refusal(2, &(foreign, token.1)), "enrolment.token.unknown");
    let short = bench.token(TokenWish { expires_at: Some(Wall(2000)), ..wish(1) });
    bench.now.wall = Wall(2000);
    assert_eq!(bench.refusal(2, &short), "enrolment.token.expired");
    let revoked = bench.token(wish(1));
    bench.command(Command::RevokeToken(revoked.0)).unwrap();
    bench.restart();
    assert_eq!(bench.refusal(2, &revoked), "enrolment.token.revoked");
    assert_eq!(bench.devices.len(), 1);
}

#[test]
fn a_revoked_key_never_joins_again() {
    let mut bench = Bench::new();
    let token = bench.token(wish(1));
    bench.register(1, &token);
    bench.revoke(1);
    assert_eq!(bench.refusal(1, &token), "enrolment.key.revoked");
    let mut bench = Bench::new();
    let token = bench.token(wish(1));
    bench.register(1, &token);
    bench.devices.get_mut(&local(1)).unwrap().membership = Membership::Revoked;
    assert_eq!(bench.refusal(1, &token), "enrolment.device.ended", "also where only its own record says so");
}

#[test]
fn devices_of_a_token_for_several_wait_for_approval() {
    let mut bench = Bench::new();
    let token = bench.token(wish(2));
    assert!(matches!(bench.register(1, &token), Registered::Pending { .. }));
    bench.now.wall = Wall(1001);
    assert!(matches!(bench.register(2, &token), Registered::Pending { .. }));
    assert!(bench.used.is_empty(), "waiting uses nothing up");
    bench.restart();
    let Ok(Answer::Pending(waiting)) = bench.command(Command::ListPending) else { panic!("a list") };
    assert_eq!(waiting.iter().map(|device| device.local).collect::<Vec<_>>(), [local(1), local(2)]);
    bench.command(approve(1, Given::default())).unwrap();
    bench.command(Command::Deny(local(2))).unwrap();
    bench.restart();
    assert!(matches!(bench.register(1, &token), Registered::Issued { .. }));
    assert_eq!(bench.refusal(2, &token), "enrolment.denied");
    let Ok(Answer::Pending(waiting)) = bench.command(Command::ListPending) else { panic!("a list") };
    assert!(waiting.is_empty());
    assert!(matches!(bench.register(1, &token), Registered::Issued { .. }), "a member needs no second word");
    let nobody = bench.command(approve(3, Given::default()));
    assert!(matches!(nobody, Err(CommandError::NotPending { device }) if device == local(3)));
}

#[test]
fn a_device_whose_token_ended_while_it_waited_gets_no_word_that_would_not_count() {
    let mut bench = Bench::new();
    let token = bench.token(wish(3));
    bench.register(1, &token);
    bench.command(Command::RevokeToken(token.0)).unwrap();
    let before = bench.pending.clone();
    let refused = bench.command(approve(1, Given::default())).unwrap_err();
    assert!(matches!(refused, CommandError::TokenEnded { cause: AdmitError::Revoked, .. }), "{refused}");
    assert_eq!(bench.pending, before);
    bench.command(Command::Deny(local(1))).unwrap();
}

#[test]
fn an_approved_device_joins_with_the_name_and_the_labels_that_it_was_given() {
    let mut bench = Bench::new();
    let token = bench.token(wish(3));
    bench.register(1, &token);
    bench.command(approve(1, given("till-3", &[("shop", "7"), ("floor", "3")]))).unwrap();
    bench.restart();
    let Registered::Issued { name, .. } = bench.register(1, &token) else { panic!("it was let in") };
    assert_eq!(name.as_str(), "till-3");
    let labels: Vec<_> =
        bench.devices[&local(1)].labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(labels, [("floor", "3"), ("shop", "7")], "the operator's before the token's");
    assert!(bench.pending.is_empty());
}

#[test]
fn an_approval_that_cannot_be_kept_changes_nothing() {
    let mut bench = Bench::new();
    let token = bench.token(wish(3));
    bench.register(1, &token);
    bench.register(2, &token);
    bench.command(approve(1, given("till-3", &[]))).unwrap();
    let before = bench.pending.clone();
    let taken = bench.command(approve(2, given("till-3", &[]))).unwrap_err();
    assert_eq!(taken, CommandError::NameTaken { name: "till-3".parse().unwrap() });
    // The token's label is one of them.
    let keys: Vec<String> = (0..limit::DEVICE_LABELS_MAX).map(|index| format!("key-{index}")).collect();
    let labels: Vec<_> = keys.iter().map(|key| (key.as_str(), "x")).collect();
    let many = bench.command(approve(2, given("till-4", &labels))).unwrap_err();
    let count_max = limit::DEVICE_LABELS_MAX;
    assert_eq!(many, CommandError::TooManyLabels { count: count_max + 1, count_max });
    assert_eq!(bench.pending, before);
    assert!(matches!(bench.register(2, &token), Registered::Pending { .. }), "it still waits");
    bench.command(approve(2, given("till-4", labels.get(1..).unwrap()))).unwrap();
    assert!(matches!(bench.register(2, &token), Registered::Issued { .. }));
}

#[test]
fn a_given_name_that_was_taken_meanwhile_is_drawn_again() {
    let mut bench = Bench::new();
    let free = bench.token(TokenWish { needs_approval: Some(false), ..wish(1) });
    let token = bench.token(wish(2));
    bench.register(1, &token);
    bench.command(approve(1, given("till-3", &[("shop", "7")]))).unwrap();
    bench.register(2, &free);
    bench.devices.get_mut(&local(2)).unwrap().name = "till-3".parse().unwrap();
    let Registered::Issued { name, .. } = bench.register(1, &token) else { panic!("it was let in") };
    assert_ne!(name.as_str(), "till-3");
    assert_eq!(bench.devices[&local(1)].labels.len(), 2, "it keeps the labels");
}

#[test]
fn a_name_that_is_taken_is_drawn_again() {
    let mut bench = Bench::new();
    let token = bench.token(TokenWish { needs_approval: Some(false), ..wish(2) });
    bench.register(1, &token);
    bench.ask(2, &token);
    for _ in 0..3 {
        let Some(Effect::Find { operation, .. }) = bench.queue.pop_front() else { panic!("it looks names up") };
        bench.input(Input::Found { operation, known: None, name_is_free: false });
    }
    bench.run();
    assert!(matches!(bench.answers.pop(), Some(Effect::Registered { registered: Registered::Issued { .. }, .. })));
    let names: BTreeSet<_> = bench.devices.values().map(|record| record.name.clone()).collect();
    assert_eq!(names.len(), 2);
}

#[test]
fn what_is_never_answered_is_put_off_and_harms_nobody() {
    let mut bench = Bench::new();
    let token = bench.token(wish(1));
    bench.ask(1, &token);
    bench.queue.clear();
    assert!(matches!(bench.register(1, &token), Registered::Pending { .. }), "it is asking already");
    bench.now.monotonic = bench.machine.poll_timeout().unwrap();
    let mut turn = Turn::new();
    bench.machine.handle_timeout(bench.now, &mut turn);
    bench.take(turn);
    bench.run();
    assert!(matches!(bench.answers.pop(), Some(Effect::Registered { registered: Registered::Pending { .. }, .. })));
    assert!(matches!(bench.register(1, &token), Registered::Issued { .. }));
    bench.input(Input::Enrolled { operation: OperationId::from_bytes([42; 8]) });
    assert!(bench.queue.is_empty(), "an unknown answer is ignored");
}

#[test]
fn certificates_are_renewed_for_the_devices_own_key_only() {
    let mut bench = Bench::new();
    let operation = OperationId::from_bytes([1; 8]);
    let renew = |bench: &mut Bench, key: u8| {
        let key = device_key(key).public();
        bench.input(Input::Renew { operation, device: local(1), key });
        bench.run();
        match bench.answers.pop() {
            Some(Effect::Renewed { renewed, .. }) => renewed,
            other => panic!("{other:?} is no answer"),
        }
    };
    assert!(matches!(renew(&mut bench, 1), Renewed::Issued { .. }));
    assert!(matches!(renew(&mut bench, 2), Renewed::Refused(refusal) if refusal.code == "enrolment.key.other"));
    bench.revoke(1);
    assert!(matches!(renew(&mut bench, 1), Renewed::Refused(refusal) if refusal.code == "enrolment.key.revoked"));
}

#[test]
fn tokens_that_would_admit_nobody_are_not_made() {
    let mut bench = Bench::new();
    assert_eq!(bench.command(Command::CreateToken(wish(0))).unwrap_err(), CommandError::NoUses);
    let past = TokenWish { expires_at: Some(Wall(1000)), ..wish(1) };
    let refused = bench.command(Command::CreateToken(past)).unwrap_err();
    assert_eq!(refused, CommandError::ExpiresInThePast { expires_at: Wall(1000), now: Wall(1000) });
    let token = TokenId::from_bytes([1; 10]);
    assert_eq!(bench.command(Command::RevokeToken(token)).unwrap_err(), CommandError::UnknownToken { token });
    let Ok(Answer::Tokens(tokens)) = bench.command(Command::ListTokens) else { panic!("a list") };
    assert!(tokens.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    /// However requests, answers and restarts fall: no token admits more than it may, no name is given twice, and
    /// a device that comes again gets what it got before.
    #[test]
    fn many_devices_at_once_get_names_and_uses_of_their_own(
        happenings in prop::collection::vec((0..4_u8, 1..12_u8, any::<prop::sample::Index>()), 0..120),
        uses_max in 1..8_u32,
    ) {
        let mut bench = Bench::new();
        let token = bench.token(TokenWish { needs_approval: Some(false), ..wish(uses_max) });
        for (kind, index, which) in happenings {
            match kind {
                0 => bench.ask(index, &token),
                1 if index == 1 => bench.restart(),
                _ if !bench.queue.is_empty() => bench.step(which.index(bench.queue.len())),
                _ => {}
            }
        }
        bench.run();
        let used = bench.used.get(&token.0).cloned().unwrap_or_default();
        prop_assert!(used.len() <= usize::try_from(uses_max).unwrap());
        prop_assert_eq!(used.iter().collect::<BTreeSet<_>>().len(), used.len());
        prop_assert!(bench.devices.keys().all(|device| used.contains(device)));
        let names: BTreeSet<_> = bench.devices.values().map(|record| &record.name).collect();
        prop_assert_eq!(names.len(), bench.devices.len());
        let mut given = BTreeMap::new();
        for answer in &bench.answers {
            if let Effect::Registered { operation, registered: Registered::Issued { device, name, .. } } = answer {
                let before = given.insert(*operation, (*device, name.clone()));
                prop_assert!(before.is_none_or(|before| before == (*device, name.clone())));
            }
        }
    }
}

#[test]
fn a_device_whose_record_was_lost_gets_a_name_that_nobody_has() {
    let mut bench = Bench::new();
    let recover = |bench: &mut Bench, index: u8| {
        bench.input(Input::Recover { device: local(index), key: device_key(index).public() });
    };
    recover(&mut bench, 1);
    let Some(Effect::Find { operation, .. }) = bench.queue.pop_front() else { panic!("it looks a name up") };
    bench.input(Input::Found { operation, known: None, name_is_free: false });
    bench.run();
    let record = bench.devices.get(&local(1)).unwrap();
    assert_eq!((record.membership, record.key), (Membership::Recovered, device_key(1).public().into()));
    assert!(bench.answers.is_empty() && bench.machine.is_idle());

    recover(&mut bench, 2);
    recover(&mut bench, 2);
    bench.run();
    let answers = bench.answers.drain(..).collect::<Vec<_>>();
    let is_busy = |answer: &Effect| matches!(answer, Effect::NotRecovered { code: CloseCode::Busy, .. });
    assert!(answers.len() == 1 && answers.iter().all(is_busy), "it is under way already: {answers:?}");
    assert_eq!(bench.devices.len(), 2);
    recover(&mut bench, 2);
    bench.run();
    assert!(bench.answers.drain(..).all(|answer| is_busy(&answer)), "it has one");
}

#[test]
fn a_device_that_was_revoked_or_denied_gets_no_record_back() {
    let mut bench = Bench::new();
    bench.revoke(1);
    bench.input(Input::Recover { device: local(1), key: device_key(1).public() });
    bench.run();
    assert!(matches!(bench.answers.pop(), Some(Effect::NotRecovered { code: CloseCode::Revoked, .. })));
    let token = bench.token(wish(2));
    bench.register(2, &token);
    bench.command(Command::Deny(local(2))).unwrap();
    bench.input(Input::Recover { device: local(2), key: device_key(2).public() });
    bench.run();
    assert!(matches!(bench.answers.pop(), Some(Effect::NotRecovered { code: CloseCode::Unknown, .. })));
    assert!(bench.devices.is_empty());
}

#[test]
fn a_recovered_device_with_a_token_for_several_waits_for_approval_too() {
    let mut bench = Bench::new();
    bench.input(Input::Recover { device: local(1), key: device_key(1).public() });
    bench.run();
    let token = bench.token(wish(2));
    assert!(matches!(bench.register(1, &token), Registered::Pending { .. }));
    bench.command(approve(1, Given::default())).unwrap();
    assert!(matches!(bench.register(1, &token), Registered::Issued { .. }));
}

#[test]
fn a_recovery_that_is_never_answered_is_put_off() {
    let mut bench = Bench::new();
    bench.input(Input::Recover { device: local(1), key: device_key(1).public() });
    bench.queue.clear();
    bench.now.monotonic = bench.machine.poll_timeout().unwrap();
    let mut turn = Turn::new();
    bench.machine.handle_timeout(bench.now, &mut turn);
    bench.take(turn);
    bench.run();
    assert!(matches!(bench.answers.pop(), Some(Effect::NotRecovered { code: CloseCode::Busy, .. })));
    assert!(bench.machine.is_idle());
}

#[test]
fn a_device_leaves_one_trace_however_often_it_asks() {
    let mut bench = Bench::new();
    let token = bench.token(TokenWish { needs_approval: Some(true), ..wish(2) });
    for _ in 0..3 {
        assert!(matches!(bench.register(1, &token), Registered::Pending { .. }));
    }
    assert_eq!(bench.traced, vec![(local(1), None)], "it waits");
    bench.command(approve(1, Given::default())).unwrap();
    for _ in 0..3 {
        assert!(matches!(bench.register(1, &token), Registered::Issued { .. }));
    }
    let name = bench.devices[&local(1)].name.clone();
    assert_eq!(bench.traced, vec![(local(1), None), (local(1), Some(name.clone()))], "it has joined");
    let other = bench.token(wish(1));
    assert!(matches!(bench.register(1, &other), Registered::Issued { .. }));
    assert_eq!(bench.traced.last(), Some(&(local(1), Some(name))), "it has used another token up");
}

#[test]
fn nothing_is_stored_of_a_device_that_the_audit_log_did_not_take() {
    let mut bench = Bench::new();
    let token = bench.token(wish(1));
    bench.ask(1, &token);
    while !matches!(bench.queue.front(), Some(Effect::Trace { .. })) {
        bench.step(0);
    }
    bench.queue.clear();
    bench.now.monotonic = bench.now.monotonic + OPEN_FOR_MAX;
    let mut turn = Turn::new();
    bench.machine.handle_timeout(bench.now, &mut turn);
    bench.take(turn);
    bench.run();
    assert!(matches!(bench.answers.pop(), Some(Effect::Registered { registered: Registered::Pending { .. }, .. })));
    assert!(bench.used.is_empty() && bench.devices.is_empty());
    assert!(matches!(bench.register(1, &token), Registered::Issued { .. }));
}
