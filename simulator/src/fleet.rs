//! A fleet in the world: a server's node and its devices' nodes, wired by the product itself on simulated seams.

mod engines;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetd_actors::device;
use fleetd_actors::device::command::Command;
use fleetd_actors::device::record::DeviceRecord;
use fleetd_actors::registration::Input as RegistrationInput;
use fleetd_actors::registration::token::{Answer, Command as RegistrationCommand, TokenWish};
use fleetd_actors::rollout::plan::{DeviceRow, Plan, PlannedRelease, Targets, plan};
use fleetd_actors::rollout::status::RolloutHeader;
use fleetd_actors::{authority, report, rollout};
use fleetd_agent::artifact_files::memory::MemoryArtifactFiles;
use fleetd_agent::disk::memory::MemoryDisk;
use fleetd_agent::install::memory::MemoryInstaller;
use fleetd_agent::node as agent_node;
use fleetd_server::artifact_store::ArtifactStore as _;
use fleetd_server::{device_row, node as server_node, record};
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, BootId, KeyId, LocalId, PlanId, RolloutId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::name::{Platform, WorkloadName};
use fleetd_sync_core::release::{Artifact, Manifest, Probe, ProbeCheck, SignedManifest};
use fleetd_sync_core::time::{ClockQuality, Wall};
use fleetd_sync_core::trust::{Change, Revocation, Role};
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::state_store::{KeyRange, StateStore as _};
use fleetd_sync_transport::endpoint::verify_server;
use fleetd_sync_transport::identity::signing_request;

use self::engines::Engines;
pub use self::server::{SERVER, SimulatedServer};
use crate::blocking::NodeBlocking;
use crate::clock::NodeClock;
use crate::engine::{EngineKind, NodeEngine};
use crate::links::Links;
use crate::observation::{Observation, Tap};
use crate::run::Sample;
use crate::runner::{Behaviour, NodeRunner};
use crate::scenario::{Act, Program, Scenario};
use crate::store::NodeStore;
use crate::tapped_link::TappedLink;
use crate::world::World;

/// Where the server listens.
const SERVER_ADDRESS: &str = "server:4443";
/// Time from the world's beginning until anything is expected to have happened.
const PATIENCE: Duration = Duration::from_secs(600);
/// The disk of a device.
const DISK_BYTES: u64 = 64 << 20;
/// Records that are read at once.
const PAGE_RECORDS: usize = 4096;

/// What cannot be set up; a scenario stops with it.
#[derive(Debug, thiserror::Error)]
#[error("the scenario cannot go on: {0}")]
pub struct ScenarioError(String);

impl ScenarioError {
    /// A scenario that stops with these words.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

pub(crate) fn failed(error: impl fmt::Display) -> ScenarioError {
    ScenarioError(error.to_string())
}

/// A fleet in the world.
pub struct Fleet {
    /// The world.
    pub world: World,
    /// Its links.
    pub network: Links,
    /// The server.
    pub server: SimulatedServer,
    /// The devices, in the order in which they were added.
    pub devices: Vec<SimulatedDevice>,
    /// Where all of its seams report to.
    pub tap: Tap,
    engines: Engines,
    sites: usize,
    newest: Option<RolloutId>,
    newest_version: Option<String>,
    programs: BTreeMap<ArtifactDigest, Program>,
    root: SecretKey,
    release_key: SecretKey,
    entropy: Entropy,
}

/// A device that is to be added.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// What its artifacts have to be for.
    pub platform: Platform,
    /// What it says about itself.
    pub facts: BTreeMap<String, String>,
    /// The token that it enrols with.
    pub token: EnrolmentToken,
}

/// A device in the world: its node while it is powered, and what outlives a power cut.
pub struct SimulatedDevice {
    /// What traces call it.
    pub name: String,
    /// Its programs.
    pub runner: NodeRunner,
    /// Its disk.
    pub disk: MemoryDisk,
    /// Its store.
    pub store: Arc<MemoryStore>,
    platform: Platform,
    facts: BTreeMap<String, String>,
    key: SecretKey,
    token: EnrolmentToken,
    running: Option<(agent_node::Node, NodeEngine)>,
    starts: u32,
    boots: u32,
}

impl SimulatedDevice {
    /// The hash of its key.
    #[must_use]
    pub fn local(&self) -> LocalId {
        self.key.id().into()
    }

    /// The platform that its programs are built for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        platform()
    }

    /// Its node, while it runs.
    #[must_use]
    pub fn node(&self) -> Option<&agent_node::Node> {
        self.running.as_ref().map(|(node, _)| node)
    }
}

impl Fleet {
    /// A fleet with a server and no device.
    ///
    /// # Errors
    /// [`ScenarioError`] when the server does not start.
    pub fn new(seed: u64, latency: Duration) -> Result<Self, ScenarioError> {
        Self::on(EngineKind::Direct, World::new(seed), latency)
    }

    /// A fleet with a server and no device, on an engine, in a world where nothing has happened yet.
    ///
    /// # Errors
    /// [`ScenarioError`] when the server does not start.
    pub fn on(engine: EngineKind, world: World, latency: Duration) -> Result<Self, ScenarioError> {
        let engines = Engines::new(engine, &world)?;
        let network = engines.links(latency);
        let mut entropy = world.entropy("fleet");
        let [root, release_key] = std::array::from_fn(|_| SecretKey::generate(&mut entropy));
        let tap = Tap::default();
        let mut server = SimulatedServer::new(&root, &mut entropy)?;
        server.start(&world, &network, &engines, &tap)?;
        let mut fleet = Self {
            world,
            network,
            server,
            devices: Vec::new(),
            tap,
            engines,
            sites: 1,
            newest: None,
            newest_version: None,
            programs: BTreeMap::new(),
            root,
            release_key,
            entropy,
        };
        fleet.delegate_release_key(coffee())?;
        Ok(fleet)
    }

    /// The fleet of a scenario, every device of it enrolled.
    ///
    /// # Errors
    /// [`ScenarioError`] when a node does not start, or a device does not enrol.
    pub fn of(scenario: &Scenario, engine: EngineKind, world: World) -> Result<Self, ScenarioError> {
        let mut fleet = Self::on(engine, world, Duration::ZERO)?;
        fleet.sites = usize::try_from(scenario.sites).unwrap_or(1);
        let [from, to] = scenario.latency_ms;
        for number in 0..scenario.devices {
            let mut entropy = fleet.world.entropy(&format!("latency of device-{number}"));
            let latency = Duration::from_millis(from + entropy.below(to - from + 1));
            fleet.network.set_latency(&format!("device-{number}"), latency);
            let added = fleet.add_device()?;
            if let Some(device) = fleet.devices.get(added) {
                device.runner.write_lines(scenario.lines_per_hour);
            }
        }
        fleet.wait_until_enrolled()?;
        Ok(fleet)
    }

    /// Runs the world until every device has enrolled.
    ///
    /// # Errors
    /// [`ScenarioError`] when one does not in time.
    pub fn wait_until_enrolled(&self) -> Result<Duration, ScenarioError> {
        // Who has enrolled stays enrolled: none is looked at twice, or each event would cost as much as the fleet.
        let mut enrolled = 0;
        self.wait_until("every device to enrol", move |fleet| {
            let has_enrolled =
                |device: &SimulatedDevice| device.node().is_some_and(|node| node.status().agent.device.is_some());
            enrolled += fleet.devices.iter().skip(enrolled).take_while(|device| has_enrolled(device)).count();
            enrolled == fleet.devices.len()
        })
    }

    /// The server's node.
    ///
    /// # Errors
    /// [`ScenarioError`] while the server is down.
    pub(crate) fn serving(&self) -> Result<server_node::Node, ScenarioError> {
        self.server.node().cloned().ok_or_else(|| failed("the server is down"))
    }

    /// Root lets the release key sign a workload's releases, as `fleetd trust delegate` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the authority refuses.
    pub fn delegate_release_key(&mut self, workload: WorkloadName) -> Result<(), ScenarioError> {
        let chain = self.serving()?.shared.trust().chain.clone();
        let workloads = BTreeSet::from([workload]);
        let change = Change::Delegate { key: self.release_key.public(), role: Role::Release { workloads } };
        let record = Box::new(chain.draft_next([change]).map_err(failed)?.sign(&self.root));
        let server = self.serving()?;
        self.ask("the authority", move |reply| {
            let operation = server.shared.authority_answers.open(Box::new(reply));
            server.actors.authority.send(authority::Input::AddRootRecord { operation, record });
        })?
        .map_err(failed)
    }

    /// Adds a device with a token of its own, and powers it on.
    ///
    /// # Errors
    /// [`ScenarioError`] when there is no token for it, or it does not start.
    pub fn add_device(&mut self) -> Result<usize, ScenarioError> {
        let wish = TokenWish {
            note: String::new(),
            labels: BTreeMap::new(),
            site: String::new(),
            uses_max: 1,
            expires_at: None,
            needs_approval: Some(false),
        };
        let facts = BTreeMap::from([("platform".to_owned(), platform().to_string())]);
        let token = self.create_token(wish)?;
        self.add(NewDevice { platform: platform(), facts, token })
    }

    /// Adds a device, and powers it on.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub fn add(&mut self, NewDevice { platform, facts, token }: NewDevice) -> Result<usize, ScenarioError> {
        let number = self.devices.len();
        let name = format!("device-{number}");
        let mut entropy = self.world.entropy(&name);
        self.devices.push(SimulatedDevice {
            runner: NodeRunner::new(&name, self.world.clone(), self.tap.clone()),
            disk: MemoryDisk::new(DISK_BYTES),
            store: Arc::new(MemoryStore::manual()),
            platform,
            facts,
            key: SecretKey::generate(&mut entropy),
            token,
            running: None,
            starts: 0,
            boots: 0,
            name,
        });
        self.power_on(number)?;
        Ok(number)
    }

    /// Starts a device's agent; after a power cut that is a new boot.
    ///
    /// # Errors
    /// [`ScenarioError`] when the node does not start.
    pub fn power_on(&mut self, number: usize) -> Result<(), ScenarioError> {
        let (world, network) = (self.world.clone(), self.network.clone());
        let device = self.devices.get_mut(number).ok_or_else(|| failed("there is no such device"))?;
        if device.running.is_some() {
            return Ok(());
        }
        device.starts += 1;
        let entropy = world.entropy(&device.name).stream(&format!("start {}", device.starts));
        let boot = BootId::random(&mut world.entropy(&device.name).stream(&format!("boot {}", device.boots)));
        let clock = Arc::new(NodeClock::new(world.clone(), Wall(0), ClockQuality::None));
        let store = Arc::new(NodeStore::new(&device.name, world.clone(), Arc::clone(&device.store), self.tap.clone()));
        let engine =
            self.engines.engine(&device.name, Arc::<NodeClock>::clone(&clock), Arc::<NodeStore>::clone(&store))?;
        let seams = agent_node::Seams {
            clock,
            store,
            link: TappedLink::new(&device.name, network.link(&device.name), self.tap.clone()),
            runner: Arc::new(device.runner.clone()),
            installer: Arc::new(MemoryInstaller::on(&device.disk)),
            files: Arc::new(MemoryArtifactFiles::on(&device.disk)),
            blocking: Arc::new(NodeBlocking::new(&device.name, world.clone())),
            entropy,
        };
        let options = agent_node::NodeOptions {
            identity: agent_node::DeviceIdentity {
                key: device.key.clone(),
                csr: signing_request(&device.key).map_err(failed)?,
                sealing_key: [0; 32],
                verify: verify_server,
            },
            boot,
            platform: device.platform.clone(),
            facts: device.facts.clone(),
            token: Some(device.token.clone()),
            addresses: Vec::new(),
            spool_bytes_max: fleetd_sync_core::limit::SPOOL_BYTES_MAX,
            environments: BTreeMap::new(),
        };
        let node = agent_node::Node::start(engine.clone(), seams, options).map_err(failed)?;
        device.running = Some((node, engine));
        Ok(())
    }

    /// Cuts a device's power: its processes, its connections, and what its store and disk had not made durable.
    pub fn power_off(&mut self, number: usize) {
        let mut entropy = self.entropy.stream(&format!("power {number} {:?}", self.world.monotonic()));
        let Some(device) = self.devices.get_mut(number) else { return };
        if let Some((node, engine)) = device.running.take() {
            engine.kill();
            drop(node);
        }
        self.network.kill(&device.name);
        device.runner.reboot();
        device.disk.cut_power(&mut entropy);
        device.store.crash(&mut entropy);
        if let Ok(store) = device.store.reopen() {
            device.store = Arc::new(store);
        }
        device.boots += 1;
        let node: Arc<str> = device.name.as_str().into();
        self.tap.note(|| Observation::Died { node });
    }

    /// Cuts the power of a node.
    pub fn cut_power(&mut self, node: &str) {
        match device_number(node) {
            Some(number) => self.power_off(number),
            None => self.end_server(|store, entropy| store.crash(entropy)),
        }
    }

    /// Kills a node's process: programs go on, and so does what was written.
    pub fn crash(&mut self, node: &str) {
        let Some(number) = device_number(node) else { return self.end_server(|store, _| store.kill()) };
        let Some(device) = self.devices.get_mut(number) else { return };
        let Some((running, engine)) = device.running.take() else { return };
        engine.kill();
        drop(running);
        self.network.kill(&device.name);
        device.store.kill();
        if let Ok(store) = device.store.reopen() {
            device.store = Arc::new(store);
        }
        let node: Arc<str> = device.name.as_str().into();
        self.tap.note(|| Observation::Died { node });
    }

    /// Starts a node that is down.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub fn start(&mut self, node: &str) -> Result<(), ScenarioError> {
        match device_number(node) {
            Some(number) => self.power_on(number)?,
            None => self.server.start(&self.world, &self.network, &self.engines, &self.tap)?,
        }
        let node: Arc<str> = node.into();
        self.tap.note(|| Observation::Booted { node });
        Ok(())
    }

    fn end_server(&mut self, cut: impl FnOnce(&MemoryStore, &mut Entropy)) {
        if !self.server.end() {
            return;
        }
        let mut entropy = self.entropy.stream(&format!("server {:?}", self.world.monotonic()));
        self.network.kill(SERVER);
        cut(&self.server.store, &mut entropy);
        // A store that does not open shows when the server is started.
        let _ = self.server.reopen();
        self.tap.note(|| Observation::Died { node: SERVER.into() });
    }

    /// Ends the server's process, takes its store away, and starts it again with its keys. Returns the lost store.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub fn lose_store(&mut self) -> Result<Arc<MemoryStore>, ScenarioError> {
        self.crash(SERVER);
        let lost = self.server.lose_store();
        self.tap.note(|| Observation::Restored { node: SERVER.into() });
        self.start(SERVER)?;
        Ok(lost)
    }

    /// Revokes a key, as an admin does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the authority refuses.
    pub fn revoke(&self, key: KeyId) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        let revocation = Revocation::Compromised;
        self.ask("the authority", move |reply| {
            let operation = server.shared.authority_answers.open(Box::new(reply));
            server.actors.authority.send(authority::Input::Revoke { operation, key, revocation });
        })?
        .map_err(failed)
    }

    /// Approves a recovered device, as `fleetd enroll approve` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the device waits for no word.
    pub fn approve(&self, number: usize) -> Result<(), ScenarioError> {
        let local = self.devices.get(number).ok_or_else(|| failed("there is no such device"))?.local();
        let server = self.serving()?;
        self.ask("the device's actor", move |reply| {
            let operation = server.shared.device_answers.open(Box::new(reply));
            let caller = "scenario".to_owned();
            server.actors.devices.send(&local, device::Input::Command { operation, caller, command: Command::Approve });
        })?
        .map(drop)
        .map_err(failed)
    }

    /// Says whether the server's process is there.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.server.node().is_some()
    }

    /// The numbers of a site's devices.
    pub fn devices_of_site(&self, site: usize) -> impl Iterator<Item = usize> + use<> {
        (site..self.devices.len()).step_by(self.sites.max(1))
    }

    /// Does what an operator does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the server refuses it.
    pub fn act(&mut self, act: &Act) -> Result<(), ScenarioError> {
        let bytes = format!("coffee {} {:?}", act.roll_out, act.program);
        self.programs.insert(ArtifactDigest::of(bytes.as_bytes()), act.program);
        for number in 0..self.devices.len() {
            self.script(number);
        }
        let release = self.push(&act.roll_out, bytes.as_bytes())?;
        self.newest = Some(self.roll_out(&release)?);
        self.newest_version = Some(act.roll_out.clone());
        Ok(())
    }

    /// Tells a device's runner what each release's program does there.
    fn script(&self, number: usize) {
        let Some(device) = self.devices.get(number) else { return };
        for (artifact, program) in &self.programs {
            let crashes = Behaviour { crashes_after: Some(Duration::from_millis(300)), is_sick: true };
            let behaviour = match program {
                Program::Good => Behaviour::default(),
                Program::Crashes => crashes,
                Program::Hangs => Behaviour { is_sick: true, ..Behaviour::default() },
                Program::CrashesOnSome if number % 2 == 1 => crashes,
                Program::CrashesOnSome => Behaviour::default(),
            };
            device.runner.script(*artifact, behaviour);
        }
    }

    /// The fleet's state now.
    #[must_use]
    pub fn sample(&self, at: Duration) -> Sample {
        let sites = self.sites.max(1);
        let (mut healthy, mut updated, mut linked) = (vec![0; sites], vec![0; sites], vec![0; sites]);
        for number in 0..self.devices.len() {
            let report = self.report(number);
            let phase = report.as_ref().and_then(|report| report.phase);
            let is_healthy = matches!(phase, Some(report::Phase::Healthy | report::Phase::Restored));
            let release = report.as_ref().and_then(|report| report.release.as_ref());
            let is_newest = phase == Some(report::Phase::Healthy)
                && release.map(|release| release.as_str()) == self.newest_version.as_deref();
            let counts = [(&mut healthy, is_healthy), (&mut updated, is_newest), (&mut linked, self.is_linked(number))];
            for (by_site, is_so) in counts {
                if let Some(count) = by_site.get_mut(number % sites) {
                    *count += usize::from(is_so);
                }
            }
        }
        let (frames, bytes) = self.network.traffic();
        Sample { at_s: at.as_secs(), healthy, updated, linked, frames, bytes }
    }

    /// Says whether the server has a live connection to a device.
    #[must_use]
    pub fn is_linked(&self, number: usize) -> bool {
        let Some(device) = self.devices.get(number) else { return false };
        self.server.node().is_some_and(|node| node.shared.connections.of_device(device.local()).is_some())
    }

    /// The devices that are not where they should be, each with the reason.
    #[must_use]
    pub fn laggards(&self) -> Vec<(String, String)> {
        let mut laggards = Vec::new();
        for (number, device) in self.devices.iter().enumerate() {
            let phase = self.report(number).and_then(|report| report.phase);
            let is_settled = match phase {
                None => self.newest.is_none(),
                Some(phase) => matches!(phase, report::Phase::Healthy | report::Phase::Restored),
            };
            if !self.is_linked(number) {
                laggards.push((device.name.clone(), "it is not linked to the server".to_owned()));
            } else if !is_settled {
                laggards.push((device.name.clone(), format!("its workload is in phase {phase:?}")));
            }
        }
        laggards
    }

    /// Signs a release of `coffee` and puts it on the server, as `fleetd release push` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the manifest says what no release may say.
    pub fn push(&mut self, version: &str, program: &[u8]) -> Result<SignedManifest, ScenarioError> {
        let digest = ArtifactDigest::of(program);
        let size_bytes = u64::try_from(program.len()).map_err(failed)?;
        let artifact = Artifact { digest, size_bytes, file_name: "coffee".to_owned() };
        let manifest = Manifest {
            fleet: self.serving()?.shared.trust().chain.fleet(),
            workload: coffee(),
            version: version.parse().map_err(failed)?,
            artifacts: BTreeMap::from([(platform(), artifact)]),
            argv: Vec::new(),
            environment: BTreeMap::new(),
            probe: Probe { check: ProbeCheck::Notify, grace: Duration::from_secs(10), ..Probe::default() },
            user: None,
            stop_grace: Duration::from_secs(1),
        };
        self.publish(manifest, &[program])
    }

    /// Signs a manifest, and puts it and its programs on the server.
    ///
    /// # Errors
    /// [`ScenarioError`] when it says what no release may say.
    pub fn publish(&mut self, manifest: Manifest, programs: &[&[u8]]) -> Result<SignedManifest, ScenarioError> {
        let signed = manifest.sign(&self.release_key).map_err(failed)?;
        let bytes = signed.encode();
        for content in programs.iter().copied().chain([bytes.as_slice()]) {
            let size_bytes = u64::try_from(content.len()).map_err(failed)?;
            self.server.artifacts.append(ArtifactDigest::of(content), size_bytes, 0, content).map_err(failed)?;
        }
        Ok(signed)
    }

    /// Plans a release for every device and starts the rollout.
    ///
    /// # Errors
    /// [`ScenarioError`] when there is nothing to plan, or the rollout is refused.
    pub fn roll_out(&mut self, release: &SignedManifest) -> Result<RolloutId, ScenarioError> {
        let (id, rollout) = (PlanId::random(&mut self.entropy), RolloutId::random(&mut self.entropy));
        let planned = PlannedRelease::of(release.claims(), release.digest());
        let plan: Plan = plan(id, planned, Targets::All, 1, 0, &self.rows()?).map_err(failed)?;
        self.start_plan(rollout, plan)?;
        Ok(rollout)
    }

    /// Starts a plan, as `fleetd rollout start` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when that is refused.
    pub fn start_plan(&self, rollout: RolloutId, plan: Plan) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        self.ask("the rollout", move |reply| {
            let operation = server.shared.rollout_answers.open(Box::new(reply));
            let input = rollout::Input::Start { operation, caller: "scenario".to_owned(), plan: Box::new(plan) };
            server.actors.rollouts.send(&rollout, input);
        })?
        .map_err(failed)
    }

    /// Aborts a rollout, as `fleetd rollout abort` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when that is refused.
    pub fn abort(&self, rollout: RolloutId) -> Result<(), ScenarioError> {
        let server = self.serving()?;
        self.ask("the rollout", move |reply| {
            let operation = server.shared.rollout_answers.open(Box::new(reply));
            let input = rollout::Input::Abort { operation, reason: "scenario".to_owned() };
            server.actors.rollouts.send(&rollout, input);
        })?
        .map_err(failed)
    }

    /// What the server's store says of a device in a rollout, once it says more than the plan.
    #[must_use]
    pub fn progress(&self, rollout: RolloutId, number: usize) -> Option<rollout::status::DeviceStatus> {
        let key = record::rollout::assignment_key(rollout, self.devices.get(number)?.local());
        let found = self.server.store.get(Space::Assignment, &key).ok()??;
        record::rollout::decode_progress(&found.value).ok().map(|(_, progress)| progress.status)
    }

    /// What the server's store says of a rollout.
    #[must_use]
    pub fn rollout(&self, rollout: RolloutId) -> Option<RolloutHeader> {
        let found = self.server.store.get(Space::Rollout, rollout.as_bytes()).ok()??;
        record::rollout::decode_header(&found.value).ok()
    }

    /// What the server's store says of a device.
    #[must_use]
    pub fn record(&self, number: usize) -> Option<DeviceRecord> {
        let local = self.devices.get(number)?.local();
        let found = self.server.store.get(Space::Device, local.as_bytes()).ok()??;
        record::device::decode(&found.value).ok()
    }

    /// What the server's store says of a device's `coffee`.
    #[must_use]
    pub fn report(&self, number: usize) -> Option<report::WorkloadReport> {
        self.record(number)?.reports.remove(&coffee())
    }

    /// Says whether the server's store says that a device runs a version and is healthy.
    #[must_use]
    pub fn is_healthy(&self, number: usize, version: &str) -> bool {
        self.report(number).is_some_and(|report| {
            report.phase == Some(report::Phase::Healthy)
                && report.release.as_ref().is_some_and(|release| release.as_str() == version)
        })
    }

    /// Runs the world until something holds, and returns how long it took.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not hold in time.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<Duration, ScenarioError> {
        self.world.run_until(PATIENCE, || holds(self)).ok_or_else(|| failed(format!("waited in vain for {what}")))
    }

    /// Makes an enrolment token, as `fleetd enroll token create` does.
    ///
    /// # Errors
    /// [`ScenarioError`] when the registration refuses.
    pub fn create_token(&self, wish: TokenWish) -> Result<EnrolmentToken, ScenarioError> {
        let server = self.serving()?;
        let answer = self.ask("the registration", move |reply| {
            let operation = server.shared.registration_answers.open(Box::new(reply));
            let command = RegistrationCommand::CreateToken(wish);
            let caller = "scenario".to_owned();
            server.actors.registration.send(RegistrationInput::Command { operation, caller, command });
        })?;
        let Answer::Created { token, secret } = answer.map_err(failed)? else {
            return Err(failed("the registration gave no token"));
        };
        let addresses = vec![SERVER_ADDRESS.parse().map_err(failed)?];
        EnrolmentToken::new(addresses, self.serving()?.shared.trust().chain.fleet(), token.token, secret)
            .map_err(failed)
    }

    /// Asks an actor of the server, and runs the world until it answers.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        whom: &str,
        send: impl FnOnce(Box<dyn FnOnce(T) + Send>),
    ) -> Result<T, ScenarioError> {
        let answer = Arc::new(Mutex::new(None));
        let given = Arc::clone(&answer);
        send(Box::new(move |value| *given.lock().unwrap_or_else(PoisonError::into_inner) = Some(value)));
        let take = || answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut taken = None;
        self.world.run_until(PATIENCE, || {
            taken = taken.take().or_else(take);
            taken.is_some()
        });
        taken.ok_or_else(|| failed(format!("{whom} did not answer")))
    }

    /// The devices as a plan sees them, in the order of their local ids.
    ///
    /// # Errors
    /// [`ScenarioError`] when the server's store cannot be read.
    pub fn rows(&self) -> Result<Vec<DeviceRow>, ScenarioError> {
        let server = self.serving()?;
        let mut rows = Vec::new();
        let mut range = KeyRange::all();
        loop {
            let page = self.server.store.scan(Space::Device, range.clone(), PAGE_RECORDS).map_err(failed)?;
            let Some((last, _)) = page.last() else { return Ok(rows) };
            range = range.after(last);
            for (_, found) in &page {
                let record = record::device::decode(&found.value).map_err(failed)?;
                let connection = server.shared.connections.of_device(record.local).map(|(_, connection)| connection);
                rows.push(device_row::of(&record, found.revision, connection.as_ref()));
            }
        }
    }
}

/// The number of a device by what traces call it; `None` for the server.
fn device_number(node: &str) -> Option<usize> {
    node.strip_prefix("device-")?.parse().ok()
}

/// The workload of every scenario.
///
/// # Panics
/// Never: the name is a good one.
#[must_use]
pub fn coffee() -> WorkloadName {
    #[expect(clippy::expect_used, reason = "the name is a constant, and a good one")]
    "coffee".parse().expect("coffee is a workload's name")
}

fn platform() -> Platform {
    #[expect(clippy::expect_used, reason = "the name is a constant, and a good one")]
    "linux/amd64".parse().expect("linux/amd64 is a platform's name")
}
