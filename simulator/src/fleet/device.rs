//! A device of a fleet in the world: its node while it is powered, and what outlives a power cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetd_agent::artifact_files::memory::MemoryArtifactFiles;
use fleetd_agent::disk::memory::MemoryDisk;
use fleetd_agent::identity_files::memory::{IdentityImage, MemoryIdentityFiles};
use fleetd_agent::identity_store::IdentityStore;
use fleetd_agent::install::memory::MemoryInstaller;
use fleetd_agent::node as agent_node;
use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{BootId, LocalId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::name::Platform;
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::memory::{Image, MemoryStore};
use fleetd_sync_store::state_store::StateStore;
use fleetd_sync_transport::endpoint::verify_server;
use fleetd_sync_transport::identity::signing_request;

use super::server::reopen;
use super::{End, ScenarioError, Setting, failed};
use crate::agenda::Task;
use crate::blocking::NodeBlocking;
use crate::clock::NodeClock;
use crate::engine::NodeEngine;
use crate::fuse::Fuse;
use crate::hostile::LinkSlot;
use crate::observation::Observation;
use crate::runner::NodeRunner;
use crate::store::{Ailment, NodeStore, TappedStore};
use crate::tapped_link::TappedLink;

/// The disk of a device.
pub(super) const DISK_BYTES: u64 = 64 << 20;

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

/// What a device keeps, as somebody copies it who has its SD card.
#[derive(Clone)]
pub(super) struct DeviceImage {
    store: Image,
    identity: IdentityImage,
    disk: MemoryDisk,
}

/// A device in the world: its node while it is powered, and what outlives a power cut.
pub struct SimulatedDevice {
    /// What traces call it.
    pub name: String,
    /// Its programs.
    pub runner: NodeRunner,
    /// Its disk.
    pub disk: MemoryDisk,
    /// Its database.
    pub store: Arc<MemoryStore>,
    /// Its clock.
    pub clock: NodeClock,
    /// For which artifacts it asks.
    pub platform: Platform,
    pub(super) ailment: Ailment,
    pub(super) identity: MemoryIdentityFiles,
    pub(super) fuse: Fuse,
    pub(super) link: LinkSlot,
    /// Whether its clock goes on without power; if not, it shows 1970 after each.
    pub(super) has_rtc: bool,
    facts: BTreeMap<String, String>,
    key: SecretKey,
    token: EnrolmentToken,
    running: Option<Running>,
    starts: u32,
    boots: u32,
}

struct Running {
    node: agent_node::Node,
    engine: NodeEngine,
    store: Arc<IdentityStore>,
}

impl SimulatedDevice {
    pub(super) fn new(name: String, setting: &Setting<'_>, device: NewDevice, has_rtc: bool) -> Self {
        let NewDevice { platform, facts, token } = device;
        let mut entropy = setting.world.entropy(&name);
        let clock = NodeClock::right(setting.world.clone(), false);
        if !has_rtc {
            clock.jump(Wall(0));
        }
        Self {
            runner: NodeRunner::new(&name, setting.world.clone(), setting.tap.clone()),
            disk: MemoryDisk::new(DISK_BYTES),
            store: Arc::new(MemoryStore::manual()),
            clock,
            platform,
            ailment: Ailment::default(),
            identity: MemoryIdentityFiles::default(),
            fuse: Fuse::default(),
            link: LinkSlot::default(),
            has_rtc,
            facts,
            key: SecretKey::generate(&mut entropy),
            token,
            running: None,
            starts: 0,
            boots: 0,
            name,
        }
    }

    /// Another holder of this device's key: a copy of all that it keeps, on hardware of its own.
    pub(super) fn clone_as(&self, name: String, setting: &Setting<'_>) -> Result<Self, ScenarioError> {
        let image = self.image();
        let store = MemoryStore::manual().from_image(&image.store).map_err(failed)?;
        let identity = MemoryIdentityFiles::default();
        identity.restore(image.identity);
        Ok(Self {
            runner: NodeRunner::new(&name, setting.world.clone(), setting.tap.clone()),
            disk: image.disk,
            store: Arc::new(store),
            clock: NodeClock::right(setting.world.clone(), false),
            platform: self.platform.clone(),
            ailment: Ailment::default(),
            identity,
            fuse: Fuse::default(),
            link: LinkSlot::default(),
            has_rtc: true,
            facts: self.facts.clone(),
            key: self.key.clone(),
            token: self.token.clone(),
            running: None,
            starts: 0,
            boots: 0,
            name,
        })
    }

    /// What it says about itself under a name.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    /// The hash of its key.
    #[must_use]
    pub fn local(&self) -> LocalId {
        self.key.id().into()
    }

    /// Its key: for whoever plays a thief.
    #[must_use]
    pub const fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Its node, while it runs.
    #[must_use]
    pub fn node(&self) -> Option<&agent_node::Node> {
        self.running.as_ref().map(|running| &running.node)
    }

    /// Its whole store, with the identity that lies beside the database, while its node runs.
    #[must_use]
    pub fn whole_store(&self) -> Option<Arc<dyn StateStore>> {
        self.running.as_ref().map(|running| Arc::<IdentityStore>::clone(&running.store) as Arc<dyn StateStore>)
    }

    /// Starts its agent.
    pub(super) fn start(&mut self, setting: &Setting<'_>) -> Result<(), ScenarioError> {
        if self.running.is_some() {
            return Ok(());
        }
        self.starts += 1;
        self.fuse = Fuse::default();
        if self.starts > 1 {
            self.open_store(setting)?;
        }
        let world = setting.world;
        let entropy = world.entropy(&self.name).stream(&format!("start {}", self.starts));
        let blocking = Arc::new(NodeBlocking::new(&self.name, world.clone()).with(self.fuse.clone()));
        let database = NodeStore::new(&self.name, world.clone(), Arc::clone(&self.store));
        let database = Arc::new(database.with(self.ailment.clone(), self.fuse.clone()));
        let files = Arc::new(self.identity.clone());
        let beside: Arc<dyn Blocking> = Arc::<NodeBlocking>::clone(&blocking);
        let identity_store = Arc::new(IdentityStore::open(database, files, beside).map_err(failed)?);
        let (agenda, name) = (setting.agenda.clone(), self.name.clone());
        identity_store.on_failure(Box::new(move |_| agenda.add(Task::Fail(name.clone()))));
        let whole: Arc<dyn StateStore> = Arc::<IdentityStore>::clone(&identity_store);
        let store = Arc::new(TappedStore::new(&self.name, whole, setting.tap.clone()));
        let clock = Arc::new(self.clock.clone());
        let engine =
            setting.engines.engine(&self.name, Arc::<NodeClock>::clone(&clock), Arc::<TappedStore>::clone(&store))?;
        let link = setting.network.link(&self.name);
        let link = TappedLink::new(&self.name, link, setting.tap.clone(), self.fuse.clone());
        self.link.put(Some(Arc::clone(&link)));
        let seams = agent_node::Seams {
            clock,
            store,
            link,
            runner: Arc::new(self.runner.clone().with(self.fuse.clone())),
            installer: Arc::new(MemoryInstaller::on(&self.disk)),
            files: Arc::new(MemoryArtifactFiles::on(&self.disk)),
            blocking,
            entropy,
        };
        let boot = BootId::random(&mut world.entropy(&self.name).stream(&format!("boot {}", self.boots)));
        let node = agent_node::Node::start(engine.clone(), seams, self.options(boot)?).map_err(failed)?;
        self.running = Some(Running { node, engine, store: identity_store });
        Ok(())
    }

    fn options(&self, boot: BootId) -> Result<agent_node::NodeOptions, ScenarioError> {
        Ok(agent_node::NodeOptions {
            identity: agent_node::DeviceIdentity {
                key: self.key.clone(),
                csr: signing_request(&self.key).map_err(failed)?,
                sealing_key: [0; 32],
                verify: verify_server,
            },
            boot,
            platform: self.platform.clone(),
            facts: self.facts.clone(),
            token: Some(self.token.clone()),
            addresses: Vec::new(),
            spool_bytes_max: fleetd_sync_core::limit::SPOOL_BYTES_MAX,
            environments: BTreeMap::new(),
        })
    }

    /// Opens its database again, as the agent does at its start: one that is damaged is set aside.
    fn open_store(&mut self, setting: &Setting<'_>) -> Result<(), ScenarioError> {
        let (store, was_aside) = reopen(&self.store)?;
        self.store = Arc::new(store);
        if was_aside {
            let node: Arc<str> = self.name.as_str().into();
            setting.tap.note(|| Observation::Restored { node });
        }
        Ok(())
    }

    /// Ends its process, or its power. Returns whether it ran.
    pub(super) fn end(&mut self, end: End, setting: &Setting<'_>, entropy: &mut Entropy) -> bool {
        let running = self.running.take();
        let has_run = running.is_some();
        if let Some(Running { node, engine, .. }) = running {
            engine.kill();
            drop(node);
        }
        self.fuse.blow();
        self.link.put(None);
        setting.network.kill(&self.name);
        match end {
            End::Crash if has_run => self.store.kill(),
            End::Crash => {}
            End::PowerCut => {
                self.runner.reboot();
                self.disk.cut_power(entropy);
                self.store.crash(entropy);
                self.boots += 1;
                if !self.has_rtc {
                    self.clock.jump(Wall(0));
                }
            }
        }
        if has_run {
            let node: Arc<str> = self.name.as_str().into();
            setting.tap.note(|| Observation::Died { node });
        }
        has_run
    }

    /// A copy of all that it keeps.
    pub(super) fn image(&self) -> DeviceImage {
        DeviceImage { store: self.store.image(), identity: self.identity.image(), disk: self.disk.copy() }
    }

    /// Puts a copy in place of all that it keeps, while it is down.
    pub(super) fn restore(&self, image: &DeviceImage) {
        self.store.restore(&image.store);
        self.identity.restore(image.identity.clone());
        self.disk.restore(&image.disk);
    }
}
