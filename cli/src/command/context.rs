//! `context`: the servers that are known here.

use clap::{Args, Subcommand};
use serde_json::json;

use super::Session;
use crate::context::ContextFile;
use crate::error::CommandError;
use crate::output::table;

/// The servers that are known here.
#[derive(Debug, Subcommand)]
pub enum Context {
    /// List them; the current one has a star
    #[command(after_help = "\
Examples:
  fleetd context list
  fleetd context list --json | jq -r '.contexts[].name'")]
    List,
    /// Make one the current one
    Use(Use),
}

/// Make one the current one.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd context use shop")]
pub struct Use {
    /// Its name
    pub name: String,
}

impl Context {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no such context, or the file cannot be read or written.
    pub fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let mut file = ContextFile::open()?;
        match self {
            Self::List => {
                let current = file.current();
                let contexts: Vec<_> = file
                    .iter()
                    .map(|(name, context)| {
                        json!({
                            "name": name,
                            "url": context.url,
                            "fleetId": context.fleet,
                            "current": Some(name) == current,
                            "hasToken": context.token.is_some(),
                        })
                    })
                    .collect();
                session.output.answer(&json!({ "contexts": contexts }), || render(&file))
            }
            Self::Use(command) => {
                file.make_current(&command.name)?;
                file.save()?;
                let name = command.name;
                session.output.answer(&json!({ "context": name }), || format!("context {name} is current"))
            }
        }
    }
}

fn render(file: &ContextFile) -> String {
    let current = file.current();
    let rows = file.iter().map(|(name, context)| {
        let star = if Some(name) == current { "*" } else { "" };
        let token = if context.token.is_some() { "yes" } else { "no" };
        [star.to_owned(), name.to_owned(), context.url.clone(), context.fleet.clone(), token.to_owned()]
    });
    table(["", "NAME", "URL", "FLEET", "TOKEN"], rows)
}
