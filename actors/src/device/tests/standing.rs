//! Orders over the whole fleet, and pins, as a device's lane gets them.

use super::super::record::Pin;
use super::super::standing::asked;
use super::*;
use crate::orders::{Denial, FleetStop};

pub(super) fn stopped() -> Orders {
    let hold = HoldId::from_bytes([1; 10]);
    let stop = FleetStop { hold, reason: "smoke".to_owned(), created_by: String::new(), created_at: Wall(5) };
    Orders { stops: BTreeMap::from([(hold, stop)]), denials: BTreeMap::new() }
}

fn denied(version: &str) -> Orders {
    let (hold, manifest) = (HoldId::from_bytes([2; 10]), ArtifactDigest::of(version.as_bytes()));
    let (workload, version) = ("coffee".parse().unwrap(), version.parse().unwrap());
    let (reason, created_by, created_at) = ("it spills".to_owned(), String::new(), Wall(5));
    let denial = Denial { hold, manifest, workload, version, reason, created_by, created_at };
    Orders { stops: BTreeMap::new(), denials: BTreeMap::from([(manifest, denial)]) }
}

fn held(record: &DeviceRecord, orders: &Orders) -> Vec<(HoldId, Option<WorkloadName>)> {
    wanted::holds(&asked(record, orders)).map(|(hold, workload, _)| (hold, workload)).collect()
}

#[test]
fn a_stop_of_the_fleet_holds_every_device_and_stands_in_no_row() {
    let mut world = world();
    let record = DeviceRecord { registered_at: Wall(9), ..world.record() };
    assert_eq!(held(&record, &stopped()), [(HoldId::from_bytes([1; 10]), None)], "also one that joined after it");
    assert!(record.wanted.is_empty());
    assert!(held(&record, &Orders::default()).is_empty());
}

#[test]
fn a_denied_release_is_held_where_it_is_assigned_and_has_not_proven_itself() {
    let mut world = world();
    let mut record = world.record();
    assert!(held(&record, &denied("1.8")).is_empty(), "nothing is assigned");
    wanted::assign(&mut record.wanted, &world.assignment("1.7"));
    assert!(held(&record, &denied("1.8")).is_empty(), "another release is");
    wanted::assign(&mut record.wanted, &world.assignment("1.8"));
    let coffee: WorkloadName = "coffee".parse().unwrap();
    assert_eq!(held(&record, &denied("1.8")), [(HoldId::from_bytes([2; 10]), Some(coffee.clone()))]);
    let digest = Some(ArtifactDigest::of(b"1.8"));
    let report = WorkloadReport { digest, phase: Some(Phase::Healthy), ..WorkloadReport::default() };
    record.reports.insert(coffee, report);
    assert!(held(&record, &denied("1.8")).is_empty(), "what runs well goes on");
}

#[test]
fn a_pin_holds_an_assignment_of_any_other_version_until_it_is_taken_off() {
    let mut world = world();
    world.enrol();
    let coffee: WorkloadName = "coffee".parse().unwrap();
    let pin = Pin {
        version: "1.7".parse().unwrap(),
        hold: HoldId::from_bytes([3; 10]),
        reason: "trade fair".to_owned(),
        created_by: String::new(),
        created_at: Wall(0),
    };
    assert_eq!(pin.sentence(), "pinned at 1.7: trade fair");
    world.command(Command::Pin { workload: coffee.clone(), pin }).unwrap();
    let assignment = world.assignment("1.7");
    world.step(Input::Assign(assignment));
    assert!(held(world.device.record().unwrap(), &Orders::default()).is_empty());
    let assignment = world.assignment("1.8");
    world.step(Input::Assign(assignment));
    let expected = [(HoldId::from_bytes([3; 10]), Some(coffee.clone()))];
    assert_eq!(held(world.device.record().unwrap(), &Orders::default()), expected);
    world.command(Command::Unpin { workload: coffee.clone() }).unwrap();
    assert!(held(world.device.record().unwrap(), &Orders::default()).is_empty());
    assert_eq!(
        world.command(Command::Unpin { workload: coffee.clone() }),
        Err(CommandError::NotPinned { workload: coffee })
    );
}
