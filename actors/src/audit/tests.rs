//! The audit log, stepped by hand above a store that may be lost at any turn.

use fleetd_sync_core::audit::origin;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::time::{ClockQuality, Wall};
use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn fleet_origin() -> EntryHash {
    origin(FleetId::from_bytes([7; 16]))
}

fn by(id: u8) -> By {
    By::Token { id: AccessId::from_bytes([id; 10]), name: format!("caller {id}"), role: "deployer".to_owned() }
}

fn call(id: u8, subject: &str) -> Call {
    let subjects = vec![subject.to_owned()];
    Call { by: by(id), action: "fleetd.test.v1.TestService/Change".to_owned(), subjects, request: "{}".to_owned() }
}

/// The log, what is stored of it, and who was answered.
struct Bench {
    machine: Audit,
    now: Now,
    entropy: Entropy,
    entries: BTreeMap<u64, Vec<u8>>,
    standing: Standing,
    open: BTreeMap<u64, Vec<u8>>,
    noted: Vec<(OperationId, u64)>,
    looks: Vec<(u64, String)>,
}

impl Bench {
    fn new() -> Self {
        let standing = Standing::empty(fleet_origin());
        let mut bench = Self {
            machine: Audit::load(&standing, []),
            now: Now { wall: Wall(1000), quality: ClockQuality::Synced, ..Now::default() },
            entropy: Entropy::from_seed([1; 32]),
            entries: BTreeMap::new(),
            standing,
            open: BTreeMap::new(),
            noted: Vec::new(),
            looks: Vec::new(),
        };
        bench.pass(Duration::ZERO);
        bench
    }

    fn take(&mut self, turn: AuditTurn) {
        let (records, effects) = turn.into_parts();
        for record in records {
            match record {
                Record::Entry { number, entry } => drop(self.entries.insert(number, entry)),
                Record::Standing(standing) => self.standing = standing,
                Record::Opened { intent, entry } => drop(self.open.insert(intent, entry)),
                Record::Closed { intent } => drop(self.open.remove(&intent)),
                Record::Forgotten { first, last } => self.entries.retain(|number, _| !(first..=last).contains(number)),
            }
        }
        for effect in effects {
            match effect {
                Effect::Noted { operation, number } => self.noted.push((operation, number)),
                Effect::Look { intent, request_id, .. } => self.looks.push((intent, request_id)),
            }
        }
    }

    fn input(&mut self, input: Input) {
        let mut turn = Turn::new();
        self.machine.handle(self.now, input, &mut turn);
        self.take(turn);
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic = self.now.monotonic + time;
        let mut turn = Turn::new();
        self.machine.handle_timeout(self.now, &mut turn);
        self.take(turn);
    }

    fn intend(&mut self, id: u8, subject: &str, request_id: &str) -> u64 {
        let operation = OperationId::random(&mut self.entropy);
        self.input(Input::Intend { operation, call: call(id, subject), request_id: request_id.to_owned() });
        let (answered, number) = *self.noted.last().unwrap();
        assert_eq!(answered, operation);
        number
    }

    fn conclude(&mut self, intent: u64, subject: &str, outcome: Outcome) -> u64 {
        let operation = OperationId::random(&mut self.entropy);
        self.input(Input::Conclude { operation, intent, subjects: vec![subject.to_owned()], outcome });
        self.noted.last().unwrap().1
    }

    fn refuse(&mut self, id: u8) {
        self.input(Input::Refuse { call: call(id, ""), code: "access.role.too_low".to_owned() });
    }

    fn restart(&mut self) {
        let open = self.open.values().map(|entry| Entry::decode(entry).unwrap());
        self.machine = Audit::load(&self.standing, open).keeping(self.machine.kept);
        self.pass(Duration::ZERO);
    }

    fn entry(&self, number: u64) -> Entry {
        Entry::decode(&self.entries[&number]).unwrap()
    }

    /// Follows the chain through all that is kept.
    fn check(&self) -> Vec<Entry> {
        let first = self.standing.first;
        let before =
            self.entries.get(&first).map_or(self.standing.head, |entry| Entry::decode(entry).unwrap().previous);
        if first == 1 && !self.entries.is_empty() {
            assert_eq!(before, fleet_origin());
        }
        let mut chain = Chain::after(first - 1, before);
        let entries = self.entries.values().map(|entry| chain.follow(entry).unwrap()).collect();
        assert_eq!((chain.last(), chain.head()), (self.standing.last, self.standing.head));
        entries
    }
}

#[test]
fn a_call_leaves_its_intent_and_then_its_outcome() {
    let mut bench = Bench::new();
    let intent = bench.intend(1, "kitchen", "r1");
    assert_eq!(bench.open.len(), 1);
    let outcome = bench.conclude(intent, "loc_1", Outcome::Done);
    assert_eq!((intent, outcome), (1, 2));
    let entry = bench.entry(2);
    assert_eq!(entry.stage, Stage::Outcome { intent: 1, outcome: Outcome::Done });
    assert_eq!((entry.by, entry.subjects), (by(1), vec!["kitchen".to_owned(), "loc_1".to_owned()]));
    assert!(bench.open.is_empty());
    assert_eq!(bench.check().len(), 2);
}

#[test]
fn a_call_whose_caller_has_gone_gets_its_outcome_from_its_receipt() {
    for (is_made, outcome) in [(true, Outcome::Made), (false, Outcome::Unknown)] {
        let mut bench = Bench::new();
        let intent = bench.intend(1, "kitchen", "r1");
        bench.input(Input::Leave { intent });
        assert_eq!(bench.machine.poll_timeout(), Some(bench.now.monotonic + LEFT_FOR), "an actor may still answer");
        bench.pass(LEFT_FOR);
        assert_eq!(bench.looks, vec![(intent, "r1".to_owned())]);
        bench.input(Input::Looked { intent, is_made });
        assert_eq!(bench.entry(2).stage, Stage::Outcome { intent, outcome });
        assert_eq!(bench.conclude(intent, "", Outcome::Done), 2, "it has one outcome");
        assert_eq!(bench.check().len(), 2);
    }
}

#[test]
fn a_call_that_the_servers_end_cut_off_gets_its_outcome_after_the_next_start() {
    let mut bench = Bench::new();
    let intent = bench.intend(1, "kitchen", "r1");
    let nameless = bench.intend(1, "hall", "");
    bench.restart();
    assert!(bench.looks.is_empty(), "where only the log was loaded again, it is still being answered");
    bench.pass(LEFT_FOR);
    assert_eq!(bench.looks, vec![(intent, "r1".to_owned())]);
    assert_eq!(bench.entry(3).stage, Stage::Outcome { intent: nameless, outcome: Outcome::Unknown });
    bench.input(Input::Looked { intent, is_made: true });
    bench.restart();
    bench.pass(LEFT_FOR);
    assert_eq!((bench.check().len(), bench.looks.len()), (4, 1));
}

#[test]
fn refusals_are_noted_a_few_times_and_then_counted() {
    let mut bench = Bench::new();
    for _ in 0..1000 {
        bench.refuse(1);
    }
    assert_eq!(bench.entries.len(), 10);
    (2..100).for_each(|id| bench.refuse(id));
    assert_eq!(bench.entries.len(), 40);
    bench.pass(HOUR);
    let Stage::Whole { request, .. } = bench.entry(41).stage else { panic!("it is counted") };
    assert_eq!(request, "1058 more refusals for too low a role left no entry");
    bench.refuse(1);
    assert_eq!(bench.entries.len(), 42, "another hour");
    bench.pass(HOUR);
    assert_eq!(bench.entries.len(), 42, "nothing was left out");
    assert_eq!(bench.machine.poll_timeout(), None);
    bench.check();
}

#[test]
fn old_entries_are_forgotten_and_the_rest_is_still_a_chain() {
    let mut bench = Bench::new();
    bench.machine = Audit::load(&bench.standing, []).keeping(300);
    let open = bench.intend(1, "slow", "r0");
    let mut lengths = Vec::new();
    for _ in 0..2000 {
        bench.input(Input::Note { operation: None, call: call(1, "x"), outcome: Outcome::Done });
        lengths.push(bench.check().len());
    }
    assert!(lengths.iter().skip(400).all(|length| (300..300 + 256).contains(length)), "{lengths:?}");
    let forgets = bench.check().into_iter().filter(|entry| entry.action == action::FORGET).count();
    assert!(forgets > 0, "it says what it forgot");
    bench.restart();
    bench.conclude(open, "", Outcome::Done);
    let outcome = bench.entry(bench.standing.last);
    assert_eq!(outcome.subjects, vec!["slow".to_owned()], "what it is about is known though its intent has gone");
}

#[test]
fn a_log_that_says_that_it_has_far_too_many_entries_loses_them_bit_by_bit() {
    let standing = Standing { last: u64::MAX / 2, ..Standing::empty(fleet_origin()) };
    let mut machine = Audit::load(&standing, []);
    for turns in 1..4 {
        let mut turn = AuditTurn::new();
        let note = Input::Note { operation: None, call: call(1, "x"), outcome: Outcome::Done };
        machine.handle(Now::default(), note, &mut turn);
        let records = turn.into_parts().0;
        let entries = records.iter().filter(|record| matches!(record, Record::Entry { .. })).count();
        assert_eq!(
            (entries, machine.first),
            (2, 1 + turns * FORGOTTEN_AT_ONCE),
            "the note, and that some were forgotten"
        );
    }
}

proptest! {
    #[test]
    fn whatever_happens_it_is_one_chain(steps in proptest::collection::vec((0_u8..7, 1_u8..4), 1..80)) {
        let mut bench = Bench::new();
        bench.machine = Audit::load(&bench.standing, []).keeping(10);
        let mut ended = 0;
        for (step, id) in steps {
            let open = bench.open.keys().next().copied();
            match (step, open) {
                (0 | 1, _) => drop(bench.intend(id, "thing", "r")),
                (2, Some(intent)) => drop(bench.conclude(intent, "", Outcome::Done)),
                (3, Some(intent)) => bench.input(Input::Leave { intent }),
                (4, _) => bench.restart(),
                (5, _) => bench.refuse(id),
                _ => bench.pass(LEFT_FOR),
            }
            for (intent, _) in std::mem::take(&mut bench.looks) {
                bench.input(Input::Looked { intent, is_made: ended % 2 == 0 });
                ended += 1;
            }
            bench.check();
        }
        bench.restart();
        bench.pass(LEFT_FOR);
        let looks = std::mem::take(&mut bench.looks);
        looks.into_iter().for_each(|(intent, _)| bench.input(Input::Looked { intent, is_made: false }));
        prop_assert!(bench.open.is_empty(), "each call has its outcome in the end");
        let entries = bench.check();
        let intents = entries.iter().filter(|entry| matches!(entry.stage, Stage::Intent { .. })).count();
        let outcomes = entries.iter().filter(|entry| matches!(entry.stage, Stage::Outcome { .. })).count();
        prop_assert!(outcomes >= intents || bench.standing.first > 1);
    }
}
