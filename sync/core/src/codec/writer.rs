//! Writing a canonical body, one field after the other.

/// Appends fields to a canonical body. The counterpart of [`Reader`](super::Reader): what is written here and read
/// there is the same, and a value has one encoding only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts an empty body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one byte: a version, a tag, a small enumeration.
    pub fn u8(&mut self, byte: u8) -> &mut Self {
        self.bytes.push(byte);
        self
    }

    /// Appends a yes or a no as 1 or 0.
    pub fn boolean(&mut self, yes: bool) -> &mut Self {
        self.u8(u8::from(yes))
    }

    /// Appends a number in 8 bytes, the lowest first: for random numbers, which no varint makes shorter.
    pub fn fixed_u64(&mut self, number: u64) -> &mut Self {
        self.array(&number.to_le_bytes())
    }

    /// Appends a number in as few bytes as it needs, 7 bits in each, the lowest first.
    pub fn varint(&mut self, mut number: u64) -> &mut Self {
        while number >= 0x80 {
            // The mask keeps 7 bits, so nothing is lost.
            self.bytes.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
            number >>= 7;
        }
        self.u8(u8::try_from(number).unwrap_or(0))
    }

    /// Appends a signed number as a varint of its zigzag form, so that small negative numbers are short too.
    pub fn signed(&mut self, number: i64) -> &mut Self {
        self.varint(((number << 1) ^ (number >> 63)).cast_unsigned())
    }

    /// Appends how many entries follow.
    pub fn count(&mut self, count: usize) -> &mut Self {
        self.varint(u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// Appends bytes whose number both ends know: an id, a key, a signature.
    pub fn array<const N: usize>(&mut self, array: &[u8; N]) -> &mut Self {
        self.bytes.extend_from_slice(array);
        self
    }

    /// Appends bytes whose end the reader knows, because they are the last of a bounded part.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends bytes behind their length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.count(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Appends text behind its length in bytes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// How many bytes were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Says whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Ends the body.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
