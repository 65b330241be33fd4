//! A device and a server, joined by a link that loses, repeats and reorders, both of which may die at any commit.

use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::limit;
use fleetd_sync_core::time::{ClockQuality, Wall};
use proptest::prelude::*;

use super::*;
use crate::log_record::{GapReason, LogLine, LogRecord, LogSource};
use crate::log_spool::{self, LineMark, LogSpool, SpoolRecord, SpooledBatch, Unit};

fn workload() -> WorkloadName {
    "coffee".parse().unwrap()
}

fn line(number: u64) -> LogRecord {
    let body = number.to_string().into_bytes();
    let (time, quality, source) = (Wall(0), ClockQuality::None, LogSource::Stdout);
    LogRecord::Line(LogLine { time, quality, source, cut: false, body })
}

fn number_of(record: &LogRecord) -> Option<u64> {
    match record {
        LogRecord::Line(line) => Some(std::str::from_utf8(&line.body).unwrap().parse().unwrap()),
        LogRecord::Gap { .. } => None,
    }
}

/// What survives the device's death.
#[derive(Clone, Default)]
struct DeviceDisk {
    record: SpoolRecord,
    entries: BTreeMap<u64, (LogStream, LogBatch)>,
    next_entry: u64,
}

/// What survives the server's death.
#[derive(Clone, Default)]
struct ServerDisk {
    log: Vec<(LogStream, LogBatch)>,
    numberings: BTreeMap<(BootId, Stamp), Numbering>,
}

enum Packet {
    Push(LogStream, LogBatch),
    Ack(LogPosition),
}

/// When a turn's node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    Never,
    BeforeCommit,
    AfterCommit,
}

struct World {
    device: LogSpool,
    server: LogStore,
    device_disk: DeviceDisk,
    server_disk: ServerDisk,
    image: ServerDisk,
    now: Now,
    link: Vec<Packet>,
    /// Lines that the workload wrote; those up to `dropped` the runner has let go.
    written: u64,
    dropped: u64,
    reading: Option<(OperationId, Option<LineMark>)>,
    loads: u8,
    was_restored: bool,
    spool_bytes_max: u64,
    death: Death,
}

impl World {
    fn new(spool_bytes_max: u64) -> Self {
        let device_disk = DeviceDisk { next_entry: 1, ..DeviceDisk::default() };
        let mut world = Self {
            device: load_device(&device_disk, 0, spool_bytes_max),
            server: load_server(&ServerDisk::default()),
            device_disk,
            server_disk: ServerDisk::default(),
            image: ServerDisk::default(),
            now: Now::default(),
            link: vec![],
            written: 0,
            dropped: 0,
            reading: None,
            loads: 0,
            was_restored: false,
            spool_bytes_max,
            death: Death::Never,
        };
        world.wake_device();
        world.connect();
        world
    }

    fn device_turn(&mut self, turn: Turn<log_spool::Record, log_spool::Effect>) {
        let (records, effects) = turn.into_parts();
        let has_records = !records.is_empty();
        if has_records && self.death == Death::BeforeCommit {
            return self.restart_device();
        }
        for record in records {
            match record {
                log_spool::Record::Append { entry, stream, batch } => {
                    assert_eq!(entry, self.device_disk.next_entry, "entries follow each other");
                    self.device_disk.next_entry += 1;
                    self.device_disk.entries.insert(entry, (stream, batch));
                }
                log_spool::Record::Forget { through } => {
                    // Whole segments only: what lies below may stay.
                    self.device_disk.entries.retain(|entry, _| *entry > through - through % 3);
                }
                log_spool::Record::Spool(record) => self.device_disk.record = record,
            }
        }
        if has_records && self.death == Death::AfterCommit {
            return self.restart_device();
        }
        effects.into_iter().for_each(|effect| self.device_effect(effect));
    }

    fn device_effect(&mut self, effect: log_spool::Effect) {
        match effect {
            log_spool::Effect::ReadLines { operation, after, .. } => self.reading = Some((operation, after)),
            log_spool::Effect::AcknowledgeLines { through } => self.dropped = self.dropped.max(through.sequence),
            log_spool::Effect::Send { stream, unit: Unit::Batch { entry, .. } } => {
                let (found, batch) = self.device_disk.entries.get(&entry).expect("what is sent is there").clone();
                assert_eq!(found, stream);
                self.link.push(Packet::Push(stream, batch));
            }
            log_spool::Effect::Send { stream, unit: Unit::Gap { first, count, reason } } => {
                let records = vec![LogRecord::Gap { count, reason }];
                self.link.push(Packet::Push(stream, LogBatch { sequence_first: first, records }));
            }
            log_spool::Effect::Logged(_) => {}
        }
    }

    fn server_turn(&mut self, turn: StoreTurn) {
        let (records, effects) = turn.into_parts();
        let has_records = !records.is_empty();
        if has_records && self.death == Death::BeforeCommit {
            return self.restart_server();
        }
        for record in records {
            match record {
                Record::Append { entry, stream, batch } => {
                    self.server_disk.log.push((stream, batch));
                    assert_eq!(u64::try_from(self.server_disk.log.len()).unwrap(), entry);
                }
                Record::Position(found) => {
                    self.server_disk.numberings.insert((found.boot, found.stamp), found);
                }
                Record::Forget { boot, stamp } => drop(self.server_disk.numberings.remove(&(boot, stamp))),
            }
        }
        if has_records && self.death == Death::AfterCommit {
            return self.restart_server();
        }
        for effect in effects {
            if let Effect::Acknowledge(position) = effect {
                self.link.push(Packet::Ack(position));
            }
        }
    }

    fn device_input(&mut self, input: log_spool::Input) {
        let mut turn = Turn::new();
        self.device.handle(self.now, input, &mut turn);
        self.device_turn(turn);
    }

    fn wake_device(&mut self) {
        let mut turn = Turn::new();
        self.device.handle_timeout(self.now, &mut turn);
        self.device_turn(turn);
    }

    fn restart_device(&mut self) {
        self.death = Death::Never;
        self.loads += 1;
        self.reading = None;
        self.link.clear();
        self.device = load_device(&self.device_disk, self.loads, self.spool_bytes_max);
        self.wake_device();
        self.connect();
    }

    fn restart_server(&mut self) {
        self.death = Death::Never;
        self.link.clear();
        self.server = load_server(&self.server_disk);
        self.connect();
    }

    fn connect(&mut self) {
        self.link.clear();
        self.device_input(log_spool::Input::Unlinked);
        let positions = self.server.positions();
        self.device_input(log_spool::Input::Linked);
        self.device_input(log_spool::Input::ServerPositions(positions));
    }

    fn deliver(&mut self, index: usize, keep: bool) {
        if self.link.is_empty() {
            return;
        }
        let index = index % self.link.len();
        let packet = match (&self.link[index], keep) {
            (Packet::Push(stream, batch), true) => Packet::Push(stream.clone(), batch.clone()),
            (Packet::Ack(position), true) => Packet::Ack(position.clone()),
            _ => self.link.remove(index),
        };
        match packet {
            Packet::Push(stream, batch) => {
                let mut turn = Turn::new();
                self.server.handle(self.now, Input::Received { stream, batch }, &mut turn);
                self.server_turn(turn);
            }
            Packet::Ack(position) => self.device_input(log_spool::Input::Acknowledged(position)),
        }
    }

    fn read(&mut self) {
        let Some((operation, after)) = self.reading.take() else { return };
        let after = after.map_or(0, |mark| mark.sequence);
        assert!(after >= self.dropped, "the runner let go of a line that was not spooled");
        let last = self.written.min(after + 3);
        let records: Vec<_> = (after + 1..=last).map(line).collect();
        let through = (last > after).then_some(LineMark { stamp: Stamp(1), sequence: last });
        self.device_input(log_spool::Input::LinesRead { operation, through, records });
    }

    fn wait(&mut self, span: Duration) {
        self.now.monotonic = self.now.monotonic + span;
        if self.device.poll_timeout().is_some_and(|at| at <= self.now.monotonic) {
            self.wake_device();
        }
    }

    /// Lets both ends finish over a link that works.
    fn heal(&mut self) {
        self.death = Death::Never;
        self.connect();
        for _ in 0..400 {
            self.device_input(log_spool::Input::LinesWritten);
            self.wait(limit::LOG_SEGMENT_AGE);
            self.read();
            while !self.link.is_empty() {
                self.deliver(0, false);
            }
            if self.device.spooled().0 == 0
                && self.device_disk.record.read.map_or(0, |mark| mark.sequence) == self.written
            {
                return;
            }
        }
        panic!("the spool never empties: {:?}", self.device);
    }

    /// Checks that the store has each line once or a gap in its place, in order, without a hole in any stream.
    fn check(&self) -> Result<(), TestCaseError> {
        let mut next = BTreeMap::<LogStream, u64>::new();
        let (mut lines, mut last_line) = (Vec::new(), BTreeMap::new());
        let (mut missing, mut reasons) = (0, BTreeSet::new());
        for (stream, batch) in &self.server_disk.log {
            let expected = next.entry(stream.clone()).or_insert(1);
            prop_assert_eq!(batch.sequence_first, *expected, "a hole, or a number given twice");
            *expected = batch.sequence_last().unwrap() + 1;
            for record in &batch.records {
                match (record, number_of(record)) {
                    (_, Some(number)) => {
                        let last = last_line.insert(stream.clone(), number);
                        prop_assert!(last < Some(number), "{stream:?} is out of order");
                        lines.push(number);
                    }
                    (LogRecord::Gap { count, reason }, _) => {
                        missing += count;
                        reasons.insert(*reason);
                    }
                    _ => {}
                }
            }
        }
        let unique: BTreeSet<_> = lines.iter().copied().collect();
        prop_assert_eq!(unique.len(), lines.len(), "a line is stored twice");
        prop_assert_eq!(
            u64::try_from(lines.len()).unwrap() + missing,
            self.written,
            "a line is neither there nor missing"
        );
        if !self.was_restored {
            prop_assert!(!reasons.contains(&GapReason::RestoredServer));
        }
        if self.spool_bytes_max == u64::MAX {
            prop_assert!(!reasons.contains(&GapReason::SpoolFull));
        }
        prop_assert!(!reasons.contains(&GapReason::Damaged) && !reasons.contains(&GapReason::Rate));
        Ok(())
    }
}

fn load_device(disk: &DeviceDisk, loads: u8, spool_bytes_max: u64) -> LogSpool {
    let batches = disk.entries.iter().map(|(entry, (stream, batch))| SpooledBatch {
        entry: *entry,
        stream: stream.clone(),
        first: batch.sequence_first,
        last: batch.sequence_last().unwrap(),
        size_bytes: batch.records.iter().map(LogRecord::size_bytes).sum(),
    });
    let (boot, entropy) = (BootId::from_bytes([1; 16]), Entropy::from_seed([loads; 32]));
    let (record, batches) = (disk.record.clone(), batches.collect());
    LogSpool::load(workload(), boot, record, batches, disk.next_entry, spool_bytes_max, entropy)
}

fn load_server(disk: &ServerDisk) -> LogStore {
    let next_entry = u64::try_from(disk.log.len()).unwrap() + 1;
    LogStore::load(workload(), disk.numberings.values().copied(), next_entry)
}

#[derive(Clone, Debug)]
enum Happening {
    Write(u64),
    Read,
    Wait(u64),
    Deliver(usize),
    Repeat(usize),
    Lose(usize),
    Reconnect,
    KillDevice,
    KillServer,
    DieAtNextCommit(bool),
    BackUp,
    Restore,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (1..6_u64).prop_map(Happening::Write),
        8 => Just(Happening::Read),
        4 => (0..12_u64).prop_map(Happening::Wait),
        12 => (0..8_usize).prop_map(Happening::Deliver),
        3 => (0..8_usize).prop_map(Happening::Repeat),
        3 => (0..8_usize).prop_map(Happening::Lose),
        2 => Just(Happening::Reconnect),
        1 => Just(Happening::KillDevice),
        1 => Just(Happening::KillServer),
        3 => any::<bool>().prop_map(Happening::DieAtNextCommit),
        1 => Just(Happening::BackUp),
        1 => Just(Happening::Restore),
    ]
}

impl World {
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Write(lines) => {
                self.written += lines;
                self.device_input(log_spool::Input::LinesWritten);
            }
            Happening::Read => self.read(),
            Happening::Wait(seconds) => self.wait(Duration::from_secs(seconds)),
            Happening::Deliver(index) => self.deliver(index, false),
            Happening::Repeat(index) => self.deliver(index, true),
            Happening::Lose(index) => {
                if !self.link.is_empty() {
                    let index = index % self.link.len();
                    self.link.remove(index);
                }
            }
            Happening::Reconnect => self.connect(),
            Happening::KillDevice => self.restart_device(),
            Happening::KillServer => self.restart_server(),
            Happening::DieAtNextCommit(after) => {
                self.death = if after { Death::AfterCommit } else { Death::BeforeCommit };
            }
            Happening::BackUp => self.image = self.server_disk.clone(),
            Happening::Restore => {
                self.was_restored = true;
                self.server_disk = self.image.clone();
                self.restart_server();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn each_record_reaches_the_store_exactly_once(
        happenings in prop::collection::vec(happening(), 0..120),
        is_small in any::<bool>(),
    ) {
        let mut world = World::new(if is_small { 300 } else { u64::MAX });
        for happening in happenings {
            world.happen(happening);
        }
        world.heal();
        // A last line makes the device speak, and a restored server say what it lacks.
        world.happen(Happening::Write(1));
        world.heal();
        world.check()?;
    }
}

#[test]
fn followers_get_what_is_durable_and_nothing_twice() {
    let mut store = LogStore::load(workload(), [], 1);
    let stream = LogStream { workload: workload(), boot: BootId::from_bytes([1; 16]), stamp: Stamp(1) };
    let received = |first: u64| Input::Received {
        stream: stream.clone(),
        batch: LogBatch { sequence_first: first, records: vec![line(first), line(first + 1)] },
    };
    let mut step = |input| {
        let mut turn = Turn::new();
        store.handle(Now::default(), input, &mut turn);
        turn.into_parts().1
    };
    let operation = OperationId::from_bytes([2; 8]);
    step(received(1));
    assert_eq!(step(Input::Follow { operation }), [Effect::Following { operation, through: 1 }]);
    // Overlaps by one: only the new line is stored and handed on.
    let effects = step(received(2));
    let batch = LogBatch { sequence_first: 3, records: vec![line(3)] };
    let acknowledged = LogPosition { stream: stream.clone(), sequence: 3 };
    let tail = Effect::Tail { operation, entry: 2, stream: stream.clone(), batch };
    assert_eq!(effects, [Effect::Acknowledge(acknowledged.clone()), tail]);
    assert_eq!(step(received(2)), [Effect::Acknowledge(acknowledged.clone())], "known already");
    assert_eq!(step(received(9)), [Effect::Acknowledge(acknowledged)], "would leave a hole");
    step(Input::Unfollow { operation });
    assert_eq!(step(received(4)).len(), 1);
}

#[test]
fn batches_that_no_device_may_send_are_refused_and_counted() {
    let mut store = LogStore::load(workload(), [], 1);
    let stream = LogStream { workload: workload(), boot: BootId::from_bytes([1; 16]), stamp: Stamp(1) };
    let foreign = LogStream { workload: "tea".parse().unwrap(), ..stream.clone() };
    let gap = |count| LogRecord::Gap { count, reason: GapReason::Rate };
    for (stream, sequence_first, records) in [
        (stream.clone(), 1, vec![]),
        (stream.clone(), 0, vec![line(1)]),
        (stream.clone(), 1, vec![gap(0)]),
        (stream, 2, vec![gap(u64::MAX), gap(u64::MAX)]),
        (foreign, 1, vec![line(1)]),
    ] {
        let mut turn = Turn::new();
        let batch = LogBatch { sequence_first, records };
        store.handle(Now::default(), Input::Received { stream, batch }, &mut turn);
        assert!(turn.is_empty());
    }
    assert_eq!(store.refused(), 5);
}
