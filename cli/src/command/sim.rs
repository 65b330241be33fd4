//! `sim`: the product's own nodes in a simulated world, under faults that seeds draw.
//!
//! One seed is one process: this program starts itself for each ([`worker`]), so that nothing of one run is left when
//! the next begins. [`pool`] keeps so many of them busy at once as there are cores.

mod bench_quic;
mod bench_rehearsal;
pub(super) mod build;
mod check;
pub(super) mod pool;
mod replay;
pub(super) mod run;
pub(super) mod scenario_flags;
mod shim;
mod shrink;
pub(super) mod worker;

use clap::Subcommand;
use fleetd_simulator::run::Outcome;
use fleetd_simulator::set::SeedFailure;

pub use self::bench_quic::BenchQuic;
pub use self::bench_rehearsal::BenchRehearsal;
pub use self::check::Check;
pub use self::replay::Replay;
pub use self::run::Run;
pub use self::scenario_flags::ScenarioFlags;
pub use self::shrink::Shrink;
pub use self::worker::Worker;
use super::Session;
use crate::error::CommandError;
use crate::exit::Exit;

/// A whole fleet in a simulated world: the product's own server and agents, on virtual time, under faults.
#[derive(Debug, Subcommand)]
pub enum Sim {
    /// Run a scenario with many seeds, and report what held and what broke
    Run(Run),
    /// Run one seed again, and look at it closely
    Replay(Replay),
    /// Make a failing seed small: the few faults, acts and devices that it needs to fail
    Shrink(Shrink),
    /// Check the simulator itself: that a seed is the same run in every process
    Check(Check),
    /// Run what standard input orders
    #[command(hide = true)]
    Worker(Worker),
    /// Measure handshakes of the simulated QUIC
    #[command(hide = true)]
    BenchQuic(BenchQuic),
    /// Measure the rehearsal of one wave over a fleet that is made up
    #[command(hide = true)]
    BenchRehearsal(BenchRehearsal),
}

impl Sim {
    /// Runs the command.
    ///
    /// # Errors
    /// When an invariant does not hold, the input is wrong, or on Ctrl-C.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Run(command) => command.run(session).await,
            Self::Replay(command) => command.run(session).await,
            Self::Shrink(command) => command.run(session).await,
            Self::Check(command) => command.run(session).await,
            Self::Worker(command) => command.run().await,
            Self::BenchQuic(command) => command.run(session).await,
            Self::BenchRehearsal(command) => command.run(session).await,
        }
    }
}

/// How a run that broke an invariant ends.
fn violation(failure: &SeedFailure) -> CommandError {
    CommandError::new("sim.violation", format!("seed {} failed: {}", failure.seed, failure.failure.violation))
        .cause(format!("at {}, event {}", moment(failure.failure.at_ms), failure.failure.event))
        .next_command(failure.shrink.clone())
}

fn interrupted(message: &str) -> CommandError {
    CommandError::new("interrupted", message).exit(Exit::Interrupted)
}

/// One run in a line.
fn line(run: &Outcome) -> String {
    let faults = format!("{} faults, {} events", run.faults.len(), run.events);
    match (&run.violation, run.converged_after_ms) {
        (Some(failure), _) => format!("seed {}: FAILED: {failure}", run.seed),
        (None, Some(took)) => format!("seed {}: holds, converged after {}, {faults}", run.seed, moment(took)),
        (None, None) => format!("seed {}: stopped after {}, {faults}", run.seed, moment(run.virtual_ms)),
    }
}

/// A point or a span of virtual time.
fn moment(milliseconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(milliseconds)).to_string()
}
