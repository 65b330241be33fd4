//! A fleet in the world: a server's node and its devices' nodes, wired by the product itself on simulated seams.

mod convergence;
mod device;
mod engines;
mod harm;
mod operator;
mod outage;
mod server;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetd_actors::report;
use fleetd_server::node as server_node;
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::name::{Platform, Version, WorkloadName};
use fleetd_sync_store::memory::{Image, MemoryStore};

use self::device::DeviceImage;
pub use self::device::{NewDevice, SimulatedDevice};
use self::engines::Engines;
use self::operator::Operator;
pub use self::operator::Wish;
pub use self::server::{SERVER, SimulatedServer};
use crate::agenda::Agenda;
use crate::engine::EngineKind;
use crate::fault::FaultKind;
use crate::hostile::Hostility;
use crate::links::Links;
use crate::observation::{Observation, Tap};
use crate::scenario::{Act, Scenario};
use crate::world::World;

/// Where the server listens.
const SERVER_ADDRESS: &str = "server:4443";
/// Time from the world's beginning until anything is expected to have happened.
const PATIENCE: Duration = Duration::from_secs(600);

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

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its process is killed: programs go on, and so does what was written.
    Crash,
    /// Its power fails: its programs end, and what its store and disk had not made durable is gone, or torn.
    PowerCut,
}

/// What nodes are set into.
struct Setting<'a> {
    world: &'a World,
    network: &'a Links,
    engines: &'a Engines,
    tap: &'a Tap,
    agenda: &'a Agenda,
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
    agenda: Agenda,
    sites: usize,
    operator: Operator,
    /// Second holders of devices' keys.
    clones: Vec<SimulatedDevice>,
    /// Devices that were not switched on yet: those with the highest numbers.
    absent: BTreeSet<usize>,
    /// Devices that are broken for good, with what broke them: nobody waits for them.
    broken: BTreeMap<usize, FaultKind>,
    /// Who has turned against the fleet, by the fault that says so.
    hostile: BTreeMap<u64, Vec<Hostility>>,
    /// How many reasons each node has to be down.
    outages: BTreeMap<String, u32>,
    /// Nodes that end at one of their next calls, with how, and whether they have.
    lit: BTreeMap<String, (End, bool)>,
    /// Images that were taken of nodes, by who wanted them.
    images: BTreeMap<u64, Vec<(String, NodeImage)>>,
    /// What the server's record of each device said when it was last read.
    seen: BTreeMap<usize, SeenRecord>,
    /// The server's store when the records were last read, and its revision then.
    looked_at: Option<(Arc<MemoryStore>, Revision)>,
    /// Whether nothing was stored between the last two looks.
    is_unchanged: bool,
    root: SecretKey,
    release_key: SecretKey,
    entropy: Entropy,
}

/// What a record of a device said when it was last read: its digest, and the phase and release of `coffee`.
type SeenRecord = ([u8; 32], Option<report::Phase>, Option<Version>);

/// What a node kept at some time.
enum NodeImage {
    Server(Image),
    Device(DeviceImage),
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
        let server = SimulatedServer::new(&root, &world, &mut entropy)?;
        let operator = Operator::new(world.entropy("operator"));
        let mut fleet = Self {
            world,
            network,
            server,
            devices: Vec::new(),
            tap: Tap::default(),
            engines,
            agenda: Agenda::default(),
            sites: 1,
            operator,
            clones: Vec::new(),
            absent: BTreeSet::new(),
            broken: BTreeMap::new(),
            hostile: BTreeMap::new(),
            outages: BTreeMap::new(),
            lit: BTreeMap::new(),
            images: BTreeMap::new(),
            seen: BTreeMap::new(),
            looked_at: None,
            is_unchanged: false,
            root,
            release_key,
            entropy,
        };
        fleet.with_server(|server, setting| server.start(setting))?;
        fleet.delegate_release_key(BTreeSet::from([coffee()]))?;
        Ok(fleet)
    }

    /// The fleet of a scenario, every device of it enrolled.
    ///
    /// # Errors
    /// [`ScenarioError`] when a node does not start, or a device does not enrol.
    pub fn of(scenario: &Scenario, engine: EngineKind, world: World) -> Result<Self, ScenarioError> {
        if let Some(begins) = scenario.begins() {
            world.begin_at(begins);
        }
        let mut fleet = Self::on(engine, world, Duration::ZERO)?;
        fleet.sites = usize::try_from(scenario.sites).unwrap_or(1);
        let workloads: BTreeSet<_> = scenario.acts.iter().map(Act::workload).chain([coffee()]).collect();
        if workloads.len() > 1 {
            fleet.delegate_release_key(workloads)?;
        }
        let [from, to] = scenario.latency_ms;
        for number in 0..scenario.devices {
            let mut entropy = fleet.world.entropy(&format!("latency of device-{number}"));
            let latency = Duration::from_millis(from + entropy.below(to - from + 1));
            fleet.network.set_latency(&format!("device-{number}"), latency);
            let mut hardware = fleet.world.entropy(&format!("hardware of device-{number}"));
            let is_arm64 = hardware.below(100) < u64::from(scenario.arm64_percent);
            let has_rtc = hardware.below(100) >= u64::from(scenario.no_rtc_percent);
            let platform = if is_arm64 { arm64() } else { amd64() };
            let mut facts = BTreeMap::from([("platform".to_owned(), platform.to_string())]);
            facts.extend(scenario.timezone_of(number).map(|zone| ("timezone".to_owned(), zone.to_owned())));
            let site = format!("site-{}", number % scenario.sites.max(1));
            let token = fleet.create_token(operator::token_wish(site))?;
            let is_late = number >= scenario.devices.saturating_sub(scenario.late_devices);
            let added = fleet.put(NewDevice { platform, facts, token }, has_rtc);
            if is_late {
                fleet.absent.insert(added);
            } else {
                fleet.power_on(added)?;
            }
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
            enrolled + fleet.absent.len() == fleet.devices.len()
        })
    }

    /// The server's node.
    ///
    /// # Errors
    /// [`ScenarioError`] while the server is down.
    pub(crate) fn serving(&self) -> Result<server_node::Node, ScenarioError> {
        self.server.node().cloned().ok_or_else(|| failed("the server is down"))
    }

    /// Adds a device with a token of its own, and powers it on.
    ///
    /// # Errors
    /// [`ScenarioError`] when there is no token for it, or it does not start.
    pub fn add_device(&mut self) -> Result<usize, ScenarioError> {
        self.add_device_of(String::new(), BTreeMap::new())
    }

    /// Adds such a device that is of a site, and says more of itself than its platform.
    ///
    /// # Errors
    /// Those of [`add_device`](Self::add_device).
    pub fn add_device_of(&mut self, site: String, mut facts: BTreeMap<String, String>) -> Result<usize, ScenarioError> {
        facts.insert("platform".to_owned(), amd64().to_string());
        let token: EnrolmentToken = self.create_token(operator::token_wish(site))?;
        self.add(NewDevice { platform: amd64(), facts, token })
    }

    /// Adds a device, and powers it on.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub fn add(&mut self, device: NewDevice) -> Result<usize, ScenarioError> {
        let number = self.put(device, true);
        self.power_on(number)?;
        Ok(number)
    }

    /// Puts a device where it belongs. It is not switched on yet.
    fn put(&mut self, device: NewDevice, has_rtc: bool) -> usize {
        let number = self.devices.len();
        let setting = Setting {
            world: &self.world,
            network: &self.network,
            engines: &self.engines,
            tap: &self.tap,
            agenda: &self.agenda,
        };
        self.devices.push(SimulatedDevice::new(format!("device-{number}"), &setting, device, has_rtc));
        number
    }

    /// Does something with the server and what it is set into.
    fn with_server<T>(&mut self, act: impl FnOnce(&mut SimulatedServer, &Setting<'_>) -> T) -> T {
        let Self { world, network, engines, tap, agenda, server, .. } = self;
        act(server, &Setting { world, network, engines, tap, agenda })
    }

    /// Does something with a device and what it is set into.
    fn with_device<T>(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut SimulatedDevice, &Setting<'_>) -> T,
    ) -> Option<T> {
        let Self { world, network, engines, tap, agenda, devices, .. } = self;
        devices.get_mut(number).map(|device| act(device, &Setting { world, network, engines, tap, agenda }))
    }

    /// Starts a device's agent; after a power cut that is a new boot.
    ///
    /// # Errors
    /// [`ScenarioError`] when the node does not start.
    pub fn power_on(&mut self, number: usize) -> Result<(), ScenarioError> {
        self.with_device(number, |device, setting| device.start(setting))
            .unwrap_or_else(|| Err(failed("there is no such device")))
    }

    /// Switches a device on for the first time.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub(crate) fn join(&mut self, number: usize) -> Result<(), ScenarioError> {
        self.absent.remove(&number);
        self.start(&format!("device-{number}"))
    }

    /// Cuts a device's power: its processes, its connections, and what its store and disk had not made durable.
    pub fn power_off(&mut self, number: usize) {
        self.end(&format!("device-{number}"), End::PowerCut);
    }

    /// Cuts the power of a node.
    pub fn cut_power(&mut self, node: &str) {
        self.end(node, End::PowerCut);
    }

    /// Kills a node's process: programs go on, and so does what was written.
    pub fn crash(&mut self, node: &str) {
        self.end(node, End::Crash);
    }

    fn end(&mut self, node: &str, end: End) {
        let mut entropy = self.entropy.stream(&format!("end of {node} {:?}", self.world.monotonic()));
        match device_number(node) {
            None => drop(self.with_server(|server, setting| server.end(end, setting, &mut entropy))),
            Some(number) => drop(self.with_device(number, |device, setting| device.end(end, setting, &mut entropy))),
        }
    }

    /// Starts a node that is down.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub fn start(&mut self, node: &str) -> Result<(), ScenarioError> {
        match device_number(node) {
            Some(number) => self.power_on(number)?,
            None => self.with_server(|server, setting| server.start(setting))?,
        }
        let node: Arc<str> = node.into();
        self.tap.note(|| Observation::Booted { node });
        Ok(())
    }

    /// Ends the server's process, takes its store away, and starts it again with its keys. Returns the lost store.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not start.
    pub fn lose_store(&mut self) -> Result<Arc<MemoryStore>, ScenarioError> {
        self.crash(SERVER);
        let (lost, _) = server::reopen(&self.server.lose_store())?;
        self.tap.note(|| Observation::Restored { node: SERVER.into() });
        self.start(SERVER)?;
        Ok(Arc::new(lost))
    }

    /// Runs the world until something holds, and returns how long it took.
    ///
    /// # Errors
    /// [`ScenarioError`] when it does not hold in time.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<Duration, ScenarioError> {
        self.world.run_until(PATIENCE, || holds(self)).ok_or_else(|| failed(format!("waited in vain for {what}")))
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

/// The platform of most devices.
fn amd64() -> Platform {
    #[expect(clippy::expect_used, reason = "the name is a constant, and a good one")]
    "linux/amd64".parse().expect("linux/amd64 is a platform's name")
}

/// The platform of the others.
fn arm64() -> Platform {
    #[expect(clippy::expect_used, reason = "the name is a constant, and a good one")]
    "linux/arm64".parse().expect("linux/arm64 is a platform's name")
}
