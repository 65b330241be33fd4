//! The fleet's CA: issues certificates to devices and servers.

use std::net::IpAddr;
use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::limit::DEVICE_CERTIFICATE_LIFETIME;
use fleetd_sync_core::time::Wall;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};

use super::crypto::{CertificateKey, SubjectKey};
use super::leaf::{Role, spiffe_name};

/// Time for which a server's certificate is issued; it issues its own anew while it runs.
pub const SERVER_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Bytes of a serial number: random, so that it names a certificate and tells nothing.
///
/// # Source
/// RFC 5280, section 4.1.2.2: positive, at most 20 bytes.
const SERIAL_BYTES: usize = 16;

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The certificate could not be made.
    #[error("the certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A name that no certificate can hold.
    #[error("{name:?} is no DNS name")]
    Name {
        /// The name.
        name: String,
    },
}

/// A name or an address under which clients of the API may dial a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerName {
    /// A host name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl ServerName {
    /// Takes a host as people write it.
    #[must_use]
    pub fn of_host(host: &str) -> Self {
        host.parse().map_or_else(|_| Self::Dns(host.to_owned()), Self::Ip)
    }
}

/// A certificate that was just issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    /// The certificate and those above it that a peer may need, leaf first, in DER.
    pub chain: Vec<Vec<u8>>,
    /// Its serial number.
    pub serial: Vec<u8>,
    /// Its last date.
    pub not_after: Wall,
}

/// The fleet's CA.
///
/// Its own certificate follows from its key alone, byte for byte: there is no file to lose.
pub struct CertificateAuthority {
    fleet: FleetId,
    key: PublicKey,
    certificate: Vec<u8>,
    issuer: Issuer<'static, CertificateKey>,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateAuthority({}, {})", self.fleet, self.key.id())
    }
}

impl CertificateAuthority {
    /// Takes the CA's key.
    ///
    /// # Errors
    /// [`IssueError`] when the key cannot sign.
    pub fn new(fleet: FleetId, key: &SecretKey) -> Result<Self, IssueError> {
        let signing_key = CertificateKey::from(key);
        let public_key = key.public();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, issuer_name(&public_key));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        parameters.not_before = rcgen::date_time_ymd(1970, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(9999, 12, 31);
        parameters.serial_number = Some(SerialNumber::from_slice(public_key.id().as_bytes()));
        let certificate = parameters.self_signed(&signing_key)?.der().to_vec();
        Ok(Self { fleet, key: public_key, certificate, issuer: Issuer::new(parameters, signing_key) })
    }

    /// The fleet.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// The key that the root delegated.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// Its own certificate, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its own certificate, in PEM, for tools that are not ours.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        let text = data_encoding::BASE64.encode(&self.certificate);
        let mut lines = String::from("-----BEGIN CERTIFICATE-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
            lines.push_str(line);
            lines.push('\n');
            rest = after;
        }
        lines + "-----END CERTIFICATE-----\n"
    }

    /// Issues a certificate to the device that holds `key`, as a signing request has shown. Nothing but the key is
    /// the device's to choose.
    ///
    /// # Errors
    /// [`IssueError`] when the certificate cannot be made.
    pub fn issue_device(
        &self,
        key: &PublicKey,
        now: Wall,
        entropy: &mut Entropy,
    ) -> Result<IssuedCertificate, IssueError> {
        let mut parameters = self.parameters(Role::Device, key, now + DEVICE_CERTIFICATE_LIFETIME, entropy)?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&parameters, key, now + DEVICE_CERTIFICATE_LIFETIME)
    }

    /// Issues a certificate to the server that holds `key`.
    ///
    /// # Errors
    /// [`IssueError`] when the certificate cannot be made, or a name is none.
    pub fn issue_server(
        &self,
        key: &PublicKey,
        names: &[ServerName],
        now: Wall,
        entropy: &mut Entropy,
    ) -> Result<IssuedCertificate, IssueError> {
        let mut parameters = self.parameters(Role::Server, key, now + SERVER_CERTIFICATE_LIFETIME, entropy)?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            parameters.subject_alt_names.push(alternative_name(name)?);
        }
        self.issue(&parameters, key, now + SERVER_CERTIFICATE_LIFETIME)
    }

    fn parameters(
        &self,
        role: Role,
        key: &PublicKey,
        not_after: Wall,
        entropy: &mut Entropy,
    ) -> Result<CertificateParams, IssueError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        let name = spiffe_name(self.fleet, role, key.id());
        parameters.subject_alt_names = vec![SanType::URI(name.try_into()?)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Valid from the beginning of time: an issuer whose clock has not been set is believed all the same.
        set_validity(&mut parameters, Wall(0), not_after);
        let mut serial: [u8; SERIAL_BYTES] = entropy.bytes();
        if let Some(first) = serial.first_mut() {
            // Positive, and of the same length whatever was drawn.
            *first = (*first & 0x7f) | 0x40;
        }
        parameters.serial_number = Some(SerialNumber::from_slice(&serial));
        Ok(parameters)
    }

    fn issue(
        &self,
        parameters: &CertificateParams,
        key: &PublicKey,
        not_after: Wall,
    ) -> Result<IssuedCertificate, IssueError> {
        let certificate = parameters.signed_by(&SubjectKey(*key), &self.issuer)?;
        let serial = parameters.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        Ok(IssuedCertificate { chain: vec![certificate.der().to_vec()], serial, not_after })
    }
}

/// The last year that a certificate's date can name is 9999.
const YEARS_MAX: Duration = Duration::from_secs(8000 * 365 * 24 * 60 * 60);

/// Sets the dates between which a certificate is valid.
pub(super) fn set_validity(parameters: &mut CertificateParams, not_before: Wall, not_after: Wall) {
    let since_1970 = |date: Wall| Duration::from_millis(u64::try_from(date.0).unwrap_or(0)).min(YEARS_MAX);
    parameters.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(not_before);
    parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(not_after);
}

/// A name as certificates have it.
pub(super) fn alternative_name(name: &ServerName) -> Result<SanType, IssueError> {
    Ok(match name {
        ServerName::Ip(address) => SanType::IpAddress(*address),
        ServerName::Dns(name) => {
            let error = |_| IssueError::Name { name: name.clone() };
            SanType::DnsName(name.as_str().try_into().map_err(error)?)
        }
    })
}

/// The name of a CA, which stands as issuer in what it issues.
pub(super) fn issuer_name(key: &PublicKey) -> String {
    key.id().to_string()
}
