//! Certificates and the requests for them: in handshakes with anybody, in registrations, and in a login.

use std::sync::LazyLock;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::limit;
use fleetd_sync_transport::identity::{
    CertificateAuthority, certificate_key, certificate_not_after, grade_peer, peer_identity, signing_request,
    verify_server_leaf, verify_signing_request,
};

use super::CASES;
use crate::identity::world::{NOW, authority, fleet, key, server_chain};

static AUTHORITY: LazyLock<CertificateAuthority> = LazyLock::new(|| authority("ca"));
static KEY: LazyLock<SecretKey> = LazyLock::new(|| key("device"));

fn certificate(der: &[u8]) -> bool {
    let key = certificate_key(der);
    let _ = verify_server_leaf(der, [AUTHORITY.key()], fleet());
    let _ = grade_peer(&[der.to_vec()], &[AUTHORITY.certificate().to_vec()], NOW);
    let identity = peer_identity(&[der.to_vec().into()], NOW);
    if let Ok(identity) = &identity {
        assert_eq!(key.as_ref().ok(), Some(&identity.key));
        assert_eq!(identity.device, identity.key.id().into(), "nobody carries another's name");
    }
    identity.is_ok() || certificate_not_after(der).is_ok()
}

fn request(der: &[u8]) -> bool {
    let Ok(key) = verify_signing_request(der) else { return false };
    assert!(der.len() <= limit::CSR_BYTES_MAX);
    let issued = AUTHORITY.issue_device(&key, NOW, &mut Entropy::from_seed([1; 32])).unwrap();
    assert_eq!(certificate_key(issued.chain.first().unwrap()), Ok(key));
    true
}

/// Contents behind a DER head.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[tag, 0x82], length.as_slice(), contents].concat()
}

/// A request that says this, signed with the device's key, since no random change gets a signature right.
fn signed(info: &[u8]) -> Vec<u8> {
    use ed25519_dalek::Signer as _;

    let key = ed25519_dalek::SigningKey::from_bytes(&KEY.to_bytes());
    let signature = [[0].as_slice(), &key.sign(info).to_bytes()].concat();
    let algorithm = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    der(0x30, &[info, &algorithm, &der(0x03, &signature)].concat())
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((0, rest)) => request(rest),
        Some((1, rest)) => request(&signed(rest)),
        Some((_, rest)) => certificate(rest),
        None => false,
    }
}

fn samples() -> Vec<Vec<u8>> {
    let request = signing_request(&KEY).unwrap();
    let issued = AUTHORITY.issue_device(&KEY.public(), NOW, &mut Entropy::from_seed([1; 32])).unwrap();
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    // What is signed stands behind the head of the request, with a head of its own.
    let info_length = usize::from(*request.get(3 + 1).unwrap());
    let info = request.get(3..3 + 2 + info_length).unwrap_or_default();
    let info = if request.get(1) == Some(&0x81) { info } else { request.get(2..).unwrap_or_default() };
    vec![
        of(0, &request),
        of(1, info),
        of(2, issued.chain.first().unwrap()),
        of(2, server_chain(&AUTHORITY).first().unwrap()),
    ]
}

#[test]
fn every_sample_of_a_certificate_is_one() {
    for (index, sample) in samples().iter().enumerate() {
        assert!(check(sample), "sample {index}");
    }
}

#[test]
fn any_bytes_are_one_certificate_or_request_or_none() {
    bolero::check!(name = "certificate").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
