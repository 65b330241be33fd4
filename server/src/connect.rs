//! Connect over any tonic services, driven by the schemas alone.
//!
//! A request of Connect becomes one of gRPC for the same services, and the answer becomes one of Connect again: JSON or
//! protobuf, POST or GET, unary or streaming. gRPC and gRPC-Web pass through unchanged. Messages change their
//! encoding through [`prost_reflect::DynamicMessage`], so that a new RPC needs no code here.
//!
//! Where to start reading: [`Connect::answer`], then [`unary`] and [`stream`]. The protocol: <https://connectrpc.com/docs/protocol>.

mod compression;
mod frame;
mod get;
mod message;
mod protocol;
mod reflection;
mod refusal;
mod stream;
mod unary;

use axum::body::Body;
use axum::middleware::from_fn;
use axum::response::Response;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version, header};
use prost_reflect::{DescriptorError, DescriptorPool, MethodDescriptor};
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_reflection::pb;
use tonic_web::GrpcWebLayer;
use tower::ServiceExt as _;
use tower::util::MapResponseLayer;

pub use self::protocol::{Encoding, Protocol};
pub use self::reflection::with_reflection;
use crate::edge::cut_short;
use crate::rpc::help::Help;

/// What a client may send, told to those who sent something else.
const ACCEPT_POST: &str = "application/json, application/proto, application/connect+json, application/connect+proto, \
                           application/grpc, application/grpc-web";

/// Decodes the schemas of everything that fleetd serves.
///
/// # Errors
/// [`DescriptorError`] when the committed descriptors are no valid set, which a test excludes.
pub fn schemas() -> Result<DescriptorPool, DescriptorError> {
    let mut pool = DescriptorPool::decode(fleetd_proto::DESCRIPTORS)?;
    for reflection in [pb::v1::FILE_DESCRIPTOR_SET, pb::v1alpha::FILE_DESCRIPTOR_SET] {
        pool.decode_file_descriptor_set(reflection)?;
    }
    Ok(pool)
}

/// A limit for the message of one request, as long as it is when it is unpacked: less than others may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageBytesMax(pub(crate) usize);

/// Services, reachable by gRPC, gRPC-Web and Connect.
#[derive(Clone, Debug)]
pub struct Connect {
    schemas: DescriptorPool,
    grpc: axum::Router,
    message_bytes_max: usize,
    help: Help,
}

impl Connect {
    /// Opens `routes`, whose schemas are `schemas`. No message of a Connect request may be larger than
    /// `message_bytes_max`; those of gRPC are limited by their services. Errors say where the pages of `help` are.
    #[must_use]
    pub fn new(schemas: DescriptorPool, routes: Routes, message_bytes_max: usize, help: Help) -> Self {
        let explaining = help.clone();
        // Within gRPC-Web, which puts trailers where they are not seen any more.
        let explain = MapResponseLayer::new(move |answer| explaining.explain_answer(answer));
        let grpc = routes
            .prepare()
            .into_axum_router()
            .layer(explain)
            .layer(from_fn(cut_short::keep))
            .layer(GrpcWebLayer::new());
        Self { schemas, grpc, message_bytes_max, help }
    }

    /// Answers a request in the protocol that it was made in.
    pub async fn answer(&self, request: Request<Body>) -> Response {
        let protocol = Protocol::of(request.method(), request.headers());
        if let Protocol::Grpc | Protocol::GrpcWeb = protocol {
            return self.call(request).await;
        }
        let Some(method) = self.method(request.uri().path()) else {
            return self.refuse_path(protocol, request.uri().path());
        };
        if let Err(status) = check_version(request.headers()) {
            return self.refuse(protocol, &status);
        }
        if let Some(allowed) = methods_instead(request.method(), &method) {
            return refusal::method_not_allowed(allowed);
        }
        if method.is_client_streaming() && method.is_server_streaming() && request.version() < Version::HTTP_2 {
            let text = "this RPC sends and receives at the same time, which needs HTTP/2";
            return self.refuse(protocol, &Status::unimplemented(text));
        }
        let is_stream = method.is_client_streaming() || method.is_server_streaming();
        match protocol {
            Protocol::Unary(encoding) if !is_stream => self.answer_unary(&method, encoding, request).await,
            Protocol::Get if !is_stream => self.answer_get(&method, request).await,
            Protocol::Stream(encoding) if is_stream => self.answer_stream(&method, encoding, request).await,
            Protocol::Get
            | Protocol::Unary(_)
            | Protocol::Stream(_)
            | Protocol::Grpc
            | Protocol::GrpcWeb
            | Protocol::Unknown => refusal::unsupported_media_type(ACCEPT_POST),
        }
    }

    /// Answers with an error in the protocol of the request.
    #[must_use]
    pub fn refuse(&self, protocol: Protocol, status: &Status) -> Response {
        refusal::response(&self.schemas, protocol, &self.help.explain(status))
    }

    /// Answers that `path` leads nowhere: to HTTP that is 404, which clients of Connect read as unimplemented.
    #[must_use]
    pub fn refuse_path(&self, protocol: Protocol, path: &str) -> Response {
        let mut response = self.refuse(protocol, &Status::unimplemented(format!("there is no RPC at {path}")));
        if !response.status().is_success() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        response
    }

    /// Bytes that a message of this request may have.
    fn bytes_max(&self, extensions: &Extensions) -> usize {
        let own = extensions.get::<MessageBytesMax>().map_or(usize::MAX, |own| own.0);
        own.min(self.message_bytes_max)
    }

    /// Finds the RPC at `/package.Service/Method`.
    fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        self.schemas.get_service_by_name(service)?.methods().find(|found| found.name() == method)
    }

    /// Calls the services by gRPC.
    async fn call(&self, request: Request<Body>) -> Response {
        match self.grpc.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Calls the services for a request of Connect, with a body of gRPC frames.
    async fn call_for(&self, parts: http::request::Parts, body: Body) -> Response {
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::try_from(parts.uri.path()).unwrap_or_default();
        // gRPC-Web refuses gRPC proper on HTTP/1.1, where trailers are not sure to arrive; here they are.
        *request.version_mut() = Version::HTTP_2;
        *request.extensions_mut() = parts.extensions;
        let headers = request.headers_mut();
        headers.extend(parts.headers.into_iter().scan(None, carry_name).filter(|(name, _)| is_metadata(name)));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        self.call(request).await
    }
}

/// Names the methods of HTTP by which an RPC can be called, unless this is one: a read is got or posted, anything else
/// is posted.
fn methods_instead(http: &http::Method, method: &MethodDescriptor) -> Option<&'static str> {
    let may_be_got = unary::is_read(method) && !method.is_client_streaming() && !method.is_server_streaming();
    if http == http::Method::POST || (may_be_got && http == http::Method::GET) {
        return None;
    }
    Some(if may_be_got { "GET, POST" } else { "POST" })
}

/// Gives each value of a drained header map its name, which only the first value of a name comes with.
fn carry_name(
    last: &mut Option<HeaderName>,
    (name, value): (Option<HeaderName>, HeaderValue),
) -> Option<(HeaderName, HeaderValue)> {
    if name.is_some() {
        *last = name;
    }
    last.clone().map(|name| (name, value))
}

/// Says whether a request's header is for the service rather than for the transport.
fn is_metadata(name: &HeaderName) -> bool {
    const TRANSPORT: [HeaderName; 11] = [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::ACCEPT_ENCODING,
        header::TE,
        header::UPGRADE,
        header::EXPECT,
        header::TRAILER,
    ];
    !TRANSPORT.contains(name)
        && !name.as_str().starts_with("connect-")
        && !name.as_str().starts_with("grpc-")
        && name.as_str() != "keep-alive"
}

/// Says whether an answer's header is for the client rather than for gRPC.
fn is_answer_metadata(name: &HeaderName) -> bool {
    !name.as_str().starts_with("grpc-") && *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH
}

/// Refuses another version of Connect.
fn check_version(headers: &HeaderMap) -> Result<(), Status> {
    if let Some(version) = headers.get("connect-protocol-version")
        && version != "1"
    {
        return Err(Status::invalid_argument(format!("connect-protocol-version is {version:?}, this server speaks 1")));
    }
    Ok(())
}

/// Reads how a gRPC call ended, from its trailers or, where it ended at once, from its headers.
fn outcome(status: StatusCode, headers: &HeaderMap, trailers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(trailers).or_else(|| Status::from_header_map(headers)) {
        Some(found) if found.code() == Code::Ok => Ok(()),
        Some(found) => Err(found),
        None => Err(Status::unknown(format!("the service answered {status} and no status of gRPC"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_schemas_are_a_valid_set() {
        assert!(schemas().unwrap().get_service_by_name("fleetd.device.v1.DeviceService").is_some());
    }

    #[test]
    fn every_value_of_a_header_keeps_its_name() {
        let mut headers = HeaderMap::new();
        headers.append("x-one", HeaderValue::from_static("1"));
        headers.append("x-one", HeaderValue::from_static("2"));
        headers.append("connect-timeout-ms", HeaderValue::from_static("5"));
        let mut carried: Vec<(HeaderName, HeaderValue)> =
            headers.into_iter().scan(None, carry_name).filter(|(name, _)| is_metadata(name)).collect();
        carried.sort_by(|left, right| left.1.as_bytes().cmp(right.1.as_bytes()));
        let one = HeaderName::from_static("x-one");
        assert_eq!(carried, [(one.clone(), HeaderValue::from_static("1")), (one, HeaderValue::from_static("2"))]);
    }

    #[test]
    fn other_versions_are_refused() {
        let check = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("connect-protocol-version", HeaderValue::from_static(value));
            check_version(&headers).map_err(|status| status.code())
        };
        assert_eq!(check("1"), Ok(()));
        assert_eq!(check("2"), Err(Code::InvalidArgument));
    }
}
