//! Processes that run orders, so many at once, and what they tell.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::worker::{Order, Told};
use crate::error::CommandError;
use crate::interrupt::Interrupt;

/// Time that a worker has to tell what it has, once nobody waits for it: it looks up every few thousand events.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How a worker's allocator is set, where it is glibc's; others do not read it. A world is one thread that makes and
/// drops some sixty small pieces of memory an event: more of them are kept at hand, all lie in one arena, and on large
/// pages. None of it shows in what a run does.
const ALLOCATOR: &str =
    "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=2000:glibc.malloc.top_pad=67108864";
/// Lines of a worker's standard error that are told when it ends without a word.
const ERROR_LINES: usize = 6;

/// Runs orders in processes of this program.
#[derive(Clone, Debug)]
pub(in crate::command) struct Pool {
    program: PathBuf,
    jobs: usize,
    /// What the processes find in their environment besides.
    environment: Vec<(&'static str, OsString)>,
}

/// How a set of orders ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::command) enum Ended {
    /// Each was run.
    All,
    /// Whoever listens had heard enough.
    Enough,
    /// Ctrl-C.
    Interrupted,
}

impl Pool {
    /// A pool of `jobs` processes at once; as many as there are cores when left out.
    pub(in crate::command) fn new(jobs: Option<usize>) -> Result<Self, CommandError> {
        let program = std::env::current_exe()
            .map_err(|error| CommandError::new("sim.program", "this program's file is not known").caused_by(&error))?;
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self { program, jobs: jobs.unwrap_or_else(cores).max(1), environment: Vec::new() })
    }

    /// The same, with more in the environment of its processes.
    pub(super) fn with(self, environment: Vec<(&'static str, OsString)>) -> Self {
        Self { environment, ..self }
    }

    /// What starts a worker.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["sim", "worker"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("GLIBC_TUNABLES", ALLOCATOR);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A terminal's Ctrl-C goes to this process alone: it decides when a worker ends.
        command.process_group(0).kill_on_drop(true);
        command
    }

    /// Runs orders in their order, and lets `hear` have what each tells, by its number. When `hear` breaks off, or on
    /// Ctrl-C, what runs is told to stop, and what it has is still heard.
    pub(in crate::command) async fn run(
        &self,
        orders: impl IntoIterator<Item = Order>,
        interrupt: &Interrupt,
        hear: &mut dyn FnMut(usize, Told) -> ControlFlow<()>,
    ) -> Ended {
        let mut orders = orders.into_iter().enumerate();
        let (stop, stopped) = watch::channel(false);
        let (sender, mut told) = mpsc::channel(64);
        let mut running = JoinSet::new();
        let mut ended = Ended::All;
        loop {
            while ended == Ended::All && running.len() < self.jobs {
                let Some((number, order)) = orders.next() else { break };
                running.spawn(work(self.command(), number, order, sender.clone(), stopped.clone()));
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = interrupt.pressed(), if ended != Ended::Interrupted => {
                    ended = Ended::Interrupted;
                    stop.send_replace(true);
                }
                Some((number, what)) = told.recv() => {
                    if hear(number, what).is_break() && ended == Ended::All {
                        ended = Ended::Enough;
                        stop.send_replace(true);
                    }
                }
                _ = running.join_next() => {}
            }
        }
        drop(sender);
        while let Some((number, what)) = told.recv().await {
            let _ = hear(number, what);
        }
        ended
    }
}

async fn work(
    command: Command,
    number: usize,
    order: Order,
    tell: mpsc::Sender<(usize, Told)>,
    stopped: watch::Receiver<bool>,
) {
    let told = match drive(command, &order, number, &tell, stopped).await {
        Ok(told) => told,
        Err(error) => Told::Failed(format!("its process: {error}")),
    };
    // Whoever listened has gone, and wants nothing more.
    let _ = tell.send((number, told)).await;
}

/// Runs one order to its last word.
async fn drive(
    mut command: Command,
    order: &Order,
    number: usize,
    tell: &mpsc::Sender<(usize, Told)>,
    mut stopped: watch::Receiver<bool>,
) -> std::io::Result<Told> {
    let mut child = command.spawn()?;
    let errors = child.stderr.take().map(|errors| tokio::spawn(last_lines(errors)));
    let mut input = child.stdin.take();
    if let Some(input) = &mut input {
        input.write_all(format!("{}\n", serde_json::to_string(order)?).as_bytes()).await?;
    }
    let Some(output) = child.stdout.take() else { return Ok(Told::Failed("it has no output".to_owned())) };
    let mut lines = BufReader::new(output).lines();
    let last = loop {
        tokio::select! {
            biased;
            () = told_to_stop(&mut stopped), if input.is_some() => drop(input.take()),
            line = next_line(&mut lines, input.is_some()) => match line? {
                Some(line) => match serde_json::from_str(&line)? {
                    last @ (Told::Outcome(_) | Told::Failed(_)) => break Some(last),
                    told => {
                        let _ = tell.send((number, told)).await;
                    }
                },
                None => break None,
            }
        }
    };
    match last {
        Some(last) => {
            drop(input);
            child.wait().await?;
            Ok(last)
        }
        None => Ok(Told::Failed(obituary(child, errors).await?)),
    }
}

/// The next line; none comes for long from one that was told to stop.
async fn next_line(
    lines: &mut tokio::io::Lines<BufReader<ChildStdout>>,
    is_wanted: bool,
) -> std::io::Result<Option<String>> {
    if is_wanted {
        return lines.next_line().await;
    }
    tokio::time::timeout(LAST_WORDS, lines.next_line()).await.unwrap_or(Ok(None))
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// How a process ended that did not say so itself.
async fn obituary(
    mut child: Child,
    errors: Option<tokio::task::JoinHandle<VecDeque<String>>>,
) -> std::io::Result<String> {
    // One that was told to stop and did not is not waited for.
    let status = match tokio::time::timeout(Duration::from_secs(1), child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            child.kill().await?;
            return Ok("it did not stop in time, and was killed".to_owned());
        }
    };
    let lines = match errors {
        Some(errors) => errors.await.unwrap_or_default(),
        None => VecDeque::new(),
    };
    let words: Vec<String> = lines.into_iter().collect();
    Ok(format!("its process ended early ({status}): {}", words.join("; ")))
}

async fn last_lines(stream: impl AsyncRead + Unpin) -> VecDeque<String> {
    let (mut lines, mut last) = (BufReader::new(stream).lines(), VecDeque::new());
    while let Ok(Some(line)) = lines.next_line().await {
        if last.len() == ERROR_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    last
}
