//! `RegistrationService`: how a new device meets a fleet. It is open to callers without a credential.

use fleetd_actors::registration;
use fleetd_proto::fleetd::registration::v1 as api;
use fleetd_proto::fleetd::registration::v1::register_device_response::Outcome;
use fleetd_proto::fleetd::registration::v1::registration_service_server::RegistrationService;
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_core::id::LocalId;
use fleetd_sync_core::session::message::{Register, Registered};
use fleetd_sync_core::trust::RootRecord;
use fleetd_sync_transport::identity;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::backend::ask;
use super::call_error::{CallError, parsed, required};
use super::convert;
use crate::record::timestamp;

super::service!(
    /// Registers devices, and says which fleet this is.
    Registrations
);

#[tonic::async_trait]
impl RegistrationService for Registrations {
    async fn get_fleet(
        &self,
        request: Request<api::GetFleetRequest>,
    ) -> Result<Response<api::GetFleetResponse>, Status> {
        let (shared, introduction) = (self.backend.shared(), &self.backend.introduction);
        let chain = &shared.trust().chain;
        Ok(Response::new(api::GetFleetResponse {
            fleet_id: chain.fleet().to_string(),
            root_records: chain.records_above(request.get_ref().trust_version).map(RootRecord::encode).collect(),
            ca_certificate_pem: shared.identity.certificates.certificate_pem(),
            server_id: introduction.server_id.to_string(),
            server_time: Some(timestamp(self.backend.now())),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            sync_address: introduction.addresses.first().map(ToString::to_string).unwrap_or_default(),
        }))
    }

    async fn register_device(
        &self,
        request: Request<api::RegisterDeviceRequest>,
    ) -> Result<Response<api::RegisterDeviceResponse>, Status> {
        let outcome = self.register(request.into_inner()).await?;
        Ok(Response::new(api::RegisterDeviceResponse { outcome: Some(outcome) }))
    }
}

impl Registrations {
    /// Registers a device. Asking again with the same key is asking once, so that the request's id adds nothing.
    async fn register(&self, asked: api::RegisterDeviceRequest) -> Result<Outcome, CallError> {
        required(&asked.request_id, "request_id")?;
        let token: EnrolmentToken = parsed(&asked.token, "token")?;
        let fleet = self.backend.shared().trust().chain.fleet();
        if token.fleet() != fleet {
            let cause = format!("it is for fleet {}, and this is {fleet}", token.fleet());
            return Err(CallError::Invalid { field: "token", cause });
        }
        if asked.csr_der.is_empty() {
            return Err(CallError::Missing { field: "csr_der" });
        }
        let key = identity::verify_signing_request(&asked.csr_der)
            .map_err(|error| CallError::Invalid { field: "csr_der", cause: error.to_string() })?;
        let facts = asked.facts.as_ref().ok_or(CallError::Missing { field: "facts" })?;
        required(&facts.platform, "facts.platform")?;
        let (bytes, bytes_max) = (facts.encoded_len(), fleetd_sync_core::limit::FACTS_BYTES_MAX);
        if bytes > bytes_max {
            let cause = format!("{bytes} bytes; there may be {bytes_max}");
            return Err(CallError::Invalid { field: "facts", cause });
        }
        let request = Box::new(Register {
            token: token.id(),
            secret: token.secret().as_bytes().to_vec(),
            csr: asked.csr_der,
            facts: convert::facts::read(facts),
            sealing_key: sealing_key(&asked.sealing_public_key)?,
        });
        let send = |operation| {
            let input = registration::Input::Register { operation, key, request };
            self.backend.node.actors.registration.send(input);
        };
        match ask(&self.backend.shared().registered_answers, send).await? {
            Registered::Issued { device, name, certificates } => Ok(Outcome::Registered(api::RegisteredDevice {
                device_id: device.to_string(),
                local_id: LocalId::from(key.id()).to_string(),
                name: name.to_string(),
                certificate_chain_der: certificates,
            })),
            Registered::Pending { retry_after } => Ok(Outcome::Pending(api::PendingApproval {
                local_id: LocalId::from(key.id()).to_string(),
                retry_after: Some(convert::release::duration(retry_after)),
            })),
            Registered::Refused(refusal) => Err(CallError::Refused(refusal)),
        }
    }
}

/// The key for what only the device may read; a device that has none says nothing.
fn sealing_key(bytes: &[u8]) -> Result<[u8; 32], CallError> {
    if bytes.is_empty() {
        return Ok([0; 32]);
    }
    bytes.try_into().map_err(|_| CallError::Invalid {
        field: "sealing_public_key",
        cause: format!("it has {} bytes, not 32", bytes.len()),
    })
}
