//! One run as the agent follows it: from its start, or from where an earlier agent left it, to its end.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::id::OperationId;
use fleetd_sync_core::name::WorkloadName;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::conversation::Watching;
use super::{Active, Follow, Shared, send};
use crate::facts;
use crate::probe::ProbeSurroundings;
use crate::runner::line::LinePosition;
use crate::runner::{ExitStatus, Found, RunSpec, RunnerEventKind, RunnerEvents, StartFailure};
use crate::shim::protocol::{MESSAGE_BYTES_MAX, ShimState, StartReport};
use crate::shim::run_directory::{RunDirectory, read_json, write_json};
use crate::shim::spec::{RunRecord, ShimSpec};
use crate::shim::{self, RUN_VARIABLE, find_user, kill_leftovers, last_position};

/// Time in which a shim must have said whether its start succeeded: a busy device with a slow disk.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Time in which a shim that holds its directory must be known by its record and answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// Pause between two looks at a shim that is about to begin, or about to end.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Follows one run and tells what it does.
struct Follower {
    shared: Arc<Shared>,
    workload: WorkloadName,
    directory: RunDirectory,
    run: OperationId,
    events: RunnerEvents,
    active: Active,
    told: ShimState,
}

/// Starts a run and follows it to its end.
pub(super) async fn start(
    shared: Arc<Shared>,
    follow: Follow,
    operation: OperationId,
    spec: RunSpec,
    events: RunnerEvents,
) {
    let workload = spec.workload.clone();
    let Follow::Ours(active) = follow else {
        let failure = StartFailure::AlreadyRunning { workload: workload.clone() };
        return send(&events, operation, &workload, RunnerEventKind::StartFailed { failure });
    };
    let directory = shared.directory(&workload);
    match start_shim(&shared, operation, spec, &directory).await {
        Ok((pid, before)) => {
            let told = ShimState {
                run: operation.to_string(),
                pid: Some(pid),
                lines_stamp: before.stamp.0,
                lines_through: before.sequence,
                ..ShimState::default()
            };
            send(&events, operation, &workload, RunnerEventKind::Started { pid });
            Follower { shared, workload, directory, run: operation, events, active, told }.follow(None).await;
        }
        Err(failure) => {
            shared.unfollow(&workload, operation);
            send(&events, operation, &workload, RunnerEventKind::StartFailed { failure });
        }
    }
}

/// Starts a shim; answers with the workload's process, and with the last line of the runs before.
async fn start_shim(
    shared: &Arc<Shared>,
    operation: OperationId,
    spec: RunSpec,
    directory: &RunDirectory,
) -> Result<(u32, LinePosition), StartFailure> {
    let (workload, program) = (spec.workload.clone(), spec.program.display().to_string());
    let failed = |cause: String| StartFailure::Shim { workload: workload.clone(), cause };
    let shim_spec = ShimSpec::new(operation.to_string(), spec, shared.command.arguments.clone());
    let prepared = spawn_blocking({
        let directory = directory.clone();
        move || prepare(&directory, &shim_spec)
    });
    let before = match prepared.await {
        Ok(Ok(Some(before))) => before,
        Ok(Ok(None)) => return Err(StartFailure::AlreadyRunning { workload }),
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(error) => return Err(failed(error.to_string())),
    };
    let mut shim = Command::new(&shared.command.program)
        .args(&shared.command.arguments)
        .arg("--directory")
        .arg(directory.path())
        .args(["--run", &operation.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let stdout = shim.stdout.take();
    // Waited for, so that it leaves no zombie; if the agent ends first, init waits for it.
    let ended = tokio::spawn(async move { shim.wait().await });
    let report = match stdout {
        Some(stdout) => timeout(START_DEADLINE, read_report(stdout)).await,
        None => Ok(None),
    };
    if !matches!(report, Ok(Some(StartReport::Started { .. })) | Err(_)) {
        // It holds the directory until it ends, and whoever hears of the failure may start again.
        let _hangs = timeout(ANSWER_DEADLINE, ended).await;
    }
    match report {
        Ok(Some(StartReport::Started { pid })) => Ok((pid, before)),
        Ok(Some(StartReport::AlreadyRunning)) => Err(StartFailure::AlreadyRunning { workload }),
        Ok(Some(StartReport::ExecuteFailed { cause })) => Err(StartFailure::Execute { program, cause }),
        Ok(Some(StartReport::ShimFailed { cause })) => Err(failed(cause)),
        Ok(None) => Err(failed("it ended without a word".to_owned())),
        Err(_elapsed) => Err(failed(format!("it said nothing for {START_DEADLINE:?}"))),
    }
}

/// Makes a directory ready for a run, and says where its lines are to go on; `None` when a shim holds it.
fn prepare(directory: &RunDirectory, spec: &ShimSpec) -> io::Result<Option<LinePosition>> {
    directory.create()?;
    if directory.is_held()? {
        return Ok(None);
    }
    end_leftovers(directory)?;
    write_json(&directory.spec_file(), spec)?;
    // Lines that cannot be read are no reason not to start: at worst some are told again.
    Ok(Some(last_position(&directory.lines()).ok().flatten().unwrap_or_default()))
}

/// Ends what is left of a run whose shim is gone without having written how it ended.
fn end_leftovers(directory: &RunDirectory) -> io::Result<()> {
    if let Some(record) = read_json::<RunRecord>(&directory.run_file())?
        && record.exit.is_none()
        && record.is_of_this_boot()
    {
        kill_leftovers(&record.run);
    }
    Ok(())
}

async fn read_report(stdout: ChildStdout) -> Option<StartReport> {
    let mut line = Vec::new();
    BufReader::new(stdout.take(MESSAGE_BYTES_MAX)).read_until(b'\n', &mut line).await.ok()?;
    serde_json::from_slice(&line).ok()
}

impl RunRecord {
    fn is_of_this_boot(&self) -> bool {
        facts::boot_id().is_some_and(|boot| boot.to_string() == self.boot)
    }
}

/// Looks for a run, says what was found, and follows it to its end if it goes on.
pub(super) async fn attach(
    shared: Arc<Shared>,
    follow: Follow,
    operation: OperationId,
    workload: WorkloadName,
    events: RunnerEvents,
) {
    let directory = shared.directory(&workload);
    let active = match follow {
        Follow::Ours(active) => active,
        Follow::Followed(other) => {
            let found = wait_for_found(other.found.subscribe()).await;
            return send(&events, operation, &workload, RunnerEventKind::Attached { found });
        }
    };
    if let Some((run, watching, state)) = find_shim(&directory).await {
        let found = Found::Running { run, pid: state.pid.unwrap_or(0), ready: state.ready, lines: state.lines() };
        send(&events, operation, &workload, RunnerEventKind::Attached { found });
        return Follower { shared, workload, directory, run, events, active, told: state }.follow(watching).await;
    }
    let ended = spawn_blocking({
        let directory = directory.clone();
        move || find_ended(&directory)
    });
    let found = ended.await.ok().and_then(Result::ok).unwrap_or(Found::Gone);
    shared.unfollow(&workload, operation);
    active.found.send_replace(Some(found.clone()));
    send(&events, operation, &workload, RunnerEventKind::Attached { found });
}

/// Waits until another follower knows what its run is.
async fn wait_for_found(mut found: watch::Receiver<Option<Found>>) -> Found {
    match timeout(START_DEADLINE, found.wait_for(Option::is_some)).await {
        Ok(Ok(found)) => found.clone().unwrap_or(Found::Gone),
        _ => Found::Gone,
    }
}

/// Finds a shim that is alive, and hears its first word. One that is about to begin or to end is waited for; one that
/// says nothing is taken for what it is, alive.
async fn find_shim(directory: &RunDirectory) -> Option<(OperationId, Option<Watching>, ShimState)> {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    while directory.is_held().unwrap_or(false) {
        let record = read_json::<RunRecord>(&directory.run_file()).ok().flatten();
        // The lock says that a shim is alive; this says that it is the one of the record.
        let record = record.filter(|record| record.is_of_this_boot() && record.shim.is_alive());
        let run = record.as_ref().and_then(|record| record.run.parse().ok());
        if let Some((run, record)) = run.zip(record) {
            if let Ok(mut watching) = Watching::connect(&directory.socket()).await
                && let Ok(Some(state)) = timeout(ANSWER_DEADLINE, watching.next()).await
                // Until it has been executed its process is the second stage.
                && state.pid.is_some()
            {
                return Some((run, Some(watching), state));
            }
            if Instant::now() >= deadline {
                let pid = record.child.map(|child| child.pid);
                return Some((run, None, ShimState { run: record.run, pid, ..ShimState::default() }));
            }
        } else if Instant::now() >= deadline {
            return None;
        }
        sleep(LOOK_PAUSE).await;
    }
    None
}

/// Reads how a run ended whose shim is gone.
fn find_ended(directory: &RunDirectory) -> io::Result<Found> {
    let Some(record) = read_json::<RunRecord>(&directory.run_file())? else { return Ok(Found::Gone) };
    let Ok(run) = record.run.parse() else { return Ok(Found::Gone) };
    if let Some(exit) = record.exit {
        return Ok(Found::Exited { run, status: exit.into() });
    }
    if !record.is_of_this_boot() {
        return Ok(Found::Gone);
    }
    kill_leftovers(&record.run);
    Ok(Found::Exited { run, status: ExitStatus::Lost })
}

impl Follower {
    async fn follow(mut self, mut watching: Option<Watching>) {
        let mut stop = self.active.stop.subscribe();
        // Reset, so that a stop that was asked for before the first word is not missed.
        stop.mark_changed();
        self.publish_found();
        loop {
            if let Some(shim) = &mut watching {
                tokio::select! {
                    biased;
                    state = shim.next() => match state {
                        Some(state) => self.tell(state),
                        None => watching = None,
                    },
                    Ok(()) = stop.changed() => {
                        let grace = *stop.borrow_and_update();
                        if let Some(grace) = grace
                            && shim.stop(grace).await.is_err()
                        {
                            watching = None;
                            stop.mark_changed();
                        }
                    }
                }
                continue;
            }
            if !self.directory.is_held().unwrap_or(false) {
                break;
            }
            match Watching::connect(&self.directory.socket()).await {
                Ok(shim) => {
                    watching = Some(shim);
                    // The shim may not have heard it.
                    stop.mark_changed();
                }
                Err(_beginning_or_ending) => sleep(LOOK_PAUSE).await,
            }
        }
        self.finish().await;
    }

    /// Tells what has changed since the last state.
    fn tell(&mut self, state: ShimState) {
        let before = std::mem::replace(&mut self.told, state);
        let state = self.told.clone();
        if state.ready && !before.ready {
            self.send(RunnerEventKind::Ready);
        }
        if let Some(text) = state.status_text.clone().filter(|text| before.status_text.as_ref() != Some(text)) {
            self.send(RunnerEventKind::StatusChanged { text });
        }
        if state.watchdog_kicks > before.watchdog_kicks {
            self.send(RunnerEventKind::WatchdogKicked);
        }
        self.tell_lines(before.lines(), state.lines());
        self.publish_found();
    }

    fn tell_lines(&self, before: LinePosition, through: LinePosition) {
        // A log that has just begun has a stamp and no line.
        if through != before && through.sequence > 0 {
            self.send(RunnerEventKind::LinesWritten { through });
        }
    }

    fn publish_found(&self) {
        if let Some(pid) = self.told.pid {
            let (run, ready, lines) = (self.run, self.told.ready, self.told.lines());
            self.active.found.send_replace(Some(Found::Running { run, pid, ready, lines }));
        }
    }

    /// The shim is gone: tells its last lines and how the run ended.
    async fn finish(self) {
        let directory = self.directory.clone();
        let ended = spawn_blocking(move || (find_ended(&directory), last_position(&directory.lines())));
        let (found, lines) = match ended.await {
            Ok((found, lines)) => (found.unwrap_or(Found::Gone), lines.ok().flatten()),
            Err(_panicked) => (Found::Gone, None),
        };
        if let Some(through) = lines {
            self.tell_lines(self.told.lines(), through);
        }
        let status = match found {
            Found::Exited { run, status } if run == self.run => status,
            _ => ExitStatus::Lost,
        };
        // Before the event: whoever hears of the end may start the next run.
        self.shared.unfollow(&self.workload, self.active.follower);
        self.active.found.send_replace(Some(Found::Exited { run: self.run, status }));
        self.send(RunnerEventKind::Exited { status });
    }

    fn send(&self, kind: RunnerEventKind) {
        send(&self.events, self.run, &self.workload, kind);
    }
}

/// Reads how a workload runs, so that its probe's program runs alike.
pub(super) fn surroundings(directory: &RunDirectory) -> ProbeSurroundings {
    let Ok(Some(spec)) = read_json::<ShimSpec>(&directory.spec_file()) else { return ProbeSurroundings::default() };
    let mut environment = vec![("PATH".to_owned(), shim::DEFAULT_PATH.to_owned())];
    environment.extend(spec.environment);
    // With the run's mark, so that it is ended with the run's leftovers.
    environment.push((RUN_VARIABLE.to_owned(), spec.run));
    ProbeSurroundings { directory: spec.directory, environment, user: spec.user.as_deref().and_then(find_user) }
}
