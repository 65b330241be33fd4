//! What a workload says of itself by sd_notify.
//!
//! # Source
//! sd_notify(3): a datagram of `NAME=value` lines on the socket that `NOTIFY_SOCKET` names.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use tokio::net::UnixDatagram;

use super::remove_socket;
use crate::shim::execute::find_user;
use crate::shim::protocol::{STATUS_TEXT_BYTES_MAX, ShimState};

/// Bytes of one message that are looked at.
pub(super) const MESSAGE_BYTES_MAX: usize = 4096;

/// Binds the socket, and lets the workload's user write to it.
pub(super) fn bind(path: &Path, user: Option<&str>) -> io::Result<UnixDatagram> {
    remove_socket(path);
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    // A user that does not exist fails the start a moment later, in the second stage, which says so.
    if let Some((uid, gid)) = user.and_then(find_user)
        && uid != nix::unistd::geteuid().as_raw()
    {
        chown(path, Some(uid), Some(gid)).or_else(ignore_permission)?;
    }
    Ok(socket)
}

/// Without root the second stage will say what is wrong.
fn ignore_permission(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::PermissionDenied { Ok(()) } else { Err(error) }
}

/// Takes one message into the state; says whether that changed anything.
pub(crate) fn take(message: &[u8], state: &mut ShimState) -> bool {
    let before = state.clone();
    for line in String::from_utf8_lossy(message).lines() {
        match line.split_once('=') {
            Some(("READY", "1")) => state.ready = true,
            Some(("WATCHDOG", "1")) => state.watchdog_kicks += 1,
            Some(("STATUS", text)) => state.status_text = Some(shorten(text)),
            _ => {}
        }
    }
    *state != before
}

fn shorten(text: &str) -> String {
    let mut text = text.to_owned();
    text.truncate(text.floor_char_boundary(STATUS_TEXT_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_say_several_things_and_unknown_ones() {
        let mut state = ShimState::default();
        assert!(take(b"READY=1\nSTATUS=brewing\nMAINPID=1\nWATCHDOG=1", &mut state));
        assert_eq!((state.ready, state.status_text.as_deref(), state.watchdog_kicks), (true, Some("brewing"), 1));
        assert!(!take(b"READY=1\nnonsense\n\xff", &mut state));
        assert!(!take(b"READY=0", &mut state), "ready is for good");
    }

    #[test]
    fn a_long_status_is_cut_between_characters() {
        let mut state = ShimState::default();
        take(format!("STATUS={}", "ä".repeat(STATUS_TEXT_BYTES_MAX)).as_bytes(), &mut state);
        let kept = state.status_text.unwrap();
        assert!(kept.len() <= STATUS_TEXT_BYTES_MAX && kept.chars().all(|character| character == 'ä'));
    }
}
