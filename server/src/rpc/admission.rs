//! What a caller is told who is not let in.

use fleetd_proto::fleetd::common::v1::Error;
use tonic::{Code, Status};

use super::status::{status, with_retry};
use crate::edge::authenticate::{AdmitError, AuthenticateError};
use crate::edge::rate::RateError;

/// What a caller is told whose role is too low.
pub(super) const ROLE_TOO_LOW: &str = "access.role.too_low";

/// Makes the status that refuses a request.
#[must_use]
pub fn admission_status(error: &AdmitError) -> Status {
    let (grpc_code, code, details, next_command) = match error {
        AdmitError::Missing => (Code::Unauthenticated, "access.token.missing", String::new(), "fleetd login URL"),
        AdmitError::Refused(cause) => {
            let (grpc_code, code) = match cause {
                AuthenticateError::Unknown => (Code::Unauthenticated, "access.token.unknown"),
                AuthenticateError::Expired { .. } => (Code::Unauthenticated, "access.token.expired"),
                AuthenticateError::Revoked { .. } => (Code::Unauthenticated, "access.token.revoked"),
                AuthenticateError::Unavailable => (Code::Unavailable, "access.unavailable"),
            };
            (grpc_code, code, cause.to_string(), "fleetd login URL")
        }
        AdmitError::Forbidden { .. } => (Code::PermissionDenied, ROLE_TOO_LOW, String::new(), "fleetd whoami"),
        AdmitError::NotServed { .. } => (Code::Unimplemented, "rpc.not_served", String::new(), ""),
    };
    let error = Error {
        code: code.to_owned(),
        message: error.to_string(),
        details,
        next_command: next_command.to_owned(),
        ..Error::default()
    };
    status(grpc_code, &error)
}

/// Makes the status that asks a caller to come again later.
#[must_use]
pub fn rate_status(error: &RateError) -> Status {
    let code = match error {
        RateError::Credential { .. } => "rate.credential",
        RateError::Failures { .. } => "rate.failures",
        RateError::Open { .. } => "rate.open",
    };
    let details = match error {
        RateError::Credential { rate, .. } => format!("{} at once are let through", rate.burst),
        RateError::Failures { .. } | RateError::Open { .. } => String::new(),
    };
    let words = Error { code: code.to_owned(), message: error.to_string(), details, ..Error::default() };
    with_retry(Code::ResourceExhausted, &words, error.wait())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::status::error_of;

    #[test]
    fn a_refusal_says_why_and_what_to_do() {
        let status = admission_status(&AdmitError::Refused(AuthenticateError::Unknown));
        assert_eq!(status.code(), Code::Unauthenticated);
        let error = error_of(&status).unwrap();
        assert_eq!(error.code, "access.token.unknown");
        assert_eq!(error.details, "the access token is not one of this server's");
        assert_eq!(error.next_command, "fleetd login URL");
    }
}
