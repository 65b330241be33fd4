//! What a client of the API can make this process hold. The numbers, with their reasons, are [`limit`]'s.

use std::time::Duration;

use fleetd_sync_core::limit;

use super::rate::Rate;

/// Pause after a connection could not be accepted: long enough to let others close, short enough to go unnoticed.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The limits of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more waits in the kernel's queue.
    pub connections_max: usize,
    /// Connections for which no credential was shown yet.
    pub strangers_max: usize,
    /// The same, of one source address.
    pub strangers_each_max: usize,
    /// Calls of one credential.
    pub calls: Rate,
    /// Calls of one source address that had no credential that counts.
    pub failures: Rate,
    /// Calls of one source address that need no credential.
    pub open_calls: Rate,
    /// Requests at once on one connection of HTTP/2.
    pub connection_requests_max: u32,
    /// Bytes of a request's headers, its path and query included.
    pub header_bytes_max: usize,
    /// Bytes of one message of a Connect request, in its own encoding.
    pub message_bytes_max: usize,
    /// Bytes of a whole request that needs no credential.
    pub open_body_bytes_max: usize,
    /// Bytes of bodies that may be under way on one connection of HTTP/2, and on one of its streams.
    pub window_bytes: u32,
    /// Time for the TLS handshake, and then for the first request.
    pub handshake_timeout: Duration,
    /// Time in which the headers of a request on HTTP/1.1 must have come, the pause before it included.
    pub header_timeout: Duration,
    /// Silence after which a connection of HTTP/2 is asked whether it lives.
    pub keep_alive_interval: Duration,
    /// Time in which it must answer.
    pub keep_alive_timeout: Duration,
    /// How often the credential of a call that still goes on is looked at again.
    pub credential_interval: Duration,
    /// Time that open requests have to finish when the server stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: limit::API_CONNECTIONS_MAX,
            strangers_max: limit::API_STRANGERS_MAX,
            strangers_each_max: limit::API_STRANGERS_EACH_MAX,
            calls: Rate { per_second: limit::API_CALLS_PER_SECOND, burst: limit::API_CALLS_BURST },
            failures: Rate { per_second: limit::API_FAILURES_PER_SECOND, burst: limit::API_FAILURES_BURST },
            open_calls: Rate { per_second: limit::API_OPEN_PER_SECOND, burst: limit::API_OPEN_BURST },
            connection_requests_max: limit::API_CONNECTION_REQUESTS_MAX,
            header_bytes_max: limit::API_HEADER_BYTES_MAX,
            message_bytes_max: limit::API_MESSAGE_BYTES_MAX,
            open_body_bytes_max: limit::API_OPEN_BODY_BYTES_MAX,
            window_bytes: limit::API_WINDOW_BYTES,
            handshake_timeout: limit::API_HANDSHAKE_TIMEOUT,
            header_timeout: limit::API_HEADER_TIMEOUT,
            keep_alive_interval: limit::API_KEEP_ALIVE,
            keep_alive_timeout: limit::API_KEEP_ALIVE,
            credential_interval: limit::API_CREDENTIAL_INTERVAL,
            drain_timeout: limit::API_DRAIN_TIMEOUT,
        }
    }
}
