//! One device's node: machines wired to drivers, on any engine.
//!
//! A node is one [agent](fleetd_actors::agent) with the device's documents and its link, one
//! [workload](fleetd_actors::workload) actor and one [spool](fleetd_actors::log_spool) for each workload, and one
//! [fetcher](crate::fetch). It runs on the product's engine and in the simulator alike: whatever touches the
//! operating system is a seam.
//!
//! Every workload of which there is a record or a folder is loaded at once, link or no link: what ran before a reboot
//! runs after it. A store that was lost takes nothing away but memories; the folders are enough.

mod exchange;
mod flights;
mod status_board;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use fleetd_actors::address::Address;
use fleetd_actors::agent;
use fleetd_actors::directory::Directory;
use fleetd_actors::driver::Driver;
use fleetd_actors::spawn::{LoadActorError, Spawn};
use fleetd_actors::workload::{self, Command};
use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::commit::{ActorKey, Space};
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{BootId, LocalId, OperationId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::machine::Machine;
use fleetd_sync_core::name::{Platform, WorkloadName};
use fleetd_sync_core::session::VerifyServer;
use fleetd_sync_core::session::message::Facts;
use fleetd_sync_core::time::Clock;
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use fleetd_sync_transport::link::Link;

use crate::artifact_files::ArtifactFiles;
use crate::config::Environments;
use crate::disk::DiskError;
use crate::driver::{self, Surroundings};
use crate::install::Installer;
use crate::record::WorkloadFlight;
use crate::runner::Runner;
pub(crate) use exchange::{Addresses, Exchange};
pub(crate) use flights::Flights;
pub(crate) use status_board::StatusBoard;
pub use status_board::{CommandDone, NodeStatus, StatusWake};

/// What a node needs of its surroundings: the operating system in the product, its twins in the simulator.
#[derive(Clone)]
pub struct Seams {
    /// The time. An engine has the same.
    pub clock: Arc<dyn Clock>,
    /// What is remembered. An engine commits to the same.
    pub store: Arc<dyn StateStore>,
    /// The way to a server.
    pub link: Arc<dyn Link>,
    /// What runs workloads.
    pub runner: Arc<dyn Runner>,
    /// Keeps workload folders.
    pub installer: Arc<dyn Installer>,
    /// Keeps artifacts.
    pub files: Arc<dyn ArtifactFiles>,
    /// Where work that waits for the disk is done.
    pub blocking: Arc<dyn Blocking>,
    /// Randomness: another stream at each start, or ids would repeat.
    pub entropy: Entropy,
}

impl fmt::Debug for Seams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seams")
    }
}

/// Who a device is.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    /// Its key, made on it.
    pub key: SecretKey,
    /// A certificate signing request for the key, in DER.
    pub csr: Vec<u8>,
    /// The public half of its X25519 key, for what only it may read.
    pub sealing_key: [u8; 32],
    /// Judges a server's certificate.
    pub verify: VerifyServer,
}

impl DeviceIdentity {
    /// The hash of the device's key.
    #[must_use]
    pub fn local_id(&self) -> LocalId {
        self.key.id().into()
    }
}

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Who the device is.
    pub identity: DeviceIdentity,
    /// This start of its operating system.
    pub boot: BootId,
    /// For which artifacts it asks.
    pub platform: Platform,
    /// What it says about itself.
    pub facts: Facts,
    /// With what it enrols, if it has to.
    pub token: Option<EnrolmentToken>,
    /// Addresses of servers (`host:port`) that replace the token's.
    pub addresses: Vec<String>,
    /// Bytes of unsent logs that each workload's spool keeps.
    pub spool_bytes_max: u64,
    /// What the device's configuration gives each workload.
    pub environments: Environments,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartNodeError {
    /// The store does not tell which workloads there are.
    #[error("the store does not tell which workloads there are")]
    Store(#[from] ReadError),
    /// The disk does not tell which workloads have a folder.
    #[error("the disk does not tell which workloads have a folder")]
    Disk(#[from] DiskError),
}

/// Why a command is given to nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no workload {workload} on this device")]
pub struct UnknownWorkloadError {
    /// Which was meant.
    pub workload: WorkloadName,
}

/// One device's node. When it is dropped its actors reach each other no more.
#[derive(Debug)]
pub struct Node {
    exchange: Arc<Exchange>,
    surroundings: Arc<Surroundings>,
    operations: Mutex<Entropy>,
}

impl Node {
    /// Wires a node and loads all that may have something to do. Reads the disk: call it from where one may wait.
    ///
    /// # Errors
    /// [`StartNodeError`] when store or disk cannot be read.
    pub fn start<S: Spawn>(engine: S, seams: Seams, options: NodeOptions) -> Result<Self, StartNodeError> {
        let workloads = known_workloads(&seams)?;
        let operations = Mutex::new(seams.entropy.stream("operation"));
        let facts = options.facts.clone();
        let exchange = Arc::<Exchange>::default();
        // Before any line is dated, and so before the agent is loaded.
        let clock_floor = driver::agent::read_clock_floor(seams.store.as_ref())?;
        let surroundings = Arc::new(Surroundings::new(seams, options, Arc::downgrade(&exchange), clock_floor));
        let agent = spawn_only(&engine, "agent", &surroundings, driver::agent::load);
        let fetcher = spawn_only(&engine, "fetcher", &surroundings, driver::fetch::load);
        let spools = directory_of(engine.clone(), "spool", &surroundings, driver::log_spool::load);
        let workload_actors = directory_of(engine, "workload", &surroundings, driver::workload::load);
        exchange.open(Addresses { agent, fetcher, spools, workloads: workload_actors }, workloads.clone());
        // The first input loads the agent.
        exchange.addresses().agent.send(agent::Input::Facts(facts));
        for workload in &workloads {
            exchange.addresses().workloads.wake(workload);
        }
        // Lines may be left of a workload that was removed.
        for workload in workloads.iter().chain(&surroundings.seams.runner.workloads()) {
            exchange.addresses().spools.wake(workload);
        }
        Ok(Self { exchange, surroundings, operations })
    }

    /// The hash of the device's key.
    #[must_use]
    pub fn local_id(&self) -> LocalId {
        self.surroundings.options.identity.local_id()
    }

    /// What somebody at the device may see.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.surroundings.board.status()
    }

    /// The last steps of each workload since the agent was started.
    #[must_use]
    pub fn flights(&self) -> Vec<WorkloadFlight> {
        self.surroundings.flights.recordings(&self.surroundings.options.platform)
    }

    /// Calls `wake` after each change of the status, for as long as the node lives.
    pub fn on_change(&self, wake: StatusWake) {
        self.surroundings.board.on_change(wake);
    }

    /// Gives a workload a command; `done` is called when it is durable. Whoever waits for it sets a deadline.
    ///
    /// # Errors
    /// [`UnknownWorkloadError`] when there is no such workload.
    pub fn command(
        &self,
        workload: &WorkloadName,
        command: Command,
        done: CommandDone,
    ) -> Result<(), UnknownWorkloadError> {
        if !self.exchange.workloads().contains(workload) {
            return Err(UnknownWorkloadError { workload: workload.clone() });
        }
        let operation = OperationId::random(&mut self.operations.lock().unwrap_or_else(PoisonError::into_inner));
        self.surroundings.board.await_command(operation, done);
        self.exchange.addresses().workloads.send(workload, workload::Input::Command { operation, command });
        Ok(())
    }

    /// Tells the fleet what the device is now.
    pub fn set_facts(&self, facts: Facts) {
        self.exchange.addresses().agent.send(agent::Input::Facts(facts));
    }

    /// Says that a server may be reached now: a network has come.
    pub fn wake(&self) {
        self.exchange.addresses().agent.send(agent::Input::Wake);
    }

    /// Closes the connection in order and dials no more. What runs goes on.
    pub fn stop(&self) {
        self.exchange.addresses().agent.send(agent::Input::Stop);
    }
}

/// Every workload of which there is a record or a folder.
fn known_workloads(seams: &Seams) -> Result<BTreeSet<WorkloadName>, StartNodeError> {
    let mut workloads: BTreeSet<WorkloadName> = seams.installer.workloads()?.into_iter().collect();
    seams.store.visit(Space::Workload, KeyRange::all(), &mut |key, _| {
        let name = std::str::from_utf8(key).ok().and_then(|key| key.parse().ok());
        workloads.extend(name);
        ControlFlow::Continue(())
    })?;
    Ok(workloads)
}

/// A machine as it was stored, with its driver.
type Loaded<M, D> = Result<(M, D), LoadActorError>;

/// Makes the only actor of a kind.
fn spawn_only<S: Spawn, M: Machine, D: Driver<M>>(
    engine: &S,
    kind: &'static str,
    surroundings: &Arc<Surroundings>,
    load: impl Fn(&Arc<Surroundings>, &Address<M::Input>) -> Loaded<M, D> + Send + Sync + 'static,
) -> Address<M::Input> {
    let surroundings = Arc::clone(surroundings);
    engine.spawn(ActorKey::only(kind), false, Arc::new(move |address| load(&surroundings, address))).address
}

/// Makes the actors of a kind of which each workload has one.
fn directory_of<S: Spawn, M: Machine, D: Driver<M>>(
    engine: S,
    kind: &'static str,
    surroundings: &Arc<Surroundings>,
    load: impl Fn(&Arc<Surroundings>, &WorkloadName, &Address<M::Input>) -> Loaded<M, D> + Copy + Send + Sync + 'static,
) -> Directory<WorkloadName, M::Input> {
    let surroundings = Arc::clone(surroundings);
    Directory::new(engine, kind, move |name: &WorkloadName| {
        let (surroundings, name) = (Arc::clone(&surroundings), name.clone());
        Arc::new(move |address| load(&surroundings, &name, address))
    })
}
