//! Handshakes between real TLS ends, in memory.

use std::sync::Arc;
use std::time::Duration;

use fleetd_sync_core::id::LocalId;
use fleetd_sync_transport::identity::{
    ApiCertificates, BrowserIdentity, ServerName, api_client_tls, api_first_contact_tls, api_server_tls, device_tls,
    peer_identity, server_tls, verify_server_leaf,
};
use fleetd_sync_transport::link::{DialIdentity, ListenIdentity};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};

use super::world::{FIVE_YEARS, NOW, authority, device, fleet, key, key_pair, server, server_chain};

/// Carries bytes between two ends until both are done, or one refuses.
fn shake(client: ClientConfig, server: ServerConfig) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(Arc::new(client), "10.9.8.7".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn join(dialled: &DialIdentity, listening: &ListenIdentity) -> Result<(ClientConnection, ServerConnection), String> {
    let (client, server) = (device_tls(dialled).unwrap(), server_tls(listening).unwrap());
    shake(client, server).map_err(|error| error.to_string())
}

#[test]
fn a_device_with_a_certificate_is_known_to_the_server() {
    let (client, server) = join(&device(&authority("ca"), "device"), &server()).unwrap();
    let peer = peer_identity(server.peer_certificates().unwrap(), NOW).unwrap();
    assert_eq!((peer.device, peer.expired), (LocalId::from(key("device").id()), false));
    let leaf = client.peer_certificates().unwrap().first().unwrap();
    assert_eq!(verify_server_leaf(leaf, [authority("ca").key()], fleet()), Ok(key("server").id()));
    assert_eq!(client.alpn_protocol(), Some(&b"fleetd/1"[..]));
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

#[test]
fn a_device_without_a_certificate_is_let_in_to_enrol() {
    let nobody = DialIdentity { key: key("device"), certificates: Vec::new() };
    let (_, server) = join(&nobody, &server()).unwrap();
    assert!(server.peer_certificates().is_none());
}

/// Somebody's certificates with another's key, as no library of ours would take them.
fn stolen(certificates: &[Vec<u8>], thief: &str) -> Arc<SingleCertAndKey> {
    let pkcs8 = PrivatePkcs8KeyDer::from(key_pair(&key(thief)).serialize_der());
    let chain = certificates.iter().cloned().map(CertificateDer::from).collect();
    let signing = rustls::crypto::ring::sign::any_eddsa_type(&pkcs8).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, signing)))
}

#[test]
fn a_stolen_certificate_is_worth_nothing_without_its_key() {
    let (victim, listening) = (device(&authority("ca"), "device"), server());
    assert!(device_tls(&DialIdentity { key: key("thief"), ..victim.clone() }).is_err(), "an agent notices at once");
    for (thief, refused) in [("thief", true), ("device", false)] {
        let mut config = device_tls(&victim).unwrap();
        config.client_auth_cert_resolver = stolen(&victim.certificates, thief);
        assert_eq!(
            shake(config, server_tls(&listening).unwrap()).is_err(),
            refused,
            "a device, with the key of {thief}"
        );
    }
    for (thief, refused) in [("thief", true), ("server", false)] {
        let mut config = server_tls(&listening).unwrap();
        config.cert_resolver = stolen(&listening.certificates, thief);
        assert_eq!(shake(device_tls(&victim).unwrap(), config).is_err(), refused, "a server, with the key of {thief}");
    }
}

#[test]
fn an_expired_certificate_is_let_in_and_reported() {
    let (_, server) = join(&device(&authority("ca"), "device"), &server()).unwrap();
    let peer = peer_identity(server.peer_certificates().unwrap(), NOW + FIVE_YEARS).unwrap();
    assert!(peer.expired);
}

#[test]
fn a_device_of_another_ca_is_refused() {
    let refused = join(&device(&authority("other"), "device"), &server());
    assert!(refused.is_err_and(|error| error.contains("UnknownIssuer")));
}

#[test]
fn a_servers_certificate_admits_nobody_as_a_device() {
    let posing = DialIdentity { key: key("server"), certificates: server_chain(&authority("ca")) };
    assert!(join(&posing, &server()).is_err());
}

#[test]
fn an_impostor_server_gets_through_the_handshake_and_not_through_the_check_of_its_leaf() {
    let impostor = authority("impostor");
    let listening = ListenIdentity { certificates: server_chain(&impostor), ..server() };
    let (client, _) = join(&device(&authority("ca"), "device"), &listening).unwrap();
    let leaf = client.peer_certificates().unwrap().first().unwrap();
    assert!(verify_server_leaf(leaf, [authority("ca").key()], fleet()).is_err());
}

#[test]
fn no_session_is_ever_resumed() {
    let client = device_tls(&device(&authority("ca"), "device")).unwrap();
    let server = server_tls(&server()).unwrap();
    for _ in 0..2 {
        let (client, server) = shake(client.clone(), server.clone()).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_client_of_the_api_is_pinned_to_its_fleet() {
    let api = || api_showing(&for_browsers());
    let ca = authority("ca").key();
    let (client, _) = shake(api_client_tls(fleet(), [ca]).unwrap(), api()).unwrap();
    assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
    assert!(shake(api_client_tls(fleet(), [key("other").public()]).unwrap(), api()).is_err());
    let elsewhere = fleetd_sync_core::id::FleetId::from_bytes([6; 16]);
    assert!(shake(api_client_tls(elsewhere, [ca]).unwrap(), api()).is_err());
    let (client, _) = shake(api_first_contact_tls().unwrap(), api()).unwrap();
    let leaf = client.peer_certificates().unwrap().first().unwrap();
    assert_eq!(verify_server_leaf(leaf, [ca], fleet()), Ok(key("server").id()));
}

fn api_showing(browser: &BrowserIdentity) -> ServerConfig {
    api_server_tls(Arc::new(ApiCertificates::new(&server(), browser).unwrap())).unwrap()
}

fn for_browsers() -> BrowserIdentity {
    BrowserIdentity::generate(&[ServerName::of_host("10.9.8.7")], NOW).unwrap()
}

/// The date of these tests, for an end that judges dates.
#[derive(Debug)]
struct Today;

impl TimeProvider for Today {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(NOW.0).unwrap())))
    }
}

/// A client that judges names and dates, knows no Ed25519, and believes `imported`.
fn browser(imported: &CertificateDer<'static>) -> ClientConfig {
    let mut provider = rustls::crypto::ring::default_provider();
    let known = provider.signature_verification_algorithms.mapping.iter();
    let known = known.filter(|(scheme, _)| *scheme != SignatureScheme::ED25519).copied().collect::<Vec<_>>();
    provider.signature_verification_algorithms.mapping = Box::leak(known.into_boxed_slice());
    let mut roots = RootCertStore::empty();
    roots.add(imported.clone()).unwrap();
    ClientConfig::builder_with_details(Arc::new(provider), Arc::new(Today))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn a_browser_gets_a_certificate_that_it_can_judge_and_nobody_else_does() {
    let shown = for_browsers();
    let (client, _) = shake(browser(shown.certificate()), api_showing(&shown)).unwrap();
    assert_eq!(client.peer_certificates(), Some(&[shown.certificate().clone()][..]));
    let other = for_browsers();
    assert!(shake(browser(other.certificate()), api_showing(&shown)).is_err());
    assert!(verify_server_leaf(shown.certificate(), [authority("ca").key()], fleet()).is_err());
}

#[test]
fn a_server_that_knows_no_ca_does_not_start() {
    assert!(server_tls(&ListenIdentity { authorities: Vec::new(), ..server() }).is_err());
    assert!(server_tls(&ListenIdentity { authorities: vec![b"no certificate".to_vec()], ..server() }).is_err());
    assert!(server_tls(&ListenIdentity { key: key("other"), ..server() }).is_err(), "a certificate of another key");
}
