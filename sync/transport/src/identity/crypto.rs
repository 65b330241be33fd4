//! The cryptography of our own connections and certificates: one algorithm of each kind.
//!
//! Certificates and handshakes are signed with Ed25519, by the keys and the library that sign everything else of the
//! fleet; keys are agreed with X25519, and packets sealed with AES-128-GCM, or with ChaCha20-Poly1305 where a processor
//! has no instructions for AES. What is not offered cannot be negotiated, and takes no room on a device. Only the API
//! port knows more: browsers cannot judge Ed25519.

use std::sync::{Arc, LazyLock};

use fleetd_sync_core::key::{PublicKey, SecretKey, Signature};
use rcgen::PublicKeyData;
use rustls::crypto::ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer, alg_id,
};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey, public_key_to_spki};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// How signatures of certificates and handshakes are checked.
pub(super) const ALGORITHMS: WebPkiSupportedAlgorithms =
    WebPkiSupportedAlgorithms { all: &[&Ed25519], mapping: &[(SignatureScheme::ED25519, &[&Ed25519])] };

/// The cryptography of every connection between ours, named here so that no process-wide default is needed.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256],
            kx_groups: vec![X25519],
            signature_verification_algorithms: ALGORITHMS,
            secure_random: &Os,
            key_provider: &NoKeys,
        })
    });
    Arc::clone(&PROVIDER)
}

/// A chain of certificates with the key of its leaf, as the TLS library takes them.
///
/// # Errors
/// What the library says of certificates that are none, or of a key that is not theirs.
pub(super) fn certified(chain: Vec<CertificateDer<'static>>, key: &SecretKey) -> Result<CertifiedKey, Error> {
    let certified = CertifiedKey::new(chain, Arc::new(TlsKey(key.clone())));
    certified.keys_match()?;
    Ok(certified)
}

/// As [`certified`], shown to whoever asks.
///
/// # Errors
/// Those of [`certified`].
pub(super) fn always(chain: Vec<CertificateDer<'static>>, key: &SecretKey) -> Result<Arc<SingleCertAndKey>, Error> {
    Ok(Arc::new(SingleCertAndKey::from(certified(chain, key)?)))
}

/// Checks signatures strictly.
#[derive(Debug)]
struct Ed25519;

impl SignatureVerificationAlgorithm for Ed25519 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = PublicKey::from_slice(public_key).map_err(|_| InvalidSignature)?;
        let signature = Signature::from_slice(signature).ok_or(InvalidSignature)?;
        key.verify_bare(message, &signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }
}

/// A secret key as the TLS library takes it.
#[derive(Clone, Debug)]
struct TlsKey(SecretKey);

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ED25519, self.0.public().as_bytes()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.0.sign_bare(message).as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A secret key as the certificate library takes it.
pub(super) struct CertificateKey {
    secret: SecretKey,
    public: SubjectKey,
}

impl From<&SecretKey> for CertificateKey {
    fn from(key: &SecretKey) -> Self {
        Self { secret: key.clone(), public: SubjectKey(key.public()) }
    }
}

impl PublicKeyData for CertificateKey {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm()
    }
}

impl rcgen::SigningKey for CertificateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.secret.sign_bare(message).as_bytes().to_vec())
    }
}

/// A public key as the certificate library takes it.
pub(super) struct SubjectKey(pub(super) PublicKey);

impl PublicKeyData for SubjectKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

/// The operating system's randomness.
#[derive(Debug)]
struct Os;

impl SecureRandom for Os {
    fn fill(&self, buf: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(buf).map_err(|_| GetRandomFailed)
    }
}

/// Reads no keys: those that are used here were read already.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("keys are given to this provider as they are".to_owned()))
    }
}
