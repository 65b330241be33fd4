//! The answering end.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::lifecycle_service_server::{LifecycleService, LifecycleServiceServer};
use fleetd_actors::workload::Command;
use fleetd_proto::agent::lifecycle::v1 as api;
use fleetd_proto::agent::support::v1 as support;
use fleetd_proto::agent::update::v1::update_service_server::UpdateServiceServer;
use fleetd_proto::fleetd::common::v1::Error as ErrorDetail;
use fleetd_proto::google;
use fleetd_sync_core::name::WorkloadName;
use futures::Stream;
use futures::StreamExt as _;
use prost::Message as _;
use support::support_service_server::{SupportService, SupportServiceServer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Request, Response, Status};

use super::status::{agent_status, configuration_value, workload_status};
use crate::config::ShownSetting;
use crate::node::Node;
use crate::record::encode_flight;
use crate::shim::run_directory::SOCKET_PATH_BYTES_MAX;

/// Time in which a command must be durable: a slow SD card takes a few seconds at worst.
const COMMAND_DEADLINE: Duration = Duration::from_secs(15);
/// Requests that are remembered, so that their repetition changes nothing.
const REQUESTS_KEPT: usize = 64;

/// Why the local API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeLocalApiError {
    /// No socket can have so long a path.
    #[error("the socket's path {} has {length} bytes; it may have {length_max}", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// What it has.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
    /// Another agent answers there.
    #[error("another agent answers on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("the socket {} cannot be opened", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The API ended.
    #[error("the local API ended")]
    Ended(#[from] tonic::transport::Error),
}

/// Opens the socket, which nobody but this user may. What a killed agent left there is replaced.
///
/// # Errors
/// As [`ServeLocalApiError`] says.
pub async fn bind(path: &Path) -> Result<UnixListener, ServeLocalApiError> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        let length_max = SOCKET_PATH_BYTES_MAX;
        return Err(ServeLocalApiError::PathTooLong { path: path.to_owned(), length, length_max });
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServeLocalApiError::InUse { path: path.to_owned() });
    }
    let failed = |source| ServeLocalApiError::Socket { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Answers for one node.
#[derive(Clone, Debug)]
pub struct LocalApi {
    answers: Arc<Answers>,
}

/// What both services answer from.
#[derive(Debug)]
struct Answers {
    node: Arc<Node>,
    settings: Vec<ShownSetting>,
    changes: watch::Receiver<u64>,
    requests: Mutex<VecDeque<String>>,
}

impl LocalApi {
    /// Answers for `node`, whose configuration is `settings`.
    #[must_use]
    pub fn new(node: Arc<Node>, settings: Vec<ShownSetting>) -> Self {
        let (change, changes) = watch::channel(0);
        node.on_change(Box::new(move || change.send_modify(|changes| *changes += 1)));
        Self { answers: Arc::new(Answers { node, settings, changes, requests: Mutex::default() }) }
    }

    /// Gives a workload a command and waits until it is durable.
    pub(super) async fn command(
        &self,
        request_id: &str,
        workload: &str,
        command: Command,
    ) -> Result<Option<api::WorkloadStatus>, Status> {
        self.answers.command(request_id, workload, command).await
    }

    /// Answers on a socket until the task is ended.
    ///
    /// # Errors
    /// [`ServeLocalApiError::Ended`] when the socket fails.
    pub async fn serve(self, listener: UnixListener) -> Result<(), ServeLocalApiError> {
        let lifecycle = LifecycleServiceServer::with_interceptor(self.clone(), check_peer);
        let update = UpdateServiceServer::with_interceptor(self.clone(), check_peer);
        let support = SupportServiceServer::with_interceptor(self, check_peer);
        let incoming = UnixListenerStream::new(listener);
        let server =
            tonic::transport::Server::builder().add_service(lifecycle).add_service(support).add_service(update);
        Ok(server.serve_with_incoming(incoming).await?)
    }
}

impl Answers {
    /// Gives a workload a command and waits until it is durable.
    async fn command(
        &self,
        request_id: &str,
        workload: &str,
        command: Command,
    ) -> Result<Option<api::WorkloadStatus>, Status> {
        if request_id.is_empty() {
            return Err(refusal(Code::InvalidArgument, "request.id_missing", "request_id is required"));
        }
        let workload: WorkloadName = workload
            .parse()
            .map_err(|error| refusal(Code::InvalidArgument, "workload.name", format!("workload: {error}")))?;
        if !self.is_repeated(request_id) {
            let (durable, answered) = oneshot::channel();
            let done = Box::new(move || {
                let _ = durable.send(()); // Whoever asked may have gone.
            });
            self.node
                .command(&workload, command, done)
                .map_err(|error| refusal(Code::NotFound, "workload.unknown", error.to_string()))?;
            match tokio::time::timeout(COMMAND_DEADLINE, answered).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => {
                    let message = "the agent could not write it down in time; ask again";
                    return Err(refusal(Code::DeadlineExceeded, "command.not_durable", message));
                }
            }
            self.remember(request_id);
        }
        let status = self.node.status();
        Ok(status.workloads.get(&workload).map(|status| workload_status(&workload, status)))
    }

    fn is_repeated(&self, request_id: &str) -> bool {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().any(|known| known == request_id)
    }

    fn remember(&self, request_id: &str) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.len() == REQUESTS_KEPT {
            requests.pop_front();
        }
        requests.push_back(request_id.to_owned());
    }
}

/// Lets root and the agent's own user in, whatever the socket's permissions have become.
fn check_peer(request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    let own = nix::unistd::geteuid().as_raw();
    match peer.map(|peer| peer.uid()) {
        Some(uid) if uid == 0 || uid == own => Ok(request),
        Some(uid) => {
            let message = format!("user {uid} may not steer this agent; user {own} and root may");
            Err(refusal(Code::PermissionDenied, "peer.user", message))
        }
        None => Err(refusal(Code::PermissionDenied, "peer.unknown", "who is calling is not known")),
    }
}

pub(super) fn refusal(code: Code, name: &'static str, message: impl Into<String>) -> Status {
    let message = message.into();
    let detail = ErrorDetail { code: name.to_owned(), message: message.clone(), ..ErrorDetail::default() };
    let details = prost_types::Any::from_msg(&detail).into_iter().collect();
    let envelope = google::rpc::Status { code: i32::from(code), message: message.clone(), details };
    Status::with_details(code, message, envelope.encode_to_vec().into())
}

#[tonic::async_trait]
impl LifecycleService for LocalApi {
    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<api::WatchStatusResponse, Status>> + Send>>;

    async fn get_status(
        &self,
        _request: Request<api::GetStatusRequest>,
    ) -> Result<Response<api::GetStatusResponse>, Status> {
        let status = Some(agent_status(self.answers.node.local_id(), &self.answers.node.status()));
        Ok(Response::new(api::GetStatusResponse { status }))
    }

    async fn watch_status(
        &self,
        _request: Request<api::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let node = Arc::clone(&self.answers.node);
        let statuses = WatchStream::new(self.answers.changes.clone()).map(move |_| {
            let status = Some(agent_status(node.local_id(), &node.status()));
            Ok(api::WatchStatusResponse { status })
        });
        Ok(Response::new(Box::pin(statuses)))
    }

    async fn start_workload(
        &self,
        request: Request<api::StartWorkloadRequest>,
    ) -> Result<Response<api::StartWorkloadResponse>, Status> {
        let api::StartWorkloadRequest { request_id, workload } = request.into_inner();
        let workload = self.answers.command(&request_id, &workload, Command::Start).await?;
        Ok(Response::new(api::StartWorkloadResponse { workload }))
    }

    async fn stop_workload(
        &self,
        request: Request<api::StopWorkloadRequest>,
    ) -> Result<Response<api::StopWorkloadResponse>, Status> {
        let api::StopWorkloadRequest { request_id, workload } = request.into_inner();
        let workload = self.answers.command(&request_id, &workload, Command::Stop).await?;
        Ok(Response::new(api::StopWorkloadResponse { workload }))
    }

    async fn restart_workload(
        &self,
        request: Request<api::RestartWorkloadRequest>,
    ) -> Result<Response<api::RestartWorkloadResponse>, Status> {
        let api::RestartWorkloadRequest { request_id, workload } = request.into_inner();
        let workload = self.answers.command(&request_id, &workload, Command::Restart).await?;
        Ok(Response::new(api::RestartWorkloadResponse { workload }))
    }

    async fn get_configuration(
        &self,
        _request: Request<api::GetConfigurationRequest>,
    ) -> Result<Response<api::GetConfigurationResponse>, Status> {
        let values = self.answers.settings.iter().map(configuration_value).collect();
        Ok(Response::new(api::GetConfigurationResponse { values }))
    }
}

#[tonic::async_trait]
impl SupportService for LocalApi {
    type ReadFlightsStream = Pin<Box<dyn Stream<Item = Result<support::ReadFlightsResponse, Status>> + Send>>;

    async fn read_flights(
        &self,
        _request: Request<support::ReadFlightsRequest>,
    ) -> Result<Response<Self::ReadFlightsStream>, Status> {
        let flights = self.answers.node.flights().into_iter().map(|flight| {
            Ok(support::ReadFlightsResponse {
                workload: flight.workload.to_string(),
                recording: encode_flight(&flight),
            })
        });
        Ok(Response::new(Box::pin(futures::stream::iter(flights))))
    }
}
