//! `sim run`: many seeds of one scenario, and what they came to.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use fleetd_simulator::mark;
use fleetd_simulator::origin::parse_seed;
use fleetd_simulator::report;
use fleetd_simulator::run::Outcome;
use fleetd_simulator::scenario::Scenario;
use fleetd_simulator::set::{SetFacts, SetReport, Spent, UnrunSeed};

use super::build::this_build;
use super::pool::{Ended, Pool};
use super::scenario_flags::ScenarioFlags;
use super::worker::{Order, Told};
use super::{interrupted, line, moment, violation};
use crate::command::Session;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::{LiveLine, Output};

use self::agenda::Agenda;
use self::standing::Standing;

mod agenda;
mod standing;

/// Run a scenario with many seeds, and report what held and what broke
///
/// Each seed draws its faults, and is a process of its own. Every invariant is checked after every event; at the end
/// the fleet is healed and has to converge. When a seed fails, the first line is the command that runs it again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd sim run
  fleetd sim run --scenario calm --seeds 100 --report report.html
  fleetd sim run --devices 200 --for 24h --seeds 4 --jobs 2
  fleetd sim run --seed 17 --seeds 1 --json | jq -r '.runs[].trace'")]
pub struct Run {
    /// Which scenario.
    #[command(flatten)]
    pub scenario: ScenarioFlags,
    /// How many seeds
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: u32,
    /// The first seed; drawn afresh when left out
    #[arg(long, value_name = "SEED", value_parser = seed)]
    pub seed: Option<u64>,
    /// Processes at once; one for each core when left out
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// Begin no further seed after this time
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub within: Option<Duration>,
    /// Follow seeds that show something new by their neighbours
    #[arg(long)]
    pub explore: bool,
    /// Fail also when a mark was reached by no seed
    #[arg(long)]
    pub all_marks: bool,
    /// Write a page about it
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
}

/// Reads a seed of a flag.
pub(in crate::command) fn seed(text: &str) -> Result<u64, String> {
    parse_seed(text).ok_or_else(|| "it is no number".to_owned())
}

/// Reads a number of processes.
pub(in crate::command) fn jobs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|jobs| *jobs > 0).ok_or_else(|| "it is no number from 1".to_owned())
}

impl Run {
    /// Runs the command.
    ///
    /// # Errors
    /// When a seed failed or could not be run, and on Ctrl-C; what was seen is printed all the same.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let scenario = self.scenario.load()?;
        let first = match self.seed {
            Some(seed) => seed,
            None => fresh_seed()?,
        };
        session.output.note(&format!(
            "{} seeds of {} from {first} on, build {}",
            self.seeds,
            scenario.name,
            this_build()
        ));
        let begin = Instant::now();
        let asked = usize::try_from(self.seeds).unwrap_or(usize::MAX);
        let agenda = Arc::new(Mutex::new(Agenda::new(first, asked, self.explore)));
        let mut set = Set::new(session.output, asked, Arc::clone(&agenda), self.scenario.given());
        let within = self.within;
        let (engine, crypto) = (self.scenario.engine, self.scenario.crypto);
        let seeds = std::iter::from_fn(|| agenda.lock().unwrap_or_else(PoisonError::into_inner).begin());
        let seeds = seeds.take_while(|_| within.is_none_or(|within| begin.elapsed() < within));
        let orders = seeds.map(|seed| Order::drawn(&scenario, engine, crypto, seed));
        let pool = Pool::new(self.jobs)?;
        let ended = pool.run(orders, &session.interrupt, &mut |number, told| set.hear(number, told)).await;
        let report = set.report(&self.scenario, &scenario, ended == Ended::Interrupted, begin.elapsed());
        if let Some(path) = &self.report {
            write_page(path, &report)?;
        }
        let json = serde_json::to_value(&report)
            .map_err(|error| CommandError::new("sim.report", "the report cannot be written").caused_by(&error))?;
        session.output.answer(&json, || text(&report))?;
        if let Some(path) = &self.report {
            session.output.note(&format!("The report is {}.", path.display()));
        }
        self.verdict(&report, ended)
    }

    fn verdict(&self, report: &SetReport, ended: Ended) -> Result<(), CommandError> {
        if let Some(failure) = report.failures.first() {
            return Err(violation(failure));
        }
        if ended == Ended::Interrupted {
            return Err(interrupted("the set was interrupted; what was printed is part of it").exit(Exit::Interrupted));
        }
        if let Some(unrun) = report.unrun.first() {
            let message = format!("seed {} could not be run", unrun.seed);
            return Err(CommandError::new("sim.unrun", message).cause(unrun.why.clone()));
        }
        if self.all_marks && !report.never_reached.is_empty() {
            let message = format!("{} marks were reached by no seed", report.never_reached.len());
            let next = format!("fleetd sim run{} --seeds {}", self.scenario.given(), self.seeds.saturating_mul(2));
            return Err(CommandError::new("sim.marks", message)
                .cause(report.never_reached.join(", "))
                .next_command(next));
        }
        Ok(())
    }
}

/// A seed that nobody has chosen.
pub(in crate::command) fn fresh_seed() -> Result<u64, CommandError> {
    // Short, so that it can be read aloud.
    getrandom::u32().map(u64::from).map_err(|error| {
        CommandError::new("sim.seed", "no seed can be drawn").caused_by(&error).next_command("fleetd sim run --seed 1")
    })
}

fn write_page(path: &std::path::Path, report: &SetReport) -> Result<(), CommandError> {
    std::fs::write(path, report::page(report)).map_err(|error| {
        CommandError::new("sim.report", format!("the report {} cannot be written", path.display())).caused_by(&error)
    })
}

/// The set while it runs: what came in, and what is shown of it.
struct Set<'a> {
    output: &'a Output,
    live: LiveLine,
    standing: Standing,
    agenda: Arc<Mutex<Agenda>>,
    asked: usize,
    flags: String,
    runs: Vec<Outcome>,
    unrun: Vec<UnrunSeed>,
    spent: Spent,
}

impl<'a> Set<'a> {
    fn new(output: &'a Output, asked: usize, agenda: Arc<Mutex<Agenda>>, flags: String) -> Self {
        let (live, standing) = (output.live_line(), Standing::new(asked));
        Self {
            output,
            live,
            standing,
            agenda,
            asked,
            flags,
            runs: Vec::new(),
            unrun: Vec::new(),
            spent: Spent::default(),
        }
    }

    fn hear(&mut self, number: usize, told: Told) -> ControlFlow<()> {
        let seed = self.agenda().seed(number);
        match told {
            Told::Progress(progress) => self.standing.progress(number, progress),
            Told::Event(_) => {}
            Told::Spent(spent) => self.spent = self.spent.and(spent),
            Told::Outcome(outcome) => {
                self.standing.ended(number, Some(&outcome));
                self.agenda().hear(seed, &outcome.coverage);
                self.show(&outcome);
                self.runs.push(*outcome);
            }
            Told::Failed(why) => {
                self.standing.ended(number, None);
                self.live.suspend(|| self.output.note(&format!("seed {seed}: could not be run: {why}")));
                self.unrun.push(UnrunSeed { seed, why });
            }
        }
        let (message, done) = self.standing.line();
        self.live.set(&message, done, u64::try_from(self.asked).unwrap_or(u64::MAX));
        ControlFlow::Continue(())
    }

    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One line per seed where nobody sees a line being redrawn; failures are told everywhere, at once.
    fn show(&self, outcome: &Outcome) {
        if outcome.violation.is_some() {
            let name = this_build().name_of(outcome.seed);
            let replay = format!("fleetd sim replay {name}{}", self.flags);
            self.live.suspend(|| self.output.note(&format!("{replay}\n  {}", line(outcome))));
        } else if !self.output.is_live() {
            self.output.note(&line(outcome));
        }
    }

    fn report(self, asked: &ScenarioFlags, scenario: &Scenario, is_partial: bool, took: Duration) -> SetReport {
        let facts = SetFacts {
            build: this_build(),
            engine: asked.engine.to_string(),
            crypto: asked.crypto,
            scenario: scenario.clone(),
            seeds_asked: self.asked,
            is_partial,
            wall_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            unrun: self.unrun,
            spent: self.spent,
            flags: &self.flags,
            marks_known: &mark::reachable(scenario),
        };
        SetReport::new(facts, self.runs)
    }
}

/// The report for a terminal: how to run the first failure again, then what there was.
fn text(report: &SetReport) -> String {
    let mut text = String::new();
    for failure in &report.failures {
        text.push_str(&format!("{}\n  {}\n", failure.replay, failure.failure));
        if let Some(device) = &failure.first_diverging {
            text.push_str(&format!("  first diverging device: {device}\n"));
        }
    }
    let held = report.runs.iter().filter(|run| run.violation.is_none() && !run.is_partial).count();
    text.push_str(&format!(
        "{held} of {} seeds of {} hold every invariant and converge",
        report.seeds_asked, report.scenario.name
    ));
    if report.is_partial {
        text.push_str("; the set was stopped before its end");
    } else if let not_begun @ 1.. = report.seeds_asked.saturating_sub(report.runs.len() + report.unrun.len()) {
        text.push_str(&format!("; {not_begun} were not begun in time"));
    }
    text.push('\n');
    let faults: usize = report.runs.iter().map(|run| run.faults.len()).sum();
    let virtual_ms = report.runs.iter().map(|run| run.virtual_ms).sum::<u64>() / 1000 * 1000;
    text.push_str(&format!(
        "  {} events, {} a CPU-second, {faults} faults, {} of virtual time\n",
        report.events,
        report.events_per_cpu_second(),
        moment(virtual_ms)
    ));
    let took = report.convergence_ms();
    if let (Some(shortest), Some(median), Some(longest)) = (took.first(), took.get(took.len() / 2), took.last()) {
        let [shortest, median, longest] = [shortest, median, longest].map(|took| moment(*took));
        text.push_str(&format!("  the healed fleet converged after {median} (median), {shortest} to {longest}\n"));
    }
    text.push_str(&format!("  {} pairs of what a machine was doing and what it was given\n", report.coverage.len()));
    for mark in &report.marks {
        text.push_str(&format!("  mark: {} ({} seeds)\n", mark.mark, mark.seeds));
    }
    for mark in &report.never_reached {
        text.push_str(&format!("  mark: {mark} (NEVER)\n"));
    }
    text
}
