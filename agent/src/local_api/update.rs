//! "Not now": what somebody at the device says of updates.

use std::time::Duration;

use fleetd_actors::window::VETO_LIMIT_MAX;
use fleetd_actors::workload::Command;
use fleetd_proto::agent::update::v1 as api;
use fleetd_proto::agent::update::v1::update_service_server::UpdateService;
use tonic::{Code, Request, Response, Status};

use super::serve::{LocalApi, refusal};

/// Bytes of a reason: it travels to everybody who waits for the update.
const REASON_BYTES_MAX: usize = 256;

#[tonic::async_trait]
impl UpdateService for LocalApi {
    async fn defer_update(
        &self,
        request: Request<api::DeferUpdateRequest>,
    ) -> Result<Response<api::DeferUpdateResponse>, Status> {
        let api::DeferUpdateRequest { request_id, workload, length, reason } = request.into_inner();
        let length = length.and_then(|length| Duration::try_from(length).ok()).filter(|length| !length.is_zero());
        let Some(length) = length.filter(|length| *length <= VETO_LIMIT_MAX) else {
            let days = VETO_LIMIT_MAX.as_secs() / 86_400;
            let message = format!("length: an update is put off for more than no time, and for {days} days at most");
            return Err(refusal(Code::InvalidArgument, "update.length", message));
        };
        let reason = reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default();
        let command = Command::Defer { length, reason: reason.replace(char::is_control, " ") };
        let workload = self.command(&request_id, &workload, command).await?;
        Ok(Response::new(api::DeferUpdateResponse { workload }))
    }

    async fn allow_update(
        &self,
        request: Request<api::AllowUpdateRequest>,
    ) -> Result<Response<api::AllowUpdateResponse>, Status> {
        let api::AllowUpdateRequest { request_id, workload } = request.into_inner();
        let workload = self.command(&request_id, &workload, Command::Allow).await?;
        Ok(Response::new(api::AllowUpdateResponse { workload }))
    }
}
