//! What a client of the API can make this process hold, with the reason for each number.

use std::time::Duration;

/// Pause after a connection could not be accepted: long enough to let others close, short enough to go unnoticed.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The limits of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more waits in the kernel's queue.
    pub connections_max: usize,
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
    /// Time that open requests have to finish when the server stops.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Operators, pipelines and consoles call the API; devices sync over QUIC. With full windows: 256 MiB.
            connections_max: 1024,
            connection_requests_max: 128,
            // A GET of Connect has its message in the path: 16 KiB hold any read, and a token.
            header_bytes_max: 16 << 10,
            // An upload's chunk of 1 MiB is 1.4 MiB in JSON; gRPC's usual limit leaves room.
            message_bytes_max: 4 << 20,
            // A registration is a token, a certificate request and facts: 8 KiB.
            open_body_bytes_max: 64 << 10,
            // Keeps an upload at 5 MB/s over 50 ms.
            window_bytes: 256 << 10,
            // Slow links shake hands in 2 s.
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            // Routers forget silent connections after 30 s at the earliest.
            keep_alive_interval: Duration::from_secs(20),
            keep_alive_timeout: Duration::from_secs(20),
            // An exchange takes well under a second; what lasts longer is a watch, which the client opens again.
            drain_timeout: Duration::from_secs(2),
        }
    }
}
