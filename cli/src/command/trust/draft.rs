//! A root record from its draft to the server: signed here, or written to a file for others to sign.

use std::path::PathBuf;

use clap::Args;
use fleetd_proto::fleetd::trust::v1::{AddRootRecordRequest, GetTrustRequest};
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::trust::{Change, Extension, RootChain, RootRecord};

use super::record_file::{self, RecordFile, key_list};
use super::{chain, show};
use crate::client::{FleetClient, request_id};
use crate::command::Session;
use crate::error::CommandError;
use crate::exit::Exit;
use crate::key_file;

/// Who signs a root record, or where its draft goes.
#[derive(Args, Debug)]
pub struct Drafting {
    /// A secret key of the root, as many as must sign (`serve` printed where the first one lies)
    #[arg(long = "root", value_name = "PATH", required_unless_present = "draft")]
    pub roots: Vec<PathBuf>,
    /// Send nothing: write the record to this file, for `trust sign` on the machines that hold the root's keys
    #[arg(long, value_name = "FILE")]
    pub draft: Option<PathBuf>,
}

/// What a draft is drawn on: the server, and the chain that it follows.
pub(super) struct Drawn {
    client: FleetClient,
    pub(super) chain: RootChain,
}

impl Drawn {
    /// Asks the server for its chain.
    pub(super) async fn on(session: &Session<'_>) -> Result<Self, CommandError> {
        let client = session.client().await?;
        let chain = chain(client.fleet(), &client.get_trust(GetTrustRequest {}).await?)?;
        Ok(Self { client, chain })
    }

    /// The record after the newest, which nobody has signed.
    pub(super) fn record(&self, changes: impl IntoIterator<Item = Change>) -> Result<RootRecord, CommandError> {
        self.chain.draft_next(changes).map_err(|error| {
            CommandError::new("trust.draft", "the root cannot say that")
                .caused_by(&error)
                .next_command("fleetd trust show")
        })
    }

    /// Sends a record, if enough keys have signed it, and shows what trust is then.
    pub(super) async fn submit(
        self,
        session: &Session<'_>,
        record: RootRecord,
        what: &str,
    ) -> Result<(), CommandError> {
        complete(&self.chain, &record)?;
        let version = record.body().version;
        let request = AddRootRecordRequest { request_id: request_id(), root_record: record.encode() };
        let answer = self.client.add_root_record(request).await?;
        session.output.note(&format!("{what}, from root record {version} on"));
        show(session, answer.trust)
    }
}

impl Drafting {
    /// Signs the record with the keys that are at hand, and then sends it or writes it to a file.
    pub(super) async fn finish(
        self,
        session: &Session<'_>,
        drawn: Drawn,
        record: RootRecord,
        what: &str,
    ) -> Result<(), CommandError> {
        let roots = self.roots.iter().map(|path| key_file::read_secret(path)).collect::<Result<Vec<_>, _>>()?;
        let record = sign(&drawn.chain, record, &roots)?;
        let Some(path) = self.draft else { return drawn.submit(session, record, what).await };
        let file = RecordFile { chain: drawn.chain, record };
        record_file::create(&path, &file)?;
        record_file::show(session, &path, &file)
    }
}

/// Signs a record with keys of the root that it follows, or of its own.
///
/// # Errors
/// When one of them is neither.
pub fn sign(chain: &RootChain, record: RootRecord, keys: &[SecretKey]) -> Result<RootRecord, CommandError> {
    for key in keys {
        let public = key.public();
        if !chain.newest().body().keys.contains(&public) && !record.body().keys.contains(&public) {
            let present = key_list(chain.newest().body().keys.iter().map(PublicKey::id));
            return Err(CommandError::new("trust.not_root", format!("{} is no key of this fleet's root", key.id()))
                .cause(format!("the root of {} has {present}", chain.fleet()))
                .next_command("name the root key's file that `fleetd serve` printed with --root"));
        }
    }
    Ok(keys.iter().fold(record, |record, key| record.sign(key)))
}

/// Checks that a record follows the chain, or is in it, and that enough keys have signed it.
///
/// # Errors
/// When it does not, or too few have.
pub fn complete(chain: &RootChain, record: &RootRecord) -> Result<(), CommandError> {
    let is_next = record.body().version == chain.version().saturating_add(1);
    if let Some(missing) = record_file::missing(&chain.count_signatures(record)).filter(|_| is_next) {
        return Err(CommandError::new("trust.threshold", format!("too few keys have signed: {missing}"))
            .next_command("repeat --root for each of them, or pass a draft around: --draft next.record")
            .exit(Exit::Usage));
    }
    match chain.clone().extend(record.clone()) {
        Ok(Extension::Extended | Extension::Known) => Ok(()),
        Ok(Extension::Alarm { version }) => {
            Err(record_file::unfit(chain, record, &format!("there is another root record {version}")))
        }
        Err(error) => Err(record_file::unfit(chain, record, &crate::error::chain(&error))),
    }
}
