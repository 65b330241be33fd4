//! Enrolment tokens: what a device is given so that it may ask for an identity.
//!
//! A token says where a fleet's servers are, which fleet it is, and proves by a secret that somebody with the right
//! to do so invited the device. The device believes the fleet id in it before it believes anything from the network;
//! the server keeps only the secret's hash. Whether a token still admits a device is for [`TokenState::admit`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, DecodeError};

use crate::codec::{ReadError, Reader, Writer};
use crate::entropy::Entropy;
use crate::id::{FleetId, LocalId, TokenId};
use crate::limit;
use crate::time::Wall;

/// What every token starts with.
const PREFIX: &str = "fleetd-";
/// The version of the layout below.
const LAYOUT: u8 = 1;
/// Bytes of the checksum: a mistyped token passes once in four billion times.
const CHECKSUM_BYTES: usize = 4;

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address; write host:port, or [address]:port for IPv6")]
pub struct ParseAddressError {
    /// What was given.
    text: String,
}

/// Where a server listens: a host name or an IP address, and a port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerAddress(String);

impl ServerAddress {
    /// The address as text (`host:port`).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, without the brackets of IPv6.
    #[must_use]
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(self.0.as_str(), |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

impl FromStr for ServerAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let error = || ParseAddressError { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port_is_good = digits && !port.starts_with('0') && port.parse::<u16>().is_ok();
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_is_good = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)),
        };
        if port_is_good && host_is_good && text.len() <= limit::ADDRESS_CHARS_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(error())
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token's secret. It does not print.
#[derive(Clone)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// Draws a secret.
    #[must_use]
    pub fn draw(entropy: &mut Entropy) -> Self {
        Self(entropy.bytes())
    }

    /// Takes a secret's 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The secret's 32 bytes, for a server that has proven to be of the fleet.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What a server keeps of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"fleetd/token/1\0").update(&self.0);
        TokenHash(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret")
    }
}

/// The hash of a token's secret: enough to recognise it, and worth nothing to whoever steals it.
///
/// A secret of 256 random bits needs no slow hash. It compares in constant time, so that nobody can find a hash byte
/// by byte; equality is that comparison.
#[derive(Clone, Copy, Debug)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Takes a hash's 32 bytes, from the disk.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash's 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        // The comparison of `blake3::Hash` is in constant time.
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for TokenHash {}

/// Why a text is no enrolment token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// It does not look like one at all.
    #[error("this is no enrolment token: one starts with {PREFIX:?}")]
    NotAToken,
    /// Longer than any token.
    #[error("an enrolment token has at most {length_max} characters, not {length}")]
    TooLong {
        /// What there was.
        length: usize,
        /// What there may be.
        length_max: usize,
    },
    /// A character that no token has.
    #[error("the enrolment token is damaged: it has a character that no token has")]
    Character {
        /// Where.
        source: DecodeError,
    },
    /// Mistyped, cut or changed.
    #[error("the enrolment token is damaged: a character is wrong or missing")]
    Damaged,
    /// Made by a newer version.
    #[error("the enrolment token has layout {layout}; this version reads {LAYOUT}")]
    Newer {
        /// Its layout.
        layout: u8,
    },
    /// Whole, and yet not as a token is made.
    #[error("the enrolment token says what no token says")]
    Malformed(#[from] ReadError),
    /// An address in it is none.
    #[error("the enrolment token holds an address that is none")]
    Address(#[from] ParseAddressError),
}

/// Why a token cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NewTokenError {
    /// No address, or too many.
    #[error("{count} addresses; a token holds 1 to {count_max}")]
    Addresses {
        /// How many.
        count: usize,
        /// How many there may be.
        count_max: usize,
    },
    /// Too long to be read by anybody.
    #[error("the token would have {length} characters; it may have {length_max}")]
    TooLong {
        /// What it would have.
        length: usize,
        /// What it may have.
        length_max: usize,
    },
}

/// What a device is given so that it may ask for an identity. Its text form is a secret.
#[derive(Clone, Debug)]
pub struct EnrolmentToken {
    /// Where the fleet's servers are, the best first.
    addresses: Vec<ServerAddress>,
    fleet: FleetId,
    id: TokenId,
    secret: TokenSecret,
}

impl EnrolmentToken {
    /// Makes a token.
    ///
    /// # Errors
    /// [`NewTokenError`] when it has no address or would be too long.
    pub fn new(
        addresses: Vec<ServerAddress>,
        fleet: FleetId,
        id: TokenId,
        secret: TokenSecret,
    ) -> Result<Self, NewTokenError> {
        let (count, count_max) = (addresses.len(), limit::TOKEN_ADDRESSES_MAX);
        if count == 0 || count > count_max {
            return Err(NewTokenError::Addresses { count, count_max });
        }
        let token = Self { addresses, fleet, id, secret };
        let length = token.to_secret_text().len();
        if length > limit::TOKEN_CHARS_MAX {
            return Err(NewTokenError::TooLong { length, length_max: limit::TOKEN_CHARS_MAX });
        }
        Ok(token)
    }

    /// Where the fleet's servers are, the best first.
    #[must_use]
    pub fn addresses(&self) -> &[ServerAddress] {
        &self.addresses
    }

    /// The fleet.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// The token's id, which is no secret.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The secret.
    #[must_use]
    pub const fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    /// The text to hand to a device: whoever has it can ask to join.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        let mut writer = Writer::new();
        writer.u8(LAYOUT).array(self.fleet.as_bytes()).array(self.id.as_bytes()).array(self.secret.as_bytes());
        writer.count(self.addresses.len());
        for address in &self.addresses {
            writer.text(address.as_str());
        }
        let bytes = writer.finish();
        let bytes = [bytes.as_slice(), &checksum(&bytes)].concat();
        format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }
}

impl FromStr for EnrolmentToken {
    type Err = ParseTokenError;

    /// Reads a token as people paste it: spaces, line breaks and capitals do not matter.
    fn from_str(text: &str) -> Result<Self, ParseTokenError> {
        let (length, length_max) = (text.len(), 2 * limit::TOKEN_CHARS_MAX);
        if length > length_max {
            return Err(ParseTokenError::TooLong { length, length_max });
        }
        let text: String = text.split_whitespace().collect::<String>().to_ascii_lowercase();
        let digits = text.strip_prefix(PREFIX).ok_or(ParseTokenError::NotAToken)?.to_ascii_uppercase();
        let bytes = match BASE32_NOPAD.decode(digits.as_bytes()) {
            Ok(bytes) => bytes,
            // A length that no encoding has, or bits left over, come of a lost character, not of a wrong one.
            Err(DecodeError { kind: data_encoding::DecodeKind::Symbol, position }) => {
                let source = DecodeError { kind: data_encoding::DecodeKind::Symbol, position };
                return Err(ParseTokenError::Character { source });
            }
            Err(_) => return Err(ParseTokenError::Damaged),
        };
        let bytes = match bytes.split_last_chunk::<CHECKSUM_BYTES>() {
            Some((bytes, sum)) if *sum == checksum(bytes) => bytes,
            _ => return Err(ParseTokenError::Damaged),
        };
        read(bytes)
    }
}

fn read(bytes: &[u8]) -> Result<EnrolmentToken, ParseTokenError> {
    let mut reader = Reader::new(bytes);
    let layout = reader.u8("layout")?;
    if layout != LAYOUT {
        return Err(ParseTokenError::Newer { layout });
    }
    let fleet = FleetId::from_bytes(reader.array("fleet")?);
    let id = TokenId::from_bytes(reader.array("token id")?);
    let secret = TokenSecret(reader.array("secret")?);
    let count = reader.count("addresses", limit::TOKEN_ADDRESSES_MAX)?;
    if count == 0 {
        return Err(ReadError::Value { what: "addresses", value: 0 }.into());
    }
    let mut addresses = Vec::with_capacity(count);
    for _ in 0..count {
        addresses.push(reader.text("address", limit::ADDRESS_CHARS_MAX)?.parse()?);
    }
    reader.finish()?;
    Ok(EnrolmentToken { addresses, fleet, id, secret })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"fleetd/token-checksum/1\0").update(bytes).finalize_xof().fill(&mut sum);
    sum
}

/// What a server keeps of a token, and whom it has admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenState {
    /// The hash of the secret.
    pub secret_hash: TokenHash,
    /// How many devices may register with it.
    pub uses_max: u32,
    /// The devices that have.
    pub used_by: BTreeSet<LocalId>,
    /// Whether devices wait for an operator's word.
    pub needs_approval: bool,
    /// From when on it is refused.
    pub expires_at: Option<Wall>,
    /// When it was revoked.
    pub revoked_at: Option<Wall>,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The device may have its identity.
    Admitted,
    /// An operator decides.
    NeedsApproval,
}

/// Why a token admits nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// Another secret than the token's.
    #[error("the enrolment token's secret is wrong")]
    Secret,
    /// An operator revoked it.
    #[error("the enrolment token was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the enrolment token has expired")]
    Expired,
    /// As many devices as it was made for have registered.
    #[error("the enrolment token is used up: it was made for {uses_max}")]
    UsedUp {
        /// How many it was made for.
        uses_max: u32,
    },
}

impl TokenState {
    /// Decides whether `device` may register with `secret` at `now`. A device that has registered with this token
    /// before uses nothing up by asking again.
    ///
    /// # Errors
    /// [`AdmitError`] when it may not. A wrong secret is named first, so that whoever lacks the secret learns
    /// nothing about the token.
    pub fn admit(&self, device: LocalId, secret: &TokenSecret, now: Wall) -> Result<Admission, AdmitError> {
        if secret.hash() != self.secret_hash {
            return Err(AdmitError::Secret);
        }
        self.check_open(device, now)?;
        Ok(if self.needs_approval { Admission::NeedsApproval } else { Admission::Admitted })
    }

    /// Says whether `device` would be admitted at `now` with the right secret.
    ///
    /// # Errors
    /// [`AdmitError`] when it would not.
    pub fn check_open(&self, device: LocalId, now: Wall) -> Result<(), AdmitError> {
        if self.revoked_at.is_some() {
            return Err(AdmitError::Revoked);
        }
        if self.expires_at.is_some_and(|expires_at| now >= expires_at) {
            return Err(AdmitError::Expired);
        }
        let uses = u32::try_from(self.used_by.len()).unwrap_or(u32::MAX);
        if uses >= self.uses_max && !self.used_by.contains(&device) {
            return Err(AdmitError::UsedUp { uses_max: self.uses_max });
        }
        Ok(())
    }
}
