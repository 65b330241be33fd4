//! Plans of a release with a configuration: what devices are compared by is both together.

use fleetd_sync_core::configuration::ConfiguredFile;
use fleetd_sync_core::id::PlanId;

use super::*;
use crate::targeting::tests::row;

fn coffee() -> WorkloadName {
    "coffee".parse().unwrap()
}

fn configuration(name: &str) -> Arc<Configuration> {
    let values = [("ROAST".to_owned(), format!("{name}\nand \\ more"))].into();
    let file = ConfiguredFile { digest: ArtifactDigest::of(name.as_bytes()), size_bytes: 20 };
    let files = [("MENU".to_owned(), file)].into();
    Arc::new(Configuration::new(coffee(), name.parse().unwrap(), values, files).unwrap())
}

fn manifest(version: &str) -> ArtifactDigest {
    ArtifactDigest::of(version.as_bytes())
}

fn release(configuration: Option<Arc<Configuration>>) -> PlannedRelease {
    PlannedRelease {
        workload: coffee(),
        version: "2.0".parse().unwrap(),
        manifest: manifest("2.0"),
        artifacts: BTreeMap::from([("linux/arm64".parse().unwrap(), (ArtifactDigest::of(b"program"), 1000))]),
        configuration,
    }
}

fn present(version: &str, name: Option<&str>) -> PresentRelease {
    let configuration = name.map(|name| configuration(name).id());
    let of_configuration = configuration.as_ref().map(|configuration| configuration.digest);
    let pair = pair_digest(manifest(version), of_configuration);
    PresentRelease { version: version.parse().unwrap(), manifest: pair, configuration, healthy: true }
}

fn fleet() -> Vec<DeviceRow> {
    let present = [
        None,
        Some(present("1.0", None)),
        Some(present("1.0", Some("roast-1"))),
        Some(present("2.0", None)),
        Some(present("2.0", Some("roast-1"))),
        Some(present("2.0", Some("roast-2"))),
    ];
    let rows = (1..).zip(present).map(|(index, present)| DeviceRow {
        releases: present.map(|present| (coffee(), present)).into_iter().collect(),
        ..row(index)
    });
    rows.collect()
}

fn told(configuration: Option<Arc<Configuration>>) -> Vec<String> {
    let id = PlanId::from_bytes([7; 10]);
    let plan = plan(id, release(configuration), Targets::All, 1, Strategy::default(), &fleet()).unwrap();
    assert_eq!(Plan::from_text(&plan.to_text()), Ok(plan.clone()));
    assert_eq!(check_fence(&plan, &fleet()), Ok(()));
    let said = |device: &PlannedDevice| {
        let bytes = device.artifact.map_or(0, |(_, size_bytes)| size_bytes);
        format!("{}, {bytes} bytes", device.verdict)
    };
    plan.devices.iter().map(said).collect()
}

#[test]
fn a_device_has_what_is_planned_only_if_it_has_both_and_fetches_only_what_it_lacks() {
    assert_eq!(
        told(Some(configuration("roast-2"))),
        [
            "install, 1020 bytes",
            "update from 1.0, 1020 bytes",
            "update from 1.0 with roast-1, 1020 bytes",
            "update from 2.0, 20 bytes",
            "update from 2.0 with roast-1, 20 bytes",
            "unchanged, 0 bytes",
        ]
    );
}

#[test]
fn a_plan_without_a_configuration_takes_the_one_that_is_there_away() {
    assert_eq!(
        told(None),
        [
            "install, 1000 bytes",
            "update from 1.0, 1000 bytes",
            "update from 1.0 with roast-1, 1000 bytes",
            "unchanged, 0 bytes",
            "update from 2.0 with roast-1, 0 bytes",
            "update from 2.0 with roast-2, 0 bytes",
        ]
    );
}

#[test]
fn a_device_that_came_to_another_configuration_since_makes_a_plan_stale() {
    let id = PlanId::from_bytes([7; 10]);
    let release = release(Some(configuration("roast-2")));
    let plan = plan(id, release, Targets::All, 1, Strategy::default(), &fleet()).unwrap();
    let mut rows = fleet();
    rows[4].releases.insert(coffee(), present("2.0", Some("roast-3")));
    let said: Vec<_> = check_fence(&plan, &rows).unwrap_err().iter().map(ToString::to_string).collect();
    let name = &rows[4].name;
    let expected = format!("{name}: planned was update from 2.0 with roast-1, now it is update from 2.0 with roast-3");
    assert_eq!(said, [expected]);
}
