//! `sim check`: whether the simulator itself can be relied on.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};

use clap::Args;
use fleetd_simulator::determinism::{Difference, first_difference, parted_within};
use fleetd_simulator::engine::EngineKind;
use fleetd_simulator::run::Outcome;
use fleetd_simulator::scenario::Scenario;
use fleetd_simulator::watch::Brief;
use serde_json::json;

use super::interrupted;
use super::pool::{Ended, Pool};
use super::run::jobs;
use super::scenario_flags::ScenarioFlags;
use super::shim;
use super::worker::{Order, Told};
use crate::command::Session;
use crate::error::CommandError;
use crate::exit::Exit;

/// Times that two runs are tried to part once more: what depends on chance does not part every time.
const ATTEMPTS: usize = 5;

/// Check the simulator itself: that a seed is the same run in every process and on every engine
///
/// Each seed runs in two processes: one of them kept on one core (--determinism), or each on an engine of its own
/// (--engines). Both have to do the same, event by event; where they do not, the first event that differs is named.
///
/// On the engine quic an event is also every packet, with its time, its ends and its size. Its bytes are TLS's, which
/// draws from the operating system: --bytes preloads a library into both processes that draws from a seed instead.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd sim check --determinism
  fleetd sim check --determinism --engines --scenario calm --seeds 100 --json
  fleetd sim check --determinism --engine quic --bytes --scenario calm --seeds 1")]
pub struct Check {
    /// Compare two processes of each seed
    #[arg(long)]
    pub determinism: bool,
    /// Compare the engines with each other: direct and ractor
    #[arg(long)]
    pub engines: bool,
    /// With --determinism and --engine quic: compare the bytes of packets as well, in processes whose randomness is a
    /// seed's
    #[arg(long, requires = "determinism")]
    pub bytes: bool,
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
        if !self.determinism && !self.engines {
            let message = "nothing was asked to be checked";
            return Err(CommandError::new("usage", message)
                .next_command("fleetd sim check --determinism")
                .exit(Exit::Usage));
        }
        let scenario = self.scenario.load()?;
        let pool = self.pool()?;
        let asked = [(self.determinism, Comparison::Processes), (self.engines, Comparison::Engines)];
        let mut compared = Vec::new();
        for (_, comparison) in asked.into_iter().filter(|(is_asked, _)| *is_asked) {
            compared.push(self.compare(&pool, &scenario, comparison, session).await?);
        }
        let json = json!({ "scenario": scenario.name, "isDeterministic": true, "checks": compared });
        let seeds = self.seeds;
        session.output.answer(&json, || {
            let told = asked.iter().filter(|(is_asked, _)| *is_asked).map(|(_, comparison)| comparison.told());
            told.map(|told| format!("{seeds} seeds of {} are the same run {told}\n", scenario.name)).collect()
        })
    }

    /// The processes that run the seeds.
    fn pool(&self) -> Result<Pool, CommandError> {
        let pool = Pool::new(self.jobs)?;
        if !self.bytes {
            return Ok(pool);
        }
        if self.engine() != EngineKind::QuicBytes {
            return Err(CommandError::new("usage", "only the engine quic has packets whose bytes can be compared")
                .next_command("fleetd sim check --determinism --engine quic --bytes")
                .exit(Exit::Usage));
        }
        Ok(pool.with(shim::environment()?))
    }

    /// What runs the actors where two processes are compared.
    fn engine(&self) -> EngineKind {
        match self.scenario.engine {
            EngineKind::Quic if self.bytes => EngineKind::QuicBytes,
            engine => engine,
        }
    }

    /// Runs every seed twice, and compares.
    async fn compare(
        &self,
        pool: &Pool,
        scenario: &Scenario,
        comparison: Comparison,
        session: &Session<'_>,
    ) -> Result<serde_json::Value, CommandError> {
        let pair = |seed, watch| self.pair(scenario, comparison, seed, watch);
        let note = |same: &Same| {
            let Same { seed, trace, events } = same;
            session.output.note(&format!("seed {seed}: trace {trace} {}, {events} events", comparison.told()));
        };
        let mut compared = self.pairs(pool, &pair, session, &note).await?;
        if let Some((seed, window)) = &compared.parted {
            let watched = || pair(*seed, Some((*window.start(), *window.end())));
            return Err(differ(pool, &watched, *seed, window, session).await);
        }
        compared.same.sort_by_key(|same| same.seed);
        let seed = |same: &Same| json!({ "seed": same.seed, "trace": same.trace, "events": same.events });
        let traces: Vec<_> = compared.same.iter().map(seed).collect();
        Ok(json!({ "compared": comparison.told(), "seeds": traces }))
    }

    /// The two orders of a seed.
    fn pair(&self, scenario: &Scenario, comparison: Comparison, seed: u64, watch: Option<(u64, u64)>) -> [Order; 2] {
        let order = |engine| Order { watch, ..Order::drawn(scenario, engine, self.scenario.crypto, seed) };
        match comparison {
            Comparison::Processes => [order(self.engine()), Order { is_pinned: true, ..order(self.engine()) }],
            Comparison::Engines => [order(EngineKind::Direct), order(EngineKind::Ractor)],
        }
    }

    /// Runs every seed in two processes, up to the first that is not the same run in both. Of what was compared only
    /// the traces are kept: ten thousand outcomes would not fit.
    async fn pairs(
        &self,
        pool: &Pool,
        pair: &dyn Fn(u64, Option<(u64, u64)>) -> [Order; 2],
        session: &Session<'_>,
        note: &dyn Fn(&Same),
    ) -> Result<Compared, CommandError> {
        let seeds: Vec<u64> = (0..u64::from(self.seeds)).map(|number| self.seed.wrapping_add(number)).collect();
        let orders = seeds.iter().flat_map(|seed| pair(*seed, None));
        let (mut compared, mut failed) = (Compared::default(), None);
        let ended = pool
            .run(orders, &session.interrupt, &mut |number, told| {
                match told {
                    Told::Outcome(outcome) => {
                        if let Some(same) = compared.take(number, *outcome) {
                            note(&same);
                            compared.same.push(same);
                        }
                    }
                    Told::Failed(why) => failed = Some(why),
                    Told::Progress(_) | Told::Event(_) | Told::Spent(_) => {}
                }
                let goes_on = failed.is_none() && compared.parted.is_none();
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .await;
        if ended == Ended::Interrupted {
            return Err(interrupted("the check was interrupted"));
        }
        if let Some(why) = failed {
            return Err(CommandError::new("sim.unrun", "a seed could not be run").cause(why));
        }
        Ok(compared)
    }
}

/// A seed that was the same run twice.
#[derive(Debug)]
struct Same {
    seed: u64,
    trace: String,
    events: u64,
}

/// What comparing seeds has come to so far.
#[derive(Debug, Default)]
struct Compared {
    same: Vec<Same>,
    /// A seed that was not the same run twice, and between which events the two parted.
    parted: Option<(u64, RangeInclusive<u64>)>,
    /// Runs whose other run has not ended yet, by the place of the two in the order.
    waiting: BTreeMap<usize, Outcome>,
}

impl Compared {
    /// Takes a run, by its place in the order, and compares it with the other of its seed when that has ended.
    fn take(&mut self, number: usize, outcome: Outcome) -> Option<Same> {
        let Some(other) = self.waiting.remove(&(number / 2)) else {
            self.waiting.insert(number / 2, outcome);
            return None;
        };
        if let Some(window) = parted_within(&outcome, &other) {
            self.parted = Some((outcome.seed, window));
            return None;
        }
        Some(Same { seed: outcome.seed, trace: outcome.trace, events: outcome.events })
    }
}

/// Which two runs of a seed are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// Two processes, one of them kept on one core.
    Processes,
    /// Two engines.
    Engines,
}

impl Comparison {
    const fn told(self) -> &'static str {
        match self {
            Self::Processes => "in two processes each",
            Self::Engines => "on two engines each",
        }
    }
}

/// Finds the first event that differs, by running both again and looking closely where they parted.
async fn differ(
    pool: &Pool,
    pair: &(dyn Fn() -> [Order; 2] + Sync),
    seed: u64,
    window: &RangeInclusive<u64>,
    session: &Session<'_>,
) -> CommandError {
    let error =
        CommandError::new("sim.not_deterministic", format!("two processes of seed {seed} are not the same run"));
    for _ in 0..ATTEMPTS {
        if let Some(difference) = closely(pool, pair(), session).await {
            return error.cause(told(&difference));
        }
    }
    error.cause(format!("they parted within the events {} to {}, and not again", window.start(), window.end()))
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
    format!("event {number} is the first that differs: {one} in the first, {other} in the second")
}
