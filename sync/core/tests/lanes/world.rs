//! Nodes with disks, and the exchange that two of them have when they meet.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{DocumentId, Head, Op, Path, Position, Value};
use fleetd_sync_core::id::{EnvelopeHash, FleetId, KeyId, LocalId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::lane::{Outcome, WriteError};
use fleetd_sync_core::replica::{AuthorityWriter, LaneRecord, Received, Replica, Writers, Written};
use fleetd_sync_core::time::{ClockQuality, Monotonic, Now, Wall};
use fleetd_sync_core::trust::{Rank, Sites};

pub(crate) fn now() -> Now {
    Now { monotonic: Monotonic(0), wall: Wall(1_764_000_000_000), quality: ClockQuality::Synced }
}

pub(crate) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub(crate) fn set(at: &str, text: &str) -> Op {
    Op::Set { path: path(at), value: Value::Text(text.to_owned()) }
}

pub(crate) fn delete(at: &str) -> Op {
    Op::Delete { path: path(at) }
}

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The keys of a small fleet: two authorities of unlike rank, a third of the first one's rank, and a device.
#[derive(Clone)]
pub(crate) struct Fleet {
    pub(crate) id: FleetId,
    pub(crate) central: SecretKey,
    pub(crate) second: SecretKey,
    pub(crate) site: SecretKey,
    pub(crate) device: SecretKey,
    pub(crate) entropy: Entropy,
}

impl Fleet {
    pub(crate) fn new(seed: u8) -> Self {
        let mut entropy = Entropy::from_seed([seed; 32]);
        let [central, second, site, device] = [(); 4].map(|()| SecretKey::generate(&mut entropy));
        Self { id: FleetId::random(&mut entropy), central, second, site, device, entropy }
    }

    pub(crate) fn local(&self) -> LocalId {
        self.device.id().into()
    }

    pub(crate) fn desired(&self) -> DocumentId {
        DocumentId::Desired(self.local())
    }

    pub(crate) fn actual(&self) -> DocumentId {
        DocumentId::Actual(self.local())
    }

    pub(crate) fn writers(&self) -> Writers {
        let authority =
            |key: &SecretKey, rank| (key.id(), AuthorityWriter { key: key.public(), rank, sites: Sites::All });
        Writers {
            authorities: Arc::new(BTreeMap::from([
                authority(&self.central, Rank::CENTRAL),
                authority(&self.second, Rank::CENTRAL),
                authority(&self.site, Rank::SITE),
            ])),
            devices: BTreeMap::from([(self.local(), Box::new(self.device.public()))]),
            sites: BTreeMap::new(),
            revoked: Arc::default(),
            trust_version: 1,
        }
    }

    pub(crate) fn node(&mut self, key: Option<&SecretKey>) -> Node {
        Node::load(self, key.cloned(), Disk::default())
    }
}

/// What a store holds.
pub(crate) type Disk = BTreeMap<Vec<u8>, Vec<u8>>;

/// Applies a turn's records to a disk.
pub(crate) fn apply(disk: &mut Disk, records: &[LaneRecord]) {
    for record in records {
        match record.clone().into_mutation() {
            Mutation::Put { key, value, .. } => drop(disk.insert(key, value)),
            Mutation::Delete { key, .. } => drop(disk.remove(&key)),
            other => panic!("a replica only puts and deletes, not {other:?}"),
        }
    }
}

/// What a node wrote and has stored.
#[derive(Debug)]
pub(crate) struct Wrote {
    pub(crate) envelopes: Vec<Arc<[u8]>>,
    pub(crate) head: Option<Head>,
}

/// A replica with its disk, which takes every turn at once.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) replica: Replica,
    pub(crate) disk: Disk,
    pub(crate) key: Option<SecretKey>,
    /// What it has written since it was loaded.
    pub(crate) written: Vec<(DocumentId, Head)>,
}

impl Node {
    pub(crate) fn load(fleet: &mut Fleet, key: Option<SecretKey>, disk: Disk) -> Self {
        let writers = fleet.writers();
        Self::load_with(fleet, key, disk, writers)
    }

    pub(crate) fn load_with(fleet: &mut Fleet, key: Option<SecretKey>, disk: Disk, writers: Writers) -> Self {
        let mut replica = Replica::new(fleet.id, key.clone(), &mut fleet.entropy);
        for document in [DocumentId::Trust, fleet.desired(), fleet.actual()] {
            replica.hold(document);
        }
        let mut node = Self { replica, disk, key, written: Vec::new() };
        for record in node.disk.values() {
            node.replica.load(record).unwrap();
        }
        node.set_writers(writers);
        node
    }

    /// The same node after a restart, with what is on its disk.
    pub(crate) fn restarted(&self, fleet: &mut Fleet) -> Self {
        Self::load_with(fleet, self.key.clone(), self.disk.clone(), self.replica.writers().clone())
    }

    pub(crate) fn set_writers(&mut self, writers: Writers) {
        let settled = self.replica.set_writers(writers);
        apply(&mut self.disk, &settled.records);
    }

    pub(crate) fn write(&mut self, document: DocumentId, ops: Vec<Op>) -> Wrote {
        self.try_write(document, ops).unwrap()
    }

    pub(crate) fn try_write(&mut self, document: DocumentId, ops: Vec<Op>) -> Result<Wrote, WriteError> {
        let written = self.replica.write(now(), document, ops)?;
        self.take(document, &written);
        Ok(Wrote { envelopes: written.envelopes, head: written.head })
    }

    pub(crate) fn take(&mut self, document: DocumentId, written: &Written) {
        apply(&mut self.disk, &written.records);
        for bytes in &written.envelopes {
            let head = fleetd_sync_core::codec::decode(bytes).unwrap().head();
            self.written.push((document, head));
        }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Received {
        let received = self.replica.receive(bytes);
        apply(&mut self.disk, &received.records);
        received
    }

    pub(crate) fn head(&self, document: DocumentId, lane: KeyId) -> Option<Head> {
        let heads = self.replica.heads();
        heads.iter().find(|head| (head.document, head.lane) == (document, lane)).map(|head| head.head)
    }

    pub(crate) fn digest(&self) -> [u8; 16] {
        self.replica.digest(&[])
    }
}

/// Gives `to` what it lacks of what `from` has, as a session does. Returns what became of each envelope.
pub(crate) fn push(from: &Node, to: &mut Node) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for lane in from.replica.heads() {
        let have = to.head(lane.document, lane.lane);
        if have == Some(lane.head) {
            continue;
        }
        let mut queue = from.replica.envelopes_after(lane.document, lane.lane, have);
        let mut asked = false;
        while !queue.is_empty() {
            for bytes in std::mem::take(&mut queue) {
                let received = to.receive(&bytes);
                if let (Outcome::Gap { have }, false) = (&received.outcome, asked) {
                    asked = true;
                    queue = from.replica.envelopes_after(lane.document, lane.lane, *have);
                }
                if let Some(document) = received.reopen {
                    let written = to.replica.reopen(now(), document).unwrap();
                    to.take(document, &written);
                }
                outcomes.push(received.outcome);
            }
        }
    }
    outcomes
}

/// Lets two nodes meet until neither has anything new for the other.
pub(crate) fn meet(one: &mut Node, other: &mut Node) {
    for _ in 0..8 {
        if one.digest() == other.digest() {
            return;
        }
        push(one, other);
        push(other, one);
    }
    assert_eq!(one.replica.heads(), other.replica.heads(), "two nodes that met have one set of heads");
}

/// Every position that honest writers have written, each with the body that stands there.
#[derive(Default)]
pub(crate) struct Ledger(BTreeMap<(DocumentId, KeyId, Position), EnvelopeHash>);

impl Ledger {
    /// Takes what a node has written since the last time.
    pub(crate) fn take(&mut self, node: &mut Node) {
        let lane = node.key.as_ref().map(SecretKey::id).unwrap();
        for (document, head) in node.written.drain(..) {
            let before = self.0.insert((document, lane, head.position), head.hash);
            assert_eq!(before, None, "{:?} in {document} was written twice", head.position);
        }
    }
}

/// How many cases a property tries: few in every run, and as many as `FLEETD_CASES` says when somebody looks closer.
pub(crate) fn cases(few: u32) -> proptest::test_runner::Config {
    let cases = option_env!("FLEETD_CASES").and_then(|cases| cases.parse().ok()).unwrap_or(few);
    // A failure prints its shrunken steps, which are worth more than a seed in a file.
    proptest::test_runner::Config { cases, failure_persistence: None, ..proptest::test_runner::Config::default() }
}
