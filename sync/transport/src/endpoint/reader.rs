//! Frames out of a stream. Nothing is set aside for a frame before its bytes come.

#[cfg(test)]
mod fuzz;

use bytes::{Buf, Bytes, BytesMut};
use fleetd_sync_core::limit;
use fleetd_sync_core::session::CloseCode;

/// What frames come out of: a stream, as the pieces in which it arrives.
pub(super) trait Pieces {
    /// The next piece, which is not empty; `None` when the stream has ended or failed.
    async fn next_piece(&mut self) -> Option<Bytes>;
}

impl Pieces for quinn::RecvStream {
    async fn next_piece(&mut self) -> Option<Bytes> {
        let chunk = self.read_chunk(limit::FRAME_BYTES_MAX, true).await.ok()??;
        Some(chunk.bytes)
    }
}

/// Takes a stream apart. A stream that ends or fails gives `None`: the connection says why, if there is a why.
pub(super) struct FrameReader {
    rest: Bytes,
}

impl FrameReader {
    pub(super) const fn new() -> Self {
        Self { rest: Bytes::new() }
    }

    /// Reads one byte.
    pub(super) async fn byte(&mut self, stream: &mut impl Pieces) -> Option<u8> {
        self.fill(stream).await?;
        Some(self.rest.get_u8())
    }

    /// Reads a frame's length.
    ///
    /// # Errors
    /// [`CloseCode::FrameTooLarge`] when it is over the limit, or longer than any length within it.
    pub(super) async fn length(&mut self, stream: &mut impl Pieces) -> Result<Option<usize>, CloseCode> {
        let mut length = 0_usize;
        for shift in [0, 7, 14] {
            let Some(byte) = self.byte(stream).await else { return Ok(None) };
            length |= usize::from(byte & 0x7f) << shift;
            if length > limit::FRAME_BYTES_MAX {
                return Err(CloseCode::FrameTooLarge);
            }
            if byte & 0x80 == 0 {
                return Ok(Some(length));
            }
        }
        Err(CloseCode::FrameTooLarge)
    }

    /// Reads a frame's bytes.
    pub(super) async fn body(&mut self, stream: &mut impl Pieces, length: usize) -> Option<Bytes> {
        if length == 0 {
            return Some(Bytes::new());
        }
        self.fill(stream).await?;
        if self.rest.len() >= length {
            return Some(self.rest.split_to(length));
        }
        let mut body = BytesMut::from(std::mem::take(&mut self.rest));
        while body.len() < length {
            self.fill(stream).await?;
            let part = self.rest.split_to(self.rest.len().min(length - body.len()));
            body.extend_from_slice(&part);
        }
        Some(body.freeze())
    }

    /// Waits for at least one byte.
    async fn fill(&mut self, stream: &mut impl Pieces) -> Option<()> {
        if self.rest.is_empty() {
            self.rest = stream.next_piece().await?;
        }
        Some(())
    }
}
