//! `rollout plan`: what a rollout would do.

use std::io::Write as _;
use std::path::Path;

use fleetd_proto::fleetd::artifact::v1::DownloadArtifactRequest;
use fleetd_proto::fleetd::rollout::v1::{GetPlanRequest, Plan as PlanMessage, PlanRolloutRequest};
use fleetd_sync_core::id::ArtifactDigest;
use serde_json::json;

use super::{Plan, markdown, stop, view};
use crate::client::json::json as message_json;
use crate::client::{CallError, FleetClient, request_id};
use crate::command::{Session, login};
use crate::error::CommandError;
use crate::output::Moment;

impl Plan {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        self.meant.require_some(&format!("fleetd rollout plan {}@{}", self.release.workload, self.release.version))?;
        let client = session.client().await?;
        let request = PlanRolloutRequest {
            request_id: request_id(),
            workload: self.release.workload.to_string(),
            version: self.release.version.to_string(),
            configuration: self.configuration.as_ref().map(ToString::to_string).unwrap_or_default(),
            targets: Some(self.meant.into()),
            strategy: Some(self.strategy.into()),
        };
        let answer = client.plan_rollout(request).await?;
        let plan = login::need(answer.plan, "plan")?;
        let mut devices = answer.devices;
        if !answer.next_page_token.is_empty() {
            let request = GetPlanRequest { plan_id: plan.id.clone(), ..Default::default() };
            devices = client.all_planned_devices(request).await?;
        }
        if let Some(path) = &self.out {
            let document = document(&client, &plan, answer.document).await?;
            write(path, &document)?;
        }
        let stops = stop::standing(&client).await?;
        if let Some(path) = &self.markdown {
            markdown::append(path, &(stop::sentences(&stops) + &markdown::plan(&plan, &devices, Moment::now())))?;
        }
        let object = json!({
            "plan": message_json(&plan),
            "devices": devices.iter().map(message_json).collect::<Vec<_>>(),
            "canStart": !view::is_blocked(&plan) && stops.is_empty(),
            "fleetStops": stops.iter().map(message_json).collect::<Vec<_>>(),
        });
        let start = self.out.as_ref().map_or_else(|| plan.id.clone(), |path| format!("'{}'", path.display()));
        session.output.answer(&object, || {
            let now = Moment::now();
            view::plan(&plan, &devices, now) + &stop::before_a_start(&stops) + &view::outlook(&plan, &start)
        })
    }
}

/// The plan's document; a large one is an artifact.
pub(super) async fn document(
    client: &FleetClient,
    plan: &PlanMessage,
    inline: Vec<u8>,
) -> Result<Vec<u8>, CommandError> {
    if !inline.is_empty() {
        return Ok(inline);
    }
    let request = DownloadArtifactRequest { digest: plan.document_digest.clone(), offset_bytes: 0 };
    let mut stream = client.download_artifact(request).await?;
    let mut document = Vec::new();
    while let Some(part) = stream.message().await.map_err(CallError::from)? {
        document.extend_from_slice(&part.content);
    }
    let found = ArtifactDigest::of(&document).to_string();
    if found != plan.document_digest {
        return Err(CommandError::new("rollout.plan_document", "the plan's document is not what the plan names")
            .cause(format!("it has digest {found}, and the plan names {}", plan.document_digest)));
    }
    Ok(document)
}

/// Writes a plan's document as it is: a start is refused when a byte of it was changed.
fn write(path: &Path, document: &[u8]) -> Result<(), CommandError> {
    let mut file = std::fs::File::create(path).map_err(|error| unwritten(path, &error))?;
    file.write_all(document).and_then(|()| file.sync_all()).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::new("rollout.plan_unwritten", format!("{} cannot be written", path.display())).caused_by(error)
}
