//! `trust`: whose word counts in the fleet.
//!
//! A root record is drafted and signed here: the root's secret key is read from its file and never sent anywhere. Where the
//! root has several keys, on machines of their own, the draft travels as a file: [`record_file`].

mod delegate;
pub mod draft;
pub mod record_file;
mod rotate;
mod sign;
mod submit;

use clap::{Args, Subcommand, ValueEnum};
use fleetd_proto::fleetd::trust::v1::{
    GetTrustRequest, GetTrustResponse, RevocationKind, RevokeKeyRequest, Trust as TrustMessage,
};
use fleetd_sync_core::id::{FleetId, KeyId};
use fleetd_sync_core::trust::RootChain;

use super::{Session, login, wording};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::output::table;

pub use delegate::{Delegate, RoleName};
pub use rotate::Rotate;
pub use sign::Sign;
pub use submit::Submit;

/// Whose word counts in the fleet.
#[derive(Debug, Subcommand)]
pub enum Trust {
    /// Show the root's keys, what it delegated, and what was revoked
    #[command(after_help = "\
Examples:
  fleetd trust show
  fleetd trust show --json | jq -r '.delegations[] | select(.role == \"DELEGATION_ROLE_RELEASE\").keyId'")]
    Show,
    /// Give a key a role, by a root record that is signed here
    Delegate(Delegate),
    /// Give the root other keys, by a root record that its old and its new keys sign
    Rotate(Rotate),
    /// Sign a draft of a root record, on a machine that needs no network
    Sign(Sign),
    /// Send a root record that enough keys have signed to the server
    Submit(Submit),
    /// Revoke a key; it cannot be undone
    Revoke(Revoke),
}

/// How a key came to count no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// It signs nothing new; what it signed may still be restored
    Retired,
    /// Somebody else may hold it: nothing that it signed is installed or restored
    Compromised,
}

/// Revoke a key; it cannot be undone.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd trust revoke key_7n9q2s4v6x8z0b3d5f7h9k1m3m --kind retired --reason 'new build machine'
  fleetd trust revoke key_7n9q2s4v6x8z0b3d5f7h9k1m3m --kind compromised --yes")]
pub struct Revoke {
    /// The key (`key_…`)
    pub key: KeyId,
    /// How it came to that
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Trust {
    /// Runs the command.
    ///
    /// # Errors
    /// When a key cannot be read, or the server cannot be reached or refuses.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Show => {
                let client = session.client().await?;
                let answer = client.get_trust(GetTrustRequest {}).await?;
                chain(client.fleet(), &answer)?;
                show(session, answer.trust)
            }
            Self::Delegate(command) => command.run(session).await,
            Self::Rotate(command) => command.run(session).await,
            Self::Sign(command) => command.run(session),
            Self::Submit(command) => command.run(session).await,
            Self::Revoke(command) => command.run(session).await,
        }
    }
}

fn show(session: &Session<'_>, trust: Option<TrustMessage>) -> Result<(), CommandError> {
    let trust = login::need(trust, "trust")?;
    session.output.answer(&message_json(&trust), || render(&trust))
}

/// Takes the root chain from an answer; it must be the fleet's.
///
/// # Errors
/// When the records are not those of the fleet.
pub fn chain(fleet: FleetId, answer: &GetTrustResponse) -> Result<RootChain, CommandError> {
    RootChain::load(fleet, &answer.root_records).map_err(|error| {
        CommandError::new("trust.chain", format!("the server's root records are not those of fleet {fleet}"))
            .caused_by(&error)
            .next_command("fleetd doctor")
    })
}

impl Revoke {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let what = match self.kind {
            Kind::Retired => format!("retire {}: it signs nothing new, for ever", self.key),
            Kind::Compromised => {
                format!("declare {} compromised: nothing that it signed is installed or restored, for ever", self.key)
            }
        };
        self.confirm.ask(session.output, &what)?;
        let kind = match self.kind {
            Kind::Retired => RevocationKind::Retired,
            Kind::Compromised => RevocationKind::Compromised,
        };
        let request = RevokeKeyRequest {
            request_id: request_id(),
            key_id: self.key.to_string(),
            kind: kind.into(),
            reason: self.reason,
        };
        let answer = session.client().await?.revoke_key(request).await?;
        show(session, answer.trust)
    }
}

/// Draws whose word counts.
#[must_use]
pub fn render(trust: &TrustMessage) -> String {
    let mut text = format!("fleet {}, root record {}\n", trust.fleet_id, trust.version);
    text.push_str(&format!("root: {} of {}\n\n", trust.threshold, trust.root_key_ids.join(", ")));
    let rows = trust.delegations.iter().map(|delegation| {
        let scope: Vec<&str> = delegation.workloads.iter().chain(&delegation.sites).map(String::as_str).collect();
        let rank = if delegation.rank == 0 { String::new() } else { delegation.rank.to_string() };
        [
            delegation.key_id.clone(),
            wording::delegation_role(delegation.role),
            wording::or_dash(&scope.join(", ")),
            wording::or_dash(&rank),
        ]
    });
    text.push_str(&table(["KEY", "ROLE", "FOR", "RANK"], rows));
    if !trust.revocations.is_empty() {
        let rows = trust
            .revocations
            .iter()
            .map(|revocation| [revocation.key_id.clone(), wording::revocation_kind(revocation.kind)]);
        text.push('\n');
        text.push_str(&table(["REVOKED", "KIND"], rows));
        text.push_str("who did it, when and why: fleetd audit list --on KEY --json\n");
    }
    for alarm in &trust.alarms {
        text.push_str(&format!("ALARM: {alarm}\n"));
    }
    text
}
