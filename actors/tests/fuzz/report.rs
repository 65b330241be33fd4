//! What a device says of itself: batches of log lines, and the state of its own document.

use std::collections::BTreeMap;

use fleetd_actors::log_record::{GapReason, LogBatch, LogLine, LogRecord, LogSource};
use fleetd_actors::report::{WorkloadReport, fact_ops, read_facts, read_workloads, workload_ops};
use fleetd_sync_core::codec::{Reader, Writer};
use fleetd_sync_core::envelope::{Op, Path, Value};
use fleetd_sync_core::limit;
use fleetd_sync_core::time::{ClockQuality, Wall};

use super::CASES;

fn batch(bytes: &[u8]) -> bool {
    let Ok(batch) = LogBatch::decode(bytes) else { return false };
    assert_eq!(batch.encode(), bytes, "a batch has one encoding");
    for record in &batch.records {
        assert!(!matches!(record, LogRecord::Line(line) if line.body.len() > limit::LOG_LINE_BYTES_MAX));
    }
    // What a server does with a batch that it has in part.
    let Some(last) = batch.sequence_last() else { return true };
    let half = batch.sequence_first + (last - batch.sequence_first) / 2;
    let rest = batch.clone().after(half);
    assert_eq!((rest.sequence_first, rest.sequence_last()), (half + 1, Some(last).filter(|last| *last > half)));
    assert_eq!(batch.after(last).records, Vec::new());
    true
}

/// Reads the input as paths and values, each behind its length: a value's first byte is its kind.
fn state(bytes: &[u8]) -> BTreeMap<Path, Value> {
    let mut reader = Reader::new(bytes);
    let mut state = BTreeMap::new();
    while let (Ok(path), Ok(value)) = (reader.text("path", 200), reader.bytes("value", limit::VALUE_BYTES_MAX)) {
        let Ok(path) = path.parse::<Path>() else { continue };
        let (kind, rest) = value.split_first().unwrap_or((&0, &[]));
        let text = String::from_utf8_lossy(rest).into_owned();
        let value = match kind {
            0 => Value::Boolean(!rest.is_empty()),
            1 => Value::Integer(rest.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))),
            2 => Value::Bytes(rest.to_vec()),
            _ => Value::Text(text),
        };
        state.insert(path, value);
    }
    state
}

/// What a report sets, laid over an empty document, is read as that report.
fn document(bytes: &[u8]) -> bool {
    let state = state(bytes);
    let mut written = BTreeMap::new();
    let mut reports = read_workloads(&state);
    reports.retain(|_, report| *report != WorkloadReport::default());
    let facts = read_facts(&state);
    let ops = reports.iter().flat_map(|(workload, report)| workload_ops(workload, None, Some(report)));
    for op in ops.chain(fact_ops(&BTreeMap::new(), &facts)) {
        if let Op::Set { path, value } = op {
            written.insert(path, value);
        }
    }
    assert_eq!(read_facts(&written), facts);
    assert_eq!(read_workloads(&written), reports, "a report is read as it was written");
    !reports.is_empty() || !facts.is_empty()
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((0, rest)) => batch(rest),
        Some((_, rest)) => document(rest),
        None => false,
    }
}

fn samples() -> Vec<Vec<u8>> {
    let line = |source, body: &str| {
        let (time, quality, body) = (Wall(-5), ClockQuality::Synced, body.as_bytes().to_vec());
        LogRecord::Line(LogLine { time, quality, source, cut: false, body })
    };
    let gap = LogRecord::Gap { count: 1 << 40, reason: GapReason::SpoolFull };
    let records = vec![line(LogSource::Stdout, "brewing"), gap, line(LogSource::Stderr, "")];
    let batch = LogBatch { sequence_first: 7, records };
    let mut writer = Writer::new();
    let digest = [9_u8; 32];
    let text = |value: &str| [&[3], value.as_bytes()].concat();
    let number = |value: i64| [[1].as_slice(), &value.to_le_bytes()].concat();
    for (path, value) in [
        ("workload/coffee/release", text("1.8.0")),
        ("workload/coffee/phase", text("healthy")),
        ("workload/coffee/attempt", number(2)),
        ("workload/coffee/digest", [[2].as_slice(), &digest].concat()),
        ("workload/coffee/run", text("running")),
        ("workload/coffee/exit", text("code 3")),
        ("workload/coffee/error", text("crashed: it did")),
        ("workload/coffee/local", text("stopped")),
        ("fact/platform", text("linux/arm64")),
    ] {
        writer.text(path).bytes(&value);
    }
    vec![[&[0], batch.encode().as_slice()].concat(), [&[1], writer.finish().as_slice()].concat()]
}

#[test]
fn every_sample_of_a_report_is_one() {
    assert!(samples().iter().all(|sample| check(sample)));
}

#[test]
fn any_bytes_are_one_report_or_none() {
    bolero::check!(name = "report").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
