//! Reading a canonical body, bounded at every field.

/// Why bytes are no canonical body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes end inside a field.
    #[error("{what} needs {wanted} bytes where {left} are left")]
    End {
        /// Which field.
        what: &'static str,
        /// How many bytes it needs.
        wanted: usize,
        /// How many there are.
        left: usize,
    },
    /// A number is written longer than it needs, or does not fit 64 bits.
    #[error("{what} is no minimal varint of 64 bits")]
    Varint {
        /// Which field.
        what: &'static str,
    },
    /// A length or a count is above its limit.
    #[error("{what} has length {length}, the limit is {length_max}")]
    TooLong {
        /// Which field.
        what: &'static str,
        /// What it claims.
        length: u64,
        /// What it may have.
        length_max: usize,
    },
    /// A field's bytes are not UTF-8.
    #[error("{what} is not UTF-8")]
    Text {
        /// Which field.
        what: &'static str,
    },
    /// A field has a value that means nothing here, or that is never written.
    #[error("{what} has the value {value}, which is not allowed")]
    Value {
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// Bytes follow the last field.
    #[error("{left} bytes follow the end")]
    Trailing {
        /// How many.
        left: usize,
    },
}

/// Takes fields from a canonical body. Nothing is allocated before its length was compared with its limit and with
/// the bytes that are left.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.rest.len()
    }

    /// Takes `length` bytes as they are.
    ///
    /// # Errors
    /// [`ReadError::End`].
    pub fn take(&mut self, what: &'static str, length: usize) -> Result<&'a [u8], ReadError> {
        let end = ReadError::End { what, wanted: length, left: self.rest.len() };
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(end)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`ReadError::End`].
    pub fn u8(&mut self, what: &'static str) -> Result<u8, ReadError> {
        let [byte] = self.array::<1>(what)?;
        Ok(byte)
    }

    /// Takes a yes or a no.
    ///
    /// # Errors
    /// [`ReadError::End`], and [`ReadError::Value`] for a byte other than 0 and 1.
    pub fn boolean(&mut self, what: &'static str) -> Result<bool, ReadError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(ReadError::Value { what, value: u64::from(other) }),
        }
    }

    /// Takes `N` bytes.
    ///
    /// # Errors
    /// [`ReadError::End`].
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ReadError> {
        let end = ReadError::End { what, wanted: N, left: self.rest.len() };
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(end)?;
        self.rest = rest;
        Ok(*array)
    }

    /// Takes a number of 8 bytes, the lowest first.
    ///
    /// # Errors
    /// [`ReadError::End`].
    pub fn fixed_u64(&mut self, what: &'static str) -> Result<u64, ReadError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Takes a varint, which must be as short as it can be: each number has one encoding.
    ///
    /// # Errors
    /// [`ReadError::End`] and [`ReadError::Varint`].
    pub fn varint(&mut self, what: &'static str) -> Result<u64, ReadError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds the last bit alone; a last byte of 0 adds nothing.
            if (shift == 63 && byte > 1) || (shift > 0 && byte == 0) {
                return Err(ReadError::Varint { what });
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ReadError::Varint { what })
    }

    /// Takes a signed number.
    ///
    /// # Errors
    /// [`ReadError::End`] and [`ReadError::Varint`].
    pub fn signed(&mut self, what: &'static str) -> Result<i64, ReadError> {
        let zigzag = self.varint(what)?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    /// Takes how many entries follow. A count above the bytes that are left is refused too: each entry has one byte
    /// at least, so a caller may reserve room for what is returned.
    ///
    /// # Errors
    /// [`ReadError::End`], [`ReadError::Varint`] and [`ReadError::TooLong`].
    pub fn count(&mut self, what: &'static str, count_max: usize) -> Result<usize, ReadError> {
        let length = self.varint(what)?;
        let too_long = ReadError::TooLong { what, length, length_max: count_max };
        let count = usize::try_from(length).ok().filter(|count| *count <= count_max).ok_or(too_long)?;
        if count > self.rest.len() {
            return Err(ReadError::End { what, wanted: count, left: self.rest.len() });
        }
        Ok(count)
    }

    /// Takes bytes behind their length.
    ///
    /// # Errors
    /// [`ReadError::End`], [`ReadError::Varint`] and [`ReadError::TooLong`].
    pub fn bytes(&mut self, what: &'static str, length_max: usize) -> Result<&'a [u8], ReadError> {
        let length = self.count(what, length_max)?;
        self.take(what, length)
    }

    /// Takes text behind its length.
    ///
    /// # Errors
    /// Those of [`Reader::bytes`] and [`ReadError::Text`].
    pub fn text(&mut self, what: &'static str, length_max: usize) -> Result<&'a str, ReadError> {
        std::str::from_utf8(self.bytes(what, length_max)?).map_err(|_| ReadError::Text { what })
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`ReadError::Trailing`].
    pub const fn finish(self) -> Result<(), ReadError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ReadError::Trailing { left: self.rest.len() }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Writer;
    use super::*;

    #[test]
    fn a_number_has_one_encoding() {
        for bytes in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00], &[0xff; 10], &[0x80; 11]] {
            assert_eq!(Reader::new(bytes).varint("number"), Err(ReadError::Varint { what: "number" }), "{bytes:?}");
        }
        let mut longest = [0xff; 10];
        longest[9] = 1;
        assert_eq!(Reader::new(&longest).varint("number"), Ok(u64::MAX));
    }

    #[test]
    fn a_claimed_length_is_bounded_before_it_is_believed() {
        let mut writer = Writer::new();
        writer.varint(u64::MAX);
        let bytes = writer.finish();
        let refused = Reader::new(&bytes).bytes("blob", 10);
        assert_eq!(refused, Err(ReadError::TooLong { what: "blob", length: u64::MAX, length_max: 10 }));
        assert_eq!(Reader::new(&[9, 1]).bytes("blob", 10), Err(ReadError::End { what: "blob", wanted: 9, left: 1 }));
        assert_eq!(Reader::new(&[1, 0xff]).text("name", 10), Err(ReadError::Text { what: "name" }));
        assert_eq!(Reader::new(&[2]).boolean("flag"), Err(ReadError::Value { what: "flag", value: 2 }));
        assert_eq!(Reader::new(&[2]).finish(), Err(ReadError::Trailing { left: 1 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, signed: i64, fixed: u64, text in ".{0,40}", yes: bool) {
            let mut writer = Writer::new();
            writer.varint(number).signed(signed).fixed_u64(fixed).text(&text).boolean(yes).array(&[1, 2, 3]);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint("number"), Ok(number));
            prop_assert_eq!(reader.signed("signed"), Ok(signed));
            prop_assert_eq!(reader.fixed_u64("fixed"), Ok(fixed));
            prop_assert_eq!(reader.text("text", 160), Ok(text.as_str()));
            prop_assert_eq!(reader.boolean("yes"), Ok(yes));
            prop_assert_eq!(reader.array("array"), Ok([1_u8, 2, 3]));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn a_varint_that_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(number) = reader.varint("number") {
                let mut writer = Writer::new();
                writer.varint(number);
                prop_assert_eq!(writer.finish(), &bytes[..bytes.len() - reader.left()]);
            }
        }
    }
}
