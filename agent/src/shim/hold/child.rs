//! The workload's process and everything below it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::net::unix::pipe;

use crate::shim::run_directory::RunDirectory;
use crate::shim::spec::{ExitRecord, ShimSpec};

/// The workload's process, which leads a process group of its own.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    exit: Option<ExitRecord>,
}

/// What a look at the processes below the shim gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    /// The workload's process runs.
    Running,
    /// It has ended and left others behind.
    Left,
    /// Nothing is left.
    Ended,
}

/// Starts the second stage, which becomes the workload.
pub(super) fn spawn(directory: &RunDirectory, spec: &ShimSpec) -> io::Result<(Child, pipe::Receiver, pipe::Receiver)> {
    // Not by its path: the file may have been replaced by another version since this shim was started.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(&spec.shim_arguments)
        .arg("--directory")
        .arg(directory.path())
        .args(["--run", &spec.run])
        .args(["--execute", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the workload has no standard output"))?;
    let stderr = child.stderr.take().ok_or_else(|| io::Error::other("the workload has no standard error"))?;
    // Reaped with everything else below the shim, not through std's handle.
    let pid = child.id();
    Ok((
        Child { pid, exit: None },
        pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?,
        pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))?,
    ))
}

impl Child {
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// How the workload's process ended, once it has.
    pub(super) fn exit(&self) -> Option<ExitRecord> {
        self.exit
    }

    /// Takes note of everything that has ended below the shim: the workload's process, and orphans.
    pub(super) fn reap(&mut self) -> Reaped {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, ExitRecord::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _core)) => self.ended(pid, ExitRecord::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) => {
                    return if self.exit.is_some() { Reaped::Left } else { Reaped::Running };
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_none_left) => return Reaped::Ended,
            }
        }
    }

    fn ended(&mut self, pid: Pid, exit: ExitRecord) {
        if u32::try_from(pid.as_raw()) == Ok(self.pid) {
            self.exit = Some(exit);
        }
    }

    /// Signals the workload's process group.
    pub(super) fn signal_group(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.pid) {
            // A group that is gone needs no signal.
            let _gone = killpg(Pid::from_raw(group), signal);
        }
    }
}
