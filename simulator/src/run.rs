//! One run: a scenario and a seed, from the fleet's enrolment through its faults to its convergence.
//!
//! A run has two phases. In the first, faults and acts happen while every event is checked. Then all that can be
//! healed is healed, what cannot be healed stays, and the rest of the fleet has a deadline to converge.

mod injector;
mod panics;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fleetd_sync_core::id::{HoldId, RolloutId};
use fleetd_sync_core::time::Monotonic;
use serde::{Deserialize, Serialize};

use crate::checker::{Checker, Checkers, Violation};
use crate::crypto::Crypto;
use crate::engine::EngineKind;
use crate::fault::{Fault, FaultKind, Target};
use crate::fleet::{Fleet, ScenarioError, Wish};
use crate::mark::Marks;
use crate::rehearsal::build::{Ready, build};
use crate::rehearsal::course::{Recorder, Rehearsed};
use crate::scenario::{Act, Scenario};
use crate::swarm;
use crate::watch::Watch;
use crate::world::World;

/// Events between two looks at whether the run goes on.
const EVENTS_BETWEEN_LOOKS: u64 = 4096;
/// Devices that a report names one by one: who has to read more reads none.
pub const LAGGARDS_MAX: usize = 20;
/// Samples of the fleet's state over a run.
const SAMPLES: u32 = 200;

/// What is to be run: the same plan gives the same run, in every process.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// The fleet, the acts, and how long.
    pub scenario: Scenario,
    /// The faults, in order of time.
    pub faults: Vec<Fault>,
    /// What runs the actors. It changes nothing of what happens.
    pub engine: EngineKind,
    /// What becomes of signatures.
    pub crypto: Crypto,
    /// Where to stop, before the end.
    pub until: Option<Duration>,
}

impl RunPlan {
    /// The plan of a seed, whose faults are drawn.
    #[must_use]
    pub fn drawn(scenario: Scenario, seed: u64) -> Self {
        let faults = swarm::draw_of_seed(&scenario, seed);
        Self { seed, scenario, faults, engine: EngineKind::Direct, crypto: Crypto::Real, until: None }
    }
}

/// What is done with a run besides running it. None of it changes what happens.
#[derive(Default)]
pub struct Extras {
    /// Who watches its events.
    pub watch: Watch,
    /// Checkers besides those of every run.
    pub checkers: Vec<Box<dyn Checker>>,
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Virtual time since the fleet enrolled, in milliseconds.
    pub at_ms: u64,
    /// Virtual time until the end of the deadline, in milliseconds.
    pub of_ms: u64,
    /// Events so far.
    pub events: u64,
    /// Devices in the fleet.
    pub devices: usize,
    /// Devices whose workload is healthy.
    pub converged: usize,
    /// Faults that have begun.
    pub faults: usize,
    /// Marks that were reached.
    pub marks: usize,
}

/// The fleet's state at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Virtual time since the fleet enrolled, in seconds.
    pub at_s: u64,
    /// Devices whose report says that their workload is healthy, be it on the release before, by site.
    pub healthy: Vec<usize>,
    /// Those of them that run the newest release, by site.
    pub updated: Vec<usize>,
    /// Devices that are linked to the server, by site.
    pub linked: Vec<usize>,
    /// Frames sent so far.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Its scenario's name.
    pub scenario: String,
    /// Events that happened.
    pub events: u64,
    /// The hash over all of them.
    pub trace: String,
    /// The hash after each [`CHECKPOINT_EVENTS`](crate::trace::CHECKPOINT_EVENTS) events.
    pub checkpoints: Vec<String>,
    /// Virtual time, enrolment included, in milliseconds.
    pub virtual_ms: u64,
    /// Devices in the fleet.
    pub devices: usize,
    /// Devices of the healed core that run what they should.
    pub converged: usize,
    /// The devices that do not run what they should, each with the reason, up to [`LAGGARDS_MAX`].
    pub laggards: Vec<(String, String)>,
    /// How long the healed core took, in milliseconds; nothing when it did not.
    pub converged_after_ms: Option<u64>,
    /// The faults that began.
    pub faults: Vec<Fault>,
    /// How often each mark was reached.
    pub marks: BTreeMap<String, u64>,
    /// Which inputs machines were given in the middle of what.
    pub coverage: BTreeSet<String>,
    /// The fleet's state over time.
    pub samples: Vec<Sample>,
    /// How the rollout went, if it was a rehearsal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsed: Option<Rehearsed>,
    /// Why the run failed, if it did.
    pub violation: Option<Failure>,
    /// Whether somebody stopped it before its end.
    pub is_partial: bool,
}

/// The first thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Virtual time since the fleet enrolled, in milliseconds.
    pub at_ms: u64,
    /// Events until then.
    pub event: u64,
    /// What.
    #[serde(flatten)]
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = humantime::format_duration(Duration::from_millis(self.at_ms));
        write!(f, "{} (at {at}, event {})", self.violation, self.event)
    }
}

/// What a run's timetable says.
#[derive(Clone, Debug)]
enum Entry {
    Act(usize),
    Begin(usize),
    End(usize),
    /// A link that flaps is cut, or whole.
    Flap(usize, bool),
    /// An image of a disk is taken that a later fault puts back.
    Image(usize),
    /// A rollout is planned that an act starts later.
    Plan(usize),
    /// A device is switched on for the first time.
    Join(usize),
    /// Somebody stops the fleet in which a rollout is rehearsed.
    Stop,
    /// Somebody approves a wave of the rollout that is rehearsed.
    Approve(RolloutId, u32),
    Sample,
}

struct Run {
    plan: RunPlan,
    fleet: Fleet,
    begin: Monotonic,
    timetable: BTreeMap<(Monotonic, u64), Entry>,
    entries: u64,
    checkers: Checkers,
    marks: Marks,
    begun: Vec<Fault>,
    /// The faults that last now.
    lasting: BTreeSet<usize>,
    is_healed: bool,
    samples: Vec<Sample>,
    recorder: Option<Recorder>,
    rehearsed: Option<Rehearsed>,
}

/// Why a run goes on no further.
enum Stop {
    Broken(Violation),
    Asked,
    Setup(ScenarioError),
}

impl From<ScenarioError> for Stop {
    fn from(error: ScenarioError) -> Self {
        Self::Setup(error)
    }
}

/// Runs a plan to its end. `look` sees how far it is now and then, and may stop it.
///
/// # Errors
/// [`ScenarioError`] when the fleet cannot be set up, or an act is refused that no fault explains.
pub fn run(plan: RunPlan, look: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<Outcome, ScenarioError> {
    run_with(plan, Extras::default(), look)
}

/// As [`run`], and somebody watches, or checks more.
///
/// # Errors
/// Those of [`run`].
pub fn run_with(
    plan: RunPlan,
    extras: Extras,
    look: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Outcome, ScenarioError> {
    panics::listen();
    plan.crypto.begin();
    let marks = Marks::default();
    let world = World::watched(plan.seed, extras.watch);
    let (fleet, ready) = match &plan.scenario.rehearsal {
        Some(rehearsal) => {
            let (fleet, ready) = build(&plan.scenario, rehearsal, plan.engine, world)?;
            (fleet, Some(ready))
        }
        None => (Fleet::of(&plan.scenario, plan.engine, world)?, None),
    };
    fleet.tap.open();
    let begin = fleet.world.monotonic();
    fleet.world.watch().set_enrolled(begin);
    let mut run = Run {
        timetable: BTreeMap::new(),
        entries: 0,
        checkers: Checkers::all(marks.clone()).and(extras.checkers),
        marks,
        begun: Vec::new(),
        lasting: BTreeSet::new(),
        is_healed: false,
        samples: Vec::new(),
        recorder: None,
        rehearsed: None,
        plan,
        fleet,
        begin,
    };
    run.fill_timetable();
    let ended = match ready {
        Some(ready) => run.rehearse(ready, look),
        None => run.both_phases(look),
    };
    run.outcome(ended)
}

impl Run {
    fn fill_timetable(&mut self) {
        let scenario = self.plan.scenario.clone();
        for (index, act) in scenario.acts.iter().enumerate() {
            self.enter(act.at, Entry::Act(index));
            if let Some(ahead) = act.planned_ahead {
                self.enter(act.at.saturating_sub(ahead), Entry::Plan(index));
            }
        }
        for index in 0..self.plan.faults.len() {
            let Some(fault) = self.plan.faults.get(index).cloned() else { continue };
            self.enter(fault.at, Entry::Begin(index));
            if fault.kind == FaultKind::StoreOldImage {
                let before = Duration::from_secs(fault.value.saturating_mul(60));
                self.enter(fault.at.saturating_sub(before), Entry::Image(index));
            }
        }
        let duration_ms = milliseconds(scenario.duration).max(1);
        for number in scenario.devices.saturating_sub(scenario.late_devices)..scenario.devices {
            let joins_ms = self.fleet.world.entropy(&format!("device-{number} joins")).below(duration_ms);
            self.enter(Duration::from_millis(joins_ms), Entry::Join(usize::try_from(number).unwrap_or(usize::MAX)));
        }
        let step = (scenario.duration + scenario.deadline) / SAMPLES;
        for index in 0..=SAMPLES {
            self.enter(step * index, Entry::Sample);
        }
    }

    fn enter(&mut self, at: Duration, entry: Entry) {
        self.timetable.insert((self.begin + at, self.entries), entry);
        self.entries += 1;
    }

    fn at(&self) -> Duration {
        self.fleet.world.monotonic().since(self.begin)
    }

    fn both_phases(&mut self, look: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<Duration, Stop> {
        self.checkers.begin(&self.fleet).map_err(Stop::Broken)?;
        let duration = self.plan.scenario.duration;
        self.advance(duration, look, |_| false)?;
        self.heal()?;
        let healed = self.at();
        let has_converged = self.advance(duration + self.plan.scenario.deadline, look, Self::is_converged)?;
        if !has_converged && !self.is_converged() {
            return Err(Stop::Broken(self.not_converged()));
        }
        let took = self.at().saturating_sub(healed);
        self.checkers.conclude(&self.fleet).map_err(Stop::Broken)?;
        Ok(took)
    }

    /// Carries a plan out until nothing more comes of it; then all who are away are let back, and have to follow.
    fn rehearse(&mut self, ready: Ready, look: &mut dyn FnMut(&Progress) -> ControlFlow<()>) -> Result<Duration, Stop> {
        let duration = self.plan.scenario.duration;
        // The start lets events happen: what the copy was before them is read now.
        self.checkers.begin(&self.fleet).map_err(Stop::Broken)?;
        self.recorder = Some(ready.start(&self.fleet, self.begin)?);
        if let Some(after) = self.plan.scenario.rehearsal.as_ref().and_then(|rehearsal| rehearsal.stop_after) {
            self.enter(after, Entry::Stop);
        }
        let away = self.away_at(duration);
        let ended = self.advance(duration, look, |run| {
            let is_gone = |device| away.get(&device).is_some_and(|from| *from <= run.at());
            run.recorder.as_ref().is_some_and(|recorder| recorder.is_over(is_gone))
        });
        let at = self.fleet.world.monotonic();
        self.rehearsed = self.recorder.as_ref().map(|recorder| recorder.written(at));
        ended?;
        // Who has not gone yet need not go any more.
        self.timetable.retain(|_, entry| !matches!(entry, Entry::Begin(_) | Entry::Stop));
        self.heal()?;
        let healed = self.at();
        let all_ended = |run: &Self| run.recorder.as_ref().is_none_or(Recorder::all_ended);
        self.advance(healed + self.plan.scenario.deadline, look, all_ended)?;
        if let Some((device, end)) = self.recorder.as_ref().and_then(Recorder::first_open) {
            let seen = format!("the fleet is linked again, and a device did not follow: it is {end:?}");
            let node = Target::Device(device).to_string();
            return Err(Stop::Broken(Violation { invariant: 0, checker: "liveness".to_owned(), node, seen }));
        }
        Ok(self.at().saturating_sub(healed))
    }

    /// The devices that a fault keeps away at a time, and since when.
    fn away_at(&self, at: Duration) -> BTreeMap<usize, Duration> {
        let lasting = self.plan.faults.iter().filter(|fault| fault.at <= at && fault.at + fault.lasting > at);
        lasting
            .filter_map(|fault| if let Target::Device(device) = fault.on { Some((device, fault.at)) } else { None })
            .collect()
    }

    /// Lets everything happen until `end`, or until `done` holds; says whether that was seen to hold.
    fn advance(
        &mut self,
        end: Duration,
        look: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
        done: impl Fn(&Self) -> bool,
    ) -> Result<bool, Stop> {
        let (end, mut events) = (self.begin + end, 0_u64);
        let until = self.plan.until.map(|until| self.begin + until);
        loop {
            if until.is_some_and(|until| self.fleet.world.monotonic() >= until) {
                return Err(Stop::Asked);
            }
            if events.is_multiple_of(EVENTS_BETWEEN_LOOKS) && look(&self.progress()).is_break() {
                return Err(Stop::Asked);
            }
            events += 1;
            let entry_at = self.timetable.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            let event_at = self.fleet.world.next_at().filter(|at| *at <= end);
            match (entry_at, event_at) {
                (Some(entry), event) if event.is_none_or(|event| entry <= event) => {
                    self.fleet.world.stand_at(entry);
                    if let Some((_, entry)) = self.timetable.pop_first() {
                        self.take(entry)?;
                    }
                    if done(self) {
                        return Ok(true);
                    }
                }
                (_, Some(_)) => self.step()?,
                (_, None) => {
                    self.fleet.world.stand_at(end);
                    return Ok(false);
                }
            }
        }
    }

    /// Lets one event happen, and shows the checkers what came of it.
    fn step(&mut self) -> Result<(), Stop> {
        let world = self.fleet.world.clone();
        let step = catch_unwind(AssertUnwindSafe(|| world.step()));
        // An engine with a supervisor catches a panic itself, and starts the actor again: here it ends the run.
        if let Some(text) = panics::take() {
            return Err(Stop::Broken(broken_assertion(text)));
        }
        step.map_err(|_| Stop::Broken(broken_assertion("a panic without a text".to_owned())))?;
        self.fleet.settle()?;
        let seen = self.fleet.tap.drain();
        if let Some(recorder) = &mut self.recorder {
            recorder.observe(world.monotonic(), &seen, self.fleet.network.traffic().1);
            if let Some((rollout, wave)) = recorder.take_awaiting() {
                let after = self.plan.scenario.rehearsal.as_ref().map_or(Duration::ZERO, |all| all.approve_after);
                self.enter(self.at() + after, Entry::Approve(rollout, wave));
            }
        }
        self.checkers.observe(&self.fleet, &seen).map_err(Stop::Broken)
    }

    fn take(&mut self, entry: Entry) -> Result<(), Stop> {
        match entry {
            Entry::Act(index) => {
                let Some(act) = self.plan.scenario.acts.get(index).cloned() else { return Ok(()) };
                self.remark(None, &format!("an operator rolls out {} ({:?})", act.release(), act.program));
                self.fleet.want(Wish::RollOut(Box::new(act))).map_err(Stop::from)
            }
            Entry::Begin(index) => {
                let Some(fault) = self.plan.faults.get(index).cloned() else { return Ok(()) };
                self.remark(Some(fault.on), &format!("{} of {} begins", fault.kind, fault.on));
                injector::begin(&mut self.fleet, id_of(index), &fault)?;
                let (now, period) = (self.at(), Duration::from_secs(fault.value));
                if fault.kind == FaultKind::LinkFlaps {
                    self.enter(now + period, Entry::Flap(index, false));
                }
                self.lasting.insert(index);
                self.enter(now + fault.lasting, Entry::End(index));
                self.begun.push(fault);
                Ok(())
            }
            Entry::End(index) => {
                let Some(fault) = self.plan.faults.get(index).cloned() else { return Ok(()) };
                self.remark(Some(fault.on), &format!("{} of {} is over", fault.kind, fault.on));
                self.lasting.remove(&index);
                injector::end(&mut self.fleet, id_of(index), &fault).map_err(Stop::from)
            }
            Entry::Flap(index, is_cut) => {
                let fault = self.plan.faults.get(index).filter(|_| self.lasting.contains(&index)).cloned();
                let Some(fault) = fault else { return Ok(()) };
                injector::flap(&self.fleet, id_of(index), &fault, is_cut);
                self.enter(self.at() + Duration::from_secs(fault.value), Entry::Flap(index, !is_cut));
                Ok(())
            }
            Entry::Image(index) => {
                let Some(fault) = self.plan.faults.get(index) else { return Ok(()) };
                let nodes = injector::nodes(&self.fleet, fault.on);
                self.fleet.take_image(nodes, id_of(index));
                Ok(())
            }
            Entry::Plan(index) => {
                let Some(act) = self.plan.scenario.acts.get(index).cloned() else { return Ok(()) };
                self.remark(None, &format!("an operator plans {}", act.release()));
                self.fleet.plan_ahead(&act).map_err(Stop::from)
            }
            Entry::Join(number) => {
                self.remark(Some(Target::Device(number)), "it is switched on for the first time");
                self.fleet.join(number).map_err(Stop::from)
            }
            Entry::Stop => {
                self.remark(None, "an operator stops the whole fleet");
                let now = self.fleet.world.monotonic();
                self.recorder.iter_mut().for_each(|recorder| recorder.on_stop(now));
                let hold = HoldId::random(&mut self.fleet.world.entropy("rehearsal stop"));
                self.fleet.want(Wish::StopAll { hold }).map_err(Stop::from)
            }
            Entry::Approve(rollout, wave) => {
                self.remark(None, &format!("an operator approves wave {} of {rollout}", wave + 1));
                self.fleet.approve_wave(rollout, wave).map_err(Stop::from)
            }
            // A rehearsal's state is written down as it changes.
            Entry::Sample if self.plan.scenario.rehearsal.is_some() => Ok(()),
            Entry::Sample => {
                let sample = self.fleet.sample(self.at());
                self.samples.push(sample);
                // Whoever came back after a record was lost waits for somebody's word.
                if self.is_healed { self.fleet.approve_recovered().map_err(Stop::from) } else { Ok(()) }
            }
        }
    }

    /// Tells whoever watches a node of what the run itself does to it.
    fn remark(&self, on: Option<Target>, what: &str) {
        let watch = self.fleet.world.watch();
        let Some(node) = watch.node() else { return };
        let is_meant = match on {
            None => true,
            Some(Target::Site(site)) => {
                self.fleet.devices_of_site(site).any(|number| node == format!("device-{number}"))
            }
            Some(single) => node == single.to_string(),
        };
        if is_meant {
            watch.remark(self.fleet.world.trace().0, self.fleet.world.monotonic(), &node, what);
        }
    }

    /// Ends every fault that lasts, so that what can be healed is.
    fn heal(&mut self) -> Result<(), Stop> {
        let ends: Vec<_> = self.timetable.extract_if(.., |_, entry| matches!(entry, Entry::End(_))).collect();
        for (_, entry) in ends {
            self.take(entry)?;
        }
        // Who does not know the date waits for it, and no fleet with windows converges before that: networks bring it.
        let has_windows = |act: &Act| act.strategy.as_ref().is_some_and(|strategy| !strategy.windows.is_empty());
        if self.plan.scenario.acts.iter().any(has_windows) {
            self.fleet.devices.iter().for_each(|device| device.clock.set_right());
        }
        self.is_healed = true;
        Ok(())
    }

    fn is_converged(&self) -> bool {
        self.fleet.first_laggard().is_none()
    }

    fn not_converged(&self) -> Violation {
        let laggards = self.fleet.laggards();
        let (node, seen) = laggards.first().cloned().unwrap_or_default();
        let seen =
            format!("{} of {} devices did not converge; the first: {seen}", laggards.len(), self.fleet.devices.len());
        Violation { invariant: 0, checker: "liveness".to_owned(), node, seen }
    }

    fn progress(&self) -> Progress {
        let scenario = &self.plan.scenario;
        let sampled = || self.samples.last().map_or(0, |sample| sample.healthy.iter().sum());
        let last = self.recorder.as_ref().map_or_else(sampled, Recorder::healthy);
        Progress {
            at_ms: milliseconds(self.at()),
            of_ms: milliseconds(scenario.duration + scenario.deadline),
            events: self.fleet.world.trace().0,
            devices: self.fleet.devices.len(),
            converged: last,
            faults: self.begun.len(),
            marks: self.marks.counts().len(),
        }
    }

    fn outcome(self, ended: Result<Duration, Stop>) -> Result<Outcome, ScenarioError> {
        let (events, hash) = self.fleet.world.trace();
        let (took, broken, is_partial) = match ended {
            Ok(took) => (Some(took), None, false),
            Err(Stop::Broken(violation)) => (None, Some(violation), false),
            Err(Stop::Asked) => (None, None, true),
            Err(Stop::Setup(error)) => return Err(error),
        };
        let at_ms = milliseconds(self.at());
        // Of a fleet that was just seen to have converged, nothing has happened since.
        let is_whole = took.is_some() && self.rehearsed.is_none();
        let mut laggards = if is_whole { Vec::new() } else { self.fleet.laggards() };
        let converged = self.fleet.devices.len() - laggards.len();
        laggards.truncate(LAGGARDS_MAX);
        Ok(Outcome {
            seed: self.plan.seed,
            scenario: self.plan.scenario.name.clone(),
            events,
            trace: format!("{hash:016x}"),
            checkpoints: self.fleet.world.checkpoints().iter().map(|hash| format!("{hash:016x}")).collect(),
            virtual_ms: milliseconds(self.fleet.world.monotonic().since(Monotonic(0))),
            devices: self.fleet.devices.len(),
            converged,
            laggards,
            converged_after_ms: took.map(milliseconds),
            faults: self.begun,
            marks: self.marks.counts().into_iter().map(|(mark, count)| (mark.to_owned(), count)).collect(),
            coverage: self.fleet.world.coverage().pairs(),
            samples: self.samples,
            rehearsed: self.rehearsed,
            violation: broken.map(|violation| Failure { at_ms, event: events, violation }),
            is_partial,
        })
    }
}

/// What a fault calls itself in what it does.
fn id_of(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(u64::MAX)
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn broken_assertion(seen: String) -> Violation {
    Violation { invariant: 0, checker: "assertion".to_owned(), node: String::new(), seen }
}
