//! Frames off a stream, from a peer that has proven nothing yet, cut wherever the network cuts.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::super::outbox::put_length;
use super::*;

/// Inputs that are tried at random in every run of the tests, after the corpus.
const CASES: usize = 2000;

/// A stream in pieces; between two of them the reader has to wait.
struct Cut {
    pieces: VecDeque<Bytes>,
    waits: bool,
}

impl Pieces for Cut {
    async fn next_piece(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.waits) {
            let mut waited = false;
            std::future::poll_fn(
                |_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending },
            )
            .await;
        }
        self.waits = true;
        self.pieces.pop_front()
    }
}

/// What a stream comes to: its class, its frames, and how it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Taken {
    class: Option<u8>,
    frames: Vec<Bytes>,
    refused: Option<CloseCode>,
    /// Bytes that a frame had whose rest never came.
    is_cut: bool,
}

/// Reads a stream as a connection does.
async fn take(stream: &mut Cut) -> Taken {
    let (mut reader, mut taken) = (FrameReader::new(), Taken::default());
    taken.class = reader.byte(stream).await;
    while taken.class.is_some() {
        match reader.length(stream).await {
            Err(code) => {
                taken.refused = Some(code);
                break;
            }
            Ok(None) => break,
            Ok(Some(length)) => {
                assert!(length <= limit::FRAME_BYTES_MAX);
                let Some(frame) = reader.body(stream, length).await else {
                    taken.is_cut = true;
                    break;
                };
                assert_eq!(frame.len(), length, "a frame has the bytes that its length says");
                taken.frames.push(frame);
            }
        }
    }
    taken
}

fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

fn read(stream: &[u8], cuts: &[usize]) -> Taken {
    let whole = Bytes::copy_from_slice(stream);
    let (mut pieces, mut from) = (VecDeque::new(), 0);
    for to in cuts.iter().copied().chain([whole.len()]) {
        let to = to.clamp(from, whole.len());
        if to > from {
            pieces.push_back(whole.slice(from..to));
        }
        from = to;
    }
    finish(take(&mut Cut { pieces, waits: false }))
}

/// The same by another way: all bytes are there.
fn expected(stream: &[u8]) -> Taken {
    let mut taken = Taken::default();
    let Some((class, mut rest)) = stream.split_first() else { return taken };
    taken.class = Some(*class);
    loop {
        let bytes = rest.iter().take(3).take_while(|byte| **byte >= 0x80).count();
        let head = rest.get(..=bytes).unwrap_or(rest);
        let length = head.iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
        if bytes == 3 || length > limit::FRAME_BYTES_MAX {
            taken.refused = Some(CloseCode::FrameTooLarge);
            return taken;
        }
        if bytes == rest.len() {
            return taken;
        }
        rest = &rest[head.len()..];
        let Some(frame) = rest.get(..length) else {
            taken.is_cut = true;
            return taken;
        };
        taken.frames.push(Bytes::copy_from_slice(frame));
        rest = &rest[length..];
    }
}

fn written(class: u8, frames: &[Bytes]) -> Vec<u8> {
    let mut written = BytesMut::new();
    written.extend_from_slice(&[class]);
    for frame in frames {
        put_length(&mut written, frame.len());
        written.extend_from_slice(frame);
    }
    written.to_vec()
}

/// The first byte says how many bytes after it say how far apart the cuts are; the rest is the stream.
fn check(bytes: &[u8]) -> usize {
    let Some((count, rest)) = bytes.split_first() else { return 0 };
    let (steps, stream) = rest.split_at(usize::from(*count).min(rest.len()));
    let taken = read(stream, &[]);
    assert_eq!(taken, expected(stream), "in one piece");
    let mut at = 0;
    let cuts: Vec<usize> = steps
        .iter()
        .map(|step| {
            at += usize::from(*step) + 1;
            at
        })
        .collect();
    assert_eq!(read(stream, &cuts), taken, "cut at {cuts:?}");
    let each: Vec<usize> = (1..stream.len()).collect();
    assert_eq!(read(stream, &each), taken, "byte by byte");
    if let Some(class) = taken.class {
        let again = written(class, &taken.frames);
        let whole = Taken { refused: None, is_cut: false, ..taken.clone() };
        assert_eq!(read(&again, &cuts), whole, "what is written is read again");
        assert!(again.len() <= stream.len(), "nothing is written shorter than this writes it");
    }
    taken.frames.len()
}

fn samples() -> Vec<(Vec<u8>, usize)> {
    let frames = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 300]), Bytes::from(vec![8; 20_000])];
    let whole = written(2, &frames);
    let of = |cuts: &[u8], stream: &[u8]| [&[u8::try_from(cuts.len()).unwrap()], cuts, stream].concat();
    vec![
        (of(&[], &written(0, &[])), 0),
        (of(&[0, 1, 2, 0, 200], &whole), 4),
        (of(&[4], &whole[..whole.len() - 1]), 3),
        (of(&[1], &[1, 0x83, 0x80, 0, b'a', b'b', b'c', 1]), 1),
        (of(&[1], &[1, 0xff, 0xff, 0xff, 1]), 0),
        (of(&[], &[1, 0x80, 0x80, 0x80, 0]), 0),
    ]
}

#[test]
fn every_sample_of_a_stream_has_its_frames() {
    for (index, (sample, frames)) in samples().iter().enumerate() {
        assert_eq!(check(sample), *frames, "sample {index}");
    }
}

#[test]
fn any_stream_has_the_same_frames_wherever_it_is_cut() {
    bolero::check!(name = "stream").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
