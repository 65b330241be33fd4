//! Whom the client believes: the one CA of the fleet, and nobody that it did not name a server.
//!
//! The public certificate authorities have no say here, and host names prove nothing: a fleet's servers are known by
//! the fleet's own CA, which the root chain names. Dates are not judged, as devices do not judge them either: a
//! server whose certificate is late must still be reachable for those who would repair it.

use std::sync::{Arc, Mutex};

use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::key::PublicKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Why a server is not believed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckServerError {
    /// A certificate cannot be read.
    #[error("the {what} certificate cannot be read: {reason}")]
    Unreadable {
        /// Whose.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It does not come from the fleet's CA.
    #[error("the server's certificate does not come from the CA of fleet {fleet}")]
    Foreign {
        /// The fleet.
        fleet: FleetId,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// It comes from the CA, but for something that is no server.
    #[error("the certificate is for {found:?}, not for a server of fleet {fleet}")]
    NoServer {
        /// The fleet.
        fleet: FleetId,
        /// What it is for.
        found: Vec<String>,
    },
    /// It was given for a server, but another one than expected.
    #[error("the certificate is for server {found}, but the answer names {expected}")]
    OtherServer {
        /// The server that answered.
        expected: String,
        /// The server that the certificate names.
        found: String,
    },
}

/// The one CA that a fleet's servers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    fleet: FleetId,
    ca: CertificateDer<'static>,
}

impl Pin {
    /// Takes a CA's certificate in PEM.
    ///
    /// # Errors
    /// [`CheckServerError::Unreadable`] when it is none.
    pub fn new(fleet: FleetId, ca_certificate_pem: &str) -> Result<Self, CheckServerError> {
        let ca = CertificateDer::from_pem_slice(ca_certificate_pem.as_bytes())
            .map_err(|error| CheckServerError::Unreadable { what: "CA's", reason: error.to_string() })?;
        Ok(Self { fleet, ca })
    }

    /// The fleet.
    #[must_use]
    pub const fn fleet(&self) -> FleetId {
        self.fleet
    }

    /// The CA's key, by which the root chain names it; nothing when it is no Ed25519 key.
    ///
    /// # Errors
    /// [`CheckServerError::Unreadable`] when the certificate is none.
    pub fn key(&self) -> Result<Option<PublicKey>, CheckServerError> {
        let certificate = parse("CA's", &self.ca)?;
        let info = certificate.public_key();
        let is_ed25519 = info.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519;
        Ok(PublicKey::from_slice(&info.subject_public_key.data).ok().filter(|_| is_ed25519))
    }

    /// Checks that the first of `certificates` comes from the CA and was given to a server; says to which.
    ///
    /// # Errors
    /// [`CheckServerError`] says what is wrong.
    pub fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<String, CheckServerError> {
        let parsed = parse("server's", leaf)?;
        let mut roots = RootCertStore::empty();
        let foreign = |source| CheckServerError::Foreign { fleet: self.fleet, source };
        roots.add(self.ca.clone()).map_err(foreign)?;
        let not_before = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
        let when = UnixTime::since_unix_epoch(std::time::Duration::from_secs(not_before));
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf).map_err(foreign)?,
            &roots,
            intermediates,
            when,
            provider().signature_verification_algorithms.all,
        )
        .map_err(foreign)?;
        let names = uris(&parsed);
        let prefix = format!("spiffe://{}/server/", self.fleet);
        // The id is the hash of the server's own key, so that no certificate carries another's name.
        let key =
            PublicKey::from_slice(&parsed.public_key().subject_public_key.data).ok().map(|key| key.id().to_string());
        let server = names.iter().find_map(|name| name.strip_prefix(&prefix)).map(str::to_owned);
        server
            .filter(|server| key.as_ref() == Some(server))
            .ok_or(CheckServerError::NoServer { fleet: self.fleet, found: names })
    }
}

fn parse<'a>(what: &'static str, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, CheckServerError> {
    let unreadable = |reason: String| CheckServerError::Unreadable { what, reason };
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(unreadable(format!("{} bytes follow it", rest.len()))),
        Err(error) => Err(unreadable(error.to_string())),
    }
}

fn uris(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// What a connection asks of the server's certificate.
#[derive(Clone, Debug)]
pub(super) enum Belief {
    /// That the server holds its key, and nothing else; what it showed is kept, to be checked once more is known.
    Possession(Shown),
    /// That it comes from the fleet's CA.
    Pinned(Pin),
}

/// The certificates that a server showed, its own first.
pub(super) type Shown = Arc<Mutex<Vec<CertificateDer<'static>>>>;

impl Belief {
    /// The TLS configuration of a client that believes so.
    pub(super) fn into_config(self) -> rustls::ClientConfig {
        let provider = Arc::new(provider());
        let verifier = Arc::new(Verifier { belief: self, provider: provider.clone() });
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        #[expect(clippy::expect_used, reason = "ring supports every version of TLS that rustls knows")]
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("ring has TLS 1.3");
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config
    }
}

#[derive(Debug)]
struct Verifier {
    belief: Belief,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.belief {
            Belief::Possession(shown) => {
                let mut chain = vec![leaf.clone().into_owned()];
                chain.extend(intermediates.iter().map(|certificate| certificate.clone().into_owned()));
                *shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = chain;
            }
            Belief::Pinned(pin) => {
                pin.check(leaf, intermediates).map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
