//! `explain`: the pages about errors, which come with the program.

use clap::Args;
use fleetd_server::error_page::{self, summary};
use serde_json::json;

use super::Session;
use crate::error::CommandError;
use crate::exit::Exit;

/// Explain an error by its code; list all codes when none is named
///
/// The pages come with the program, so that they can be read where there is no network. A server has them too, below
/// `/errors/` of its API.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd explain
  fleetd explain rollout.plan_stale
  fleetd explain rollout.plan_stale --json | jq -r .page")]
pub struct Explain {
    /// The code, as an error shows it in brackets
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
}

impl Explain {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no page of that name.
    pub fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let Some(code) = self.code else { return list(session) };
        let Some(page) = error_page::page(&code) else {
            return Err(CommandError::new("explain.unknown", format!("there is no page about {code:?}"))
                .next_command("fleetd explain")
                .exit(Exit::Usage));
        };
        session.output.answer(&json!({ "code": code, "page": page }), || page.to_owned())
    }
}

fn list(session: &Session<'_>) -> Result<(), CommandError> {
    let codes: Vec<_> =
        error_page::pages().map(|(code, page)| json!({ "code": code, "summary": summary(page) })).collect();
    session.output.answer(&json!({ "codes": codes }), error_page::list)
}
