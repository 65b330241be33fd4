//! A spool stepped by hand.

use fleetd_sync_core::time::{ClockQuality, Wall};

use super::*;
use crate::log_record::{LogLine, LogSource};

fn line(text: &str) -> LogRecord {
    LogRecord::Line(LogLine {
        time: Wall(1),
        quality: ClockQuality::None,
        source: LogSource::Stdout,
        cut: false,
        body: text.as_bytes().to_vec(),
    })
}

fn spool(record: SpoolRecord, batches: Vec<SpooledBatch>, next_entry: u64, seed: u8) -> LogSpool {
    let (workload, boot) = ("coffee".parse().unwrap(), BootId::from_bytes([1; 16]));
    let entropy = Entropy::from_seed([seed; 32]);
    LogSpool::load(workload, boot, record, batches, next_entry, 1000, entropy)
}

fn step(spool: &mut LogSpool, input: Input) -> (Vec<Record>, Vec<Effect>) {
    let mut turn = Turn::new();
    spool.handle(Now::default(), input, &mut turn);
    turn.into_parts()
}

/// Spools lines as one batch and gives what came of it.
fn write(spool: &mut LogSpool, sequence: u64, lines: &[&str]) -> (Vec<Record>, Vec<Effect>) {
    let mut turn = Turn::new();
    spool.handle_timeout(Now { monotonic: Monotonic(u64::MAX), ..Now::default() }, &mut turn);
    let operation = spool.reading.expect("it reads");
    let through = Some(LineMark { stamp: Stamp(9), sequence });
    let records = lines.iter().map(|text| line(text)).collect();
    step(spool, Input::LinesRead { operation, through, records })
}

fn sent(effects: &[Effect]) -> Vec<Unit> {
    let units = effects.iter().filter_map(|effect| match effect {
        Effect::Send { unit, .. } => Some(*unit),
        _ => None,
    });
    units.collect()
}

#[test]
fn lines_are_durable_with_their_mark_before_the_runner_may_drop_them() {
    let mut spool = spool(SpoolRecord::default(), vec![], 1, 1);
    let (records, effects) = write(&mut spool, 2, &["one", "two"]);
    let through = LineMark { stamp: Stamp(9), sequence: 2 };
    assert!(matches!(&records[..], [
        Record::Append { entry: 1, batch, .. },
        Record::Spool(SpoolRecord { read: Some(read), .. }),
    ] if batch.sequence_first == 1 && batch.records.len() == 2 && *read == through));
    assert!(effects.contains(&Effect::AcknowledgeLines { through }));
}

#[test]
fn nothing_is_forgotten_before_its_ack_and_nothing_is_sent_without_a_link() {
    let mut spool = spool(SpoolRecord::default(), vec![], 1, 1);
    let (records, effects) = write(&mut spool, 1, &["one"]);
    let Record::Append { stream, .. } = records[0].clone() else { panic!("an append comes first") };
    assert_eq!(sent(&effects), []);
    assert_eq!(sent(&step(&mut spool, Input::Linked).1), [Unit::Batch { entry: 1, first: 1, last: 1 }]);
    let other = LogPosition { stream: LogStream { stamp: Stamp(77), ..stream.clone() }, sequence: 1 };
    assert_eq!(step(&mut spool, Input::Acknowledged(other)).0, []);
    let (records, _) = step(&mut spool, Input::Acknowledged(LogPosition { stream, sequence: 1 }));
    assert!(matches!(records[..], [Record::Forget { through: 1 }, Record::Spool(_)]), "{records:?}");
    assert_eq!(spool.spooled(), (0, 0));
}

#[test]
fn a_full_spool_drops_the_oldest_and_sends_a_gap_for_it() {
    let mut spool = spool(SpoolRecord::default(), vec![], 1, 1);
    let long = "x".repeat(300);
    for sequence in 1..=5 {
        write(&mut spool, sequence, &[&long]);
    }
    assert_eq!(spool.spooled(), (3, 996));
    let (_, effects) = step(&mut spool, Input::Linked);
    let gap = Unit::Gap { first: 1, count: 2, reason: GapReason::SpoolFull };
    assert_eq!(sent(&effects)[..2], [gap, Unit::Batch { entry: 3, first: 3, last: 3 }]);
}

#[test]
fn a_restart_takes_a_new_stamp_and_still_owes_the_old_stream() {
    let mut before = spool(SpoolRecord::default(), vec![], 1, 1);
    let (records, _) = write(&mut before, 1, &["one"]);
    let Record::Append { stream: old, .. } = records[0].clone() else { panic!("an append comes first") };
    let Record::Spool(record) = records[1].clone() else { panic!("then its record") };
    let batch = SpooledBatch { entry: 1, stream: old.clone(), first: 1, last: 1, size_bytes: 35 };
    let mut after = spool(record, vec![batch], 2, 2);
    let (records, _) = write(&mut after, 2, &["two"]);
    let Record::Append { stream: new, entry: 2, batch } = records[0].clone() else { panic!("{records:?}") };
    assert_ne!(old.stamp, new.stamp);
    assert_eq!(batch.sequence_first, 1);
    let (_, effects) = step(&mut after, Input::Linked);
    assert_eq!(sent(&effects).len(), 2, "the old stream's batch, then the new one's");
}

#[test]
fn a_server_that_lost_what_it_acknowledged_is_sent_a_gap() {
    let mut spool = spool(SpoolRecord::default(), vec![], 1, 1);
    let (records, _) = write(&mut spool, 2, &["one", "two"]);
    let Record::Append { stream, .. } = records[0].clone() else { panic!("an append comes first") };
    step(&mut spool, Input::Acknowledged(LogPosition { stream: stream.clone(), sequence: 2 }));
    write(&mut spool, 3, &["three"]);
    step(&mut spool, Input::Linked);
    let (_, effects) = step(&mut spool, Input::ServerPositions(vec![LogPosition { stream, sequence: 1 }]));
    let gap = Unit::Gap { first: 2, count: 1, reason: GapReason::RestoredServer };
    assert_eq!(sent(&effects), [gap, Unit::Batch { entry: 2, first: 3, last: 3 }]);
}

#[test]
fn a_damaged_batch_becomes_a_gap() {
    let mut spool = spool(SpoolRecord::default(), vec![], 1, 1);
    write(&mut spool, 1, &["one"]);
    write(&mut spool, 2, &["two"]);
    step(&mut spool, Input::Linked);
    let (_, effects) = step(&mut spool, Input::BatchUnreadable { entry: 1 });
    let gap = Unit::Gap { first: 1, count: 1, reason: GapReason::Damaged };
    assert_eq!(sent(&effects), [gap, Unit::Batch { entry: 2, first: 2, last: 2 }]);
}

#[test]
fn what_was_sent_into_the_void_is_sent_again() {
    let mut spool = spool(SpoolRecord::default(), vec![], 1, 1);
    write(&mut spool, 1, &["one"]);
    step(&mut spool, Input::Linked);
    let at = spool.resend_at.expect("it waits for an ack");
    let mut turn = Turn::new();
    spool.handle_timeout(Now { monotonic: at, ..Now::default() }, &mut turn);
    assert_eq!(sent(turn.effects()), [Unit::Batch { entry: 1, first: 1, last: 1 }]);
}
