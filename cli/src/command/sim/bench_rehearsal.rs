//! `sim bench-rehearsal`: what rehearsing one wave over a large fleet takes. `cargo xtask bench sim` starts it.

use std::ops::ControlFlow;
use std::time::Instant;

use clap::Args;
use fleetd_simulator::crypto::Crypto;
use fleetd_simulator::rehearsal::generated::one_wave;
use fleetd_simulator::run::{Outcome, RunPlan};
use fleetd_simulator::set::Spent;
use serde::Serialize;

use super::pool::Pool;
use super::worker::{Order, Told};
use crate::command::Session;
use crate::error::CommandError;

/// Measure the rehearsal of one wave over a fleet that is made up
#[derive(Args, Debug)]
pub struct BenchRehearsal {
    /// Devices of the fleet
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub devices: u32,
    /// The seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// What becomes of signatures: made and checked (real), or counted (counted)
    #[arg(long, value_name = "CRYPTO", default_value_t)]
    pub crypto: Crypto,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    devices: u32,
    /// Devices on which the release proved itself.
    healthy: usize,
    events: u64,
    cpu_seconds: f64,
    wall_seconds: f64,
    rss_peak_bytes: u64,
}

impl BenchRehearsal {
    /// Runs the command.
    ///
    /// # Errors
    /// When the fleet cannot be rehearsed, or what was rehearsed broke an invariant.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let failed = |cause: String| CommandError::new("sim.bench", "the rehearsal could not be measured").cause(cause);
        let scenario = one_wave(self.devices).map_err(|error| failed(error.to_string()))?;
        let plan = RunPlan { crypto: self.crypto, ..RunPlan::drawn(scenario, self.seed) };
        let (begin, mut outcome, mut spent, mut why) = (Instant::now(), None, None, None);
        let pool = Pool::new(Some(1))?;
        pool.run([Order::of(&plan)], &session.interrupt, &mut |_, told| {
            match told {
                Told::Outcome(told) => outcome = Some(told),
                Told::Spent(told) => spent = Some(told),
                Told::Failed(told) => why = Some(told),
                Told::Progress(_) | Told::Event(_) => {}
            }
            ControlFlow::Continue(())
        })
        .await;
        let (Some(outcome), Some(spent)) = (outcome, spent) else {
            return Err(failed(why.unwrap_or_else(|| "its process ended early".to_owned())));
        };
        if let Some(failure) = &outcome.violation {
            return Err(failed(failure.violation.to_string()));
        }
        let found = measured(self.devices, &outcome, &spent, begin);
        let json = serde_json::to_value(&found).map_err(|error| failed(error.to_string()))?;
        session.output.answer(&json, || told(&found))
    }
}

fn measured(devices: u32, outcome: &Outcome, spent: &Spent, begin: Instant) -> Measured {
    let ends = outcome.rehearsed.iter().flat_map(|rehearsed| &rehearsed.devices);
    Measured {
        devices,
        healthy: ends.filter(|course| course.end.is_healthy()).count(),
        events: outcome.events,
        cpu_seconds: std::time::Duration::from_millis(spent.cpu_ms).as_secs_f64(),
        wall_seconds: begin.elapsed().as_secs_f64(),
        rss_peak_bytes: spent.rss_peak_bytes,
    }
}

fn told(found: &Measured) -> String {
    format!(
        "{} of {} devices updated in {} events: {:.1} CPU-seconds, {:.1} s by the clock, {} MiB\n",
        found.healthy,
        found.devices,
        found.events,
        found.cpu_seconds,
        found.wall_seconds,
        found.rss_peak_bytes >> 20
    )
}
