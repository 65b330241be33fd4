//! Equal heads and trust mean equal resolved state, whatever the way by which they came about.

use std::sync::Arc;

use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::envelope::{DocumentId, Need, Op, Value};
use fleetd_sync_core::id::{ArtifactDigest, HoldId, KeyId};
use fleetd_sync_core::lane::WriteError;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::resolve::{Assignment, Run, assign, hold_path, lift_path, run_path};
use proptest::prelude::*;
use proptest::sample::Index;

use super::world::{Fleet, Node, cases, delete, meet, now, set};

/// What can happen in a fleet of four writers and two nodes that only listen.
#[derive(Clone, Debug)]
enum Step {
    /// A writer writes, perhaps on condition.
    Write { writer: usize, what: u8, version: u8, need: Option<Index> },
    /// A node starts again from its disk; a writer then has a new stamp.
    Restart { node: usize },
    /// A node gets any envelope that was ever written, for the first time or again.
    Deliver { node: usize, envelope: Index },
    /// Two nodes meet.
    Meet { one: usize, other: usize },
    /// A node learns of a newer root record.
    Trust { node: usize, version: u64 },
}

const WRITERS: usize = 4;
const NODES: usize = 6;

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..WRITERS, any::<u8>(), 0..4_u8, proptest::option::weighted(0.15, any::<Index>()))
            .prop_map(|(writer, what, version, need)| Step::Write { writer, what, version, need }),
        1 => (0..NODES).prop_map(|node| Step::Restart { node }),
        8 => (0..NODES, any::<Index>()).prop_map(|(node, envelope)| Step::Deliver { node, envelope }),
        2 => (0..NODES, 0..NODES).prop_map(|(one, other)| Step::Meet { one, other }),
        1 => (0..NODES, 2..4_u64).prop_map(|(node, version)| Step::Trust { node, version }),
    ]
}

struct World {
    fleet: Fleet,
    nodes: Vec<Node>,
    envelopes: Vec<Arc<[u8]>>,
    heads: Vec<(DocumentId, KeyId, fleetd_sync_core::envelope::Position)>,
}

fn holds(number: u8) -> HoldId {
    HoldId::from_bytes([number; HoldId::LENGTH])
}

fn configuration(workload: &WorkloadName, version: u8) -> Arc<Configuration> {
    let values = [("ROAST".to_owned(), format!("{version}"))].into();
    Arc::new(Configuration::new(workload.clone(), "roast".parse().unwrap(), values, [].into()).unwrap())
}

fn ops(writer: usize, what: u8, version: u8) -> Vec<Op> {
    let name = ["coffee", "tea"][usize::from(what % 2)].parse().unwrap();
    let reason = |path| Op::Set { path, value: Value::Text(format!("because {version}")) };
    if writer == WRITERS - 1 {
        // Large enough that epochs end in short histories, too.
        return vec![set(&format!("workload/{name}/phase"), &format!("{version}").repeat(1 + usize::from(what) * 3))];
    }
    match what % 12 {
        0..=5 => assign(
            &name,
            &Assignment::Install {
                version: format!("1.{version}").parse().unwrap(),
                manifest: ArtifactDigest::of(&[version]),
                configuration: (what % 2 == 1).then(|| configuration(&name, version)),
                rollout: None,
                attempt: u64::from(what),
                terms: None,
            },
        ),
        6 => assign(&name, &Assignment::Remove),
        7 => vec![reason(hold_path(holds(version), (what > 99).then_some(&name)))],
        8 => vec![reason(lift_path(holds(version)))],
        9 => vec![delete(hold_path(holds(version), None).as_str()), delete(lift_path(holds(version)).as_str())],
        10 => vec![Op::Set { path: run_path(&name), value: Run::Stopped.value() }],
        _ => vec![set("note", &"n".repeat(1800)), set("note", &"n".repeat(usize::from(what)))],
    }
}

impl World {
    fn new() -> Self {
        let mut fleet = Fleet::new(4);
        let keys = [&fleet.central, &fleet.second, &fleet.site, &fleet.device].map(|key| Some(key.clone()));
        let nodes = keys.into_iter().chain([None, None]).map(|key| fleet.node(key.as_ref())).collect();
        Self { fleet, nodes, envelopes: Vec::new(), heads: Vec::new() }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write { writer, what, version, need } => self.write(*writer, *what, *version, need.as_ref()),
            Step::Restart { node } => self.nodes[*node] = self.nodes[*node].restarted(&mut self.fleet),
            Step::Deliver { node, envelope } if !self.envelopes.is_empty() => {
                let bytes = Arc::clone(envelope.get(&self.envelopes));
                let _ = self.nodes[*node].receive(&bytes);
            }
            Step::Meet { one, other } if one != other => {
                let (low, high) = (one.min(other), one.max(other));
                let (left, right) = self.nodes.split_at_mut(*high);
                exchange(&mut left[*low], &mut right[0]);
            }
            Step::Trust { node, version } => {
                let mut writers = self.nodes[*node].replica.writers().clone();
                writers.trust_version = writers.trust_version.max(*version);
                self.nodes[*node].set_writers(writers);
            }
            Step::Deliver { .. } | Step::Meet { .. } => {}
        }
    }

    fn write(&mut self, writer: usize, what: u8, version: u8, need: Option<&Index>) {
        let document = if writer == WRITERS - 1 { self.fleet.actual() } else { self.fleet.desired() };
        let needs = need.map(|need| {
            let choice = need.index(self.heads.len() + 2);
            match self.heads.get(choice) {
                Some((document, lane, position)) => {
                    Need::Head { document: *document, lane: *lane, position: *position }
                }
                None => Need::TrustVersion(2 + u64::from(version % 2)),
            }
        });
        let node = &mut self.nodes[writer];
        let ops = ops(writer, what, version);
        match node.replica.write_when(now(), document, ops, needs.into_iter().collect()) {
            Ok(written) => {
                node.take(document, &written);
                self.envelopes.extend(written.envelopes);
                let lane = node.replica.own_lane().unwrap();
                self.heads.extend(written.head.map(|head| (document, lane, head.position)));
            }
            Err(WriteError::Unmet { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Whoever has equal heads and equal trust wants the same, and says the same.
    fn check(&self) {
        for (index, one) in self.nodes.iter().enumerate() {
            for other in &self.nodes[index + 1..] {
                let trust = |node: &Node| node.replica.writers().trust_version;
                if one.digest() == other.digest() && trust(one) == trust(other) {
                    same(&self.fleet, one, other);
                }
            }
            assert_eq!(one.replica.fork_proofs().count(), 0, "nobody's key was cloned");
        }
    }

    /// Repairs every loss and lets everybody know of everything.
    fn heal(&mut self) {
        for node in 0..NODES {
            self.step(&Step::Trust { node, version: 3 });
        }
        for _ in 0..4 {
            for one in 0..NODES {
                for other in one + 1..NODES {
                    self.step(&Step::Meet { one, other });
                }
            }
        }
        let digests: Vec<_> = self.nodes.iter().map(Node::digest).collect();
        assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "everybody has the same heads");
        for document in self.nodes[0].replica.documents() {
            assert!(document.lanes().all(|lane| lane.parked() == 0), "nothing waits when all is known");
        }
    }
}

/// Two nodes meet for once: what waits on a third stays where it is.
fn exchange(one: &mut Node, other: &mut Node) {
    super::world::push(one, other);
    super::world::push(other, one);
}

fn same(fleet: &Fleet, one: &Node, other: &Node) {
    assert_eq!(one.replica.resolve(fleet.local()), other.replica.resolve(fleet.local()));
    for document in [DocumentId::Trust, fleet.desired(), fleet.actual()] {
        assert!(one.replica.entries(document).eq(other.replica.entries(document)), "{document} differs");
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn equal_heads_and_trust_mean_equal_resolved_state(steps in proptest::collection::vec(any_step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.heal();
        world.check();
    }
}

#[test]
fn everything_delivered_in_any_order_and_twice_ends_the_same() {
    let mut world = World::new();
    for change in 0..40_u8 {
        for writer in 0..WRITERS {
            world.write(writer, change.wrapping_mul(7), change % 4, None);
        }
        if change % 9 == 8 {
            world.step(&Step::Restart { node: usize::from(change) % WRITERS });
        }
    }
    let envelopes = world.envelopes.clone();
    let mut entropy = world.fleet.entropy.stream("order");
    for round in 0..6_u64 {
        let mut node = world.fleet.node(None);
        let mut order: Vec<_> = envelopes.iter().chain(&envelopes).collect();
        order.sort_by_cached_key(|_| entropy.next_u64());
        for bytes in order {
            // A session asks for a gap at once; here the loss is repaired by meeting the writers at the end.
            let _ = node.receive(bytes);
        }
        for writer in &mut world.nodes[..WRITERS] {
            meet(writer, &mut node);
        }
        for writer in &mut world.nodes[..WRITERS] {
            meet(&mut node, writer);
        }
        assert_eq!(node.digest(), world.nodes[0].digest(), "round {round}");
        same(&world.fleet, &node, &world.nodes[0]);
    }
}
