//! Keys, signatures and their domains.
//!
//! Every signature is over a domain tag that ends in NUL and a body that names its fleet, so that a signature made
//! for one purpose, or for one fleet, is worth nothing for another.

#[cfg(feature = "counted-crypto")]
pub mod counted;
mod recent;

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::Signer;

use crate::entropy::Entropy;
use crate::id::KeyId;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// A root record.
    Root,
    /// An envelope of a lane.
    Envelope,
    /// A release manifest.
    Release,
    /// A sealed log segment.
    LogSegment,
    /// A receipt that what was sent is durable.
    Ack,
    /// A destination's receipt for a capsule.
    Receipt,
    /// A capsule that neighbours carry.
    Capsule,
    /// A bundle's manifest.
    Bundle,
    /// A beacon that vouches for the time.
    Beacon,
    /// A device's request for an identity.
    Enrolment,
}

impl Domain {
    /// The tag that stands before the signed bytes.
    #[must_use]
    pub const fn tag(self) -> &'static [u8] {
        match self {
            Self::Root => b"fleetd/root/1\0",
            Self::Envelope => b"fleetd/envelope/1\0",
            Self::Release => b"fleetd/release/1\0",
            Self::LogSegment => b"fleetd/log-segment/1\0",
            Self::Ack => b"fleetd/ack/1\0",
            Self::Receipt => b"fleetd/receipt/1\0",
            Self::Capsule => b"fleetd/capsule/1\0",
            Self::Bundle => b"fleetd/bundle/1\0",
            Self::Beacon => b"fleetd/beacon/1\0",
            Self::Enrolment => b"fleetd/enrolment/1\0",
        }
    }

    fn message(self, body: &[u8]) -> Vec<u8> {
        [self.tag(), body].concat()
    }
}

/// The byte that names Ed25519 in key ids and on the wire; P-256 for TPMs can come beside it.
pub const ALGORITHM_ED25519: u8 = 1;

/// Why bytes are no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// The wrong number of bytes.
    #[error("a key has 32 bytes, not {length}")]
    Length {
        /// How many there were.
        length: usize,
    },
    /// Not a point of the curve, or one of small order.
    #[error("the bytes are no usable Ed25519 key")]
    Point,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match the key and the signed bytes")]
pub struct VerifyError;

/// The bytes of a public key that was one when they were kept. Taking them for a key again costs some 5 µs, which whoever
/// reads a hundred thousand records does without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptKey([u8; 32]);

impl KeptKey {
    /// Takes 32 bytes as they are.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key.
    ///
    /// # Errors
    /// [`ParseKeyError`] when the bytes are none after all.
    pub fn key(&self) -> Result<PublicKey, ParseKeyError> {
        PublicKey::from_slice(&self.0)
    }
}

impl From<PublicKey> for KeptKey {
    fn from(key: PublicKey) -> Self {
        Self(*key.as_bytes())
    }
}

/// A public Ed25519 key: its bytes alone, for nodes keep many of them and check with few. The point of the curve that they
/// stand for is six times as large, and is found again when it is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes a key's 32 bytes.
    ///
    /// # Errors
    /// [`ParseKeyError`] when they are no key, or a weak one, under which many messages share a signature.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseKeyError> {
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| ParseKeyError::Length { length: bytes.len() })?;
        recent::point(&bytes).map(|_| Self(bytes))
    }

    /// The key's 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key's id: BLAKE3 over a tag, the algorithm byte and the key, cut to 16 bytes.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"fleetd/key/1\0").update(&[ALGORITHM_ED25519]).update(self.as_bytes());
        let mut id = [0; KeyId::LENGTH];
        hasher.finalize_xof().fill(&mut id);
        KeyId::from_bytes(id)
    }

    /// Checks a signature strictly: no malleable encoding, no small-order key.
    ///
    /// # Errors
    /// [`VerifyError`] when it does not match.
    pub fn verify(&self, domain: Domain, body: &[u8], signature: &Signature) -> Result<(), VerifyError> {
        #[cfg(feature = "counted-crypto")]
        if let Some(is_right) = counted::verify(self, &[domain.tag(), body], signature) {
            return if is_right { Ok(()) } else { Err(VerifyError) };
        }
        self.verify_bytes(&domain.message(body), signature)
    }

    /// Checks, as [`verify`](Self::verify), what [`SecretKey::sign_bare`] signed.
    ///
    /// # Errors
    /// [`VerifyError`] when it does not match.
    pub fn verify_bare(&self, message: &[u8], signature: &Signature) -> Result<(), VerifyError> {
        #[cfg(feature = "counted-crypto")]
        if let Some(is_right) = counted::verify(self, &[message], signature) {
            return if is_right { Ok(()) } else { Err(VerifyError) };
        }
        self.verify_bytes(message, signature)
    }

    fn verify_bytes(&self, message: &[u8], signature: &Signature) -> Result<(), VerifyError> {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        let point = recent::point(&self.0).map_err(|_| VerifyError)?;
        point.verify_strict(message, &signature).map_err(|_| VerifyError)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// A secret Ed25519 key. It prints as its public key's id only. A server's stands beside each device's document, so that
/// copies are one key.
#[derive(Clone)]
pub struct SecretKey(Arc<ed25519_dalek::SigningKey>);

impl SecretKey {
    /// Takes a key from its 32 secret bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Arc::new(ed25519_dalek::SigningKey::from_bytes(&bytes)))
    }

    /// Makes a key.
    #[must_use]
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self::from_bytes(entropy.bytes())
    }

    /// The 32 secret bytes, for the file that keeps them.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The public key's id.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.public().id()
    }

    /// Signs `body` for one purpose.
    #[must_use]
    pub fn sign(&self, domain: Domain, body: &[u8]) -> Signature {
        #[cfg(feature = "counted-crypto")]
        if let Some(signature) = counted::sign(&self.public(), &[domain.tag(), body]) {
            return signature;
        }
        Signature(self.0.sign(&domain.message(body)).to_bytes())
    }

    /// Signs what says itself what it is for, in the form that others have given it: a certificate, a request for one,
    /// or a handshake of TLS. None of them begins as a [`Domain`]'s tag does.
    #[must_use]
    pub fn sign_bare(&self, message: &[u8]) -> Signature {
        #[cfg(feature = "counted-crypto")]
        if let Some(signature) = counted::sign(&self.public(), &[message]) {
            return signature;
        }
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id())
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// How many bytes it has.
    pub const LENGTH: usize = 64;

    /// Takes a signature's 64 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The signature's 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x?}…)", self.0.first_chunk::<4>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_for_its_key_domain_and_body_only() {
        let mut entropy = Entropy::from_seed([5; 32]);
        let (key, other) = (SecretKey::generate(&mut entropy), SecretKey::generate(&mut entropy));
        let signature = key.sign(Domain::Envelope, b"body");
        assert_eq!(key.public().verify(Domain::Envelope, b"body", &signature), Ok(()));
        assert_eq!(key.public().verify(Domain::Release, b"body", &signature), Err(VerifyError));
        assert_eq!(key.public().verify(Domain::Envelope, b"Body", &signature), Err(VerifyError));
        assert_eq!(other.public().verify(Domain::Envelope, b"body", &signature), Err(VerifyError));
    }

    #[test]
    fn weak_and_malformed_keys_are_refused() {
        assert_eq!(PublicKey::from_slice(&[0; 32]), Err(ParseKeyError::Point));
        assert_eq!(PublicKey::from_slice(&[1; 31]), Err(ParseKeyError::Length { length: 31 }));
    }

    #[test]
    fn a_secret_key_does_not_print_its_secret() {
        let key = SecretKey::from_bytes([9; 32]);
        assert_eq!(format!("{key:?}"), format!("SecretKey({})", key.id()));
    }
}
