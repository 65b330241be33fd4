//! What waits to be sent on one connection: a queue for each class, and a writer for each that is not empty.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use fleetd_sync_core::session::{Class, CloseCode};
use quinn::SendStream;
use tokio::sync::oneshot;

use super::connection::Connection;
use super::lock;

/// Bytes that one write hands to QUIC, so that a better class need not wait long.
const WRITE_BYTES: usize = 16 << 10;

/// What waits to be sent on one connection.
#[derive(Default)]
pub(super) struct Outbox {
    queues: [Queue; Class::ALL.len()],
    pub(super) frames: usize,
    pub(super) bytes: usize,
    /// What the connection closes with, once it closes: nothing more goes in.
    pub(super) closing: Option<CloseCode>,
    /// Told when the last writer ends.
    emptied: Option<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    /// A writer is at work, and has the stream.
    writing: bool,
    stream: Option<Box<SendStream>>,
}

impl Outbox {
    /// Takes a frame, and says whether a writer must be started for its class.
    pub(super) fn push(&mut self, class: Class, frame: Bytes) -> bool {
        self.frames += 1;
        self.bytes += frame.len();
        let queue = self.queue(class);
        queue.frames.push_back(frame);
        !std::mem::replace(&mut queue.writing, true)
    }

    /// Says whether no stream was ever opened: there is nothing to wait for.
    pub(super) fn is_unused(&self) -> bool {
        self.queues.iter().all(|queue| !queue.writing && queue.stream.is_none())
    }

    /// Waits until the peer has all that was put in.
    pub(super) async fn flush(connection: &Arc<Connection>) {
        let emptied = {
            let mut outbox = lock(&connection.outbox);
            if outbox.queues.iter().any(|queue| queue.writing) {
                let (sender, receiver) = oneshot::channel();
                outbox.emptied = Some(sender);
                Some(receiver)
            } else {
                None
            }
        };
        if let Some(emptied) = emptied {
            let _ = emptied.await;
        }
        let streams: Vec<_> =
            lock(&connection.outbox).queues.iter_mut().filter_map(|queue| queue.stream.take()).collect();
        for mut stream in streams {
            if stream.finish().is_ok() {
                let _ = stream.stopped().await;
            }
        }
    }

    fn queue(&mut self, class: Class) -> &mut Queue {
        let [control, trust, desired, actual, logs, artifacts] = &mut self.queues;
        match class {
            Class::Control => control,
            Class::Trust => trust,
            Class::Desired => desired,
            Class::Actual => actual,
            Class::Logs => logs,
            Class::Artifacts => artifacts,
        }
    }

    /// Takes the next frames of a class, written out, or gives the stream back when there are none.
    fn take(&mut self, class: Class, stream: &mut Option<Box<SendStream>>) -> Option<(Bytes, usize, usize)> {
        let queue = self.queue(class);
        if queue.frames.is_empty() {
            queue.writing = false;
            queue.stream = stream.take();
            if self.queues.iter().all(|queue| !queue.writing)
                && let Some(emptied) = self.emptied.take()
            {
                let _ = emptied.send(());
            }
            return None;
        }
        let mut written = BytesMut::new();
        let (mut frames, mut bytes) = (0, 0);
        while let Some(frame) = queue.frames.front() {
            if frames > 0 && written.len() + frame.len() > WRITE_BYTES {
                break;
            }
            put_length(&mut written, frame.len());
            written.extend_from_slice(frame);
            (frames, bytes) = (frames + 1, bytes + frame.len());
            queue.frames.pop_front();
        }
        Some((written.freeze(), frames, bytes))
    }
}

/// Writes what waits of one class until nothing does. A failure means that the connection is gone, which its reader
/// sees too.
pub(super) async fn write_class(connection: Arc<Connection>, class: Class) {
    let mut stream = lock(&connection.outbox).queue(class).stream.take();
    loop {
        let taken = lock(&connection.outbox).take(class, &mut stream);
        let Some((written, frames, bytes)) = taken else { return };
        if stream.is_none() {
            let Ok(mut opened) = connection.quinn.open_uni().await else { return };
            let _ = opened.set_priority(-i32::from(class.number()));
            if opened.write_all(&[class.number()]).await.is_err() {
                return;
            }
            stream = Some(Box::new(opened));
        }
        let Some(open) = &mut stream else { return };
        if open.write_chunk(written).await.is_err() {
            return;
        }
        let mut outbox = lock(&connection.outbox);
        outbox.frames = outbox.frames.saturating_sub(frames);
        outbox.bytes = outbox.bytes.saturating_sub(bytes);
    }
}

/// Writes a frame's length as a varint: seven bits a byte, the lowest first.
pub(super) fn put_length(into: &mut BytesMut, length: usize) {
    let mut rest = length;
    while rest >= 0x80 {
        into.put_u8(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
        rest >>= 7;
    }
    into.put_u8(u8::try_from(rest).unwrap_or_default());
}
