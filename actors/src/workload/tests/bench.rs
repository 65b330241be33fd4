//! A device of one workload: its disk, its runner and its server, as far as the machine can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetd_sync_core::configuration::{Configuration, ConfiguredFile, pair_digest};
use fleetd_sync_core::envelope::{Path, Value};
use fleetd_sync_core::id::{EnvelopeHash, RolloutId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::release::{Artifact, EnvironmentValue, Manifest, Probe, SignedManifest};
use fleetd_sync_core::time::ClockFloor;
use fleetd_sync_core::trust::{
    Change, Rank, Revocation, Role, RootChain, RootRecord, Roster, Sites, Statement, deny_path, revoke_path,
};

use super::super::device_queue::DeviceQueue;
use super::super::*;
use crate::flight::Recorded as _;
use crate::report::Exit;

fn key(name: &str) -> SecretKey {
    SecretKey::generate(&mut Entropy::from_seed([7; 32]).stream(name))
}

fn chain() -> RootChain {
    chain_of("ci")
}

/// A chain that lets one key sign coffee. Its fleet is always the same one: its first record delegates nothing.
fn chain_of(signer: &str) -> RootChain {
    let coffee = BTreeSet::from(["coffee".parse().unwrap()]);
    let central = (key("central").public(), Role::Authority { rank: Rank::CENTRAL, sites: Sites::All });
    let root = BTreeSet::from([key("root").public()]);
    let first = RootRecord::draft(root, 1, [central]).unwrap().sign(&key("root"));
    let mut chain = RootChain::found(first.body().fleet, first).unwrap();
    let delegate = Change::Delegate { key: key(signer).public(), role: Role::Release { workloads: coffee } };
    let second = chain.draft_next([delegate]).unwrap().sign(&key("root"));
    chain.extend(second).unwrap();
    chain
}

/// What the root and the trust document say in a test.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trust {
    /// The release key may sign.
    Good,
    /// Another key may sign, and the one that signs never could.
    Other,
    Retired,
    Compromised,
    Stopped,
    Denied(&'static str),
}

pub(super) fn roster(trust: Trust) -> Arc<Roster> {
    let revoke = |revocation: Revocation| (revoke_path(key("ci").id()), revocation.as_str().to_owned());
    let entry = match trust {
        Trust::Good => None,
        Trust::Other => return Arc::new(Roster::new(&chain_of("baker"), [])),
        Trust::Retired => Some(revoke(Revocation::Retired)),
        Trust::Compromised => Some(revoke(Revocation::Compromised)),
        Trust::Stopped => Some(revoke(Revocation::Stopped)),
        Trust::Denied(version) => Some((deny_path(release(version).digest()), "it spills".to_owned())),
    };
    let entry: Option<(Path, Value)> = entry.map(|(path, word)| (path.parse().unwrap(), Value::Text(word)));
    let statement = entry.iter().map(|(path, value)| Statement { lane: key("central").id(), path, value });
    Arc::new(Roster::new(&chain(), statement))
}

pub(super) fn rollout() -> RolloutId {
    RolloutId::from_bytes([1; 10])
}

pub(super) fn release(version: &str) -> SignedManifest {
    release_with(version, &Probe::default())
}

fn release_with(version: &str, probe: &Probe) -> SignedManifest {
    let artifact =
        Artifact { digest: ArtifactDigest::of(version.as_bytes()), size_bytes: 3, file_name: "coffee".to_owned() };
    let manifest = Manifest {
        fleet: chain().fleet(),
        workload: "coffee".parse().unwrap(),
        version: version.parse().unwrap(),
        artifacts: BTreeMap::from([("linux/arm64".parse().unwrap(), artifact)]),
        argv: vec![],
        environment: ["MENU", "ROAST"].map(|name| (name.to_owned(), EnvironmentValue::FromConfig)).into(),
        probe: probe.clone(),
        user: None,
        stop_grace: Duration::from_secs(5),
    };
    manifest.sign(&key("ci")).unwrap()
}

pub(super) fn assignment(version: &str, attempt: u32) -> Assignment {
    assignment_of(&release(version), attempt)
}

/// The configurations that there are. What is odd fills a name that no manifest leaves open.
const CONFIGURATIONS: [&str; 3] = ["roast-1", "roast-2", "odd"];

pub(super) fn configuration(name: &str) -> Arc<Configuration> {
    let value = if name == "odd" { "SUGAR" } else { "ROAST" };
    let values = [(value.to_owned(), name.to_owned())].into();
    let file = ConfiguredFile { digest: ArtifactDigest::of(name.as_bytes()), size_bytes: 5 };
    let files = [("MENU".to_owned(), file)].into();
    let made = Configuration::new("coffee".parse().unwrap(), name.parse().unwrap(), values, files);
    Arc::new(made.unwrap())
}

/// Assigns a release with a configuration.
pub(super) fn assignment_with(version: &str, name: &str, attempt: u32) -> Assignment {
    let plain = assignment(version, attempt);
    let target = plain.target.clone().map(|target| Target { configuration: Some(configuration(name)), ..target });
    Assignment { target, ..plain }
}

/// What a slot is called in the stories: `1.0`, or `1.0+roast-1`.
pub(super) fn label(slot: &Slot) -> String {
    let is_it = |name: &&str| Some(configuration(name).digest()) == slot.configuration;
    match CONFIGURATIONS.into_iter().find(is_it) {
        Some(name) => format!("{}+{name}", slot.version),
        None => slot.version.to_string(),
    }
}

fn assignment_of(signed: &SignedManifest, attempt: u32) -> Assignment {
    let target = Target {
        version: signed.claims().version.clone(),
        manifest: signed.digest(),
        configuration: None,
        rollout: Some(rollout()),
        attempt,
    };
    let desired_head = Some(EnvelopeHash::from_bytes([u8::try_from(attempt).unwrap(); 16]));
    Assignment { target: Some(target), desired_head, ..Assignment::default() }
}

/// What the runner has.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) run: OperationId,
    pub(super) version: String,
    pub(super) ready: bool,
}

pub(super) struct Bench {
    pub(super) machine: Workload,
    pub(super) now: Now,
    pub(super) disk: WorkloadRecord,
    pub(super) process: Option<Process>,
    /// Slots that lie in the workload's folder, by version.
    pub(super) staged: BTreeSet<String>,
    pub(super) current: Option<String>,
    /// What the driver has started and not answered yet.
    pub(super) pending: Vec<Effect>,
    releases: BTreeMap<ArtifactDigest, Vec<u8>>,
    versions: BTreeMap<ArtifactDigest, String>,
    trust: Arc<Roster>,
    report: Option<WorkloadReport>,
    story: String,
    loads: u32,
    platform: Platform,
    /// Whether the workload's lock is there.
    pub(super) is_locked: bool,
    /// The workloads of the device that switch, or want to.
    pub(super) queue: DeviceQueue,
    pub(super) clock_floor: ClockFloor,
    /// Turns before which the machine's state could be told.
    pub(super) snapshots: u32,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::on_platform("linux/arm64")
    }

    pub(super) fn on_platform(platform: &str) -> Self {
        let platform: Platform = platform.parse().unwrap();
        let record = WorkloadRecord::default();
        let mut bench = Self {
            machine: load(&platform, &record, 0),
            now: Now { monotonic: Monotonic(1), ..Now::default() },
            disk: record,
            process: None,
            staged: BTreeSet::new(),
            current: None,
            pending: vec![],
            releases: BTreeMap::new(),
            versions: BTreeMap::new(),
            trust: roster(Trust::Good),
            report: None,
            story: String::new(),
            loads: 0,
            platform,
            is_locked: false,
            queue: DeviceQueue::default(),
            clock_floor: ClockFloor::default(),
            snapshots: 0,
        };
        for version in ["1.0", "2.0", "3.0", "4.0"] {
            bench.publish(&release(version));
        }
        bench.wake();
        bench.hear_trust();
        bench
    }

    /// A device on which a release has proven itself.
    pub(super) fn with(version: &str) -> Self {
        let mut bench = Self::new();
        bench.assign(assignment(version, 1));
        bench.run_all();
        bench.advance(Duration::from_secs(10));
        assert_eq!(bench.report().phase, Some(Phase::Healthy), "{}", bench.story);
        bench
    }

    fn publish(&mut self, signed: &SignedManifest) {
        self.releases.insert(signed.digest(), signed.encode());
        let version = &signed.claims().version;
        self.versions.insert(signed.digest(), version.to_string());
        for name in CONFIGURATIONS {
            let pair = pair_digest(signed.digest(), Some(configuration(name).digest()));
            self.versions.insert(pair, format!("{version}+{name}"));
        }
    }

    /// Assigns a release that is judged by another probe than the usual one.
    pub(super) fn assign_with(&mut self, version: &str, probe: &Probe) {
        let signed = release_with(version, probe);
        self.publish(&signed);
        self.assign(assignment_of(&signed, 1));
    }

    pub(super) fn tamper(&mut self, version: &str) {
        *self.releases.get_mut(&release(version).digest()).unwrap().last_mut().unwrap() ^= 1;
    }

    fn wake(&mut self) {
        self.step(|machine, now, turn| machine.handle_timeout(now, turn));
    }

    pub(super) fn input(&mut self, input: Input) {
        self.step(|machine, now, turn| machine.handle(now, input.clone(), turn));
    }

    /// Steps the machine, and one that was taken up in its state: they are the same machine.
    fn step(&mut self, step: impl Fn(&mut Workload, Now, &mut WorkloadTurn)) {
        let mut twin = self.machine.snapshot().map(Workload::restore);
        let mut turn = Turn::new();
        step(&mut self.machine, self.now, &mut turn);
        if let Some(twin) = &mut twin {
            let mut same = Turn::new();
            step(twin, self.now, &mut same);
            assert_eq!(same, turn);
            assert_eq!(format!("{twin:?}"), format!("{:?}", self.machine));
            self.snapshots += 1;
        }
        self.carry_out(turn);
    }

    pub(super) fn assign(&mut self, assignment: Assignment) {
        self.input(Input::Assigned(assignment));
    }

    pub(super) fn trust(&mut self, trust: Trust) {
        self.trust = roster(trust);
        self.hear_trust();
    }

    pub(super) fn hear_trust(&mut self) {
        self.input(Input::Trust(Arc::clone(&self.trust)));
    }

    pub(super) fn command(&mut self, command: Command) {
        self.input(Input::Command { operation: OperationId::from_bytes([3; 8]), command });
    }

    fn carry_out(&mut self, turn: Turn<WorkloadRecord, Effect>) {
        let (records, effects) = turn.into_parts();
        assert!(records.len() <= 1, "a turn writes its record once");
        if let Some(record) = records.into_iter().last() {
            self.disk = record;
        }
        for effect in effects {
            self.start(effect);
        }
    }

    fn start(&mut self, effect: Effect) {
        match effect {
            Effect::Report(report) => {
                self.tell(&format!("report: {}", self.describe(&report)));
                self.report = Some(report);
            }
            Effect::Show(_) | Effect::Done { .. } => {}
            effect @ (Effect::Look { .. } | Effect::Queue { .. }) => self.pending.push(effect),
            Effect::LeaveQueue => self.queue.leave(&"coffee".parse().unwrap()),
            Effect::Cancel { operation } => {
                self.tell("cancel");
                self.pending.retain(|pending| operation_of(pending) != Some(operation));
            }
            Effect::Collect { keep } => {
                let mut keep: Vec<_> = keep.iter().map(label).collect();
                self.tell(&format!("collect all but {}", keep.join(", ")));
                keep.extend(self.current.clone());
                self.staged.retain(|version| keep.contains(version));
            }
            Effect::Stop { .. } => {
                self.tell("stop");
                assert!(self.process.is_some(), "nothing is there to be stopped");
                self.pending.push(effect);
            }
            Effect::Start { operation, ref program } => {
                let version = label(&program.slot);
                let of_program = program.configuration.as_ref().map(|configuration| configuration.digest());
                assert_eq!(of_program, program.slot.configuration, "a program is given what lies with it");
                self.tell(&format!("start {version}"));
                assert!(self.process.is_none(), "a second run of coffee");
                assert!(self.staged.contains(&version), "{version} is not in the folder");
                assert_eq!(self.current.as_ref(), Some(&version), "what is not current is started");
                self.process = Some(Process { run: operation, version, ready: false });
                self.pending.push(effect);
            }
            effect => {
                self.tell(&self.words(&effect));
                self.pending.push(effect);
            }
        }
    }

    fn words(&self, effect: &Effect) -> String {
        match effect {
            Effect::Fetch { digest, wanted: Wanted::Manifest, .. } => {
                format!("fetch manifest {}", self.versions.get(digest).unwrap())
            }
            Effect::Fetch { wanted: Wanted::Artifact { size_bytes }, digest, .. } => {
                let files = CONFIGURATIONS.map(str::to_owned);
                let mut known = self.versions.values().chain(&files);
                let version = known.find(|name| ArtifactDigest::of(name.as_bytes()) == *digest);
                format!("fetch artifact {}, {size_bytes} bytes", version.unwrap())
            }
            Effect::Stage { release, .. } => format!("stage {}", label(&release.slot())),
            Effect::Switch { to, .. } => format!("switch to {}", label(to)),
            Effect::Attach { .. } => "attach".to_owned(),
            Effect::Probe { .. } => "probe".to_owned(),
            Effect::Remove { .. } => "remove".to_owned(),
            other => format!("{other:?}"),
        }
    }

    /// What the driver, the disk and the runner make of something that was started.
    pub(super) fn answer(&mut self, index: usize) {
        let input = match self.pending.remove(index) {
            Effect::Fetch { operation, digest, wanted: Wanted::Manifest } => {
                let bytes = self.releases.get(&digest).unwrap().clone();
                Input::Fetched { operation, result: Ok(Fetched::Manifest(bytes)) }
            }
            Effect::Fetch { operation, .. } => Input::Fetched { operation, result: Ok(Fetched::Artifact) },
            Effect::Stage { operation, release } => {
                self.staged.insert(label(&release.slot()));
                Input::Staged { operation, result: Ok(()) }
            }
            Effect::Look { operation } => {
                Input::Looked { operation, look: Look { is_locked: self.is_locked, clock_floor: self.clock_floor } }
            }
            Effect::Queue { operation, priority } => {
                Input::Queued { operation, ahead: self.queue.ask(&"coffee".parse().unwrap(), priority) }
            }
            Effect::Switch { operation, to } => Input::Switched { operation, result: self.switch(&to) },
            Effect::Remove { operation } => {
                self.staged.clear();
                self.current = None;
                Input::Removed { operation, result: Ok(()) }
            }
            Effect::Start { operation, .. } => Input::Run { run: operation, event: RunEvent::Started { pid: 77 } },
            Effect::Stop { .. } => match self.process.take() {
                Some(process) => Input::Run { run: process.run, event: RunEvent::Exited(Exit::Signal(15)) },
                None => return,
            },
            Effect::Attach { operation } => {
                let found = match &self.process {
                    Some(process) => Found::Running { run: process.run, pid: 77, ready: process.ready },
                    None => Found::Gone,
                };
                self.tell(if found == Found::Gone { "attached: gone" } else { "attached: running" });
                Input::Attached { operation, found }
            }
            effect @ Effect::Probe { .. } => return self.pending.push(effect),
            other => unreachable!("{other:?} has no answer"),
        };
        self.input(input);
    }

    fn switch(&mut self, to: &Slot) -> Result<(), SwitchError> {
        let version = label(to);
        if !self.staged.contains(&version) {
            return Err(SwitchError::NotStaged { cause: "no folder".to_owned() });
        }
        self.current = Some(version);
        Ok(())
    }

    fn next_answer(&self) -> Option<usize> {
        self.pending.iter().position(|effect| !matches!(effect, Effect::Probe { .. }))
    }

    pub(super) fn run_all(&mut self) {
        for _ in 0..100 {
            let Some(next) = self.next_answer() else { return };
            self.answer(next);
        }
        panic!("it goes round in circles:\n{}", self.story);
    }

    /// Answers until something is started that begins with these words, and leaves that unanswered.
    pub(super) fn run_until(&mut self, words: &str) {
        for _ in 0..100 {
            if self.pending.iter().any(|effect| self.words(effect).starts_with(words)) {
                return;
            }
            let next = self.next_answer().unwrap();
            self.answer(next);
        }
        panic!("{words:?} never came:\n{}", self.story);
    }

    pub(super) fn fetch_fails(&mut self, error: FetchError) {
        let index = self.pending.iter().position(|effect| matches!(effect, Effect::Fetch { .. })).unwrap();
        let operation = operation_of(&self.pending.remove(index)).unwrap();
        self.input(Input::Fetched { operation, result: Err(error) });
    }

    pub(super) fn advance(&mut self, span: Duration) {
        self.now.monotonic = self.now.monotonic + span;
        if self.machine.poll_timeout().is_some_and(|at| at <= self.now.monotonic) {
            self.wake();
        }
    }

    pub(super) fn wait_for_start(&mut self) -> Duration {
        let from = self.now.monotonic;
        let at = self.machine.poll_timeout().expect("it waits for its next start");
        self.advance(at.since(from));
        self.run_all();
        assert!(self.process.is_some(), "it was started");
        at.since(from)
    }

    pub(super) fn exit(&mut self, exit: Exit) {
        let process = self.process.take().expect("something runs");
        self.pending.retain(|effect| !matches!(effect, Effect::Stop { .. }));
        self.input(Input::Run { run: process.run, event: RunEvent::Exited(exit) });
    }

    pub(super) fn ready(&mut self) {
        let process = self.process.as_mut().expect("something runs");
        process.ready = true;
        let run = process.run;
        self.input(Input::Run { run, event: RunEvent::Ready });
    }

    pub(super) fn probed(&mut self, good: bool) {
        let index = self.pending.iter().position(|effect| matches!(effect, Effect::Probe { .. })).expect("a probe");
        let operation = operation_of(&self.pending.remove(index)).unwrap();
        let outcome = if good { Ok(()) } else { Err("refused".to_owned()) };
        self.input(Input::Probed { operation, outcome });
    }

    /// The agent is killed and started again: what runs goes on, what was under way is forgotten.
    pub(super) fn kill_agent(&mut self) {
        self.kill_agent_before_trust();
        self.hear_trust();
    }

    pub(super) fn kill_agent_before_trust(&mut self) {
        self.loads += 1;
        self.pending.clear();
        self.report = None;
        let is_at_work = self.disk.install.as_ref().is_some_and(|install| !install.step.is_reversible());
        self.queue.take_up(&"coffee".parse().unwrap(), is_at_work);
        self.machine = load(&self.platform, &self.disk, self.loads);
        self.wake();
    }

    pub(super) fn reboot(&mut self) {
        self.process = None;
        self.kill_agent_before_trust();
    }

    /// The store is lost: what is left is the folder, and what is kept outside the store.
    pub(super) fn lose_record(&mut self) {
        let loaded = |label: &String| {
            let (version, with) = label.split_once('+').map_or((label.as_str(), None), |(v, name)| (v, Some(name)));
            let artifact = ArtifactDigest::of(version.as_bytes());
            Release::load(&release(version).encode(), artifact, with.map(configuration)).unwrap()
        };
        let current = self.current.as_ref().map(loaded);
        // The folder's link to the previous release names whatever was current before the last switch.
        let previous = self.staged.iter().find(|version| Some(*version) != self.current.as_ref()).map(loaded);
        self.disk = WorkloadRecord::recovered(current, previous, self.disk.floor());
        self.kill_agent();
    }

    pub(super) fn report(&self) -> WorkloadReport {
        self.machine.report()
    }

    pub(super) fn told(&self) -> Option<&WorkloadReport> {
        self.report.as_ref()
    }

    pub(super) fn running(&self) -> Option<String> {
        self.process.as_ref().map(|process| process.version.clone())
    }

    fn tell(&mut self, line: &str) {
        self.story.push_str(line);
        self.story.push('\n');
    }

    pub(super) fn story(&self) -> String {
        self.story.clone()
    }

    pub(super) fn forget_story(&mut self) {
        self.story.clear();
    }

    fn describe(&self, report: &WorkloadReport) -> String {
        let mut words = report.phase.map_or("nothing", Phase::as_str).to_owned();
        if let Some(digest) = report.digest {
            words += &format!(" {}/{}", self.versions.get(&digest).unwrap(), report.attempt);
        }
        if let Some(error) = &report.error {
            words += &format!(" ({error})");
        }
        for (name, value) in [
            ("runs ", report.release.as_ref().map(ToString::to_string)),
            ("with ", report.configuration.as_ref().map(|configuration| configuration.name.to_string())),
            ("", report.run.map(|run| run.to_string())),
            ("before it ", report.previous.as_ref().map(ToString::to_string)),
            ("exit ", report.exit.map(|exit| exit.to_string())),
        ] {
            if let Some(value) = value {
                words += &format!(", {name}{value}");
            }
        }
        words
    }
}

fn load(platform: &Platform, record: &WorkloadRecord, loads: u32) -> Workload {
    let entropy = Entropy::from_seed([5; 32]).stream(&loads.to_string());
    Workload::new("coffee".parse().unwrap(), platform.clone(), record.clone(), entropy)
}

pub(super) fn operation_of(effect: &Effect) -> Option<OperationId> {
    match effect {
        Effect::Fetch { operation, .. }
        | Effect::Cancel { operation }
        | Effect::Stage { operation, .. }
        | Effect::Look { operation }
        | Effect::Queue { operation, .. }
        | Effect::Switch { operation, .. }
        | Effect::Start { operation, .. }
        | Effect::Attach { operation }
        | Effect::Probe { operation, .. }
        | Effect::Remove { operation }
        | Effect::Done { operation } => Some(*operation),
        Effect::Stop { .. } | Effect::Report(_) | Effect::Show(_) | Effect::Collect { .. } | Effect::LeaveQueue => None,
    }
}
