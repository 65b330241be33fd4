//! `rollout rollback`: giving devices back what they ran before a rollout.

use std::time::Duration;

use clap::Args;
use fleetd_proto::fleetd::rollout::v1::{
    GetPlanRequest, Plan, PlanRollbackRequest, PlannedRollback, StartRolloutRequest, start_rollout_request,
};
use serde_json::json;

use super::{stop, view, watch};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::command::{Session, login, value};
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::output::Moment;

/// Give devices back what they ran before a rollout.
///
/// The way back is a rollout of its own, to the release that each device had when the first one was planned. Devices have that
/// on their disk, and fetch nothing; one that lost it fetches it. Whoever is away follows when it is back. Taken back as a
/// whole, a rollout that has not ended ends.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout rollback rol_6b8d0f2h4k6n8q0s --dry-run
  fleetd rollout rollback rol_6b8d0f2h4k6n8q0s --yes --wait=10m
  fleetd rollout rollback rol_6b8d0f2h4k6n8q0s --wave 2
  fleetd rollout rollback rol_6b8d0f2h4k6n8q0s --device brisk-otter")]
pub struct Rollback {
    /// The rollout to take back (`rol_…`)
    pub rollout: String,
    /// Only the devices of this wave, from 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub wave: Option<u32>,
    /// Only this device, by name or id (repeat for more)
    #[arg(long, short = 'd', value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Show what would happen, and start nothing
    #[arg(long, conflicts_with_all = ["wait", "yes"])]
    pub dry_run: bool,
    /// Follow it to its end, at most for this long; Ctrl-C leaves, and it goes on
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "365d",
          value_parser = value::duration)]
    pub wait: Option<Duration>,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Rollback {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let request = PlanRollbackRequest {
            request_id: request_id(),
            rollout_id: self.rollout.clone(),
            wave: self.wave.unwrap_or(0),
            devices: self.device.clone(),
        };
        let answer = client.plan_rollback(request).await?;
        let (mut text, mut plans) = (String::new(), Vec::new());
        for PlannedRollback { plan, devices } in answer.rollbacks {
            let plan = login::need(plan, "plan")?;
            let is_whole = plan.counts.is_some_and(|counts| u64::from(counts.matched) == devices.len() as u64);
            let request = GetPlanRequest { plan_id: plan.id.clone(), ..Default::default() };
            let devices = if is_whole { devices } else { client.all_planned_devices(request).await? };
            text.push_str(&view::plan(&plan, &devices, Moment::now()));
            plans.push(plan);
        }
        text.push_str("Devices that have the release on their disk fetch nothing.\n");
        answer.left_out.iter().for_each(|left_out| text.push_str(&format!("stays as it is: {left_out}\n")));
        let stops = stop::standing(&client).await?;
        text.push_str(&stop::before_a_start(&stops));
        if self.dry_run {
            let object = json!({
                "plans": plans.iter().map(message_json).collect::<Vec<_>>(),
                "leftOut": answer.left_out,
                "fleetStops": stops.iter().map(message_json).collect::<Vec<_>>(),
            });
            return session.output.answer(&object, || text);
        }
        session.output.note(text.trim_end());
        // Where nobody is to go back there is nothing to ask for; the server says why nothing can be started.
        let goes_back = |plan: &Plan| plan.counts.is_some_and(|counts| counts.update + counts.install > 0);
        if plans.iter().any(goes_back) {
            self.confirm.ask(session.output, &format!("take {} back on these devices", self.rollout))?;
        }
        let mut started = Vec::new();
        for plan in plans {
            let plan = Some(start_rollout_request::Plan::PlanId(plan.id));
            let request = StartRolloutRequest { request_id: request_id(), plan, only_planned: false };
            started.push(login::need(client.start_rollout(request).await?.rollout, "rollout")?);
        }
        if let Some(wait) = self.wait {
            for rollout in started {
                watch::follow(session, &client, &rollout.id, Some(wait)).await?;
            }
            return Ok(());
        }
        let object = json!({ "rollouts": started.iter().map(message_json).collect::<Vec<_>>() });
        session.output.answer(&object, || {
            let lines = started
                .iter()
                .map(|rollout| format!("{}Follow it: fleetd rollout watch {}\n", view::summary(rollout), rollout.id));
            lines.collect()
        })
    }
}
