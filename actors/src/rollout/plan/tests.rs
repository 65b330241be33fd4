//! Plans of a small fleet, and what makes them stale.

use expect_test::expect;
use fleetd_sync_core::entropy::Entropy;
use proptest::prelude::{
    ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_assume, prop_oneof, proptest,
};

use super::super::strategy::{FailureBudget, Priority, Strategy as PlanStrategy, WaveSize};
use super::*;
use crate::targeting::tests::row;
use crate::targeting::{Chosen, PresentRelease};
#[cfg(feature = "cel")]
use crate::targeting::{Group, Members};
use crate::window::Terms;
use fleetd_sync_core::id::RolloutId;

fn coffee() -> WorkloadName {
    "coffee".parse().unwrap()
}

fn release() -> PlannedRelease {
    PlannedRelease {
        workload: coffee(),
        version: "2.0".parse().unwrap(),
        manifest: ArtifactDigest::of(b"manifest 2.0"),
        artifacts: BTreeMap::from([("linux/arm64".parse().unwrap(), (ArtifactDigest::of(b"2.0"), 1000))]),
        configuration: None,
    }
}

fn present(version: &str, healthy: bool) -> PresentRelease {
    let manifest = ArtifactDigest::of(format!("manifest {version}").as_bytes());
    PresentRelease { version: version.parse().unwrap(), manifest, configuration: None, healthy }
}

fn some(selector: Option<&str>, devices: &[&str]) -> Targets {
    let selector = selector.map(|selector| selector.parse().unwrap());
    let devices = devices.iter().map(|device| (*device).to_owned()).collect();
    Targets::Some(Chosen { selector, devices, ..Chosen::default() })
}

fn plan_of(targets: Targets, rows: &[DeviceRow]) -> Result<Plan, PlanError> {
    plan(PlanId::from_bytes([7; 10]), release(), targets, 1, PlanStrategy::default(), rows)
}

/// An unfinished rollout of coffee.
fn at_work(priority: u32) -> BTreeMap<WorkloadName, AtWork> {
    let priority = Priority::new(priority).unwrap();
    BTreeMap::from([(coffee(), AtWork { rollout: RolloutId::from_bytes([1; 10]), priority })])
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
        with(11, |row| row.rollouts = at_work(6)),
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
        otter-11: blocked: rol_040g2081040g2081 is at work on coffee with priority 6, and this has 5
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
    rows[1].rollouts = at_work(9);
    let reasons: Vec<_> = check_fence(&plan, &rows).unwrap_err().iter().map(ToString::to_string).collect();
    let busy = "otter-2: planned was install, now it is blocked: rol_040g2081040g2081 is at work on coffee with priority \
                9, and this has 5";
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

fn wave_plan(strategy: PlanStrategy, rows: &[DeviceRow]) -> Result<Plan, PlanError> {
    plan(PlanId::from_bytes([7; 10]), release(), Targets::All, 1, strategy, rows)
}

/// The names of each wave's devices, in the order in which their turn comes.
fn turns(plan: &Plan) -> Vec<Vec<String>> {
    let mut placed: Vec<_> = plan.devices.iter().filter_map(|device| Some((device.place?, &device.name))).collect();
    placed.sort();
    let mut waves = vec![Vec::new(); usize::try_from(plan.wave_count()).unwrap()];
    placed.into_iter().for_each(|(place, name)| waves[usize::try_from(place.wave).unwrap()].push(name.to_string()));
    waves
}

#[test]
fn waves_take_the_canaries_then_a_sample_that_is_the_same_for_everybody_and_those_that_are_away_last() {
    let mut rows: Vec<_> = (1..=20).map(row).collect();
    rows[0].labels.insert("channel".parse().unwrap(), "canary".parse().unwrap());
    rows[3].offline_since = Some(Wall(1));
    rows[4].barred = Some("its key is revoked".to_owned());
    let strategy = PlanStrategy {
        canary: Some("channel=canary".parse().unwrap()),
        waves: vec![WaveSize::Count(2), WaveSize::Percent(21), WaveSize::Rest],
        ..PlanStrategy::default()
    };
    let plan = wave_plan(strategy.clone(), &rows).unwrap();
    let waves = turns(&plan);
    assert_eq!(waves.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 4, 12], "21 % of 19 are 4");
    assert_eq!(waves[0], ["otter-1"]);
    assert_eq!(waves[3].last().map(String::as_str), Some("otter-4"), "whoever is away comes last");
    assert!(plan.devices.iter().all(|device| device.place.is_some() == device.is_assigned()));
    assert_eq!(turns(&wave_plan(strategy.clone(), &rows).unwrap()), waves);
    rows.reverse();
    assert_eq!(turns(&wave_plan(strategy.clone(), &rows).unwrap()), waves, "whatever order they are looked at in");
    let other = super::plan(PlanId::from_bytes([8; 10]), release(), Targets::All, 1, strategy, &rows).unwrap();
    assert_ne!(turns(&other)[1..], waves[1..], "another plan draws others");
}

#[test]
fn waves_that_do_not_fit_the_devices_are_refused_with_what_to_do() {
    let rows: Vec<_> = (1..=7).map(row).collect();
    let refusal = |canary: Option<&str>, waves: &[WaveSize]| {
        let canary = canary.map(|canary| canary.parse().unwrap());
        let strategy = PlanStrategy { canary, waves: waves.to_vec(), ..PlanStrategy::default() };
        wave_plan(strategy, &rows).map(|plan| turns(&plan).len()).map_err(|error| error.to_string())
    };
    let uncovered = refusal(None, &[WaveSize::Count(1), WaveSize::Percent(10)]).unwrap_err();
    assert!(uncovered.starts_with("5 devices are in no wave (otter-"), "{uncovered}");
    assert!(uncovered.ends_with("add --wave rest"), "{uncovered}");
    let one = refusal(None, &[WaveSize::Count(6)]).unwrap_err();
    assert!(one.starts_with("1 device is in no wave (otter-"), "{one}");
    let none = "the canary channel=canary matches none of the 7 devices that the plan assigns".to_owned();
    assert_eq!(refusal(Some("channel=canary"), &[WaveSize::Rest]), Err(none));
    assert_eq!(refusal(None, &[WaveSize::Count(100), WaveSize::Percent(10), WaveSize::Rest]), Ok(1));
    assert_eq!(refusal(Some("rack in (1,2)"), &[WaveSize::Percent(100)]), Ok(2));
}

#[test]
fn a_plan_of_before_there_were_waves_is_one_wave() {
    let written = "fleetd plan 1\nplan pln_0w3ge1r70w3ge1r7\nworkload coffee\nversion 2.0\nmanifest \
         b3_w65ctqspngp659acp7ka7zb01b72eaza4ry8b59y4m2fqjng248g\nattempt 1\nfailures-max 3\ntarget all\ndevice \
         loc_081040g2081040g2081040g208 dev_081040g2081040g2 otter-2 berlin 2 - - - install\n";
    let plan = Plan::from_text(&format!("{written}digest {}\n", ArtifactDigest::of(written.as_bytes()))).unwrap();
    let budget = FailureBudget { count: Some(3), percent: None };
    assert_eq!(plan.strategy, PlanStrategy { budget, ..PlanStrategy::default() });
    assert_eq!(turns(&plan), [["otter-2"]]);
}

#[test]
fn the_text_of_a_plan_reads_well_and_shows_an_edit() {
    let plan = plan_of(some(Some("site=berlin,!floor"), &["otter-5"]), &fleet()).unwrap();
    let text = plan.to_text();
    expect![[r#"
        fleetd plan 2
        plan pln_0w3ge1r70w3ge1r7
        workload coffee
        version 2.0
        manifest b3_w65ctqspngp659acp7ka7zb01b72eaza4ry8b59y4m2fqjng248g
        attempt 1
        wave rest
        bake-ms 0
        deadline-ms 86400000
        approve-waves false
        failed-max 0
        failed-percent -
        unavailable-max -
        unavailable-per-site-max -
        artifact linux/arm64 b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000
        target selector site=berlin,!floor
        target device otter-5
        device loc_081040g2081040g2081040g208 dev_081040g2081040g2 otter-2 berlin 2 - b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000 0.2 update from 1.0
        device loc_0g2081040g2081040g2081040g dev_0g2081040g208104 otter-4 berlin 4 - b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000 0.0 update from 2.0
        device loc_0m2ga1850m2ga1850m2ga1850m dev_0m2ga1850m2ga185 otter-5 - 5 - - - - blocked held held: the owner is away
        device loc_0r30c1g60r30c1g60r30c1g60r dev_0r30c1g60r30c1g6 otter-6 berlin 6 - b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000 0.1 install
        device loc_1040g2081040g2081040g20810 dev_1040g2081040g208 otter-8 berlin 8 - - - - blocked storage it needs 4195304 bytes and has 999 free
        device loc_1850m2ga1850m2ga1850m2ga18 dev_1850m2ga1850m2ga otter-10 berlin 10 - - - - blocked conflict authorities disagree on coffee
        device loc_1g60r30c1g60r30c1g60r30c1g dev_1g60r30c1g60r30c otter-12 berlin 12 1234 b3_dg0zk3j893a6haxfh7j30f72nvfmk00anabdd1fk92w2wxsyppsg 1000 0.3 install
        digest b3_ry6gg0hysq31te3egbw8e5m333ge2wknk2ynhz75t8hyqf83g98g
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
    let newer = text.replacen("plan 2", "plan 3", 1);
    assert_eq!(Plan::from_text(&newer), Err(ReadPlanError::Newer { layout: "3".to_owned() }));
    let cut = text.split_at(text.rfind("digest").unwrap()).0;
    assert_eq!(Plan::from_text(cut), Err(ReadPlanError::NoDigest));
    // A good digest over a bad line is somebody's own making, and still no panic.
    let made = "fleetd plan 1\nplan pln_x\n";
    let made = format!("{made}digest {}\n", ArtifactDigest::of(made.as_bytes()));
    assert_eq!(Plan::from_text(&made).unwrap_err().to_string(), "line 2: plan is expected, found \"pln_x\"");
}

#[cfg(feature = "cel")]
#[test]
fn a_plan_keeps_its_condition_its_groups_and_whom_it_could_not_decide_about() {
    let mut rows: Vec<_> = (1..=6).map(row).collect();
    rows[1].facts.insert("memory_bytes".to_owned(), "512".to_owned());
    rows[3].facts.insert("memory_bytes".to_owned(), "lots".to_owned());
    let group = |revision, members| Group { revision: Revision(revision), members };
    let kiosks = group(7, Members::Fixed(BTreeSet::from([rows[0].local, rows[4].local])));
    let tills = group(
        8,
        Members::Dynamic { selector: Some("rack=6".parse().unwrap()), condition: Some("online".parse().unwrap()) },
    );
    let none = group(9, Members::Fixed(BTreeSet::new()));
    let chosen = Chosen {
        selector: Some("site=berlin".parse().unwrap()),
        condition: Some("facts.ram_bytes >= 512".parse().unwrap()),
        groups: [("kiosks", kiosks), ("none", none), ("tills", tills)]
            .map(|(name, group)| (name.parse().unwrap(), group))
            .into(),
        devices: BTreeSet::from(["otter-3".to_owned()]),
    };
    let plan = plan_of(Targets::Some(chosen), &rows).unwrap();
    let names: Vec<_> = plan.devices.iter().map(|device| device.name.to_string()).collect();
    assert_eq!(names, ["otter-1", "otter-2", "otter-3", "otter-5", "otter-6"]);
    let text = plan.to_text();
    let lines: Vec<_> =
        text.lines().filter(|line| line.starts_with("target") || line.starts_with("undecided")).collect();
    expect![[r#"
        target selector site=berlin
        target where facts.ram_bytes >= 512
        target group kiosks 7
        target group-device loc_040g2081040g2081040g208104
        target group-device loc_0m2ga1850m2ga1850m2ga1850m
        target group none 9
        target group tills 8
        target group-selector rack=6
        target group-where online
        target device otter-3
        undecided 1 otter-4 found no matching overload for '_>=_' applied to '(string, int)'"#]]
    .assert_eq(&lines.join("\n"));
    assert_eq!(Plan::from_text(&text), Ok(plan.clone()));
    assert_eq!(check_fence(&plan, &rows), Ok(()));

    // What a device says now may make it match, and what a group was then still stands in the plan.
    rows[3].facts.insert("memory_bytes".to_owned(), "1024".to_owned());
    assert_eq!(check_fence(&plan, &rows).unwrap_err()[0].to_string(), "otter-4 is new: install");
    let Targets::Some(chosen) = &plan.targets else { panic!("{:?}", plan.targets) };
    let mut groups = chosen.groups.clone();
    assert_eq!(check_groups(&plan, &groups), []);
    groups.remove(&"none".parse().unwrap());
    groups.get_mut(&"tills".parse().unwrap()).unwrap().revision = Revision(10);
    let reasons: Vec<_> = check_groups(&plan, &groups).iter().map(ToString::to_string).collect();
    assert_eq!(reasons, ["group none is deleted", "group tills changed"]);
}

#[test]
fn what_is_left_of_a_stale_plan_is_the_planned_devices_that_it_still_fits() {
    let mut rows: Vec<_> = (1..=4).map(row).collect();
    let plan = plan_of(some(Some("rack in (1,2,3,5)"), &[]), &rows).unwrap();
    rows[1].holds.push((None, "noisy".to_owned()));
    rows[2].labels.clear();
    rows.push(row(5));
    assert_eq!(check_fence(&plan, &rows).unwrap_err().len(), 3);
    let left = plan.only_planned(4, &rows).unwrap();
    assert!(left.id != plan.id && left.id == plan.id_of_what_is_left());
    let names: Vec<_> = left.devices.iter().map(|device| device.name.to_string()).collect();
    assert_eq!((names, left.attempt, check_fence(&left, &rows)), (vec!["otter-1".to_owned()], 4, Ok(())));
    rows[0].barred = Some("its key is revoked".to_owned());
    assert_eq!(plan.only_planned(4, &rows), None);
}

fn terms(kind: u64, veto_limit_s: u64) -> Terms {
    let windows = || vec!["0 2 * * MON-FRI 3h".parse().unwrap(), "0 12 * * 6 90m".parse().unwrap()];
    let blackouts = vec!["2026-12-24..2026-12-26".parse().unwrap()];
    match kind {
        0 => Terms::default(),
        1 => Terms { windows: windows(), zone: "Asia/Tokyo".parse().unwrap(), ..Terms::default() },
        _ => {
            let veto_limit = std::time::Duration::from_secs(veto_limit_s);
            Terms { windows: windows(), blackouts, veto_limit, ..Terms::default() }
        }
    }
}

#[test]
fn a_device_has_its_windows_by_the_zone_that_its_operator_or_else_it_itself_says() {
    let mut rows: Vec<_> = (1..=4).map(row).collect();
    rows[0].facts.insert("timezone".to_owned(), "Europe/Berlin".to_owned());
    rows[1].facts.insert("timezone".to_owned(), "Europe/Berlin".to_owned());
    rows[1].labels.insert("timezone".parse().unwrap(), "America.New_York".parse().unwrap());
    rows[2].facts.insert("timezone".to_owned(), "Europe/Atlantis".to_owned());
    let nights = Terms { windows: vec!["0 2 * * * 3h".parse().unwrap()], ..Terms::default() };
    let plan = wave_plan(PlanStrategy { terms: nights.clone(), ..PlanStrategy::default() }, &rows).unwrap();
    let noon = Wall(1_796_126_400_000); // 2026-12-01T12:00:00Z
    let openings: Vec<_> = plan.openings(None, noon).unwrap().iter().map(|o| (o.devices, o.shown.clone())).collect();
    let at = |devices, shown: &str| (devices, shown.to_owned());
    let expected = [at(1, "2026-12-02 02:00 CET"), at(2, "2026-12-02 02:00 UTC"), at(1, "2026-12-02 02:00 EST")];
    assert_eq!(openings, expected);
    assert_eq!(Plan::from_text(&plan.to_text()).as_ref(), Ok(&plan));

    rows[0].facts.insert("timezone".to_owned(), "Asia/Tokyo".to_owned());
    let reasons: Vec<_> = check_fence(&plan, &rows).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(reasons, ["otter-1: its time zone was Europe/Berlin, now it is Asia/Tokyo"]);

    let fixed = Terms { zone: "Asia/Tokyo".parse().unwrap(), ..nights };
    let plan = wave_plan(PlanStrategy { terms: fixed, ..PlanStrategy::default() }, &rows).unwrap();
    let openings = plan.openings(None, noon).unwrap();
    assert_eq!((openings.len(), openings[0].shown.as_str()), (1, "2026-12-02 02:00 JST"));
}

#[test]
fn windows_of_which_none_opens_within_a_year_are_refused_by_the_zone() {
    let terms = Terms { blackouts: vec!["2026-01-01..2029-12-31".parse().unwrap()], ..Terms::default() };
    let plan = wave_plan(PlanStrategy { terms, ..PlanStrategy::default() }, &[row(1)]).unwrap();
    let refused = plan.openings(None, Wall(1_796_126_400_000)).unwrap_err();
    assert_eq!(refused.to_string(), "no window opens in UTC within the next 366 days");
}

fn strategies() -> impl Strategy<Value = PlanStrategy> {
    let number = || prop::option::of(1..9_u32);
    let waves = prop::collection::vec(
        prop_oneof![(1..5_u32).prop_map(WaveSize::Count), (1..20_u32).prop_map(WaveSize::Percent)],
        0..4,
    );
    let budget = (number(), prop::option::of(0..=100_u32));
    (waves, 0..9_000_000_u64, 1..9_000_000_u64, any::<bool>(), budget, number(), number()).prop_map(
        |(mut waves, bake, deadline, approve_waves, (count, percent), unavailable_max, unavailable_per_site_max)| {
            waves.push(WaveSize::Rest);
            PlanStrategy {
                canary: (bake % 2 == 0).then(|| "rack in (1,2)".parse().unwrap()),
                waves,
                bake: std::time::Duration::from_millis(bake),
                deadline: std::time::Duration::from_millis(deadline),
                approve_waves,
                budget: FailureBudget { count, percent },
                unavailable_max,
                unavailable_per_site_max,
                priority: Priority::new(u32::try_from(bake % 10).unwrap()).unwrap(),
                site_quorum: unavailable_max.or(unavailable_per_site_max).is_none().then_some(1 + count.unwrap_or(99)),
                terms: terms(bake % 3, deadline % 100_000),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_plan_is_read_as_it_was_written(
        seed in any::<[u8; 32]>(), sites in proptest::collection::vec("\\PC{0,8}", 1..5), reason in "[ -~\\n\\\\]{0,20}",
        strategy in strategies(),
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
        let plan = wave_plan(strategy, &rows).unwrap();
        let assigned = plan.assigned().count();
        prop_assert_eq!(turns(&plan).concat().len(), assigned, "each has its turn, and one only");
        prop_assert!(assigned == 0 || turns(&plan).iter().all(|wave| !wave.is_empty()));
        prop_assert_eq!(Plan::from_text(&plan.to_text()), Ok(plan));
    }
}

#[test]
fn a_way_back_is_not_stale_since_a_device_has_come_to_another_release_meanwhile() {
    let mut rows: Vec<_> = (1..=2).map(row).collect();
    for row in &mut rows {
        row.releases.insert(coffee(), present("2.5", false));
    }
    let planned = plan_of(Targets::All, &rows).unwrap();
    let rollback = Some(Rollback { of: RolloutId::from_bytes([1; 10]), is_whole: true });
    let back = Plan { rollback, ..planned.clone() };
    rows[0].releases.insert(coffee(), present("1.0", false));
    assert_eq!(check_fence(&planned, &rows).unwrap_err().len(), 1, "any other is");
    assert_eq!(check_fence(&back, &rows), Ok(()));
    assert_eq!(back.only_planned(2, &rows).unwrap().assigned().count(), 2);
    rows[0].holds.push((None, "the owner is away".to_owned()));
    assert_eq!(check_fence(&back, &rows).unwrap_err().len(), 1, "who cannot go back any more is told");
}

#[test]
fn a_plan_takes_devices_over_from_what_is_no_more_urgent_and_waits_for_what_is() {
    let urgent = |priority| PlanStrategy { priority: Priority::new(priority).unwrap(), ..PlanStrategy::default() };
    let mut busy = row(1);
    busy.rollouts = at_work(5);
    let planned = |priority| {
        let strategy = urgent(priority);
        plan(PlanId::from_bytes([7; 10]), release(), Targets::All, 1, strategy, std::slice::from_ref(&busy)).unwrap()
    };
    let older = RolloutId::from_bytes([1; 10]);
    for priority in [5, 9] {
        let plan = planned(priority);
        assert_eq!((plan.devices[0].supersedes, &plan.devices[0].verdict), (Some(older), &Verdict::Install));
        assert_eq!(Plan::from_text(&plan.to_text()), Ok(plan.clone()));
        assert_eq!(check_fence(&plan, &[row(1)]), Ok(()), "the other one may end meanwhile");
        let other = RolloutId::from_bytes([2; 10]);
        let mut taken = busy.clone();
        taken.rollouts.values_mut().for_each(|at_work| at_work.rollout = other);
        let since = StaleReason::TakenSince { name: taken.name.clone(), rollout: other };
        assert_eq!(check_fence(&plan, &[taken]), Err(vec![since]), "and no third one may come in between");
    }
    let reason = format!("{older} is at work on coffee with priority 5, and this has 4");
    let plan = planned(4);
    assert_eq!(plan.devices[0].verdict, Verdict::Blocked { by: Blocked::Busy, reason });
    assert_eq!(plan.devices[0].supersedes, None);
    for text in ["-1", "10", "urgent", ""] {
        assert!(text.parse::<Priority>().is_err(), "{text}");
    }
}
