//! `run`: the agent as a process, from its configuration to its orderly end.

mod notify;
mod prepare;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleetd_actors::shell::ShellEngine;
use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::commit::Commit;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::BootId;
use fleetd_sync_core::limit;
use fleetd_sync_core::time::Clock;
use fleetd_sync_store::disk::DiskStore;
use fleetd_sync_store::state_store::StateStore;
use fleetd_sync_transport::clock::{SystemClock, system_entropy};
use fleetd_sync_transport::endpoint::Endpoint;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::answer::{CommandError, answer};
use super::{Invocation, read_config};
use crate::artifact_files::DiskArtifactFiles;
use crate::config::{Config, ConfigArguments};
use crate::disk::OsDisk;
use crate::facts::{self, Facts};
use crate::identity_store::IdentityStore;
use crate::install::FolderInstaller;
use crate::local_api::{self, LocalApi};
use crate::node::{DeviceIdentity, Node, NodeOptions, Seams};
use crate::runner::process::{ProcessRunner, ShimCommand};
pub(super) use prepare::STORE_DIRECTORY;

/// Threads of the runtime: a device's agent does little, and little of it at once.
const WORKER_THREADS: usize = 2;
/// Threads that may wait for the disk at once.
const BLOCKING_THREADS: usize = 8;
/// Time between two looks at what the device is.
const FACTS_INTERVAL: Duration = Duration::from_secs(3600);
/// Time in which the runtime's tasks must have ended.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);

/// Runs jobs on the runtime's threads for work that waits.
struct RuntimeBlocking(Handle);

impl Blocking for RuntimeBlocking {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        drop(self.0.spawn_blocking(job));
    }
}

pub(super) fn run(arguments: &ConfigArguments, invocation: &Invocation) -> Result<(), CommandError> {
    let config = read_config(arguments, invocation)?;
    prepare::start_tracing(&config)?;
    prepare::directories(&config)?;
    let files = prepare::identity_files(&config)?;
    let token = prepare::token(&config, &files)?;
    let identity = prepare::identity(&files)?;
    let store = Arc::new(prepare::store(&config, invocation)?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| CommandError::new("agent.process", "the agent cannot start its threads").caused_by(&error))?;
    let database: Arc<dyn StateStore> = Arc::<DiskStore>::clone(&store);
    let blocking: Arc<dyn Blocking> = Arc::new(RuntimeBlocking(runtime.handle().clone()));
    let identity_store = IdentityStore::open(database, Arc::new(files), Arc::clone(&blocking)).map_err(|error| {
        let advice = format!("{} doctor", invocation.program);
        CommandError::new("agent.identity", "who this device is cannot be read").caused_by(&error).next_command(advice)
    })?;
    let agent = Agent { config, identity, token, store: Arc::new(identity_store), blocking };
    let result = runtime.block_on(agent.run_until_stopped(invocation));
    runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
    // Dropping the last handle commits what is queued and closes the store.
    if Arc::into_inner(store).is_none() {
        tracing::debug!("a task still held the store at the end");
    }
    result
}

/// All that an agent is made of.
struct Agent {
    config: Config,
    identity: DeviceIdentity,
    token: Option<fleetd_sync_core::enrolment::EnrolmentToken>,
    store: Arc<IdentityStore>,
    blocking: Arc<dyn Blocking>,
}

impl Agent {
    async fn run_until_stopped(self, invocation: &Invocation) -> Result<(), CommandError> {
        let failed = |what: &str| CommandError::new("agent.start", what.to_owned());
        let store_failure = self.watch_store();
        let mut signals = EndSignals::listen()?;
        let listener = local_api::bind(&self.config.socket.value).await.map_err(|error| {
            let advice = format!("{} status", invocation.program);
            failed("the local API cannot be served").caused_by(&error).next_command(advice)
        })?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let mut entropy = system_entropy().map_err(|error| failed("there is no randomness").caused_by(&error))?;
        let settings = self.config.network.value.settings();
        let endpoint = Endpoint::new(Handle::current(), settings, Arc::clone(&clock), entropy.stream("endpoint"));
        let commit: Arc<dyn Commit> = Arc::<IdentityStore>::clone(&self.store);
        let engine = ShellEngine::start(Arc::clone(&clock), commit).await;
        let engine = engine.map_err(|error| failed("the actors did not start").caused_by(&error))?;
        let boot = facts::boot_id().unwrap_or_else(|| BootId::random(&mut entropy));
        let facts = Facts::read(&self.config.data_directory.value, self.config.timezone.value.as_ref());
        let options = self.node_options(boot, &facts)?;
        let seams = self.seams(clock, &endpoint, entropy, invocation);
        let node = Node::start(engine.clone(), seams, options);
        let node = Arc::new(node.map_err(|error| failed("the node did not start").caused_by(&error))?);
        let local = node.local_id();
        let api = tokio::spawn(LocalApi::new(Arc::clone(&node), self.config.show()).serve(listener));
        let refresh = tokio::spawn(refresh_facts(Arc::clone(&node), facts, self.config.clone()));
        let socket = self.config.socket.value.display().to_string();
        tracing::info!(%local, socket, "the agent is up");
        if invocation.json {
            let json = serde_json::json!({ "localId": local.to_string(), "socket": socket });
            answer(true, &json, "")?;
        }
        notify::ready();
        let failure = tokio::select! {
            biased;
            () = signals.wait() => None,
            Ok(cause) = store_failure => Some(cause),
        };
        match &failure {
            None => tracing::info!("the agent ends; workloads run on"),
            Some(cause) => tracing::error!(cause, "nothing can be stored any more; the agent ends, workloads run on"),
        }
        notify::stopping();
        node.stop();
        endpoint.shut_down(limit::DRAIN_TIMEOUT).await;
        api.abort();
        refresh.abort();
        // Its removal tells the next caller at once that nobody answers; a failure would only be told by the connect.
        let _ = std::fs::remove_file(&self.config.socket.value);
        engine.stop();
        failure.map_or(Ok(()), |cause| Err(store_failed(cause, invocation)))
    }

    /// Ends when nothing can be stored any more, with the cause.
    fn watch_store(&self) -> oneshot::Receiver<String> {
        let (told, failure) = oneshot::channel();
        let told = Mutex::new(Some(told));
        self.store.on_failure(Box::new(move |cause| {
            let told = told.lock().unwrap_or_else(PoisonError::into_inner).take();
            let _ending = told.map(|told| told.send(cause)); // An agent that ends already needs no word.
        }));
        failure
    }

    fn node_options(&self, boot: BootId, facts: &Facts) -> Result<NodeOptions, CommandError> {
        let platform = facts.platform();
        let platform =
            platform.ok_or_else(|| CommandError::new("agent.start", "this device's platform has no usable name"))?;
        Ok(NodeOptions {
            identity: self.identity.clone(),
            boot,
            platform,
            facts: session_facts(facts),
            token: self.token.clone(),
            addresses: self.config.servers.value.clone(),
            spool_bytes_max: self.config.spool_bytes_max.value,
            environments: self.config.environments.clone(),
        })
    }

    fn seams(&self, clock: Arc<dyn Clock>, endpoint: &Endpoint, entropy: Entropy, invocation: &Invocation) -> Seams {
        let (data, run) = (&self.config.data_directory.value, &self.config.run_directory.value);
        Seams {
            clock,
            store: Arc::<IdentityStore>::clone(&self.store),
            link: Arc::new(endpoint.clone()),
            runner: Arc::new(ProcessRunner::new(run, ShimCommand::own(invocation.shim))),
            installer: Arc::new(FolderInstaller::new(OsDisk, data)),
            files: Arc::new(DiskArtifactFiles::new(OsDisk, data.join("artifacts"))),
            blocking: Arc::clone(&self.blocking),
            entropy,
        }
    }
}

fn store_failed(cause: String, invocation: &Invocation) -> CommandError {
    let message = "the store failed, and nothing can be kept any more; workloads run on";
    let error = CommandError::new("agent.store_failed", message);
    CommandError { cause: Some(cause), ..error }.next_command(format!("{} doctor", invocation.program))
}

fn session_facts(facts: &Facts) -> fleetd_sync_core::session::message::Facts {
    facts.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Looks from time to time at what the device is, and tells its fleet when that has changed.
async fn refresh_facts(node: Arc<Node>, mut told: Facts, config: Config) {
    let mut interval = tokio::time::interval(FACTS_INTERVAL);
    interval.tick().await;
    loop {
        interval.tick().await;
        let (data_directory, zone) = (config.data_directory.value.clone(), config.timezone.value.clone());
        let read = move || Facts::read(&data_directory, zone.as_ref());
        let Ok(facts) = tokio::task::spawn_blocking(read).await else { continue };
        if facts.differ_from(&told) {
            node.set_facts(session_facts(&facts));
            told = facts;
        }
    }
}

/// The signals that end an agent in order. Listened for from the start, so that none ends it in disorder.
struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    fn listen() -> Result<Self, CommandError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| CommandError::new("agent.process", "signals cannot be awaited").caused_by(&error))
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
