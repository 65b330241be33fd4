//! The text form in which keys, root records and releases move in files and in mail.
//!
//! A block of base 64 between two lines that name what it is, and a checksum inside, so that a file that was cut or
//! changed on its way says so by itself:
//!
//! ```text
//! -----BEGIN FLEETD PUBLIC KEY-----
//! AWv1…
//! -----END FLEETD PUBLIC KEY-----
//! ```

use data_encoding::{BASE64, DecodeError};

use super::record::{ReadRecordError, RootRecord};
use crate::key::{ALGORITHM_ED25519, ParseKeyError, PublicKey, SecretKey};

/// Characters of one line of base 64, as PEM has them.
const LINE_CHARS: usize = 64;
/// Bytes of the checksum: enough against accidents, which is all that it is for.
const CHECKSUM_BYTES: usize = 4;

/// Why a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadArmourError {
    /// There is no block of any kind.
    #[error("there is no \"-----BEGIN FLEETD {label}-----\" block")]
    Missing {
        /// What was looked for.
        label: &'static str,
    },
    /// There is a block of another kind.
    #[error("this is a {found:?}, not a {label:?}")]
    Kind {
        /// What was looked for.
        label: &'static str,
        /// What it is.
        found: String,
    },
    /// A character that does not belong there.
    #[error("the {label:?} block is damaged")]
    Damaged {
        /// What it is.
        label: &'static str,
        /// Where it is damaged.
        source: DecodeError,
    },
    /// Cut or changed on its way.
    #[error("the checksum of the {label:?} block is wrong: it was cut or changed")]
    Checksum {
        /// What it is.
        label: &'static str,
    },
    /// A key of an algorithm that this version does not know.
    #[error("the key is of algorithm {algorithm}, which this version does not know")]
    Algorithm {
        /// Its number.
        algorithm: u8,
    },
    /// Not a key.
    #[error("the block holds no key")]
    Key(#[from] ParseKeyError),
    /// Not a root record.
    #[error("the block holds no root record")]
    Record(#[from] ReadRecordError),
    /// Not a signed release.
    #[error("the block holds no release")]
    Release(#[from] crate::release::ReadReleaseError),
}

/// What can be written as a block of text.
pub trait Armoured: Sized {
    /// What the block is called.
    const LABEL: &'static str;

    /// The bytes in the block.
    fn to_armour_bytes(&self) -> Vec<u8>;

    /// Reads the bytes in the block.
    ///
    /// # Errors
    /// [`ReadArmourError`] when they are something else.
    fn from_armour_bytes(bytes: &[u8]) -> Result<Self, ReadArmourError>;

    /// Writes the block.
    #[must_use]
    fn to_armour(&self) -> String {
        let bytes = self.to_armour_bytes();
        let text = BASE64.encode(&[bytes.as_slice(), &checksum(&bytes)].concat());
        let mut block = format!("-----BEGIN FLEETD {}-----\n", Self::LABEL);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at_checked(LINE_CHARS).unwrap_or((rest, ""));
            block.push_str(line);
            block.push('\n');
            rest = after;
        }
        block.push_str(&format!("-----END FLEETD {}-----\n", Self::LABEL));
        block
    }
}

/// Reads the first block of its kind in `text`; other text around it is ignored.
///
/// # Errors
/// [`ReadArmourError`] when there is none, it is damaged, or it holds something else.
pub fn read_armour<T: Armoured>(text: &str) -> Result<T, ReadArmourError> {
    let label = T::LABEL;
    if let Some((block, _)) = next_block(text, label)? {
        return T::from_armour_bytes(&block);
    }
    let found = text.split_once("-----BEGIN ").and_then(|(_, after)| after.split_once("-----"));
    Err(match found {
        Some((found, _)) => ReadArmourError::Kind { label, found: found.chars().take(LINE_CHARS).collect() },
        None => ReadArmourError::Missing { label },
    })
}

/// Reads every block of its kind in `text`, in order; other text around them is ignored.
///
/// # Errors
/// [`ReadArmourError`] when one is damaged, or holds something else.
pub fn read_all_armour<T: Armoured>(text: &str) -> Result<Vec<T>, ReadArmourError> {
    let (mut all, mut rest) = (Vec::new(), text);
    while let Some((block, after)) = next_block(rest, T::LABEL)? {
        all.push(T::from_armour_bytes(&block)?);
        rest = after;
    }
    Ok(all)
}

/// The bytes of the next block of that kind, and the text behind it.
fn next_block<'a>(text: &'a str, label: &'static str) -> Result<Option<(Vec<u8>, &'a str)>, ReadArmourError> {
    let (begin, end) = (format!("-----BEGIN FLEETD {label}-----"), format!("-----END FLEETD {label}-----"));
    let Some((_, after)) = text.split_once(&begin) else { return Ok(None) };
    let (content, after) = after.split_once(&end).ok_or(ReadArmourError::Checksum { label })?;
    let digits: String = content.split_ascii_whitespace().collect();
    let bytes = BASE64.decode(digits.as_bytes()).map_err(|source| ReadArmourError::Damaged { label, source })?;
    match bytes.split_last_chunk::<CHECKSUM_BYTES>() {
        Some((bytes, sum)) if *sum == checksum(bytes) => Ok(Some((bytes.to_vec(), after))),
        _ => Err(ReadArmourError::Checksum { label }),
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"fleetd/armour/1\0").update(bytes).finalize_xof().fill(&mut sum);
    sum
}

fn key_bytes(bytes: &[u8]) -> Result<[u8; 32], ReadArmourError> {
    match bytes.split_first() {
        Some((&ALGORITHM_ED25519, key)) => {
            Ok(key.try_into().map_err(|_| ParseKeyError::Length { length: key.len() })?)
        }
        Some((&algorithm, _)) => Err(ReadArmourError::Algorithm { algorithm }),
        None => Err(ParseKeyError::Length { length: 0 }.into()),
    }
}

impl Armoured for PublicKey {
    const LABEL: &'static str = "PUBLIC KEY";

    fn to_armour_bytes(&self) -> Vec<u8> {
        [&[ALGORITHM_ED25519], self.as_bytes().as_slice()].concat()
    }

    fn from_armour_bytes(bytes: &[u8]) -> Result<Self, ReadArmourError> {
        Ok(Self::from_slice(&key_bytes(bytes)?)?)
    }
}

impl Armoured for SecretKey {
    const LABEL: &'static str = "SECRET KEY";

    fn to_armour_bytes(&self) -> Vec<u8> {
        [&[ALGORITHM_ED25519], self.to_bytes().as_slice()].concat()
    }

    fn from_armour_bytes(bytes: &[u8]) -> Result<Self, ReadArmourError> {
        Ok(Self::from_bytes(key_bytes(bytes)?))
    }
}

impl Armoured for RootRecord {
    const LABEL: &'static str = "ROOT RECORD";

    fn to_armour_bytes(&self) -> Vec<u8> {
        self.encode()
    }

    fn from_armour_bytes(bytes: &[u8]) -> Result<Self, ReadArmourError> {
        Ok(Self::decode(bytes)?)
    }
}

impl Armoured for crate::release::SignedManifest {
    const LABEL: &'static str = "RELEASE";

    fn to_armour_bytes(&self) -> Vec<u8> {
        self.encode()
    }

    fn from_armour_bytes(bytes: &[u8]) -> Result<Self, ReadArmourError> {
        Ok(Self::decode(bytes)?)
    }
}
