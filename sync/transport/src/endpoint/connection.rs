//! One connection: its outbox, its credits, and the one task that it has at rest.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::limit;
use fleetd_sync_core::session::{Class, CloseCode};
use quinn::{ConnectionError, VarInt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ground::{Ground, within};
use super::lock;
use super::outbox::{Outbox, write_class};
use super::reader::FrameReader;
use crate::link::{DownReason, LinkEvent, LinkEvents, SendError};

/// One connection that was joined.
pub(super) struct Connection {
    id: ConnectionId,
    pub(super) quinn: quinn::Connection,
    credits: Semaphore,
    pub(super) outbox: Mutex<Outbox>,
    /// The classes that the peer has opened a stream of, a bit each.
    opened: AtomicU8,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, quinn: quinn::Connection) -> Self {
        let credits = Semaphore::new(limit::CONNECTION_CREDITS);
        Self { id, quinn, credits, outbox: Mutex::default(), opened: AtomicU8::new(0) }
    }

    /// Puts a frame into the outbox, and starts a writer for its class where none runs.
    pub(super) fn send(self: &Arc<Self>, ground: &dyn Ground, class: Class, frame: Bytes) -> Result<(), SendError> {
        let mut outbox = lock(&self.outbox);
        if outbox.closing.is_some() {
            return Err(SendError::Unknown { connection: self.id });
        }
        let (frames, bytes) = (outbox.frames + 1, outbox.bytes + frame.len());
        if frames > limit::OUTBOX_FRAMES_MAX || bytes > limit::OUTBOX_BYTES_MAX {
            outbox.closing = Some(CloseCode::Overflow);
            drop(outbox);
            self.close_now(CloseCode::Overflow);
            return Err(SendError::Overflow { connection: self.id, frames, bytes });
        }
        if outbox.push(class, frame) {
            ground.start(Box::pin(write_class(Arc::clone(self), class)));
        }
        Ok(())
    }

    /// Closes the connection. Where nothing is wrong, what is in the outbox goes first, for a short while.
    pub(super) fn close(self: &Arc<Self>, ground: &Arc<dyn Ground>, code: CloseCode) {
        let pending = {
            let mut outbox = lock(&self.outbox);
            if outbox.closing.is_some() {
                return;
            }
            outbox.closing = Some(code);
            !outbox.is_unused()
        };
        if pending && is_polite(code) {
            let (connection, timers) = (Arc::clone(self), Arc::clone(ground));
            ground.start(Box::pin(async move {
                let flushed = Outbox::flush(&connection);
                let _ = within(&*timers, limit::DRAIN_TIMEOUT / 3, flushed).await;
                connection.close_now(code);
            }));
        } else {
            self.close_now(code);
        }
    }

    /// Ends a connection that nobody was told of.
    pub(super) fn abandon(&self) {
        self.close_now(CloseCode::Done);
    }

    pub(super) fn grant(&self, credits: usize) {
        self.credits.add_permits(credits.min(limit::CONNECTION_CREDITS));
    }

    #[cfg(test)]
    pub(super) fn credits(&self) -> usize {
        self.credits.available_permits()
    }

    fn close_now(&self, code: CloseCode) {
        self.quinn.close(wire_code(code), b"");
    }

    /// Reads until the connection is gone, and says why it is.
    pub(super) async fn run(self: &Arc<Self>, ground: &dyn Ground, events: &LinkEvents) -> DownReason {
        let mut readers = JoinSet::new();
        let error = loop {
            tokio::select! {
                biased;
                Some(ended) = readers.join_next(), if !readers.is_empty() => {
                    if let Ok(Err(code)) = ended {
                        self.fail(code);
                    }
                }
                accepted = self.quinn.accept_uni() => match accepted {
                    Ok(stream) => {
                        readers.spawn(Arc::clone(self).read(stream, Arc::clone(events)));
                    }
                    Err(error) => break error,
                },
            }
        };
        let closing = lock(&self.outbox).closing;
        let reason = down_reason(error, closing);
        if matches!(reason, DownReason::ClosedByPeer { code } if is_polite(code)) {
            // What was said before the end still counts, unless nobody takes it.
            let rest = async { while readers.join_next().await.is_some() {} };
            let _ = within(ground, limit::DRAIN_TIMEOUT, rest).await;
        }
        readers.shutdown().await;
        reason
    }

    /// Closes because of what the peer did.
    fn fail(&self, code: CloseCode) {
        tracing::debug!(connection = %self.id, %code, "a peer broke the rules of frames");
        lock(&self.outbox).closing.get_or_insert(code);
        self.close_now(code);
    }

    async fn read(self: Arc<Self>, mut stream: quinn::RecvStream, events: LinkEvents) -> Result<(), CloseCode> {
        let mut frames = FrameReader::new();
        let Some(number) = frames.byte(&mut stream).await else { return Ok(()) };
        let Some(class) = Class::from_number(number) else {
            // A class of a later version: whatever it carries is not for this one.
            let _ = stream.stop(VarInt::from_u32(0));
            return Ok(());
        };
        if self.opened.fetch_or(1 << number, Ordering::Relaxed) & (1 << number) != 0 {
            return Err(CloseCode::Unexpected);
        }
        loop {
            let Some(length) = frames.length(&mut stream).await? else { return Ok(()) };
            // The credit comes first: what is not wanted yet is not collected either.
            let Ok(credit) = self.credits.acquire().await else { return Ok(()) };
            let Some(bytes) = frames.body(&mut stream, length).await else { return Ok(()) };
            credit.forget();
            events(self.id, LinkEvent::Frame { class, bytes });
        }
    }
}

/// Says whether a close leaves time for what was said before it.
const fn is_polite(code: CloseCode) -> bool {
    matches!(code, CloseCode::Done | CloseCode::Redial | CloseCode::Busy | CloseCode::Replaced)
}

pub(super) fn wire_code(code: CloseCode) -> VarInt {
    VarInt::from_u32(code.number())
}

/// Why a connection is gone, in the words of the seam. `closing` is what this end said, if it closed.
pub(super) fn down_reason(error: ConnectionError, closing: Option<CloseCode>) -> DownReason {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            DownReason::ClosedByPeer { code: CloseCode::from_number(code) }
        }
        ConnectionError::LocallyClosed => DownReason::ClosedHere { code: closing.unwrap_or(CloseCode::Done) },
        ConnectionError::TimedOut => DownReason::TimedOut,
        error => DownReason::Failed { cause: error.to_string() },
    }
}
