//! `key`: keys of one's own, which never leave the machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fleetd_sync_core::key::SecretKey;
use serde_json::json;

use super::Session;
use crate::client::fresh_entropy;
use crate::error::CommandError;
use crate::key_file;

/// Keys of one's own.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key: the secret one in PATH for you alone, the public one beside it
    Create(Create),
}

/// Make a key.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd key create ci.key
  fleetd trust delegate ci.pub --role release --workload coffee --root root.key")]
pub struct Create {
    /// Where the secret key goes (`ci.key`); the public one goes to the same name with `.pub`
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

impl Key {
    /// Runs the command.
    ///
    /// # Errors
    /// When a file of the name is there, or cannot be written.
    pub fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let Self::Create(command) = self;
        let path = match command.path.extension() {
            Some(extension) if extension == "pub" => {
                return Err(CommandError::new("key.name", "a secret key's file cannot end in .pub")
                    .next_command(format!("fleetd key create '{}'", command.path.with_extension("key").display())));
            }
            Some(_) => command.path,
            None => command.path.with_extension("key"),
        };
        let key = SecretKey::generate(&mut fresh_entropy());
        let public = key_file::create(&path, &key)?;
        let object = json!({
            "keyId": key.id().to_string(),
            "secretKeyPath": path.display().to_string(),
            "publicKeyPath": public.display().to_string(),
        });
        session.output.answer(&object, || {
            format!(
                "{}\nsecret key  {}\npublic key  {}\nnext: fleetd trust delegate '{}' --role release --workload NAME --root ROOT.key",
                key.id(),
                path.display(),
                public.display(),
                public.display(),
            )
        })
    }
}
