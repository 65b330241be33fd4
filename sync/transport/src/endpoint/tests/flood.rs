//! Handshakes that are begun by the hundred and never finished.

use std::collections::BTreeSet;

use tokio::net::UdpSocket;

use super::world::*;
use super::*;

/// Time in which a device must have joined: none of the handshakes that hang was given up before.
const AT_ONCE: Duration = limit::HELLO_TIMEOUT.checked_div(2).unwrap();

/// Sends so many first packets to a server, and answers nothing that it says.
async fn begin_half_open(world: &World, fleet: &Fleet, count: usize, server: SocketAddr) -> UdpSocket {
    let caught = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = caught.local_addr().unwrap().to_string();
    let dialled: Vec<_> = (0..count).map(|_| world.dial_at(&address, fleet.unknown())).collect();
    let (mut packets, mut buffer) = (BTreeSet::new(), [0; 2048]);
    let mut connections = BTreeSet::new();
    while connections.len() < count {
        let (length, _) = caught.recv_from(&mut buffer).await.unwrap();
        // What follows the version is the id of the connection that the packet would open.
        if connections.insert(buffer[5..16].to_vec()) {
            packets.insert(buffer[..length].to_vec());
        }
    }
    drop(dialled);
    let flood = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    for packet in packets {
        flood.send_to(&packet, server).await.unwrap();
        tokio::task::yield_now().await;
    }
    flood
}

/// A way to the server that loses all but the first word it says: whoever takes it shows its address, and hangs.
async fn stalling_way(server: SocketAddr) -> SocketAddr {
    let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let far = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    far.connect(server).await.unwrap();
    let address = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut there, mut back) = ([0; 2048], [0; 2048]);
        let (mut client, mut has_passed) = (None, false);
        loop {
            tokio::select! {
                Ok((length, from)) = near.recv_from(&mut there) => {
                    client = Some(from);
                    far.send(&there[..length]).await.unwrap();
                }
                Ok(length) = far.recv(&mut back) => if let Some(client) = client && !std::mem::replace(&mut has_passed, true) {
                    near.send_to(&back[..length], client).await.unwrap();
                },
                else => return,
            }
        }
    });
    address
}

#[tokio::test]
async fn handshakes_that_hang_by_the_hundred_keep_no_device_out() {
    let fleet = Fleet::new(1);
    let mut world = World::new(&fleet);
    let server = world.listener.local_address();
    // As many as are let in without showing their address, and more.
    let _flood = begin_half_open(&world, &fleet, limit::HANDSHAKES_MAX, server).await;
    // One source that shows its address, and would take all that is left.
    let mut stalled = Vec::new();
    for _ in 0..limit::HANDSHAKES_MAX {
        let way = stalling_way(server).await.to_string();
        stalled.push(world.dial_at(&way, fleet.unknown()));
    }
    let (_, mut told) = world.dial(fleet.enrolled());
    let joined = tokio::time::timeout(AT_ONCE, told.next()).await.expect("it waits for others to be given up");
    assert!(matches!(joined, LinkEvent::Up { .. }));
    assert!(matches!(world.accepted().await.1, Peer::Device(_)));
}
