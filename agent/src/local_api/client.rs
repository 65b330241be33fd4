//! The asking end, for the commands at the device.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use api::lifecycle_service_client::LifecycleServiceClient;
use fleetd_actors::workload::Command;
use fleetd_proto::agent::lifecycle::v1 as api;
use fleetd_proto::agent::support::v1 as support;
use fleetd_proto::agent::update::v1 as update;
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_sync_core::id::RequestId;
use fleetd_sync_core::name::WorkloadName;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use support::support_service_client::SupportServiceClient;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use update::update_service_client::UpdateServiceClient;

/// Bytes of one workload's recording: some hundred steps, of which some bring a manifest.
const RECORDING_BYTES_MAX: usize = 16 << 20;

/// Why an agent's answer was not had.
#[derive(Debug, thiserror::Error)]
pub enum AskAgentError {
    /// No agent runs, or it uses another socket.
    #[error("no agent answers on {}", socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The socket is another user's.
    #[error("this user may not open {}", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The connection failed.
    #[error("the agent on {} cannot be asked", socket.display())]
    Connection {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: tonic::transport::Error,
    },
    /// The agent refused.
    #[error("{message}")]
    Refused {
        /// What it said.
        message: String,
        /// Whether the workload that was named is not there.
        is_unknown: bool,
    },
}

impl From<Status> for AskAgentError {
    fn from(status: Status) -> Self {
        let is_unknown = status.code() == tonic::Code::NotFound;
        Self::Refused { message: status.message().to_owned(), is_unknown }
    }
}

/// A device's status, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownStatus {
    /// The hash of the device's key.
    pub local_id: String,
    /// The id that its server gave.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device_id: String,
    /// The name that its server gave.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// How it stands with its server, in a word.
    pub link: String,
    /// The server's address that it uses or tries.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_address: String,
    /// Why it is not connected.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link_reason: String,
    /// Why the last connection ended or never was; `None` since one was live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<ShownFailure>,
    /// When it dials next, while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_dial_at: Option<ShownMoment>,
    /// The fleet that it belongs to, or whose token it has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fleet_id: String,
    /// The newest root record that it has.
    pub trust_version: u64,
    /// What runs on it, by name.
    pub workloads: Vec<ShownWorkload>,
}

/// Why a connection ended or never was, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownFailure {
    /// What programs compare.
    pub code: String,
    /// What people read.
    pub message: String,
    /// Which address was dialled.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_address: String,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<ShownMoment>,
}

/// A date by the device's clock, as it is shown (`2026-11-03T08:15:00Z`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownMoment(prost_types::Timestamp);

impl ShownMoment {
    /// Shows a date.
    #[must_use]
    pub const fn of(at: prost_types::Timestamp) -> Self {
        Self(at)
    }
}

impl fmt::Display for ShownMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = prost_types::Timestamp { seconds: self.0.seconds, nanos: 0 };
        write!(f, "{whole}")
    }
}

impl Serialize for ShownMoment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One workload's status, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownWorkload {
    /// Its name.
    pub name: String,
    /// The release that is installed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The release that is being brought in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_version: String,
    /// How far that is, in a word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase: String,
    /// What the program does, in a word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// Why it is not what was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Somebody at the device stopped it.
    pub stopped_locally: bool,
    /// A hold keeps it as it is.
    pub held: bool,
    /// The program's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How often it was started again by itself.
    pub restarts: u32,
    /// How it last ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// Until when somebody at the device puts its next switch off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferred_until: Option<ShownMoment>,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deferral_reason: String,
    /// How long the rollout that is at work on it lets it be put off in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub veto_limit_seconds: Option<u64>,
}

/// One value of the configuration, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownConfiguration {
    /// The key, as the file spells it.
    pub key: String,
    /// The value; of a secret only whether it is set.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

/// One workload's flight recording, as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFlight {
    /// The workload.
    pub workload: String,
    /// What [`encode_flight`](crate::record::encode_flight) wrote.
    pub recording: Vec<u8>,
}

/// Asks the agent of this device.
#[derive(Clone, Debug)]
pub struct LocalClient {
    service: LifecycleServiceClient<Channel>,
    support: SupportServiceClient<Channel>,
    update: UpdateServiceClient<Channel>,
}

impl LocalClient {
    /// Connects to the agent that answers on `socket`.
    ///
    /// # Errors
    /// [`AskAgentError`] names the socket.
    pub async fn connect(socket: &Path) -> Result<Self, AskAgentError> {
        let path = socket.to_owned();
        // Tried by hand first: what tonic says of a socket that is not there helps nobody.
        if let Err(source) = UnixStream::connect(&path).await {
            return Err(match source.kind() {
                io::ErrorKind::PermissionDenied => AskAgentError::Forbidden { socket: path, source },
                _ => AskAgentError::NoAgent { socket: path, source },
            });
        }
        let dialled = path.clone();
        let connector = tower::service_fn(move |_| {
            let path = dialled.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let failed = |source| AskAgentError::Connection { socket: path.clone(), source };
        let endpoint = Endpoint::try_from("http://agent").map_err(failed)?;
        let channel = endpoint.connect_with_connector(connector).await.map_err(failed)?;
        let support = SupportServiceClient::new(channel.clone()).max_decoding_message_size(RECORDING_BYTES_MAX);
        let update = UpdateServiceClient::new(channel.clone());
        Ok(Self { service: LifecycleServiceClient::new(channel), support, update })
    }

    /// Asks for the status.
    ///
    /// # Errors
    /// [`AskAgentError::Refused`].
    pub async fn status(&mut self) -> Result<ShownStatus, AskAgentError> {
        let response = self.service.get_status(api::GetStatusRequest {}).await?.into_inner();
        Ok(shown_status(response.status.unwrap_or_default()))
    }

    /// Asks for the status and for each change of it, and gives each to `show`, until `show` is done or the agent ends.
    ///
    /// # Errors
    /// [`AskAgentError::Refused`].
    pub async fn watch<E: From<AskAgentError>>(
        &mut self,
        mut show: impl FnMut(ShownStatus) -> Result<(), E>,
    ) -> Result<(), E> {
        let watched = self.service.watch_status(api::WatchStatusRequest {}).await.map_err(AskAgentError::from)?;
        let mut statuses = watched.into_inner();
        while let Some(response) = statuses.message().await.map_err(AskAgentError::from)? {
            show(shown_status(response.status.unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Gives a workload a command, and returns once it is durable.
    ///
    /// # Errors
    /// [`AskAgentError::Refused`].
    pub async fn command(
        &mut self,
        request: RequestId,
        workload: &WorkloadName,
        command: Command,
    ) -> Result<Option<ShownWorkload>, AskAgentError> {
        let (request_id, workload) = (request.to_string(), workload.to_string());
        let answer = match command {
            Command::Start => {
                let request = api::StartWorkloadRequest { request_id, workload };
                self.service.start_workload(request).await?.into_inner().workload
            }
            Command::Stop => {
                let request = api::StopWorkloadRequest { request_id, workload };
                self.service.stop_workload(request).await?.into_inner().workload
            }
            Command::Restart => {
                let request = api::RestartWorkloadRequest { request_id, workload };
                self.service.restart_workload(request).await?.into_inner().workload
            }
            Command::Defer { length, reason } => {
                let length = prost_types::Duration::try_from(length).ok();
                let request = update::DeferUpdateRequest { request_id, workload, length, reason };
                self.update.defer_update(request).await?.into_inner().workload
            }
            Command::Allow => {
                let request = update::AllowUpdateRequest { request_id, workload };
                self.update.allow_update(request).await?.into_inner().workload
            }
        };
        Ok(answer.map(shown_workload))
    }

    /// Asks for each workload's flight recording.
    ///
    /// # Errors
    /// [`AskAgentError::Refused`].
    pub async fn flights(&mut self) -> Result<Vec<RecordedFlight>, AskAgentError> {
        let mut responses = self.support.read_flights(support::ReadFlightsRequest {}).await?.into_inner();
        let mut flights = Vec::new();
        while let Some(response) = responses.message().await? {
            flights.push(RecordedFlight { workload: response.workload, recording: response.recording });
        }
        Ok(flights)
    }

    /// Asks for the configuration that the agent runs with.
    ///
    /// # Errors
    /// [`AskAgentError::Refused`].
    pub async fn configuration(&mut self) -> Result<Vec<ShownConfiguration>, AskAgentError> {
        let response = self.service.get_configuration(api::GetConfigurationRequest {}).await?.into_inner();
        let shown = |value: api::ConfigurationValue| ShownConfiguration {
            key: value.key,
            value: value.value,
            origin: value.origin_detail,
        };
        Ok(response.values.into_iter().map(shown).collect())
    }
}

fn shown_status(status: api::AgentStatus) -> ShownStatus {
    let link = word(status.link_phase().as_str_name(), "LINK_PHASE_");
    ShownStatus {
        link: if link.is_empty() { "unknown".to_owned() } else { link },
        local_id: status.local_id,
        device_id: status.device_id,
        name: status.name,
        server_address: status.server_address,
        link_reason: status.link_reason,
        last_failure: status.last_failure.map(|failure| ShownFailure {
            code: failure.code,
            message: failure.message,
            server_address: failure.server_address,
            failed_at: failure.failed_at.map(ShownMoment),
        }),
        next_dial_at: status.next_dial_at.map(ShownMoment),
        fleet_id: status.fleet_id,
        trust_version: status.trust_version,
        workloads: status.workloads.into_iter().map(shown_workload).collect(),
    }
}

fn shown_workload(status: api::WorkloadStatus) -> ShownWorkload {
    ShownWorkload {
        phase: word(common::WorkloadPhase::as_str_name(&status.phase()), "WORKLOAD_PHASE_"),
        run: word(common::RunState::as_str_name(&status.run_state()), "RUN_STATE_"),
        name: status.name,
        version: status.version,
        next_version: status.next_version,
        reason: status.reason,
        stopped_locally: status.stopped_locally,
        held: status.held,
        pid: Some(status.pid).filter(|pid| *pid != 0),
        restarts: status.restarts,
        exit_status: status.exit_status,
        deferred_until: status.deferred_until.map(ShownMoment),
        deferral_reason: status.deferral_reason,
        veto_limit_seconds: status.veto_limit.and_then(|limit| u64::try_from(limit.seconds).ok()),
    }
}

/// An enum's name as people read it: `LINK_PHASE_RENEW_ONLY` is `renew-only`. What is not known is empty.
fn word(name: &str, prefix: &str) -> String {
    let word = name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', "-");
    if word == "unspecified" { String::new() } else { word }
}
