//! Connect by GET: the message is in the query, so that reads can be linked to and cached.

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use tonic::Status;

use super::protocol::Encoding;

/// Reads encoding and message from a request's query.
pub(crate) fn read_query(query: &str) -> Result<(Encoding, Bytes), Status> {
    let mut encoding = None;
    let mut message = None;
    let mut is_base64 = false;
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode_percent(value);
        match (name, value.as_slice()) {
            ("encoding", b"json") => encoding = Some(Encoding::Json),
            ("encoding", b"proto") => encoding = Some(Encoding::Proto),
            ("encoding", other) => return Err(refuse("encoding", other, "json or proto")),
            ("base64", b"1") => is_base64 = true,
            ("base64", b"0") => is_base64 = false,
            ("base64", other) => return Err(refuse("base64", other, "0 or 1")),
            ("connect", b"v1") | ("compression", b"identity" | b"") => {}
            ("connect", other) => return Err(refuse("connect", other, "v1")),
            ("compression", other) => return Err(refuse("compression", other, "identity")),
            ("message", _) => message = Some(value),
            // Anything else is the caller's own, to keep apart what a cache would mix up.
            _ => {}
        }
    }
    let encoding = encoding.ok_or_else(|| Status::invalid_argument("the query has no encoding"))?;
    let message = message.ok_or_else(|| Status::invalid_argument("the query has no message"))?;
    if !is_base64 {
        return Ok((encoding, message.into()));
    }
    let unpadded = message.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let decoded = BASE64URL_NOPAD
        .decode(message.get(..unpadded).unwrap_or_default())
        .map_err(|error| Status::invalid_argument(format!("the query's message is no base64: {error}")))?;
    Ok((encoding, decoded.into()))
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

    #[test]
    fn queries_carry_json_and_proto() {
        assert_eq!(
            read_query("connect=v1&encoding=json&message=%7B%22device%22%3A%22a+b%22%7d").unwrap(),
            (Encoding::Json, Bytes::from_static(br#"{"device":"a b"}"#))
        );
        for padding in ["", "%3D", "="] {
            let query = format!("message=_w8{padding}&base64=1&encoding=proto");
            assert_eq!(read_query(&query).unwrap(), (Encoding::Proto, Bytes::from_static(&[0xff, 0x0f])));
        }
        assert_eq!(read_query("encoding=proto&message=").unwrap(), (Encoding::Proto, Bytes::new()));
    }

    #[test]
    fn queries_that_say_something_else_are_refused() {
        for query in [
            "",
            "message={}",
            "encoding=json",
            "encoding=xml&message={}",
            "encoding=json&message=a%&base64=1",
            "encoding=json&message={}&compression=gzip",
            "encoding=json&message={}&connect=v2",
            "encoding=json&message={}&base64=yes",
        ] {
            assert_eq!(read_query(query).unwrap_err().code(), tonic::Code::InvalidArgument, "{query}");
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(decode_percent("%"), b"%");
        assert_eq!(decode_percent("%4"), b"%4");
        assert_eq!(decode_percent("%zz%41"), b"%zzA");
    }
}
