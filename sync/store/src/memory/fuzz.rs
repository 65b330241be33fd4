//! A whole store of any bytes: records, the files of logs under any name, and copies of stores out of a backup.

use std::collections::BTreeMap;

use fleetd_sync_core::codec::{Reader, Writer};
use fleetd_sync_core::commit::Mutation;

use super::*;
use crate::copy::{Piece, fill};
use crate::record;
use crate::segment_log::{SegmentLogs, is_log_name};

/// Inputs that are tried at random in every run of the tests, after the corpus.
const CASES: usize = 500;
/// Bytes of one key, name or value of an input.
const PART_BYTES_MAX: usize = 16 << 10;
/// Pages of a log that are read: each has one entry or gap at least.
const PAGES_MAX: u64 = 4096;

/// Reads every record and log of a store that opened.
fn read_all(store: &MemoryStore) -> usize {
    let mut records = 0;
    for space in Space::ALL {
        records += store.scan(space, KeyRange::all(), usize::MAX).unwrap().len();
    }
    for log in store.list_logs("", None, usize::MAX).unwrap() {
        let Ok(Some((begin, end))) = store.log_range(&log) else { continue };
        let mut from = begin;
        for _ in 0..PAGES_MAX {
            let parts = store.read_log(&log, from, 1 << 10).unwrap();
            let Some(last) = parts.last() else { break };
            for part in &parts {
                let (first, last) = match part {
                    LogPart::Entry { sequence, .. } => (*sequence, *sequence),
                    LogPart::Gap { first, last } => (*first, *last),
                };
                assert!(first == from && (first..=end).contains(&last), "{part:?} from {from} in {begin} to {end}");
                from = last.saturating_add(1);
            }
            records += usize::from(matches!(last, LogPart::Entry { .. }));
            if from > end {
                break;
            }
        }
    }
    records
}

/// A record: as it lies there, or framed for its key so that its checksum is right.
fn value(kind: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    if kind & 1 == 0 { record::encode(key, Revision(u64::from(kind)), value) } else { value.to_vec() }
}

/// What lies on a medium: each thing is a byte that says what it is, and two parts behind their lengths.
fn image(bytes: &[u8]) -> usize {
    let (mut table, mut files) = (BTreeMap::new(), BTreeMap::new());
    let mut reader = Reader::new(bytes);
    while let Ok(kind) = reader.u8("kind") {
        let (Ok(key), Ok(part)) = (reader.bytes("key", PART_BYTES_MAX), reader.bytes("part", PART_BYTES_MAX)) else {
            break;
        };
        match (kind & 0xf0, std::str::from_utf8(key)) {
            (0x10, Ok(name)) => drop(files.insert(("log".to_owned(), name.to_owned()), part.to_vec())),
            _ => drop(table.insert(key.to_vec(), value(kind, key, part))),
        }
    }
    let Ok(store) = MemoryStore::immediate().from_image(&Image::of(table, files)) else { return 0 };
    let records = read_all(&store);
    // An append recovers the log first.
    let next = store.log_range("log").ok().flatten().map_or(1, |(_, last)| last.saturating_add(1));
    let append = Mutation::Append { log: "log".to_owned(), sequence: next, entry: b"one more".to_vec() };
    store.submit(Batch { actor: ActorKey::only("fuzz"), mutations: vec![append] }, Box::new(|_| ()));
    read_all(&store);
    records
}

/// Pieces of a backup, as somebody else may have written them.
fn copy(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes);
    let mut next = || {
        let Ok(kind) = reader.u8("kind") else { return Ok(None) };
        let (Ok(key), Ok(part)) = (reader.bytes("key", PART_BYTES_MAX), reader.bytes("part", PART_BYTES_MAX)) else {
            return Ok(None);
        };
        Ok(Some(match kind & 0xf0 {
            0x10 => {
                let (number, entry) = part.split_first_chunk::<8>().unwrap_or((&[0; 8], part));
                let log = String::from_utf8_lossy(key).into_owned();
                Piece::Entry { log, sequence: u64::from_le_bytes(*number), entry: entry.to_vec() }
            }
            _ => Piece::Record { key: key.to_vec(), value: value(kind, key, part) },
        }))
    };
    let store = MemoryStore::immediate();
    let logs = SegmentLogs::new(store.session.clone());
    let filled = fill(&store.session, &logs, &mut next);
    for log in crate::segment_log::files::Files::logs(&store.session).unwrap() {
        assert!(is_log_name(&log), "{log:?} is no folder of a log");
    }
    store.close();
    match store.reopen() {
        Ok(made) if filled.is_ok() => read_all(&made),
        _ => 0,
    }
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> usize {
    match bytes.split_first() {
        Some((0, rest)) => copy(rest),
        Some((_, rest)) => image(rest),
        None => 0,
    }
}

/// What [`image`] and [`copy`] read, of a store that was written to.
fn samples() -> Vec<Vec<u8>> {
    let store = MemoryStore::immediate();
    for number in 1..4_u8 {
        let entry = vec![number; 9 << 10];
        let mutations = vec![
            Mutation::Append { log: "log".to_owned(), sequence: u64::from(number), entry },
            Mutation::Put { space: Space::Device, key: vec![number], value: vec![number; 3] },
        ];
        store.submit(Batch { actor: ActorKey::only("fuzz"), mutations }, Box::new(|_| ()));
    }
    let mut copied = Writer::new();
    copied.u8(0);
    store
        .copy(&mut |piece| {
            match piece {
                Piece::Record { key, value } => copied.u8(1).bytes(&key).bytes(&value),
                Piece::Entry { log, sequence, entry } => {
                    let part = [sequence.to_le_bytes().as_slice(), entry.get(..64).unwrap()].concat();
                    copied.u8(0x10).bytes(log.as_bytes()).bytes(&part)
                }
            };
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    store.close();
    let mut whole = Writer::new();
    whole.u8(1);
    let image = store.image();
    for (key, value) in image.table() {
        whole.u8(1).bytes(key).bytes(value);
    }
    for (name, bytes) in image.files() {
        whole.u8(0x10).bytes(name.as_bytes()).bytes(bytes.get(..200.min(bytes.len())).unwrap());
    }
    vec![copied.finish(), whole.finish()]
}

#[test]
fn every_sample_of_a_store_opens() {
    for (index, sample) in samples().iter().enumerate() {
        assert!(check(sample) > 0, "sample {index}");
    }
}

#[test]
fn any_bytes_are_a_store_or_refused() {
    bolero::check!(name = "store").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
