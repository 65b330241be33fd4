//! Any number of messages each way. Envelopes of Connect and frames of gRPC look the same, so that messages are re-coded
//! one by one as they pass; only the end differs: gRPC has trailers, Connect a last envelope of JSON.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use data_encoding::BASE64_NOPAD;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use serde_json::json;
use tonic::Status;

use super::compression::Compression;
use super::frame::{COMPRESSED, END_STREAM, Frames, write_frame};
use super::message::{from_proto, to_proto};
use super::protocol::{Encoding, Protocol};
use super::refusal::error_json;
use super::{Connect, is_answer_metadata, outcome};

/// How the messages of a request's stream are packed.
const SENT: HeaderName = HeaderName::from_static("connect-content-encoding");

/// How those of the answer may be.
const ACCEPTED: HeaderName = HeaderName::from_static("connect-accept-encoding");

impl Connect {
    /// Answers a request whose body is a stream of envelopes.
    pub(super) async fn answer_stream(
        &self,
        method: &MethodDescriptor,
        encoding: Encoding,
        request: Request<Body>,
    ) -> Response {
        let (parts, body) = request.into_parts();
        // A stream packs its messages one by one, so that each arrives when it is sent.
        let sent = match Compression::sent(&parts.headers, &header::CONTENT_ENCODING) {
            Ok(Compression::Identity) => Compression::sent(&parts.headers, &SENT),
            Ok(_) => Err(Status::unimplemented("a stream as a whole is packed, this server takes packed messages")),
            Err(status) => Err(status),
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(status) => return self.refuse(Protocol::Stream(encoding), &status),
        };
        let compression = Compression::accepted(&parts.headers, &ACCEPTED, sent);
        let frames = Frames::new(body, self.bytes_max(&parts.extensions)).packed_by(sent);
        let body = Body::from_stream(requests(frames, method.input(), encoding));
        let (answer, body) = self.call_for(parts, body).await.into_parts();

        let mut headers = HeaderMap::new();
        for (name, value) in answer.headers.iter().filter(|(name, _)| is_answer_metadata(name)) {
            headers.append(name.clone(), value.clone());
        }
        headers.insert(header::CONTENT_TYPE, content_type(encoding));
        if compression != Compression::Identity {
            headers.insert(SENT, HeaderValue::from_static(compression.name()));
        }
        let answers = Answers {
            frames: Frames::new(body, usize::MAX),
            message: method.output(),
            encoding,
            compression,
            schemas: self.schemas.clone(),
            status: answer.status,
            headers: answer.headers,
        };
        let mut response = Response::new(Body::from_stream(answers.into_stream()));
        *response.headers_mut() = headers;
        response
    }
}

/// Re-codes a client's envelopes as frames of gRPC. What is wrong with one becomes the status of the call.
fn requests(
    frames: Frames,
    message: MessageDescriptor,
    encoding: Encoding,
) -> impl stream::Stream<Item = Result<Bytes, Status>> {
    stream::try_unfold(frames, move |mut frames| {
        let message = message.clone();
        async move {
            match frames.next().await.map_err(|error| error.status())? {
                Some(frame) if frame.flags != 0 => {
                    let flags = frame.flags;
                    Err(Status::invalid_argument(format!(
                        "a message has the flags {flags:#b}, which requests have not"
                    )))
                }
                Some(frame) => {
                    let message = to_proto(encoding, &message, frame.message).map_err(|error| error.of_request())?;
                    Ok(Some((write_frame(0, &message), frames)))
                }
                None => Ok(None),
            }
        }
    })
}

/// A service's answers, on their way to a client of Connect.
struct Answers {
    frames: Frames,
    message: MessageDescriptor,
    encoding: Encoding,
    compression: Compression,
    schemas: DescriptorPool,
    status: StatusCode,
    headers: HeaderMap,
}

impl Answers {
    /// Re-codes frames of gRPC as envelopes, and ends with the one that says how it ended.
    fn into_stream(self) -> impl stream::Stream<Item = Result<Bytes, std::convert::Infallible>> {
        stream::unfold(Some(self), |answers| async move {
            let mut answers = answers?;
            let ended = match answers.next().await {
                Ok(Some(message)) => {
                    let frame = match answers.compression.pack(&message) {
                        Some(packed) => write_frame(COMPRESSED, &packed),
                        None => write_frame(0, &message),
                    };
                    return Some((Ok(frame), Some(answers)));
                }
                Ok(None) => outcome(answers.status, &answers.headers, answers.frames.trailers()),
                Err(status) => Err(status),
            };
            let end = end_json(&answers.schemas, ended.err().as_ref(), answers.frames.trailers());
            Some((Ok(write_frame(END_STREAM, &end)), None))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(frame) = self.frames.next().await.map_err(|error| error.status())? else { return Ok(None) };
        from_proto(self.encoding, &self.message, frame.message).map(Some).map_err(|error| error.of_response())
    }
}

/// Writes the message that ends a stream: its error, if it has one, and what the service said beside its messages.
pub(super) fn end_json(schemas: &DescriptorPool, error: Option<&Status>, trailers: &HeaderMap) -> Bytes {
    let mut metadata: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in trailers.iter().filter(|(name, _)| is_answer_metadata(name)) {
        let text = value.to_str().map_or_else(|_| BASE64_NOPAD.encode(value.as_bytes()), ToOwned::to_owned);
        metadata.entry(name.as_str()).or_default().push(text);
    }
    let mut end = json!({});
    if let Some(fields) = end.as_object_mut() {
        if let Some(error) = error {
            fields.insert("error".to_owned(), error_json(schemas, error));
        }
        if !metadata.is_empty() {
            fields.insert("metadata".to_owned(), json!(metadata));
        }
    }
    end.to_string().into()
}

/// What a stream in `encoding` is called.
pub(super) fn content_type(encoding: Encoding) -> HeaderValue {
    HeaderValue::from_static(match encoding {
        Encoding::Json => "application/connect+json",
        Encoding::Proto => "application/connect+proto",
    })
}
