//! `sim check`: whether the simulator itself can be relied on.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};

use clap::Args;
use fleetd_simulator::determinism::{Difference, first_difference, parted_within};
use fleetd_simulator::run::Outcome;
use fleetd_simulator::scenario::Scenario;
use fleetd_simulator::watch::Brief;
use serde_json::json;

use super::pool::{Ended, Pool};
use super::run::jobs;
use super::scenario_flags::ScenarioFlags;
use super::worker::{Order, Told};
use super::{ENGINES, interrupted};
use crate::command::Session;
use crate::error::CommandError;
use crate::exit::Exit;

/// Times that two runs are tried to part once more: what depends on chance does not part every time.
const ATTEMPTS: usize = 5;

/// Check the simulator itself: that a seed is the same run in every process
///
/// Each seed runs in two processes, one of them kept on one core. Both have to do the same, event by event; where they
/// do not, the first event that differs is named.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd sim check --determinism
  fleetd sim check --determinism --scenario calm --seeds 100 --json")]
pub struct Check {
    /// Compare two processes of each seed
    #[arg(long)]
    pub determinism: bool,
    /// Compare the engines with each other
    #[arg(long)]
    pub engines: bool,
    /// Which scenario.
    #[command(flatten)]
    pub scenario: ScenarioFlags,
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: u32,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Processes at once; one for each core when left out
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
}

impl Check {
    /// Runs the command.
    ///
    /// # Errors
    /// When two processes differ, and on Ctrl-C.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        if self.engines {
            let message = format!("there is no second engine to compare with `{}`", ENGINES.join("`, `"));
            return Err(CommandError::new("sim.engine", message)
                .next_command("fleetd sim check --determinism")
                .exit(Exit::Usage));
        }
        if !self.determinism {
            let message = "nothing was asked to be checked";
            return Err(CommandError::new("usage", message)
                .next_command("fleetd sim check --determinism")
                .exit(Exit::Usage));
        }
        let scenario = self.scenario.load()?;
        let pool = Pool::new(self.jobs)?;
        let pairs = self.pairs(&pool, &scenario, session).await?;
        for (seed, [one, other]) in &pairs {
            if let Some(window) = parted_within(one, other) {
                return Err(self.differ(&pool, &scenario, *seed, window, session).await);
            }
            session.output.note(&format!("seed {seed}: trace {} twice, {} events", one.trace, one.events));
        }
        let traces: Vec<_> = pairs
            .iter()
            .map(|(seed, [one, _])| json!({ "seed": seed, "trace": one.trace, "events": one.events }))
            .collect();
        let json = json!({ "scenario": scenario.name, "isDeterministic": true, "seeds": traces });
        session.output.answer(&json, || {
            format!("{} seeds of {} are the same run in two processes each", pairs.len(), scenario.name)
        })
    }

    /// Every seed, run by two processes.
    async fn pairs(
        &self,
        pool: &Pool,
        scenario: &Scenario,
        session: &Session<'_>,
    ) -> Result<BTreeMap<u64, [Outcome; 2]>, CommandError> {
        let seeds: Vec<u64> = (0..u64::from(self.seeds)).map(|number| self.seed.wrapping_add(number)).collect();
        let orders = seeds.iter().flat_map(|seed| pair(scenario, *seed, None));
        let mut outcomes: BTreeMap<usize, Outcome> = BTreeMap::new();
        let mut failed = None;
        let ended = pool
            .run(orders, &session.interrupt, &mut |number, told| {
                match told {
                    Told::Outcome(outcome) => drop(outcomes.insert(number, *outcome)),
                    Told::Failed(why) => failed = Some(why),
                    Told::Progress(_) | Told::Event(_) => {}
                }
                if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .await;
        if ended == Ended::Interrupted {
            return Err(interrupted("the check was interrupted"));
        }
        if let Some(why) = failed {
            return Err(CommandError::new("sim.unrun", "a seed could not be run").cause(why));
        }
        let mut two = |index: usize| Some([outcomes.remove(&(index * 2))?, outcomes.remove(&(index * 2 + 1))?]);
        Ok(seeds.into_iter().enumerate().filter_map(|(index, seed)| Some((seed, two(index)?))).collect())
    }

    /// Finds the first event that differs, by running both again and looking closely where they parted.
    async fn differ(
        &self,
        pool: &Pool,
        scenario: &Scenario,
        seed: u64,
        window: RangeInclusive<u64>,
        session: &Session<'_>,
    ) -> CommandError {
        let message = format!("two processes of seed {seed} are not the same run");
        let error = CommandError::new("sim.not_deterministic", message);
        for _ in 0..ATTEMPTS {
            if let Some(difference) = closely(pool, pair(scenario, seed, Some(&window)), session).await {
                return error.cause(told(&difference));
            }
        }
        error.cause(format!("they parted within the events {} to {}, and not again", window.start(), window.end()))
    }
}

/// One order as it is, one kept on one core.
fn pair(scenario: &Scenario, seed: u64, window: Option<&RangeInclusive<u64>>) -> [Order; 2] {
    let watch = window.map(|window| (*window.start(), *window.end()));
    let order = Order { watch, ..Order::drawn(scenario, seed) };
    [order.clone(), Order { is_pinned: true, ..order }]
}

/// Compares what two orders tell of the events that they watch.
async fn closely(pool: &Pool, orders: [Order; 2], session: &Session<'_>) -> Option<Difference> {
    let mut events: [Vec<Brief>; 2] = [Vec::new(), Vec::new()];
    pool.run(orders, &session.interrupt, &mut |number, told| {
        if let (Told::Event(event), Some(events)) = (told, events.get_mut(number)) {
            events.push(event);
        }
        ControlFlow::Continue(())
    })
    .await;
    let [one, other] = &events;
    first_difference(one, other)
}

fn told(difference: &Difference) -> String {
    let event = |event: &Option<Brief>| event.as_ref().map_or_else(|| "nothing more".to_owned(), ToString::to_string);
    let (number, one, other) = (difference.number, event(&difference.one), event(&difference.other));
    format!("event {number} is the first that differs: {one} in the one, {other} in the one that was kept on one core")
}
