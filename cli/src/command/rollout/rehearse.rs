//! `rollout rehearse`: a plan on a copy of the fleet, before it is started.
//!
//! [`copy`] reads the fleet through the API; each seed is then a process of the simulator's pool, and [`words`] says
//! what they came to.

mod copy;
mod words;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use fleetd_simulator::clock::new_year_2026;
use fleetd_simulator::crypto::Crypto;
use fleetd_simulator::rehearsal::summary::{RehearsalFacts, RehearsalReport};
use fleetd_simulator::rehearsal::{Share, page};
use fleetd_simulator::run::{Outcome, Progress, RunPlan};
use fleetd_simulator::scenario::Scenario;
use fleetd_simulator::set::UnrunSeed;
use fleetd_sync_core::time::Wall;

use crate::command::sim::build::this_build;
use crate::command::sim::pool::{Ended, Pool};
use crate::command::sim::run::{fresh_seed, jobs, seed};
use crate::command::sim::scenario_flags::quoted;
use crate::command::sim::worker::{Order, Told};
use crate::command::{Session, value};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::{LiveLine, Output};

/// Rehearse a plan on a copy of the fleet, before it is started
///
/// The copy has the devices that the server knows now, with their labels, sites, platforms, holds and what they run.
/// It is planned again, which has to come to the same, and then carried out many times by the product's own server and
/// agents on virtual time. It says how likely each gate is to halt, and how many devices a bad release would reach before.
/// Nothing of it reaches the server or a device.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout rehearse p.json
  fleetd rollout rehearse p.json --offline 20% --fail 1% --seeds 50 --report rehearsal.html
  fleetd rollout rehearse pln_9d1f3h5k7n9q1s3v --bandwidth 2MB/s --for 24h
  fleetd rollout rehearse p.json --approve-after 8h --start-at 2026-12-04T16:00:00Z
  fleetd rollout rehearse p.json --json | jq .waves")]
pub struct Rehearse {
    /// The plan: its id (`pln_…`), or the file that `rollout plan --out` wrote
    #[arg(value_name = "PLAN")]
    pub plan: String,
    /// Let this share of the devices that can be reached go away at a time that each seed draws
    #[arg(long, value_name = "SHARE", default_value_t)]
    pub offline: Share,
    /// Let the release crash on this share of devices, which each seed draws
    #[arg(long, value_name = "SHARE", default_value_t)]
    pub fail: Share,
    /// What the link of each device carries; without a limit when left out
    #[arg(long, value_name = "RATE")]
    pub bandwidth: Option<Bandwidth>,
    /// How long the rollout is looked at, at most; an hour for each wave, with its windows, bakes and approvals, when left
    /// out
    #[arg(long = "for", value_name = "DURATION", value_parser = value::duration)]
    pub duration: Option<Duration>,
    /// How long it takes until somebody approves a wave, where the plan asks for that; at once when left out
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub approve_after: Option<Duration>,
    /// Let an operator stop the whole fleet at this time after the start
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub stop_after: Option<Duration>,
    /// When the rollout starts, by every clock of the copy; now when left out
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<StartAt>,
    /// How many times
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub seeds: u32,
    /// The first seed; drawn afresh when left out
    #[arg(long, value_name = "SEED", value_parser = seed)]
    pub seed: Option<u64>,
    /// Processes at once; one for each core when left out
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<usize>,
    /// What becomes of signatures: made and checked (real), or counted, which is faster for a large fleet (counted)
    #[arg(long, value_name = "CRYPTO", default_value_t)]
    pub crypto: Crypto,
    /// Write a page about it
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Write what was copied to a file, as a scenario that `sim replay` runs again
    #[arg(long, value_name = "FILE.toml")]
    pub save_fleet: Option<PathBuf>,
}

/// A date at which a rollout may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartAt {
    /// # Units
    /// Milliseconds since 1970.
    ms: i64,
}

/// Why a text is no date of a start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no date from 2026 on: write it as `2026-12-04T16:00:00Z`")]
pub struct ParseStartAtError(String);

impl FromStr for StartAt {
    type Err = ParseStartAtError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseStartAtError(text.to_owned());
        let ms = text.parse::<jiff::Timestamp>().map_err(|_| wrong())?.as_millisecond();
        if ms < new_year_2026().0 { Err(wrong()) } else { Ok(Self { ms }) }
    }
}

/// What a link carries in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth(u64);

/// Why a text is no bandwidth.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no bandwidth: write it as `256KB/s`, `2MB/s` or `10Mbit/s`")]
pub struct ParseBandwidthError(String);

impl FromStr for Bandwidth {
    type Err = ParseBandwidthError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseBandwidthError(text.to_owned());
        let rate = text.strip_suffix("/s").unwrap_or(text);
        let end = rate.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = rate.split_at_checked(end).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let bytes = match unit.to_ascii_lowercase().as_str() {
            "b" => number,
            "kb" => number.saturating_mul(1000),
            "kib" => number.saturating_mul(1 << 10),
            "mb" => number.saturating_mul(1_000_000),
            "mib" => number.saturating_mul(1 << 20),
            "kbit" => number.saturating_mul(125),
            "mbit" => number.saturating_mul(125_000),
            "gbit" => number.saturating_mul(125_000_000),
            _ => return Err(wrong()),
        };
        if bytes == 0 { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl Rehearse {
    pub(in crate::command) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let scenario = tokio::select! {
            biased;
            scenario = self.scenario(session) => scenario?,
            () = session.interrupt.pressed() => {
                let message = "the rehearsal was interrupted before its first seed";
                return Err(CommandError::new("interrupted", message).exit(Exit::Interrupted));
            }
        };
        if let Some(path) = &self.save_fleet {
            save(path, &scenario)?;
        }
        let first = match self.seed {
            Some(seed) => seed,
            None => fresh_seed()?,
        };
        session.output.note(&format!(
            "rehearsing {} on a copy of {} devices, {} seeds from {first} on",
            scenario.name, scenario.devices, self.seeds
        ));
        let begin = Instant::now();
        let mut stage = Stage::new(session.output, self.seeds, first);
        let seeds = 0..u64::from(self.seeds);
        let orders = seeds.map(|number| {
            let drawn = RunPlan::drawn(scenario.clone(), first.wrapping_add(number));
            Order::of(&RunPlan { crypto: self.crypto, ..drawn })
        });
        let pool = Pool::new(self.jobs)?;
        let ended = pool.run(orders, &session.interrupt, &mut |number, told| stage.hear(number, told)).await;
        let (mut runs, unrun) = stage.into_parts();
        let copy = self.copy_of(&scenario, &runs)?;
        let facts = RehearsalFacts {
            build: this_build(),
            scenario: &scenario,
            seeds_asked: usize::try_from(self.seeds).unwrap_or(usize::MAX),
            is_partial: ended == Ended::Interrupted,
            wall_ms: u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX),
            unrun,
            flags: &self.replay_flags(&copy),
        };
        let report = RehearsalReport::new(facts, &mut runs).map_err(|error| copy::refused(&error))?;
        if let Some(path) = &self.report {
            let page = page::page(&report, &scenario, &runs);
            std::fs::write(path, page).map_err(|error| unwritten(path, &error))?;
        }
        let json = serde_json::to_value(&report)
            .map_err(|error| CommandError::new("rehearsal.report", "the report cannot be written").caused_by(&error))?;
        session.output.answer(&json, || words::text(&report))?;
        if let Some(path) = &self.report {
            session.output.note(&format!("The report is {}.", path.display()));
        }
        verdict(&report, ended)
    }

    /// What is rehearsed: the plan, and the fleet as it is now.
    async fn scenario(&self, session: &Session<'_>) -> Result<Scenario, CommandError> {
        let mut rehearsal = copy::read(session, &self.plan).await?;
        rehearsal.check_plan().map_err(|error| copy::refused(&error))?;
        (rehearsal.offline, rehearsal.fail) = (self.offline, self.fail);
        rehearsal.bandwidth = self.bandwidth.map(|bandwidth| bandwidth.0);
        (rehearsal.approve_after, rehearsal.stop_after) = (self.approve_after.unwrap_or_default(), self.stop_after);
        let starts = self.start_at.map(|starts| Wall(starts.ms));
        let usual = || rehearsal.usual_duration(starts);
        let duration = self.duration.map_or_else(usual, Ok).map_err(|error| copy::refused(&error))?;
        rehearsal.into_scenario(starts, duration).map_err(|error| copy::refused(&error))
    }

    /// What a replay needs besides the seed, with a blank before it.
    fn replay_flags(&self, copy: &Path) -> String {
        let scenario = format!(" --scenario {}", quoted(&copy.display().to_string()));
        match self.crypto {
            Crypto::Real => scenario,
            Crypto::Counted => format!("{scenario} --crypto counted"),
        }
    }

    /// The file that a replay reads: the one that was asked for, or one that is written now that a seed has failed.
    fn copy_of(&self, scenario: &Scenario, runs: &[Outcome]) -> Result<PathBuf, CommandError> {
        let path = self.save_fleet.clone().unwrap_or_else(|| PathBuf::from("rehearsal.toml"));
        if self.save_fleet.is_none() && runs.iter().any(|run| run.violation.is_some()) {
            save(&path, scenario)?;
        }
        Ok(path)
    }
}

fn save(path: &Path, scenario: &Scenario) -> Result<(), CommandError> {
    let text = scenario
        .to_toml()
        .map_err(|error| CommandError::new("rehearsal.copy", "the copy cannot be written down").caused_by(&error))?;
    std::fs::write(path, text).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new("rehearsal.unwritten", format!("{} cannot be written", path.display())).caused_by(error)
}

/// How the command ends. That a rollout would fail is an answer, and no failure.
fn verdict(report: &RehearsalReport, ended: Ended) -> Result<(), CommandError> {
    if let Some(failure) = report.failures.first() {
        let message = format!("seed {} broke an invariant: {}", failure.seed, failure.failure.violation);
        return Err(CommandError::new("sim.violation", message)
            .cause("what was rehearsed is the product itself: this is a defect of it")
            .next_command(failure.replay.clone()));
    }
    if ended == Ended::Interrupted {
        let message = "the rehearsal was interrupted; what was printed is part of it";
        return Err(CommandError::new("interrupted", message).exit(Exit::Interrupted));
    }
    if let Some(unrun) = report.unrun.first() {
        let message = format!("seed {} could not be rehearsed", unrun.seed);
        return Err(CommandError::new("rehearsal.unrun", message).cause(unrun.why.clone()));
    }
    Ok(())
}

/// The rehearsal while it runs: what came in, and what is shown of it.
struct Stage<'a> {
    output: &'a Output,
    live: LiveLine,
    asked: u32,
    first: u64,
    running: std::collections::BTreeMap<usize, Progress>,
    runs: Vec<Outcome>,
    unrun: Vec<UnrunSeed>,
}

impl<'a> Stage<'a> {
    fn new(output: &'a Output, asked: u32, first: u64) -> Self {
        let (live, running) = (output.live_line(), std::collections::BTreeMap::new());
        Self { output, live, asked, first, running, runs: Vec::new(), unrun: Vec::new() }
    }

    fn hear(&mut self, number: usize, told: Told) -> ControlFlow<()> {
        let seed = self.first.wrapping_add(u64::try_from(number).unwrap_or(u64::MAX));
        match told {
            Told::Progress(progress) => drop(self.running.insert(number, progress)),
            Told::Event(_) | Told::Spent(_) => {}
            Told::Outcome(outcome) => {
                self.running.remove(&number);
                self.show(&outcome);
                self.runs.push(*outcome);
            }
            Told::Failed(why) => {
                self.running.remove(&number);
                self.live.suspend(|| self.output.note(&format!("seed {seed}: could not be rehearsed: {why}")));
                self.unrun.push(UnrunSeed { seed, why });
            }
        }
        let done = u64::try_from(self.runs.len() + self.unrun.len()).unwrap_or(u64::MAX);
        self.live.set(&self.message(), done, u64::from(self.asked));
        ControlFlow::Continue(())
    }

    /// How the oldest running seed stands, in few words.
    fn message(&self) -> String {
        let oldest = self.running.values().next();
        oldest.map_or_else(String::new, |progress| {
            let at = words::moment(progress.at_ms / 1000 * 1000);
            format!("seeds | {at} after the start | {} devices updated", progress.converged)
        })
    }

    /// One line per seed where nobody sees a line being redrawn; a broken invariant is told everywhere, at once.
    fn show(&self, outcome: &Outcome) {
        if outcome.violation.is_some() || !self.output.is_live() {
            self.live.suspend(|| self.output.note(&words::line(outcome)));
        }
    }

    fn into_parts(self) -> (Vec<Outcome>, Vec<UnrunSeed>) {
        (self.runs, self.unrun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_starts_at_a_date_of_this_calendar() {
        assert_eq!("2026-12-04T16:00:00Z".parse(), Ok(StartAt { ms: 1_796_400_000_000 }));
        assert_eq!("2026-12-04T17:00:00+01:00".parse(), Ok(StartAt { ms: 1_796_400_000_000 }));
        for text in ["", "tomorrow", "2026-12-04", "2025-12-04T16:00:00Z"] {
            assert_eq!(text.parse::<StartAt>(), Err(ParseStartAtError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn bandwidths_are_read_in_bytes_and_in_bits() {
        let read = |text: &str| text.parse::<Bandwidth>().map(|bandwidth| bandwidth.0);
        assert_eq!(read("256KB/s"), Ok(256_000));
        assert_eq!(read("2MiB"), Ok(2 << 20));
        assert_eq!(read("10Mbit/s"), Ok(1_250_000));
        for text in ["", "10", "fast", "MB/s", "0KB/s", "1.5MB/s"] {
            assert_eq!(read(text), Err(ParseBandwidthError(text.to_owned())), "{text}");
        }
    }
}
