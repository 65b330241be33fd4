//! `enroll`: who may join the fleet.

use std::time::Duration;

use clap::{Args, Subcommand};
use fleetd_proto::fleetd::device::v1::{Device, DeviceState, ListDevicesRequest};
use fleetd_proto::fleetd::enrolment::v1::{
    ApproveDeviceRequest, CreateEnrolmentTokenRequest, DenyDeviceRequest, EnrolmentToken, ListEnrolmentTokensRequest,
    ListPendingDevicesRequest, PendingDevice, RevokeEnrolmentTokenRequest,
};
use serde_json::json;

use super::{Session, login, value, wording};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::output::{Moment, table};

/// Who may join the fleet.
#[derive(Debug, Subcommand)]
pub enum Enroll {
    /// Tokens that let devices register
    #[command(subcommand)]
    Token(Token),
    /// Let a waiting device in, or take a recovered one back
    Approve(Approve),
    /// Turn a waiting device away, for ever
    Deny(Deny),
    /// List devices that wait for approval, the oldest first
    #[command(after_help = "\
Examples:
  fleetd enroll list
  fleetd enroll list --json | jq -r '.pendingDevices[].localId'")]
    List,
}

/// Tokens that let devices register.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and show it, this once
    Create(CreateToken),
    /// List tokens, the newest first
    List(ListTokens),
    /// Revoke a token; devices that registered with it stay
    Revoke(RevokeToken),
}

/// Make a token and show it, this once.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd enroll token create
  fleetd enroll token create --uses 10 --label shop=7 --expires 7d --note 'shop 7'
  fleetd agent run --enroll-token \"$(fleetd enroll token create --json | jq -r .text)\"")]
pub struct CreateToken {
    /// How many devices may register with it
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
    /// How long it counts
    #[arg(long, default_value = "1d", value_name = "DURATION", value_parser = value::lifetime)]
    pub expires: Duration,
    /// A label that devices get with it (repeat for more)
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    pub labels: Vec<(String, String)>,
    /// The site that devices get with it
    #[arg(long)]
    pub site: Option<String>,
    /// Whether devices wait for approval; when left out, they do if the token can be used more than once
    #[arg(long, value_name = "BOOL")]
    pub approval: Option<bool>,
    /// What the token is for
    #[arg(long, default_value = "")]
    pub note: String,
}

/// List tokens, the newest first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd enroll token list
  fleetd enroll token list --ended")]
pub struct ListTokens {
    /// Also those that are revoked, expired or used up
    #[arg(long)]
    pub ended: bool,
}

/// Revoke a token.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd enroll token revoke tok_0h2m4p6r8t0w2y4a --yes")]
pub struct RevokeToken {
    /// The token's id (`tok_…`)
    pub id: String,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

/// Let a waiting device in, or take a recovered one back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd enroll approve loc_4t6w8y0b2d4f6h8k0n2q4s6v8x
  fleetd enroll approve loc_4t6w8y0b2d4f6h8k0n2q4s6v8x --name till-3 --label shop=7
  fleetd enroll approve brisk-otter calm-heron
  fleetd enroll approve --all-recovered")]
pub struct Approve {
    /// The hashes of the devices' keys (`loc_…`): compare them with what the devices print; or the names of devices
    /// that are recovered
    #[arg(value_name = "DEVICE", required_unless_present = "all_recovered")]
    pub devices: Vec<String>,
    /// Approve every device that came back after the server had lost its record
    #[arg(long, conflicts_with_all = ["devices", "name", "labels"])]
    pub all_recovered: bool,
    /// The name to give it; the server chooses when left out
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
    /// A label to give it besides its token's (repeat for more)
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = value::label)]
    pub labels: Vec<(String, String)>,
}

/// Turn a waiting device away, for ever.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd enroll deny loc_4t6w8y0b2d4f6h8k0n2q4s6v8x --reason 'not ours' --yes")]
pub struct Deny {
    /// The hash of its key (`loc_…`)
    pub local_id: String,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Enroll {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Token(command) => command.run(session).await,
            Self::Approve(command) => command.run(session).await,
            Self::Deny(command) => command.run(session).await,
            Self::List => {
                let request = ListPendingDevicesRequest::default();
                let devices = session.client().await?.all_pending_devices(request).await?;
                let object = json!({ "pendingDevices": devices.iter().map(message_json).collect::<Vec<_>>() });
                session.output.answer(&object, || render_pending(&devices, Moment::now()))
            }
        }
    }
}

impl Approve {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let is_one = self.devices.len() == 1;
        let mut asked = self.devices;
        if self.all_recovered {
            let known = client.all_devices(ListDevicesRequest::default()).await?;
            let recovered = known.into_iter().filter(|device| device.state() == DeviceState::Recovered);
            asked = recovered.map(|device| device.local_id).collect();
        }
        let mut approved = Vec::new();
        for local_id in asked {
            let (name, labels) = (self.name.clone(), self.labels.iter().cloned().collect());
            let request = ApproveDeviceRequest { request_id: request_id(), local_id, name, labels };
            let answer = client.approve_device(request).await?;
            approved.push(login::need(answer.device, "device")?);
        }
        let object = match approved.as_slice() {
            [device] if is_one => message_json(device),
            devices => json!({ "devices": devices.iter().map(message_json).collect::<Vec<_>>() }),
        };
        let line = |device: &Device| match device.name.as_str() {
            "" => format!("{} is approved; it gets its name when it asks again", device.local_id),
            name => format!("{name} ({}) is approved", device.local_id),
        };
        session.output.answer(&object, || match approved.as_slice() {
            [] => "no device is recovered".to_owned(),
            devices => devices.iter().map(line).collect::<Vec<_>>().join("\n"),
        })
    }
}

impl Deny {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        self.confirm.ask(session.output, &format!("turn {} away; its key is never let in again", self.local_id))?;
        let request =
            DenyDeviceRequest { request_id: request_id(), local_id: self.local_id.clone(), reason: self.reason };
        let answer = session.client().await?.deny_device(request).await?;
        session.output.answer(&message_json(&answer), || format!("{} is denied", self.local_id))
    }
}

impl Token {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Create(command) => command.run(session).await,
            Self::List(command) => {
                let request = ListEnrolmentTokensRequest { include_ended: command.ended, ..Default::default() };
                let tokens = session.client().await?.all_enrolment_tokens(request).await?;
                let object = json!({ "enrolmentTokens": tokens.iter().map(message_json).collect::<Vec<_>>() });
                session.output.answer(&object, || render_tokens(&tokens, Moment::now()))
            }
            Self::Revoke(command) => {
                let what = format!("revoke enrolment token {}; devices that registered with it stay", command.id);
                command.confirm.ask(session.output, &what)?;
                let request = RevokeEnrolmentTokenRequest { request_id: request_id(), token_id: command.id };
                let answer = session.client().await?.revoke_enrolment_token(request).await?;
                let token = login::need(answer.enrolment_token, "enrolment token")?;
                session.output.answer(&message_json(&token), || format!("{} is revoked", token.id))
            }
        }
    }
}

impl CreateToken {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let request = CreateEnrolmentTokenRequest {
            request_id: request_id(),
            note: self.note,
            labels: self.labels.into_iter().collect(),
            site: self.site.unwrap_or_default(),
            uses_max: self.uses,
            expires_at: wording::timestamp(Moment::now().after(self.expires)),
            needs_approval: self.approval,
        };
        let answer = session.client().await?.create_enrolment_token(request).await?;
        session.output.note("This token cannot be shown again. On the device: fleetd agent run --enroll-token …");
        session.output.answer(&message_json(&answer), || answer.text.clone())
    }
}

/// Draws tokens.
#[must_use]
pub fn render_tokens(tokens: &[EnrolmentToken], now: Moment) -> String {
    let rows = tokens.iter().map(|token| {
        let state = match (&token.revoked_at, wording::moment(token.expires_at.as_ref()).relative(now)) {
            (Some(_), _) => "revoked".to_owned(),
            (None, _) if token.uses >= token.uses_max => "used up".to_owned(),
            (None, when) if when == "-" || when.starts_with("in ") => format!("expires {when}"),
            (None, when) => format!("expired {when}"),
        };
        let approval = if token.needs_approval { "yes" } else { "no" };
        [
            token.id.clone(),
            format!("{}/{}", token.uses, token.uses_max),
            approval.to_owned(),
            wording::labels(&token.labels),
            state,
            token.note.clone(),
        ]
    });
    table(["ID", "USES", "APPROVAL", "LABELS", "STATE", "NOTE"], rows)
}

/// Draws devices that wait.
#[must_use]
pub fn render_pending(devices: &[PendingDevice], now: Moment) -> String {
    let rows = devices.iter().map(|device| {
        let facts = device.facts.clone().unwrap_or_default();
        let asked = wording::moment(device.requested_at.as_ref()).relative(now);
        let host = wording::or_dash(&facts.hostname);
        let labels = wording::labels(&device.labels);
        let token = if device.token_ended.is_empty() { "admits it" } else { device.token_ended.as_str() };
        [device.local_id.clone(), host, wording::or_dash(&facts.platform), labels, asked, token.to_owned()]
    });
    table(["LOCAL ID", "HOST", "PLATFORM", "LABELS", "ASKED", "TOKEN"], rows)
}
