//! What a connection keeps of its handshake.

use std::sync::Arc;

use bytes::BytesMut;
use quinn::Side;
use quinn::crypto::{ServerConfig, Session};
use quinn_proto::transport_parameters::TransportParameters;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::quic::{ClientConnection, KeyChange, Secrets, Version};

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

/// What came of a handshake: how often the server got keys, and what the client has of the keys of later phases.
struct Carried {
    keys: usize,
    later: Secrets,
}

/// Carries what the ends say until both are done, each piece by itself since other keys may follow it.
fn carried(client: &mut ClientConnection, server: &mut dyn Session) -> Carried {
    let (mut keys, mut later) = (0, None);
    while client.is_handshaking() || server.is_handshaking() {
        loop {
            let mut said = Vec::new();
            let change = client.write_hs(&mut said);
            if change.is_none() && said.is_empty() {
                break;
            }
            if let Some(KeyChange::OneRtt { next, .. }) = change {
                later = Some(next);
            }
            server.read_handshake(&said).unwrap();
        }
        loop {
            let mut answer = Vec::new();
            let got = server.write_handshake(&mut answer).is_some();
            keys += usize::from(got);
            if !got && answer.is_empty() {
                break;
            }
            client.read_hs(&answer).unwrap();
        }
    }
    Carried { keys, later: later.unwrap() }
}

#[test]
fn what_is_known_of_a_client_outlives_the_handshake() {
    let fleet = Fleet::new(1);
    let (mut client, mut server) = begun(&fleet);
    assert!(server.is_handshaking() && server.peer_identity().is_none());
    assert_eq!(carried(&mut client, &mut *server).keys, 2, "one set of keys for the handshake, one for what follows");
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

#[test]
fn each_phase_has_the_keys_that_the_other_end_derives() {
    let (mut client, mut server) = begun(&Fleet::new(1));
    let mut later = carried(&mut client, &mut *server).later;
    for phase in 0..5_u8 {
        let (ours, theirs) = (server.next_1rtt_keys().unwrap(), later.next_packet_keys());
        let (packet, header, said) = (u64::from(phase), b"header", [phase; 20]);
        let mut sealed = said.to_vec();
        let tag = theirs.local.encrypt_in_place(packet, header, &mut sealed).unwrap();
        let mut sealed = BytesMut::from([sealed.as_slice(), tag.as_ref()].concat().as_slice());
        ours.remote.decrypt(packet, header, &mut sealed).unwrap();
        assert_eq!(sealed, said.as_slice(), "phase {phase}");
        let mut sent = [header.as_slice(), &said, &[0; 16]].concat();
        ours.local.encrypt(packet, &mut sent, header.len());
        let (_, sealed) = sent.split_at_mut(header.len());
        assert_eq!(theirs.remote.decrypt_in_place(packet, header, sealed).unwrap(), said, "phase {phase}");
    }
}

#[tokio::test]
async fn updated_keys_carry_frames_whoever_updates_them() {
    for by_server in [false, true] {
        let fleet = Fleet::new(1);
        let mut world = World::new(&fleet);
        let raw = world.raw(&fleet).await;
        let (server, _, mut heard) = world.accepted().await;
        assert!(matches!(heard.next().await, LinkEvent::Up { .. }));
        let mut up = raw.open_uni().await.unwrap();
        up.write_all(&[1, 1, 1]).await.unwrap();
        assert_eq!(heard.frame().await, (Class::Control, Bytes::from_static(&[1])));
        if by_server {
            world.listening.inner.find(server).unwrap().quinn.force_key_update()
        } else {
            raw.force_key_update()
        }
        world.listening.send(server, Class::Control, Bytes::from_static(&[2])).unwrap();
        let mut answer = [0; 3];
        raw.accept_uni().await.unwrap().read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [1, 1, 2]);
        up.write_all(&[1, 3]).await.unwrap();
        assert_eq!(heard.frame().await, (Class::Control, Bytes::from_static(&[3])));
    }
}
