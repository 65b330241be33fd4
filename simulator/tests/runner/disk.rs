//! Devices whose disk is too small.

use std::time::Duration;

use fleetd_actors::report::{FaultKind, Phase};
use fleetd_agent::disk::memory::DiskOperation;
use fleetd_simulator::fleet::{Fleet, coffee};
use fleetd_sync_core::id::ArtifactDigest;

const LATENCY: Duration = Duration::from_millis(50);
/// A disk on which the running release fits, and hardly more than what stays free.
const DISK_BYTES: u64 = 5 << 20;
/// More than such a disk has left.
const LARGE_BYTES: usize = 2 << 20;

#[test]
fn an_artifact_larger_than_the_disk_is_refused_before_a_byte_of_it_is_written() {
    let mut fleet = Fleet::new(11, LATENCY).unwrap();
    let device = fleet.add_device().unwrap();
    fleet.devices[device].disk.note_operations();
    let enrolled =
        |fleet: &Fleet| fleet.devices[device].node().is_some_and(|node| node.status().agent.device.is_some());
    fleet.wait_until("the device to enrol", enrolled).unwrap();
    let small = fleet.push("1.0.0", b"coffee one").unwrap();
    fleet.roll_out(&small).unwrap();
    fleet.wait_until("1.0.0 to be healthy", |fleet| fleet.is_healthy(device, "1.0.0")).unwrap();

    fleet.devices[device].disk.set_capacity(DISK_BYTES);
    let pid = fleet.devices[device].runner.pid(&coffee());
    let content = vec![7; LARGE_BYTES];
    let large = fleet.push("1.1.0", &content).unwrap();
    fleet.roll_out(&large).unwrap();
    let fault = |fleet: &Fleet| fleet.report(device).and_then(|report| report.error);
    fleet.wait_until("the device to say why it does not install it", |fleet| fault(fleet).is_some()).unwrap();
    let fault = fault(&fleet).unwrap();
    assert_eq!(fault.kind, FaultKind::NoSpace, "{fault:?}");
    assert!(fault.detail.contains(&LARGE_BYTES.to_string()), "{fault:?} does not say how much it needs");

    let operations = fleet.devices[device].disk.operations();
    let written = |digest: ArtifactDigest| {
        let name = digest.to_string();
        let writes = operations.iter().filter_map(|operation| match operation {
            DiskOperation::Write(path) => Some(path),
            _ => None,
        });
        writes.filter(|path| path.to_string_lossy().contains(&name)).count()
    };
    assert_ne!(written(ArtifactDigest::of(b"coffee one")), 0, "operations name what they write");
    assert_eq!(written(ArtifactDigest::of(&content)), 0, "something of it was written");
    let report = fleet.report(device).unwrap();
    assert_eq!(report.release.unwrap().as_str(), "1.0.0");
    assert_ne!(report.phase, Some(Phase::Download));
    assert_eq!((fleet.devices[device].runner.pid(&coffee()), pid.is_some()), (pid, true), "what runs was touched");
}
