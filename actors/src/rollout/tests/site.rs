//! Sites whose devices switch together.

use super::*;
use crate::device::wanted::RolloutAssignment;
use crate::rollout::plan::plan;
use crate::targeting::DeviceRow;

/// Devices 1 to 3 are in Berlin, 4 and 5 in Paris.
fn sites() -> Vec<PlannedDevice> {
    let site = |device: &PlannedDevice| if device.local < local(4) { "berlin" } else { "paris" };
    wave_devices(&[5]).into_iter().map(|device| PlannedDevice { site: site(&device).to_owned(), ..device }).collect()
}

fn together(percent: u32) -> RolloutStrategy {
    let budget = FailureBudget { count: Some(5), percent: None };
    RolloutStrategy {
        site_quorum: Some(percent),
        deadline: Duration::from_hours(2),
        budget,
        ..RolloutStrategy::default()
    }
}

fn bench(percent: u32) -> Bench {
    let mut bench = Bench::new();
    bench.start(Plan { strategy: together(percent), ..plan_of(sites()) });
    bench.confirm();
    bench
}

fn waits(bench: &mut Bench, index: u8, waits: Waits) {
    let said = WorkloadReport { waits: Some(waits), ..report(Phase::Wait) };
    bench.input(Input::DeviceReported { device: local(index), report: Box::new(said) });
}

fn ready(bench: &mut Bench, index: u8) {
    waits(bench, index, Waits::Site);
}

fn presence(bench: &mut Bench, index: u8, is_there: bool) {
    let offline_since = (!is_there).then_some(Wall(1));
    bench.input(Input::DevicePresence { device: local(index), offline_since });
}

/// The last terms that each device was sent since they were last looked at.
fn terms(bench: &mut Bench) -> BTreeMap<u8, String> {
    let sent = bench.effects.drain(..).filter_map(|effect| match effect {
        Effect::Assign { device, assignment: RolloutAssignment { terms, .. } } => {
            Some((*device.as_bytes().first().unwrap(), terms.to_string()))
        }
        _ => None,
    });
    sent.collect()
}

const GO: &str = "veto 0s";
const SPLIT: DeviceStatus = DeviceStatus::Skipped(Skip::Site);

#[test]
fn a_site_switches_once_all_of_it_are_ready() {
    let mut bench = Bench::new();
    bench.start(Plan { strategy: together(100), ..plan_of(sites()) });
    let first = terms(&mut bench);
    assert!(first.len() == 5 && first.values().all(|terms| terms.ends_with("; site together")), "{first:?}");
    (1..=5).for_each(|index| bench.input(Input::DeviceAssigned { device: local(index) }));
    ready(&mut bench, 1);
    ready(&mut bench, 2);
    waits(&mut bench, 3, Waits::Window { opens: None });
    ready(&mut bench, 4);
    assert_eq!(terms(&mut bench), BTreeMap::new(), "one of each is on its way");
    ready(&mut bench, 5);
    assert_eq!(terms(&mut bench), BTreeMap::from([(4, GO.to_owned()), (5, GO.to_owned())]));
    ready(&mut bench, 3);
    assert_eq!(terms(&mut bench).into_keys().collect::<Vec<_>>(), [1, 2, 3]);
    (1..=5).for_each(|index| bench.input(Input::DeviceAssigned { device: local(index) }));
    (1..=5).for_each(|index| bench.report(index, Phase::Healthy));
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
}

#[test]
fn one_that_is_away_follows_where_enough_of_its_site_switched() {
    let mut bench = bench(60);
    for index in [1, 2] {
        ready(&mut bench, index);
    }
    assert_eq!(terms(&mut bench), BTreeMap::new(), "the third may only be slow");
    bench.advance(ACKNOWLEDGE_WITHIN);
    assert_eq!(terms(&mut bench).into_keys().collect::<Vec<_>>(), [1, 2, 3]);
    bench.restart();
    let again = terms(&mut bench);
    assert!(again.len() == 3 && again.values().all(|terms| terms == GO), "what was decided outlives it: {again:?}");
    assert_eq!(bench.status(4), DeviceStatus::Assigned, "nobody of the other site was heard");
    (1..=3).for_each(|index| bench.input(Input::DeviceAssigned { device: local(index) }));
    ready(&mut bench, 3);
    assert_eq!(terms(&mut bench), BTreeMap::from([(3, GO.to_owned())]), "it has not heard of it");
    [1, 2, 3].into_iter().for_each(|index| bench.report(index, Phase::Healthy));
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
    ready(&mut bench, 4);
    ready(&mut bench, 5);
    assert_eq!(terms(&mut bench).into_keys().collect::<Vec<_>>(), [4, 5], "a whole site follows later");
}

#[test]
fn a_site_of_which_too_few_are_ready_in_time_gets_nothing() {
    let mut bench = bench(100);
    ready(&mut bench, 1);
    waits(&mut bench, 2, Waits::Locked { limit: Duration::from_hours(24) });
    bench.report(3, Phase::Download);
    ready(&mut bench, 4);
    bench.report(5, Phase::Failed);
    assert_eq!([4, 5].map(|index| bench.status(index)), [SPLIT, DeviceStatus::Failed(Failure::Reported(None))]);
    bench.story();
    bench.advance(Duration::from_hours(2));
    let story = bench.story();
    assert_eq!(
        [1, 2, 3].map(|index| bench.status(index)),
        [SPLIT, SPLIT, DeviceStatus::Failed(Failure::Deadline)],
        "{story}"
    );
    assert!((1..=3).all(|index| story.contains(&format!("withdraw from otter-{index}"))), "{story}");
    for index in 1..=3 {
        bench.input(Input::DeviceWithdrawn { device: local(index) });
    }
    assert!(!bench.story().contains("withdraw"), "once is enough");
    ready(&mut bench, 1);
    assert_eq!(bench.status(1), SPLIT, "it has not heard of it");
    assert_eq!(bench.phase(), RolloutPhase::Failed);
    assert_eq!(terms(&mut bench), BTreeMap::new());
}

#[test]
fn a_site_that_comes_late_has_a_time_of_its_own() {
    let mut bench = bench(100);
    (1..=5).for_each(|index| presence(&mut bench, index, index > 3));
    (4..=5).for_each(|index| ready(&mut bench, index));
    (4..=5).for_each(|index| bench.input(Input::DeviceAssigned { device: local(index) }));
    (4..=5).for_each(|index| bench.report(index, Phase::Healthy));
    bench.advance(Duration::from_hours(9));
    assert_eq!(bench.phase(), RolloutPhase::Succeeded);
    (1..=2).for_each(|index| presence(&mut bench, index, true));
    (1..=2).for_each(|index| ready(&mut bench, index));
    bench.effects.clear();
    bench.advance(Duration::from_hours(1));
    assert_eq!([1, 3].map(|index| bench.status(index)), [DeviceStatus::Waits(Waits::Site), DeviceStatus::Assigned]);
    bench.advance(Duration::from_hours(1));
    assert_eq!([1, 2, 3].map(|index| bench.status(index)), [SPLIT, SPLIT, SPLIT]);
}

#[test]
fn nobody_is_told_to_switch_while_the_rollout_is_stopped() {
    let mut bench = bench(100);
    ready(&mut bench, 4);
    bench.pause();
    bench.confirm();
    ready(&mut bench, 5);
    assert_eq!(terms(&mut bench), BTreeMap::new());
    bench.resume();
    bench.confirm();
    ready(&mut bench, 4);
    ready(&mut bench, 5);
    assert_eq!(terms(&mut bench).into_keys().collect::<Vec<_>>(), [4, 5]);
}

#[test]
fn a_stop_wins_over_the_word_to_switch_and_a_resume_says_it_again() {
    let mut bench = bench(50);
    ready(&mut bench, 4);
    bench.advance(ACKNOWLEDGE_WITHIN);
    assert_eq!(terms(&mut bench).into_keys().collect::<Vec<_>>(), [4, 5], "the other one is away");
    bench.pause();
    bench.effects.clear();
    ready(&mut bench, 5);
    bench.restart();
    assert!(bench.story().contains("hold otter-5"), "that it is ready does not forget the stop");
    bench.resume();
    bench.confirm();
    assert_eq!(terms(&mut bench).into_keys().collect::<Vec<_>>(), [4, 5], "whether they heard it, nobody knows");
}

#[test]
fn one_that_has_the_release_already_keeps_its_site_from_nothing() {
    let mut bench = bench(100);
    bench.report(4, Phase::Healthy);
    assert_eq!(bench.status(5), DeviceStatus::Assigned);
    ready(&mut bench, 5);
    assert_eq!(terms(&mut bench).into_keys().collect::<Vec<_>>(), [5]);
}

#[test]
fn one_that_was_silent_when_its_site_was_given_up_does_not_wait_for_it() {
    let mut bench = bench(100);
    bench.report(4, Phase::Download);
    presence(&mut bench, 4, false);
    bench.advance(SILENT_AFTER);
    assert_eq!(bench.status(4), DeviceStatus::Failed(Failure::Silent));
    ready(&mut bench, 5);
    bench.advance(Duration::from_hours(2));
    assert_eq!(bench.status(5), SPLIT);
    ready(&mut bench, 4);
    assert_eq!(bench.status(4), DeviceStatus::Failed(Failure::Silent), "it has not heard of it");
}

fn row(index: u8, site: &str) -> DeviceRow {
    DeviceRow {
        local: local(index),
        device: DeviceId::from_bytes([index; 10]),
        name: format!("otter-{index}").parse().unwrap(),
        site: site.to_owned(),
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        platform: Some("linux/arm64".parse().unwrap()),
        free_bytes: None,
        releases: BTreeMap::new(),
        barred: None,
        refused: None,
        holds: Vec::new(),
        conflicts: BTreeSet::new(),
        rollouts: BTreeMap::new(),
        offline_since: None,
        revision: Revision(1),
    }
}

fn plan_sites(percent: u32, waves: &[&str], rows: &[DeviceRow]) -> Plan {
    let waves = waves.iter().map(|wave| wave.parse().unwrap()).collect();
    let artifacts = BTreeMap::from([("any".parse().unwrap(), (ArtifactDigest::of(b"program"), 7))]);
    let release = PlannedRelease { artifacts, ..plan_of(Vec::new()).release };
    let strategy = RolloutStrategy { waves, ..together(percent) };
    plan(PlanId::from_bytes([2; 10]), release, Targets::All, 1, strategy, rows).unwrap()
}

#[test]
fn a_site_is_in_one_wave_and_left_out_whole_where_too_much_of_it_is_left_out() {
    let mut rows: Vec<_> = (1..=9).map(|index| row(index, ["berlin", "paris", ""][usize::from(index % 3)])).collect();
    let plan = plan_sites(100, &["1", "rest"], &rows);
    for site in ["berlin", "paris"] {
        let of_site = plan.devices.iter().filter(|device| device.site == site);
        let waves: BTreeSet<_> = of_site.map(|device| device.place.unwrap().wave).collect();
        assert_eq!(waves.len(), 1, "{site} is split");
    }
    let first = plan.assigned().filter(|device| device.place.unwrap().wave == 0).count();
    assert!(first == 1 || first == 3, "one device by itself, or a whole site: {first}");
    assert_eq!(Plan::from_text(&plan.to_text()).unwrap(), plan);

    rows[2].holds = vec![(None, "the owner is away".to_owned())];
    let blocked = |percent| -> Vec<String> {
        let plan = plan_sites(percent, &["rest"], &rows);
        let blocked = plan.devices.iter().filter(|device| !device.is_assigned());
        blocked.map(|device| format!("{}: {}", device.name, device.verdict)).collect()
    };
    assert_eq!(
        blocked(100),
        [
            "otter-3: blocked: held: the owner is away",
            "otter-6: blocked: 3 of 3 devices of berlin must be ready, and 2 can be",
            "otter-9: blocked: 3 of 3 devices of berlin must be ready, and 2 can be",
        ]
    );
    assert_eq!(blocked(60), ["otter-3: blocked: held: the owner is away"]);
    let stale = plan::check_fence(&plan, &rows).unwrap_err();
    assert_eq!(stale.len(), 3, "{stale:?}");
    assert_eq!(plan.only_planned(1, &rows).unwrap().devices.iter().filter(|device| device.site == "berlin").count(), 0);
}

#[derive(Clone, Debug)]
enum Event {
    Confirm,
    Say(u8, Phase),
    Ready(u8),
    Presence(u8, bool),
    Wait(u64),
    Restart,
    Pause,
    Resume,
}

fn event() -> impl Strategy<Value = Event> {
    let index = || 1..=5_u8;
    prop_oneof![
        6 => Just(Event::Confirm),
        3 => (index(), prop::sample::select(Phase::ALL)).prop_map(|(index, phase)| Event::Say(index, phase)),
        12 => index().prop_map(Event::Ready),
        3 => (index(), any::<bool>()).prop_map(|(index, is_there)| Event::Presence(index, is_there)),
        3 => (0..4_000_u64).prop_map(Event::Wait),
        1 => Just(Event::Restart),
        1 => Just(Event::Pause),
        3 => Just(Event::Resume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whoever_is_told_to_switch_had_enough_of_its_site_with_it(
        events in prop::collection::vec(event(), 0..80),
        percent in prop::sample::select(vec![1_u32, 50, 67, 100]),
    ) {
        let mut bench = bench(percent);
        for event in events {
            let before: BTreeMap<_, _> = (1..=5).map(|index| (index, bench.status(index))).collect();
            let is_ready = |index: u8| match &event {
                Event::Ready(said) | Event::Say(said, Phase::Healthy) if *said == index => true,
                _ => matches!(before[&index], DeviceStatus::Waits(Waits::Site) | DeviceStatus::Healthy),
            };
            bench.effects.retain(|effect| !matches!(effect, Effect::Assign { assignment, .. } if assignment.terms.to_string() == GO));
            let agreed_before: Vec<_> = (1..=5).filter(|index| is_agreed(&bench, *index)).collect();
            match &event {
                Event::Confirm => bench.confirm(),
                Event::Say(index, phase) => bench.report(*index, *phase),
                Event::Ready(index) => ready(&mut bench, *index),
                Event::Presence(index, is_there) => presence(&mut bench, *index, *is_there),
                Event::Wait(seconds) => bench.advance(Duration::from_secs(*seconds)),
                Event::Restart => bench.restart(),
                Event::Pause => bench.pause(),
                Event::Resume => bench.resume(),
            }
            for (site, needed) in [(1..=3_u8, 3 * percent), (4..=5, 2 * percent)] {
                let needed = needed.div_ceil(100);
                let newly = site.clone().filter(|index| is_agreed(&bench, *index) && !agreed_before.contains(index)).count();
                if newly > 0 {
                    prop_assert!(agreed_before.iter().all(|index| !site.contains(index)), "decided twice");
                    let ready = site.clone().filter(|index| is_ready(*index)).count();
                    prop_assert!(ready >= usize::try_from(needed).unwrap(), "{} ready of {:?}", ready, site);
                }
            }
        }
    }
}

fn is_agreed(bench: &Bench, index: u8) -> bool {
    bench.machine.devices().any(|(device, progress)| device == local(index) && progress.word == SiteWord::Switch)
}
