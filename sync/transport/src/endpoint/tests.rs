mod flood;
mod handshake;
mod meeting;
mod world;

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use fleetd_sync_core::session::{Class, CloseCode};
use fleetd_sync_core::time::Wall;

use self::world::*;
use super::*;

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn a_device_and_a_server_know_each_other_by_their_certificates() {
    let fleet = Fleet::new(1);
    let mut world = World::new(&fleet);
    let (device, mut told) = world.dial(fleet.enrolled());
    let LinkEvent::Up { peer: Peer::Server { leaf }, .. } = told.next().await else { panic!() };
    let authorities = [fleet.ca.key()];
    let evidence = ServerEvidence { leaf: &leaf, authorities: &authorities, fleet: fleet.id };
    assert_eq!(verify_server(&evidence), Ok(()));
    let other = Fleet::new(2);
    let (foreign_fleet, foreign_key) = ([fleet.ca.key()], [other.ca.key()]);
    assert!(verify_server(&ServerEvidence { authorities: &foreign_fleet, fleet: other.id, ..evidence }).is_err());
    assert!(verify_server(&ServerEvidence { authorities: &foreign_key, ..evidence }).is_err());
    let (server, peer, mut heard) = world.accepted().await;
    let Peer::Device(identity) = peer else { panic!("{peer:?}") };
    assert_eq!((identity.device, identity.key), (fleet.device.id().into(), fleet.device.public()));
    assert!(!identity.expired);
    assert!(matches!(heard.next().await, LinkEvent::Up { peer, .. } if peer == Peer::Device(identity)));
    world.dialling.send(device, Class::Control, text("hello")).unwrap();
    assert_eq!(heard.frame().await, (Class::Control, text("hello")));
    world.listening.send(server, Class::Trust, text("welcome")).unwrap();
    assert_eq!(told.frame().await, (Class::Trust, text("welcome")));
}

#[tokio::test]
async fn a_device_without_a_certificate_is_let_in_as_nobody() {
    let fleet = Fleet::new(1);
    let mut world = World::new(&fleet);
    let (_, mut told) = world.dial(fleet.unknown());
    assert!(matches!(told.next().await, LinkEvent::Up { .. }));
    assert_eq!(world.accepted().await.1, Peer::Anonymous);
}

#[tokio::test]
async fn an_expired_certificate_is_let_in_and_said_to_be_expired() {
    let fleet = Fleet::new(1);
    let mut world = World::at(&fleet, Wall(4_000_000_000_000));
    let _dialled = world.dial(fleet.enrolled());
    assert!(matches!(world.accepted().await.1, Peer::Device(identity) if identity.expired));
}

#[tokio::test]
async fn a_certificate_of_another_fleet_is_refused_in_the_handshake() {
    let (fleet, other) = (Fleet::new(1), Fleet::new(2));
    let mut world = World::new(&fleet);
    let (stranger, mut told) = world.dial(other.enrolled());
    // The device may believe for a moment that it is in: only a Hello would say so, and none comes.
    let mut event = told.next().await;
    if matches!(event, LinkEvent::Up { .. }) {
        let _ = world.dialling.send(stranger, Class::Control, text("hello"));
        event = told.next().await;
    }
    assert!(matches!(event, LinkEvent::Down { reason: DownReason::Failed { .. } }), "{event:?}");
    let _dialled = world.dial(fleet.enrolled());
    assert!(matches!(world.accepted().await.1, Peer::Device(_)), "the stranger was never accepted");
}

#[tokio::test]
async fn frames_of_a_class_keep_their_order_and_may_be_as_large_as_the_limit() {
    let mut world = Joined::new().await;
    let largest = Bytes::from(vec![7; limit::FRAME_BYTES_MAX]);
    for round in 0..40_u8 {
        for class in Class::ALL {
            let frame = if round == 20 { largest.clone() } else { Bytes::from(vec![round; usize::from(round)]) };
            world.world.dialling.send(world.device, class, frame).unwrap();
        }
    }
    let mut rounds = BTreeMap::<Class, u8>::new();
    for _ in 0..40 * Class::ALL.len() {
        let (class, frame) = world.heard.frame().await;
        world.world.listening.grant(world.server, 1);
        let round = rounds.entry(class).or_default();
        let expected = if *round == 20 { limit::FRAME_BYTES_MAX } else { usize::from(*round) };
        assert_eq!(frame.len(), expected, "{class:?} {round}");
        *round += 1;
    }
    let too_large = Bytes::from(vec![0; limit::FRAME_BYTES_MAX + 1]);
    let refused = world.world.dialling.send(world.device, Class::Control, too_large);
    assert!(matches!(refused, Err(SendError::TooLarge { .. })));
}

#[tokio::test]
async fn an_oversize_frame_closes_the_connection_with_a_code() {
    for prefix in [[6, 0x81, 0x80, 0x04], [6, 0xff, 0xff, 0xff]] {
        let fleet = Fleet::new(1);
        let mut world = World::new(&fleet);
        let raw = world.raw(&fleet).await;
        let (_, _, mut heard) = world.accepted().await;
        let mut stream = raw.open_uni().await.unwrap();
        stream.write_all(&prefix).await.unwrap();
        let quinn::ConnectionError::ApplicationClosed(close) = raw.closed().await else { panic!() };
        assert_eq!(close.error_code, connection::wire_code(CloseCode::FrameTooLarge));
        assert_eq!(heard.down().await, DownReason::ClosedHere { code: CloseCode::FrameTooLarge });
    }
}

#[tokio::test]
async fn a_second_stream_of_a_class_is_refused_and_an_unknown_class_is_not_read() {
    let fleet = Fleet::new(1);
    let mut world = World::new(&fleet);
    let raw = world.raw(&fleet).await;
    let (_, _, mut heard) = world.accepted().await;
    assert!(matches!(heard.next().await, LinkEvent::Up { .. }));
    let mut later = raw.open_uni().await.unwrap();
    later.write_all(&[200, 1, 1]).await.unwrap();
    let mut first = raw.open_uni().await.unwrap();
    first.write_all(&[1, 1, 42]).await.unwrap();
    assert_eq!(heard.frame().await, (Class::Control, Bytes::from_static(&[42])));
    let mut second = raw.open_uni().await.unwrap();
    second.write_all(&[1, 1, 43]).await.unwrap();
    assert_eq!(heard.down().await, DownReason::ClosedHere { code: CloseCode::Unexpected });
}

#[tokio::test]
async fn a_reader_gets_no_more_than_its_credits() {
    let mut world = Joined::new().await;
    for number in 0..100_u8 {
        world.world.dialling.send(world.device, Class::Actual, Bytes::from(vec![number])).unwrap();
    }
    for number in 0..64_u8 {
        assert_eq!(world.heard.frame().await, (Class::Actual, Bytes::from(vec![number])));
    }
    let open = world.world.listening.inner.find(world.server).unwrap();
    assert_eq!(open.credits(), 0);
    world.world.listening.grant(world.server, 36);
    for number in 64..100_u8 {
        assert_eq!(world.heard.frame().await, (Class::Actual, Bytes::from(vec![number])));
    }
    assert_eq!(open.credits(), 0);
}

#[tokio::test]
async fn a_peer_that_does_not_read_fills_a_bounded_outbox_and_loses_the_session() {
    for size in [100, 32 << 10] {
        let mut world = Joined::new().await;
        let frame = Bytes::from(vec![1; size]);
        let (mut sent, mut refused) = (0, None);
        while refused.is_none() {
            match world.world.dialling.send(world.device, Class::Logs, frame.clone()) {
                Ok(()) => sent += 1,
                Err(error) => refused = Some(error),
            }
            tokio::task::yield_now().await;
            assert!(sent < 100_000, "the outbox has no bound");
        }
        assert!(matches!(refused, Some(SendError::Overflow { .. })), "{refused:?}");
        assert_eq!(world.told.down().await, DownReason::ClosedHere { code: CloseCode::Overflow });
        assert_eq!(world.heard.down().await, DownReason::ClosedByPeer { code: CloseCode::Overflow });
        let later = world.world.dialling.send(world.device, Class::Logs, frame);
        assert!(matches!(later, Err(SendError::Unknown { .. })));
    }
}

#[tokio::test]
async fn what_was_said_before_a_close_still_arrives() {
    let mut world = Joined::new().await;
    for _ in 0..10 {
        world.world.listening.send(world.server, Class::Control, Bytes::from(vec![9; 20_000])).unwrap();
    }
    world.world.listening.close(world.server, CloseCode::Busy);
    let refused = world.world.listening.send(world.server, Class::Control, text("late"));
    assert!(matches!(refused, Err(SendError::Unknown { .. })));
    for _ in 0..10 {
        assert_eq!(world.told.frame().await.1.len(), 20_000);
    }
    assert_eq!(world.told.down().await, DownReason::ClosedByPeer { code: CloseCode::Busy });
    assert_eq!(world.heard.down().await, DownReason::ClosedHere { code: CloseCode::Busy });
    assert_eq!((world.world.listening.connections(), world.world.dialling.connections()), (0, 0));
}

#[tokio::test]
async fn a_revoked_device_is_told_so() {
    let mut world = Joined::new().await;
    world.world.listening.close(world.server, CloseCode::Revoked);
    assert_eq!(world.told.down().await, DownReason::ClosedByPeer { code: CloseCode::Revoked });
}

#[tokio::test]
async fn a_device_that_changes_networks_stays_connected() {
    let mut world = Joined::new().await;
    world.world.dialling.rebind().unwrap();
    world.world.dialling.send(world.device, Class::Actual, text("from elsewhere")).unwrap();
    assert_eq!(world.heard.frame().await, (Class::Actual, text("from elsewhere")));
    world.world.listening.send(world.server, Class::Desired, text("found")).unwrap();
    assert_eq!(world.told.frame().await, (Class::Desired, text("found")));
}

#[tokio::test]
async fn a_hundred_devices_are_served_at_once() {
    let fleet = Fleet::new(1);
    let mut world = World::new(&fleet);
    let mut devices: Vec<_> = (0..100).map(|_| world.dial(fleet.enrolled())).collect();
    for (device, _) in &devices {
        // Nothing can be sent before the ends are joined.
        assert!(world.dialling.send(*device, Class::Control, text("early")).is_err());
    }
    let mut servers = Vec::new();
    for _ in 0..100 {
        servers.push(world.accepted().await);
    }
    for (device, told) in &mut devices {
        assert!(matches!(told.next().await, LinkEvent::Up { .. }));
        world.dialling.send(*device, Class::Control, text("ping")).unwrap();
    }
    for (server, _, heard) in &mut servers {
        assert!(matches!(heard.next().await, LinkEvent::Up { .. }));
        assert_eq!(heard.frame().await.1, text("ping"));
        world.listening.send(*server, Class::Control, text("pong")).unwrap();
    }
    for (_, told) in &mut devices {
        assert_eq!(told.frame().await.1, text("pong"));
    }
    assert_eq!(world.listening.connections(), 100);
    world.listening.shut_down(Duration::from_secs(10)).await;
    for (_, told) in &mut devices {
        assert_eq!(told.down().await, DownReason::ClosedByPeer { code: CloseCode::Done });
    }
    assert_eq!(world.listening.connections(), 0);
}

#[tokio::test]
async fn a_dial_that_is_closed_is_told_so_once() {
    let fleet = Fleet::new(1);
    let world = World::new(&fleet);
    // A socket that nobody reads from: the handshake gets no answer.
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (device, mut told) = world.dial_at(&silent.local_addr().unwrap().to_string(), fleet.enrolled());
    world.dialling.close(device, CloseCode::Timeout);
    assert_eq!(told.down().await, DownReason::ClosedHere { code: CloseCode::Timeout });
    world.dialling.close(device, CloseCode::Timeout);
    let (_, mut told) = world.dial_at("no port here", fleet.enrolled());
    assert!(matches!(told.down().await, DownReason::Unreachable { .. }));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let fleet = Fleet::new(1);
    let world = World::new(&fleet);
    let accept = || -> Accept { Arc::new(|_, _, _| -> LinkEvents { Arc::new(|_, _| ()) }) };
    let taken = world.listener.local_address().to_string();
    let error = world.listening.listen(&taken, fleet.server(), accept()).err().unwrap();
    assert_eq!(error.to_string(), format!("another process listens on {taken}"));
    let error = world.listening.listen("somewhere", fleet.server(), accept()).err().unwrap();
    assert!(matches!(error, ListenError::Address { .. }));
    let broken = ListenIdentity { certificates: vec![vec![1, 2, 3]], ..fleet.server() };
    let error = world.listening.listen("127.0.0.1:0", broken, accept()).err().unwrap();
    assert!(matches!(error, ListenError::Identity { .. }));
}

#[tokio::test]
async fn a_new_identity_is_shown_to_new_connections_only() {
    let (fleet, other) = (Fleet::new(1), Fleet::new(2));
    let mut world = Joined::of(&fleet).await;
    world.world.listener.set_identity(other.server()).unwrap();
    let (_, mut told) = world.world.dial(other.enrolled());
    let LinkEvent::Up { peer: Peer::Server { leaf }, .. } = told.next().await else { panic!() };
    let evidence = ServerEvidence { leaf: &leaf, authorities: &[other.ca.key()], fleet: other.id };
    assert_eq!(verify_server(&evidence), Ok(()));
    world.world.dialling.send(world.device, Class::Actual, text("still here")).unwrap();
    assert_eq!(world.heard.frame().await.1, text("still here"));
}

#[tokio::test]
async fn a_server_that_was_killed_says_so_when_it_is_back() {
    let fleet = Fleet::new(1);
    let world = World::new(&fleet);
    let (runtime, server) = World::doomed(&fleet, "127.0.0.1:0");
    let address = server.1.local_address().to_string();
    let (device, mut told) = world.dial_at(&address, fleet.enrolled());
    assert!(matches!(told.next().await, LinkEvent::Up { .. }));
    let (again, server) = tokio::task::spawn_blocking(move || {
        // With its tasks gone it can say no goodbye; then its port is free.
        runtime.shutdown_timeout(Duration::from_secs(10));
        drop(server);
        World::doomed(&fleet, &address)
    })
    .await
    .unwrap();
    // What a device would say by itself at the next keep-alive.
    world.dialling.send(device, Class::Control, text("are you there?")).unwrap();
    let reason = told.down().await;
    assert!(matches!(&reason, DownReason::Failed { cause } if cause.contains("reset")), "{reason:?}");
    drop(server);
    again.shutdown_background();
}
