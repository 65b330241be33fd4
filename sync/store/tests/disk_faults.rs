//! What the store on disk promises when its folder is not what it left: torn, damaged, newer, in use.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use fleetd_sync_core::commit::{Commit, CommitError, Space};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_store::disk::{DiskStore, Profile, quarantine};
use fleetd_sync_store::open_error::OpenStoreError;
use fleetd_sync_store::state_store::{KeyRange, LogPart, ReadError, StateStore, commit_and_wait};
use tempfile::TempDir;

use crate::material::{Answers, append, forget, put, sequences, turn, value};

struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn journal(&self) -> PathBuf {
        self.store().join("records/0.jnl")
    }

    fn open(&self) -> Result<DiskStore, OpenStoreError> {
        DiskStore::open(&self.store(), Profile::Agent)
    }
}

/// Copies a store as a killed process leaves it. A journal is preallocated: only what was written is copied.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if target.extension().is_some_and(|extension| extension == "jnl") {
            File::create(&target).unwrap().write_all(&written(&entry.path())).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The part of a journal that was written, without the zeros behind it.
fn written(journal: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 4 << 20];
    let length = File::open(journal).unwrap().read(&mut bytes).unwrap();
    bytes.truncate(length);
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_turn_is_on_the_disk_when_it_is_answered() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let (answer, answered) = mpsc::channel();
    let (from, to) = (folder.store(), folder.folder.path().join("copy"));
    let target = to.clone();
    let batch = turn("a", vec![put("x", "1"), append("log", 1, b"one")]);
    store.submit(
        batch,
        Box::new(move |result| {
            copy(&from, &target);
            answer.send(result).unwrap();
        }),
    );
    answered.recv().unwrap().unwrap();
    let copied = DiskStore::open(&to, Profile::Agent).unwrap();
    assert_eq!((value(&copied, "x").as_deref(), sequences(&copied, "log")), (Some("1"), vec![1]));
}

#[test]
fn turns_of_one_actor_are_applied_and_answered_in_order() {
    let folder = Folder::new();
    let store = Arc::new(folder.open().unwrap());
    let actors: Vec<_> = (0..4)
        .map(|number| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let answers = Answers::default();
                for count in 0..100_u64 {
                    let log = format!("log-{number}");
                    let batch = turn(&log, vec![append(&log, count, b"entry"), put(&log, &count.to_string())]);
                    answers.submit(&*store, count, batch);
                }
                commit_and_wait(&*store, turn(&format!("log-{number}"), vec![])).unwrap();
                answers.succeeded()
            })
        })
        .collect();
    for (number, actor) in actors.into_iter().enumerate() {
        assert_eq!(actor.join().unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(value(&*store, &format!("log-{number}")).as_deref(), Some("99"));
        assert_eq!(sequences(&*store, &format!("log-{number}")).len(), 100);
    }
    assert_eq!(store.revision().0, 400);
}

#[test]
fn a_dropped_store_answers_what_was_queued_and_keeps_it() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let answers = Answers::default();
    for number in 0..50 {
        answers.submit(&store, number, turn("a", vec![put("x", &number.to_string())]));
    }
    drop(store);
    assert_eq!(answers.succeeded(), (0..50).collect::<Vec<_>>());
    assert_eq!(value(&folder.open().unwrap(), "x").as_deref(), Some("49"));
}

#[test]
fn the_last_handle_may_be_dropped_by_a_completion() {
    let folder = Folder::new();
    let store = Arc::new(folder.open().unwrap());
    let (answer, answered) = mpsc::channel();
    let last = Arc::clone(&store);
    let (release, released) = mpsc::channel::<()>();
    store.submit(
        turn("a", vec![put("x", "1")]),
        Box::new(move |result| {
            released.recv().unwrap();
            drop(last);
            answer.send(result).unwrap();
        }),
    );
    drop(store);
    release.send(()).unwrap();
    assert_eq!(answered.recv().unwrap(), Ok(()));
}

#[test]
fn a_store_in_use_is_named_as_locked() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    assert!(matches!(folder.open(), Err(OpenStoreError::Locked { path }) if path == folder.store()));
    drop(store);
    folder.open().unwrap();
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    let format = folder.store().join("FORMAT");
    fs::write(&format, "fleetd store\nformat 7\n").unwrap();
    let error = folder.open().unwrap_err();
    assert!(matches!(error, OpenStoreError::Newer { found: 7, supported: 1, .. }));
    assert!(!error.is_damage());
    for text in ["", "format 1\n", "fleetd store\nformat one\n", "someone else's"] {
        fs::write(&format, text).unwrap();
        assert!(folder.open().unwrap_err().is_damage(), "{text:?}");
    }
}

#[test]
fn somebody_elses_folder_is_not_taken_for_an_empty_store() {
    let folder = Folder::new();
    fs::create_dir(folder.store()).unwrap();
    fs::write(folder.store().join("letter.txt"), "dear").unwrap();
    assert!(folder.open().unwrap_err().is_damage());
    assert_eq!(fs::read(folder.store().join("letter.txt")).unwrap(), b"dear");
}

#[test]
fn a_store_half_made_when_the_power_failed_is_made_again() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    fs::remove_file(folder.store().join("FORMAT")).unwrap();
    fs::rename(folder.store(), folder.folder.path().join("store.creating")).unwrap();
    let store = folder.open().unwrap();
    commit_and_wait(&store, turn("a", vec![put("x", "1")])).unwrap();
    assert_eq!(fs::metadata(folder.store()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn junk_behind_a_torn_journal_costs_no_acked_turn() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    for number in 0..20 {
        commit_and_wait(&store, turn("a", vec![put(&format!("key-{number}"), "present")])).unwrap();
    }
    for (round, junk) in [&b"\x01\x02\x03"[..], &[0xFF; 37], &[7; 400]].into_iter().enumerate() {
        let copied = folder.folder.path().join(format!("copy-{round}"));
        copy(&folder.store(), &copied);
        let journal = copied.join("records/0.jnl");
        let end = written(&journal).len() as u64;
        // Zeros that end a batch look like the zeros behind it: leave them room.
        overwrite(&journal, end + 8, junk);
        let store = DiskStore::open(&copied, Profile::Agent).unwrap();
        assert_eq!(store.revision().0, 20);
        assert!((0..20).all(|number| value(&store, &format!("key-{number}")).is_some()));
    }
}

#[test]
fn damage_in_the_middle_of_the_journal_is_clean_or_refused_and_quarantine_helps() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    for number in 0..200 {
        let batch = turn("a", vec![put(&format!("key-{}", number % 50), &format!("value {number}"))]);
        store.submit(batch, Box::new(|answer| answer.unwrap()));
    }
    drop(store);
    let length = written(&folder.journal()).len() as u64;
    let mut entropy = Entropy::from_seed([3; 32]);
    let mut refused = 0;
    for round in 0..24 {
        let copied = folder.folder.path().join(format!("copy-{round}/store"));
        copy(&folder.store(), &copied);
        let offset = entropy.below(length - 7);
        overwrite(&copied.join("records/0.jnl"), offset, &entropy.bytes::<7>());
        match DiskStore::open(&copied, Profile::Agent) {
            Ok(store) => {
                assert_eq!(store.revision().0, 200, "nothing that an orderly close had is missing");
                for (key, found) in store.scan(Space::Device, KeyRange::all(), 1000).unwrap() {
                    let key: u64 = String::from_utf8(key).unwrap().strip_prefix("key-").unwrap().parse().unwrap();
                    let value = String::from_utf8(found.value).unwrap();
                    let number: u64 = value.strip_prefix("value ").unwrap().parse().unwrap();
                    assert_eq!(number % 50, key, "a value that was written for this key");
                }
            }
            Err(error) => {
                assert!(error.is_damage(), "{error:?}");
                refused += 1;
                let aside = quarantine(&copied).unwrap();
                assert!(aside.join("FORMAT").exists());
                let fresh = DiskStore::open(&copied, Profile::Agent).unwrap();
                commit_and_wait(&fresh, turn("a", vec![put("x", "1")])).unwrap();
            }
        }
        fs::remove_dir_all(copied.parent().unwrap()).unwrap();
    }
    assert!(refused > 12, "most damage is noticed: {refused} of 24");
}

#[test]
fn a_missing_database_is_damage_and_not_an_empty_store() {
    let folder = Folder::new();
    drop(folder.open().unwrap());
    fs::remove_dir_all(folder.store().join("records")).unwrap();
    assert!(folder.open().unwrap_err().is_damage());
}

#[test]
fn only_two_quarantined_stores_are_kept() {
    let folder = Folder::new();
    for number in 1..=4 {
        drop(folder.open().unwrap());
        let aside = quarantine(&folder.store()).unwrap();
        assert_eq!(aside.file_name().unwrap().to_str(), Some(format!("store.quarantined-{number}").as_str()));
    }
    let mut names: Vec<_> =
        fs::read_dir(folder.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["store.quarantined-3", "store.quarantined-4"]);
}

/// A store with a log of four sealed segments and an open one, closed in order.
fn with_segments(folder: &Folder) -> Vec<PathBuf> {
    let store = folder.open().unwrap();
    for number in 1..=9 {
        commit_and_wait(&store, turn("a", vec![append("log", number, &[b'a' + number as u8; 9 << 10])])).unwrap();
    }
    drop(store);
    let mut segments: Vec<PathBuf> =
        fs::read_dir(folder.store().join("logs/log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    assert_eq!(segments.len(), 5, "{segments:?}");
    segments
}

/// The log's entries and gaps, each as a range of numbers.
fn ranges(store: &DiskStore) -> Vec<(&'static str, u64, u64)> {
    let parts = store.read_log("log", 0, usize::MAX).unwrap();
    let range = |part: &LogPart| match part {
        LogPart::Entry { sequence, entry } => {
            assert!(entry.iter().all(|byte| *byte == b'a' + *sequence as u8));
            ("entry", *sequence, *sequence)
        }
        LogPart::Gap { first, last } => ("gap", *first, *last),
    };
    parts.iter().map(range).collect()
}

#[test]
fn a_damaged_segment_is_a_gap_and_the_log_goes_on() {
    let folder = Folder::new();
    let segments = with_segments(&folder);
    overwrite(&segments[1], 40, b"damage");
    fs::remove_file(&segments[2]).unwrap();
    overwrite(&segments[4], 100, b"damage");
    let store = folder.open().unwrap();
    let entry = |number| ("entry", number, number);
    let expected = [entry(1), entry(2), ("gap", 3, 6), entry(7), entry(8), ("gap", 9, 9)];
    assert_eq!(ranges(&store), expected);
    assert_eq!(store.log_range("log").unwrap(), Some((1, 9)));
    commit_and_wait(&store, turn("a", vec![append("log", 10, &[b'a' + 10; 10])])).unwrap();
    assert_eq!(ranges(&store)[6..], [entry(10)]);
    commit_and_wait(&store, turn("a", vec![forget("log", 6)])).unwrap();
    assert_eq!(ranges(&store), [entry(7), entry(8), ("gap", 9, 9), entry(10)]);
    // Segments are dropped once the turn is answered, and before the next one is taken.
    commit_and_wait(&store, turn("a", vec![])).unwrap();
    assert!(!segments[0].exists() && !segments[1].exists() && segments[3].exists());
}

#[test]
fn a_torn_tail_of_a_log_is_cut_and_what_was_never_acked_is_not_read() {
    let folder = Folder::new();
    let segments = with_segments(&folder);
    // A whole entry that no turn counts, and half of another.
    let mut bytes = fs::read(&segments[4]).unwrap();
    let frame = bytes.clone();
    bytes.extend_from_slice(&frame[..500]);
    fs::write(&segments[4], &bytes).unwrap();
    let store = folder.open().unwrap();
    assert_eq!(sequences(&store, "log"), (1..=9).collect::<Vec<_>>());
    commit_and_wait(&store, turn("a", vec![append("log", 10, &[b'a' + 10; 10])])).unwrap();
    drop(store);
    assert_eq!(ranges(&folder.open().unwrap()).len(), 10);
}

#[test]
fn segments_of_a_removed_log_are_gone_and_those_of_an_unknown_one_swept() {
    let folder = Folder::new();
    with_segments(&folder);
    fs::create_dir(folder.store().join("logs/unknown")).unwrap();
    let store = folder.open().unwrap();
    assert!(!folder.store().join("logs/unknown").exists());
    commit_and_wait(&store, turn("a", vec![forget("log", u64::MAX)])).unwrap();
    commit_and_wait(&store, turn("a", vec![])).unwrap();
    assert!(!folder.store().join("logs/log").exists());
    assert_eq!(store.list_logs("", None, 10).unwrap(), Vec::<String>::new());
    commit_and_wait(&store, turn("a", vec![append("log", 1, b"bcd")])).unwrap();
    assert_eq!(sequences(&store, "log"), [1]);
}

#[test]
fn a_name_that_would_leave_the_logs_folder_is_refused() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    for (number, log) in ["../escape", "", ".hidden", "a/b", "a\0b"].into_iter().enumerate() {
        let refused = commit_and_wait(&store, turn(&number.to_string(), vec![append(log, 1, b"x")]));
        assert!(matches!(refused, Err(CommitError::Failed { .. })), "{log:?}");
        assert_eq!(store.read_log(log, 0, 100), Ok(vec![]));
    }
    assert!(!folder.folder.path().join("escape").exists());
}

#[test]
fn more_than_memory_holds_is_written_and_read_back() {
    let folder = Folder::new();
    let store = folder.open().unwrap();
    let answers = Answers::default();
    let mut entropy = Entropy::from_seed([9; 32]);
    for number in 0..3000_u64 {
        let mut value = vec![0; 4096];
        entropy.fill(&mut value);
        let key = number.to_be_bytes().to_vec();
        let mutation = fleetd_sync_core::commit::Mutation::Put { space: Space::Envelope, key, value };
        answers.submit(&store, number, turn("a", vec![mutation]));
    }
    commit_and_wait(&store, turn("a", vec![])).unwrap();
    assert_eq!(answers.succeeded().len(), 3000);
    drop(store);
    let store = folder.open().unwrap();
    let mut entropy = Entropy::from_seed([9; 32]);
    let mut count = 0;
    store
        .visit(Space::Envelope, KeyRange::all(), &mut |_, found| {
            let mut value = vec![0; 4096];
            entropy.fill(&mut value);
            assert_eq!(found.value, value);
            count += 1;
            std::ops::ControlFlow::Continue(())
        })
        .unwrap_or_else(|error: ReadError| panic!("{error}"));
    assert_eq!(count, 3000);
}
