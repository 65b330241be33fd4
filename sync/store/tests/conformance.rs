//! One suite for both stores: random turns, reloads and restarts, compared with the reference after each.

use std::sync::mpsc;

use fleetd_sync_core::commit::{Batch, CommitError, Mutation, Revision, Space};
use fleetd_sync_store::disk::{DiskStore, Profile};
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::state_store::{Cursor, FeedError, KeyRange, LogPart, StateStore};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use crate::material::{actor, turn};
use crate::reference::Reference;

/// Records of a page: small, so that every comparison pages.
const PAGE_RECORDS: usize = 3;
/// Bytes of log entries of a page.
const PAGE_BYTES: usize = 7 << 10;

/// A store that can be closed and opened again.
trait Subject: Sized {
    fn store(&self) -> &dyn StateStore;
    fn reopen(self) -> Self;
}

impl Subject for MemoryStore {
    fn store(&self) -> &dyn StateStore {
        self
    }

    fn reopen(self) -> Self {
        self.close();
        MemoryStore::reopen(&self).unwrap()
    }
}

struct OnDisk {
    folder: TempDir,
    store: DiskStore,
}

impl OnDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(&folder.path().join("store"), Profile::Agent).unwrap();
        Self { folder, store }
    }
}

impl Subject for OnDisk {
    fn store(&self) -> &dyn StateStore {
        &self.store
    }

    fn reopen(self) -> Self {
        drop(self.store);
        let store = DiskStore::open(&self.folder.path().join("store"), Profile::Agent).unwrap();
        Self { folder: self.folder, store }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Turns that are submitted at once, and so may share a group.
    Turns(Vec<(u8, Vec<Draft>)>),
    Reloaded(u8),
    Reopen,
}

/// A mutation whose numbers are filled in from the reference when it is submitted, so that most of them fit.
#[derive(Clone, Debug)]
enum Draft {
    Put { space: bool, key: u8, length: u16 },
    Delete { space: bool, key: u8 },
    ExpectCurrent { space: bool, key: u8 },
    Expect { space: bool, key: u8, revision: u8 },
    Append { log: u8, length: u16 },
    AppendAt { log: u8, sequence: u8 },
    Forget { log: u8, back: u8 },
    Remove { log: u8 },
}

fn drafts() -> impl Strategy<Value = Draft> {
    let space = any::<bool>;
    let key = || 0_u8..12;
    let log = || 0_u8..3;
    prop_oneof![
        6 => (space(), key(), 0_u16..300).prop_map(|(space, key, length)| Draft::Put { space, key, length }),
        2 => (space(), key()).prop_map(|(space, key)| Draft::Delete { space, key }),
        3 => (space(), key()).prop_map(|(space, key)| Draft::ExpectCurrent { space, key }),
        1 => (space(), key(), 0_u8..20).prop_map(|(space, key, revision)| Draft::Expect { space, key, revision }),
        8 => (log(), 0_u16..9000).prop_map(|(log, length)| Draft::Append { log, length }),
        1 => (log(), 0_u8..20).prop_map(|(log, sequence)| Draft::AppendAt { log, sequence }),
        2 => (log(), 0_u8..6).prop_map(|(log, back)| Draft::Forget { log, back }),
        1 => log().prop_map(|log| Draft::Remove { log }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => vec((0_u8..3, vec(drafts(), 1..4)), 1..5).prop_map(Step::Turns),
        3 => (0_u8..3).prop_map(Step::Reloaded),
        1 => Just(Step::Reopen),
    ];
    vec(step, 1..40)
}

fn space(is_device: bool) -> Space {
    if is_device { Space::Device } else { Space::Name }
}

fn log_name(log: u8) -> String {
    format!("log-{log}")
}

impl Draft {
    /// Fills in what the reference says stands there now.
    fn finish(&self, reference: &Reference, salt: u64) -> Mutation {
        let key = |key: u8| vec![b'k', key];
        match *self {
            Self::Put { space: is_device, key: number, length } => {
                let value = (0..length).map(|index| (u64::from(index) ^ salt) as u8).collect();
                Mutation::Put { space: space(is_device), key: key(number), value }
            }
            Self::Delete { space: is_device, key: number } => {
                Mutation::Delete { space: space(is_device), key: key(number) }
            }
            Self::ExpectCurrent { space: is_device, key: number } => {
                let found = reference.records.get(&(space(is_device), key(number)));
                let revision = found.map_or(Revision(0), |(_, revision)| *revision);
                Mutation::Expect { space: space(is_device), key: key(number), revision }
            }
            Self::Expect { space: is_device, key: number, revision } => {
                let revision = Revision(u64::from(revision));
                Mutation::Expect { space: space(is_device), key: key(number), revision }
            }
            Self::Append { log, length } => {
                let sequence = reference.logs.get(&log_name(log)).map_or(salt % 5, |log| log.next);
                let entry = (0..length).map(|index| (u64::from(index % 97) ^ salt) as u8).collect();
                Mutation::Append { log: log_name(log), sequence, entry }
            }
            Self::AppendAt { log, sequence } => {
                Mutation::Append { log: log_name(log), sequence: u64::from(sequence), entry: vec![sequence] }
            }
            Self::Forget { log, back } => {
                let next = reference.logs.get(&log_name(log)).map_or(0, |log| log.next);
                Mutation::Forget { log: log_name(log), through: next.saturating_sub(u64::from(back)) }
            }
            Self::Remove { log } => Mutation::Forget { log: log_name(log), through: u64::MAX },
        }
    }
}

/// A turn that removes a log names it once: what it then does to the log anew belongs to the next turn.
fn is_lawful(mutations: &[Mutation]) -> bool {
    let log = |mutation: &Mutation| match mutation {
        Mutation::Append { log, .. } | Mutation::Forget { log, .. } => Some(log.clone()),
        Mutation::Put { .. } | Mutation::Delete { .. } | Mutation::Expect { .. } => None,
    };
    mutations.iter().all(|mutation| match mutation {
        Mutation::Forget { log: removed, through: u64::MAX } => {
            mutations.iter().filter(|other| log(other).as_ref() == Some(removed)).count() == 1
        }
        _ => true,
    })
}

struct Run<S> {
    subject: S,
    reference: Reference,
    /// The feed's beginning in this opening.
    start: Cursor,
    salt: u64,
}

impl<S: Subject> Run<S> {
    fn new(subject: S) -> Self {
        let start = subject.store().feed_end();
        Self { subject, reference: Reference::default(), start, salt: 0 }
    }

    fn step(mut self, step: &Step) -> Result<Self, TestCaseError> {
        match step {
            Step::Turns(turns) => self.turns(turns)?,
            Step::Reloaded(number) => {
                let actor = actor(&number.to_string());
                self.subject.store().reloaded(&actor);
                self.reference.reloaded(&actor);
            }
            Step::Reopen => {
                let old = self.subject.store().feed_end();
                self.subject = self.subject.reopen();
                self.reference.reopened();
                self.start = self.subject.store().feed_end();
                prop_assert_eq!(self.subject.store().feed(old, 1), Err(FeedError::TooOld));
            }
        }
        self.compare()?;
        Ok(self)
    }

    fn turns(&mut self, turns: &[(u8, Vec<Draft>)]) -> Result<(), TestCaseError> {
        let (answer, answers) = mpsc::channel();
        let mut expected: Vec<Result<(), CommitError>> = Vec::new();
        for (number, drafts) in turns {
            let mut mutations = Vec::new();
            for draft in drafts {
                self.salt += 1;
                mutations.push(draft.finish(&self.reference, self.salt));
                if !is_lawful(&mutations) {
                    mutations.pop();
                }
            }
            let batch: Batch = turn(&number.to_string(), mutations);
            expected.push(self.reference.turn(&batch));
            let answer = answer.clone();
            self.subject.store().submit(batch, Box::new(move |result| answer.send(result).unwrap()));
        }
        drop(answer);
        prop_assert_eq!(answers.iter().collect::<Vec<_>>(), expected);
        Ok(())
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        let store = self.subject.store();
        prop_assert_eq!(store.revision(), self.reference.revision);
        prop_assert_eq!(store.failure(), None);
        for space in [Space::Device, Space::Name, Space::Meta] {
            self.compare_space(space)?;
        }
        self.compare_feed()?;
        let names: Vec<String> = self.reference.logs.keys().cloned().collect();
        prop_assert_eq!(store.list_logs("log-", None, 100).unwrap(), names.clone());
        let second = store.list_logs("log-", Some("log-0"), 1).unwrap();
        prop_assert_eq!(second.first(), names.iter().find(|name| name.as_str() > "log-0"));
        prop_assert_eq!(store.list_logs("lug", None, 100).unwrap(), Vec::<String>::new());
        for log in (0..3).map(log_name) {
            self.compare_log(&log)?;
        }
        Ok(())
    }

    fn compare_space(&self, space: Space) -> Result<(), TestCaseError> {
        let store = self.subject.store();
        let mut found = Vec::new();
        let mut range = KeyRange::prefix(b"k");
        loop {
            let page = store.scan(space, range.clone(), PAGE_RECORDS).unwrap();
            let Some((last, _)) = page.last() else { break };
            range = range.after(last);
            found.extend(page.into_iter().map(|(key, versioned)| (key, (versioned.value, versioned.revision))));
        }
        let records = self.reference.records.iter().filter(|((of, _), _)| *of == space);
        let expected: Vec<_> = records.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        prop_assert_eq!(&found, &expected);
        let middle = store.scan(space, KeyRange::between(b"k\x03", b"k\x07"), 100).unwrap();
        let inside = expected.iter().filter(|(key, _)| key[1] >= 3 && key[1] < 7);
        prop_assert!(middle.iter().map(|(key, _)| key).eq(inside.map(|(key, _)| key)));
        for number in 0..12 {
            let key = vec![b'k', number];
            let one = store.get(space, &key).unwrap().map(|versioned| (versioned.value, versioned.revision));
            prop_assert_eq!(one, self.reference.records.get(&(space, key)).cloned());
        }
        Ok(())
    }

    fn compare_feed(&self) -> Result<(), TestCaseError> {
        let store = self.subject.store();
        let mut cursor = self.start;
        let mut changes = Vec::new();
        loop {
            let Ok(page) = store.feed(cursor, 5) else {
                // The agent's feed is short; then its end must still be served.
                prop_assert!(self.reference.changes.len() > 256);
                prop_assert!(store.feed(store.feed_end(), 1).unwrap().changes.is_empty());
                return Ok(());
            };
            if page.changes.is_empty() {
                break;
            }
            changes.extend(page.changes);
            cursor = page.cursor;
        }
        prop_assert_eq!(&changes, &self.reference.changes);
        prop_assert_eq!(cursor, store.feed_end());
        Ok(())
    }

    fn compare_log(&self, log: &str) -> Result<(), TestCaseError> {
        let store = self.subject.store();
        let mut parts = Vec::new();
        let mut from = 0;
        loop {
            let page = store.read_log(log, from, PAGE_BYTES).unwrap();
            let Some(LogPart::Entry { sequence, .. }) = page.last() else { break };
            from = sequence + 1;
            parts.extend(page);
        }
        prop_assert_eq!(&parts, &self.reference.parts(log));
        let expected = self.reference.logs.get(log).filter(|log| log.first < log.next);
        prop_assert_eq!(store.log_range(log).unwrap(), expected.map(|log| (log.first, log.next - 1)));
        Ok(())
    }
}

fn check(cases: u32, subject: impl Fn() -> Run<OnDiskOrMemory>) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner =
        TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(Default::default()));
    let outcome = runner.run(&steps(), |steps| {
        let mut run = subject();
        for step in &steps {
            run = run.step(step)?;
        }
        run.step(&Step::Reopen).map(drop)
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// Both stores behind one type, so that the suite is one.
enum OnDiskOrMemory {
    Disk(OnDisk),
    Memory(MemoryStore),
}

impl Subject for OnDiskOrMemory {
    fn store(&self) -> &dyn StateStore {
        match self {
            Self::Disk(subject) => subject.store(),
            Self::Memory(subject) => subject.store(),
        }
    }

    fn reopen(self) -> Self {
        match self {
            Self::Disk(subject) => Self::Disk(subject.reopen()),
            Self::Memory(subject) => Self::Memory(Subject::reopen(subject)),
        }
    }
}

#[test]
fn the_twin_does_what_the_reference_does() {
    check(150, || Run::new(OnDiskOrMemory::Memory(MemoryStore::immediate())));
}

#[test]
fn the_disk_does_what_the_reference_does() {
    check(12, || Run::new(OnDiskOrMemory::Disk(OnDisk::new())));
}
