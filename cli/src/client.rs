//! The public API, as the commands and the demo use it.
//!
//! [`FleetClient`] has one method for each RPC, which takes and gives the generated messages; [`watch`] follows
//! streams across lost connections, [`upload`] sends artifacts, and [`login`] finds out whether a server is what it
//! claims to be before it is told a secret. Whom a connection believes is in [`certificate`].

pub mod certificate;
mod connect;
pub mod json;
pub mod login;
pub mod pages;
mod patience;
pub mod server_url;
pub mod status;
pub mod upload;
pub mod watch;

use std::time::Duration;

/// The API's messages, which the client takes and gives.
pub use fleetd_proto::fleetd as api;
use fleetd_proto::fleetd::{
    access, artifact, audit, backup, configuration, device, enrolment, group, log, registration, release, rollout,
    support, trust,
};
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{FleetId, RequestId};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use certificate::{Belief, CheckServerError, Pin};
pub use connect::ConnectError;
use patience::Patience;
use server_url::{ParseServerUrlError, ServerUrl};
pub use status::CallError;

/// Time for a call that answers once; long enough for a plan over a large fleet.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A server, whom to believe there, and what to say who we are.
#[derive(Clone)]
pub struct Target {
    url: ServerUrl,
    pin: Pin,
    token: Option<String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({} of {})", self.url, self.pin.fleet())
    }
}

/// Why a server's particulars are none.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The URL is none.
    #[error("the server's URL is none")]
    Url(#[from] ParseServerUrlError),
    /// The fleet id is none.
    #[error("the fleet id is none")]
    Fleet(#[from] fleetd_sync_core::id::ParseIdError),
    /// The CA's certificate is none.
    #[error("the fleet's CA certificate is none")]
    Certificate(#[from] CheckServerError),
}

impl Target {
    /// Reads a server's particulars.
    ///
    /// # Errors
    /// [`TargetError`] names what cannot be read.
    pub fn new(url: &str, fleet: &str, ca_certificate_pem: &str, token: Option<String>) -> Result<Self, TargetError> {
        let fleet: FleetId = fleet.parse()?;
        Ok(Self { url: url.parse()?, pin: Pin::new(fleet, ca_certificate_pem)?, token })
    }

    /// Where the server is.
    #[must_use]
    pub const fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// The fleet that it must serve.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.pin.fleet()
    }

    /// Whether there is a credential to show.
    #[must_use]
    pub const fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

/// Shows the credential with each call.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Guarded = InterceptedService<Channel, Bearer>;

/// A connection to one server's API.
#[derive(Clone)]
pub struct FleetClient {
    channel: Channel,
    bearer: Bearer,
    fleet: FleetId,
}

impl std::fmt::Debug for FleetClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FleetClient({})", self.fleet)
    }
}

impl FleetClient {
    /// Connects to a server that proves to be one of the fleet's. It is told the token only with the first call.
    ///
    /// # Errors
    /// [`ConnectError`] when it cannot be reached, or is not believed.
    pub async fn connect(target: &Target) -> Result<Self, ConnectError> {
        let channel = connect::connect(&target.url, Belief::Pinned(target.pin.clone())).await?;
        // What cannot stand in a header is no token, and is refused by the server like any other wrong one.
        let value = target.token.as_ref().and_then(|token| {
            let mut value = MetadataValue::try_from(format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Self { channel, bearer: Bearer(value), fleet: target.fleet() })
    }

    /// The fleet that the server serves.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.fleet
    }
}

/// An id for one change, under which it can be repeated.
#[must_use]
pub fn request_id() -> String {
    RequestId::random(&mut fresh_entropy()).to_string()
}

/// Randomness from the operating system.
///
/// # Panics
/// When the operating system has none, in which case nothing may be signed or named.
#[must_use]
pub fn fresh_entropy() -> Entropy {
    let mut seed = [0; 32];
    #[expect(clippy::expect_used, reason = "an operating system without randomness cannot run this program")]
    getrandom::fill(&mut seed).expect("the operating system has randomness");
    Entropy::from_seed(seed)
}

macro_rules! calls {
    ($($client:path { $($method:ident($request:ty) -> $response:ty;)* })*) => {
        impl FleetClient {
            $($(
                #[doc = concat!("Calls `", stringify!($method), "` of the API.")]
                ///
                /// # Errors
                /// [`CallError`] when there is no answer, or the answer is a refusal.
                pub async fn $method(&self, request: $request) -> Result<$response, CallError> {
                    use $client as Client;
                    let mut client = Client::with_interceptor(self.channel.clone(), self.bearer.clone());
                    let mut patience = Patience::default();
                    loop {
                        let mut request = tonic::Request::new(request.clone());
                        request.set_timeout(CALL_TIMEOUT);
                        match client.$method(request).await {
                            Ok(response) => return Ok(response.into_inner()),
                            Err(status) => patience.wait_after(status).await?,
                        }
                    }
                }
            )*)*
        }
    };
}

calls! {
    registration::v1::registration_service_client::RegistrationServiceClient {
        get_fleet(registration::v1::GetFleetRequest) -> registration::v1::GetFleetResponse;
    }
    access::v1::access_service_client::AccessServiceClient {
        create_access_token(access::v1::CreateAccessTokenRequest) -> access::v1::CreateAccessTokenResponse;
        list_access_tokens(access::v1::ListAccessTokensRequest) -> access::v1::ListAccessTokensResponse;
        revoke_access_token(access::v1::RevokeAccessTokenRequest) -> access::v1::RevokeAccessTokenResponse;
        who_am_i(access::v1::WhoAmIRequest) -> access::v1::WhoAmIResponse;
    }
    enrolment::v1::enrolment_service_client::EnrolmentServiceClient {
        create_enrolment_token(enrolment::v1::CreateEnrolmentTokenRequest)
            -> enrolment::v1::CreateEnrolmentTokenResponse;
        list_enrolment_tokens(enrolment::v1::ListEnrolmentTokensRequest)
            -> enrolment::v1::ListEnrolmentTokensResponse;
        revoke_enrolment_token(enrolment::v1::RevokeEnrolmentTokenRequest)
            -> enrolment::v1::RevokeEnrolmentTokenResponse;
        list_pending_devices(enrolment::v1::ListPendingDevicesRequest) -> enrolment::v1::ListPendingDevicesResponse;
        approve_device(enrolment::v1::ApproveDeviceRequest) -> enrolment::v1::ApproveDeviceResponse;
        deny_device(enrolment::v1::DenyDeviceRequest) -> enrolment::v1::DenyDeviceResponse;
    }
    device::v1::device_service_client::DeviceServiceClient {
        list_devices(device::v1::ListDevicesRequest) -> device::v1::ListDevicesResponse;
        get_device(device::v1::GetDeviceRequest) -> device::v1::GetDeviceResponse;
        explain_device(device::v1::ExplainDeviceRequest) -> device::v1::ExplainDeviceResponse;
        update_labels(device::v1::UpdateLabelsRequest) -> device::v1::UpdateLabelsResponse;
        rename_device(device::v1::RenameDeviceRequest) -> device::v1::RenameDeviceResponse;
        start_workload(device::v1::StartWorkloadRequest) -> device::v1::StartWorkloadResponse;
        stop_workload(device::v1::StopWorkloadRequest) -> device::v1::StopWorkloadResponse;
        restart_workload(device::v1::RestartWorkloadRequest) -> device::v1::RestartWorkloadResponse;
        hold_device(device::v1::HoldDeviceRequest) -> device::v1::HoldDeviceResponse;
        lift_hold(device::v1::LiftHoldRequest) -> device::v1::LiftHoldResponse;
        revoke_device(device::v1::RevokeDeviceRequest) -> device::v1::RevokeDeviceResponse;
        pin_workload(device::v1::PinWorkloadRequest) -> device::v1::PinWorkloadResponse;
        unpin_workload(device::v1::UnpinWorkloadRequest) -> device::v1::UnpinWorkloadResponse;
    }
    artifact::v1::artifact_service_client::ArtifactServiceClient {
        get_upload(artifact::v1::GetUploadRequest) -> artifact::v1::GetUploadResponse;
    }
    release::v1::release_service_client::ReleaseServiceClient {
        create_release(release::v1::CreateReleaseRequest) -> release::v1::CreateReleaseResponse;
        list_releases(release::v1::ListReleasesRequest) -> release::v1::ListReleasesResponse;
        get_release(release::v1::GetReleaseRequest) -> release::v1::GetReleaseResponse;
        deny_release(release::v1::DenyReleaseRequest) -> release::v1::DenyReleaseResponse;
        allow_release(release::v1::AllowReleaseRequest) -> release::v1::AllowReleaseResponse;
    }
    configuration::v1::configuration_service_client::ConfigurationServiceClient {
        create_configuration(configuration::v1::CreateConfigurationRequest) -> configuration::v1::CreateConfigurationResponse;
        list_configurations(configuration::v1::ListConfigurationsRequest) -> configuration::v1::ListConfigurationsResponse;
        get_configuration(configuration::v1::GetConfigurationRequest) -> configuration::v1::GetConfigurationResponse;
    }
    rollout::v1::rollout_service_client::RolloutServiceClient {
        plan_rollout(rollout::v1::PlanRolloutRequest) -> rollout::v1::PlanRolloutResponse;
        plan_rollback(rollout::v1::PlanRollbackRequest) -> rollout::v1::PlanRollbackResponse;
        get_plan(rollout::v1::GetPlanRequest) -> rollout::v1::GetPlanResponse;
        check_plan(rollout::v1::CheckPlanRequest) -> rollout::v1::CheckPlanResponse;
        start_rollout(rollout::v1::StartRolloutRequest) -> rollout::v1::StartRolloutResponse;
        get_rollout(rollout::v1::GetRolloutRequest) -> rollout::v1::GetRolloutResponse;
        list_rollouts(rollout::v1::ListRolloutsRequest) -> rollout::v1::ListRolloutsResponse;
        abort_rollout(rollout::v1::AbortRolloutRequest) -> rollout::v1::AbortRolloutResponse;
        pause_rollout(rollout::v1::PauseRolloutRequest) -> rollout::v1::PauseRolloutResponse;
        resume_rollout(rollout::v1::ResumeRolloutRequest) -> rollout::v1::ResumeRolloutResponse;
        approve_rollout(rollout::v1::ApproveRolloutRequest) -> rollout::v1::ApproveRolloutResponse;
        stop_fleet(rollout::v1::StopFleetRequest) -> rollout::v1::StopFleetResponse;
        lift_fleet_stop(rollout::v1::LiftFleetStopRequest) -> rollout::v1::LiftFleetStopResponse;
        get_fleet_stops(rollout::v1::GetFleetStopsRequest) -> rollout::v1::GetFleetStopsResponse;
    }
    group::v1::group_service_client::GroupServiceClient {
        create_group(group::v1::CreateGroupRequest) -> group::v1::CreateGroupResponse;
        get_group(group::v1::GetGroupRequest) -> group::v1::GetGroupResponse;
        list_groups(group::v1::ListGroupsRequest) -> group::v1::ListGroupsResponse;
        update_group(group::v1::UpdateGroupRequest) -> group::v1::UpdateGroupResponse;
        delete_group(group::v1::DeleteGroupRequest) -> group::v1::DeleteGroupResponse;
    }
    support::v1::support_service_client::SupportServiceClient {
        examine_server(support::v1::ExamineServerRequest) -> support::v1::ExamineServerResponse;
    }
    audit::v1::audit_service_client::AuditServiceClient {
        list_audit_entries(audit::v1::ListAuditEntriesRequest) -> audit::v1::ListAuditEntriesResponse;
    }
    trust::v1::trust_service_client::TrustServiceClient {
        get_trust(trust::v1::GetTrustRequest) -> trust::v1::GetTrustResponse;
        add_root_record(trust::v1::AddRootRecordRequest) -> trust::v1::AddRootRecordResponse;
        revoke_key(trust::v1::RevokeKeyRequest) -> trust::v1::RevokeKeyResponse;
    }
}

macro_rules! streams {
    ($($client:path { $method:ident($request:ty) -> $response:ty; })*) => {
        impl FleetClient {
            $(
                #[doc = concat!("Calls `", stringify!($method), "` of the API, whose answer is a stream.")]
                ///
                /// # Errors
                /// [`CallError`] when there is no answer, or the answer is a refusal.
                pub async fn $method(&self, request: $request) -> Result<tonic::Streaming<$response>, CallError> {
                    use $client as Client;
                    let mut client = Client::with_interceptor(self.channel.clone(), self.bearer.clone());
                    let mut patience = Patience::default();
                    loop {
                        match client.$method(request.clone()).await {
                            Ok(response) => return Ok(response.into_inner()),
                            Err(status) => patience.wait_after(status).await?,
                        }
                    }
                }
            )*
        }
    };
}

streams! {
    device::v1::device_service_client::DeviceServiceClient {
        watch_devices(device::v1::WatchDevicesRequest) -> device::v1::WatchDevicesResponse;
    }
    rollout::v1::rollout_service_client::RolloutServiceClient {
        watch_rollout(rollout::v1::WatchRolloutRequest) -> rollout::v1::WatchRolloutResponse;
    }
    log::v1::log_service_client::LogServiceClient {
        read_logs(log::v1::ReadLogsRequest) -> log::v1::ReadLogsResponse;
    }
    audit::v1::audit_service_client::AuditServiceClient {
        watch_audit_entries(audit::v1::WatchAuditEntriesRequest) -> audit::v1::WatchAuditEntriesResponse;
    }
    backup::v1::backup_service_client::BackupServiceClient {
        read_backup(backup::v1::ReadBackupRequest) -> backup::v1::ReadBackupResponse;
    }
    support::v1::support_service_client::SupportServiceClient {
        read_support_bundle(support::v1::ReadSupportBundleRequest) -> support::v1::ReadSupportBundleResponse;
    }
    artifact::v1::artifact_service_client::ArtifactServiceClient {
        download_artifact(artifact::v1::DownloadArtifactRequest) -> artifact::v1::DownloadArtifactResponse;
    }
}

impl FleetClient {
    fn artifacts(&self) -> artifact::v1::artifact_service_client::ArtifactServiceClient<Guarded> {
        artifact::v1::artifact_service_client::ArtifactServiceClient::with_interceptor(
            self.channel.clone(),
            self.bearer.clone(),
        )
    }
}
