//! Messages made smaller on their way, by a method that both ends know.
//!
//! What a peer sends is unpacked up to the size that it might have sent plainly, and no further.

use std::io::{self, Read as _};

use bytes::Bytes;
use flate2::bufread::{GzEncoder, MultiGzDecoder};
use http::{HeaderMap, HeaderName};
use tonic::Status;

/// What this server packs and unpacks, as it tells those who ask for something else.
pub(crate) const NAMES: &str = "gzip, zstd";

/// Bytes from which an answer is packed: a shorter one is one packet either way.
const PACKED_BYTES_MIN: usize = 1024;

/// How hard gzip tries: the lowest level packs JSON to a fifth, and the others take several times as long for little.
const GZIP_LEVEL: u32 = 1;

/// How hard zstd tries: its own default.
const ZSTD_LEVEL: i32 = 3;

/// The largest window that an unpacker of zstd keeps, as a power of two: 8 MiB.
///
/// # Source
/// RFC 9659: no sender over HTTP may ask for more.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A method of making messages smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// None.
    Identity,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// Why a packed message cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// There is more in it than is allowed.
    #[error("a message unpacks to more than {length_max} bytes")]
    TooLong {
        /// What is allowed.
        length_max: usize,
    },
    /// It was not packed by the method that it came with.
    #[error("a message is no {method}")]
    Garbled {
        /// The method.
        method: &'static str,
        /// What the unpacker says.
        source: io::Error,
    },
}

impl UnpackError {
    /// The status that it ends a call with.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::TooLong { .. } => Status::resource_exhausted(self.to_string()),
            Self::Garbled { source, .. } => Status::invalid_argument(format!("{self}: {source}")),
        }
    }
}

impl Compression {
    /// Finds a method by the name that HTTP and Connect give it. No name is the name of none.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name.trim() {
            "" | "identity" => Some(Self::Identity),
            "gzip" => Some(Self::Gzip),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Reads off a request's headers how its messages are packed.
    ///
    /// # Errors
    /// The status for a method that this server does not know, which names those that it does.
    pub(crate) fn sent(headers: &HeaderMap, header: &HeaderName) -> Result<Self, Status> {
        let Some(value) = headers.get(header) else { return Ok(Self::Identity) };
        value.to_str().ok().and_then(Self::of).ok_or_else(|| unknown(header.as_str(), &format!("{value:?}")))
    }

    /// Chooses how the answer is packed: by the first method of the client's list that this server knows. A client
    /// that has no list takes what it sent.
    pub(crate) fn accepted(headers: &HeaderMap, header: &HeaderName, sent: Self) -> Self {
        if !headers.contains_key(header) {
            return sent;
        }
        let lists = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
        let mut wanted = lists.flat_map(|list| list.split(',')).filter_map(|entry| {
            let (name, quality) = entry.split_once(';').unwrap_or((entry, ""));
            let is_refused = quality.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()) == Some(0.0);
            Self::of(name).filter(|method| *method != Self::Identity && !is_refused)
        });
        wanted.next().unwrap_or(Self::Identity)
    }

    /// What HTTP and Connect call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Packs a message, if it gets smaller by it.
    pub(crate) fn pack(self, message: &[u8]) -> Option<Bytes> {
        if message.len() < PACKED_BYTES_MIN {
            return None;
        }
        let packed = match self {
            Self::Identity => return None,
            Self::Gzip => {
                let mut packed = Vec::with_capacity(message.len() / 4);
                GzEncoder::new(message, flate2::Compression::new(GZIP_LEVEL)).read_to_end(&mut packed).ok()?;
                packed
            }
            Self::Zstd => zstd::bulk::compress(message, ZSTD_LEVEL).ok()?,
        };
        (packed.len() < message.len()).then(|| packed.into())
    }

    /// Unpacks a message of at most `length_max` bytes. Nothing unpacks to nothing.
    ///
    /// # Errors
    /// [`UnpackError`] when there is more in it, or it was not packed like this.
    pub(crate) fn unpack(self, packed: Bytes, length_max: usize) -> Result<Bytes, UnpackError> {
        if self == Self::Identity || packed.is_empty() {
            return Ok(packed);
        }
        let garbled = |source| UnpackError::Garbled { method: self.name(), source };
        let one_more = u64::try_from(length_max).unwrap_or(u64::MAX).saturating_add(1);
        let mut message = Vec::new();
        match self {
            Self::Identity => {}
            Self::Gzip => {
                MultiGzDecoder::new(&*packed).take(one_more).read_to_end(&mut message).map_err(garbled)?;
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&*packed).map_err(garbled)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(garbled)?;
                decoder.take(one_more).read_to_end(&mut message).map_err(garbled)?;
            }
        }
        if message.len() > length_max {
            return Err(UnpackError::TooLong { length_max });
        }
        Ok(message.into())
    }
}

/// The status for a method that this server does not know.
pub(crate) fn unknown(place: &str, value: &str) -> Status {
    Status::unimplemented(format!("{place} is {value}, this server takes {NAMES}"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};

    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let message = b"a device and another device, ".repeat(100);
        for method in [Compression::Gzip, Compression::Zstd] {
            let packed = method.pack(&message).unwrap();
            assert!(packed.len() * 5 < message.len(), "{method:?} packs");
            assert_eq!(method.unpack(packed.clone(), message.len()).unwrap(), message);
            let error = method.unpack(packed.clone(), message.len() - 1).unwrap_err();
            assert_eq!(error.status().code(), tonic::Code::ResourceExhausted);
            for cut in 1..packed.len() {
                assert!(method.unpack(packed.slice(..cut), message.len()).is_err(), "{method:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn short_and_random_messages_stay_as_they_are() {
        assert_eq!(Compression::Gzip.pack(&[0; PACKED_BYTES_MIN - 1]), None);
        let random: Vec<u8> = (0..600_u32).flat_map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect();
        assert_eq!(Compression::Gzip.pack(&random), None);
        assert_eq!(Compression::Zstd.pack(&random), None);
        assert_eq!(Compression::Identity.pack(&[0; 4096]), None);
    }

    #[test]
    fn garbage_and_bombs_are_refused() {
        for method in [Compression::Gzip, Compression::Zstd] {
            let error = method.unpack(Bytes::from_static(b"no such thing"), 100).unwrap_err();
            assert_eq!(error.status().code(), tonic::Code::InvalidArgument);
            let bomb = method.pack(&vec![0; 64 << 20]).unwrap();
            assert!(matches!(method.unpack(bomb, 1 << 20), Err(UnpackError::TooLong { .. })));
            assert_eq!(method.unpack(Bytes::new(), 100).unwrap(), Bytes::new(), "nothing is not unpacked");
        }
        // A window of 128 MiB, which HTTP does not allow: it would be taken before a byte is unpacked.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL).unwrap();
        encoder.window_log(27).unwrap();
        io::Write::write_all(&mut encoder, b"small").unwrap();
        let wide = encoder.finish().unwrap();
        assert!(matches!(Compression::Zstd.unpack(wide.into(), 100), Err(UnpackError::Garbled { .. })));
    }

    #[test]
    fn the_first_known_method_of_the_client_counts() {
        let chosen = |values: &[&'static str], sent| {
            Compression::accepted(&headers(ACCEPT_ENCODING, values), &ACCEPT_ENCODING, sent)
        };
        assert_eq!(chosen(&["br, zstd, gzip"], Compression::Identity), Compression::Zstd);
        assert_eq!(chosen(&["gzip;q=0, zstd;q=0.5"], Compression::Identity), Compression::Zstd);
        assert_eq!(chosen(&["br", "gzip"], Compression::Identity), Compression::Gzip);
        assert_eq!(chosen(&["identity"], Compression::Gzip), Compression::Identity);
        assert_eq!(chosen(&["br"], Compression::Gzip), Compression::Identity);
        assert_eq!(chosen(&[], Compression::Gzip), Compression::Gzip, "it takes what it sends");
    }

    #[test]
    fn an_unknown_method_is_refused_with_those_that_are_known() {
        let sent = |value| Compression::sent(&headers(CONTENT_ENCODING, &[value]), &CONTENT_ENCODING);
        assert_eq!(sent("gzip").unwrap(), Compression::Gzip);
        assert_eq!(sent("identity").unwrap(), Compression::Identity);
        let status = sent("br").unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented);
        assert!(status.message().contains(NAMES), "{status:?}");
    }
}
