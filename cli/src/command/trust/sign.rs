//! `trust sign`: one more signature under a draft.

use std::path::PathBuf;

use clap::Args;

use super::{draft, record_file};
use crate::command::Session;
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::key_file;

/// Sign a draft of a root record, on a machine that needs no network.
///
/// It says what the record would change and asks before it signs. The signature goes into the same file, which is then
/// carried to the next key, or back to a machine that reaches the server.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd trust sign next.record --root anna.key
  fleetd trust sign next.record --root anna.key --yes --json
  fleetd trust sign next.record --json")]
pub struct Sign {
    /// The file that --draft wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A secret key of the root (repeat for more); without one, the draft is shown and not signed
    #[arg(long = "root", value_name = "PATH")]
    pub roots: Vec<PathBuf>,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Sign {
    pub(super) fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let mut file = record_file::read(&self.file)?;
        let roots = self.roots.iter().map(|path| key_file::read_secret(path)).collect::<Result<Vec<_>, _>>()?;
        if !roots.is_empty() {
            let record = draft::sign(&file.chain, file.record.clone(), &roots)?;
            self.confirm.ask(session.output, &format!("{}\nsign it?", record_file::describe(&file)))?;
            file.record = record;
            record_file::replace(&self.file, &file)?;
        }
        record_file::show(session, &self.file, &file)
    }
}
