//! The one port of the API: TLS, HTTP/1.1 and HTTP/2, and behind them gRPC, gRPC-Web and Connect.
//!
//! Nothing of a request's body is read before its caller is known ([`authenticate`]), and everything that a stranger can
//! make this process hold is limited ([`limit`]).
//!
//! Where to start reading: [`Api::answer`] for one request, [`serve`] for the port.

pub mod authenticate;
mod cross_origin;
pub(crate) mod cut_short;
pub(crate) mod deadline;
pub mod limit;
mod linger;
pub mod rate;
mod strangers;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::response::Response;
use fleetd_sync_core::id::AccessId;
use fleetd_sync_core::limit::API_COUNTED_MAX;
use fleetd_sync_core::time::Clock as _;
use fleetd_sync_transport::clock::SystemClock;
use fleetd_sync_transport::source::source;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use self::authenticate::{AdmitError, Admitted, AuthenticateError, Authenticator, Caller, admit, bearer_token};
use self::cut_short::Credential;
use self::deadline::Deadline;
use self::limit::Limits;
use self::rate::{Buckets, RateError};
use self::strangers::{Stranger, Strangers};
use crate::connect::{Connect, MessageBytesMax, Protocol, schemas, with_reflection};
use crate::rpc::help::{Help, page_for};
use crate::rpc::{PACKED, admission_status, permission, rate_status};

/// What clients and servers agree on in the handshake, the better one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why the API cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenApiError {
    /// The committed descriptors are no valid set.
    #[error("the schemas cannot be read")]
    Schemas(#[from] prost_reflect::DescriptorError),
    /// Reflection does not take them.
    #[error("the schemas cannot be reflected")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Hears of each call whose role was too low: who called, and what.
pub type HearRefusal = Arc<dyn Fn(&Caller, &str) + Send + Sync>;

/// How often callers called lately.
struct Counts {
    clock: SystemClock,
    calls: Buckets<AccessId>,
    failures: Buckets<IpAddr>,
    open_calls: Buckets<IpAddr>,
}

impl Counts {
    fn new(limits: &Limits) -> Self {
        Self {
            clock: SystemClock::default(),
            calls: Buckets::new(limits.calls, API_COUNTED_MAX),
            failures: Buckets::new(limits.failures, API_COUNTED_MAX),
            open_calls: Buckets::new(limits.open_calls, API_COUNTED_MAX),
        }
    }

    /// Counts a request by how it was let in, or why not. A good credential is never held to what others did at its
    /// address.
    fn count(&self, admitted: &Result<Admitted, AdmitError>, source_address: IpAddr) -> Result<(), RateError> {
        let now = self.clock.now().monotonic;
        match admitted {
            Ok(Admitted::As(caller)) | Err(AdmitError::Forbidden { caller, .. }) => {
                let (name, rate) = (|| caller.name.clone(), self.calls.rate());
                let taken = self.calls.take(caller.id, now);
                taken.map_err(|wait| RateError::Credential { name: name(), rate, wait })
            }
            Ok(Admitted::Openly) => {
                let taken = self.open_calls.take(source_address, now);
                taken.map_err(|wait| RateError::Open { source_address, wait })
            }
            Err(AdmitError::Missing | AdmitError::Refused(_)) => {
                let taken = self.failures.take(source_address, now);
                taken.map_err(|wait| RateError::Failures { source_address, wait })
            }
            Err(AdmitError::NotServed { .. }) => Ok(()),
        }
    }
}

/// The API: services, guarded, with health and reflection.
#[derive(Clone)]
pub struct Api {
    connect: Connect,
    authenticator: Arc<dyn Authenticator>,
    health: HealthReporter,
    limits: Limits,
    hear_refusal: Option<HearRefusal>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Api {
    /// Opens `routes` to callers whom `authenticator` knows, and adds health and reflection. Errors say where the pages
    /// of `help` are.
    ///
    /// # Errors
    /// [`OpenApiError`] when the committed descriptors are no valid set, which a test excludes.
    pub async fn open(
        routes: Routes,
        authenticator: Arc<dyn Authenticator>,
        limits: Limits,
        help: Help,
    ) -> Result<Self, OpenApiError> {
        let (reporter, health_service) = health_reporter();
        for service in permission::services() {
            reporter.set_service_status(service, ServingStatus::Serving).await;
        }
        let health = health_service.accept_compressed(PACKED).max_decoding_message_size(limits.open_body_bytes_max);
        let routes = with_reflection(routes.add_service(health), permission::services())?;
        let connect = Connect::new(schemas()?, routes, limits.message_bytes_max, help);
        let counts = Arc::new(Counts::new(&limits));
        Ok(Self { connect, authenticator, health: reporter, limits, hear_refusal: None, counts })
    }

    /// The same API, with somebody who hears of calls whose role was too low.
    #[must_use]
    pub fn heard_by(self, hear_refusal: HearRefusal) -> Self {
        Self { hear_refusal: Some(hear_refusal), ..self }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Body>) -> Response {
        if let Some(answer) = cross_origin::preflight(&request) {
            return answer;
        }
        let is_of_page = cross_origin::is_of_page(request.headers());
        let mut response = match page_for(&request) {
            Some(page) => page,
            None => self.answer_rpc(request).await,
        };
        if is_of_page {
            cross_origin::open_to_page(response.headers_mut());
        }
        response
    }

    /// Answers a call, within its deadline.
    async fn answer_rpc(&self, mut request: Request<Body>) -> Response {
        let protocol = Protocol::of(request.method(), request.headers());
        let deadline = match deadline::of(request.headers()) {
            Ok(deadline) => deadline,
            Err(error) => return self.connect.refuse(protocol, &Status::invalid_argument(error.to_string())),
        };
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(Deadline(deadline));
        }
        let answer = AssertUnwindSafe(self.answer_admitted(protocol, request)).catch_unwind();
        let answered = match deadline {
            Some(deadline) => timeout(deadline, answer).await,
            None => Ok(answer.await),
        };
        match answered {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => {
                tracing::error!("a request's handler panicked");
                self.connect.refuse(protocol, &Status::internal("the server failed on this request"))
            }
            Err(_) => self.connect.refuse(protocol, &deadline::passed()),
        }
    }

    /// Lets a request in, or tells its caller why not.
    async fn answer_admitted(&self, protocol: Protocol, mut request: Request<Body>) -> Response {
        let admitted = admit(&*self.authenticator, request.uri().path(), request.headers());
        if let Err(error) = self.counts.count(&admitted, source_of(&request)) {
            return self.put_off(protocol, &error);
        }
        match admitted {
            Ok(Admitted::As(caller)) => {
                if let Some(stranger) = request.extensions().get::<Arc<Stranger>>() {
                    stranger.vouch();
                }
                let credential = self.credential(request.headers());
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(credential);
            }
            Ok(Admitted::Openly) => {
                let bytes_max = self.limits.open_body_bytes_max;
                request = request.map(|body| limited(body, bytes_max));
                request.extensions_mut().insert(MessageBytesMax(bytes_max));
            }
            Err(AdmitError::NotServed { path }) => return self.connect.refuse_path(protocol, &path),
            Err(error) => {
                if let (AdmitError::Forbidden { caller, .. }, Some(hear)) = (&error, &self.hear_refusal) {
                    hear(caller, request.uri().path());
                }
                return self.connect.refuse(protocol, &admission_status(&error));
            }
        }
        self.connect.answer(request).await
    }

    /// The credential of a request that was let in by it, to look at it again.
    fn credential(&self, headers: &HeaderMap) -> Credential {
        let (authenticator, token) = (Arc::clone(&self.authenticator), bearer_token(headers).map(str::to_owned));
        let check = move || match authenticator.authenticate(token.as_deref().unwrap_or_default()) {
            // What cannot be told now was told before.
            Ok(_) | Err(AuthenticateError::Unavailable) => Ok(()),
            Err(error) => Err(admission_status(&error.into())),
        };
        Credential { interval: self.limits.credential_interval, check: Arc::new(check) }
    }

    /// Tells a caller to come again later, in the words of gRPC and in those of HTTP.
    fn put_off(&self, protocol: Protocol, error: &RateError) -> Response {
        let mut response = self.connect.refuse(protocol, &rate_status(error));
        let seconds = error.wait().as_millis().div_ceil(1000).max(1);
        if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        response
    }
}

/// Where a request comes from.
fn source_of(request: &Request<Body>) -> IpAddr {
    let info = request.extensions().get::<TcpConnectInfo>();
    let address = info.and_then(TcpConnectInfo::remote_addr).map(|address| address.ip());
    source(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// Cuts off a body at `bytes_max`, for callers whom nobody vouches for.
fn limited(body: Body, bytes_max: usize) -> Body {
    Body::new(Limited::new(body, bytes_max).map_err(move |error| match error.downcast::<axum::Error>() {
        Ok(error) => Status::from_error(error.into_inner()),
        Err(_) => Status::resource_exhausted(format!("the request has more than {bytes_max} bytes")),
    }))
}

/// Serves `api` on `listener` until `shutdown` ends, then lets open requests finish for a while.
///
/// `tls` brings certificate and key; what the handshake agrees on is set here.
pub async fn serve(listener: TcpListener, tls: rustls::ServerConfig, api: Api, shutdown: impl Future<Output = ()>) {
    let mut tls = tls;
    tls.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let permits = Arc::new(Semaphore::new(api.limits.connections_max));
    let strangers = Strangers::new(api.limits.strangers_max, api.limits.strangers_each_max);
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, stream) = accept(&listener, &permits) => {
                let source = stream.peer_addr().ok().map(|peer| source(peer.ip()));
                let stranger = Arc::new(strangers.admit(source));
                let (acceptor, api, closed) = (acceptor.clone(), api.clone(), closed.clone());
                let connection = Connection { acceptor, api, closed, stranger: Arc::clone(&stranger) };
                connections.spawn(async move {
                    tokio::select! {
                        biased;
                        () = stranger.must_leave() => tracing::debug!(?source, "a stranger's connection made room"),
                        () = connection.serve(stream) => {}
                    }
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    api.health.set_service_status("", ServingStatus::NotServing).await;
    closing.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(api.limits.drain_timeout, drained).await.is_err() {
        connections.shutdown().await;
    }
}

/// Waits for room, then for a connection.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (Option<OwnedSemaphorePermit>, TcpStream) {
    // The semaphore is never closed, so that there always is a permit in the end.
    let permit = Arc::clone(permits).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (permit, stream),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors, most likely: trying at once would only keep the processor busy.
                sleep(limit::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, as it comes in.
struct Connection {
    acceptor: TlsAcceptor,
    api: Api,
    closed: watch::Receiver<bool>,
    stranger: Arc<Stranger>,
}

impl Connection {
    /// Serves the connection until either end closes it.
    async fn serve(mut self, stream: TcpStream) {
        let info = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: stream.peer_addr().ok() };
        let peer = info.remote_addr;
        let _ = stream.set_nodelay(true);
        let stream = match timeout(self.api.limits.handshake_timeout, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(?peer, %error, "a TLS handshake failed"),
            Err(_) => return tracing::debug!(?peer, "a TLS handshake took too long"),
        };
        let is_http2 = stream.get_ref().1.alpn_protocol() == ALPN.first().copied();
        let has_asked = AtomicBool::new(false);
        let service = service_fn(|request: Request<Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            let api = self.api.clone();
            let mut request = linger::taken(request);
            request.extensions_mut().insert(info.clone());
            request.extensions_mut().insert(Arc::clone(&self.stranger));
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        let builder = http_builder(&self.api.limits, is_http2);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        // A client that only holds the connection is not waited for.
        let mut first_request = pin!(sleep(self.api.limits.handshake_timeout));
        let (mut is_waiting, mut is_closing) = (true, false);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(?peer, %error, "a connection broke");
                    }
                    return;
                }
                _ = self.closed.wait_for(|is_closed| *is_closed), if !is_closing => {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = first_request.as_mut(), if is_waiting => {
                    if !has_asked.load(Ordering::Relaxed) {
                        return tracing::debug!(?peer, "a connection asked for nothing");
                    }
                    is_waiting = false;
                }
            }
        }
    }
}

/// Sets up HTTP within `limits`. The version comes from the handshake: guessing it would wait for bytes without end.
fn http_builder(limits: &Limits, is_http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.connection_requests_max)
        .initial_stream_window_size(limits.window_bytes)
        .initial_connection_window_size(limits.window_bytes)
        .keep_alive_interval(limits.keep_alive_interval)
        .keep_alive_timeout(limits.keep_alive_timeout);
    if is_http2 { builder.http2_only() } else { builder.http1_only() }
}
