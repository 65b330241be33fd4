//! Two rollouts of one workload that mean the same devices.

use super::stop::SUPERSEDED_WITHIN;
use super::*;

fn newer() -> RolloutId {
    RolloutId::from_bytes([8; 10])
}

fn give_over(bench: &mut Bench, devices: &[u8]) {
    let devices = Arc::new(devices.iter().map(|index| local(*index)).collect());
    bench.input(Input::Supersede { operation: OperationId::from_bytes([3; 8]), by: newer(), devices });
}

const TAKEN: DeviceStatus = DeviceStatus::Skipped(Skip::Superseded(RolloutId::from_bytes([8; 10])));

#[test]
fn devices_that_are_given_over_are_called_back_once_the_other_rollout_had_time_to_take_them() {
    let mut bench = Bench::in_waves(&[3, 1], RolloutStrategy::default());
    bench.confirm();
    bench.report(1, Phase::Healthy);
    bench.report(2, Phase::Download);
    bench.story();
    give_over(&mut bench, &[1, 2, 3, 4]);
    assert!(!bench.story().contains("withdraw"), "the other one's assignment takes its place in one change");
    assert_eq!([1, 2, 3, 4].map(|index| bench.status(index)), [DeviceStatus::Healthy, TAKEN, TAKEN, TAKEN]);
    bench.input(Input::DeviceSuperseded { device: local(2), by: newer() });
    bench.advance(SUPERSEDED_WITHIN);
    let story = bench.story();
    assert!(story.contains("withdraw from otter-3"), "its turn in the other one has not come: {story}");
    assert!(!story.contains("withdraw from otter-2") && !story.contains("withdraw from otter-4"), "{story}");
    assert_eq!(bench.phase(), RolloutPhase::Succeeded, "one had it, and there is nobody left for its second wave");
}

#[test]
fn a_rollout_of_which_all_devices_are_given_over_ends() {
    for stop in [false, true] {
        let mut bench = Bench::in_waves(&[1, 1], RolloutStrategy::default());
        if stop {
            bench.pause();
        }
        give_over(&mut bench, &[1, 2]);
        assert_eq!(bench.phase(), RolloutPhase::Aborted);
        assert_eq!(bench.machine.header().unwrap().reason, "other rollouts took all of its devices over");
        bench.advance(SUPERSEDED_WITHIN);
        bench.confirm();
        assert!(!bench.header.as_ref().unwrap().is_open, "nothing is owed to anybody");
    }
}

#[test]
fn what_was_given_over_never_comes_back() {
    let mut bench =
        Bench::in_waves(&[2, 2], RolloutStrategy { unavailable_max: Some(1), ..RolloutStrategy::default() });
    bench.confirm();
    bench.pause();
    bench.confirm();
    give_over(&mut bench, &[1, 2, 3]);
    bench.restart();
    bench.resume();
    bench.confirm();
    // The newer one was aborted: its assignment is gone, and the device speaks of what it had before.
    for index in 1..=3 {
        bench.input(Input::DevicePresence { device: local(index), offline_since: None });
        bench.input(Input::DeviceAcknowledged { device: local(index), assigned: None });
        bench.report(index, Phase::Download);
    }
    bench.advance(Duration::from_hours(1));
    assert!(bench.assigned().iter().all(|device| *device == local(4)), "{}", bench.story());
    assert_eq!([1, 2, 3].map(|index| bench.status(index)), [TAKEN, TAKEN, TAKEN]);
    bench.report(1, Phase::Healthy);
    assert_eq!(bench.status(1), DeviceStatus::Healthy, "how that ended is worth knowing");
}

/// The devices of two rollouts, as their actors keep them: whose assignment of the workload stands.
#[derive(Default)]
struct Actors(BTreeMap<LocalId, usize>);

/// Two rollouts of the same five devices: the first is older.
struct Both {
    benches: [Bench; 2],
    actors: Actors,
    has_newer: bool,
}

/// Something that happens to one of two rollouts, or to a device of both.
#[derive(Clone, Debug)]
enum Event {
    StartNewer,
    Deliver(usize),
    Report(u8, Phase),
    Restart(usize),
    Wait(u64),
    Pause(usize),
    Resume(usize),
    Abort(usize),
    Presence(u8, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let (index, of) = (|| 1..=5_u8, || 0..2_usize);
    prop_oneof![
        2 => Just(Event::StartNewer),
        6 => of().prop_map(Event::Deliver),
        6 => (index(), prop::sample::select(Phase::ALL)).prop_map(|(index, phase)| Event::Report(index, phase)),
        1 => of().prop_map(Event::Restart),
        3 => (0..60_u64).prop_map(Event::Wait),
        1 => of().prop_map(Event::Pause),
        2 => of().prop_map(Event::Resume),
        1 => of().prop_map(Event::Abort),
        2 => (index(), any::<bool>()).prop_map(|(index, offline)| Event::Presence(index, offline)),
    ]
}

impl Both {
    fn new(sizes: &[u8], cap: Option<u32>) -> Self {
        let strategy = RolloutStrategy { unavailable_max: cap, ..RolloutStrategy::default() };
        let older = Bench::in_waves(sizes, strategy);
        let mut newer_bench = Bench::new();
        newer_bench.machine = Rollout::new(newer());
        Self { benches: [older, newer_bench], actors: Actors::default(), has_newer: false }
    }

    fn of(&mut self, number: usize) -> Option<&mut Bench> {
        let is_there = number == 0 || self.has_newer;
        self.benches.get_mut(number).filter(|_| is_there)
    }

    /// As the server starts it: the older one gives over what it has not ended, and then the newer one is started. What the
    /// older one had sent before has arrived by then: to a device's actor, nothing overtakes anything.
    fn start_newer(&mut self) {
        if self.has_newer {
            return;
        }
        while !self.benches[0].effects.is_empty() {
            self.deliver(0);
        }
        give_over(&mut self.benches[0], &[1, 2, 3, 4, 5]);
        self.has_newer = true;
        let mut plan = plan_of(wave_devices(&[2, 3]));
        (plan.id, plan.attempt) = (PlanId::from_bytes([9; 10]), 2);
        plan.release.manifest = ArtifactDigest::of(b"newer");
        self.benches[1].start(plan);
    }

    /// Does what a rollout has sent, as the devices' actors do.
    fn deliver(&mut self, number: usize) {
        let Some(bench) = self.of(number) else { return };
        for effect in std::mem::take(&mut bench.effects) {
            self.carry_out(number, &effect);
        }
    }

    fn carry_out(&mut self, number: usize, effect: &Effect) {
        let standing = |actors: &Actors, device| actors.0.get(&device).copied();
        let answer = match *effect {
            Effect::Assign { device, .. } => {
                let former = self.actors.0.insert(device, number).filter(|former| *former != number);
                if let Some(former) = former {
                    let by = if number == 0 { rollout() } else { newer() };
                    self.benches[former].input(Input::DeviceSuperseded { device, by });
                }
                Input::DeviceAssigned { device }
            }
            Effect::Withdraw { device, .. } => {
                if standing(&self.actors, device) == Some(number) {
                    self.actors.0.remove(&device);
                }
                Input::DeviceWithdrawn { device }
            }
            Effect::Hold { device, hold, .. } => Input::DeviceHeld { device, hold },
            Effect::Lift { device, .. } => Input::DeviceLifted { device, is_held: false },
            _ => return,
        };
        self.benches[number].input(answer);
    }

    /// A device speaks of what stands there.
    fn report(&mut self, index: u8, phase: Phase) {
        let Some(number) = self.actors.0.get(&local(index)).copied() else { return };
        let said = match number {
            0 => report(phase),
            _ => WorkloadReport {
                rollout: Some(newer()),
                attempt: 2,
                digest: Some(ArtifactDigest::of(b"newer")),
                ..report(phase)
            },
        };
        self.benches[number].input(Input::DeviceReported { device: local(index), report: Box::new(said) });
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::StartNewer => self.start_newer(),
            Event::Deliver(number) => self.deliver(number),
            Event::Report(index, phase) => self.report(index, phase),
            Event::Restart(number) => self.of(number).into_iter().for_each(Bench::restart),
            Event::Pause(number) => self.of(number).into_iter().for_each(Bench::pause),
            Event::Resume(number) => self.of(number).into_iter().for_each(Bench::resume),
            Event::Abort(number) => self.of(number).into_iter().for_each(Bench::abort),
            Event::Wait(seconds) => {
                for number in 0..2 {
                    self.of(number).into_iter().for_each(|bench| bench.advance(Duration::from_secs(seconds)));
                }
            }
            Event::Presence(index, offline) => {
                let offline_since = offline.then_some(Wall(1));
                for number in 0..2 {
                    let input = Input::DevicePresence { device: local(index), offline_since };
                    self.of(number).into_iter().for_each(|bench| bench.input(input.clone()));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn of_two_rollouts_of_the_same_devices_the_newer_one_has_them_and_both_end(
        before in prop::collection::vec(event(), 0..20),
        after in prop::collection::vec(event(), 0..30),
        sizes in prop::sample::select(vec![vec![5], vec![1, 4], vec![2, 2, 1]]),
        cap in prop::option::of(1..3_u32),
    ) {
        let mut both = Both::new(&sizes, cap);
        before.iter().for_each(|event| both.happen(event));
        both.start_newer();
        for event in &after {
            both.happen(event);
            let sent = both.benches[0].assigned();
            prop_assert!(sent.is_empty(), "the older one comes back for {:?}", sent);
        }
        // Everybody is there and willing, and nothing stops the newer one any more.
        both.happen(&Event::Resume(1));
        for _ in 0..8 {
            for index in 1..=5 {
                both.happen(&Event::Presence(index, false));
            }
            for number in [0, 1, 0, 1] {
                both.deliver(number);
            }
            for index in 1..=5 {
                both.report(index, Phase::Healthy);
            }
            both.happen(&Event::Wait(600));
        }
        both.happen(&Event::Resume(0));
        let phases = both.benches.each_ref().map(Bench::phase);
        prop_assert!(phases.iter().all(|phase| phase.is_ended()), "{:?}", phases);
        for bench in &both.benches {
            prop_assert_eq!(bench.machine.counts().remaining(), 0, "somebody is left behind");
        }
        for (device, number) in &both.actors.0 {
            let is_healthy = both.benches[*number].machine.devices().any(|(other, progress)| {
                other == *device && progress.status == DeviceStatus::Healthy
            });
            prop_assert!(*number == 1 || is_healthy, "an assignment of the older one is left on {}", device);
        }
    }
}
