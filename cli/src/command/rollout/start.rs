//! `rollout start`: carrying out a plan.

use std::path::Path;

use fleetd_proto::fleetd::rollout::v1::{GetPlanRequest, StartRolloutRequest, start_rollout_request};
use fleetd_simulator::rehearsal::PlanHead;
use fleetd_sync_core::id::{ArtifactDigest, PlanId};
use fleetd_sync_core::limit;

use super::{Start, view, watch};
use crate::client::json::json as message_json;
use crate::client::{FleetClient, request_id};
use crate::command::{Session, login};
use crate::error::CommandError;

/// A document must fit into one message of the API, which takes 4 MiB; a larger one is named by the id in it.
const SENT_BYTES_MAX: usize = 3 << 20;

/// Changes since a plan that a start names before it counts the rest.
const LEFT_OUT_NAMED: usize = 20;

impl Start {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let plan = read_plan(&self.plan)?;
        let client = session.client().await?;
        let plan = sendable(&client, plan).await?;
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
    let length_max = limit::PLAN_DOCUMENT_BYTES_MAX;
    if length == 0 || usize::try_from(length).is_ok_and(|length| length > length_max) {
        return Err(unreadable(format!("{text:?} is no plan: it has {length} bytes"))
            .cause(format!("a plan's file has 1 to {length_max} bytes")));
    }
    let document =
        std::fs::read(path).map_err(|error| unreadable(format!("{text:?} cannot be read")).caused_by(&error))?;
    Ok(start_rollout_request::Plan::Document(document))
}

/// The same plan as a request can carry it: a document that is too large is named by its id, once the server says that it
/// saved this very document.
pub(super) async fn sendable(
    client: &FleetClient,
    plan: start_rollout_request::Plan,
) -> Result<start_rollout_request::Plan, CommandError> {
    let document = match plan {
        start_rollout_request::Plan::Document(document) if document.len() > SENT_BYTES_MAX => document,
        plan => return Ok(plan),
    };
    let text = String::from_utf8_lossy(&document);
    let PlanHead { plan: id, .. } = PlanHead::read(&text).map_err(|error| {
        CommandError::new("rollout.plan_unreadable", "the file is no plan that can be started")
            .caused_by(&error)
            .next_command("fleetd rollout plan WORKLOAD@VERSION … --out p.json")
    })?;
    let request = GetPlanRequest { plan_id: id.clone(), page_size: 1, ..Default::default() };
    let saved = login::need(client.get_plan(request).await?.plan, "plan")?;
    if saved.document_digest != ArtifactDigest::of(&document).to_string() {
        return Err(CommandError::new("rollout.plan_edited", format!("the file is not the plan {id} that was saved"))
            .cause("a byte of it was changed")
            .next_command("fleetd rollout plan WORKLOAD@VERSION … --out p.json"));
    }
    Ok(start_rollout_request::Plan::PlanId(id))
}
