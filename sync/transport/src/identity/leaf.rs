//! What a certificate says, and whether the fleet vouches for it.

use std::time::Duration;

use fleetd_sync_core::id::{FleetId, KeyId, LocalId};
use fleetd_sync_core::key::{ParseKeyError, PublicKey};
use fleetd_sync_core::time::Wall;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::authority::issuer_name;
use crate::link::PeerIdentity;

/// The algorithm of every key and signature here: RFC 8410, section 3.
pub(super) const ED25519: Oid<'static> = oid!(1.3.101.112);

/// Why a certificate is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadCertificateError {
    /// The peer showed none.
    #[error("there is no certificate")]
    Missing,
    /// Not an X.509 certificate.
    #[error("the bytes are no X.509 certificate")]
    Malformed,
    /// Another algorithm than Ed25519.
    #[error("the certificate is for a {algorithm} key; only Ed25519 is known")]
    Algorithm {
        /// Its object identifier.
        algorithm: String,
    },
    /// No usable key.
    #[error("the certificate holds no usable key")]
    Key(#[from] ParseKeyError),
    /// Not exactly one name of the form that ours have.
    #[error("the certificate does not name a device or a server of a fleet: {names:?}")]
    Name {
        /// The URIs in it.
        names: Vec<String>,
    },
    /// A server's where a device's was needed, or the other way round.
    #[error("the certificate names a {found}, not a {expected}")]
    Role {
        /// What was needed.
        expected: &'static str,
        /// What it names.
        found: &'static str,
    },
    /// It names somebody whose key is another.
    #[error("the certificate names {named} and holds the key of {held}")]
    ForeignKey {
        /// Whom it names.
        named: KeyId,
        /// Whose key it holds.
        held: KeyId,
    },
}

/// Why a server is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyServerError {
    /// Its certificate cannot be read, or is not a server's.
    #[error("the server's certificate is not one of a fleet")]
    Certificate(#[from] ReadCertificateError),
    /// It is another fleet's server.
    #[error("the server is of fleet {found}, not of {expected}")]
    ForeignFleet {
        /// The fleet that was asked for.
        expected: FleetId,
        /// The server's.
        found: FleetId,
    },
    /// None of the fleet's CAs issued its certificate.
    #[error("the fleet's CA did not issue the server's certificate: {cause}")]
    Issuer {
        /// What the check said.
        cause: String,
    },
}

/// Whom a certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A device.
    Device,
    /// A server.
    Server,
}

impl Role {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Server => "server",
        }
    }
}

/// The name of a device or a server in a certificate.
pub(super) fn spiffe_name(fleet: FleetId, role: Role, key: KeyId) -> String {
    match role {
        Role::Device => format!("spiffe://{fleet}/device/{}", LocalId::from(key)),
        Role::Server => format!("spiffe://{fleet}/server/{key}"),
    }
}

/// What a leaf certificate says. Who issued it is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) fleet: FleetId,
    pub(super) role: Role,
    pub(super) key: PublicKey,
    pub(super) not_before: Wall,
    pub(super) not_after: Wall,
}

impl Leaf {
    pub(super) fn read(der: &[u8]) -> Result<Self, ReadCertificateError> {
        let certificate = parse(der)?;
        let key = certificate_key(der)?;
        let (fleet, role, named) = read_name(&certificate)?;
        if named != key.id() {
            return Err(ReadCertificateError::ForeignKey { named, held: key.id() });
        }
        let validity = certificate.validity();
        let wall = |seconds: i64| Wall(seconds.saturating_mul(1000));
        let (not_before, not_after) = (wall(validity.not_before.timestamp()), wall(validity.not_after.timestamp()));
        Ok(Self { fleet, role, key, not_before, not_after })
    }

    pub(super) fn of_role(self, expected: Role) -> Result<Self, ReadCertificateError> {
        if self.role == expected {
            return Ok(self);
        }
        Err(ReadCertificateError::Role { expected: expected.word(), found: self.role.word() })
    }

    /// A date at which the certificate is valid: checks that take a date are given this one, so that no clock
    /// decides.
    pub(super) fn some_valid_date(&self) -> UnixTime {
        let since = Duration::from_millis(u64::try_from(self.not_before.0).unwrap_or(0));
        UnixTime::since_unix_epoch(since)
    }
}

pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, ReadCertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(ReadCertificateError::Malformed),
    }
}

/// Reads the one URI of a certificate as fleet, role and key id.
fn read_name(certificate: &X509Certificate<'_>) -> Result<(FleetId, Role, KeyId), ReadCertificateError> {
    let names = certificate.subject_alternative_name().map_err(|_| ReadCertificateError::Malformed)?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let error = || ReadCertificateError::Name { names: uris.iter().map(ToString::to_string).collect() };
    let [uri] = uris.as_slice() else { return Err(error()) };
    let mut segments = uri.strip_prefix("spiffe://").ok_or_else(error)?.split('/');
    let (fleet, role, id) = match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some(fleet), Some("device"), Some(id), None) => {
            (fleet, Role::Device, id.parse::<LocalId>().map(KeyId::from).map_err(|_| error())?)
        }
        (Some(fleet), Some("server"), Some(id), None) => {
            (fleet, Role::Server, id.parse::<KeyId>().map_err(|_| error())?)
        }
        _ => return Err(error()),
    };
    let fleet = fleet.parse().map_err(|_| error())?;
    // One spelling only: what was parsed must print as it was written.
    if spiffe_name(fleet, role, id) == *uri { Ok((fleet, role, id)) } else { Err(error()) }
}

/// Reads the Ed25519 key of a SubjectPublicKeyInfo whose algorithm was checked.
pub(super) fn read_key(info: &SubjectPublicKeyInfo<'_>) -> Result<PublicKey, ParseKeyError> {
    PublicKey::from_slice(&info.subject_public_key.data)
}

/// The key that a certificate is for: a CA's, a device's or a server's.
///
/// # Errors
/// [`ReadCertificateError`] when it is malformed or of another algorithm.
pub fn certificate_key(der: &[u8]) -> Result<PublicKey, ReadCertificateError> {
    let certificate = parse(der)?;
    let info = certificate.public_key();
    if info.algorithm.algorithm != ED25519 {
        return Err(ReadCertificateError::Algorithm { algorithm: info.algorithm.algorithm.to_id_string() });
    }
    Ok(read_key(info)?)
}

/// The last date of a device's or a server's certificate.
///
/// # Errors
/// [`ReadCertificateError`] when it is not one of ours.
pub fn certificate_not_after(der: &[u8]) -> Result<Wall, ReadCertificateError> {
    Ok(Leaf::read(der)?.not_after)
}

/// The fleet that a server's certificate names, and its last date. Whether that is true is another question.
///
/// # Errors
/// [`ReadCertificateError`] when it is not one of ours, or not a server's.
pub fn server_claim(der: &[u8]) -> Result<(FleetId, Wall), ReadCertificateError> {
    let leaf = Leaf::read(der)?.of_role(Role::Server)?;
    Ok((leaf.fleet, leaf.not_after))
}

/// Says whether two thirds of the time for which a certificate was issued are over: a device that was there is asked to
/// renew it well before.
#[must_use]
pub fn is_renewal_due(not_after: Wall, lifetime: Duration, now: Wall) -> bool {
    now + lifetime / 3 >= not_after
}

/// Reads who a device is from the chain that it showed in a handshake that [`super::server_tls`] accepted.
///
/// # Errors
/// [`ReadCertificateError`] when there is no certificate, or not a device's.
pub fn peer_identity(chain: &[CertificateDer<'_>], now: Wall) -> Result<PeerIdentity, ReadCertificateError> {
    let leaf = chain.first().ok_or(ReadCertificateError::Missing)?;
    let leaf = Leaf::read(leaf)?.of_role(Role::Device)?;
    Ok(PeerIdentity {
        device: leaf.key.id().into(),
        key: leaf.key,
        not_after: leaf.not_after,
        expired: now > leaf.not_after,
    })
}

/// Checks that a certificate is a server's of `fleet`, issued by one of `authorities`: those that the newest root
/// record names. Dates are ignored. That the server holds the certificate's key, the handshake has shown.
///
/// # Errors
/// [`VerifyServerError`] says why the server is not believed.
pub fn verify_server_leaf(
    leaf: &[u8],
    authorities: impl IntoIterator<Item = PublicKey>,
    fleet: FleetId,
) -> Result<KeyId, VerifyServerError> {
    let read = Leaf::read(leaf)?.of_role(Role::Server)?;
    if read.fleet != fleet {
        return Err(VerifyServerError::ForeignFleet { expected: fleet, found: read.fleet });
    }
    let anchors = RootCertStore { roots: authorities.into_iter().map(|key| trust_anchor(&key)).collect() };
    let issuer = |error: rustls::Error| VerifyServerError::Issuer { cause: error.to_string() };
    let der = CertificateDer::from(leaf);
    let certificate = ParsedCertificate::try_from(&der).map_err(issuer)?;
    let algorithms = super::crypto::ALGORITHMS.all;
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &certificate,
        &anchors,
        &[],
        read.some_valid_date(),
        algorithms,
    )
    .map_err(issuer)?;
    Ok(read.key.id())
}

/// A CA as certificate checks take it. Its key says all: the CA's own certificate adds nothing to it.
pub(super) fn trust_anchor(key: &PublicKey) -> TrustAnchor<'static> {
    // Both fields are the contents of a DER sequence, without its head.
    let name = issuer_name(key);
    let name_length = u8::try_from(name.len()).unwrap_or(0);
    let common_name = [&[0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, name_length], name.as_bytes()].concat();
    let attribute = in_der(0x31, &in_der(0x30, &common_name));
    let info = [&[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], key.as_bytes().as_slice()].concat();
    TrustAnchor { subject: attribute.into(), subject_public_key_info: info.into(), name_constraints: None }
}

/// Puts a DER head of one length byte before contents, which here are always short enough for it.
fn in_der(tag: u8, contents: &[u8]) -> Vec<u8> {
    debug_assert!(contents.len() < 0x80, "the contents need a longer head");
    [&[tag, u8::try_from(contents.len()).unwrap_or(0)], contents].concat()
}
