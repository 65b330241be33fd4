//! `trust rotate`: other keys for the root.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::trust::Change;

use super::draft::{Drafting, Drawn};
use super::record_file::key_list;
use crate::command::Session;
use crate::error::CommandError;
use crate::key_file;

/// Give the root other keys, by a root record that its old and its new keys sign.
///
/// The keys that are named are all that the root has from then on. The record counts once as many of the old keys have
/// signed as the old root asks for, and as many of the new ones as the new root does: nobody is locked out by a key that
/// was never held. Delegations and revocations stay as they are.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd trust rotate anna.pub ben.pub cleo.pub --threshold 2 --draft next.record
  fleetd trust rotate new.pub --root root.key --root new.key")]
pub struct Rotate {
    /// The public keys that the root has from then on
    #[arg(value_name = "PUBLIC_KEY", required = true)]
    pub keys: Vec<PathBuf>,
    /// How many of them must sign
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub threshold: u8,
    /// Who signs it, or where the draft goes.
    #[command(flatten)]
    pub drafting: Drafting,
}

impl Rotate {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let keys = self.keys.iter().map(|path| key_file::read_public(path)).collect::<Result<BTreeSet<_>, _>>()?;
        let what = format!("the root is {} of {}", self.threshold, key_list(keys.iter().map(PublicKey::id)));
        let drawn = Drawn::on(session).await?;
        let record = drawn.record([Change::Rotate { keys, threshold: self.threshold }])?;
        self.drafting.finish(session, drawn, record, &what).await
    }
}
