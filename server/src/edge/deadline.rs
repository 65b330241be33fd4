//! How long a caller will wait, as it says itself. Nobody works for a caller who has gone.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

/// Digits of a timeout of gRPC.
///
/// # Source
/// gRPC over HTTP/2, "Timeout": at most 8 digits and a unit.
const GRPC_DIGITS_MAX: usize = 8;

/// Digits of a timeout of Connect.
///
/// # Source
/// Connect protocol, "Connect-Timeout-Ms": at most 10 digits.
const CONNECT_DIGITS_MAX: usize = 10;

/// Why a header names no deadline.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{header} is {value:?}, which is no time")]
pub(crate) struct ReadDeadlineError {
    header: &'static str,
    value: String,
}

/// Reads the deadline off a request's headers; a caller without one waits as long as it likes.
///
/// # Errors
/// [`ReadDeadlineError`] when it has one that is none.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Duration>, ReadDeadlineError> {
    for (header, read) in
        [("connect-timeout-ms", of_connect as fn(&str) -> Option<Duration>), ("grpc-timeout", of_grpc)]
    {
        if let Some(value) = headers.get(header) {
            let error = || ReadDeadlineError { header, value: String::from_utf8_lossy(value.as_bytes()).into_owned() };
            return value.to_str().ok().and_then(read).map(Some).ok_or_else(error);
        }
    }
    Ok(None)
}

/// Reads a timeout of Connect: milliseconds.
fn of_connect(text: &str) -> Option<Duration> {
    digits(text, CONNECT_DIGITS_MAX).map(Duration::from_millis)
}

/// The time for which a caller waits. A request carries it to where its answer is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub(crate) Duration);

/// What a caller is told whose deadline has passed.
pub(crate) fn passed() -> Status {
    Status::deadline_exceeded("the deadline has passed")
}

/// Reads a timeout of gRPC: digits and one of `HMSmun`.
fn of_grpc(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number = digits(text.strip_suffix(unit)?, GRPC_DIGITS_MAX)?;
    Some(match unit {
        'H' => Duration::from_secs(number.checked_mul(3600)?),
        'M' => Duration::from_secs(number.checked_mul(60)?),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

fn digits(text: &str, digits_max: usize) -> Option<u64> {
    let is_number = !text.is_empty() && text.len() <= digits_max && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[track_caller]
    fn check(name: &'static str, value: &'static str, deadline: Option<Duration>) {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        assert_eq!(of(&headers).ok().flatten(), deadline, "{name}: {value}");
        if deadline.is_none() && name != "accept" {
            let error = of(&headers).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }

    #[test]
    fn both_protocols_name_their_deadline() {
        check("connect-timeout-ms", "1500", Some(Duration::from_millis(1500)));
        check("grpc-timeout", "2H", Some(Duration::from_secs(7200)));
        check("grpc-timeout", "3M", Some(Duration::from_secs(180)));
        check("grpc-timeout", "4S", Some(Duration::from_secs(4)));
        check("grpc-timeout", "99999999m", Some(Duration::from_millis(99_999_999)));
        check("grpc-timeout", "6u", Some(Duration::from_micros(6)));
        check("grpc-timeout", "7n", Some(Duration::from_nanos(7)));
    }

    #[test]
    fn what_is_no_deadline_is_refused() {
        check("connect-timeout-ms", "12345678901", None);
        check("connect-timeout-ms", "-1", None);
        check("grpc-timeout", "123456789m", None);
        check("grpc-timeout", "5", None);
        check("grpc-timeout", "5x", None);
        check("grpc-timeout", "ä", None);
        check("grpc-timeout", "", None);
        check("accept", "5S", None);
    }
}
