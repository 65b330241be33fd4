//! Streams that go on across lost connections, from the last token that was received.

use std::future::Future;
use std::time::Duration;

use fleetd_proto::fleetd::{audit, device, log, rollout};

use super::{CallError, FleetClient};

/// The first wait before a stream is opened again; it doubles with each failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// Failures in a row after which a stream is given up: about four minutes of them.
const FAILURES_MAX: u32 = 12;
/// No wait is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A request whose answer is a stream that can be continued.
pub trait Resumable: Clone + Send {
    /// One entry of the stream.
    type Entry: Send;

    /// Opens the stream.
    fn open(
        self,
        client: &FleetClient,
    ) -> impl Future<Output = Result<tonic::Streaming<Self::Entry>, CallError>> + Send;

    /// The token that continues behind `entry`.
    fn token_of(entry: &Self::Entry) -> &str;

    /// Asks to continue there.
    fn resume_at(&mut self, token: String);

    /// Whether an end without an error is the end, and not a server that is being stopped.
    fn ends(&self) -> bool;
}

macro_rules! resumable {
    ($request:ty, $entry:ty, $method:ident, |$this:ident| $ends:expr) => {
        impl Resumable for $request {
            type Entry = $entry;

            fn open(
                self,
                client: &FleetClient,
            ) -> impl Future<Output = Result<tonic::Streaming<$entry>, CallError>> + Send {
                client.$method(self)
            }

            fn token_of(entry: &$entry) -> &str {
                &entry.resume_token
            }

            fn resume_at(&mut self, token: String) {
                self.resume_token = token;
            }

            fn ends(&self) -> bool {
                let $this = self;
                $ends
            }
        }
    };
}

resumable!(audit::v1::WatchAuditEntriesRequest, audit::v1::WatchAuditEntriesResponse, watch_audit_entries, |_r| false);
resumable!(device::v1::WatchDevicesRequest, device::v1::WatchDevicesResponse, watch_devices, |_request| false);
resumable!(rollout::v1::WatchRolloutRequest, rollout::v1::WatchRolloutResponse, watch_rollout, |_request| true);
resumable!(log::v1::ReadLogsRequest, log::v1::ReadLogsResponse, read_logs, |request| !request.follow);

/// What a stream tells.
#[derive(Debug)]
pub enum Told<T> {
    /// An entry.
    Entry(T),
    /// The connection was lost, and a new one is about to be tried.
    Lost(CallError),
    /// There is nothing more.
    End,
}

/// A stream that goes on across lost connections.
pub struct Watch<'a, R: Resumable> {
    client: &'a FleetClient,
    request: R,
    stream: Option<tonic::Streaming<R::Entry>>,
    failures: u32,
}

impl<R: Resumable> std::fmt::Debug for Watch<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({} failures)", self.failures)
    }
}

impl FleetClient {
    /// Follows a stream.
    pub fn follow<R: Resumable>(&self, request: R) -> Watch<'_, R> {
        Watch { client: self, request, stream: None, failures: 0 }
    }
}

impl<R: Resumable> Watch<'_, R> {
    /// Waits for what comes next. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// [`CallError`] when the server refuses, or cannot be reached again for minutes.
    pub async fn next(&mut self) -> Result<Told<R::Entry>, CallError> {
        let result = match &mut self.stream {
            Some(stream) => stream.message().await.map_err(CallError::from),
            None => {
                if self.failures > 0 {
                    let doublings = self.failures.saturating_sub(1).min(8);
                    tokio::time::sleep((BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX)).await;
                }
                match self.request.clone().open(self.client).await {
                    Ok(stream) => self.stream.insert(stream).message().await.map_err(CallError::from),
                    Err(error) => Err(error),
                }
            }
        };
        match result {
            Ok(Some(entry)) => {
                self.failures = 0;
                let token = R::token_of(&entry);
                if !token.is_empty() {
                    self.request.resume_at(token.to_owned());
                }
                Ok(Told::Entry(entry))
            }
            Ok(None) if self.request.ends() => Ok(Told::End),
            Ok(None) => self.lost(CallError::Lost { reason: "the server ended the stream".to_owned() }),
            Err(error) if error.is_lost_connection() => self.lost(error),
            Err(error) => Err(error),
        }
    }

    fn lost(&mut self, error: CallError) -> Result<Told<R::Entry>, CallError> {
        self.stream = None;
        self.failures += 1;
        if self.failures > FAILURES_MAX { Err(error) } else { Ok(Told::Lost(error)) }
    }
}
