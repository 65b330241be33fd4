//! The API's port: any request of any protocol to any RPC, into the handlers of a real server.

use std::cell::RefCell;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use fleetd_server::connect::schemas;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::CASES_SLOW;
use crate::api::field::whole_requests;
use crate::api::world::World;

/// Requests that one server answers before it is replaced, so that what it keeps stays small.
const REQUESTS_MAX: usize = 2000;
/// Time for the parts of an answer: streams that wait for something to happen have no end.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// By the second byte of an input: method, content type, and whether the body is in the query.
const PROTOCOLS: [(&str, &str); 8] = [
    ("POST", "application/json"),
    ("POST", "application/proto"),
    ("GET", ""),
    ("POST", "application/connect+json"),
    ("POST", "application/connect+proto"),
    ("POST", "application/grpc"),
    ("POST", "application/grpc-web+proto"),
    ("POST", "application/grpc-web-text"),
];

struct Server {
    runtime: Runtime,
    world: World,
    requests: usize,
}

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let world = runtime.block_on(World::start());
        Self { runtime, world, requests: 0 }
    }

    fn answer(&self, request: Request<Body>) -> (StatusCode, Vec<u8>) {
        self.runtime.block_on(async {
            let answer = timeout(ANSWER_TIMEOUT, self.world.api.answer(request)).await;
            let Ok(answer) = answer else { return (StatusCode::OK, Vec::new()) };
            let (status, grpc_status) = (answer.status(), grpc_status(&answer));
            let mut body = answer.into_body();
            let mut read = Vec::new();
            while let Ok(Some(Ok(part))) = timeout(ANSWER_TIMEOUT, body.frame()).await {
                if let Some(trailers) = part.trailers_ref() {
                    read.extend(trailers.iter().flat_map(|(_, value)| value.as_bytes()));
                }
                read.extend(part.into_data().unwrap_or_default());
                assert!(read.len() <= ANSWER_BYTES_MAX, "{status}: an answer of {} bytes and more", read.len());
            }
            read.extend(grpc_status);
            (status, read)
        })
    }
}

fn grpc_status(answer: &Response<Body>) -> Vec<u8> {
    answer.headers().iter().flat_map(|(_, value)| value.as_bytes().to_vec()).collect()
}

/// Reads an input as a request: who calls, the protocol, the path up to a line's end, and the body.
fn request(bytes: &[u8], admin: &str) -> Option<Request<Body>> {
    let [who, protocol, rest @ ..] = bytes else { return None };
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let (path, body) = rest.split_at(end);
    let (path, body) = (std::str::from_utf8(path).ok()?, &body[1..]);
    let (method, content_type) = PROTOCOLS[usize::from(*protocol) % PROTOCOLS.len()];
    let uri = if method == "GET" { format!("/{path}?{}", std::str::from_utf8(body).ok()?) } else { format!("/{path}") };
    let mut request = Request::builder().method(method).uri(uri);
    if !content_type.is_empty() {
        request = request.header("content-type", content_type).header("te", "trailers");
    }
    request = match who {
        0 => request,
        1 => request.header("authorization", "Bearer flta_nobody_knows"),
        _ => request.header("authorization", format!("Bearer {admin}")),
    };
    let body = if method == "GET" { Bytes::new() } else { Bytes::copy_from_slice(body) };
    request.body(Body::from(body)).ok()
}

/// Says how the request was answered.
fn check(bytes: &[u8]) -> Option<StatusCode> {
    SERVER.with_borrow_mut(|slot| {
        let server = slot.get_or_insert_with(Server::start);
        let request = request(bytes, &server.world.admin)?;
        let (status, answer) = server.answer(request);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("the server failed on this request"), "a handler panicked: {text}");
        assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{text}");
        server.requests += 1;
        if server.requests >= REQUESTS_MAX {
            *slot = None;
        }
        Some(status)
    })
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
    [[0].as_slice(), &length, message].concat()
}

/// A whole request of every RPC, in the protocol that fits it, and some in each of the others.
fn samples() -> Vec<Vec<u8>> {
    let of = |who: u8, protocol: u8, path: &str, body: &[u8]| {
        [[who, protocol].as_slice(), path.as_bytes(), b"\n", body].concat()
    };
    let (mut samples, whole) = (Vec::new(), whole_requests());
    let schemas = schemas().expect("the schemas are valid");
    for method in schemas.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let path = format!("{}/{}", method.parent_service().full_name(), method.name());
        let mut request = whole.get(path.trim_start_matches("fleetd.")).cloned().unwrap_or_else(|| json!({}));
        request["requestId"] = json!("r");
        let body = request.to_string().into_bytes();
        let is_stream = method.is_server_streaming() || method.is_client_streaming();
        let (protocol, body) = if is_stream { (3, framed(&body)) } else { (0, body) };
        samples.push(of(2, protocol, &path, &body));
    }
    let devices = "fleetd.device.v1.DeviceService/ListDevices";
    samples.extend([
        of(2, 0, devices, br#"{"selector":"site=berlin,!x","pageSize":7,"pageToken":"aa"}"#),
        of(2, 1, devices, &[0x0a, 3, b'a', b'=', b'b']),
        of(2, 2, devices, b"connect=v1&encoding=json&message=%7B%22pageSize%22:3%7D"),
        of(2, 2, devices, b"encoding=proto&base64=1&message=CgA"),
        of(2, 5, devices, &framed(&[])),
        of(2, 6, devices, &framed(&[])),
        of(2, 7, devices, b"AAAAAAA="),
        of(0, 0, "grpc.health.v1.Health/Check", b"{}"),
        of(1, 0, devices, b"{}"),
        of(0, 2, "errors/store.damaged", b""),
    ]);
    samples
}

#[test]
fn every_rpc_is_among_the_samples_and_none_fails() {
    let samples = samples();
    let statuses: Vec<_> = samples.iter().map(|sample| check(sample).expect("a sample is a request")).collect();
    // Most name what is not there, and are told so.
    assert!(statuses.iter().filter(|status| status.is_success()).count() > 15, "{statuses:?}");
}

#[test]
fn no_request_makes_a_handler_fail() {
    bolero::check!(name = "connect").with_iterations(CASES_SLOW).for_each(|bytes| {
        check(bytes);
    });
}
