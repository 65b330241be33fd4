//! Messages in a body: gRPC and Connect both put a byte of flags and a length of four bytes before each.

use axum::body::Body;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tonic::Status;

use super::compression::{Compression, UnpackError};

/// Bytes before a message: its flags and its length.
const HEADER_BYTES: usize = 5;

/// The flag of a message that is compressed, in gRPC as in Connect.
pub(crate) const COMPRESSED: u8 = 0b01;

/// The flag of the message that ends a stream of Connect.
pub(crate) const END_STREAM: u8 = 0b10;

/// Why a body is no sequence of messages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFrameError {
    /// A message says that it is too long.
    #[error("a message has {length} bytes, {length_max} are allowed")]
    TooLong {
        /// What it says.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
    /// The body ends within a message.
    #[error("the body ends within a message, after {length} bytes of it")]
    Truncated {
        /// What was there of it, its header included.
        length: usize,
    },
    /// A message is compressed, and no header says how.
    #[error("a message is compressed, and no header says how")]
    Compressed,
    /// A message cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The body cannot be read to its end.
    #[error("the body cannot be read")]
    Body(Box<Status>),
}

impl ReadFrameError {
    /// The status that it ends a call with.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::TooLong { .. } => Status::resource_exhausted(self.to_string()),
            Self::Truncated { .. } | Self::Compressed => Status::invalid_argument(self.to_string()),
            Self::Unpack(error) => error.status(),
            Self::Body(status) => Status::clone(status),
        }
    }
}

/// One message and its flags.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The flags but for the one of compression.
    pub(crate) flags: u8,
    /// The message, unpacked.
    pub(crate) message: Bytes,
}

/// Puts flags and length before a message.
pub(crate) fn write_frame(flags: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + message.len());
    frame.put_u8(flags);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Reads a body message by message.
#[derive(Debug)]
pub(crate) struct Frames {
    body: Body,
    buffer: BytesMut,
    length_max: usize,
    compression: Compression,
    trailers: HeaderMap,
}

impl Frames {
    /// Reads `body`, whose messages may have `length_max` bytes each, packed or not.
    pub(crate) fn new(body: Body, length_max: usize) -> Self {
        let compression = Compression::Identity;
        Self { body, buffer: BytesMut::new(), length_max, compression, trailers: HeaderMap::new() }
    }

    /// Unpacks those messages that say that they are packed.
    pub(crate) fn packed_by(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// The trailers, once the body has ended.
    pub(crate) fn trailers(&self) -> &HeaderMap {
        &self.trailers
    }

    /// Reads the next message, or nothing at the end of the body.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadFrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.body.frame().await {
                Some(Ok(part)) => match part.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(part) => self.trailers.extend(part.into_trailers().unwrap_or_default()),
                },
                Some(Err(error)) => {
                    return Err(ReadFrameError::Body(Box::new(Status::from_error(error.into_inner()))));
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(ReadFrameError::Truncated { length: self.buffer.len() }),
            }
        }
    }

    /// Takes a message that has arrived whole. One that is too long is refused before it is waited for.
    fn take(&mut self) -> Result<Option<Frame>, ReadFrameError> {
        let Some(mut header) = self.buffer.get(..HEADER_BYTES) else {
            return Ok(None);
        };
        let flags = header.get_u8();
        let length = usize::try_from(header.get_u32()).unwrap_or(usize::MAX);
        if length > self.length_max {
            return Err(ReadFrameError::TooLong { length, length_max: self.length_max });
        }
        if flags & COMPRESSED != 0 && self.compression == Compression::Identity {
            return Err(ReadFrameError::Compressed);
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let mut message = self.buffer.split_to(length).freeze();
        if flags & COMPRESSED != 0 {
            message = self.compression.unpack(message, self.length_max)?;
        }
        Ok(Some(Frame { flags: flags & !COMPRESSED, message }))
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::stream;

    use super::*;

    /// Reads frames from a body that arrives in the given pieces.
    fn read(pieces: Vec<Bytes>, length_max: usize) -> Result<Vec<Frame>, ReadFrameError> {
        let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
        let mut frames = Frames::new(body, length_max);
        block_on(async {
            let mut read = Vec::new();
            while let Some(frame) = frames.next().await? {
                read.push(frame);
            }
            Ok(read)
        })
    }

    #[test]
    fn messages_arrive_whole_however_they_were_cut() {
        let sent = [write_frame(0, b"one"), write_frame(END_STREAM, b""), write_frame(0, &[7; 300])].concat();
        let whole = read(vec![sent.clone().into()], 300).unwrap();
        assert_eq!(whole.len(), 3);
        for cut in 0..sent.len() {
            let (left, right) = sent.split_at(cut);
            let pieces = vec![Bytes::copy_from_slice(left), Bytes::copy_from_slice(right)];
            assert_eq!(read(pieces, 300).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_header() {
        let header = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(
            read(vec![header], 300),
            Err(ReadFrameError::TooLong { length: 0xffff_ffff, length_max: 300 })
        ));
    }

    #[test]
    fn a_packed_message_arrives_plain_among_others() {
        let message = [7; 2000];
        let packed = Compression::Gzip.pack(&message).unwrap();
        let sent = [write_frame(COMPRESSED, &packed), write_frame(0, b"plain")].concat();
        let body = || Body::from(sent.clone());
        let mut frames = Frames::new(body(), 2000).packed_by(Compression::Gzip);
        assert_eq!(block_on(frames.next()).unwrap().unwrap(), Frame { flags: 0, message: message.to_vec().into() });
        assert_eq!(&block_on(frames.next()).unwrap().unwrap().message[..], b"plain");
        let mut frames = Frames::new(body(), 1999).packed_by(Compression::Gzip);
        assert!(matches!(block_on(frames.next()), Err(ReadFrameError::Unpack(UnpackError::TooLong { .. }))));
    }

    #[test]
    fn a_message_that_ends_early_or_is_compressed_unasked_is_refused() {
        let sent = write_frame(0, b"one");
        assert!(matches!(read(vec![sent.slice(..6)], 300), Err(ReadFrameError::Truncated { length: 6 })));
        assert!(matches!(read(vec![write_frame(COMPRESSED, b"x")], 300), Err(ReadFrameError::Compressed)));
    }
}
