//! Clients: tonic's own, and one that sends what it is told over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

use super::service::Server;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// How a call of gRPC ended, by headers or trailers.
    pub(crate) fn grpc_status(&self) -> &str {
        let status = self.trailers.get("grpc-status").or_else(|| self.headers.get("grpc-status"));
        status.map_or("", |value| value.to_str().expect("text"))
    }

    /// The messages of a body of frames, each with its flags.
    pub(crate) fn frames(&self) -> Vec<(u8, Bytes)> {
        let mut frames = Vec::new();
        let mut rest = self.body.clone();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[1..5].try_into().expect("four bytes")) as usize;
            frames.push((rest[0], rest.slice(5..5 + length)));
            rest = rest.slice(5 + length..);
        }
        frames
    }
}

/// Puts the five bytes of a frame before a message.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).expect("it is short").to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

/// Shakes hands, and agrees on one version of HTTP.
pub(crate) async fn tls(server: &Server, alpn: &[u8]) -> TlsStream<TcpStream> {
    shake_hands(server.address, server.certificate.clone(), alpn).await
}

async fn shake_hands(address: SocketAddr, root: CertificateDer<'static>, alpn: &[u8]) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("the server shakes hands")
}

/// Sends one request by HTTP/1.1 on a connection of its own.
pub(crate) async fn send_http1(server: &Server, request: Request<Full<Bytes>>) -> Answer {
    let stream = tls(server, b"http/1.1").await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    let running = tokio::spawn(connection);
    let (parts, body) = request.into_parts();
    let mut request = Request::from_parts(parts, body);
    request.headers_mut().insert("host", "localhost".parse().expect("a name"));
    let answer = collect(sender.send_request(request).await.expect("an answer")).await;
    running.abort();
    answer
}

/// Sends one request by HTTP/2 on a connection of its own.
pub(crate) async fn send_http2(server: &Server, request: Request<Full<Bytes>>) -> Answer {
    let stream = tls(server, b"h2").await;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let running = tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    parts.uri = format!("https://localhost{}", parts.uri).parse().expect("a path");
    parts.version = http::Version::HTTP_2;
    let answer = collect(sender.send_request(Request::from_parts(parts, body)).await.expect("an answer")).await;
    running.abort();
    answer
}

async fn collect(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.expect("the whole answer");
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes(), trailers }
}

/// Makes a request; an empty token is none.
pub(crate) fn request(method: &str, path: &str, content_type: &str, token: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(method).uri(path);
    if !content_type.is_empty() {
        builder = builder.header("content-type", content_type);
    }
    if content_type == "application/grpc" {
        builder = builder.header("te", "trailers");
    }
    if !token.is_empty() {
        builder = builder.header("authorization", format!("Bearer {token}"));
    }
    builder.body(Full::new(body)).expect("a request")
}

/// Posts JSON as Connect does.
pub(crate) async fn post_json(server: &Server, path: &str, token: &str, json: &str) -> Answer {
    let body = Bytes::copy_from_slice(json.as_bytes());
    send_http1(server, request("POST", path, "application/json", token, body)).await
}

/// Connects as tonic does.
pub(crate) async fn channel(server: &Server) -> Channel {
    channel_to(server.address, server.certificate.clone()).await
}

/// A channel of tonic's over TLS, to a server whose certificate `root` stands behind.
pub(crate) async fn channel_to(address: SocketAddr, root: CertificateDer<'static>) -> Channel {
    let connector = tower::service_fn(move |_: http::Uri| {
        let root = root.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(shake_hands(address, root, b"h2").await)) }
    });
    // What connects does TLS itself.
    let endpoint = Endpoint::from_static("http://localhost").origin(http::Uri::from_static("https://localhost"));
    endpoint.connect_with_connector(connector).await.expect("a connection")
}

/// Gives each request of a tonic client a token.
pub(crate) fn bearer(
    token: &str,
) -> impl FnMut(tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> + Clone + use<> {
    let value: MetadataValue<_> = format!("Bearer {token}").parse().expect("text");
    move |mut request| {
        request.metadata_mut().insert("authorization", value.clone());
        Ok(request)
    }
}
