//! Where the demo plays: a directory of its own, and the processes in it. Both are gone when it ends, however it ends.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::failure::StepError;
use super::sweep;

/// Time in which a server and its agents end when they are asked to.
const END_GRACE: Duration = Duration::from_secs(5);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Lines of each process that a failure shows.
const LAST_LINES: usize = 5;

/// A directory and the processes that run in it.
#[derive(Debug)]
pub(super) struct Stage {
    program: PathBuf,
    directory: TempDir,
    running: Mutex<Vec<Running>>,
    is_kept: bool,
}

/// A process that must not end by itself.
#[derive(Debug)]
struct Running {
    name: String,
    child: Child,
}

impl Stage {
    /// Makes the directory. `program` is what its processes run.
    pub(super) fn set_up(program: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("fleetd-demo-").tempdir()?;
        Ok(Self { program: program.to_owned(), directory, running: Mutex::default(), is_kept: false })
    }

    /// The directory.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Where the operator's contexts lie.
    pub(super) fn config_directory(&self) -> PathBuf {
        self.path("config")
    }

    /// The program that all of them run.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Gives a process of this stage its surroundings: nothing that the caller has set for other fleets.
    pub(super) fn surroundings(&self) -> impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)> {
        let kept = std::env::vars_os()
            .filter(|(name, _)| name == "FLEETD_LOG" || !name.to_string_lossy().starts_with("FLEETD_"));
        kept.chain([("FLEETD_CONFIG_DIR".into(), self.config_directory().into())])
    }

    /// Starts a process that is to run until the stage is cleared. Its standard output goes to `NAME.out`, its
    /// standard error to `NAME.log`.
    pub(super) fn start(&self, name: &str, arguments: &[&str]) -> Result<(), StepError> {
        let start = || -> io::Result<Child> {
            let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log")))?;
            Command::new(&self.program)
                .args(arguments)
                .env_clear()
                .envs(self.surroundings())
                .current_dir(self.directory())
                .stdin(Stdio::null())
                .stdout(File::create(self.path(&format!("{name}.out")))?)
                .stderr(log)
                // So that Ctrl-C on the terminal reaches the demo alone, which then ends them in order.
                .process_group(0)
                .spawn()
        };
        let child = start().map_err(|source| StepError::Start { what: name.to_owned(), source })?;
        self.running().push(Running { name: name.to_owned(), child });
        Ok(())
    }

    /// Ends one process.
    pub(super) fn stop(&self, name: &str) {
        let mut running = self.running();
        let (mut stopped, others) = running.drain(..).partition(|running| running.name == name);
        *running = others;
        drop(running);
        end(&mut stopped);
    }

    /// Waits until a process that should run has ended; for ever if none does.
    pub(super) async fn casualty(&self) -> StepError {
        loop {
            if let Some((process, status)) = self.ended() {
                return StepError::Ended { process, status };
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    fn ended(&self) -> Option<(String, ExitStatus)> {
        self.running().iter_mut().find_map(|running| {
            let status = running.child.try_wait().ok().flatten()?;
            Some((format!("{} (pid {})", running.name, running.child.id()), status))
        })
    }

    /// The last lines that each process wrote to its standard error.
    pub(super) fn last_words(&self) -> String {
        let mut words = String::new();
        for running in self.running().iter() {
            let text = fs::read(self.path(&format!("{}.log", running.name))).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
                // Writing to a string does not fail.
                let _ = writeln!(words, "{}: {line}", running.name);
            }
        }
        words.trim_end().to_owned()
    }

    /// Leaves everything as it is and running.
    pub(super) fn keep(mut self) {
        self.is_kept = true;
        self.directory.disable_cleanup(true);
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        // It is changed in one step each time, so a panic elsewhere leaves it whole.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !self.is_kept {
            end(&mut self.running());
            sweep::sweep(self.directory.path());
        }
    }
}

/// Asks processes to end, waits, and then makes them.
fn end(processes: &mut Vec<Running>) {
    for running in processes.iter_mut() {
        // Asked before it is signalled: an id that was reaped may be somebody else's by now.
        if matches!(running.child.try_wait(), Ok(None)) {
            sweep::signal(running.child.id(), Signal::SIGTERM);
        }
    }
    let deadline = Instant::now() + END_GRACE;
    while Instant::now() < deadline && processes.iter_mut().any(|running| matches!(running.child.try_wait(), Ok(None)))
    {
        std::thread::sleep(LOOK_PAUSE);
    }
    for mut running in processes.drain(..) {
        // One that has ended needs no force.
        let _ = running.child.kill();
        let _ = running.child.wait();
    }
}
