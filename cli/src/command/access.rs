//! `access`: who may call the API.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use fleetd_proto::fleetd::access::v1::{
    self as access, AccessToken, CreateAccessTokenRequest, ListAccessTokensRequest, RevokeAccessTokenRequest,
};
use serde_json::json;

use super::{Session, login, value, wording};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::output::{Moment, table};

/// Who may call the API.
#[derive(Debug, Subcommand)]
pub enum Access {
    /// Make a token and show it, this once
    Create(Create),
    /// List tokens, the newest first
    List(List),
    /// Revoke a token at once
    Revoke(Revoke),
}

/// What a token allows. Each may all that the one before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// See everything but secrets
    Viewer,
    /// Push releases, roll them out, start and stop what runs
    Deployer,
    /// Decide who belongs to the fleet
    Admin,
}

impl From<Role> for access::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Deployer => Self::Deployer,
            Role::Admin => Self::Admin,
        }
    }
}

/// Make a token and show it, this once.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd access create ci --role deployer --expires 90d
  fleetd access create ana --role viewer --json | jq -r .text")]
pub struct Create {
    /// Whose or what it is for
    pub name: String,
    /// What it allows
    #[arg(long, value_enum)]
    pub role: Role,
    /// How long it counts; for ever when left out
    #[arg(long, value_name = "DURATION", value_parser = value::lifetime)]
    pub expires: Option<Duration>,
}

/// List tokens, the newest first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd access list
  fleetd access list --ended")]
pub struct List {
    /// Also those that are revoked or expired
    #[arg(long)]
    pub ended: bool,
}

/// Revoke a token at once.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd access revoke acc_2b9d8c7f6g5h4j3k --yes")]
pub struct Revoke {
    /// The token's id (`acc_…`)
    pub id: String,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Access {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Create(command) => command.run(session).await,
            Self::List(command) => {
                let request = ListAccessTokensRequest { include_ended: command.ended, ..Default::default() };
                let tokens = session.client().await?.all_access_tokens(request).await?;
                let object = json!({ "accessTokens": tokens.iter().map(message_json).collect::<Vec<_>>() });
                session.output.answer(&object, || render(&tokens, Moment::now()))
            }
            Self::Revoke(command) => {
                command.confirm.ask(session.output, &format!("revoke access token {} at once", command.id))?;
                let request = RevokeAccessTokenRequest { request_id: request_id(), access_id: command.id };
                let answer = session.client().await?.revoke_access_token(request).await?;
                let token = login::need(answer.access_token, "access token")?;
                session.output.answer(&message_json(&token), || format!("{} ({}) is revoked", token.name, token.id))
            }
        }
    }
}

impl Create {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let request = CreateAccessTokenRequest {
            request_id: request_id(),
            name: self.name,
            role: access::Role::from(self.role).into(),
            expires_at: self.expires.and_then(|expires| wording::timestamp(Moment::now().after(expires))),
        };
        let answer = session.client().await?.create_access_token(request).await?;
        session.output.note("This token cannot be shown again:");
        session.output.answer(&message_json(&answer), || answer.text.clone())
    }
}

/// Draws tokens.
#[must_use]
pub fn render(tokens: &[AccessToken], now: Moment) -> String {
    let rows = tokens.iter().map(|token| {
        let state = match (&token.revoked_at, wording::moment(token.expires_at.as_ref()).relative(now)) {
            (Some(_), _) => "revoked".to_owned(),
            (None, never) if never == "-" => "never expires".to_owned(),
            (None, when) if when.starts_with("in ") => format!("expires {when}"),
            (None, when) => format!("expired {when}"),
        };
        let created = wording::moment(token.created_at.as_ref()).relative(now);
        [token.id.clone(), token.name.clone(), wording::role(token.role), created, state]
    });
    table(["ID", "NAME", "ROLE", "CREATED", "STATE"], rows)
}
