//! How an error becomes a status: its code for programs, and one `fleetd.common.v1.Error` as its detail for people.

use std::time::Duration;

use fleetd_proto::fleetd::common::v1::Error;
use fleetd_proto::google;
use prost::Message as _;
use tonic::{Code, Status};

/// Longest text of an error. It may quote what a caller sent, and it travels in headers: the message three times, once
/// with three bytes for one. A client takes 16 KiB of headers in all, and sees a broken connection above that.
const TEXT_BYTES_MAX: usize = 1 << 10;

/// What a status names the detail that says when to ask again.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Makes the status that ends an RPC with `error`, whose message is the status's own. Texts that are too long are cut.
#[must_use]
pub fn status(code: Code, error: &Error) -> Status {
    with_details(code, error, None)
}

/// The same, and when to ask again.
#[must_use]
pub fn with_retry(code: Code, error: &Error, wait: Duration) -> Status {
    let retry_delay = prost_types::Duration::try_from(wait).ok();
    let retry = google::rpc::RetryInfo { retry_delay };
    // It has no name of its own in Rust: the generator gives names to what is ours.
    let retry = prost_types::Any { type_url: RETRY_INFO.to_owned(), value: retry.encode_to_vec() };
    with_details(code, error, Some(retry))
}

fn with_details(code: Code, error: &Error, more: Option<prost_types::Any>) -> Status {
    let mut error = error.clone();
    for text in [&mut error.message, &mut error.details, &mut error.next_command, &mut error.help_url] {
        shorten(text);
    }
    let details = prost_types::Any::from_msg(&error).into_iter().chain(more).collect();
    let envelope = google::rpc::Status { code: i32::from(code), message: error.message.clone(), details };
    Status::with_details(code, error.message.clone(), envelope.encode_to_vec().into())
}

fn shorten(text: &mut String) {
    const CUT: &str = "…";
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX - CUT.len()));
        text.push_str(CUT);
    }
}

/// Reads the `fleetd.common.v1.Error` that a status carries.
#[must_use]
pub fn error_of(status: &Status) -> Option<Error> {
    let envelope = google::rpc::Status::decode(status.details()).ok()?;
    envelope.details.iter().find_map(|detail| detail.to_msg().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_its_error() {
        let error = Error {
            code: "rollout.plan.stale".to_owned(),
            message: "the plan is stale".to_owned(),
            next_command: "fleetd rollout plan".to_owned(),
            ..Error::default()
        };
        let status = status(Code::FailedPrecondition, &error);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "the plan is stale");
        assert_eq!(error_of(&status), Some(error));
        assert_eq!(error_of(&Status::internal("bare")), None);
    }

    #[test]
    fn whatever_an_error_quotes_it_fits_into_a_clients_headers() {
        let long = "naïve".repeat(5000);
        let error = Error {
            code: "device.unknown".to_owned(),
            message: long.clone(),
            details: long.clone(),
            next_command: long.clone(),
            help_url: long.clone(),
        };
        let status = status(Code::NotFound, &error);
        // As the headers have them: percent-encoded, and in base 64.
        let header_bytes = status.message().len() * 3 + status.details().len() * 4 / 3;
        assert!(header_bytes < 15 << 10, "{header_bytes}");
        let carried = error_of(&status).unwrap();
        assert_eq!((carried.code.as_str(), carried.message.as_str()), ("device.unknown", status.message()));
        assert!(long.starts_with(carried.message.trim_end_matches('…')) && carried.message.len() > 1000);
    }
}
