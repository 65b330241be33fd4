//! `sim bench-quic`: what a handshake of the simulated QUIC costs. `cargo xtask bench sim` starts it.

use clap::Args;
use fleetd_simulator::quic::bench::{Handshakes, measure_handshakes};

use crate::command::Session;
use crate::error::CommandError;

/// Measure handshakes of the simulated QUIC, both ends in this process
#[derive(Args, Debug)]
pub struct BenchQuic {
    /// Devices that connect
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub connections: u32,
    /// The seed of all that is drawn
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Give each device a socket of its own, as devices have; one for all when left out
    #[arg(long)]
    pub own_sockets: bool,
}

impl BenchQuic {
    /// Runs the command.
    ///
    /// # Errors
    /// When the endpoints cannot be set up.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let measured =
            tokio::task::spawn_blocking(move || measure_handshakes(self.connections, self.seed, self.own_sockets));
        let failed = |error: &dyn std::error::Error| {
            CommandError::new("sim.bench", "the handshakes could not be measured").caused_by(error)
        };
        let found = measured.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let json = serde_json::to_value(&found).map_err(|error| failed(&error))?;
        session.output.answer(&json, || told(&found))
    }
}

fn told(found: &Handshakes) -> String {
    format!(
        "{} of {} connected in {:.2} CPU-seconds: {:.0} handshakes per CPU-second, {:.1} KiB per pair, {} packets\n",
        found.connected,
        found.connections,
        found.cpu_seconds,
        found.per_cpu_second,
        found.rss_kib_per_pair,
        found.packets
    )
}
