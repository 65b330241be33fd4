//! A server with two small services: a shelf of artifacts in memory, and who is calling.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use fleetd_proto::fleetd::access::v1::access_service_server::{AccessService, AccessServiceServer};
use fleetd_proto::fleetd::access::v1::{self as access, AccessToken};
use fleetd_proto::fleetd::artifact::v1 as artifact;
use fleetd_proto::fleetd::artifact::v1::artifact_service_server::{ArtifactService, ArtifactServiceServer};
use fleetd_proto::fleetd::common::v1::Error;
use fleetd_server::edge::authenticate::{AuthenticateError, Authenticator, Caller, Role};
use fleetd_server::edge::limit::Limits;
use fleetd_server::edge::rate::Rate;
use fleetd_server::edge::{Api, serve};
use fleetd_server::rpc::help::Help;
use fleetd_server::rpc::status::status;
use fleetd_sync_core::id::AccessId;
use futures::Stream;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::util::MapResponseLayer;

/// What is said behind each answer that ends well.
pub(crate) const COST: &str = "x-cost";
/// A digest whose upload never answers.
pub(crate) const HANGS: &str = "b3_hangs";
/// A digest whose handler panics.
pub(crate) const PANICS: &str = "b3_panics";

/// Artifacts by digest.
#[derive(Clone, Default)]
pub(crate) struct Shelf(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Shelf {
    fn find(&self, digest: &str) -> Result<Vec<u8>, Status> {
        self.0.lock().expect("no test panics with it").get(digest).cloned().ok_or_else(|| {
            let error = Error {
                code: "artifact.unknown".to_owned(),
                message: format!("there is no artifact {digest}"),
                next_command: "fleetd release push".to_owned(),
                ..Error::default()
            };
            status(Code::NotFound, &error)
        })
    }

    /// Appends to an artifact, and says how much of it there is.
    fn append(&self, digest: &str, content: &[u8]) -> u64 {
        let mut shelf = self.0.lock().expect("no test panics with it");
        let bytes = shelf.entry(digest.to_owned()).or_default();
        bytes.extend_from_slice(content);
        bytes.len() as u64
    }
}

type Parts = Pin<Box<dyn Stream<Item = Result<artifact::DownloadArtifactResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ArtifactService for Shelf {
    async fn get_upload(
        &self,
        request: Request<artifact::GetUploadRequest>,
    ) -> Result<Response<artifact::GetUploadResponse>, Status> {
        match request.get_ref().digest.as_str() {
            HANGS => std::future::pending().await,
            PANICS => panic!("this handler panics"),
            digest => {
                let received_bytes = self.find(digest)?.len() as u64;
                let mut response = Response::new(artifact::GetUploadResponse { received_bytes, complete: true });
                if let Some(echo) = request.metadata().get("x-echo") {
                    response.metadata_mut().insert("x-echo", echo.clone());
                }
                Ok(response)
            }
        }
    }

    async fn upload_artifact(
        &self,
        request: Request<Streaming<artifact::UploadArtifactRequest>>,
    ) -> Result<Response<artifact::UploadArtifactResponse>, Status> {
        let mut parts = request.into_inner();
        let mut digest = None;
        let mut received_bytes = 0;
        while let Some(part) = parts.message().await? {
            let digest = digest.get_or_insert(part.digest);
            received_bytes = self.append(digest, &part.content);
        }
        Ok(Response::new(artifact::UploadArtifactResponse { received_bytes, complete: true }))
    }

    async fn upload_artifact_chunk(
        &self,
        request: Request<artifact::UploadArtifactChunkRequest>,
    ) -> Result<Response<artifact::UploadArtifactChunkResponse>, Status> {
        let chunk = request.into_inner();
        let received_bytes = self.append(&chunk.digest, &chunk.content);
        let complete = received_bytes == chunk.size_bytes;
        Ok(Response::new(artifact::UploadArtifactChunkResponse { received_bytes, complete }))
    }

    type DownloadArtifactStream = Parts;

    async fn download_artifact(
        &self,
        request: Request<artifact::DownloadArtifactRequest>,
    ) -> Result<Response<Parts>, Status> {
        let digest = request.into_inner().digest;
        if digest == HANGS {
            return Ok(Response::new(Box::pin(futures::stream::pending())));
        }
        let bytes = self.find(&digest)?;
        let size_bytes = bytes.len() as u64;
        let mut parts: Vec<Result<artifact::DownloadArtifactResponse, Status>> = bytes
            .chunks(3)
            .map(|part| Ok(artifact::DownloadArtifactResponse { size_bytes, content: part.to_vec() }))
            .collect();
        if digest.ends_with("torn") {
            let error = Error {
                code: "store.unreadable".to_owned(),
                message: "the rest of it cannot be read".to_owned(),
                ..Error::default()
            };
            parts.push(Err(status(Code::DataLoss, &error)));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }
}

/// Says who is calling, from what the edge found out.
pub(crate) struct Mirror;

#[tonic::async_trait]
impl AccessService for Mirror {
    async fn who_am_i(
        &self,
        request: Request<access::WhoAmIRequest>,
    ) -> Result<Response<access::WhoAmIResponse>, Status> {
        let caller = request.extensions().get::<Caller>().ok_or_else(|| Status::internal("nobody is calling"))?;
        let address = request.remote_addr().ok_or_else(|| Status::internal("from nowhere"))?;
        assert!(address.ip().is_loopback());
        let token = AccessToken { id: caller.id.to_string(), name: caller.name.clone(), ..AccessToken::default() };
        Ok(Response::new(access::WhoAmIResponse { access_token: Some(token), ..access::WhoAmIResponse::default() }))
    }

    async fn create_access_token(
        &self,
        _: Request<access::CreateAccessTokenRequest>,
    ) -> Result<Response<access::CreateAccessTokenResponse>, Status> {
        Err(Status::unimplemented("tokens are not made here"))
    }

    async fn list_access_tokens(
        &self,
        _: Request<access::ListAccessTokensRequest>,
    ) -> Result<Response<access::ListAccessTokensResponse>, Status> {
        Err(Status::unimplemented("tokens are not kept here"))
    }

    async fn revoke_access_token(
        &self,
        _: Request<access::RevokeAccessTokenRequest>,
    ) -> Result<Response<access::RevokeAccessTokenResponse>, Status> {
        Err(Status::unimplemented("tokens are not kept here"))
    }
}

/// Knows one token of each role: the role's own name.
struct ThreeTokens;

impl Authenticator for ThreeTokens {
    fn authenticate(&self, token: &str) -> Result<Caller, AuthenticateError> {
        let (role, number) = match token {
            "viewer" => (Role::Viewer, 2),
            "deployer" => (Role::Deployer, 1),
            "admin" => (Role::Admin, 3),
            "expired" => return Err(AuthenticateError::Expired { id: AccessId::from_bytes([9; 10]) }),
            _ => return Err(AuthenticateError::Unknown),
        };
        Ok(Caller { id: AccessId::from_bytes([number; 10]), name: token.to_owned(), role })
    }
}

/// Adds to what comes behind an answer's messages.
fn with_cost(answer: axum::response::Response) -> axum::response::Response {
    answer.map(|body| {
        axum::body::Body::new(body.map_frame(|frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.insert(COST, http::HeaderValue::from_static("7"));
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}

/// Where errors say that their pages are.
pub(crate) const HELP_AT: &str = "https://fleet.example:4800";

/// A server that listens on loopback.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Its certificate, which is its own CA.
    pub(crate) certificate: CertificateDer<'static>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Server {
    /// A server that puts nobody off: tests call it as often as they like.
    pub(crate) async fn start() -> Self {
        let often = Rate { per_second: 100_000, burst: 100_000 };
        let limits = Limits { calls: often, failures: often, open_calls: often, ..Limits::default() };
        Self::start_with(limits).await
    }

    pub(crate) async fn start_with(limits: Limits) -> Self {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).expect("a key");
        let certificate = identity.cert.der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .expect("the key is the certificate's");
        let routes =
            Routes::new(ArtifactServiceServer::new(Shelf::default())).add_service(AccessServiceServer::new(Mirror));
        let routes = Routes::from(routes.into_axum_router().layer(MapResponseLayer::new(with_cost)));
        let api =
            Api::open(routes, Arc::new(ThreeTokens), limits, Help::at(HELP_AT)).await.expect("the schemas are valid");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, tls, api, async {
            let _ = stopped.await;
        }));
        Self { address, certificate, stop, served }
    }

    /// Stops the server, and returns once it has.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.served.await.expect("the server ends by itself");
    }
}
