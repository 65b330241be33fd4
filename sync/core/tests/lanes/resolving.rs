//! Which authority's word a device follows.

use std::sync::Arc;

use fleetd_sync_core::configuration::Configuration;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::envelope::{Op, Value};
use fleetd_sync_core::id::{ArtifactDigest, HoldId, RolloutId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::resolve::{
    Assignment, Desired, Resolved, Run, assign, hold_path, lift_path, run_path, workload_path,
};

use super::world::{Fleet, Node, delete, push, set};

struct World {
    fleet: Fleet,
    central: Node,
    second: Node,
    site: Node,
}

fn world() -> World {
    let mut fleet = Fleet::new(7);
    let [central, second, site] = [fleet.central.clone(), fleet.second.clone(), fleet.site.clone()];
    let [central, second, site] = [central, second, site].map(|key| fleet.node(Some(&key)));
    World { fleet, central, second, site }
}

impl World {
    fn resolved(&mut self) -> Resolved {
        let mut device = self.fleet.node(None);
        for node in [&self.site, &self.central, &self.second] {
            push(node, &mut device);
        }
        device.replica.resolve(self.fleet.local())
    }

    fn coffee(&mut self) -> Desired {
        self.resolved().workloads.remove(&coffee()).unwrap()
    }
}

fn coffee() -> WorkloadName {
    "coffee".parse().unwrap()
}

fn configuration(workload: &str, roast: &str) -> Configuration {
    let values = [("ROAST".to_owned(), roast.to_owned())].into();
    Configuration::new(workload.parse().unwrap(), "roast-2".parse().unwrap(), values, [].into()).unwrap()
}

fn install(version: &str) -> Assignment {
    Assignment::Install {
        version: version.parse().unwrap(),
        manifest: ArtifactDigest::of(version.as_bytes()),
        configuration: Some(Arc::new(configuration("coffee", version))),
        rollout: Some(RolloutId::random(&mut Entropy::from_seed([1; 32]))),
        attempt: 2,
        terms: Some("veto 60s".to_owned()),
    }
}

fn hold_id(number: u8) -> HoldId {
    HoldId::from_bytes([number; HoldId::LENGTH])
}

fn hold(number: u8, workload: Option<&WorkloadName>) -> Op {
    Op::Set { path: hold_path(hold_id(number), workload), value: Value::Text("look first".to_owned()) }
}

fn lift(number: u8) -> Op {
    Op::Set { path: lift_path(hold_id(number)), value: Value::Text("looked".to_owned()) }
}

#[test]
fn an_assignment_is_read_as_it_was_written() {
    let mut world = world();
    let desired = world.fleet.desired();
    world.central.write(desired, assign(&coffee(), &install("1.8.0")));
    let head = world.central.head(desired, world.fleet.central.id());
    let expected = Desired { assignment: Some(install("1.8.0")), head, ..Desired::default() };
    assert_eq!(world.coffee(), expected);
    assert_eq!(world.resolved().heads, [(world.fleet.central.id(), head.unwrap())]);
}

#[test]
fn what_is_no_configuration_of_the_workload_makes_its_assignment_unreadable() {
    let tea = configuration("tea", "light").encode();
    for bytes in [Vec::new(), vec![9], tea] {
        let mut world = world();
        let desired = world.fleet.desired();
        let mut ops = assign(&coffee(), &install("1.8.0"));
        let path = workload_path(&coffee(), "config");
        ops.push(Op::Set { path: path.clone(), value: Value::Bytes(bytes) });
        world.central.write(desired, ops);
        assert_eq!(world.coffee().assignment, None);
        assert_eq!(world.resolved().unreadable, [(world.fleet.central.id(), path)]);
    }
}

#[test]
fn the_higher_rank_wins_as_a_whole() {
    let mut world = world();
    let desired = world.fleet.desired();
    world.site.write(desired, assign(&coffee(), &install("1.7.0")));
    world.site.write(desired, vec![Op::Set { path: run_path(&coffee()), value: Run::Stopped.value() }]);
    let without_rollout = Assignment::Install {
        version: "1.8.0".parse().unwrap(),
        manifest: ArtifactDigest::of(b"1.8.0"),
        configuration: None,
        rollout: None,
        attempt: 0,
        terms: None,
    };
    world.central.write(desired, assign(&coffee(), &without_rollout));
    let coffee = world.coffee();
    assert_eq!(coffee.assignment, Some(without_rollout), "no part of the site's assignment shows through");
    assert_eq!(coffee.run, Some(Run::Stopped), "what only the site speaks of is the site's");
}

#[test]
fn authorities_of_one_rank_that_disagree_change_nothing() {
    let mut world = world();
    let desired = world.fleet.desired();
    world.site.write(desired, assign(&coffee(), &install("1.6.0")));
    world.central.write(desired, assign(&coffee(), &install("1.8.0")));
    world.second.write(desired, assign(&coffee(), &install("1.8.0")));
    assert_eq!(world.coffee().assignment, Some(install("1.8.0")), "saying the same is no conflict");
    world.second.write(desired, assign(&coffee(), &install("1.9.0")));
    let resolved = world.resolved();
    assert_eq!(resolved.conflicts.len(), 1);
    assert_eq!(resolved.conflicts[0].lanes.len(), 2);
    let coffee = &resolved.workloads[&coffee()];
    assert!(coffee.conflict && coffee.assignment.is_none());
}

#[test]
fn only_an_explicit_remove_removes() {
    let mut world = world();
    let desired = world.fleet.desired();
    world.central.write(desired, assign(&coffee(), &install("1.8.0")));
    let forget = assign(&coffee(), &install("1.8.0")).into_iter().map(|op| match op {
        Op::Set { path, .. } => Op::Delete { path },
        other => other,
    });
    world.central.write(desired, forget.collect());
    assert!(world.resolved().workloads.is_empty(), "nothing is said of coffee, and nothing is what happens");
    world.central.write(desired, vec![set("workload/coffee/release", "1.8.0")]);
    let resolved = world.resolved();
    assert_eq!(resolved.workloads[&coffee()].assignment, None, "half an assignment is none");
    assert_eq!(resolved.unreadable.len(), 1);
    world.central.write(desired, assign(&coffee(), &Assignment::Remove));
    assert_eq!(world.coffee().assignment, Some(Assignment::Remove));
}

#[test]
fn any_hold_wins_until_it_ends_in_its_own_lane() {
    let mut world = world();
    let desired = world.fleet.desired();
    world.central.write(desired, assign(&coffee(), &install("1.8.0")));
    world.site.write(desired, vec![hold(1, None)]);
    let resolved = world.resolved();
    assert!(resolved.workloads[&coffee()].held);
    assert_eq!(resolved.holds[0].reason, "look first");
    // Another lane cannot delete it.
    world.central.write(desired, vec![delete(hold_path(hold_id(1), None).as_str()), set("note", "x")]);
    assert!(world.coffee().held);
    world.site.write(desired, vec![delete(hold_path(hold_id(1), None).as_str())]);
    assert!(!world.coffee().held);
}

#[test]
fn a_lift_counts_from_an_equal_or_a_higher_rank() {
    let mut world = world();
    let desired = world.fleet.desired();
    world.central.write(desired, assign(&coffee(), &install("1.8.0")));
    world.central.write(desired, vec![hold(1, None)]);
    world.site.write(desired, vec![lift(1)]);
    assert!(world.coffee().held, "a site cannot lift what central holds");
    world.second.write(desired, vec![lift(1)]);
    assert!(!world.coffee().held, "an equal can");
    world.site.write(desired, vec![hold(2, None)]);
    assert!(world.coffee().held);
    world.central.write(desired, vec![lift(2)]);
    assert!(!world.coffee().held, "a higher one can, too");
}

#[test]
fn a_hold_of_one_workload_leaves_the_others() {
    let mut world = world();
    let desired = world.fleet.desired();
    let tea: WorkloadName = "tea".parse().unwrap();
    world.central.write(desired, assign(&coffee(), &install("1.8.0")));
    world.central.write(desired, assign(&tea, &install("1.8.0")));
    world.central.write(desired, vec![hold(1, Some(&tea))]);
    let resolved = world.resolved();
    assert!(resolved.workloads[&tea].held && !resolved.workloads[&coffee()].held);
    assert!(resolved.holds(&tea) && !resolved.holds(&coffee()));
}

#[test]
fn the_holds_and_lifts_of_a_void_lane_do_not_count() {
    let mut world = world();
    let desired = world.fleet.desired();
    world.central.write(desired, assign(&coffee(), &install("1.8.0")));
    world.central.write(desired, vec![hold(1, None)]);
    world.second.write(desired, vec![lift(1), hold(2, None)]);
    let mut device = world.fleet.node(None);
    push(&world.central, &mut device);
    push(&world.second, &mut device);
    let mut writers = world.fleet.writers();
    Arc::make_mut(&mut writers.revoked).insert(world.fleet.second.id());
    device.set_writers(writers);
    let holds = device.replica.resolve(world.fleet.local()).holds;
    assert_eq!(holds.iter().map(|hold| hold.id).collect::<Vec<_>>(), [hold_id(1)]);
}
