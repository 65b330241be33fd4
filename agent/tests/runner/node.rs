//! A whole node with real processes: booted from a folder alone, steered over its socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::log_record::LogRecord;
use fleetd_actors::shell::ShellEngine;
use fleetd_actors::workload::Command;
use fleetd_agent::artifact_files::DiskArtifactFiles;
use fleetd_agent::disk::OsDisk;
use fleetd_agent::install::{FolderInstaller, Installer as _, Slot, Staging};
use fleetd_agent::local_api::{self, AskAgentError, LocalApi, LocalClient, ServeLocalApiError, ShownWorkload};
use fleetd_agent::node::{DeviceIdentity, Node, NodeOptions, Seams};
use fleetd_agent::record::decode_spool_entry;
use fleetd_sync_core::blocking::Blocking;
use fleetd_sync_core::commit::Commit;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ArtifactDigest, BootId, FleetId, RequestId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::name::Platform;
use fleetd_sync_core::release::{Artifact, Manifest, Probe};
use fleetd_sync_core::time::{Clock, ClockQuality, Monotonic, Now, Wall};
use fleetd_sync_store::memory::MemoryStore;
use fleetd_sync_store::state_store::{LogPart, StateStore as _};
use fleetd_sync_transport::clock::{SystemClock, system_entropy};
use fleetd_sync_transport::endpoint::{Endpoint, Settings, verify_server};
use tokio::runtime::{Handle, Runtime};

use crate::device::{DEADLINE, coffee, runner, runs, until};

/// Runs jobs on the runtime's threads for work that waits.
struct OnRuntime(Handle);

impl Blocking for OnRuntime {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        drop(self.0.spawn_blocking(job));
    }
}

/// One life of an agent.
struct Agent {
    runtime: Runtime,
    client: LocalClient,
}

/// A clock that somebody set.
struct SetClock {
    system: SystemClock,
    wall: Wall,
}

impl Clock for SetClock {
    fn now(&self) -> Now {
        let Now { monotonic, .. } = self.system.now();
        Now { monotonic, wall: self.wall + monotonic.since(Monotonic(0)), quality: ClockQuality::Floor }
    }
}

impl Agent {
    fn start(home: &Path, store: &MemoryStore) -> Self {
        Self::start_at(home, store, Arc::new(SystemClock::default()))
    }

    fn start_at(home: &Path, store: &MemoryStore, clock: Arc<dyn Clock>) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let commit: Arc<dyn Commit> = Arc::new(store.clone());
            let engine = ShellEngine::start(Arc::clone(&clock), commit).await.unwrap();
            let entropy = system_entropy().unwrap();
            let link =
                Endpoint::new(Handle::current(), Settings::default(), Arc::clone(&clock), entropy.stream("endpoint"));
            let seams = Seams {
                clock,
                store: Arc::new(store.clone()),
                link: Arc::new(link),
                runner: Arc::new(runner(home)),
                installer: Arc::new(FolderInstaller::new(OsDisk, home)),
                files: Arc::new(DiskArtifactFiles::new(OsDisk, home.join("artifacts"))),
                blocking: Arc::new(OnRuntime(Handle::current())),
                entropy,
            };
            let node = Arc::new(Node::start(engine, seams, options()).unwrap());
            let socket = home.join("agent.sock");
            let listener = local_api::bind(&socket).await.unwrap();
            assert!(matches!(local_api::bind(&socket).await, Err(ServeLocalApiError::InUse { .. })));
            tokio::spawn(LocalApi::new(node, Vec::new()).serve(listener));
            LocalClient::connect(&socket).await.unwrap()
        });
        Self { runtime, client }
    }

    /// Ends as a kill does: workloads go on. What it listened at is free after that.
    fn end(self) {
        self.runtime.shutdown_timeout(Duration::from_secs(10));
    }

    /// Watches the workload until it is as it should be.
    fn until(&mut self, is_right: impl Fn(&ShownWorkload) -> bool) -> ShownWorkload {
        let client = &mut self.client;
        let mut found = None;
        let watch = client.watch(|status| {
            found = status.workloads.into_iter().find(|workload| workload.name == "coffee" && is_right(workload));
            if found.is_some() { Err(Ended::Seen) } else { Ok(()) }
        });
        let ended = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, watch).await });
        assert!(matches!(ended, Ok(Err(Ended::Seen))), "the workload did not become what it should be");
        found.unwrap()
    }

    fn command(&mut self, command: Command, request: RequestId) -> Result<Option<ShownWorkload>, AskAgentError> {
        self.runtime.block_on(self.client.command(request, &coffee(), command))
    }
}

#[derive(Debug)]
enum Ended {
    Seen,
    Failed,
}

impl From<AskAgentError> for Ended {
    fn from(_: AskAgentError) -> Self {
        Self::Failed
    }
}

fn options() -> NodeOptions {
    let key = SecretKey::generate(&mut Entropy::from_seed([1; 32]));
    NodeOptions {
        identity: DeviceIdentity { key, csr: Vec::new(), sealing_key: [0; 32], verify: verify_server },
        boot: BootId::from_bytes([2; 16]),
        platform: "linux/amd64".parse().unwrap(),
        facts: [].into(),
        token: None,
        addresses: Vec::new(),
        spool_bytes_max: 1 << 20,
        environments: [].into(),
    }
}

fn request(number: u8) -> RequestId {
    RequestId::from_bytes([number; 16])
}

/// Installs a release by hand: nothing but its folder knows of it.
fn install(home: &Path, script: &str) {
    let artifact_file = home.join("brought-by-hand");
    std::fs::write(&artifact_file, script).unwrap();
    let digest = ArtifactDigest::of(script.as_bytes());
    let size_bytes = u64::try_from(script.len()).unwrap();
    let artifact = Artifact { digest, size_bytes, file_name: "coffee".to_owned() };
    let manifest = Manifest {
        fleet: FleetId::from_bytes([3; 16]),
        workload: coffee(),
        version: "1.8.0".parse().unwrap(),
        artifacts: [(Platform::any(), artifact)].into(),
        argv: Vec::new(),
        environment: [].into(),
        probe: Probe::default(),
        user: None,
        stop_grace: DEADLINE,
    };
    let manifest = manifest.sign(&SecretKey::generate(&mut Entropy::from_seed([4; 32]))).unwrap().encode();
    let slot = Slot { version: "1.8.0".parse().unwrap(), artifact: digest, configuration: None };
    let installer = FolderInstaller::new(OsDisk, home);
    let staging = Staging {
        workload: coffee(),
        slot: slot.clone(),
        artifact_file,
        manifest,
        configuration: None,
        files: [].into(),
        verdict: b"by hand".to_vec(),
    };
    installer.stage(&staging).unwrap();
    installer.switch(&coffee(), &slot).unwrap();
}

const SCRIPT: &str = "#!/bin/sh\nenv > environment\ntrap 'exit 0' TERM\nwhile :; do sleep 1 & wait $!; done\n";

#[test]
fn a_folder_alone_boots_its_workload_and_the_socket_steers_it() {
    let home = tempfile::tempdir().unwrap();
    install(home.path(), SCRIPT);
    let store = MemoryStore::immediate();
    let mut agent = Agent::start(home.path(), &store);
    let running = agent.until(|workload| workload.pid.is_some());
    assert_eq!((running.version.as_str(), running.run.as_str()), ("1.8.0", "running"));
    let pid = running.pid.unwrap();
    let environment = home.path().join("workloads/coffee/data/environment");
    until("the program's environment", || {
        std::fs::read_to_string(&environment).is_ok_and(|text| text.contains("FLEETD_VERSION=1.8.0"))
    });

    agent.end();
    let mut agent = Agent::start(home.path(), &store);
    assert_eq!(agent.until(|workload| workload.pid.is_some()).pid, Some(pid), "the program was left alone");

    agent.command(Command::Stop, request(1)).unwrap();
    let stopped = agent.until(|workload| workload.pid.is_none() && workload.stopped_locally);
    assert_eq!(stopped.run, "stopped");
    until("the end of the program", || !runs(pid));

    agent.end();
    let mut agent = Agent::start(home.path(), &store);
    let still = agent.until(|workload| workload.run == "stopped");
    assert!(still.stopped_locally && still.pid.is_none(), "a stop outlives the agent");

    agent.command(Command::Start, request(2)).unwrap();
    let first = agent.until(|workload| workload.pid.is_some()).pid.unwrap();
    agent.command(Command::Restart, request(3)).unwrap();
    let second = agent.until(|workload| workload.pid.is_some_and(|pid| pid != first)).pid.unwrap();
    // The same request again changes nothing; the stop behind it is the proof that nothing was queued.
    let repeated = agent.command(Command::Restart, request(3)).unwrap().unwrap();
    assert_eq!(repeated.pid, Some(second));
    agent.command(Command::Stop, request(4)).unwrap();
    agent.until(|workload| workload.pid.is_none());
    until("the end of the program", || !runs(second));
    agent.end();
}

/// The lines that are spooled, each with how far its date can be trusted.
fn spooled(store: &MemoryStore) -> Vec<(String, ClockQuality)> {
    let mut lines = Vec::new();
    for log in store.list_logs("", None, usize::MAX).unwrap() {
        for part in store.read_log(&log, 0, usize::MAX).unwrap() {
            let LogPart::Entry { entry, .. } = part else { continue };
            let Some((_, batch)) = decode_spool_entry(&coffee(), &entry) else { continue };
            lines.extend(batch.records.into_iter().filter_map(|record| match record {
                LogRecord::Line(line) => Some((String::from_utf8(line.body).unwrap(), line.quality)),
                LogRecord::Gap { .. } => None,
            }));
        }
    }
    lines
}

#[test]
fn lines_are_dated_by_no_clock_that_went_back_since_the_last_start() {
    const NOON: Wall = Wall(1_900_000_000_000);
    const MORNING: Wall = Wall(NOON.0 - 3 * 3600 * 1000);
    let home = tempfile::tempdir().unwrap();
    install(
        home.path(),
        "#!/bin/sh\necho before\nwhile [ ! -e later ]; do sleep 0.1; done\necho after\nexec sleep 60\n",
    );
    let store = MemoryStore::immediate();
    let at = |wall| Arc::new(SetClock { system: SystemClock::default(), wall });
    let mut agent = Agent::start_at(home.path(), &store, at(NOON));
    agent.until(|workload| workload.pid.is_some());
    until("the first line", || spooled(&store).len() == 1);
    agent.end();

    let mut agent = Agent::start_at(home.path(), &store, at(MORNING));
    std::fs::write(home.path().join("workloads/coffee/data/later"), "").unwrap();
    until("the second line", || spooled(&store).len() == 2);
    let line = |text: &str, quality| (text.to_owned(), quality);
    assert_eq!(spooled(&store), [line("before", ClockQuality::Floor), line("after", ClockQuality::None)]);
    agent.command(Command::Stop, request(1)).unwrap();
    agent.until(|workload| workload.pid.is_none());
    agent.end();
}

#[test]
fn a_command_for_a_workload_that_is_not_there_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(home.path(), &MemoryStore::immediate());
    let refused = agent.command(Command::Stop, request(1));
    assert!(matches!(refused, Err(AskAgentError::Refused { is_unknown: true, .. })), "{refused:?}");
    agent.end();
}

#[test]
fn a_socket_where_nobody_answers_is_named() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("agent.sock");
    let runtime = Runtime::new().unwrap();
    let error = runtime.block_on(LocalClient::connect(&socket)).unwrap_err();
    assert!(error.to_string().contains(socket.to_str().unwrap()), "{error}");
    let long = home.path().join("s".repeat(120));
    let refused = runtime.block_on(local_api::bind(&long));
    assert!(matches!(refused, Err(ServeLocalApiError::PathTooLong { .. })));
}
