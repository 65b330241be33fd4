//! `rollout pause`, `resume`, `approve` and `why`: a rollout that goes on, under somebody's eyes.

use clap::Args;
use fleetd_proto::fleetd::rollout::v1::{
    ApproveRolloutRequest, GetRolloutRequest, PauseRolloutRequest, ResumeRolloutRequest, Rollout,
};

use super::view;
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::command::{Session, login};
use crate::error::CommandError;

/// Stop a rollout for now.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout pause rol_6b8d0f2h4k6n8q0s --reason 'shop 7 called'")]
pub struct Pause {
    /// The rollout (`rol_…`)
    pub rollout: String,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// Let a rollout go on that was paused, or that halted: what has failed by then counts no more.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout resume rol_6b8d0f2h4k6n8q0s")]
pub struct Resume {
    /// The rollout (`rol_…`)
    pub rollout: String,
}

/// Let the next wave begin, where that waits for somebody's word.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout approve rol_6b8d0f2h4k6n8q0s
  fleetd rollout approve rol_6b8d0f2h4k6n8q0s --wave 2")]
pub struct Approve {
    /// The rollout (`rol_…`)
    pub rollout: String,
    /// The wave that is meant, from 1; the one after the newest without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub wave: Option<u32>,
}

/// Say why a rollout stands where it stands, and what would bring it on.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout why rol_6b8d0f2h4k6n8q0s
  fleetd rollout why rol_6b8d0f2h4k6n8q0s --json | jq -r '.explanation[]'")]
pub struct Why {
    /// The rollout (`rol_…`)
    pub rollout: String,
}

impl Pause {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let request = PauseRolloutRequest { request_id: request_id(), rollout_id: self.rollout, reason: self.reason };
        answer(session, client.pause_rollout(request).await?.rollout)
    }
}

impl Resume {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let request = ResumeRolloutRequest { request_id: request_id(), rollout_id: self.rollout };
        answer(session, client.resume_rollout(request).await?.rollout)
    }
}

impl Approve {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        // What is approved is what can be seen now, and not what may be next when the request arrives.
        let request = GetRolloutRequest { rollout_id: self.rollout.clone(), page_size: 1, ..Default::default() };
        let shown = login::need(client.get_rollout(request).await?.rollout, "rollout")?;
        let wave = self.wave.unwrap_or(shown.wave.saturating_add(1));
        let request = ApproveRolloutRequest { request_id: request_id(), rollout_id: self.rollout, wave };
        answer(session, client.approve_rollout(request).await?.rollout)
    }
}

impl Why {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let request = GetRolloutRequest { rollout_id: self.rollout, page_size: 1, ..Default::default() };
        answer(session, client.get_rollout(request).await?.rollout)
    }
}

/// Shows a rollout, and why it stands where it stands.
pub(super) fn answer(session: &Session<'_>, rollout: Option<Rollout>) -> Result<(), CommandError> {
    let rollout = login::need(rollout, "rollout")?;
    session.output.answer(&message_json(&rollout), || view::summary(&rollout) + &view::explanation(&rollout))
}
