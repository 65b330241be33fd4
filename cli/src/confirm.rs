//! Asking before something is done that cannot be undone.

use std::io::IsTerminal as _;

use clap::Args;

use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::Output;

/// The flag that answers beforehand.
#[derive(Args, Clone, Copy, Debug)]
pub struct Confirm {
    /// Do it without asking
    #[arg(long, short = 'y')]
    pub yes: bool,
}

impl Confirm {
    /// Says what will be done and asks whether it should; without a terminal to ask on, only the flag is a yes.
    ///
    /// # Errors
    /// When nobody said yes.
    pub fn ask(self, output: &Output, what: &str) -> Result<(), CommandError> {
        if self.yes {
            output.note(what);
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            return Err(CommandError::new("confirm.missing", format!("not done without a yes: {what}"))
                .cause("standard input is no terminal to ask on")
                .next_command("repeat the command with --yes")
                .exit(Exit::Usage));
        }
        let terminal = console::Term::stderr();
        let answer = terminal.write_str(&format!("{what} [y/N] ")).and_then(|()| terminal.read_line());
        match answer.as_deref().map(str::trim) {
            Ok("y" | "Y" | "yes") => Ok(()),
            Ok(_) => Err(CommandError::new("confirm.declined", "nothing was done")),
            Err(error) => Err(CommandError::new("confirm.unreadable", "the answer could not be read").caused_by(error)),
        }
    }
}
