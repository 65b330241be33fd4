//! One device: the agent's own node, on a disk and a store in memory, with a socket of its own.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use fleetd_actors::shell::ShellEngine;
use fleetd_agent::artifact_files::memory::MemoryArtifactFiles;
use fleetd_agent::disk::memory::MemoryDisk;
use fleetd_agent::facts::PLATFORM;
use fleetd_agent::identity_files::memory::MemoryIdentityFiles;
use fleetd_agent::identity_store::IdentityStore;
use fleetd_agent::install::memory::MemoryInstaller;
use fleetd_agent::node::{DeviceIdentity, Node, NodeOptions, Seams};
use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::commit::Commit;
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::BootId;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::limit;
use fleetd_sync_core::name::Platform;
use fleetd_sync_core::time::Clock;
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::state_store::StateStore;
use fleetd_sync_transport::clock::{SystemClock, system_entropy};
use fleetd_sync_transport::endpoint::{Endpoint, OsGround, Settings, verify_server};
use fleetd_sync_transport::identity::signing_request;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::Failure;
use crate::meter::{MeteredGround, MeteredLink, Traffic};
use crate::program::Programs;

/// The disk of a device: an agent leaves some megabytes of it free.
const DISK_BYTES: u64 = 64 << 20;

/// What all devices have in common.
pub(crate) struct Surroundings {
    pub(crate) runtime: Handle,
    pub(crate) token: EnrolmentToken,
    pub(crate) settings: Settings,
    pub(crate) platform: Platform,
    /// Every so-manyth device is one on which programs fail.
    pub(crate) failing_every: Option<NonZeroUsize>,
    pub(crate) traffic: Arc<Traffic>,
}

/// One device: what it keeps, and its node while it runs.
pub(crate) struct Device {
    key: SecretKey,
    entropy: Entropy,
    store: Arc<MemoryStore>,
    identity: MemoryIdentityFiles,
    disk: MemoryDisk,
    is_failing: bool,
    programs: Option<Arc<Programs>>,
    running: Option<(Node, ShellEngine, Endpoint)>,
}

/// Runs jobs on the runtime's threads for work that waits.
struct RuntimeBlocking(Handle);

impl Blocking for RuntimeBlocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        drop(self.0.spawn_blocking(job));
    }
}

impl Device {
    /// A device fresh from the factory; programs fail on it if it `is_failing`.
    pub(crate) fn new(is_failing: bool) -> Result<Self, Failure> {
        let mut entropy = system_entropy()?;
        Ok(Self {
            key: SecretKey::generate(&mut entropy),
            entropy,
            store: Arc::new(MemoryStore::immediate()),
            identity: MemoryIdentityFiles::default(),
            disk: MemoryDisk::new(DISK_BYTES),
            is_failing,
            programs: None,
            running: None,
        })
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Says whether it is connected, and has with its server what each has to say.
    pub(crate) fn is_live(&self) -> bool {
        self.running.as_ref().is_some_and(|(node, ..)| node.status().agent.link == "live")
    }

    /// Switches it on.
    pub(crate) fn start(&mut self, surroundings: &Surroundings) -> Result<(), Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let blocking: Arc<dyn Blocking> = Arc::new(RuntimeBlocking(surroundings.runtime.clone()));
        let database: Arc<dyn StateStore> = Arc::<MemoryStore>::clone(&self.store);
        let store = IdentityStore::open(database, Arc::new(self.identity.clone()), Arc::clone(&blocking))?;
        let store = Arc::new(store);
        let commit: Arc<dyn Commit> = Arc::<IdentityStore>::clone(&store);
        let engine = surroundings.runtime.block_on(ShellEngine::start(Arc::clone(&clock), commit))?;
        let mut entropy = Entropy::from_seed(self.entropy.bytes());
        let ground = MeteredGround::new(OsGround::new(surroundings.runtime.clone()), Arc::clone(&surroundings.traffic));
        let endpoint = Endpoint::on(
            Arc::new(ground),
            surroundings.settings.clone(),
            Arc::clone(&clock),
            entropy.stream("endpoint"),
        );
        let is_failing = self.is_failing;
        let programs = self.programs.get_or_insert_with(|| Arc::new(Programs::new(Arc::clone(&blocking), is_failing)));
        let options = NodeOptions {
            identity: DeviceIdentity {
                key: self.key.clone(),
                csr: signing_request(&self.key)?,
                sealing_key: [0; 32],
                verify: verify_server,
            },
            boot: BootId::random(&mut entropy),
            platform: surroundings.platform.clone(),
            facts: BTreeMap::from([(PLATFORM.to_owned(), surroundings.platform.to_string())]),
            token: Some(surroundings.token.clone()),
            addresses: Vec::new(),
            spool_bytes_max: limit::SPOOL_BYTES_MAX,
            environments: BTreeMap::new(),
        };
        let seams = Seams {
            clock,
            store,
            link: Arc::new(MeteredLink::new(endpoint.clone(), Arc::clone(&surroundings.traffic))),
            runner: Arc::<Programs>::clone(programs),
            installer: Arc::new(MemoryInstaller::on(&self.disk)),
            files: Arc::new(MemoryArtifactFiles::on(&self.disk)),
            blocking,
            entropy,
        };
        let _inside = surroundings.runtime.enter();
        let node = Node::start(engine.clone(), seams, options)?;
        self.running = Some((node, engine, endpoint));
        Ok(())
    }

    /// Switches it off in order: the connection is closed when the returned task has ended.
    pub(crate) fn stop(&mut self, surroundings: &Surroundings) -> Option<JoinHandle<()>> {
        let (node, engine, endpoint) = self.running.take()?;
        node.stop();
        Some(surroundings.runtime.spawn(async move {
            endpoint.shut_down(limit::DRAIN_TIMEOUT).await;
            engine.stop();
        }))
    }
}
