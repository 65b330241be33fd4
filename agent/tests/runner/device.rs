//! A device for tests: a run directory, a runner, and the events that it gives.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fleetd_agent::runner::line::{LineEntry, LinePosition};
use fleetd_agent::runner::process::{ProcessRunner, ShimCommand};
use fleetd_agent::runner::{ExitStatus, Found, RunLimits, RunSpec, Runner, RunnerEvent, RunnerEventKind, RunnerEvents};
use fleetd_sync_core::id::{ArtifactDigest, OperationId};
use fleetd_sync_core::name::WorkloadName;

/// Time after which something that should happen is said never to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn coffee() -> WorkloadName {
    "coffee".parse().unwrap()
}

pub(crate) fn operation() -> OperationId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = u64::from(std::process::id()) << 32;
    OperationId::from_bytes((process | number).to_be_bytes())
}

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen within {DEADLINE:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Says whether a process runs; a zombie does not.
pub(crate) fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Reads a pid that a script has written to a file of its directory.
pub(crate) fn read_pid(path: &Path) -> u32 {
    let mut pid = None;
    until("a pid file", || {
        pid = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        pid.is_some()
    });
    pid.unwrap()
}

pub(crate) fn kill(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success(), "process {pid} was not there to be killed");
}

pub(crate) fn spec(directory: &Path, script: &str) -> RunSpec {
    RunSpec {
        workload: coffee(),
        version: "1.8.0".parse().unwrap(),
        artifact: ArtifactDigest::of(script.as_bytes()),
        program: PathBuf::from("/bin/sh"),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        environment: Vec::new(),
        directory: directory.to_owned(),
        user: None,
        limits: RunLimits::default(),
    }
}

/// The test's own program, run as one of its helpers.
pub(crate) fn helper(directory: &Path, name: &str) -> RunSpec {
    RunSpec {
        program: std::env::current_exe().unwrap(),
        arguments: ["--ignored", "--exact", "--nocapture", name].map(str::to_owned).to_vec(),
        ..spec(directory, name)
    }
}

pub(crate) fn runner(run_directory: &Path) -> ProcessRunner {
    let command =
        ShimCommand { program: PathBuf::from(env!("CARGO_BIN_EXE_fleetd-agent")), arguments: vec!["shim".to_owned()] };
    ProcessRunner::new(run_directory, command)
}

/// A device whose agent can be put in another's place, while its run directory stays.
pub(crate) struct Device {
    pub(crate) home: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
    runner: Option<ProcessRunner>,
    sender: Sender<RunnerEvent>,
    events: Receiver<RunnerEvent>,
}

impl Device {
    pub(crate) fn new() -> Self {
        let (sender, events) = channel();
        let home = tempfile::tempdir().unwrap();
        let mut device = Self { home, runtime: None, runner: None, sender, events };
        device.restart_agent();
        device
    }

    /// Drops the runner and all that it knows, and makes another; events of the first are dropped with it.
    pub(crate) fn restart_agent(&mut self) {
        self.runner = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        self.runner = Some(runtime.block_on(async { runner(&self.run_directory()) }));
        self.runtime = Some(runtime);
        (self.sender, self.events) = channel();
    }

    pub(crate) fn run_directory(&self) -> PathBuf {
        self.home.path().join("run")
    }

    pub(crate) fn shim_directory(&self) -> PathBuf {
        self.run_directory().join("shims/coffee")
    }

    /// The workload's own directory.
    pub(crate) fn data(&self) -> PathBuf {
        let data = self.home.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        data
    }

    pub(crate) fn runner(&self) -> &ProcessRunner {
        self.runner.as_ref().unwrap()
    }

    pub(crate) fn events(&self) -> RunnerEvents {
        let sender = self.sender.clone();
        Arc::new(move |event| {
            // A device that has been dropped hears nothing.
            let _dropped = sender.send(event);
        })
    }

    /// Waits for an event, passing over others.
    pub(crate) fn wait<T>(&self, what: &str, mut wanted: impl FnMut(RunnerEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|error| panic!("{what}: {error}"));
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }

    /// Starts a run; answers with its pid.
    pub(crate) fn start(&self, spec: RunSpec) -> u32 {
        let operation = operation();
        self.runner().start(operation, spec, self.events());
        self.wait("the start", |event| match event.kind {
            RunnerEventKind::Started { pid } => Some(pid),
            RunnerEventKind::StartFailed { failure } => panic!("{failure}"),
            _ => None,
        })
    }

    pub(crate) fn start_failure(&self, spec: RunSpec) -> fleetd_agent::runner::StartFailure {
        self.runner().start(operation(), spec, self.events());
        self.wait("the failure", |event| match event.kind {
            RunnerEventKind::StartFailed { failure } => Some(failure),
            RunnerEventKind::Started { .. } => panic!("it has started"),
            _ => None,
        })
    }

    pub(crate) fn attach(&self) -> Found {
        self.runner().attach(operation(), &coffee(), self.events());
        self.wait("the attachment", |event| match event.kind {
            RunnerEventKind::Attached { found } => Some(found),
            _ => None,
        })
    }

    pub(crate) fn wait_for_exit(&self) -> ExitStatus {
        self.wait("the end", |event| match event.kind {
            RunnerEventKind::Exited { status } => Some(status),
            _ => None,
        })
    }

    pub(crate) fn stop(&self, grace: Duration) {
        self.runner().stop(&coffee(), grace);
    }

    pub(crate) fn read(&self, after: Option<LinePosition>) -> (Vec<LineEntry>, Option<LinePosition>) {
        let operation = operation();
        self.runner().read_lines(operation, &coffee(), after, 64 << 10, self.events());
        let batch = self.wait("the lines", |event| match event.kind {
            RunnerEventKind::LinesRead { batch } if event.operation == operation => Some(batch),
            RunnerEventKind::LinesUnreadable { cause } => panic!("{cause}"),
            _ => None,
        });
        let through = batch.through().or(after);
        (batch.entries, through)
    }

    /// Reads everything that is there; lines as text.
    pub(crate) fn lines(&self) -> Vec<String> {
        let (mut lines, mut position) = (Vec::new(), None);
        loop {
            let (entries, through) = self.read(position);
            if entries.is_empty() {
                return lines;
            }
            position = through;
            lines.extend(entries.into_iter().map(|entry| match entry {
                LineEntry::Line(line) => String::from_utf8(line.bytes).unwrap(),
                LineEntry::Gap { first, last } => format!("gap {first} to {last}"),
            }));
        }
    }
}

impl Drop for Device {
    /// Leaves no process behind, whatever the test has done.
    fn drop(&mut self) {
        self.runner().stop(&coffee(), Duration::ZERO);
        let record = std::fs::read_to_string(self.shim_directory().join("run.json")).unwrap_or_default();
        let shim = record.split_once("\"pid\":").and_then(|(_, rest)| rest.split([',', '}']).next()?.parse().ok());
        if let Some(shim) = shim.filter(|shim| *shim != std::process::id()) {
            let deadline = Instant::now() + DEADLINE;
            // Without `until`: a second panic would end the whole program.
            while runs(shim) && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An agent in a process of its own, which can be killed.
pub(crate) struct StandIn(Child);

impl StandIn {
    /// Starts an agent that starts a run of `script`, and waits until that runs.
    pub(crate) fn start(device: &Device, script: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "device::stands_in_for_an_agent"])
            .env("STAND_IN_RUN_DIRECTORY", device.run_directory())
            .env("STAND_IN_DIRECTORY", device.data())
            .env("STAND_IN_SCRIPT", script)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(stdout));
        let started = lines.map_while(Result::ok).any(|line| line.ends_with("stand-in has started"));
        assert!(started, "the stand-in has ended too early");
        Self(child)
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "run by other tests, as an agent in a process of its own"]
fn stands_in_for_an_agent() {
    let variable = |name: &str| std::env::var(name).expect("run by another test");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let (sender, events) = channel();
    let script = variable("STAND_IN_SCRIPT");
    runner(Path::new(&variable("STAND_IN_RUN_DIRECTORY"))).start(
        operation(),
        spec(Path::new(&variable("STAND_IN_DIRECTORY")), &script),
        Arc::new(move |event: RunnerEvent| sender.send(event.kind).unwrap()),
    );
    let first = events.recv().unwrap();
    assert!(matches!(first, RunnerEventKind::Started { .. }), "{first:?}");
    println!("stand-in has started");
    loop {
        std::thread::park();
    }
}
