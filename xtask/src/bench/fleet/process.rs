//! Processes that are measured, and those that give them work.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

/// Ticks of a second in `/proc/PID/stat`: Linux has shown a hundred to programs for ever.
const TICKS_PER_SECOND: f64 = 100.0;
/// Time between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Time in which a process that is asked to end must have ended.
const END_WITHIN: Duration = Duration::from_secs(30);

/// A process that is ended with its value.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts a process that writes what it has to say to `log`.
    pub(super) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
        command.stderr(log);
        let program = command.get_program().to_owned();
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child })
    }

    /// Processor time of user and system so far, of all its threads.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // The name in brackets may have blanks; after it come the state and ten numbers before those of time.
        let (_, rest) = stat.rsplit_once(')').context("the process has no name")?;
        let ticks: Vec<f64> = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect();
        ensure!(ticks.len() == 2, "{path} has no times");
        Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
    }

    /// What `/proc/PID/smaps_rollup` says of its memory, in bytes: `Rss`, `Pss` and so on.
    pub(super) fn memory_bytes(&self, what: &str) -> anyhow::Result<f64> {
        memory_bytes(self.child.id(), what)
    }

    /// The most memory that it has held so far, in bytes.
    pub(super) fn memory_bytes_at_most(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        kibibytes(&path, "VmHWM")
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes that it has had the kernel write to storage so far, in whole pages.
    pub(super) fn bytes_written(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/io", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes:"));
        bytes.and_then(|bytes| bytes.trim().parse().ok()).with_context(|| format!("{path} has no write_bytes"))
    }

    /// Ends it as an operator does, and waits until it has.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "kill -TERM {id} failed");
        let begin = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(begin.elapsed() < END_WITHIN, "process {id} did not end in time");
            std::thread::sleep(LOOK_AGAIN / 10);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `/proc/PID/smaps_rollup` says of a process, in bytes.
pub(super) fn memory_bytes(id: u32, what: &str) -> anyhow::Result<f64> {
    kibibytes(&format!("/proc/{id}/smaps_rollup"), what)
}

/// What a file of the kernel says in kB of something, in bytes.
fn kibibytes(path: &str, what: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("{path} has no {what}"))? * 1024.0)
}

/// How clients answer.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Answer {
    /// How many are connected, and have said what they have to.
    pub(super) live: u32,
    /// What went over the network so far, where they count it.
    #[serde(default)]
    pub(super) traffic: Traffic,
}

/// What went over the network, both ways.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Traffic {
    pub(super) sent: Way,
    pub(super) received: Way,
}

/// What went one way: datagrams with the headers of UDP and IP, and frames of the session in them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Way {
    pub(super) datagram_bytes: f64,
    pub(super) frame_bytes: f64,
}

impl Traffic {
    pub(super) fn datagram_bytes(&self) -> f64 {
        self.sent.datagram_bytes + self.received.datagram_bytes
    }
}

/// Many clients in one process that is told what to do line by line, and answers each line with one of JSON.
#[derive(Debug)]
pub(super) struct Clients {
    /// It ends with this.
    process: Process,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Clients {
    pub(super) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(command, log)?;
        let asked = process.child.stdin.take().context("the clients have no input")?;
        let answers = process.child.stdout.take().context("the clients have no output")?;
        Ok(Self { process, asked, answers: BufReader::new(answers) })
    }

    pub(super) const fn process(&self) -> &Process {
        &self.process
    }

    /// Gives a command and returns the answer.
    pub(super) fn ask(&mut self, command: &str) -> anyhow::Result<Answer> {
        writeln!(self.asked, "{command}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() {
            bail!("the clients ended at `{command}`; their log says why");
        }
        serde_json::from_str(&answer).with_context(|| format!("the clients answered `{command}` with {answer}"))
    }

    /// Starts clients until `count` run, and waits until all of them are live.
    pub(super) fn live(&mut self, count: u32, patience: Duration) -> anyhow::Result<Answer> {
        let begin = Instant::now();
        let mut answer = self.ask(&format!("start {count}"))?;
        while answer.live != count {
            let live = answer.live;
            ensure!(begin.elapsed() < patience, "only {live} of {count} clients are live after {patience:?}");
            std::thread::sleep(LOOK_AGAIN);
            answer = self.ask("look")?;
        }
        Ok(answer)
    }
}
