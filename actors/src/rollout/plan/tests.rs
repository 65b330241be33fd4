//! Plans of a small fleet, and what makes them stale.

use expect_test::expect;
use fleetd_sync_core::entropy::Entropy;
use proptest::prelude::*;

use super::*;
use crate::targeting::PresentRelease;
use fleetd_sync_core::id::RolloutId;

fn row(index: u8) -> DeviceRow {
    DeviceRow {
        local: LocalId::from_bytes([index; 16]),
        device: DeviceId::from_bytes([index; 10]),
        name: format!("otter-{index}").parse().unwrap(),
        site: if index.is_multiple_of(2) { "berlin".to_owned() } else { String::new() },
        labels: BTreeMap::from([("rack".parse().unwrap(), index.to_string().parse().unwrap())]),
        facts: BTreeMap::new(),
        platform: Some("linux/arm64".parse().unwrap()),
        free_bytes: Some(1 << 30),
        releases: BTreeMap::new(),
        barred: None,
        holds: vec![],
        conflicts: BTreeSet::new(),
        rollouts: BTreeMap::new(),
        offline_since: None,
        revision: Revision(u64::from(index)),
    }
}

fn coffee() -> WorkloadName {
    "coffee".parse().unwrap()
}

fn release() -> PlannedRelease {
    PlannedRelease {
        workload: coffee(),
        version: "2.0".parse().unwrap(),
        manifest: ArtifactDigest::of(b"manifest 2.0"),
        artifacts: BTreeMap::from([("linux/arm64".parse().unwrap(), (ArtifactDigest::of(b"2.0"), 1000))]),
    }
}

fn present(version: &str, healthy: bool) -> PresentRelease {
    let manifest = ArtifactDigest::of(format!("manifest {version}").as_bytes());
    PresentRelease { version: version.parse().unwrap(), manifest, healthy }
}

fn some(selector: Option<&str>, devices: &[&str]) -> Targets {
    let selector = selector.map(|selector| selector.parse().unwrap());
    Targets::Some { selector, devices: devices.iter().map(|device| (*device).to_owned()).collect() }
}

fn plan_of(targets: Targets, rows: &[DeviceRow]) -> Result<Plan, PlanError> {
    plan(PlanId::from_bytes([7; 10]), release(), targets, 1, 0, rows)
}

/// One device of each kind.
fn fleet() -> Vec<DeviceRow> {
    let with = |index: u8, change: fn(&mut DeviceRow)| {
        let mut row = row(index);
        change(&mut row);
        row
    };
    vec![
        with(1, |_| {}),
        with(2, |row| drop(row.releases.insert(coffee(), present("1.0", true)))),
        with(3, |row| drop(row.releases.insert(coffee(), present("2.0", true)))),
        with(4, |row| drop(row.releases.insert(coffee(), present("2.0", false)))),
        with(5, |row| row.holds.push((None, "the owner is away".to_owned()))),
        with(6, |row| row.holds.push((Some("tea".parse().unwrap()), "not ours".to_owned()))),
        with(7, |row| row.platform = Some("linux/amd64".parse().unwrap())),
        with(8, |row| row.free_bytes = Some(999)),
        with(9, |row| row.barred = Some("its key is revoked".to_owned())),
        with(10, |row| row.conflicts = BTreeSet::from([coffee()])),
        with(11, |row| row.rollouts = BTreeMap::from([(coffee(), RolloutId::from_bytes([1; 10]))])),
        with(12, |row| row.offline_since = Some(Wall(1234))),
        with(13, |row| row.platform = None),
    ]
}

#[test]
fn a_plan_says_of_each_device_what_would_happen_and_why() {
    let plan = plan_of(Targets::All, &fleet()).unwrap();
    let lines: Vec<_> = plan.devices.iter().map(|device| format!("{}: {}\n", device.name, device.verdict)).collect();
    expect![[r#"
        otter-1: install
        otter-2: update from 1.0
        otter-3: unchanged
        otter-4: update from 2.0
        otter-5: blocked: held: the owner is away
        otter-6: install
        otter-7: blocked: it is linux/amd64; the release is for linux/arm64
        otter-8: blocked: it needs 4195304 bytes and has 999 free
        otter-9: blocked: its key is revoked
        otter-10: blocked: authorities disagree on coffee
        otter-11: blocked: rol_040g2081040g2081 is at work on coffee
        otter-12: install
        otter-13: blocked: its platform is not known yet
    "#]]
    .assert_eq(&lines.concat());
    let counts = plan.counts();
    assert_eq!((counts.matched, counts.update, counts.install, counts.unchanged, counts.blocked), (13, 2, 3, 1, 7));
    assert_eq!((counts.offline, counts.traffic_bytes), (1, 5000));
    assert_eq!(plan.counts_by_site().keys().copied().collect::<Vec<_>>(), ["", "berlin"]);
    let of_sites: usize = plan.counts_by_site().values().map(|counts| counts.matched).sum();
    assert_eq!(of_sites, counts.matched);
}

#[test]
fn targets_are_a_selector_and_names_and_never_everything_by_accident() {
    let rows: Vec<_> = (1..=6).map(row).collect();
    let names = |targets| -> Vec<String> {
        plan_of(targets, &rows).unwrap().devices.iter().map(|device| device.name.to_string()).collect()
    };
    assert_eq!(names(some(Some("site=berlin"), &["otter-1"])), ["otter-1", "otter-2", "otter-4", "otter-6"]);
    assert_eq!(names(some(Some("rack in (2,3),!floor"), &[])), ["otter-2", "otter-3"]);
    assert_eq!(names(some(Some("platform=linux/arm64,arch=arm64,os=linux,name=otter-5"), &[])), ["otter-5"]);
    let (local, device) = (rows[0].local.to_string(), rows[1].device.to_string());
    assert_eq!(names(some(None, &[&local, &device])), ["otter-1", "otter-2"]);
    assert_eq!(names(some(Some(&format!("id={device}")), &[])), ["otter-2"]);

    assert_eq!(plan_of(some(None, &[]), &rows), Err(PlanError::NoTargets));
    let nobody = plan_of(some(None, &["otter-1", "heron-1"]), &rows);
    assert_eq!(nobody, Err(PlanError::UnknownDevice { names: vec!["heron-1".to_owned()] }));
    let nothing = |rows| plan_of(some(Some("site=paris"), &[]), rows).unwrap_err().to_string();
    assert_eq!(nothing(&rows), "selector site=paris matches none of 6 devices");
    assert_eq!(nothing(&rows[..1]), "selector site=paris matches none of 1 device");
}

#[test]
fn a_plan_is_stale_only_if_planning_again_would_say_something_else() {
    let mut rows = fleet();
    let plan = plan_of(some(Some("!floor"), &[]), &rows).unwrap();
    assert_eq!(check_fence(&plan, &rows), Ok(()));
    // Written again, offline now, and with other words for the same reason: all as planned.
    rows[0].revision = Revision(100);
    rows[0].offline_since = Some(Wall(9));
    rows[7].revision = Revision(101);
    rows[7].free_bytes = Some(998);
    assert_eq!(check_fence(&plan, &rows), Ok(()));

    rows[0].holds.push((Some(coffee()), "noisy".to_owned()));
    rows[1].revision = Revision(102);
    rows[1].releases.insert(coffee(), present("1.5", true));
    rows[3].labels.insert("floor".parse().unwrap(), "1".parse().unwrap());
    rows.push(row(14));
    let reasons: Vec<_> = check_fence(&plan, &rows).unwrap_err().iter().map(ToString::to_string).collect();
    expect![[r#"
        otter-1: planned was install, now it is blocked: held: noisy
        otter-2: planned was update from 1.0, now it is update from 1.5
        otter-4 is not meant any more
        otter-14 is new: install"#]]
    .assert_eq(&reasons.join("\n"));
}

#[test]
fn a_plan_is_stale_once_another_rollout_is_at_work_though_no_record_was_written() {
    let mut rows: Vec<_> = (1..=2).map(row).collect();
    let plan = plan_of(Targets::All, &rows).unwrap();
    rows[1].rollouts.insert(coffee(), RolloutId::from_bytes([1; 10]));
    let reasons: Vec<_> = check_fence(&plan, &rows).unwrap_err().iter().map(ToString::to_string).collect();
    let busy = "otter-2: planned was install, now it is blocked: rol_040g2081040g2081 is at work on coffee";
    assert_eq!(reasons, [busy]);
}

#[test]
fn a_plan_is_blocked_when_nobody_gets_the_release_and_somebody_lacks_it() {
    let fleet = fleet();
    let is_blocked = |names: &[&str]| plan_of(some(None, names), &fleet).unwrap().is_blocked();
    assert!(is_blocked(&["otter-5"]));
    assert!(is_blocked(&["otter-3", "otter-5", "otter-7"]), "that one has it helps nobody else");
    assert!(!is_blocked(&["otter-3"]), "all have it already");
    assert!(!is_blocked(&["otter-1", "otter-5"]));
}

#[test]
fn the_text_of_a_plan_reads_well_and_shows_an_edit() {
    let plan = plan_of(some(Some("site=berlin,!floor"), &["otter-5"]), &fleet()).unwrap();
    let text = plan.to_text();
    expect![[r#"
        fleetd plan 1
        plan pln_0w3ge1r70w3ge1r7
        workload coffee
        version 2.0
        manifest b3_w65ctqspngp659acp7ka7zb01b72eaza4ry8b59y4m2fqjng248g
        attempt 1
        failures-max 0
        artifact linux/arm64 b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000
        target selector site=berlin,!floor
        target device otter-5
        device loc_081040g2081040g2081040g208 dev_081040g2081040g2 otter-2 berlin 2 - b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000 update from 1.0
        device loc_0g2081040g2081040g2081040g dev_0g2081040g208104 otter-4 berlin 4 - b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000 update from 2.0
        device loc_0m2ga1850m2ga1850m2ga1850m dev_0m2ga1850m2ga185 otter-5 - 5 - - - blocked held held: the owner is away
        device loc_0r30c1g60r30c1g60r30c1g60r dev_0r30c1g60r30c1g6 otter-6 berlin 6 - b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000 install
        device loc_1040g2081040g2081040g20810 dev_1040g2081040g208 otter-8 berlin 8 - - - blocked storage it needs 4195304 bytes and has 999 free
        device loc_1850m2ga1850m2ga1850m2ga18 dev_1850m2ga1850m2ga otter-10 berlin 10 - - - blocked conflict authorities disagree on coffee
        device loc_1g60r30c1g60r30c1g60r30c1g dev_1g60r30c1g60r30c otter-12 berlin 12 1234 b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000 install
        digest b3_xc756gz08vtc91hg94vd67601f1hgahfzvqjbrs9emc3ghq3ahh0
    "#]].assert_eq(&text);
    assert_eq!(Plan::from_text(&text), Ok(plan.clone()));
    assert!(text.ends_with(&format!("digest {}\n", plan.digest())));

    for (from, to) in
        [("blocked", "install"), ("otter-2", "otter-3"), ("attempt 1", "attempt 2"), ("\ndigest", "\n\ndigest")]
    {
        let edited = text.replacen(from, to, 1);
        assert!(matches!(Plan::from_text(&edited), Err(ReadPlanError::Edited { .. })), "{from} -> {to}");
    }
    assert_eq!(Plan::from_text("hello"), Err(ReadPlanError::NoPlan));
    let newer = text.replacen("plan 1", "plan 2", 1);
    assert_eq!(Plan::from_text(&newer), Err(ReadPlanError::Newer { layout: "2".to_owned() }));
    let cut = text.split_at(text.rfind("digest").unwrap()).0;
    assert_eq!(Plan::from_text(cut), Err(ReadPlanError::NoDigest));
    // A good digest over a bad line is somebody's own making, and still no panic.
    let made = "fleetd plan 1\nplan pln_x\n";
    let made = format!("{made}digest {}\n", ArtifactDigest::of(made.as_bytes()));
    assert_eq!(Plan::from_text(&made).unwrap_err().to_string(), "line 2: plan is expected, found \"pln_x\"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_plan_is_read_as_it_was_written(
        seed in any::<[u8; 32]>(), sites in proptest::collection::vec("\\PC{0,8}", 1..5), reason in "[ -~\\n\\\\]{0,20}",
    ) {
        let mut entropy = Entropy::from_seed(seed);
        let rows: Vec<_> = sites
            .into_iter()
            .filter(|site| site != "-")
            .zip(1..)
            .map(|(site, index)| {
                let mut row = DeviceRow { site, local: LocalId::random(&mut entropy), ..row(index) };
                if index == 2 {
                    row.barred = Some(reason.clone());
                }
                row
            })
            .collect();
        prop_assume!(!rows.is_empty());
        let plan = plan_of(Targets::All, &rows).unwrap();
        prop_assert_eq!(Plan::from_text(&plan.to_text()), Ok(plan));
    }
}
