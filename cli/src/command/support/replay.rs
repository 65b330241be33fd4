//! `support`: helping from afar, with what a device wrote down of itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use fleetd_agent::record::WorkloadFlight;
use fleetd_agent::support_bundle::{ReadBundleError, read_flights};
use fleetd_simulator::flight::{End, Replayed, ReplayedFlight, Start, replay};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Monotonic;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Session;
use crate::error::CommandError;
use crate::exit::Exit;

/// Lines of a change that are shown: what is longer is a document that came in, not a decision.
const CHANGE_LINES_MAX: usize = 30;
/// Characters of an input that are shown: a manifest says no more than its beginning.
const INPUT_CHARS_MAX: usize = 400;

/// Helping from afar, with what a device wrote down of itself
#[derive(Debug, Subcommand)]
pub enum Support {
    /// Step through the last decisions of a device's workloads
    Replay(Replay),
}

impl Support {
    /// Runs the command.
    ///
    /// # Errors
    /// When the bundle cannot be read, or a step comes to something else here than on the device.
    pub fn run(&self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Replay(command) => command.run(session),
        }
    }
}

/// Step through the last decisions of a device's workloads
///
/// `fleetd agent support-bundle` writes the file on the device. Each step is what a workload was told, what that changed
/// in its state, and what it wanted done; the machine that takes it is the device's own, so it fails here where it
/// failed there.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd support replay fleetd-support-loc_2f6m.tar
  fleetd support replay broken.tar --workload coffee --last 20
  fleetd support replay broken.tar --json | jq -r 'select(.effects) | .effects[]'")]
pub struct Replay {
    /// The file
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Only this workload
    #[arg(long, value_name = "NAME")]
    pub workload: Option<WorkloadName>,
    /// Show only the last steps of each workload
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Try it with what another version recorded
    #[arg(long)]
    pub any_version: bool,
}

impl Replay {
    fn run(&self, session: &Session<'_>) -> Result<(), CommandError> {
        let flights = self.flights()?;
        let mut unlike = Vec::new();
        for flight in &flights {
            let replayed = self.replay(session, flight)?;
            let summary = summary(flight, &replayed);
            session.output.answer(&summary, || sentence(flight, &replayed))?;
            unlike.extend(replayed.first_difference.map(|step| (&flight.workload, step)));
        }
        let Some((workload, step)) = unlike.first() else { return Ok(()) };
        let message = format!("step {step} of {workload} comes to something else here than on the device");
        let error = CommandError::new("support.differs", message);
        Err(error.cause("the device ran another build, or its memory is not to be trusted"))
    }

    fn flights(&self) -> Result<Vec<WorkloadFlight>, CommandError> {
        let mut flights = read_flights(&self.bundle).map_err(|error| unreadable(&error))?;
        let names: Vec<_> = flights.iter().map(|flight| flight.workload.to_string()).collect();
        flights.retain(|flight| self.workload.as_ref().is_none_or(|wanted| flight.workload == *wanted));
        if flights.is_empty() {
            let message = match &self.workload {
                Some(wanted) if !names.is_empty() => format!("there is no recording of {wanted} in the bundle"),
                _ => "there is no recording in the bundle: no agent ran when it was written".to_owned(),
            };
            let error = CommandError::new("support.no_recording", message);
            return Err(if names.is_empty() { error } else { error.cause(format!("it has {}", names.join(", "))) });
        }
        let own = env!("CARGO_PKG_VERSION");
        match flights.iter().find(|flight| flight.version != own) {
            Some(other) if !self.any_version => {
                let message =
                    format!("{} was recorded by {}, and this program is {own}", other.workload, other.version);
                let error = CommandError::new("support.other_version", message).exit(Exit::Usage);
                Err(error.next_command(format!("fleetd support replay {} --any-version", self.bundle.display())))
            }
            _ => Ok(flights),
        }
    }

    /// Steps through one recording, and shows the steps that are wanted.
    fn replay(&self, session: &Session<'_>, flight: &WorkloadFlight) -> Result<ReplayedFlight, CommandError> {
        let all = flight.legs.iter().map(|leg| leg.steps.len()).sum::<usize>();
        let first = all.saturating_sub(self.last.unwrap_or(all));
        let (mut shown, mut before) = (Ok(()), None);
        let replayed = replay(flight, |step| {
            if step.number > first && shown.is_ok() {
                let text = || text(flight, &step, before);
                shown = session.output.answer(&told(flight, &step), text);
            }
            before = Some(step.now.monotonic);
        });
        shown.map(|()| replayed)
    }
}

fn unreadable(error: &ReadBundleError) -> CommandError {
    let code = match error {
        ReadBundleError::File { .. } => "support.unreadable",
        ReadBundleError::TooLarge { .. } | ReadBundleError::Archive { .. } | ReadBundleError::Flight { .. } => {
            "support.no_bundle"
        }
    };
    CommandError::new(code, error.to_string()).caused_by_source(error).exit(Exit::Usage)
}

fn told(flight: &WorkloadFlight, step: &Replayed) -> Value {
    json!({
        "workload": flight.workload.as_str(), "step": step.number, "at": date(step), "monotonicNs": step.now.monotonic.0,
        "begins": step.begins.map(start), "input": step.input, "phaseBefore": step.phases.0, "phase": step.phases.1,
        "changes": step.changes, "effects": step.effects, "end": step.end,
    })
}

fn date(step: &Replayed) -> String {
    Timestamp::from_millisecond(step.now.wall.0).map_or_else(|_| step.now.wall.to_string(), |at| at.to_string())
}

const fn start(start: Start) -> &'static str {
    match start {
        Start::Loaded => "loaded",
        Start::Continued => "continued",
        Start::Resumed => "resumed",
    }
}

/// One step as people read it.
fn text(flight: &WorkloadFlight, step: &Replayed, before: Option<Monotonic>) -> String {
    let mut text = match step.begins {
        Some(Start::Loaded) => format!("-- {} was loaded\n", flight.workload),
        Some(Start::Resumed) => "-- steps are missing here\n".to_owned(),
        Some(Start::Continued) | None => String::new(),
    };
    let waited = before.map(|before| step.now.monotonic.since(before)).unwrap_or_default();
    let waited = humantime::format_duration(Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(0)));
    let (from, to) = &step.phases;
    let phase = if from == to { to.clone() } else { format!("{from} -> {to}") };
    let input = step.input.as_deref().unwrap_or("what is due");
    let shortened: String = input.chars().take(INPUT_CHARS_MAX).collect();
    let cut = if shortened.len() < input.len() { " …" } else { "" };
    text.push_str(&format!("{}  +{waited}  #{}  {phase}\n    {shortened}{cut}\n", date(step), step.number));
    for effect in &step.effects {
        let effect: String = effect.chars().take(INPUT_CHARS_MAX).collect();
        text.push_str(&format!("    => {effect}\n"));
    }
    for change in step.changes.iter().take(CHANGE_LINES_MAX) {
        text.push_str(&format!("      {change}\n"));
    }
    if let Some(more) = step.changes.len().checked_sub(CHANGE_LINES_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("      … {more} more lines changed\n"));
    }
    match &step.end {
        End::Same => {}
        End::Differs { device, here } => {
            text.push_str(&format!("    !! the device noted: {device}\n       here: {here}\n"))
        }
        End::Unnoted => text.push_str("    the device did not note how this ended\n"),
        End::Failed { message } => text.push_str(&format!("    !! the machine failed: {message}\n")),
    }
    text
}

fn summary(flight: &WorkloadFlight, replayed: &ReplayedFlight) -> Value {
    json!({ "workload": flight.workload.as_str(), "version": flight.version, "summary": replayed })
}

fn sentence(flight: &WorkloadFlight, replayed: &ReplayedFlight) -> String {
    let steps = fleetd_sync_core::counted::Counted(replayed.steps, "step");
    let workload = &flight.workload;
    match (replayed.first_difference, replayed.failures.first()) {
        (Some(step), _) => format!("{workload}: {steps}; step {step} came to something else on the device"),
        (None, Some(step)) => format!("{workload}: {steps}; at step {step} the machine failed, here as on the device"),
        (None, None) => format!("{workload}: {steps}, each of which came to what the device noted"),
    }
}
