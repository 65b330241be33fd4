//! Ends whatever still runs in the demo's directory.
//!
//! Workloads outlive their agents, so ending the agents is not enough. Every process of the demo names the demo's
//! directory, which is its own and random, in its environment: agents and shims where the operator's contexts lie,
//! and what runs below a shim in the address of its notify socket. Command lines are not looked at, since anybody's
//! editor may name a file of the demo there.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Time between asking and forcing.
const GRACE: Duration = Duration::from_secs(2);
/// Time in which forced processes must be gone; one that is stuck in the kernel longer is left to it.
const FORCE_DEADLINE: Duration = Duration::from_secs(5);
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Ends every process that names `directory`, and returns when they are gone.
pub(super) fn sweep(directory: &Path) {
    let ask_until = Instant::now() + GRACE;
    let mut asked = Vec::new();
    loop {
        let left = processes_of(directory);
        if left.is_empty() {
            return;
        }
        if Instant::now() >= ask_until {
            break;
        }
        for pid in left.into_iter().filter(|pid| !asked.contains(pid)).collect::<Vec<_>>() {
            signal(pid, Signal::SIGTERM);
            asked.push(pid);
        }
        sleep(LOOK_PAUSE);
    }
    let force_until = Instant::now() + FORCE_DEADLINE;
    loop {
        let left = processes_of(directory);
        if left.is_empty() || Instant::now() >= force_until {
            return;
        }
        left.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
        sleep(LOOK_PAUSE);
    }
}

/// Signals a process. One that has just ended is as good as signalled.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

fn processes_of(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| names(*pid, directory))
        .collect()
}

/// A process that has ended and not been reaped names nothing any more.
fn names(pid: u32, directory: &Path) -> bool {
    let needle = directory.as_os_str().as_bytes();
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| text.windows(needle.len()).any(|part| part == needle))
}
