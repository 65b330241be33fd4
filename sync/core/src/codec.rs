//! The canonical binary layout of envelopes and other signed bodies.
//!
//! A body is fields in a fixed order, with no names and no padding; [`Writer`] and [`Reader`] are the primitives.
//! A value has one encoding, so that decoding and encoding again gives the very bytes that were signed.

mod reader;
mod writer;

pub use reader::{ReadError, Reader};
pub use writer::Writer;
