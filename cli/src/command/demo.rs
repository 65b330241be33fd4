//! `demo`: a whole fleet on this machine.

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Session;
use crate::demo::{self, DemoError, Options};
use crate::error::{CommandError, chain};
use crate::exit::Exit;

/// Play a whole fleet on this machine: a server, three devices, good and bad releases, a cut link
///
/// It needs no set-up, no rights and no network, takes free ports, ends by itself and leaves nothing behind. It ends
/// well only if every step was really seen through the API; else it names the step.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd demo
  fleetd demo --keep
  fleetd demo --json | jq -r 'select(.event == \"seen\") | .step'")]
pub struct Demo {
    /// Leave everything running at the end, and say how to play with it
    #[arg(long)]
    pub keep: bool,
}

impl Demo {
    /// Runs the command.
    ///
    /// # Errors
    /// When a step was not seen, and on Ctrl-C.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let program = std::env::current_exe()
            .map_err(|error| CommandError::new("demo.program", "this program's file is not known").caused_by(&error))?;
        let options = Options { program, keep: self.keep };
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|error| CommandError::new("demo.signal", "signals cannot be waited for").caused_by(&error))?;
        // Whichever way it ends, the demo's future is dropped, and with it goes all that it started.
        tokio::select! {
            biased;
            () = session.interrupt.pressed() => Err(interrupted()),
            _ = terminate.recv() => Err(interrupted()),
            result = demo::run(&options, session.output) => result.map_err(CommandError::from),
        }
    }
}

fn interrupted() -> CommandError {
    CommandError::new("interrupted", "the demo was interrupted, and all of it is gone").exit(Exit::Interrupted)
}

impl From<DemoError> for CommandError {
    fn from(error: DemoError) -> Self {
        let next = "FLEETD_LOG=debug fleetd demo";
        Self::new("demo.failed", sentence(&error)).cause(error.last_words).next_command(next)
    }
}

/// `demo failed at step NAME: why`.
fn sentence(error: &DemoError) -> String {
    format!("{error}: {}", chain(&error.source))
}
