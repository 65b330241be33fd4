//! A fleet's CA, its server and its devices.

use std::time::Duration;

use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::FleetId;
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::time::Wall;
use fleetd_sync_transport::identity::{CertificateAuthority, ServerName};
use fleetd_sync_transport::link::{DialIdentity, ListenIdentity};

/// A date in 2026.
pub(crate) const NOW: Wall = Wall(1_795_348_800_000);
pub(crate) const FIVE_YEARS: Duration = Duration::from_secs(5 * 366 * 24 * 60 * 60);

pub(crate) fn entropy(purpose: &str) -> Entropy {
    Entropy::from_seed([77; 32]).stream(purpose)
}

pub(crate) fn key(name: &str) -> SecretKey {
    SecretKey::generate(&mut entropy(name))
}

/// A secret key as another certificate library takes it: PKCS#8, as RFC 8410, section 7, has it.
pub(crate) fn key_pair(key: &SecretKey) -> rcgen::KeyPair {
    const HEAD: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    rcgen::KeyPair::try_from([HEAD.as_slice(), &key.to_bytes()].concat().as_slice()).unwrap()
}

pub(crate) fn fleet() -> FleetId {
    FleetId::from_bytes([5; 16])
}

pub(crate) fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::new(fleet(), &key(name)).unwrap()
}

pub(crate) fn server_chain(authority: &CertificateAuthority) -> Vec<Vec<u8>> {
    let names = [ServerName::of_host("localhost"), ServerName::of_host("127.0.0.1")];
    authority.issue_server(&key("server").public(), &names, NOW, &mut entropy("serial")).unwrap().chain
}

/// The server, which knows the devices of the fleet's CA.
pub(crate) fn server() -> ListenIdentity {
    let authority = authority("ca");
    ListenIdentity {
        certificates: server_chain(&authority),
        key: key("server"),
        authorities: vec![authority.certificate().to_vec()],
    }
}

/// A device with a certificate of `authority`.
pub(crate) fn device(authority: &CertificateAuthority, name: &str) -> DialIdentity {
    let issued = authority.issue_device(&key(name).public(), NOW, &mut entropy("serial")).unwrap();
    DialIdentity { key: key(name), certificates: issued.chain }
}
