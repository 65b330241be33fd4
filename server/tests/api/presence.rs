//! When devices were last heard, after a server that ended without a word.

use fleetd_server::presence::{Presence, take_up};
use fleetd_sync_core::id::ConnectionId;
use fleetd_sync_core::session::Grade;
use fleetd_sync_core::time::Clock as _;
use fleetd_sync_transport::link::PeerIdentity;
use serde_json::{Value, json};

use super::world::{World, device_key, text};

const MINUTE_MS: i64 = 60_000;

async fn last_heard(world: &World, name: &str) -> Value {
    let shown = world.call("device.v1.DeviceService/GetDevice", json!({ "device": name })).await.expect("it is there");
    shown["device"]["lastHeardAt"].clone()
}

fn connect(world: &World, number: u8, seed: u8) -> ConnectionId {
    let (connection, key) = (ConnectionId::from_bytes([number; 8]), device_key(seed).public());
    let (connections, now) = (&world.node.shared.connections, world.clock.now().wall);
    let peer = PeerIdentity { device: key.id().into(), key, not_after: now, expired: false };
    connections.insert(connection, &peer, "127.0.0.1:1".parse().expect("an address"), now);
    connections.serve(connection, Grade::Full);
    connection
}

#[tokio::test]
async fn a_killed_server_knows_afterwards_when_it_last_noted_who_was_there() {
    let world = World::start().await;
    let names = world.devices(3).await;
    let mut presence = Presence::new(std::sync::Arc::clone(&world.node.shared));
    presence.note().await.expect("nobody is there");
    let (stays, goes) = (connect(&world, 1, 100), connect(&world, 2, 101));
    presence.note().await.expect("two are there");
    world.clock.turn(MINUTE_MS);
    world.node.shared.connections.remove(goes);
    presence.note().await.expect("one is there");
    world.clock.turn(MINUTE_MS / 2);
    // It is killed: no connection's end reaches an actor. The next run starts from what is stored.
    world.node.shared.connections.remove(stays);
    assert_eq!(last_heard(&world, &names[0]).await, Value::Null, "its record knows of no connection's end");
    take_up(&world.store).await.expect("it can be read");
    assert_eq!(text(&last_heard(&world, &names[0]).await), "2027-01-15T08:01:00Z");
    for name in &names[1..] {
        assert_eq!(last_heard(&world, name).await, Value::Null, "what its own record says stands");
    }
    world.clock.turn(MINUTE_MS);
    take_up(&world.store).await.expect("it can be read");
    assert_eq!(text(&last_heard(&world, &names[0]).await), "2027-01-15T08:01:00Z", "it is taken up once");
}
