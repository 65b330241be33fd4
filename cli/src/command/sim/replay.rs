//! `sim replay`: one seed again, watched.

use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use fleetd_simulator::fault::Target;
use fleetd_simulator::origin::SeedName;
use fleetd_simulator::run::{Extras, Outcome, RunPlan, run_with};
use fleetd_simulator::scenario::Scenario;
use fleetd_simulator::set::{SetFacts, SetReport, Spent};
use fleetd_simulator::watch::{Seen, Selection, Watch};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::build::{accept, this_build};
use super::scenario_flags::ScenarioFlags;
use super::{interrupted, line, moment, violation};
use crate::command::Session;
use crate::error::CommandError;
use crate::exit::Exit;

/// Lines of a change that are shown: what is longer is a document that came in, not a decision.
const CHANGE_LINES_MAX: usize = 30;

/// Run one seed again, and look at it closely
///
/// The same seed of the same build is the same run, event by event. With --trace it prints what happened to one node:
/// when, what, and what each input changed in the state of the actor that took it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd sim replay 17@3a4e9abcdef0
  fleetd sim replay 17@3a4e9abcdef0 --scenario calm --until 5m --trace device-3
  fleetd sim replay 17@3a4e9abcdef0 --trace server --json | jq -r .subject")]
pub struct Replay {
    /// The seed and its build, as a failure names them
    #[arg(value_name = "SEED@COMMIT")]
    pub seed: SeedName,
    /// Which scenario.
    #[command(flatten)]
    pub scenario: ScenarioFlags,
    /// Stop at this time after the fleet has enrolled
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub until: Option<Duration>,
    /// Print what happens to this node: `device-N` or `server`
    #[arg(long, value_name = "DEVICE")]
    pub trace: Option<Target>,
    /// Run a seed of another build too
    #[arg(long)]
    pub any_build: bool,
}

impl Replay {
    /// Runs the command.
    ///
    /// # Errors
    /// When the seed is of another build, when it fails again, and on Ctrl-C.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        accept(session, &self.seed, self.any_build)?;
        let scenario = self.scenario.load()?;
        let node = self.trace.map(|target| node(target, &scenario)).transpose()?;
        let plan = RunPlan { until: self.until, ..self.scenario.plan(self.seed.seed)? };
        let is_stopped = self.until.is_some();
        let outcome = watched(session, plan, node).await?;
        let facts = SetFacts {
            build: this_build(),
            engine: self.scenario.engine.to_string(),
            crypto: self.scenario.crypto,
            spent: Spent::default(),
            scenario,
            seeds_asked: 1,
            is_partial: outcome.is_partial,
            wall_ms: 0,
            unrun: Vec::new(),
            flags: &self.scenario.given(),
            marks_known: &[],
        };
        let report = SetReport::new(facts, vec![outcome.clone()]);
        let json = serde_json::to_value(&outcome)
            .map_err(|error| CommandError::new("sim.report", "the outcome cannot be written").caused_by(&error))?;
        session.output.answer(&json, || {
            format!("{}\n  trace {} after {} events", line(&outcome), outcome.trace, outcome.events)
        })?;
        match report.failures.first() {
            Some(failure) => Err(violation(failure)),
            None if outcome.is_partial && !is_stopped => Err(interrupted("the run was interrupted")),
            None => Ok(()),
        }
    }
}

/// The name in traces of a node that the scenario has.
fn node(target: Target, scenario: &Scenario) -> Result<String, CommandError> {
    let is_there = match target {
        Target::Server => true,
        Target::Site(_) => false,
        Target::Device(number) => u32::try_from(number).is_ok_and(|number| number < scenario.devices),
    };
    if is_there {
        return Ok(target.to_string());
    }
    let message =
        format!("there is no node `{target}`: they are server and device-0 to device-{}", scenario.devices - 1);
    Err(CommandError::new("sim.no_such_node", message).exit(Exit::Usage))
}

/// Runs a plan in this process, and prints what happens to a node as it happens.
async fn watched(session: &Session<'_>, plan: RunPlan, node: Option<String>) -> Result<Outcome, CommandError> {
    let (sender, mut events) = mpsc::channel(1024);
    let (stop, stopped) = watch::channel(false);
    let watch = node.map(|node| {
        Watch::new(Selection::Node(node), move |seen| {
            // Whoever printed has gone, and the run ends at its next look.
            let _ = sender.blocking_send(seen);
        })
    });
    let look = move |_: &_| if *stopped.borrow() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let mut run = tokio::task::spawn_blocking(move || {
        let extras = Extras { watch: watch.unwrap_or_default(), ..Extras::default() };
        run_with(plan, extras, &mut { look })
    });
    let mut is_interrupted = false;
    let result = loop {
        tokio::select! {
            biased;
            () = session.interrupt.pressed(), if !is_interrupted => {
                is_interrupted = true;
                stop.send_replace(true);
            }
            Some(seen) = events.recv() => session.output.answer(&told(&seen), || text(&seen))?,
            result = &mut run => break result,
        }
    };
    while let Ok(seen) = events.try_recv() {
        session.output.answer(&told(&seen), || text(&seen))?;
    }
    let outcome = result.map_err(|error| CommandError::new("sim.run", "the run ended early").caused_by(&error))?;
    outcome.map_err(|error| CommandError::new("sim.run", "the scenario cannot be run").caused_by(&error))
}

fn told(seen: &Seen) -> Value {
    let since_enrolled = seen.since_enrolled.map(|since| since.as_secs_f64());
    json!({
        "event": seen.number, "sinceEnrolledS": since_enrolled, "subject": seen.subject, "what": seen.what,
        "notes": seen.notes, "changes": seen.changes,
    })
}

/// One event as people read it.
fn text(seen: &Seen) -> String {
    let at = match seen.since_enrolled {
        Some(since) => moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        None => "enrolling".to_owned(),
    };
    let mut text = format!("{at}  #{}  {}  {}\n", seen.number, seen.subject, seen.what);
    for note in &seen.notes {
        text.push_str(&format!("    {note}\n"));
    }
    for change in seen.changes.iter().take(CHANGE_LINES_MAX) {
        text.push_str(&format!("      {change}\n"));
    }
    if let Some(more) = seen.changes.len().checked_sub(CHANGE_LINES_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("      … {more} more lines changed\n"));
    }
    text
}
