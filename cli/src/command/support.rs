//! `support`: helping from afar, with what a device or a server wrote down of itself.

mod bundle;
mod replay;

use clap::Subcommand;

pub use self::bundle::WriteBundle;
pub use self::replay::Replay;
use super::Session;
use crate::error::CommandError;

/// Helping from afar, with what a device or a server wrote down of itself
#[derive(Debug, Subcommand)]
pub enum Support {
    /// Write a file for those who help from afar: how the server is, and its rollouts' last steps
    Bundle(WriteBundle),
    /// Step through the last decisions of a device's workloads, or of a server's rollouts
    Replay(Replay),
}

impl Support {
    /// Runs the command.
    ///
    /// # Errors
    /// When a bundle cannot be written or read, or a step comes to something else here than where it was recorded.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Bundle(command) => command.run(session).await,
            Self::Replay(command) => command.run(session),
        }
    }
}
