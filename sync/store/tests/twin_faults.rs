//! What the twin promises when it fails, and what the segment logs promise on it.

use fleetd_sync_core::commit::{Commit, CommitError};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_store::memory::{Fault, MemoryStore, StoreEvent};
use fleetd_sync_store::open_error::OpenStoreError;
use fleetd_sync_store::state_store::{LogPart, StateStore, commit_and_wait};

use crate::material::{Answers, actor, append, delete, expect, forget, put, sequences, turn, value};

#[test]
fn nothing_is_answered_or_seen_before_it_is_durable() {
    let store = MemoryStore::manual();
    store.keep_events();
    let answers = Answers::default();
    answers.submit(&store, 0, turn("a", vec![put("x", "1"), append("log", 1, b"one")]));
    answers.submit(&store, 1, turn("b", vec![put("y", "2")]));
    assert_eq!(answers.all(), []);
    assert_eq!(value(&store, "x"), None);
    assert_eq!(store.step_of(1), 1);
    assert_eq!(answers.succeeded(), [0]);
    assert_eq!(value(&store, "x").as_deref(), Some("1"));
    assert_eq!(value(&store, "y"), None);
    assert_eq!(store.step(), 1);
    let completed = |turn| StoreEvent::Completed { turn, is_ok: true };
    assert_eq!(store.events(), [StoreEvent::Durable(0), completed(0), StoreEvent::Durable(1), completed(1)]);
}

#[test]
fn an_actor_is_refused_after_a_failure_until_it_has_reloaded() {
    let store = MemoryStore::manual();
    let answers = Answers::default();
    answers.submit(&store, 0, turn("a", vec![expect("x", 9)]));
    answers.submit(&store, 1, turn("a", vec![put("x", "1")]));
    answers.submit(&store, 2, turn("b", vec![put("y", "1")]));
    store.step();
    answers.submit(&store, 3, turn("a", vec![put("x", "2")]));
    store.reloaded(&actor("a"));
    answers.submit(&store, 4, turn("a", vec![put("x", "3")]));
    store.step();
    assert_eq!(answers.succeeded(), [2, 4]);
    assert!(matches!(answers.all()[0], (0, Err(CommitError::Stale { .. }))));
    assert!(matches!(answers.all()[1], (1, Err(CommitError::Refused { .. }))));
    assert!(matches!(answers.all()[3], (3, Err(CommitError::Refused { .. }))));
    assert_eq!(value(&store, "x").as_deref(), Some("3"));
}

#[test]
fn a_full_medium_refuses_a_turn_and_takes_the_next() {
    let store = MemoryStore::immediate();
    store.fail_next_commit(Fault::Full);
    let full = commit_and_wait(&store, turn("a", vec![put("x", "1"), append("log", 1, b"one")]));
    assert_eq!(full, Err(CommitError::Full));
    assert_eq!((value(&store, "x"), sequences(&store, "log")), (None, vec![]));
    store.reloaded(&actor("a"));
    commit_and_wait(&store, turn("a", vec![put("x", "2"), append("log", 1, b"uno")])).unwrap();
    assert_eq!(value(&store, "x").as_deref(), Some("2"));
    // What the refused turn left in the log's file is never taken for what came after it.
    let entry = LogPart::Entry { sequence: 1, entry: b"uno".to_vec() };
    assert_eq!(store.read_log("log", 0, usize::MAX), Ok(vec![entry]));
}

#[test]
fn a_failed_medium_takes_nothing_until_the_store_is_opened_again() {
    let store = MemoryStore::immediate();
    commit_and_wait(&store, turn("a", vec![put("x", "1")])).unwrap();
    store.fail_next_commit(Fault::Io);
    assert!(matches!(commit_and_wait(&store, turn("a", vec![put("x", "2")])), Err(CommitError::Failed { .. })));
    store.reloaded(&actor("a"));
    assert!(matches!(commit_and_wait(&store, turn("a", vec![put("x", "3")])), Err(CommitError::Failed { .. })));
    assert!(store.failure().is_some());
    store.kill();
    let store = store.reopen().unwrap();
    commit_and_wait(&store, turn("a", vec![put("y", "4")])).unwrap();
    assert_eq!((value(&store, "x").as_deref(), value(&store, "y").as_deref()), (Some("1"), Some("4")));
}

#[test]
fn a_log_that_cannot_be_written_fails_its_own_turn_alone() {
    let store = MemoryStore::manual();
    let answers = Answers::default();
    answers.submit(&store, 0, turn("a", vec![put("x", "1"), append("a", 1, b"half of this is written")]));
    answers.submit(&store, 1, turn("b", vec![put("y", "1"), append("b", 1, b"one")]));
    answers.submit(&store, 2, turn("c", vec![append("a", 1, b"two")]));
    store.fail_next_append(Fault::Full);
    store.step();
    // The group failed once; tried one by one, each turn found room, and the last one its place taken.
    assert_eq!(answers.succeeded(), [0, 1]);
    assert!(matches!(answers.all()[2], (2, Err(CommitError::Sequence { expected: 2, found: 1, .. }))));
    assert_eq!((sequences(&store, "a"), sequences(&store, "b")), (vec![1], vec![1]));
    store.fail_next_append(Fault::Full);
    answers.submit(&store, 3, turn("a", vec![append("a", 2, b"two")]));
    store.step();
    assert_eq!(answers.all().last(), Some(&(3, Err(CommitError::Full))));
    assert_eq!(sequences(&store, "a"), [1]);
}

#[test]
fn a_store_that_is_open_is_locked_and_one_that_will_not_open_is_quarantined() {
    let store = MemoryStore::immediate();
    commit_and_wait(&store, turn("a", vec![put("x", "1")])).unwrap();
    assert!(matches!(store.reopen(), Err(OpenStoreError::Locked { .. })));
    store.close();
    store.refuse_to_open();
    assert!(store.reopen().unwrap_err().is_damage());
    store.quarantine();
    assert_eq!(value(&store.reopen().unwrap(), "x"), None);
}

#[test]
fn an_old_image_brings_back_the_old_state_and_its_revision() {
    let store = MemoryStore::immediate();
    commit_and_wait(&store, turn("a", vec![put("x", "1"), append("log", 1, b"one")])).unwrap();
    let image = store.image();
    commit_and_wait(&store, turn("a", vec![put("x", "2"), append("log", 2, b"two")])).unwrap();
    store.kill();
    store.restore(&image);
    let restored = store.reopen().unwrap();
    assert_eq!((value(&restored, "x").as_deref(), sequences(&restored, "log")), (Some("1"), vec![1]));
    assert_eq!(restored.revision().0, 1);
    assert_eq!(store.from_image(&image).unwrap().image(), image);
}

/// One life of a store: turns that each write a record and a log entry, over a power cut after `operations`
/// writing operations; then every promise about what the next life finds.
fn one_power_cut(operations: u64, seed: u64) -> bool {
    let mut entropy = Entropy::from_seed([7; 32]).stream(&format!("power {seed}"));
    let mut store = MemoryStore::manual();
    let mut acked = 0;
    let mut begun: u64 = 0;
    let mut was_cut = false;
    for life in 0..3 {
        let answers = Answers::default();
        if life < 2 {
            store.cut_power_after(operations + life);
        }
        for _ in 0..8 {
            begun += 1;
            let number = begun;
            let filler = vec![u8::try_from(number % 251).unwrap(); 6 << 10];
            let forgotten = number.saturating_sub(6);
            let mutations = vec![
                put(&format!("key-{number}"), "present"),
                append("log", number, &filler),
                put("last", &number.to_string()),
                forget("log", forgotten),
                delete(&format!("key-{forgotten}")),
            ];
            answers.submit(&store, number, turn("writer", mutations));
            if entropy.below(2) == 0 {
                store.step();
            }
        }
        if life == 2 {
            store.close();
        } else {
            store.crash(&mut entropy);
        }
        was_cut |= answers.succeeded().len() < 8;
        acked = answers.succeeded().last().copied().unwrap_or(acked);
        store = store.reopen().unwrap();
        let last = value(&store, "last").map_or(0, |text| text.parse().unwrap());
        assert!(last >= acked, "turn {acked} was answered, {last} is the last that is there");
        assert!(last <= begun);
        let log = sequences(&store, "log");
        assert_eq!(log, (last.saturating_sub(6) + 1..=last).collect::<Vec<u64>>(), "the log and the records agree");
        for number in last.saturating_sub(5).max(1)..=last {
            assert_eq!(value(&store, &format!("key-{number}")).as_deref(), Some("present"), "no turn is torn");
        }
        begun = last;
    }
    was_cut
}

#[test]
fn acked_turns_survive_a_power_cut_at_every_operation() {
    let mut cuts = 0;
    for operations in 0..100 {
        for seed in 0..4 {
            cuts += u64::from(one_power_cut(operations, seed * 1000 + operations));
        }
    }
    assert!(cuts > 100, "most lives were cut short: {cuts}");
}
