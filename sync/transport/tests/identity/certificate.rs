//! Certificates: asked for, issued, read and judged.

use fleetd_sync_core::id::{FleetId, LocalId};
use fleetd_sync_core::limit::DEVICE_CERTIFICATE_LIFETIME;
use fleetd_sync_core::time::Wall;
use fleetd_sync_transport::identity::{
    CertificateAuthority, ReadCertificateError, ReadRequestError, VerifyServerError, certificate_key,
    certificate_not_after, grade_peer, is_renewal_due, peer_identity, signing_request, verify_server_leaf,
    verify_signing_request,
};
use fleetd_sync_transport::link::{Peer, PeerIdentity};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::world::{FIVE_YEARS, NOW, authority, device, entropy, fleet, key, key_pair, server_chain};

#[test]
fn a_request_proves_its_key_and_asks_for_nothing() {
    let request = signing_request(&key("device")).unwrap();
    assert_eq!(verify_signing_request(&request), Ok(key("device").public()));
    assert!(request.len() < 200, "{} bytes", request.len());
    assert_eq!(verify_signing_request(&[0; 5000]), Err(ReadRequestError::TooLarge { length: 5000, length_max: 4096 }));
    assert_eq!(verify_signing_request(b"no request"), Err(ReadRequestError::Malformed));
    assert_eq!(verify_signing_request(&[request.as_slice(), &[0]].concat()), Err(ReadRequestError::Malformed));
}

#[test]
fn a_flipped_bit_of_a_request_never_gives_another_key() {
    let request = signing_request(&key("device")).unwrap();
    for bit in 0..request.len() * 8 {
        let mut flipped = request.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // Bits outside what is signed may be free; the key is not outside.
        let read = verify_signing_request(&flipped);
        assert!(read.is_err() || read == Ok(key("device").public()), "bit {bit}");
    }
}

#[test]
fn a_request_for_another_kind_of_key_is_refused() {
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&p256).unwrap();
    assert!(matches!(verify_signing_request(request.der()), Err(ReadRequestError::Algorithm { .. })));
}

#[test]
fn whatever_a_request_asks_for_only_its_key_is_taken() {
    let pair = key_pair(&key("device"));
    let mut greedy = rcgen::CertificateParams::new(vec!["admin.example.com".to_owned()]).unwrap();
    greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = greedy.serialize_request(&pair).unwrap();
    let wanted = verify_signing_request(request.der()).unwrap();
    let issued = authority("ca").issue_device(&wanted, NOW, &mut entropy("serial")).unwrap();
    let (_, certificate) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert!(!certificate.is_ca());
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    let local_id = LocalId::from(key("device").id());
    assert_eq!(format!("{names:?}"), format!("[URI(\"spiffe://{}/device/{local_id}\")]", fleet()));
    assert_eq!(certificate.serial.to_bytes_be(), issued.serial);
    assert!(issued.chain[0].len() < 400, "{} bytes", issued.chain[0].len());
}

#[test]
fn a_certificate_says_who_the_device_is_and_whether_it_has_expired() {
    let identity = device(&authority("ca"), "device");
    let chain: Vec<CertificateDer<'_>> = identity.certificates.iter().map(|der| der.as_slice().into()).collect();
    let local_id = LocalId::from(key("device").id());
    let not_after = certificate_not_after(&identity.certificates[0]).unwrap();
    let expected = |expired| PeerIdentity { device: local_id, key: key("device").public(), not_after, expired };
    assert_eq!(peer_identity(&chain, NOW), Ok(expected(false)));
    assert_eq!(peer_identity(&chain, Wall(0)), Ok(expected(false)));
    assert_eq!(peer_identity(&chain, NOW + FIVE_YEARS), Ok(expected(true)));
    assert_eq!(peer_identity(&[], NOW), Err(ReadCertificateError::Missing));
    assert_eq!(not_after, NOW + DEVICE_CERTIFICATE_LIFETIME);
    assert!(!is_renewal_due(not_after, DEVICE_CERTIFICATE_LIFETIME, NOW));
    assert!(is_renewal_due(not_after, DEVICE_CERTIFICATE_LIFETIME, NOW + DEVICE_CERTIFICATE_LIFETIME * 7 / 10));
}

#[test]
fn a_servers_leaf_is_believed_for_its_fleet_and_its_ca_only() {
    let ca = authority("ca");
    let leaf = &server_chain(&ca)[0];
    assert_eq!(verify_server_leaf(leaf, [ca.key()], fleet()), Ok(key("server").id()));
    let several = [key("other").public(), ca.key()];
    assert_eq!(verify_server_leaf(leaf, several, fleet()), Ok(key("server").id()));
    let stranger = verify_server_leaf(leaf, [key("other").public()], fleet());
    assert!(matches!(stranger, Err(VerifyServerError::Issuer { .. })), "{stranger:?}");
    assert!(matches!(verify_server_leaf(leaf, [], fleet()), Err(VerifyServerError::Issuer { .. })));
    let elsewhere = FleetId::from_bytes([6; 16]);
    let refused = verify_server_leaf(leaf, [ca.key()], elsewhere);
    assert_eq!(refused, Err(VerifyServerError::ForeignFleet { expected: elsewhere, found: fleet() }));
    let device = device(&ca, "device");
    let refused = verify_server_leaf(&device.certificates[0], [ca.key()], fleet());
    let role = ReadCertificateError::Role { expected: "server", found: "device" };
    assert_eq!(refused, Err(VerifyServerError::Certificate(role)));
}

#[test]
fn no_flipped_bit_of_a_servers_leaf_survives() {
    let ca = authority("ca");
    let leaf = server_chain(&ca).remove(0);
    for bit in 0..leaf.len() * 8 {
        let mut flipped = leaf.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(verify_server_leaf(&flipped, [ca.key()], fleet()).is_err(), "bit {bit}");
    }
}

/// A certificate that the CA's key signed and no CA of ours would have issued.
fn forged(names: &[&str], extended: rcgen::ExtendedKeyUsagePurpose) -> Vec<u8> {
    let pair = |name: &str| key_pair(&key(name));
    let issuer = rcgen::Issuer::from_ca_cert_der(&authority("ca").certificate().into(), pair("ca")).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    let uri = |name: &&str| rcgen::SanType::URI((*name).try_into().unwrap());
    parameters.subject_alt_names = names.iter().map(uri).collect();
    parameters.extended_key_usages = vec![extended];
    parameters.signed_by(&pair("thief"), &issuer).unwrap().der().to_vec()
}

#[test]
fn a_certificate_that_carries_anothers_name_is_refused() {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let ca = [authority("ca").key()];
    let (thief, server) = (key("thief").id(), key("server").id());
    let own = format!("spiffe://{}/server/{thief}", fleet());
    assert_eq!(verify_server_leaf(&forged(&[&own], ServerAuth), ca, fleet()), Ok(thief));
    let others = format!("spiffe://{}/server/{server}", fleet());
    let refused = verify_server_leaf(&forged(&[&others], ServerAuth), ca, fleet());
    let foreign = ReadCertificateError::ForeignKey { named: server, held: thief };
    assert_eq!(refused, Err(VerifyServerError::Certificate(foreign)));
    // Issued to a client, shown by a server.
    let refused = verify_server_leaf(&forged(&[&own], ClientAuth), ca, fleet());
    assert!(matches!(refused, Err(VerifyServerError::Issuer { .. })), "{refused:?}");
    let longer = format!("{own}/more");
    let upper = own.to_uppercase().replace("SPIFFE", "spiffe");
    for names in
        [&[][..], &[own.as_str(), own.as_str()], &["https://example.com"], &[longer.as_str()], &[upper.as_str()]]
    {
        let refused = verify_server_leaf(&forged(names, ServerAuth), ca, fleet());
        let named = matches!(refused, Err(VerifyServerError::Certificate(ReadCertificateError::Name { .. })));
        assert!(named, "{names:?}: {refused:?}");
    }
}

#[test]
fn a_ca_certificate_follows_from_its_key() {
    let (one, again) = (authority("ca"), authority("ca"));
    assert_eq!(one.certificate(), again.certificate());
    assert_eq!(certificate_key(one.certificate()), Ok(one.key()));
    let elsewhere = CertificateAuthority::new(FleetId::from_bytes([6; 16]), &key("ca")).unwrap();
    assert_eq!(elsewhere.certificate(), one.certificate());
    let pem = one.certificate_pem();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n") && pem.ends_with("-----END CERTIFICATE-----\n"));
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(data_encoding::BASE64.decode(text.as_bytes()).as_deref(), Ok(one.certificate()));
}

#[test]
fn links_without_a_handshake_grade_devices_the_same() {
    let ca = authority("ca");
    let known = [ca.certificate().to_vec()];
    assert_eq!(grade_peer(&[], &known, NOW).unwrap(), Peer::Anonymous);
    let device_of = |name: &str| device(&authority(name), "device").certificates;
    let Peer::Device(peer) = grade_peer(&device_of("ca"), &known, NOW + FIVE_YEARS).unwrap() else {
        panic!("a device was expected");
    };
    assert!(peer.expired && peer.device == LocalId::from(key("device").id()));
    assert!(grade_peer(&device_of("other"), &known, NOW).is_err());
    assert!(grade_peer(&server_chain(&ca), &known, NOW).is_err());
}
