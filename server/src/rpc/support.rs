//! `SupportService`: how the server is, and what its rollouts did last.

use std::sync::Arc;

use fleetd_proto::fleetd::support::v1 as support;
use fleetd_proto::fleetd::support::v1::support_service_server::SupportService;
use fleetd_sync_core::finding::{Finding, State};
use tonic::{Request, Response, Status};

use super::backend::Backend;
use super::call_error::CallError;
use super::follower::{Messages, StreamEnd, stream};
use crate::examine::examine_running;
use crate::support::{Part, about, doctor, of_store};

/// Bytes of one message.
const PIECE_BYTES: usize = 256 << 10;

super::service!(
    /// Looks at the server itself.
    SupportDesk
);

#[tonic::async_trait]
impl SupportService for SupportDesk {
    async fn examine_server(
        &self,
        _request: Request<support::ExamineServerRequest>,
    ) -> Result<Response<support::ExamineServerResponse>, Status> {
        let findings = self.backend.examine().await.into_iter().map(finding).collect();
        Ok(Response::new(support::ExamineServerResponse { findings }))
    }

    type ReadSupportBundleStream = Messages<support::ReadSupportBundleResponse>;

    async fn read_support_bundle(
        &self,
        _request: Request<support::ReadSupportBundleRequest>,
    ) -> Result<Response<Self::ReadSupportBundleStream>, Status> {
        let backend = Arc::clone(&self.backend);
        Ok(Response::new(stream(|outlet| async move {
            let findings = backend.examine().await;
            let collected = tokio::task::spawn_blocking(move || parts(&backend, &findings)).await;
            let collected = collected.map_err(|error| CallError::Internal { cause: error.to_string() });
            for Part { name, content } in collected.map_err(StreamEnd::from)?.map_err(StreamEnd::from)? {
                // An empty part is one all the same.
                let pieces = content.chunks(PIECE_BYTES).chain(content.is_empty().then_some(&[][..]));
                for piece in pieces {
                    let (name, content) = (name.clone(), piece.to_vec());
                    outlet.send(support::ReadSupportBundleResponse { name, content }).await?;
                }
            }
            Ok(())
        })))
    }
}

impl Backend {
    async fn examine(&self) -> Vec<Finding> {
        examine_running(&self.node.shared, self.introduction.premises.as_ref()).await
    }
}

fn parts(backend: &Backend, findings: &[Finding]) -> Result<Vec<Part>, CallError> {
    let shared = backend.shared();
    let mut parts = vec![about(Some(shared.trust().roster.fleet()), backend.now(), true), doctor(findings)];
    parts.push(backend.introduction.configuration());
    parts.extend(of_store(backend.store(), Some(shared.connections.devices().len()))?);
    parts.extend(shared.flights.recordings().iter().map(Part::flight));
    Ok(parts)
}

fn finding(finding: Finding) -> support::Finding {
    let state = match finding.state {
        State::Ok => support::FindingState::Ok,
        State::Warn => support::FindingState::Warn,
        State::Fail => support::FindingState::Fail,
    };
    let Finding { check, found, remedy, .. } = finding;
    support::Finding { check: check.into_owned(), state: state.into(), found, remedy }
}
