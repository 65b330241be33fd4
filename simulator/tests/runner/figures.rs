//! The figures of a rehearsal, held to what can be reckoned, and to runs in which a bad release really comes to a fleet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use fleetd_actors::rollout::plan::{Plan, PlannedRelease, plan};
use fleetd_actors::rollout::status::{RolloutHeader, RolloutPhase};
use fleetd_actors::rollout::strategy::{FailureBudget, Strategy, WaveSize};
use fleetd_actors::targeting::Targets;
use fleetd_actors::window::Terms;
use fleetd_simulator::fleet::{Fleet, Wish, coffee};
use fleetd_simulator::observation::Observation;
use fleetd_simulator::origin::Build;
use fleetd_simulator::rehearsal::course::Rehearsed;
use fleetd_simulator::rehearsal::summary::{RehearsalFacts, RehearsalReport};
use fleetd_simulator::rehearsal::{CopiedDevice, CopiedProbe, CopiedRelease, Rehearsal, Share};
use fleetd_simulator::run::{Outcome, RunPlan, run};
use fleetd_simulator::runner::Behaviour;
use fleetd_simulator::scenario::Scenario;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, HoldId, PlanId, RolloutId};
use fleetd_sync_core::release::SignedManifest;
use fleetd_sync_core::time::{Clock as _, Wall};

/// The devices of each wave.
const WAVES: [usize; 3] = [3, 4, 5];
/// How many devices may fail.
const BUDGET: usize = 1;
/// Of how many of a hundred devices the release crashes on.
const FAIL_PERCENT: u32 = 15;
/// Seeds that are rehearsed for the reckoned figures.
const SEEDS: u64 = 120;
/// Seeds whose outcome is brought about in a fleet.
const REAL_SEEDS: u64 = 24;
/// How far a share of so many seeds may lie from its chance, in standard deviations. One in two thousand lies further,
/// and the seeds are always the same.
const DEVIATIONS: f64 = 3.5;
const PROGRAM: &[u8] = b"coffee two";
const DAY: Duration = Duration::from_hours(24);
const YEAR_MS: i64 = 365 * 86_400_000;
/// How far a rehearsal's times may lie from those of the fleet: links differ, and how often somebody looks at a clock.
const APART: Duration = Duration::from_mins(3);
/// 2026-03-28T20:00:00Z, four hours before Europe's clocks are put forward.
const EVENING: Wall = Wall(1_774_728_000_000);

/// What a fleet is like, and how the release comes to it.
#[derive(Clone, Default)]
struct Setting {
    strategy: Strategy,
    /// The date at which it begins.
    begins: Option<Wall>,
    /// The time zones of its devices, one after the other.
    zones: &'static [&'static str],
    /// How many sites it has, one device after the other; none when it is 0.
    sites: usize,
    /// The devices that are gone when the release comes, and stay so.
    gone: &'static [usize],
}

/// Three waves, in which one device may fail.
fn in_waves() -> Setting {
    let waves = WAVES.iter().map(|devices| WaveSize::Count(u32::try_from(*devices).unwrap())).collect();
    let budget = FailureBudget { count: Some(u32::try_from(BUDGET).unwrap()), percent: None };
    Setting { strategy: Strategy { waves, budget, ..Strategy::default() }, ..Setting::default() }
}

/// A fleet that runs 1.0.0, and the release that is to come. It is the same one each time.
fn fleet(setting: &Setting) -> (Fleet, SignedManifest) {
    let mut fleet = Fleet::new(41, Duration::from_millis(20)).unwrap();
    if let Some(begins) = setting.begins {
        fleet.world.begin_at(begins);
    }
    let devices: usize = WAVES.iter().sum();
    for number in 0..devices {
        let zone = number.checked_rem(setting.zones.len()).map(|place| setting.zones[place].to_owned());
        let facts = zone.map(|zone| ("timezone".to_owned(), zone)).into_iter().collect();
        let site = number.checked_rem(setting.sites).map(|site| format!("site-{site}")).unwrap_or_default();
        fleet.add_device_of(site, facts).unwrap();
    }
    fleet.wait_until_enrolled().unwrap();
    let first = fleet.push("1.0.0", b"coffee one").unwrap();
    let rollout = fleet.roll_out(&first).unwrap();
    fleet.wait_until("1.0.0 to be everywhere", |fleet| phase(fleet, rollout) == RolloutPhase::Succeeded).unwrap();
    let second = fleet.push("2.0.0", PROGRAM).unwrap();
    for device in setting.gone {
        fleet.power_off(*device);
        fleet.wait_until("it to be missed", |fleet| !fleet.is_linked(*device)).unwrap();
    }
    (fleet, second)
}

fn header(fleet: &Fleet, rollout: RolloutId) -> RolloutHeader {
    fleet.rollout(rollout).unwrap()
}

fn phase(fleet: &Fleet, rollout: RolloutId) -> RolloutPhase {
    header(fleet, rollout).phase
}

fn planned(fleet: &Fleet, release: &SignedManifest, setting: &Setting) -> Plan {
    let id = PlanId::random(&mut Entropy::from_seed([3; 32]));
    let release = PlannedRelease::of(release.claims(), release.digest());
    plan(id, release, Targets::All, 1, setting.strategy.clone(), &fleet.rows().unwrap()).unwrap()
}

/// The rehearsal of that plan, as the command makes it of what a server shows.
fn scenario(setting: &Setting) -> Scenario {
    let (fleet, release) = fleet(setting);
    let devices = fleet.rows().unwrap().into_iter().map(|row| CopiedDevice {
        name: row.name.to_string(),
        id: row.device.to_string(),
        local: row.local.to_string(),
        site: row.site.clone(),
        // Whoever was away for a year by then is not back within the day.
        offline_since_ms: row.offline_since.map(|since| since.0 - YEAR_MS),
        platform: row.platform.map(|platform| platform.to_string()),
        present: row.releases.get(&coffee()).map(|present| CopiedRelease {
            version: present.version.to_string(),
            manifest: Some(present.manifest.to_string()),
            configuration: present.configuration.as_ref().map(ToString::to_string),
            healthy: present.healthy,
        }),
        ..CopiedDevice::default()
    });
    let probe = CopiedProbe::from(release.claims().probe.clone());
    let now = fleet.devices[0].clock.now().wall;
    let rehearsal = Rehearsal::new(planned(&fleet, &release, setting).to_text(), now.0, probe, devices.collect());
    rehearsal.check_plan().unwrap();
    rehearsal.into_scenario(Some(now), DAY).unwrap()
}

/// The same, of a release that crashes on some devices.
fn scenario_of_a_bad_release() -> Scenario {
    let mut scenario = scenario(&in_waves());
    scenario.rehearsal.as_mut().unwrap().fail = Share::from_millionths(FAIL_PERCENT * 10_000);
    scenario.duration = Duration::from_secs(3600);
    scenario
}

fn rehearsed(scenario: &Scenario, seeds: u64) -> Vec<Outcome> {
    let outcome = |seed| {
        let outcome = run(RunPlan::drawn(scenario.clone(), seed), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(outcome.violation, None, "seed {seed}");
        outcome
    };
    (1..=seeds).map(outcome).collect()
}

fn report(scenario: &Scenario, runs: &mut [Outcome]) -> RehearsalReport {
    let [commit, arch, profile] = ["3a4e9abcdef0", "x86_64", "debug"].map(ToOwned::to_owned);
    let facts = RehearsalFacts {
        build: Build { commit, arch, profile },
        scenario,
        seeds_asked: runs.len(),
        is_partial: false,
        wall_ms: 0,
        unrun: Vec::new(),
        flags: "",
    };
    RehearsalReport::new(facts, runs).unwrap()
}

/// The chance that so many of `all` devices fail, for each number of them.
fn binomial(all: usize, chance: f64) -> Vec<f64> {
    let mut chances = vec![1.0];
    for _ in 0..all {
        let failed = chances.iter().map(|known| known * chance);
        let mut next: Vec<f64> = chances.iter().map(|known| known * (1.0 - chance)).chain([0.0]).collect();
        next.iter_mut().skip(1).zip(failed).for_each(|(sum, failed)| *sum += failed);
        chances = next;
    }
    chances
}

/// The chance that each gate halts, once its wave has begun: failures add up over the waves, and more than the budget
/// halt.
fn reckoned(chance: f64) -> Vec<f64> {
    let mut before = vec![1.0];
    let halts = WAVES.map(|devices| {
        let of_wave = binomial(devices, chance);
        let mut after = vec![0.0; before.len() + of_wave.len()];
        for (had, known) in before.iter().enumerate() {
            for (failed, chance) in of_wave.iter().enumerate() {
                after[had + failed] += known * chance;
            }
        }
        let halts: f64 = after.iter().skip(BUDGET + 1).sum();
        before = after.into_iter().take(BUDGET + 1).map(|known| known / (1.0 - halts)).collect();
        halts
    });
    halts.to_vec()
}

#[test]
fn each_gate_halts_as_often_as_can_be_reckoned_and_a_bad_release_comes_as_far() {
    let scenario = scenario_of_a_bad_release();
    let mut runs = rehearsed(&scenario, SEEDS);
    let report = report(&scenario, &mut runs);
    let (mut all, mut devices) = (0, 0);
    for (figures, chance) in report.waves.iter().zip(reckoned(f64::from(FAIL_PERCENT) / 100.0)) {
        let (began, halted) =
            (f64::from(u32::try_from(figures.began).unwrap()), u32::try_from(figures.halted).unwrap());
        let (expected, deviation) = (began * chance, (began * chance * (1.0 - chance)).sqrt());
        let off = (f64::from(halted) - expected).abs();
        println!("wave {}: halts in {halted} of {began}, {expected:.1} reckoned ({deviation:.1})", figures.wave);
        assert!(off <= DEVIATIONS * deviation, "wave {}: {halted} of {began}; {expected:.1}", figures.wave);
        assert!(halted >= 3, "too few halts to say anything: {figures:?}");
        assert_eq!(figures.began, figures.passed + figures.halted, "{figures:?}");

        // Whoever's wave has begun runs it, and nobody else does.
        devices += figures.devices;
        let reach = figures.reach.unwrap();
        let all_begun = u64::try_from(devices).unwrap();
        assert_eq!((reach.ran.median, reach.ran.worst), (all_begun, all_begun), "{figures:?}");
        assert!(reach.crashed.median > u64::try_from(BUDGET).unwrap(), "{figures:?}");
        all += figures.halted;
    }
    assert_eq!((report.waves.len(), report.halts.seeds), (WAVES.len(), all));
}

/// What happened in a fleet.
#[derive(Debug, PartialEq, Eq)]
struct Happened {
    /// The wave in which the rollout halted, or failed.
    halted_in: Option<usize>,
    /// On which devices the release ran.
    ran: BTreeSet<String>,
}

/// Brings the release to the fleet itself, where it crashes on some devices.
fn happens(plan: &Plan, bad: &BTreeSet<String>) -> Happened {
    let (fleet, release) = fleet(&in_waves());
    assert_eq!(planned(&fleet, &release, &in_waves()), *plan, "it is another fleet");
    let crash = Behaviour { crashes_after: Some(Duration::from_millis(300)), is_sick: true, ..Behaviour::default() };
    let named = |local| plan.devices.iter().find(|device| device.local == local).unwrap().name.to_string();
    for device in fleet.devices.iter().filter(|device| bad.contains(&named(device.local()))) {
        device.runner.script(ArtifactDigest::of(PROGRAM), crash);
    }
    fleet.tap.open();
    let rollout = RolloutId::random(&mut Entropy::from_seed([4; 32]));
    fleet.start_plan(rollout, plan.clone()).unwrap();
    fleet.wait_until("the rollout to end", |fleet| phase(fleet, rollout) != RolloutPhase::Running).unwrap();
    fleet.world.run_for(Duration::from_secs(120));
    let started = fleet.tap.drain().into_iter().filter_map(|seen| match seen {
        Observation::Started { node, artifact, .. } if artifact == ArtifactDigest::of(PROGRAM) => Some(node),
        _ => None,
    });
    let nodes: BTreeSet<_> = started.collect();
    let ran = fleet.devices.iter().filter(|device| nodes.contains(device.name.as_str()));
    let ran = ran.map(|device| named(device.local())).collect();
    let header = header(&fleet, rollout);
    let has_halted = header.phase != RolloutPhase::Succeeded;
    Happened { halted_in: has_halted.then(|| usize::try_from(header.wave.number).unwrap()), ran }
}

fn name(scenario: &Scenario, device: usize) -> String {
    scenario.rehearsal.as_ref().unwrap().devices[device].name.clone()
}

#[test]
fn what_a_seed_says_is_what_happens_where_the_release_crashes_on_the_same_devices() {
    let scenario = scenario_of_a_bad_release();
    let plan = scenario.rehearsal.as_ref().unwrap().read_plan().unwrap();
    let mut halts = BTreeSet::new();
    for outcome in rehearsed(&scenario, REAL_SEEDS) {
        let Rehearsed { waves, devices, .. } = outcome.rehearsed.unwrap();
        let named = |is_so: &dyn Fn(&_) -> bool| -> BTreeSet<String> {
            devices.iter().filter(|course| is_so(course)).map(|course| name(&scenario, course.device)).collect()
        };
        let said = Happened {
            halted_in: waves.iter().position(|wave| wave.halted_ms.is_some()),
            ran: named(&|course| course.ran_ms.is_some()),
        };
        let bad = named(&|course| course.is_bad);
        halts.insert(said.halted_in);
        assert_eq!(said, happens(&plan, &bad), "seed {}: it crashes on {bad:?}", outcome.seed);
    }
    assert!(halts.len() >= 3, "the seeds have too little in common with a rollout that goes wrong: {halts:?}");
}

/// By device, when the release first ran there.
type Started = BTreeMap<String, Duration>;

/// What a rehearsal says of that, which is the same for every seed: nothing is drawn that could change it.
fn said(scenario: &Scenario) -> Started {
    let seeds = rehearsed(scenario, 3).into_iter().map(|outcome| -> Started {
        let Rehearsed { devices, .. } = outcome.rehearsed.unwrap();
        let ran = devices.iter().filter_map(|course| Some((course.device, course.ran_ms?)));
        ran.map(|(device, ran_ms)| (name(scenario, device), Duration::from_millis(ran_ms))).collect()
    });
    let mut seeds: Vec<Started> = seeds.collect();
    for seed in &seeds {
        assert!(seed.keys().eq(seeds[0].keys()), "seeds differ in who gets it: {seeds:?}");
    }
    seeds.swap_remove(0)
}

/// What happens when that plan comes to the fleet itself, which somebody may stop.
fn happened(setting: &Setting, stop_after: Option<Duration>) -> Started {
    let (mut fleet, release) = fleet(setting);
    let plan = planned(&fleet, &release, setting);
    let named = |fleet: &Fleet, node: &str| {
        let device = fleet.devices.iter().find(|device| device.name == node).unwrap();
        plan.devices.iter().find(|planned| planned.local == device.local()).unwrap().name.to_string()
    };
    fleet.tap.open();
    let begin = fleet.world.monotonic();
    fleet.start_plan(RolloutId::random(&mut Entropy::from_seed([4; 32])), plan.clone()).unwrap();
    let (mut started, mut stops) = (Started::new(), stop_after);
    while fleet.world.monotonic().since(begin) < DAY {
        fleet.world.run_for(Duration::from_secs(5));
        let after = fleet.world.monotonic().since(begin);
        for seen in fleet.tap.drain() {
            if let Observation::Started { node, artifact, .. } = seen
                && artifact == ArtifactDigest::of(PROGRAM)
            {
                started.entry(named(&fleet, &node)).or_insert(after);
            }
        }
        if stops.take_if(|stop| *stop <= after).is_some() {
            fleet.want(Wish::StopAll { hold: HoldId::from_bytes([1; 10]) }).unwrap();
        }
    }
    started
}

fn assert_alike(said: &Started, happened: &Started) {
    assert!(said.keys().eq(happened.keys()), "it says {said:?}, and {happened:?} happens");
    for (device, at) in said {
        let apart = at.abs_diff(happened[device]);
        assert!(apart <= APART, "{device}: it says {at:?}, and {:?} happens", happened[device]);
    }
}

#[test]
fn devices_switch_in_their_windows_when_a_rehearsal_says_so() {
    let windows = vec!["0 2 * * * 1h".parse().unwrap()];
    let strategy = Strategy { terms: Terms { windows, ..Terms::default() }, ..Strategy::default() };
    let zones = &["Europe/Berlin", "America/New_York", "Asia/Tokyo", "UTC"];
    let setting = Setting { strategy, begins: Some(EVENING), zones, ..Setting::default() };
    let said = said(&scenario(&setting));
    // In Berlin there is no two o'clock that night, and its window opens at three; Tokyo's next one is in the next night.
    let hours: BTreeSet<u64> = said.values().map(|at| (*at + APART).as_secs() / 3600).collect();
    assert_eq!((said.len(), hours.len()), (WAVES.iter().sum(), 4), "{said:?}");
    assert_alike(&said, &happened(&setting, None));
}

#[test]
fn a_stop_finds_those_with_the_release_whom_a_rehearsal_names() {
    let mut setting = in_waves();
    setting.strategy.bake = Duration::from_mins(10);
    let mut reached = Vec::new();
    for stop_after in [5, 15, 40].map(Duration::from_mins) {
        let mut scenario = scenario(&setting);
        scenario.rehearsal.as_mut().unwrap().stop_after = Some(stop_after);
        let said = said(&scenario);
        reached.push(said.len());
        assert_alike(&said, &happened(&setting, Some(stop_after)));
    }
    assert_eq!(reached, [3, 7, 12], "after five minutes the first wave, then each ten minutes the next");
}

#[test]
fn a_site_that_lacks_a_device_goes_or_stays_as_a_rehearsal_says() {
    for (site_quorum, sites) in [(100, 3), (60, 4)] {
        let strategy =
            Strategy { site_quorum: Some(site_quorum), deadline: Duration::from_hours(1), ..Strategy::default() };
        let setting = Setting { strategy, sites: 4, gone: &[1], ..Setting::default() };
        let said = said(&scenario(&setting));
        let devices: usize = WAVES.iter().sum();
        let of_site = devices / 4;
        let awaited = if sites == 4 { devices - 1 } else { devices - of_site };
        assert_eq!(said.len(), awaited, "{site_quorum} of a hundred: {said:?}");
        assert_alike(&said, &happened(&setting, None));
    }
}
