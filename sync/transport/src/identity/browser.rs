//! A certificate for browsers, which know neither Ed25519 nor the fleet.
//!
//! It vouches for nothing but itself: a browser shows a warning until its user has imported it. So it is kept, and made
//! anew only when it must be. Programs that know Ed25519 never see it.

use std::net::IpAddr;
use std::time::Duration;

use fleetd_sync_core::time::Wall;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

use super::authority::{IssueError, ServerName, alternative_name, set_validity};
use super::is_renewal_due;
use super::leaf::{ReadCertificateError, parse};

/// Time for which a browser's certificate is made.
///
/// # Source
/// Apple's requirements for trusted certificates refuse those that are valid for more than 825 days.
pub const BROWSER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(824 * DAY_SECONDS);

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// How far a browser's clock may be behind: a certificate that is not yet valid is refused without a way around.
const SLOW_CLOCK: Duration = Duration::from_secs(DAY_SECONDS);

/// Why what was kept is no certificate for browsers.
#[derive(Debug, thiserror::Error)]
pub enum ReadBrowserIdentityError {
    /// One of them is no PEM, or another kind of it.
    #[error("the certificate or its key is no PEM: {cause}")]
    Pem {
        /// What the reader said.
        cause: String,
    },
    /// The certificate cannot be read.
    #[error("the certificate cannot be read")]
    Certificate(#[from] ReadCertificateError),
    /// They do not belong together.
    #[error("the key is not the certificate's: {cause}")]
    Key {
        /// What the check said.
        cause: String,
    },
}

/// As whom a server meets browsers: a P-256 key, and a certificate that it signed itself.
pub struct BrowserIdentity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl std::fmt::Debug for BrowserIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BrowserIdentity")
    }
}

impl BrowserIdentity {
    /// Makes a key and its certificate. The key comes from the TLS library's own randomness, for it takes no other.
    ///
    /// # Errors
    /// [`IssueError`] when a name is none, or the certificate cannot be made.
    pub fn generate(names: &[ServerName], now: Wall) -> Result<Self, IssueError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, "fleetd");
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut parameters, before(now), now + BROWSER_CERTIFICATE_LIFETIME);
        for name in names {
            parameters.subject_alt_names.push(alternative_name(name)?);
        }
        let certificate = parameters.self_signed(&key)?;
        Ok(Self {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }

    /// Reads what [`Self::certificate_pem`] and [`Self::key_pem`] wrote.
    ///
    /// # Errors
    /// [`ReadBrowserIdentityError`] when it is something else.
    pub fn read(certificate_pem: &str, key_pem: &str) -> Result<Self, ReadBrowserIdentityError> {
        let pem = |error: rustls::pki_types::pem::Error| ReadBrowserIdentityError::Pem { cause: error.to_string() };
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(pem)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes()).map_err(pem)?;
        parse(&certificate)?;
        let owned = PrivateKeyDer::Pkcs8(key.clone_key());
        CertifiedKey::from_der(vec![certificate.clone()], owned, &super::tls::browsers_provider())
            .map_err(|error| ReadBrowserIdentityError::Key { cause: error.to_string() })?;
        Ok(Self { certificate, key, certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// Says whether the certificate still serves: it is good for a while, and has all of these names.
    #[must_use]
    pub fn serves(&self, names: &[ServerName], now: Wall) -> bool {
        let Ok(certificate) = parse(&self.certificate) else { return false };
        let wall = |seconds: i64| Wall(seconds.saturating_mul(1000));
        let validity = certificate.validity();
        let not_after = wall(validity.not_after.timestamp());
        let is_valid = wall(validity.not_before.timestamp()) <= now
            && !is_renewal_due(not_after, BROWSER_CERTIFICATE_LIFETIME, now);
        let held: Vec<ServerName> = match certificate.subject_alternative_name() {
            Ok(Some(held)) => held.value.general_names.iter().filter_map(read_name).collect(),
            Ok(None) | Err(_) => Vec::new(),
        };
        is_valid && names.iter().all(|name| held.contains(name))
    }

    /// The certificate, for users to import.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its key.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// When a certificate begins that is made now.
fn before(now: Wall) -> Wall {
    Wall(now.0.saturating_sub(i64::try_from(SLOW_CLOCK.as_millis()).unwrap_or(i64::MAX)))
}

fn read_name(name: &GeneralName<'_>) -> Option<ServerName> {
    match name {
        GeneralName::DNSName(name) => Some(ServerName::Dns((*name).to_owned())),
        GeneralName::IPAddress(bytes) => {
            let address = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(ServerName::Ip)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_800_000_000_000);

    fn names(names: &[&str]) -> Vec<ServerName> {
        names.iter().map(|name| ServerName::of_host(name)).collect()
    }

    #[test]
    fn what_was_kept_serves_until_its_time_or_its_names_are_over() {
        let all = names(&["localhost", "127.0.0.1", "::1"]);
        let made = BrowserIdentity::generate(&all, NOW).unwrap();
        let kept = BrowserIdentity::read(made.certificate_pem(), made.key_pem()).unwrap();
        assert_eq!(kept.certificate(), made.certificate());
        assert_eq!(kept.key(), made.key());
        assert!(kept.serves(&all, NOW));
        assert!(kept.serves(&all, before(NOW)));
        assert!(kept.serves(&names(&["localhost"]), NOW));
        assert!(!kept.serves(&names(&["localhost", "fleet.example"]), NOW));
        assert!(!kept.serves(&all, NOW + BROWSER_CERTIFICATE_LIFETIME));
        assert!(!kept.serves(&all, Wall(0)), "a server whose clock was wrong makes another");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let made = BrowserIdentity::generate(&names(&["localhost"]), NOW).unwrap();
        assert!(BrowserIdentity::read("", made.key_pem()).is_err());
        assert!(BrowserIdentity::read(made.key_pem(), made.key_pem()).is_err());
        assert!(BrowserIdentity::read(made.certificate_pem(), made.certificate_pem()).is_err());
        let other = BrowserIdentity::generate(&names(&["localhost"]), NOW).unwrap();
        let error = BrowserIdentity::read(made.certificate_pem(), other.key_pem()).unwrap_err();
        assert!(matches!(error, ReadBrowserIdentityError::Key { .. }), "{error:?}");
    }
}
