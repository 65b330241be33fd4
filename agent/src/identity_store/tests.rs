//! Identity in its files, across cuts and lost databases.

use std::fs;
use std::path::Path;

use fleetd_sync_core::id::LocalId;
use fleetd_sync_store::memory::{Fault, MemoryStore};
use fleetd_sync_store::state_store::commit_and_wait;

use super::*;
use crate::identity_files::IdentityFiles;

/// Runs each job where it is given.
struct AtOnce;

impl Blocking for AtOnce {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

fn open(database: &MemoryStore, directory: &Path) -> IdentityStore {
    let files = IdentityFiles::open(directory).unwrap();
    IdentityStore::open(Arc::new(database.clone()), Arc::new(files), Arc::new(AtOnce)).unwrap()
}

fn put(space: Space, key: &[u8], value: &[u8]) -> Mutation {
    Mutation::Put { space, key: key.to_vec(), value: value.to_vec() }
}

fn commit(store: &IdentityStore, mutations: Vec<Mutation>) -> Result<(), CommitError> {
    commit_and_wait(store, Batch { actor: ActorKey::only("agent"), mutations })
}

fn values(store: &dyn StateStore, space: Space) -> Vec<Vec<u8>> {
    let found = store.scan(space, KeyRange::all(), usize::MAX).unwrap();
    found.into_iter().map(|(_, found)| found.value).collect()
}

fn root(version: u64, value: &[u8]) -> Mutation {
    put(Space::RootRecord, &version.to_be_bytes(), value)
}

#[test]
fn identity_survives_the_loss_of_the_database_and_nothing_of_it_is_in_there() {
    let home = tempfile::tempdir().unwrap();
    let database = MemoryStore::immediate();
    let store = open(&database, home.path());
    let lane = put(Space::Envelope, b"lane", b"change");
    commit(&store, vec![put(Space::Agent, AGENT_KEY, b"enrolled"), root(1, b"first"), lane, root(2, b"second")])
        .unwrap();
    assert_eq!(values(&store, Space::Envelope), [b"change"]);
    assert!(values(&database, Space::Agent).is_empty() && values(&database, Space::RootRecord).is_empty());

    let after = open(&MemoryStore::immediate(), home.path());
    assert_eq!(after.get(Space::Agent, AGENT_KEY).unwrap().unwrap().value, b"enrolled");
    assert_eq!(values(&after, Space::RootRecord), [b"first".to_vec(), b"second".to_vec()]);
    assert!(values(&after, Space::Envelope).is_empty());
}

/// The key of an envelope of a document.
fn envelope(document: DocumentId, name: &[u8]) -> Vec<u8> {
    [document_prefix(document).as_slice(), name].concat()
}

#[test]
fn trust_and_floors_survive_the_loss_of_the_database_and_what_is_desired_does_not() {
    let home = tempfile::tempdir().unwrap();
    let database = MemoryStore::immediate();
    let store = open(&database, home.path());
    let (trust, desired) = (DocumentId::Trust, DocumentId::Desired(LocalId::from_bytes([1; 16])));
    let [first, second] = [b"lane 1", b"lane 2"].map(|name| envelope(trust, name));
    commit(
        &store,
        vec![
            put(Space::Envelope, &first, b"revoke"),
            put(Space::Envelope, &second, b"deny"),
            put(Space::Envelope, &envelope(desired, b"lane 1"), b"install"),
            put(Space::Floor, b"workload/coffee", b"failed"),
            put(Space::Floor, b"trust", b"7"),
        ],
    )
    .unwrap();
    assert_eq!(values(&store, Space::Envelope).len(), 3, "the agent reads them as one");
    assert_eq!(values(&database, Space::Envelope), [b"install"]);
    commit(&store, vec![Mutation::Delete { space: Space::Envelope, key: first.clone() }]).unwrap();

    let after = open(&MemoryStore::immediate(), home.path());
    assert_eq!(values(&after, Space::Envelope), [b"deny"]);
    assert_eq!(after.get(Space::Envelope, &second).unwrap().unwrap().value, b"deny");
    assert_eq!(after.get(Space::Envelope, &first).unwrap(), None);
    assert_eq!(values(&after, Space::Floor), [b"7".to_vec(), b"failed".to_vec()]);
}

#[test]
fn floors_of_several_workloads_do_not_overwrite_each_other() {
    let home = tempfile::tempdir().unwrap();
    let store = open(&MemoryStore::immediate(), home.path());
    std::thread::scope(|scope| {
        for name in ["coffee", "tea", "cocoa", "water"] {
            let store = &store;
            scope.spawn(move || {
                for round in 0..20_u8 {
                    let mutations = vec![put(Space::Floor, name.as_bytes(), &[round])];
                    commit_and_wait(store, Batch { actor: ActorKey::new("workload", name), mutations }).unwrap();
                }
            });
        }
    });
    assert_eq!(values(&open(&MemoryStore::immediate(), home.path()), Space::Floor), vec![vec![19]; 4]);
}

#[test]
fn a_cut_at_any_byte_of_a_write_leaves_the_old_identity_or_the_new_one() {
    let home = tempfile::tempdir().unwrap();
    let database = MemoryStore::immediate();
    for value in [b"old".as_slice(), b"older", b"new"] {
        commit(&open(&database, home.path()), vec![put(Space::Agent, AGENT_KEY, value)]).unwrap();
    }
    let slot = ["enrolment.a", "enrolment.b"].map(|name| home.path().join(name)).into_iter();
    let slot = slot.max_by_key(|path| fs::read(path).unwrap().windows(3).any(|window| window == b"new")).unwrap();
    let whole = fs::read(&slot).unwrap();
    for cut in 0..=whole.len() {
        fs::write(&slot, &whole[..cut]).unwrap();
        let expected = if cut == whole.len() { b"new".as_slice() } else { b"older" };
        let store = open(&database, home.path());
        assert_eq!(store.get(Space::Agent, AGENT_KEY).unwrap().unwrap().value, expected, "cut at {cut}");
    }
}

#[test]
fn an_identity_that_is_damaged_in_both_copies_is_as_one_that_never_was() {
    let home = tempfile::tempdir().unwrap();
    let database = MemoryStore::immediate();
    commit(&open(&database, home.path()), vec![put(Space::Agent, AGENT_KEY, b"enrolled"), root(1, b"first")]).unwrap();
    for name in ["enrolment.a", "enrolment.b", "root-chain.a", "root-chain.b"] {
        fs::write(home.path().join(name), b"damaged").unwrap();
    }
    let store = open(&database, home.path());
    assert!(values(&store, Space::Agent).is_empty() && values(&store, Space::RootRecord).is_empty());
    commit(&store, vec![root(1, b"again")]).unwrap();
    assert_eq!(values(&open(&database, home.path()), Space::RootRecord), [b"again"]);
}

#[test]
fn a_database_that_fails_stops_the_turns_behind_but_not_what_the_files_have() {
    let home = tempfile::tempdir().unwrap();
    let database = MemoryStore::immediate();
    let store = open(&database, home.path());
    database.fail_next_commit(Fault::Full);
    let result = commit(&store, vec![root(1, b"first"), put(Space::Envelope, b"lane", b"change")]);
    assert!(matches!(result, Err(CommitError::Full)), "{result:?}");
    let result = commit(&store, vec![put(Space::Agent, AGENT_KEY, b"enrolled")]);
    assert!(matches!(result, Err(CommitError::Refused { .. })), "{result:?}");
    store.reloaded(&ActorKey::only("agent"));
    assert_eq!(values(&store, Space::RootRecord), [b"first"]);
    assert!(values(&store, Space::Agent).is_empty() && values(&store, Space::Envelope).is_empty());
    commit(&store, vec![put(Space::Agent, AGENT_KEY, b"enrolled")]).unwrap();
}

#[test]
fn files_wait_for_the_turns_before_them() {
    let home = tempfile::tempdir().unwrap();
    let database = MemoryStore::manual();
    let store = open(&database, home.path());
    let order = Arc::new(Mutex::new(Vec::new()));
    let submit = |name: &'static str, mutations| {
        let order = Arc::clone(&order);
        let done = move |result: Result<(), CommitError>| order.lock().unwrap().push((name, result.is_ok()));
        store.submit(Batch { actor: ActorKey::only("agent"), mutations }, Box::new(done));
    };
    submit("lane", vec![put(Space::Envelope, b"1", b"a")]);
    submit("identity", vec![put(Space::Agent, AGENT_KEY, b"enrolled")]);
    submit("both", vec![root(1, b"first"), put(Space::Envelope, b"2", b"b")]);
    assert!(values(&store, Space::Agent).is_empty(), "an earlier turn may still fail");
    while database.step() > 0 {}
    assert_eq!(*order.lock().unwrap(), [("lane", true), ("identity", true), ("both", true)]);
    assert_eq!(values(&store, Space::Envelope).len(), 2);
}

#[test]
fn other_actors_do_not_wait_for_the_agent() {
    let home = tempfile::tempdir().unwrap();
    let database = MemoryStore::manual();
    let store = open(&database, home.path());
    let submit = |actor: &str, space| {
        let batch = Batch { actor: ActorKey::only(actor), mutations: vec![put(space, AGENT_KEY, b"value")] };
        store.submit(batch, Box::new(|result| result.unwrap()));
    };
    submit("agent", Space::Envelope);
    submit("agent", Space::Agent);
    submit("workload", Space::Workload);
    assert_eq!(database.queued(), 2);
}

#[test]
fn a_database_that_is_full_is_no_failure_for_good_and_one_that_is_broken_is() {
    let home = tempfile::tempdir().unwrap();
    let database = MemoryStore::immediate();
    let store = open(&database, home.path());
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    store.on_failure(Box::new(move |cause| heard.lock().unwrap().push(cause)));
    let lane = || vec![put(Space::Envelope, b"lane", b"change")];
    let agent = ActorKey::only("agent");
    database.fail_next_commit(Fault::Full);
    assert!(commit(&store, lane()).is_err());
    store.reloaded(&agent);
    commit(&store, lane()).unwrap();
    assert_eq!(*told.lock().unwrap(), Vec::<String>::new());

    database.fail_next_commit(Fault::Io);
    assert!(commit(&store, lane()).is_err());
    assert!(!told.lock().unwrap().is_empty(), "somebody has to end this process");
    assert!(store.failure().is_some());
}

#[test]
fn files_that_cannot_be_written_are_a_failure_for_good() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("identity");
    let store = open(&MemoryStore::immediate(), &directory);
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    store.on_failure(Box::new(move |cause| heard.lock().unwrap().push(cause)));
    fs::remove_dir_all(&directory).unwrap();
    assert!(commit(&store, vec![put(Space::Agent, AGENT_KEY, b"enrolled")]).is_err());
    assert_eq!(told.lock().unwrap().len(), 1);
    assert_eq!(store.failure().as_ref(), told.lock().unwrap().first());
}
