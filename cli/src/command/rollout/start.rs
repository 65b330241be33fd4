//! `rollout start`: carrying out a plan.

use std::path::Path;

use fleetd_proto::fleetd::rollout::v1::StartRolloutRequest;
use fleetd_proto::fleetd::rollout::v1::start_rollout_request;
use fleetd_sync_core::id::PlanId;

use super::{Start, view, watch};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::command::{Session, login};
use crate::error::CommandError;

/// A document must fit into one message of the API, which takes 4 MiB; a larger plan is started by its id.
const DOCUMENT_BYTES_MAX: u64 = 3 << 20;

/// Changes since a plan that a start names before it counts the rest.
const LEFT_OUT_NAMED: usize = 20;

impl Start {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let plan = read_plan(&self.plan)?;
        let client = session.client().await?;
        let request =
            StartRolloutRequest { request_id: request_id(), plan: Some(plan), only_planned: self.only_planned };
        let answer = client.start_rollout(request).await?;
        for left_out in answer.left_out.iter().take(LEFT_OUT_NAMED) {
            session.output.note(&format!("changed since the plan: {left_out}"));
        }
        if answer.left_out.len() > LEFT_OUT_NAMED {
            session.output.note(&format!("and {} more", answer.left_out.len() - LEFT_OUT_NAMED));
        }
        let rollout = login::need(answer.rollout, "rollout")?;
        match self.wait {
            Some(wait) => watch::follow(session, &client, &rollout.id, Some(wait)).await,
            None => session.output.answer(&message_json(&rollout), || {
                let next = if rollout.ended_at.is_some() {
                    "See it: fleetd rollout show"
                } else {
                    "Follow it: fleetd rollout watch"
                };
                format!("{}{next} {}\n", view::summary(&rollout), rollout.id)
            }),
        }
    }
}

/// Takes a plan by its id, or its document from a file.
pub(super) fn read_plan(text: &str) -> Result<start_rollout_request::Plan, CommandError> {
    if text.parse::<PlanId>().is_ok() {
        return Ok(start_rollout_request::Plan::PlanId(text.to_owned()));
    }
    let path = Path::new(text);
    let unreadable = |message: String| {
        CommandError::new("rollout.plan_unreadable", message)
            .next_command("fleetd rollout plan WORKLOAD@VERSION … --out p.json")
    };
    let length = std::fs::metadata(path)
        .map_err(|error| unreadable(format!("{text:?} is neither a plan's id nor a file")).caused_by(&error))?
        .len();
    if length == 0 || length > DOCUMENT_BYTES_MAX {
        return Err(unreadable(format!("{text:?} cannot be sent: it has {length} bytes"))
            .cause(format!("a plan's file has 1 to {DOCUMENT_BYTES_MAX} bytes"))
            .next_command("fleetd rollout start pln_…   (with the id that `rollout plan` printed)"));
    }
    let document =
        std::fs::read(path).map_err(|error| unreadable(format!("{text:?} cannot be read")).caused_by(&error))?;
    Ok(start_rollout_request::Plan::Document(document))
}
