//! Calling again after as long as the server asks for, when it was called too often.

use std::time::Duration;

use fleetd_proto::google::rpc;
use prost::Message as _;
use tonic::{Code, Status};

use super::CallError;

/// The longest wait that is waited without asking anybody.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Waits in one call: with as many, somebody else uses the same credential, and should be told.
const WAITS_MAX: u32 = 10;
/// What a status names the detail that says when to ask again.
const RETRY_INFO: &str = "/google.rpc.RetryInfo";

/// How often one call was put off.
#[derive(Debug, Default)]
pub(super) struct Patience {
    waits: u32,
}

impl Patience {
    /// Waits as long as the server asks for. What it puts off it has not begun, so that asking again is safe.
    pub(super) async fn wait_after(&mut self, status: Status) -> Result<(), CallError> {
        let wait = asked_for(&status).filter(|wait| *wait <= WAIT_MAX && self.waits < WAITS_MAX);
        let Some(wait) = wait else { return Err(status.into()) };
        self.waits += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// The wait that a status asks for.
fn asked_for(status: &Status) -> Option<Duration> {
    if status.code() != Code::ResourceExhausted {
        return None;
    }
    let envelope = rpc::Status::decode(status.details()).ok()?;
    let detail = envelope.details.iter().find(|detail| detail.type_url.ends_with(RETRY_INFO))?;
    let delay = rpc::RetryInfo::decode(detail.value.as_slice()).ok()?.retry_delay?;
    Duration::try_from(delay).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_off(code: Code, delay: Option<Duration>) -> Status {
        let info = rpc::RetryInfo { retry_delay: delay.and_then(|delay| delay.try_into().ok()) };
        let type_url = format!("type.googleapis.com{RETRY_INFO}");
        let details = vec![prost_types::Any { type_url, value: info.encode_to_vec() }];
        let envelope = rpc::Status { code: code.into(), message: "slow down".to_owned(), details };
        Status::with_details(code, "slow down", envelope.encode_to_vec().into())
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_as_long_as_it_is_asked_to_and_not_for_ever() {
        let (mut patience, start) = (Patience::default(), tokio::time::Instant::now());
        let status = || put_off(Code::ResourceExhausted, Some(Duration::from_secs(2)));
        for _ in 0..WAITS_MAX {
            patience.wait_after(status()).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::from_secs(20));
        assert!(patience.wait_after(status()).await.is_err());
        for (code, delay) in [
            (Code::ResourceExhausted, Some(Duration::from_secs(31))),
            (Code::ResourceExhausted, None),
            (Code::Unavailable, Some(Duration::from_secs(1))),
        ] {
            assert!(Patience::default().wait_after(put_off(code, delay)).await.is_err(), "{code:?} {delay:?}");
        }
    }
}
