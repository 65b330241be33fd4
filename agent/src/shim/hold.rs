//! The shim's first stage: holds a workload from its start to its end.

mod child;
mod conversation;
pub(crate) mod notify;

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetd_sync_core::id::Stamp;
use fleetd_sync_core::time::Wall;
use nix::sys::prctl;
use nix::unistd;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixDatagram, UnixListener, unix::pipe};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::ShimArguments;
use super::line_log::LineWriter;
use super::line_splitter::LineSplitter;
use super::process::{ProcessIdentity, kill_children};
use super::protocol::{ShimState, StartReport, encode_line};
use super::run_directory::{RunDirectory, read_json, write_json};
use super::spec::{ExitRecord, RunRecord, ShimSpec};
use crate::facts;
use crate::runner::line::LineSource;
use child::{Child, Reaped};
use conversation::Asked;

/// Tries to take the directory's lock, which the agent holds for an instant when it looks whether a shim is alive.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Grace when the shim itself is asked to end, as at the device's shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Time in which killed processes must be gone; only one that hangs in the kernel takes longer.
const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks for what a killed process left behind.
const KILL_PAUSE: Duration = Duration::from_millis(5);
/// Time to read what is left in the pipes once every process is gone: an end that was passed to a stranger stays open.
const DRAIN_DEADLINE: Duration = Duration::from_secs(1);
/// Requests that wait for the shim.
const REQUESTS_MAX: usize = 16;
/// Bytes read at once from a workload's output: what a pipe holds.
const READ_BYTES: usize = 64 << 10;

/// Holds a workload from its start to its end.
pub(super) fn run(arguments: &ShimArguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(hold(arguments)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&StartReport::ShimFailed { cause: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

/// Tells the agent that waits for it how the start went. If nobody waits any more, nobody needs to know.
fn report(report: &StartReport) {
    let mut stdout = io::stdout().lock();
    let _unheard = stdout.write_all(&encode_line(report)).and_then(|()| stdout.flush());
}

async fn hold(arguments: &ShimArguments) -> io::Result<()> {
    let directory = RunDirectory::at(&arguments.directory);
    directory.create()?;
    let mut tries = 0;
    let _lock = loop {
        match directory.try_lock()? {
            Some(lock) => break lock,
            None if tries < LOCK_TRIES => sleep(LOCK_PAUSE).await,
            None => {
                report(&StartReport::AlreadyRunning);
                return Ok(());
            }
        }
        tries += 1;
    };
    let run = arguments.run.to_string();
    let spec: ShimSpec = read_json(&directory.spec_file())?
        .filter(|spec: &ShimSpec| spec.run == run)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the spec is another run's"))?;
    // Fails only for a leader of a process group, as one that was started from a shell by hand: it leads already.
    let _leads_already = unistd::setsid();
    prctl::set_child_subreaper(true)?;
    Holder::open(directory, run, spec)?.run().await
}

/// One run, and all that its shim holds of it.
struct Holder {
    directory: RunDirectory,
    spec: ShimSpec,
    record: RunRecord,
    lines: LineWriter,
    stdout: LineSplitter,
    stderr: LineSplitter,
    notify: UnixDatagram,
    asked: mpsc::Receiver<Asked>,
    state: watch::Sender<ShimState>,
    /// When what is left of the run is killed.
    kill_at: Option<Instant>,
    /// The agent has been told whether the start succeeded.
    reported: bool,
}

impl Holder {
    fn open(directory: RunDirectory, run: String, spec: ShimSpec) -> io::Result<Self> {
        let shim = ProcessIdentity::of(std::process::id())
            .ok_or_else(|| io::Error::other("/proc does not show this process"))?;
        let boot = facts::boot_id().map(|boot| boot.to_string()).unwrap_or_default();
        let record = RunRecord { run: run.clone(), boot, shim, child: None, exit: None };
        write_json(&directory.run_file(), &record)?;
        let lines = LineWriter::open(&directory.lines(), spec.line_bytes_max, fresh_stamp()?)?;
        let notify = notify::bind(&directory.notify_socket(), spec.user.as_deref())?;
        let listener = bind_private(&directory.socket())?;
        let position = lines.position();
        let state = watch::Sender::new(ShimState {
            run,
            lines_stamp: position.stamp.0,
            lines_through: position.sequence,
            ..ShimState::default()
        });
        let (ask, asked) = mpsc::channel(REQUESTS_MAX);
        tokio::spawn(conversation::accept(listener, ask, state.subscribe()));
        Ok(Self {
            directory,
            spec,
            record,
            lines,
            stdout: LineSplitter::default(),
            stderr: LineSplitter::default(),
            notify,
            asked,
            state,
            kill_at: None,
            reported: false,
        })
    }

    async fn run(mut self) -> io::Result<()> {
        let mut child_changed = signal(SignalKind::child())?;
        let mut shutdown = signal(SignalKind::terminate())?;
        let (mut child, stdout, stderr) = child::spawn(&self.directory, &self.spec)?;
        self.record.child = ProcessIdentity::of(child.pid());
        write_json(&self.directory.run_file(), &self.record)?;
        let (mut stdout, mut stderr) = (Some(stdout), Some(stderr));
        let (mut buffer, mut errors) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
        let mut message = vec![0; notify::MESSAGE_BYTES_MAX];
        loop {
            tokio::select! {
                biased;
                _ = child_changed.recv() => match child.reap() {
                    Reaped::Running => {}
                    Reaped::Ended => break,
                    Reaped::Left => {
                        // A stop gives those that are left the rest of its grace; otherwise their time is over.
                        if self.kill_at.is_none() {
                            break;
                        }
                    }
                },
                () = sleep_until(self.kill_at.unwrap_or_else(Instant::now)), if self.kill_at.is_some() => break,
                _ = shutdown.recv() => self.stop(&child, SHUTDOWN_GRACE),
                Some(asked) = self.asked.recv() => self.answer(&child, asked),
                received = self.notify.recv(&mut message) => {
                    if let Ok(length) = received {
                        self.state.send_if_modified(|state| {
                            notify::take(message.get(..length).unwrap_or_default(), state)
                        });
                    }
                }
                length = read(&mut stdout, &mut buffer) => self.take(LineSource::Stdout, &buffer, length),
                length = read(&mut stderr, &mut errors) => self.take(LineSource::Stderr, &errors, length),
            }
        }
        self.end(child, stdout, stderr).await
    }

    /// Kills what is left, reads what is left, and writes down how it ended.
    async fn end(
        mut self,
        mut child: Child,
        mut stdout: Option<pipe::Receiver>,
        mut stderr: Option<pipe::Receiver>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + KILL_DEADLINE;
        let mut buffer = vec![0; READ_BYTES];
        while child.reap() != Reaped::Ended && Instant::now() < deadline {
            child.signal_group(nix::sys::signal::Signal::SIGKILL);
            kill_children();
            sleep(KILL_PAUSE).await;
        }
        let drain = async {
            while stdout.is_some() {
                let length = read(&mut stdout, &mut buffer).await;
                self.take(LineSource::Stdout, &buffer, length);
            }
            while stderr.is_some() {
                let length = read(&mut stderr, &mut buffer).await;
                self.take(LineSource::Stderr, &buffer, length);
            }
        };
        let _all_read = timeout(DRAIN_DEADLINE, drain).await;
        self.finish_lines();
        let exit = child.exit().unwrap_or(ExitRecord::Signal(nix::libc::SIGKILL));
        // The second stage's answer was sent before its end, and may have been overtaken by it.
        while let Ok(asked) = self.asked.try_recv() {
            self.answer(&child, asked);
        }
        self.record.exit = Some(exit);
        write_json(&self.directory.run_file(), &self.record)?;
        self.report_once(StartReport::Started { pid: child.pid() });
        remove_sockets(&self.directory);
        Ok(())
    }

    fn answer(&mut self, child: &Child, asked: Asked) {
        match asked {
            Asked::Stop { grace } => self.stop(child, grace),
            Asked::Executed => {
                let pid = child.pid();
                self.state.send_modify(|state| state.pid = Some(pid));
                self.report_once(StartReport::Started { pid });
            }
            Asked::ExecuteFailed { cause } => self.report_once(StartReport::ExecuteFailed { cause }),
        }
    }

    fn report_once(&mut self, outcome: StartReport) {
        if !self.reported {
            self.reported = true;
            report(&outcome);
        }
    }

    /// Asks the process group to end, and sets the time at which it has to. A later stop can only shorten it.
    fn stop(&mut self, child: &Child, grace: Duration) {
        child.signal_group(nix::sys::signal::Signal::SIGTERM);
        // One that is stopped (SIGSTOP) takes no TERM before it goes on.
        child.signal_group(nix::sys::signal::Signal::SIGCONT);
        let kill_at = Instant::now() + grace;
        self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
    }

    fn take(&mut self, source: LineSource, buffer: &[u8], length: usize) {
        let bytes = buffer.get(..length).unwrap_or_default();
        let wall = wall_now();
        let lines = &mut self.lines;
        let splitter = match source {
            LineSource::Stdout => &mut self.stdout,
            LineSource::Stderr => &mut self.stderr,
        };
        // A line that the disk does not take is missing by its number, and the reader sees a gap.
        splitter.push(bytes, |line, cut| {
            let _missing = lines.append(wall, source, cut, line);
        });
        self.flush_lines();
    }

    fn finish_lines(&mut self) {
        let wall = wall_now();
        let lines = &mut self.lines;
        self.stdout.finish(|line, cut| {
            let _missing = lines.append(wall, LineSource::Stdout, cut, line);
        });
        self.stderr.finish(|line, cut| {
            let _missing = lines.append(wall, LineSource::Stderr, cut, line);
        });
        self.flush_lines();
    }

    fn flush_lines(&mut self) {
        let _missing = self.lines.flush();
        let through = self.lines.position().sequence;
        self.state.send_if_modified(|state| std::mem::replace(&mut state.lines_through, through) != through);
    }
}

/// Reads once from a pipe and says how much came; closes it at its end. Waits for ever on one that is closed.
async fn read(pipe: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> usize {
    let Some(receiver) = pipe else { return std::future::pending().await };
    match receiver.read(buffer).await {
        Ok(length) if length > 0 => length,
        // Its end, or a pipe that cannot be read any more.
        _ => {
            *pipe = None;
            0
        }
    }
}

fn bind_private(path: &Path) -> io::Result<UnixListener> {
    remove_socket(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Removes a socket that an earlier shim left; one that is not there is no error, and another error shows at bind.
fn remove_socket(path: &Path) {
    let _shows_at_bind = std::fs::remove_file(path);
}

fn remove_sockets(directory: &RunDirectory) {
    remove_socket(&directory.socket());
    remove_socket(&directory.notify_socket());
}

fn fresh_stamp() -> io::Result<Stamp> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Stamp(u64::from_le_bytes(bytes)))
}

fn wall_now() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
