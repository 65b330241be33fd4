//! `support replay`: stepping through what a device or a server recorded of itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fleetd_agent::record::WorkloadFlight;
use fleetd_agent::support_bundle::{ReadBundleError, read_flights, read_parts};
use fleetd_server::record::rollout_flight::{RolloutFlight, decode_flight};
use fleetd_server::support::{FLIGHT_SUFFIX, FLIGHTS};
use fleetd_simulator::flight::{End, Replayed, ReplayedFlight, Rollout, Start, Workload, replay};
use fleetd_sync_core::id::RolloutId;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Monotonic;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::Session;
use crate::error::CommandError;
use crate::exit::Exit;

/// Lines of a change that are shown: what is longer is a document that came in, not a decision.
const CHANGE_LINES_MAX: usize = 30;
/// Characters of an input that are shown: a manifest says no more than its beginning.
const INPUT_CHARS_MAX: usize = 400;

/// Step through the last decisions of a device's workloads, or of a server's rollouts
///
/// `fleetd agent support-bundle` writes the file on the device, `fleetd support bundle` that of a server. Each step is
/// what a workload or a rollout was told, what that changed in its state, and what it wanted done; the machine that takes
/// it is the product's own, so it fails here where it failed there.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd support replay fleetd-support-loc_2f6m.tar
  fleetd support replay broken.tar --workload coffee --last 20
  fleetd support replay fleetd-support-flt_7k3n.tar --rollout rol_7169c4362gnqmx1q
  fleetd support replay broken.tar --json | jq -r 'select(.effects) | .effects[]'")]
pub struct Replay {
    /// The file
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,
    /// Only this workload of a device
    #[arg(long, value_name = "NAME")]
    pub workload: Option<WorkloadName>,
    /// Only this rollout of a server
    #[arg(long, value_name = "ROLLOUT", conflicts_with = "workload")]
    pub rollout: Option<RolloutId>,
    /// Show only the last steps of each
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Try it with what another version recorded
    #[arg(long)]
    pub any_version: bool,
}

/// What was recorded: the last steps of a workload on a device, or of a rollout on a server.
enum Flight {
    Workload(WorkloadFlight),
    Rollout(RolloutFlight),
}

impl Flight {
    /// What it is called among the fields of an answer, and what it is of.
    fn subject(&self) -> (&'static str, String) {
        match self {
            Self::Workload(flight) => ("workload", flight.workload.to_string()),
            Self::Rollout(flight) => ("rollout", flight.rollout.to_string()),
        }
    }

    /// Who recorded it.
    const fn recorder(&self) -> &'static str {
        match self {
            Self::Workload(_) => "device",
            Self::Rollout(_) => "server",
        }
    }

    fn version(&self) -> &str {
        match self {
            Self::Workload(flight) => &flight.version,
            Self::Rollout(flight) => &flight.version,
        }
    }

    fn steps(&self) -> usize {
        match self {
            Self::Workload(flight) => flight.legs.iter().map(|leg| leg.steps.len()).sum(),
            Self::Rollout(flight) => flight.legs.iter().map(|leg| leg.steps.len()).sum(),
        }
    }

    fn replay(&self, passed: usize, show: impl FnMut(Replayed)) -> ReplayedFlight {
        match self {
            Self::Workload(flight) => replay::<Workload>(&flight.legs, passed, show),
            Self::Rollout(flight) => replay::<Rollout>(&flight.legs, passed, show),
        }
    }
}

impl Replay {
    pub(super) fn run(&self, session: &Session<'_>) -> Result<(), CommandError> {
        let flights = self.flights()?;
        let mut unlike = Vec::new();
        for flight in &flights {
            let replayed = self.replay(session, flight)?;
            let (kind, subject) = flight.subject();
            let summary = json!({ kind: subject, "version": flight.version(), "summary": replayed });
            session.output.answer(&summary, || sentence(flight, &replayed))?;
            unlike.extend(replayed.first_difference.map(|step| (flight, step)));
        }
        let Some((flight, step)) = unlike.first() else { return Ok(()) };
        let (recorder, (_, subject)) = (flight.recorder(), flight.subject());
        let message = format!("step {step} of {subject} comes to something else here than on the {recorder}");
        let error = CommandError::new("support.differs", message);
        Err(error.cause(format!("the {recorder} ran another build, or its memory is not to be trusted")))
    }

    fn flights(&self) -> Result<Vec<Flight>, CommandError> {
        let mut flights = self.read().map_err(|error| unreadable(&error))?;
        let names: Vec<_> = flights.iter().map(|flight| flight.subject().1).collect();
        let wanted = self.workload.as_ref().map(|name| ("workload", name.to_string()));
        let wanted = wanted.or_else(|| self.rollout.map(|rollout| ("rollout", rollout.to_string())));
        flights.retain(|flight| wanted.as_ref().is_none_or(|wanted| flight.subject() == *wanted));
        if flights.is_empty() {
            let message = match &wanted {
                Some((_, wanted)) if !names.is_empty() => format!("there is no recording of {wanted} in the bundle"),
                _ => "there is no recording in the bundle: nothing ran when it was written".to_owned(),
            };
            let error = CommandError::new("support.no_recording", message);
            return Err(if names.is_empty() { error } else { error.cause(format!("it has {}", names.join(", "))) });
        }
        let own = env!("CARGO_PKG_VERSION");
        match flights.iter().find(|flight| flight.version() != own) {
            Some(other) if !self.any_version => {
                let (subject, version) = (other.subject().1, other.version());
                let message = format!("{subject} was recorded by {version}, and this program is {own}");
                let error = CommandError::new("support.other_version", message).exit(Exit::Usage);
                Err(error.next_command(format!("fleetd support replay {} --any-version", self.bundle.display())))
            }
            _ => Ok(flights),
        }
    }

    /// Reads all that was recorded.
    fn read(&self) -> Result<Vec<Flight>, ReadBundleError> {
        let parts = read_parts(&self.bundle)?;
        let workloads = read_flights(&self.bundle, &parts)?.into_iter().map(Flight::Workload);
        let mut flights: Vec<_> = workloads.collect();
        for (name, part) in parts.iter().filter(|(name, _)| name.starts_with(FLIGHTS) && name.ends_with(FLIGHT_SUFFIX))
        {
            let refused = |source| ReadBundleError::Flight {
                path: self.bundle.clone(),
                name: name.clone(),
                source: Box::new(source),
            };
            flights.push(Flight::Rollout(decode_flight(part).map_err(refused)?));
        }
        Ok(flights)
    }

    /// Steps through one recording, and shows the steps that are wanted.
    fn replay(&self, session: &Session<'_>, flight: &Flight) -> Result<ReplayedFlight, CommandError> {
        let all = flight.steps();
        let passed = all.saturating_sub(self.last.unwrap_or(all));
        let (mut shown, mut before) = (Ok(()), None);
        let replayed = flight.replay(passed, |step| {
            if shown.is_ok() {
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

fn told(flight: &Flight, step: &Replayed) -> Value {
    let (kind, subject) = flight.subject();
    json!({
        kind: subject, "step": step.number, "at": date(step), "monotonicNs": step.now.monotonic.0,
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
fn text(flight: &Flight, step: &Replayed, before: Option<Monotonic>) -> String {
    let mut text = match step.begins {
        Some(Start::Loaded) => format!("-- {} was loaded\n", flight.subject().1),
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
        End::Differs { noted, here } => {
            text.push_str(&format!("    !! the {} noted: {noted}\n       here: {here}\n", flight.recorder()));
        }
        End::Unnoted => text.push_str(&format!("    the {} did not note how this ended\n", flight.recorder())),
        End::Failed { message } => text.push_str(&format!("    !! the machine failed: {message}\n")),
    }
    text
}

fn sentence(flight: &Flight, replayed: &ReplayedFlight) -> String {
    let steps = fleetd_sync_core::counted::Counted(replayed.steps, "step");
    let (recorder, (_, subject)) = (flight.recorder(), flight.subject());
    match (replayed.first_difference, replayed.failures.first()) {
        (Some(step), _) => format!("{subject}: {steps}; step {step} came to something else on the {recorder}"),
        (None, Some(step)) => {
            format!("{subject}: {steps}; at step {step} the machine failed, here as on the {recorder}")
        }
        (None, None) => format!("{subject}: {steps}, each of which came to what the {recorder} noted"),
    }
}
