//! `completion`: what a shell needs to complete commands.

use clap::{Args, CommandFactory as _};

use super::{Cli, Session};
use crate::error::CommandError;

/// Write a completion script for a shell.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(fleetd completion bash)
  fleetd completion fish > ~/.config/fish/completions/fleetd.fish")]
pub struct Completion {
    /// The shell
    pub shell: clap_complete::Shell,
}

impl Completion {
    /// Runs the command.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "fleetd", &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        let object = serde_json::json!({ "shell": self.shell.to_string(), "script": script });
        session.output.answer(&object, || script.clone())
    }
}
