//! Word to a service manager that asked for it (sd_notify).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that the agent is up.
pub(super) fn ready() {
    say("READY=1");
}

/// Says that the agent ends.
pub(super) fn stopping() {
    say("STOPPING=1");
}

/// Sends one line to the socket that `NOTIFY_SOCKET` names.
///
/// # Source
/// `sd_notify(3)`: a datagram; a name that starts with `@` is an abstract socket's.
fn say(line: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.to_str().and_then(|name| name.strip_prefix('@')) {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(line.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, line, "the service manager was not told");
    }
}
