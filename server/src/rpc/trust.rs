//! `TrustService`: whose word counts.

use fleetd_actors::authority;
use fleetd_proto::fleetd::trust::v1 as trust;
use fleetd_proto::fleetd::trust::v1::RevocationKind;
use fleetd_proto::fleetd::trust::v1::trust_service_server::TrustService;
use fleetd_sync_core::id::{KeyId, LocalId, OperationId};
use fleetd_sync_core::trust::{Revocation, RootRecord};
use tonic::{Request, Response, Status};

use super::backend::{ask, caller};
use super::call_error::{CallError, parsed};
use super::convert;
use super::request_log::Kept;

super::service!(
    /// Shows the fleet's keys, takes new root records, and revokes keys.
    TrustRoot
);

impl TrustRoot {
    fn show(&self) -> trust::Trust {
        let is_device = |local: LocalId| self.backend.index.find(&local.to_string()).is_ok_and(|found| found.is_some());
        convert::trust::trust(&self.backend.shared().trust(), is_device)
    }

    async fn ask(&self, input: impl FnOnce(OperationId) -> authority::Input) -> Result<(), CallError> {
        let answers = &self.backend.shared().authority_answers;
        let send = |operation| self.backend.node.actors.authority.send(input(operation));
        Ok(ask(answers, send).await??)
    }
}

#[tonic::async_trait]
impl TrustService for TrustRoot {
    async fn get_trust(
        &self,
        _request: Request<trust::GetTrustRequest>,
    ) -> Result<Response<trust::GetTrustResponse>, Status> {
        let now = self.backend.shared().trust();
        let root_records = now.chain.records().map(RootRecord::encode).collect();
        Ok(Response::new(trust::GetTrustResponse { trust: Some(self.show()), root_records }))
    }

    async fn add_root_record(
        &self,
        request: Request<trust::AddRootRecordRequest>,
    ) -> Result<Response<trust::AddRootRecordResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let added = async {
            if asked.root_record.is_empty() {
                return Err(CallError::Missing { field: "root_record" });
            }
            let record = RootRecord::decode(&asked.root_record).map_err(CallError::UnreadableRootRecord)?;
            let record = Box::new(record);
            self.ask(|operation| authority::Input::AddRootRecord { operation, record }).await?;
            Ok(trust::AddRootRecordResponse { trust: Some(self.show()) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, added).await
    }

    async fn revoke_key(
        &self,
        request: Request<trust::RevokeKeyRequest>,
    ) -> Result<Response<trust::RevokeKeyResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let revoked = async {
            let key: KeyId = parsed(&asked.key_id, "key_id")?;
            let revocation = match asked.kind() {
                RevocationKind::Retired => Revocation::Retired,
                RevocationKind::Compromised => Revocation::Compromised,
                RevocationKind::Unspecified => return Err(CallError::Missing { field: "kind" }),
            };
            self.ask(|operation| authority::Input::Revoke { operation, key, revocation }).await?;
            tracing::info!(%key, %revocation, caller = %caller.id, reason = asked.reason, "a key was revoked");
            Ok(trust::RevokeKeyResponse { trust: Some(self.show()) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, revoked).await
    }
}
