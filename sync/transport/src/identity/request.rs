//! Signing requests: a device's proof that it holds the key that it wants a certificate for.

use fleetd_sync_core::key::{ParseKeyError, PublicKey, SecretKey, Signature};
use fleetd_sync_core::limit::CSR_BYTES_MAX;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::crypto::CertificateKey;
use super::leaf::{ED25519, read_key};

/// Why no signing request could be made.
#[derive(Debug, thiserror::Error)]
#[error("the signing request could not be made")]
pub struct SigningRequestError(#[from] rcgen::Error);

/// Why a signing request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRequestError {
    /// Larger than any that is needed.
    #[error("a signing request has at most {length_max} bytes, not {length}")]
    TooLarge {
        /// What there was.
        length: usize,
        /// What there may be.
        length_max: usize,
    },
    /// Not a PKCS #10 request.
    #[error("the bytes are no PKCS #10 signing request")]
    Malformed,
    /// Another algorithm than Ed25519.
    #[error("the signing request is for a {algorithm} key; only Ed25519 is known")]
    Algorithm {
        /// Its object identifier.
        algorithm: String,
    },
    /// No usable key.
    #[error("the signing request holds no usable key")]
    Key(#[from] ParseKeyError),
    /// Whoever made it does not hold the key.
    #[error("the signing request is not signed with the key that it asks for")]
    Signature,
}

/// Makes a PKCS #10 request, in DER, for a device's own key. It asks for nothing else: a server would not listen.
///
/// # Errors
/// [`SigningRequestError`] when the key cannot sign.
pub fn signing_request(key: &SecretKey) -> Result<Vec<u8>, SigningRequestError> {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let request = parameters.serialize_request(&CertificateKey::from(key))?;
    Ok(request.der().to_vec())
}

/// Takes the key from a PKCS #10 request whose maker holds it. Whatever else the request asks for is ignored.
///
/// # Errors
/// [`ReadRequestError`] when it is too large, malformed, of another algorithm, or not signed with its own key.
pub fn verify_signing_request(der: &[u8]) -> Result<PublicKey, ReadRequestError> {
    if der.len() > CSR_BYTES_MAX {
        return Err(ReadRequestError::TooLarge { length: der.len(), length_max: CSR_BYTES_MAX });
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| ReadRequestError::Malformed)?;
    if !rest.is_empty() {
        return Err(ReadRequestError::Malformed);
    }
    let info = &request.certification_request_info;
    for algorithm in [&info.subject_pki.algorithm, &request.signature_algorithm] {
        if algorithm.algorithm != ED25519 {
            return Err(ReadRequestError::Algorithm { algorithm: algorithm.algorithm.to_id_string() });
        }
    }
    let key = read_key(&info.subject_pki)?;
    let signature = Signature::from_slice(&request.signature_value.data).ok_or(ReadRequestError::Signature)?;
    key.verify_bare(info.raw, &signature).map_err(|_| ReadRequestError::Signature)?;
    Ok(key)
}
