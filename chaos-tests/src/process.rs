//! One process of a cluster: ended by force when its handle is dropped, so that no test leaves one behind.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Pause between two looks at something that takes its time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// When the operating system does not.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        // A group of its own, so that an interrupt of the tests leaves the end of it to its handle.
        let child = command.process_group(0).spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash does, and waits until it is gone.
    ///
    /// # Errors
    /// When it has ended before.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} had already ended: {status}", self.name);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, as a service manager does, and waits until it has.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub fn terminate(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.ended(limit)?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        within(limit, &format!("{} to end by itself", self.name), || Ok(self.child.try_wait()?))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Says whether it still runs.
    ///
    /// # Errors
    /// When the operating system does not know.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        let _ = self.child.wait();
    }
}

/// Looks again and again until something has happened.
///
/// # Errors
/// When it has not within `limit`, or looking fails.
pub fn within<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look().with_context(|| format!("while waiting for {what}"))? {
            return Ok(seen);
        }
        if begin.elapsed() > limit {
            bail!("waited {limit:?} for {what} in vain");
        }
        sleep(LOOK_AGAIN);
    }
}

/// Every process but this one that names `directory` in its environment or on its command line, with the latter.
///
/// Agents and shims are told of their directories there, and what runs below a shim of its notify socket, so all that
/// belongs to a cluster is found, whoever its parent is by now.
#[must_use]
pub fn processes_of(directory: &Path) -> Vec<(u32, String)> {
    let names = |text: &[u8]| {
        let needle = directory.as_os_str().as_bytes();
        text.windows(needle.len()).any(|part| part == needle)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let command = read("cmdline");
            let is_found = names(&command) || names(&read("environ"));
            is_found.then(|| (pid, String::from_utf8_lossy(&command).replace('\0', " ")))
        })
        .collect()
}

/// Kills every process of a directory, as the end of power does, and waits until they are gone.
///
/// # Errors
/// When one of them does not go.
pub fn kill_all_of(directory: &Path, limit: Duration) -> anyhow::Result<()> {
    within(limit, "killed processes to be gone", || {
        let left = processes_of(directory);
        for (pid, _) in &left {
            let _gone = kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL);
        }
        Ok(left.is_empty().then_some(()))
    })
}

/// Says whether a process runs.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    // A zombie has no command line any more.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty())
}
