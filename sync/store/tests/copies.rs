//! Copies of a store that is written to, and stores that are made of them.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fleetd_sync_core::commit::{Mutation, Space};
use fleetd_sync_store::copy::{CopyStore, Piece, RestoreError};
use fleetd_sync_store::disk::{DiskStore, Profile, restore};
use fleetd_sync_store::state_store::{KeyRange, LogPart, StateStore, commit_and_wait};
use tempfile::TempDir;

use crate::material::{append, forget, turn};

fn put(space: Space, key: &[u8], value: &[u8]) -> Mutation {
    Mutation::Put { space, key: key.to_vec(), value: value.to_vec() }
}

fn open(folder: &TempDir, name: &str) -> DiskStore {
    DiskStore::open(&folder.path().join(name), Profile::Agent).unwrap()
}

fn pieces(store: &impl CopyStore) -> VecDeque<Piece> {
    let mut pieces = VecDeque::new();
    store
        .copy(&mut |piece| {
            pieces.push_back(piece);
            ControlFlow::Continue(())
        })
        .unwrap();
    pieces
}

fn make(folder: &TempDir, name: &str, mut pieces: VecDeque<Piece>) -> Result<(), RestoreError> {
    restore(&folder.path().join(name), Profile::Agent, &mut || Ok(pieces.pop_front()))
}

/// Everything of a store that a reader can see.
fn contents(store: &DiskStore) -> String {
    let mut text = format!("{:?}\n", store.revision());
    for space in Space::ALL {
        text.push_str(&format!("{:?}\n", store.scan(space, KeyRange::all(), usize::MAX).unwrap()));
    }
    for log in store.list_logs("", None, usize::MAX).unwrap() {
        let mut from = 0;
        loop {
            let parts = store.read_log(&log, from, 64 << 10).unwrap();
            let Some(last) = parts.last() else { break };
            from = 1 + match last {
                LogPart::Entry { sequence, .. } => *sequence,
                LogPart::Gap { last, .. } => *last,
            };
            text.push_str(&format!("{log} {parts:?}\n"));
        }
        text.push_str(&format!("{log} {:?}\n", store.log_range(&log)));
    }
    text
}

/// A store with records, a log of several segments whose beginning was forgotten, a short one and an empty one.
fn filled(folder: &TempDir) -> DiskStore {
    let store = open(folder, "store");
    for number in 0..40_u64 {
        let entry = vec![u8::try_from(number).unwrap(); 20 << 10];
        let batch = vec![put(Space::Device, &number.to_be_bytes(), &entry[..100]), append("long", number + 7, &entry)];
        commit_and_wait(&store, turn("a", batch)).unwrap();
    }
    commit_and_wait(&store, turn("a", vec![forget("long", 20), append("short", 1, b"one")])).unwrap();
    commit_and_wait(&store, turn("a", vec![append("empty", 5, b"gone"), put(Space::Meta, b"m", b"")])).unwrap();
    commit_and_wait(&store, turn("a", vec![forget("empty", 5)])).unwrap();
    store
}

#[test]
fn a_store_made_of_a_copy_is_the_same_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(&folder);
    make(&folder, "made", pieces(&store)).unwrap();
    let made = open(&folder, "made");
    assert_eq!(contents(&made), contents(&store));
    for (number, store) in [&store, &made].into_iter().enumerate() {
        let (short, empty) = (append("short", 2, b"two"), append("empty", 6, b"here"));
        commit_and_wait(
            store,
            turn("b", vec![put(Space::Device, b"x", b"y"), append("long", 47, b"next"), short, empty]),
        )
        .unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    assert_eq!(contents(&made), contents(&store));
    drop(made);
    assert_eq!(contents(&open(&folder, "made")), contents(&store));
}

#[test]
fn a_copy_is_of_one_moment_however_much_is_written_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (store, stop) = (Arc::new(open(&folder, "store")), Arc::new(AtomicBool::new(false)));
    let pair = |number: u64| {
        let number = number.to_be_bytes();
        vec![put(Space::Device, b"first", &number), put(Space::Floor, b"last", &number)]
    };
    commit_and_wait(store.as_ref(), turn("a", pair(0))).unwrap();
    let writer = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut number = 1_u64;
            while !stop.load(Ordering::Relaxed) {
                let mut batch = pair(number);
                batch.push(append("log", number, &number.to_be_bytes()));
                commit_and_wait(store.as_ref(), turn("a", batch)).unwrap();
                number += 1;
            }
            number
        })
    };
    for copy in 0..20 {
        let name = format!("made-{copy}");
        make(&folder, &name, pieces(store.as_ref())).unwrap();
        let made = open(&folder, &name);
        let read = |space, key: &[u8]| made.get(space, key).unwrap().unwrap().value;
        let number = read(Space::Device, b"first");
        assert_eq!(number, read(Space::Floor, b"last"));
        let last = made.log_range("log").unwrap().map_or(0, |(_, last)| last);
        assert_eq!(last.to_be_bytes().as_slice(), number, "the log is of another moment");
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 20, "nothing was written meanwhile");
}

#[test]
fn what_is_cut_or_changed_makes_no_store_and_what_is_there_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let store = filled(&folder);
    let whole = pieces(&store);
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        let cut = whole.iter().take(length).cloned().collect();
        assert!(matches!(make(&folder, "cut", cut), Err(RestoreError::Cut)), "{length}");
    }
    let mut changed = whole.clone();
    let record = changed.iter_mut().rev().find_map(|piece| match piece {
        Piece::Record { value, .. } => value.last_mut(),
        Piece::Entry { .. } => None,
    });
    *record.unwrap() ^= 1;
    assert!(matches!(make(&folder, "cut", changed), Err(RestoreError::Damaged(_))));
    assert!(!folder.path().join("cut").exists() && !folder.path().join("cut.creating").exists());
    assert!(matches!(make(&folder, "store", whole), Err(RestoreError::Io(_))));
}

#[test]
fn a_copy_with_a_log_that_leads_out_of_the_store_makes_none_and_writes_nothing_there() {
    let folder = tempfile::tempdir().unwrap();
    let whole = pieces(&filled(&folder));
    let absolute = folder.path().join("absolute").to_str().unwrap().to_owned();
    for log in ["../../outside", "..", "", &absolute] {
        let mut led = whole.clone();
        // Enough of them to be written at once.
        let entry = |sequence| Piece::Entry { log: log.to_owned(), sequence, entry: vec![7; 1 << 20] };
        led.extend([entry(1), entry(2)]);
        let refused = make(&folder, "made", led);
        assert!(matches!(&refused, Err(RestoreError::LogName { log: named }) if named == log), "{refused:?}");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["store"]);
}
