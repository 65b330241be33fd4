//! How an error becomes a status: its code for programs, and one `fleetd.common.v1.Error` as its detail for people.

use fleetd_proto::fleetd::common::v1::Error;
use fleetd_proto::google;
use prost::Message as _;
use tonic::{Code, Status};

/// Makes the status that ends an RPC with `error`, whose message is the status's own.
#[must_use]
pub fn status(code: Code, error: &Error) -> Status {
    let details = prost_types::Any::from_msg(error).into_iter().collect();
    let envelope = google::rpc::Status { code: i32::from(code), message: error.message.clone(), details };
    Status::with_details(code, error.message.clone(), envelope.encode_to_vec().into())
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
}
