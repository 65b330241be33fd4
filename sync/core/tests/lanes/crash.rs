//! Power cuts at any write, and disks restored from any backup.

use fleetd_sync_core::envelope::DocumentId;
use fleetd_sync_core::key::SecretKey;
use proptest::prelude::*;
use proptest::sample::Index;

use super::world::{Disk, Fleet, Ledger, Node, cases, delete, meet, push, set};

/// What can happen to one writer and two nodes that listen to it.
#[derive(Clone, Debug)]
enum Step {
    /// It writes; nobody hears of it before it meets somebody, and then it is on disk.
    Write { key: u8, value: u16 },
    /// It meets one of the others.
    Meet { peer: usize },
    /// The others meet.
    Gossip,
    /// The power is cut, and of the turns that nobody has heard of the last ones are lost.
    Crash { lost: Index },
    /// Its disk is replaced by any image of it that ever was.
    Restore { image: Index },
    /// A commit fails, and the writer goes on.
    CommitFailed,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..6_u8, 0..900_u16).prop_map(|(key, value)| Step::Write { key, value }),
        3 => (0..2_usize).prop_map(|peer| Step::Meet { peer }),
        1 => Just(Step::Gossip),
        2 => any::<Index>().prop_map(|lost| Step::Crash { lost }),
        1 => any::<Index>().prop_map(|image| Step::Restore { image }),
        1 => Just(Step::CommitFailed),
    ]
}

struct World {
    fleet: Fleet,
    document: DocumentId,
    writer: Node,
    peers: [Node; 2],
    /// The disk after each turn.
    images: Vec<Disk>,
    /// How many of them somebody may have heard of.
    heard: usize,
    ledger: Ledger,
    /// Whether an authority has yet to learn its own heads before it may write.
    must_ask: bool,
}

impl World {
    fn new(device_writes: bool) -> Self {
        let mut fleet = Fleet::new(5);
        let (key, document) = if device_writes {
            (fleet.device.clone(), fleet.actual())
        } else {
            (fleet.central.clone(), fleet.desired())
        };
        let (writer, peers) = (fleet.node(Some(&key)), [fleet.node(None), fleet.node(None)]);
        let images = vec![writer.disk.clone()];
        Self { fleet, document, writer, peers, images, heard: 1, ledger: Ledger::default(), must_ask: false }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write { key, value } => self.write(*key, *value),
            Step::Meet { peer } => meet(&mut self.writer, &mut self.peers[*peer]),
            Step::Gossip => {
                let [one, other] = &mut self.peers;
                push(one, other);
                push(other, one);
            }
            Step::Crash { lost } => {
                let kept = self.images.len() - lost.index(self.images.len() - self.heard + 1);
                self.images.truncate(kept);
                self.load(self.images[kept - 1].clone());
            }
            Step::Restore { image } => self.load(image.get(&self.images).clone()),
            Step::CommitFailed => self.writer.replica.commit_failed(),
        }
        self.ledger.take(&mut self.writer);
        if self.images.last() != Some(&self.writer.disk) {
            self.images.push(self.writer.disk.clone());
        }
        if matches!(step, Step::Meet { .. }) {
            self.heard = self.images.len();
        }
        for node in self.peers.iter().chain([&self.writer]) {
            assert_eq!(node.replica.fork_proofs().count(), 0, "nobody's key was cloned");
        }
    }

    fn load(&mut self, disk: Disk) {
        self.writer = Node::load(&mut self.fleet, self.writer.key.clone(), disk);
        self.must_ask = true;
    }

    fn write(&mut self, key: u8, value: u16) {
        // A device writes what it sees. An authority mints late: only when its lane's heads have reached it.
        if self.must_ask && matches!(self.document, DocumentId::Desired(_)) {
            for peer in &self.peers {
                push(peer, &mut self.writer);
            }
        }
        self.must_ask = false;
        let path = format!("key/{key}");
        let op = if value.is_multiple_of(5) { delete(&path) } else { set(&path, &"v".repeat(usize::from(value))) };
        self.writer.write(self.document, vec![op]);
    }

    /// Everybody meets, and has what the writer has.
    fn heal(&mut self) {
        self.step(&Step::Write { key: 9, value: 1 });
        for peer in [0, 1, 0, 1] {
            self.step(&Step::Meet { peer });
        }
        let lane = self.writer.key.as_ref().map(SecretKey::id).unwrap();
        for peer in &self.peers {
            assert_eq!(peer.digest(), self.writer.digest());
            let state = |node: &Node| node.replica.lane_state(self.document, lane).cloned();
            assert_eq!(state(peer), state(&self.writer));
            assert_eq!(peer.replica.resolve(self.fleet.local()), self.writer.replica.resolve(self.fleet.local()));
        }
        let restarted = self.writer.restarted(&mut self.fleet);
        assert_eq!(restarted.digest(), self.writer.digest(), "the disk has what the memory has");
        let state = |node: &Node| node.replica.lane_state(self.document, lane).cloned();
        assert_eq!(state(&restarted), state(&self.writer));
    }
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn no_crash_and_no_restore_writes_a_position_twice_or_makes_a_proof(
        device_writes: bool,
        steps in proptest::collection::vec(any_step(), 1..100),
    ) {
        let mut world = World::new(device_writes);
        for step in &steps {
            world.step(step);
        }
        world.heal();
    }
}
