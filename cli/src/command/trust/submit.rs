//! `trust submit`: a record that enough keys have signed.

use std::path::PathBuf;

use clap::Args;

use super::draft::Drawn;
use super::record_file;
use crate::command::Session;
use crate::error::CommandError;

/// Send a root record that enough keys have signed to the server.
///
/// Copies of one draft that were signed apart may be named together: their signatures are put under one record.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd trust submit next.record
  fleetd trust submit anna/next.record ben/next.record")]
pub struct Submit {
    /// The file that was signed (repeat for copies that were signed apart)
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

impl Submit {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let mut whole = None;
        for path in &self.files {
            let record = record_file::read(path)?.record;
            whole = Some(match whole {
                None => record,
                Some(present) => record.join(present).map_err(|_| {
                    CommandError::new("trust.drafts_differ", format!("{} says something else", path.display()))
                        .cause("only copies of one draft can be put together")
                        .next_command(format!("fleetd trust sign '{}'", path.display()))
                })?,
            });
        }
        // Clap takes no command without a file.
        let Some(record) = whole else { return Ok(()) };
        let drawn = Drawn::on(session).await?;
        let what = format!("fleet {} has a new root record", drawn.chain.fleet());
        drawn.submit(session, record, &what).await
    }
}
