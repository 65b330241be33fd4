//! Connect by GET: the message is in the query, so that reads can be linked to and cached.

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use tonic::Status;

use super::compression::{self, Compression};
use super::protocol::Encoding;

/// What a query says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// How the message is written.
    pub(crate) encoding: Encoding,
    /// How the message is packed.
    pub(crate) compression: Compression,
    /// The message, as it is packed.
    pub(crate) message: Bytes,
}

/// Why a query is no request.
#[derive(Debug)]
pub(crate) enum ReadQueryError {
    /// It is written as this server cannot read it.
    Encoding,
    /// Anything else.
    Refused(Box<Status>),
}

impl From<Status> for ReadQueryError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Reads a message, and how it is written, from a request's query.
///
/// # Errors
/// [`ReadQueryError`] when it is incomplete, or says what this server does not know.
pub(crate) fn read_query(query: &str) -> Result<Query, ReadQueryError> {
    let mut encoding = None;
    let mut compression = Compression::Identity;
    let mut message = None;
    let mut is_base64 = false;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode_percent(value);
        match (name, value.as_slice()) {
            ("encoding", b"json") => encoding = Some(Encoding::Json),
            ("encoding", b"proto") => encoding = Some(Encoding::Proto),
            ("encoding", _) => return Err(ReadQueryError::Encoding),
            // The protocol ignores any other value of it.
            ("base64", value) => is_base64 = value == b"1",
            ("connect", b"v1") => {}
            ("connect", other) => return Err(refuse("connect", other, "v1").into()),
            ("compression", name) => {
                let name = String::from_utf8_lossy(name);
                compression = Compression::of(&name)
                    .ok_or_else(|| compression::unknown("the query's compression", &format!("{name:?}")))?;
            }
            ("message", _) => message = Some(value),
            // Anything else is the caller's own, to keep apart what a cache would mix up.
            _ => {}
        }
    }
    let encoding = encoding.ok_or_else(|| Status::invalid_argument("the query has no encoding"))?;
    let message = message.ok_or_else(|| Status::invalid_argument("the query has no message"))?;
    if !is_base64 {
        return Ok(Query { encoding, compression, message: message.into() });
    }
    let unpadded = message.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let decoded = BASE64URL_NOPAD
        .decode(message.get(..unpadded).unwrap_or_default())
        .map_err(|error| Status::invalid_argument(format!("the query's message is no base64: {error}")))?;
    Ok(Query { encoding, compression, message: decoded.into() })
}

fn refuse(name: &str, value: &[u8], allowed: &str) -> Status {
    Status::invalid_argument(format!("the query's {name} is {:?}, not {allowed}", String::from_utf8_lossy(value)))
}

/// Takes `%xx` and `+` apart; what is no such escape stays as it is.
fn decode_percent(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                decoded.push(hex_digit(*high) << 4 | hex_digit(*low));
                rest = after;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
    }
    decoded
}

/// The value of a hexadecimal digit, 0 for anything else.
fn hex_digit(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(encoding: Encoding, message: &'static [u8]) -> Query {
        Query { encoding, compression: Compression::Identity, message: Bytes::from_static(message) }
    }

    #[test]
    fn queries_carry_json_and_proto() {
        assert_eq!(
            read_query("connect=v1&encoding=json&message=%7B%22device%22%3A%22a+b%22%7d").unwrap(),
            plain(Encoding::Json, br#"{"device":"a b"}"#)
        );
        for padding in ["", "%3D", "="] {
            let query = format!("message=_w8{padding}&base64=1&encoding=proto");
            assert_eq!(read_query(&query).unwrap(), plain(Encoding::Proto, &[0xff, 0x0f]));
        }
        assert_eq!(read_query("encoding=proto&message=").unwrap(), plain(Encoding::Proto, b""));
        assert_eq!(read_query("encoding=json&message={}&base64=yes").unwrap(), plain(Encoding::Json, b"{}"));
        let packed = read_query("message=_w8&base64=1&encoding=proto&compression=gzip").unwrap();
        assert_eq!(packed.compression, Compression::Gzip);
    }

    #[test]
    fn queries_that_say_something_else_are_refused() {
        let refused = |query| match read_query(query) {
            Err(ReadQueryError::Refused(status)) => Some(status.code()),
            Err(ReadQueryError::Encoding) | Ok(_) => None,
        };
        for query in [
            "",
            "message={}",
            "encoding=json",
            "encoding=json&message=a%&base64=1",
            "encoding=json&message={}&connect=v2",
        ] {
            assert_eq!(refused(query), Some(tonic::Code::InvalidArgument), "{query}");
        }
        assert_eq!(refused("encoding=json&message={}&compression=br"), Some(tonic::Code::Unimplemented));
        assert!(matches!(read_query("encoding=xml&message={}"), Err(ReadQueryError::Encoding)));
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(decode_percent("%"), b"%");
        assert_eq!(decode_percent("%4"), b"%4");
        assert_eq!(decode_percent("%zz%41"), b"%zzA");
    }
}
