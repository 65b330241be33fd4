//! An ordered table of bytes with atomic, durable writes: fjall on disk, a map in the twin.

use std::io;
use std::ops::{Bound, ControlFlow};

/// One write: a key, and its value or `None` to remove it.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

/// Sees one key and its value, and says whether to go on.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered table of bytes.
pub(crate) trait Table: Send + Sync + 'static {
    /// Reads one value.
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Visits keys and values of a range in order, in one consistent state, until `visit` breaks.
    fn range(&self, from: Bound<&[u8]>, to: &[u8], visit: &mut Visit<'_>) -> io::Result<()>;

    /// Makes all writes durable, or none.
    fn commit(&self, writes: Vec<Write>) -> io::Result<()>;

    /// Why no further commit can succeed, if so.
    fn failure(&self) -> Option<String>;
}
