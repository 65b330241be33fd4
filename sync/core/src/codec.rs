//! The canonical binary layout of envelopes and other signed bodies.
//!
//! A body is fields in a fixed order, with no names and no padding; [`Writer`] and [`Reader`] are the primitives.
//! A value has one encoding, so that decoding and encoding again gives the very bytes that were signed.
//!
//! An envelope is its body and the 64 bytes of an Ed25519 signature over `fleetd/envelope/1`, a NUL, and the body:
//!
//! | field | bytes | what |
//! |---|---|---|
//! | version | 1 | 1 |
//! | fleet | 16 | |
//! | shape | 1 | bits 0-1 the document (0 trust, 1 desired, 2 actual), bits 2-3 what it is (0 delta, 1 first opener, 2 opener above a parent), bits 4-5 clock quality, bits 6-7 zero |
//! | device | 16 | only for desired |
//! | lane | 16 | the writer's key; for actual it is the device, too |
//! | epoch | varint | 1 for the first opener |
//! | stamp | 8 | lowest byte first |
//! | seq, link | varint, 16 | only a delta: its number from 1, and the hash of the envelope before it |
//! | parent | 8, varint, 16 | only an opener above a parent: stamp, seq and hash of the head in the epoch before |
//! | wall | signed varint | milliseconds since 1970 |
//! | needs | count, each | 0: document byte, device unless it is trust, lane unless it is actual, epoch, stamp, seq; 1: trust version |
//! | ops | count, each | class, code, length, and so many bytes |
//!
//! Class 1 holds changes that a reader may skip when it does not know their code; every other class is one that no
//! reader may skip. In class 1, code 1 sets (length and path, a type byte, the value: 0 false, 1 true, 2 a signed
//! varint, 3 text, 4 bytes) and code 2 deletes (the path). These two replace the agent itself, and never change.
//! A snapshot waits for nothing, and its operations set each path once, in the order of the paths, and delete none.
//!
//! An envelope's hash is BLAKE3 over `fleetd/envelope-hash/1`, a NUL, and the body, cut to 16 bytes: the signature
//! is no part of it, so that one body signed twice is one envelope.

mod envelope;
mod op;
mod reader;
mod writer;

pub use envelope::{DecodeEnvelopeError, VERSION, decode, encode, seal};
pub(crate) use envelope::{read_document, write_document};
pub(crate) use op::{CLASS_PLAIN, read_op, write_op};
pub use reader::{ReadError, Reader};
pub use writer::Writer;
