//! The process of one seed: it reads one order, runs it, and tells of it on standard output, a line of JSON each.
//!
//! When its standard input ends, nobody waits for it any more: it stops, and tells what it has.

use std::io::{BufRead as _, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use fleetd_simulator::crypto::Crypto;
use fleetd_simulator::engine::EngineKind;
use fleetd_simulator::fault::Fault;
use fleetd_simulator::run::{Extras, Outcome, Progress, RunPlan, run_with};
use fleetd_simulator::scenario::Scenario;
use fleetd_simulator::set::Spent;
use fleetd_simulator::watch::{Brief, Selection, Watch};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::CommandError;

/// Time between two words on how far a run is: more than a person reads only costs.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Run what standard input orders; `sim run` starts it.
#[derive(Args, Debug)]
pub struct Worker {}

/// What a worker is to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::command) struct Order {
    pub(in crate::command) seed: u64,
    pub(in crate::command) scenario: Scenario,
    /// The faults; those that the seed draws when left out.
    pub(in crate::command) faults: Option<Vec<Fault>>,
    pub(in crate::command) until_ms: Option<u64>,
    /// Tells every event with a number between these.
    pub(in crate::command) watch: Option<(u64, u64)>,
    /// What runs the actors.
    pub(in crate::command) engine: EngineKind,
    /// What becomes of signatures.
    pub(in crate::command) crypto: Crypto,
    /// Stays on one core.
    pub(in crate::command) is_pinned: bool,
}

/// What a worker tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::command) enum Told {
    Progress(Progress),
    Event(Brief),
    Outcome(Box<Outcome>),
    /// What the run took of the machine. It comes before the outcome.
    Spent(Spent),
    /// It cannot be run, or its process ended without a word.
    Failed(String),
}

impl Order {
    /// The order for a seed, whose faults are drawn.
    pub(in crate::command) fn drawn(scenario: &Scenario, engine: EngineKind, crypto: Crypto, seed: u64) -> Self {
        let scenario = scenario.clone();
        Self { seed, scenario, faults: None, until_ms: None, watch: None, engine, crypto, is_pinned: false }
    }

    /// The order for a plan.
    pub(in crate::command) fn of(plan: &RunPlan) -> Self {
        let until_ms = plan.until.map(|until| u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
        let drawn = Self::drawn(&plan.scenario, plan.engine, plan.crypto, plan.seed);
        Self { faults: Some(plan.faults.clone()), until_ms, ..drawn }
    }

    fn plan(self) -> RunPlan {
        let drawn = RunPlan::drawn(self.scenario, self.seed);
        let faults = self.faults.unwrap_or_else(|| drawn.faults.clone());
        let until = self.until_ms.map(Duration::from_millis);
        RunPlan { faults, engine: self.engine, crypto: self.crypto, until, ..drawn }
    }
}

impl Worker {
    /// Runs the order.
    ///
    /// # Errors
    /// When the order cannot be read.
    pub async fn run(self) -> Result<(), CommandError> {
        let ended = tokio::task::spawn_blocking(work).await;
        ended.unwrap_or_else(|error| Err(CommandError::new("sim.worker", "the run ended early").caused_by(&error)))
    }
}

fn work() -> Result<(), CommandError> {
    let mut line = String::new();
    let invalid =
        |error: &dyn std::error::Error| CommandError::new("sim.order", "the order cannot be read").caused_by(error);
    std::io::stdin().lock().read_line(&mut line).map_err(|error| invalid(&error))?;
    let order: Order = serde_json::from_str(&line).map_err(|error| invalid(&error))?;
    #[cfg(feature = "planted-bugs")]
    plant()?;
    if order.is_pinned {
        pin().map_err(|error| {
            CommandError::new("sim.pin", "the process cannot be kept on one core").caused_by(&error)
        })?;
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let listener = Arc::clone(&is_over);
    std::thread::spawn(move || {
        // Whatever comes, nothing more is ordered: only the end counts.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        listener.store(true, Ordering::Relaxed);
    });
    let watch = order.watch.map(|(from, to)| {
        Watch::new(Selection::Numbers(from..=to), |seen| {
            tell(&Told::Event(seen.brief()));
        })
    });
    let mut told_at = Instant::now();
    let look = &mut |progress: &Progress| {
        if told_at.elapsed() > PROGRESS_INTERVAL {
            told_at = Instant::now();
            tell(&Told::Progress(progress.clone()));
        }
        if is_over.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let extras = Extras { watch: watch.unwrap_or_default(), ..Extras::default() };
    let ended = run_with(order.plan(), extras, look);
    if let Some(spent) = spent() {
        tell(&Told::Spent(spent));
    }
    let told = match ended {
        Ok(outcome) => Told::Outcome(Box::new(outcome)),
        Err(error) => Told::Failed(error.to_string()),
    };
    tell(&told);
    Ok(())
}

/// What this process has taken of the machine so far; nothing where the operating system does not say.
fn spent() -> Option<Spent> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = [usage.user_time(), usage.system_time()].iter().map(TimeVal::num_microseconds).sum::<i64>();
    // The operating system counts memory in KiB.
    let peak_bytes = u64::try_from(usage.max_rss()).ok()?.saturating_mul(1024);
    Some(Spent { cpu_ms: u64::try_from(micros / 1000).ok()?, rss_peak_bytes: peak_bytes })
}

/// Plants the bug that the environment names, if it names one. Only a build that can do so asks.
#[cfg(feature = "planted-bugs")]
fn plant() -> Result<(), CommandError> {
    use fleetd_sync_core::planted::{Bug, plant};

    let Ok(name) = std::env::var("FLEETD_PLANTED") else { return Ok(()) };
    match Bug::ALL.into_iter().find(|bug| bug.name() == name) {
        Some(bug) if plant(bug) => Ok(()),
        Some(_) => Err(CommandError::new("sim.planted", "a bug is planted already")),
        None => Err(CommandError::new("sim.planted", format!("there is no bug `{name}` to plant"))),
    }
}

/// Tells whoever ordered; one that is gone hears nothing, and ends the run by that.
fn tell(told: &Told) {
    if let Ok(line) = serde_json::to_string(told) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Keeps this thread, and those that it starts, on the first core that it may use.
fn pin() -> nix::Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let first = (0..CpuSet::count()).find(|core| allowed.is_set(*core).unwrap_or(false)).unwrap_or(0);
    let mut only = CpuSet::new();
    only.set(first)?;
    sched_setaffinity(Pid::from_raw(0), &only)
}
