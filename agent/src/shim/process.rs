//! Processes by what cannot be recycled: their pid together with the time of their start.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::RUN_VARIABLE;

/// A process of this boot, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pub(crate) pid: u32,
    /// Clock ticks from boot to its start.
    ///
    /// # Source
    /// proc_pid_stat(5), field 22.
    pub(crate) start_ticks: u64,
}

/// What `/proc/PID/stat` says of a process, as far as it matters here.
struct Stat {
    state: char,
    parent: u32,
    start_ticks: u64,
}

impl ProcessIdentity {
    /// Takes the identity of a process that is there.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_ticks: read_stat(pid)?.start_ticks })
    }

    /// Says whether this very process is there and has not ended.
    pub(crate) fn is_alive(self) -> bool {
        read_stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X'))
    }
}

fn read_stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    // The command's name may hold spaces, brackets and anything else; the last bracket ends it.
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Counted from 1 over the whole line, the state is field 3, the parent 4 and the start 22.
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start_ticks })
}

fn every_pid() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills the children of this process: its own, and those that a descendant left to it as their subreaper.
pub(super) fn kill_children() {
    let this = std::process::id();
    for pid in every_pid().filter(|pid| read_stat(*pid).is_some_and(|stat| stat.parent == this)) {
        signal_process(pid, Signal::SIGKILL);
    }
}

fn signal_process(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // One that has just ended is as good as killed.
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

/// Time that is given to killed processes to be gone.
const LEFTOVERS_DEADLINE: Duration = Duration::from_secs(5);

/// Kills every process that bears a run's id in its environment, and waits until they are gone.
///
/// For a run whose shim was killed: its process got the death signal, but not what that had started.
pub(crate) fn kill_leftovers(run: &str) {
    let marker = format!("{RUN_VARIABLE}={run}");
    let deadline = Instant::now() + LEFTOVERS_DEADLINE;
    loop {
        let leftovers: Vec<u32> = every_pid()
            .filter(|pid| *pid != std::process::id())
            .filter(|pid| read_stat(*pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X')))
            .filter(|pid| bears(*pid, marker.as_bytes()))
            .collect();
        if leftovers.is_empty() || Instant::now() >= deadline {
            return;
        }
        leftovers.iter().for_each(|pid| signal_process(*pid, Signal::SIGKILL));
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn bears(pid: u32, marker: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|byte| *byte == 0).any(|entry| entry == marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_does_not_confuse_the_fields() {
        let line = b"77 (a) S 1 (b) R 42 77 77 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 9";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start_ticks), ('R', 42, 123_456));
    }

    #[test]
    fn a_recycled_pid_is_another_process() {
        let own = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        let earlier = ProcessIdentity { start_ticks: own.start_ticks - 1, ..own };
        assert!(!earlier.is_alive());
        assert_eq!(ProcessIdentity::of(u32::MAX), None);
    }
}
