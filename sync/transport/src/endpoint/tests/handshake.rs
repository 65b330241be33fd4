//! What a connection keeps of its handshake.

use std::sync::Arc;

use quinn::Side;
use quinn::crypto::{ServerConfig, Session};
use quinn_proto::transport_parameters::TransportParameters;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::quic::{ClientConnection, Version};

use super::super::accepted_tls::AcceptedTls;
use super::world::*;
use super::*;

/// What a client of quinn says: an empty list of parameters, all of which have a default.
fn begun(fleet: &Fleet) -> (ClientConnection, Box<dyn Session>) {
    let mut tls = identity::device_tls(&fleet.enrolled()).unwrap();
    tls.enable_sni = false;
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let client = ClientConnection::new(Arc::new(tls), Version::V1, name, Vec::new()).unwrap();
    let accepted = Arc::new(AcceptedTls::new(identity::server_tls(&fleet.server()).unwrap()).unwrap());
    (client, accepted.start_session(1, &TransportParameters::read(Side::Server, &mut [].as_slice()).unwrap()))
}

/// Carries what the ends say until both are done, each piece by itself since other keys may follow it, and counts how
/// often the server got keys.
fn carried(client: &mut ClientConnection, server: &mut dyn Session) -> usize {
    let mut keys = 0;
    while client.is_handshaking() || server.is_handshaking() {
        let mut said = Vec::new();
        while client.write_hs(&mut said).is_some() || !said.is_empty() {
            server.read_handshake(&std::mem::take(&mut said)).unwrap();
        }
        let mut answer = Vec::new();
        loop {
            let got = server.write_handshake(&mut answer).is_some();
            keys += usize::from(got);
            if !got && answer.is_empty() {
                break;
            }
            client.read_hs(&std::mem::take(&mut answer)).unwrap();
        }
    }
    keys
}

#[test]
fn what_is_known_of_a_client_outlives_the_handshake() {
    let fleet = Fleet::new(1);
    let (mut client, mut server) = begun(&fleet);
    assert!(server.is_handshaking() && server.peer_identity().is_none());
    assert_eq!(carried(&mut client, &mut *server), 2, "one set of keys for the handshake, one for what follows");
    assert!(!server.is_handshaking());
    let chain = server.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
    let shown: Vec<Vec<u8>> = chain.iter().map(|certificate| certificate.to_vec()).collect();
    assert_eq!(shown, fleet.enrolled().certificates);
    // Its state is gone with it: nothing can be read of what the client first said.
    assert!(server.transport_parameters().unwrap().is_none());
}

#[test]
fn tls_after_the_handshake_breaks_the_connection() {
    let (mut client, mut server) = begun(&Fleet::new(1));
    carried(&mut client, &mut *server);
    // A KeyUpdate of TLS, which QUIC forbids: RFC 9001, section 6.
    let refused = server.read_handshake(&[24, 0, 0, 1, 0]).unwrap_err();
    assert_eq!(u64::from(refused.code), 0x010a, "{refused}");
}

#[tokio::test]
async fn keys_that_are_updated_again_and_again_carry_frames() {
    let fleet = Fleet::new(1);
    let mut world = World::new(&fleet);
    let raw = world.raw(&fleet).await;
    let (server, _, mut heard) = world.accepted().await;
    assert!(matches!(heard.next().await, LinkEvent::Up { .. }));
    let accepted = world.listening.inner.find(server).unwrap();
    let mut up = raw.open_uni().await.unwrap();
    up.write_all(&[1]).await.unwrap();
    world.listening.send(server, Class::Control, text("begin")).unwrap();
    let mut down = raw.accept_uni().await.unwrap();
    let mut begin = [0; 7];
    down.read_exact(&mut begin).await.unwrap();
    for round in 0..6_u8 {
        // The ends take turns in who begins; an update is complete once both have sent something by it.
        if round % 2 == 0 {
            raw.force_key_update()
        } else {
            accepted.quinn.force_key_update()
        }
        up.write_all(&[1, round]).await.unwrap();
        assert_eq!(heard.frame().await, (Class::Control, Bytes::from(vec![round])));
        world.listening.send(server, Class::Control, Bytes::from(vec![round])).unwrap();
        let mut answer = [0; 2];
        down.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [1, round]);
    }
}
