//! Errors, in the protocol of the request that they answer.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use data_encoding::BASE64_NOPAD;
use fleetd_proto::google;
use http::{HeaderValue, StatusCode, header};
use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::message::from_proto;
use super::protocol::{Encoding, Protocol};
use super::{frame, stream};

/// What Connect calls a code, and the status of HTTP that goes with it.
///
/// # Source
/// <https://connectrpc.com/docs/protocol/#error-codes>
fn name_of(code: Code) -> (&'static str, u16) {
    match code {
        Code::Ok => ("ok", 200),
        Code::Cancelled => ("canceled", 499),
        Code::Unknown => ("unknown", 500),
        Code::InvalidArgument => ("invalid_argument", 400),
        Code::DeadlineExceeded => ("deadline_exceeded", 504),
        Code::NotFound => ("not_found", 404),
        Code::AlreadyExists => ("already_exists", 409),
        Code::PermissionDenied => ("permission_denied", 403),
        Code::ResourceExhausted => ("resource_exhausted", 429),
        Code::FailedPrecondition => ("failed_precondition", 400),
        Code::Aborted => ("aborted", 409),
        Code::OutOfRange => ("out_of_range", 400),
        Code::Unimplemented => ("unimplemented", 501),
        Code::Internal => ("internal", 500),
        Code::Unavailable => ("unavailable", 503),
        Code::DataLoss => ("data_loss", 500),
        Code::Unauthenticated => ("unauthenticated", 401),
    }
}

/// Writes an error as Connect's JSON: code, message, and each detail in base64 and, where its schema is known, readable.
pub(crate) fn error_json(schemas: &DescriptorPool, status: &Status) -> Value {
    let (code, _) = name_of(status.code());
    let mut error = json!({ "code": code });
    let Some(fields) = error.as_object_mut() else { return error };
    if !status.message().is_empty() {
        fields.insert("message".to_owned(), status.message().into());
    }
    let envelope = google::rpc::Status::decode(status.details()).unwrap_or_default();
    if !envelope.details.is_empty() {
        let details = envelope.details.iter().map(|detail| detail_json(schemas, detail)).collect();
        fields.insert("details".to_owned(), Value::Array(details));
    }
    error
}

fn detail_json(schemas: &DescriptorPool, detail: &prost_types::Any) -> Value {
    let name = detail.type_url.rsplit('/').next().unwrap_or_default();
    let mut written = json!({ "type": name, "value": BASE64_NOPAD.encode(&detail.value) });
    let readable = schemas
        .get_message_by_name(name)
        .and_then(|message| from_proto(Encoding::Json, &message, Bytes::copy_from_slice(&detail.value)).ok())
        .and_then(|json| serde_json::from_slice(&json).ok());
    if let (Some(fields), Some(readable)) = (written.as_object_mut(), readable) {
        fields.insert("debug".to_owned(), readable);
    }
    written
}

/// Answers with `status` in `protocol`.
pub(crate) fn response(schemas: &DescriptorPool, protocol: Protocol, status: &Status) -> Response {
    match protocol {
        Protocol::Grpc => status.clone().into_http(),
        Protocol::GrpcWeb => {
            let mut response: Response = status.clone().into_http();
            let content_type = HeaderValue::from_static("application/grpc-web+proto");
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            response
        }
        // A stream that ends before its first message is a stream: the error is its end.
        Protocol::Stream(encoding) => {
            let end = stream::end_json(schemas, Some(status), &http::HeaderMap::new());
            let mut response = Response::new(Body::from(frame::write_frame(frame::END_STREAM, &end)));
            response.headers_mut().insert(header::CONTENT_TYPE, stream::content_type(encoding));
            response
        }
        Protocol::Unary(_) | Protocol::Get | Protocol::Unknown => unary(schemas, status),
    }
}

/// Answers a unary request of Connect with `status`.
pub(crate) fn unary(schemas: &DescriptorPool, status: &Status) -> Response {
    let (_, http_status) = name_of(status.code());
    let mut response = Response::new(Body::from(error_json(schemas, status).to_string()));
    *response.status_mut() = StatusCode::from_u16(http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Answers a request whose body is of no kind that its RPC takes.
pub(crate) fn unsupported_media_type(accept: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response.headers_mut().insert("accept-post", HeaderValue::from_static(accept));
    response
}

/// Answers a request by a method of HTTP by which its RPC cannot be called.
pub(crate) fn method_not_allowed(allow: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

#[cfg(test)]
mod tests {
    use fleetd_proto::fleetd::common::v1::Error;

    use super::super::schemas;
    use super::*;
    use crate::rpc::status::status;

    #[test]
    fn an_error_shows_its_detail_readably() {
        let error = Error {
            code: "rollout.plan.stale".to_owned(),
            message: "the plan is stale".to_owned(),
            next_command: "fleetd rollout plan".to_owned(),
            ..Error::default()
        };
        let json = error_json(&schemas().unwrap(), &status(Code::FailedPrecondition, &error));
        assert_eq!(json["code"], "failed_precondition");
        assert_eq!(json["message"], "the plan is stale");
        assert_eq!(json["details"][0]["type"], "fleetd.common.v1.Error");
        assert_eq!(json["details"][0]["debug"]["code"], "rollout.plan.stale");
        assert_eq!(json["details"][0]["debug"]["nextCommand"], "fleetd rollout plan");
        let value = json["details"][0]["value"].as_str().unwrap();
        assert_eq!(Error::decode(BASE64_NOPAD.decode(value.as_bytes()).unwrap().as_slice()).unwrap(), error);
    }

    #[test]
    fn a_detail_of_an_unknown_kind_is_passed_on() {
        let detail = prost_types::Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: vec![1] };
        let json = detail_json(&schemas().unwrap(), &detail);
        assert_eq!(json, json!({ "type": "x.Y", "value": "AQ" }));
    }
}
