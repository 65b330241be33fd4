//! One message each way, by POST or GET.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use prost_reflect::MethodDescriptor;
use prost_types::method_options::IdempotencyLevel;
use tonic::Status;

use super::compression::Compression;
use super::frame::{Frames, write_frame};
use super::get::ReadQueryError;
use super::message::{from_proto, to_proto};
use super::protocol::{Encoding, Protocol};
use super::{ACCEPT_POST, Connect, get, is_answer_metadata, outcome, refusal};

impl Connect {
    /// Answers a POST with one message.
    pub(super) async fn answer_unary(
        &self,
        method: &MethodDescriptor,
        encoding: Encoding,
        request: Request<Body>,
    ) -> Response {
        let (parts, body) = request.into_parts();
        let bytes_max = self.bytes_max(&parts.extensions);
        let message = async {
            let sent = Compression::sent(&parts.headers, &header::CONTENT_ENCODING)?;
            Ok((sent, collect(body, bytes_max).await?))
        };
        match message.await {
            Ok((sent, message)) => self.exchange(method, encoding, parts, sent, message).await,
            Err(status) => self.refuse(Protocol::Unary(encoding), &status),
        }
    }

    /// Answers a GET, which only RPCs without side effects allow: it can be sent by a link.
    pub(super) async fn answer_get(&self, method: &MethodDescriptor, request: Request<Body>) -> Response {
        let (parts, _) = request.into_parts();
        let bytes_max = self.bytes_max(&parts.extensions);
        let mut response = match get::read_query(parts.uri.query().unwrap_or_default()) {
            Ok(query) if query.message.len() > bytes_max => self.refuse(Protocol::Get, &too_long(bytes_max)),
            Ok(query) => self.exchange(method, query.encoding, parts, query.compression, query.message).await,
            Err(ReadQueryError::Encoding) => refusal::unsupported_media_type(ACCEPT_POST),
            Err(ReadQueryError::Refused(status)) => self.refuse(Protocol::Get, &status),
        };
        // What it says of the fleet changes at any time, and is for this caller alone.
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.append(header::VARY, HeaderValue::from_static("authorization, accept-encoding"));
        response
    }

    /// Sends one message to the service, and its answer back.
    async fn exchange(
        &self,
        method: &MethodDescriptor,
        encoding: Encoding,
        parts: http::request::Parts,
        sent: Compression,
        message: Bytes,
    ) -> Response {
        let message = sent.unpack(message, self.bytes_max(&parts.extensions)).map_err(|error| error.status());
        let message = message
            .and_then(|message| to_proto(encoding, &method.input(), message).map_err(|error| error.of_request()));
        let message = match message {
            Ok(message) => message,
            Err(status) => return self.refuse(Protocol::Unary(encoding), &status),
        };
        let accepted = Compression::accepted(&parts.headers, &header::ACCEPT_ENCODING, sent);
        let (answer, body) = self.call_for(parts, Body::from(write_frame(0, &message))).await.into_parts();
        // What our own services answer was limited where it was made.
        let mut frames = Frames::new(body, usize::MAX);
        let read = match frames.next().await {
            Ok(Some(frame)) => frames.next().await.map(|_| Some(frame.message)),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let result = match read {
            Ok(message) => outcome(answer.status, &answer.headers, frames.trailers()).and_then(|()| {
                let message = message.ok_or_else(|| Status::internal("the service answered no message"))?;
                from_proto(encoding, &method.output(), message).map_err(|error| error.of_response())
            }),
            Err(error) => Err(error.status()),
        };
        let mut response = match result {
            Ok(message) => packed(accepted, encoding, message),
            Err(status) => refusal::unary(&self.schemas, &status),
        };
        carry_metadata(&answer.headers, frames.trailers(), response.headers_mut());
        response
    }
}

/// Answers with a message, packed if that pays.
fn packed(compression: Compression, encoding: Encoding, message: Bytes) -> Response {
    let smaller = compression.pack(&message);
    let is_packed = smaller.is_some();
    let mut response = Response::new(Body::from(smaller.unwrap_or(message)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type(encoding));
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(compression.name()));
    }
    response
}

/// Says whether an RPC is declared to change nothing.
pub(super) fn is_read(method: &MethodDescriptor) -> bool {
    let options = method.method_descriptor_proto().options.as_ref();
    options.is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

/// Reads a body of at most `length_max` bytes.
async fn collect(body: Body, length_max: usize) -> Result<Bytes, Status> {
    match Limited::new(body, length_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_long(length_max)),
        Err(error) => Err(match error.downcast::<axum::Error>() {
            Ok(error) => Status::from_error(error.into_inner()),
            Err(error) => Status::from_error(error),
        }),
    }
}

fn too_long(length_max: usize) -> Status {
    Status::resource_exhausted(format!("the message has more than {length_max} bytes"))
}

fn content_type(encoding: Encoding) -> HeaderValue {
    HeaderValue::from_static(match encoding {
        Encoding::Json => "application/json",
        Encoding::Proto => "application/proto",
    })
}

/// Copies what the service says beside its message: headers as they are, trailers with `trailer-` before their names.
fn carry_metadata(headers: &HeaderMap, trailers: &HeaderMap, into: &mut HeaderMap) {
    for (name, value) in headers.iter().filter(|(name, _)| is_answer_metadata(name)) {
        into.append(name.clone(), value.clone());
    }
    for (name, value) in trailers.iter().filter(|(name, _)| is_answer_metadata(name)) {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            into.append(name, value.clone());
        }
    }
}
