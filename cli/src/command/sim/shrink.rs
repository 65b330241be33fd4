//! `sim shrink`: a failing seed, made as small as it can be.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use fleetd_simulator::checker::Violation;
use fleetd_simulator::origin::SeedName;
use fleetd_simulator::run::{Failure, RunPlan};
use fleetd_simulator::shrink::{Over, Shrunk, Trials, is_same, shrink};
use serde_json::json;
use tokio::runtime::Handle;

use super::build::{accept, this_build};
use super::pool::{Ended, Pool};
use super::run::jobs;
use super::scenario_flags::{ScenarioFlags, quoted};
use super::worker::{Order, Told};
use super::{interrupted, moment};
use crate::command::Session;
use crate::error::CommandError;
use crate::interrupt::Interrupt;
use crate::output::Output;

/// Make a failing seed small: the few faults, acts and devices that it needs to fail
///
/// It takes away faults, then what operators do, then devices, then time, for as long as the same checker still fails,
/// and writes a scenario file that shows the failure with nothing else around it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd sim shrink 17@3a4e9abcdef0
  fleetd sim shrink 17@3a4e9abcdef0 --scenario site.toml --out smallest.toml --within 5m")]
pub struct Shrink {
    /// The seed and its build, as a failure names them
    #[arg(value_name = "SEED@COMMIT")]
    pub seed: SeedName,
    /// Which scenario.
    #[command(flatten)]
    pub scenario: ScenarioFlags,
    /// Where the small scenario is written
    #[arg(long, value_name = "FILE.toml", default_value = "minimal.toml")]
    pub out: PathBuf,
    /// Take what is smallest after this time
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub within: Duration,
    /// Processes at once; one for each core when left out
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// Take a seed of another build too
    #[arg(long)]
    pub any_build: bool,
}

impl Shrink {
    /// Runs the command.
    ///
    /// # Errors
    /// When the seed is of another build, or does not fail, and on Ctrl-C.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        accept(session, &self.seed, self.any_build)?;
        let plan = self.scenario.plan(self.seed.seed)?;
        let pool = Pool::new(self.jobs)?;
        let failure = self.failure(&pool, &plan, session).await?;
        session.output.note(&format!(
            "{} faults, {} acts, {} devices: {failure}",
            plan.faults.len(),
            plan.scenario.acts.len(),
            plan.scenario.devices
        ));
        let mut trials = PooledTrials {
            pool,
            original: failure.violation.clone(),
            interrupt: session.interrupt.clone(),
            until: Instant::now() + self.within,
            output: session.output.clone(),
            runtime: Handle::current(),
        };
        let shrunk = tokio::task::spawn_blocking(move || shrink(plan, failure, &mut trials)).await;
        let shrunk =
            shrunk.map_err(|error| CommandError::new("sim.shrink", "shrinking ended early").caused_by(&error))?;
        self.write(&shrunk)?;
        let run = self.again(shrunk.plan.seed);
        let scenario = shrunk.scenario();
        let json = json!({
            "seed": shrunk.plan.seed, "scenario": scenario, "file": self.out, "tried": shrunk.tried,
            "isPartial": shrunk.is_partial, "failure": shrunk.failure, "replay": run,
        });
        session.output.answer(&json, || {
            let rest = if shrunk.is_partial { ", and there was no time for more" } else { "" };
            let [faults, acts] = [scenario.faults.len(), scenario.acts.len()];
            format!(
                "{run}\n  {}\n  {faults} faults, {acts} acts, {} devices over {}, after {} trials{rest}\n",
                shrunk.failure,
                scenario.devices,
                moment(u64::try_from(scenario.duration.as_millis()).unwrap_or(u64::MAX)),
                shrunk.tried
            )
        })
    }

    /// How the seed fails as it is.
    async fn failure(&self, pool: &Pool, plan: &RunPlan, session: &Session<'_>) -> Result<Failure, CommandError> {
        let mut told = None;
        let ended = pool
            .run([Order::of(plan)], &session.interrupt, &mut |_, what| {
                told = Some(what);
                ControlFlow::Continue(())
            })
            .await;
        match told {
            _ if ended == Ended::Interrupted => Err(interrupted("nothing was shrunk yet")),
            Some(Told::Outcome(outcome)) => outcome.violation.ok_or_else(|| {
                let message = format!("seed {} does not fail: there is nothing to shrink", plan.seed);
                CommandError::new("sim.no_failure", message)
                    .next_command(format!("fleetd sim run{}", self.scenario.given()))
            }),
            Some(Told::Failed(why)) => Err(CommandError::new("sim.unrun", "the seed could not be run").cause(why)),
            _ => Err(CommandError::new("sim.unrun", "the seed could not be run")),
        }
    }

    /// The command that runs what was written.
    fn again(&self, seed: u64) -> String {
        let file = quoted(&self.out.display().to_string());
        let means = self.scenario.means();
        format!("fleetd sim replay {} --scenario {file}{means}", this_build().name_of(seed))
    }

    fn write(&self, shrunk: &Shrunk) -> Result<(), CommandError> {
        let failed = |error: &dyn std::error::Error| {
            CommandError::new("sim.out", format!("{} cannot be written", self.out.display())).caused_by(error)
        };
        let toml = shrunk.scenario().to_toml().map_err(|error| failed(&error))?;
        let told = shrunk.failure.to_string().replace('\n', " ");
        let text = format!("# {}\n# {told}\n\n{toml}", self.again(shrunk.plan.seed));
        std::fs::write(&self.out, text).map_err(|error| failed(&error))
    }
}

/// Runs candidates in processes, as many at once as the pool has.
struct PooledTrials {
    pool: Pool,
    original: Violation,
    interrupt: Interrupt,
    until: Instant,
    output: Output,
    runtime: Handle,
}

impl Trials for PooledTrials {
    fn first_failing(&mut self, candidates: &[RunPlan]) -> Result<Option<(usize, Failure)>, Over> {
        let mut ended: Vec<Option<Option<Failure>>> = vec![None; candidates.len()];
        let until = self.until;
        let hear = &mut |number: usize, told: Told| {
            if Instant::now() > until {
                return ControlFlow::Break(());
            }
            let failure = match told {
                Told::Outcome(outcome) => {
                    outcome.violation.filter(|failure| is_same(&self.original, &failure.violation))
                }
                Told::Failed(_) => None,
                Told::Progress(_) | Told::Event(_) | Told::Spent(_) => return ControlFlow::Continue(()),
            };
            if let Some(place) = ended.get_mut(number) {
                *place = Some(failure);
            }
            if first(&ended).is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let how = self.runtime.block_on(self.pool.run(candidates.iter().map(Order::of), &self.interrupt, hear));
        let found = first(&ended);
        if how == Ended::Interrupted || (found.is_none() && how == Ended::Enough) {
            return Err(Over);
        }
        Ok(found)
    }

    fn found(&mut self, smaller: &Shrunk) {
        let plan = &smaller.plan;
        let [faults, acts] = [plan.faults.len(), plan.scenario.acts.len()];
        let (devices, tried) = (plan.scenario.devices, smaller.tried);
        self.output.note(&format!("  {faults} faults, {acts} acts, {devices} devices after {tried} trials"));
    }
}

/// The first candidate that fails, once all before it are known not to: so the answer is the same, however many
/// processes there are.
fn first(ended: &[Option<Option<Failure>>]) -> Option<(usize, Failure)> {
    let known = ended.iter().map_while(Option::as_ref);
    known.enumerate().find_map(|(index, failure)| failure.clone().map(|failure| (index, failure)))
}
