//! TLS settings for each kind of connection.

use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::key::PublicKey;
use fleetd_sync_core::time::Wall;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};

use super::browser::BrowserIdentity;
use super::crypto::{always, certified, provider};
use super::leaf::{ReadCertificateError, certificate_key, peer_identity, trust_anchor};
use super::verifier::{DeviceOrNobody, PossessionOnly, ServerOfFleet};
use super::{ALPN, ALPN_API};
use crate::link::{DialIdentity, ListenIdentity, Peer};

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A CA's certificate cannot be read.
    #[error("a CA's certificate cannot be used")]
    Authority(#[from] ReadCertificateError),
    /// There is no CA whose devices could be known.
    #[error("no CA is given whose devices could be known")]
    NoAuthority,
    /// The certificate or its key is refused by the TLS library.
    #[error("the certificate or its key cannot be used")]
    Tls(#[from] rustls::Error),
    /// The devices' CAs are refused by the TLS library.
    #[error("the CAs cannot be used")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Why a device's certificates are refused.
#[derive(Debug, thiserror::Error)]
pub enum GradePeerError {
    /// The CAs cannot be used.
    #[error("the CAs cannot be used")]
    Authorities(#[from] TlsError),
    /// None of the CAs issued them.
    #[error("the device's certificates are refused: {cause}")]
    Refused {
        /// What the check said.
        cause: String,
    },
    /// Not a device's.
    #[error("the certificate is not a device's")]
    Certificate(#[from] ReadCertificateError),
}

/// The cryptography of the API port, where browsers come that know neither Ed25519 nor, some of them, X25519.
pub(super) fn browsers_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Settings for a device that dials: it shows its certificate if it has one, and checks only that the server holds
/// the key of its own. The session must check the rest with [`super::verify_server_leaf`].
///
/// # Errors
/// [`TlsError`] when the device's key or certificate cannot be used.
pub fn device_tls(identity: &DialIdentity) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PossessionOnly));
    let mut config = if identity.certificates.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(always(owned(&identity.certificates), &identity.key)?)
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Settings for a server that devices dial: a certificate is optional, one that is shown must be from a CA of ours,
/// and its dates are not judged here but by [`super::peer_identity`].
///
/// # Errors
/// [`TlsError`] when the server's identity or the CAs cannot be used.
pub fn server_tls(identity: &ListenIdentity) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(device_verifier(&identity.authorities)?));
    let chain = owned(&identity.certificates);
    let mut config = builder.with_cert_resolver(always(chain, &identity.key)?);
    forbid_resumption(&mut config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// The certificates that the API port shows, chosen by what a client can judge: the server's own, for clients that prove
/// themselves by a token, and another one for those that do not know Ed25519.
#[derive(Debug)]
pub struct ApiCertificates {
    shown: RwLock<ShownCertificates>,
}

#[derive(Debug)]
struct ShownCertificates {
    of_fleet: Arc<CertifiedKey>,
    for_browsers: Arc<CertifiedKey>,
}

impl ApiCertificates {
    /// Takes the certificates and their keys.
    ///
    /// # Errors
    /// [`TlsError`] when the server's identity or the browsers' cannot be used.
    pub fn new(identity: &ListenIdentity, browser: &BrowserIdentity) -> Result<Self, TlsError> {
        Ok(Self { shown: RwLock::new(ShownCertificates::new(identity, browser)?) })
    }

    /// Shows others to connections from now on; those that are open stay.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used; those that were shown still are.
    pub fn replace(&self, identity: &ListenIdentity, browser: &BrowserIdentity) -> Result<(), TlsError> {
        let shown = ShownCertificates::new(identity, browser)?;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }
}

impl ShownCertificates {
    fn new(identity: &ListenIdentity, browser: &BrowserIdentity) -> Result<Self, TlsError> {
        let of_fleet = certified(owned(&identity.certificates), &identity.key)?;
        let shown = vec![browser.certificate().clone()];
        let for_browsers = CertifiedKey::from_der(shown, browser.key(), &browsers_provider())?;
        Ok(Self { of_fleet: Arc::new(of_fleet), for_browsers: Arc::new(for_browsers) })
    }
}

impl ResolvesServerCert for ApiCertificates {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let knows_ed25519 = client.signature_schemes().contains(&SignatureScheme::ED25519);
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(if knows_ed25519 { &shown.of_fleet } else { &shown.for_browsers }))
    }
}

/// Settings for the API port.
///
/// # Errors
/// [`TlsError`] when the TLS library refuses.
pub fn api_server_tls(certificates: Arc<ApiCertificates>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(browsers_provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    forbid_resumption(&mut config);
    config.alpn_protocols = ALPN_API.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

/// Settings for a client of the API that knows its fleet and the fleet's CAs.
///
/// # Errors
/// [`TlsError`] when the TLS library refuses.
pub fn api_client_tls(
    fleet: FleetId,
    authorities: impl IntoIterator<Item = PublicKey>,
) -> Result<ClientConfig, TlsError> {
    api_client(Arc::new(ServerOfFleet { fleet, authorities: authorities.into_iter().collect() }))
}

/// Settings for a client of the API that does not know the fleet yet. It may ask for the root chain and nothing
/// else, and must then check the server's certificate with [`super::verify_server_leaf`].
///
/// # Errors
/// [`TlsError`] when the TLS library refuses.
pub fn api_first_contact_tls() -> Result<ClientConfig, TlsError> {
    api_client(Arc::new(PossessionOnly))
}

/// Judges a device's certificates as the handshake of [`server_tls`] does, for links that have none.
///
/// # Errors
/// [`GradePeerError`] when there are certificates and none of the CAs issued them, or they are not a device's.
pub fn grade_peer(certificates: &[Vec<u8>], authorities: &[Vec<u8>], now: Wall) -> Result<Peer, GradePeerError> {
    let chain = owned(certificates);
    let Some((leaf, intermediates)) = chain.split_first() else { return Ok(Peer::Anonymous) };
    let verifier = device_verifier(authorities)?;
    // The verifier takes the date from the certificate itself.
    let any_date = UnixTime::since_unix_epoch(Duration::ZERO);
    verifier
        .verify_client_cert(leaf, intermediates, any_date)
        .map_err(|error| GradePeerError::Refused { cause: error.to_string() })?;
    Ok(Peer::Device(Box::new(peer_identity(&chain, now)?)))
}

fn device_verifier(authorities: &[Vec<u8>]) -> Result<DeviceOrNobody, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.roots.push(trust_anchor(&certificate_key(authority)?));
    }
    if roots.is_empty() {
        return Err(TlsError::NoAuthority);
    }
    let issued = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
    Ok(DeviceOrNobody { issued })
}

fn api_client(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = ALPN_API.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn forbid_resumption(config: &mut ServerConfig) {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
}

fn owned(certificates: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    certificates.iter().cloned().map(CertificateDer::from).collect()
}
