//! What a server pays for devices that are connected and have nothing to say.

use std::time::Duration;

use super::broker::Broker;
use super::goosebit;
use super::process::{Clients, Process, Traffic};
use super::server::Server;
use super::{Bench, PATIENCE};
use crate::bench::{Peer, Row, Target};

/// Between so many connections and so many more lies the slope of the server's memory.
const FEW: u32 = 1000;
const MANY: u32 = 5000;
/// Time after which nothing is left of the connecting: actors that have nothing to do go to rest after 30 s.
const SETTLED: Duration = Duration::from_secs(45);
/// What is watched: four keep-alives of each connection.
const WATCHED: Duration = Duration::from_secs(4 * KEEP_ALIVE.as_secs());

/// How often a device says that it is there, behind a NAT and on a LAN: `limit.rs` of `sync/core`.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
const KEEP_ALIVE_LAN: Duration = Duration::from_secs(300);
/// Devices on a LAN: each says the same.
const ON_LAN: u32 = 200;
/// Bytes of an update that nobody looks at here.
const ARTIFACT_BYTES: usize = 1024;

/// What a server pays.
struct Paid {
    bytes_per_connection: f64,
    connections_per_core: f64,
    /// What went over the network meanwhile, as the clients count it.
    before: Traffic,
    after: Traffic,
}

impl Paid {
    fn measure(server: &Process, clients: &mut Clients) -> anyhow::Result<Self> {
        clients.live(FEW, PATIENCE)?;
        std::thread::sleep(SETTLED);
        let few = server.memory_bytes("Rss")?;
        clients.live(MANY, PATIENCE)?;
        std::thread::sleep(SETTLED);
        let many = server.memory_bytes("Rss")?;
        let (before, cpu) = (clients.ask("look")?, server.cpu_seconds()?);
        std::thread::sleep(WATCHED);
        let (cpu, after) = (server.cpu_seconds()? - cpu, clients.ask("look")?);
        anyhow::ensure!(after.live == MANY, "of {MANY} connections {} are left", after.live);
        Ok(Self {
            bytes_per_connection: (many - few) / f64::from(MANY - FEW),
            connections_per_core: f64::from(MANY) * WATCHED.as_secs_f64() / cpu.max(0.01),
            before: before.traffic,
            after: after.traffic,
        })
    }
}

/// `enroll_per_cpu_second`, `reconnect_bytes`, `ram_per_idle_device`, `connected_per_core`, `idle_bytes_nat`.
pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut server = Server::found(&bench.workshop, "idle")?;
    let mut devices = server.devices("devices", MANY, &[])?;
    let coming = |devices: &mut Clients| -> anyhow::Result<f64> {
        let before = server.process()?.cpu_seconds()?;
        devices.live(MANY, PATIENCE)?;
        Ok(server.process()?.cpu_seconds()? - before)
    };
    let first = coming(&mut devices)?;
    devices.ask("stop")?;
    // With its certificate each has come once more, which is no part of how it got that.
    let enrolled_per_second = f64::from(MANY) / (first - coming(&mut devices)?);
    // They come back to a server that has done nothing yet, and so to one that keeps nothing of how they enrolled.
    let before = devices.ask("stop")?.traffic;
    server.restart()?;
    let after = devices.live(FEW, PATIENCE)?.traffic;
    let per_device = |way: fn(&Traffic) -> f64| (way(&after) - way(&before)) / f64::from(FEW);
    let greeting =
        per_device(|traffic| traffic.sent.frame_bytes).max(per_device(|traffic| traffic.received.frame_bytes));
    let ours = Paid::measure(server.process()?, &mut devices)?;
    let carried = ours.after.datagram_bytes() - ours.before.datagram_bytes();
    drop((devices, server));
    let kilobytes = ours.bytes_per_connection / 1000.0;
    let per_hour = carried / 1000.0 / f64::from(MANY) * 3600.0 / WATCHED.as_secs_f64();
    let mut rows = [
        Row::new("ram_per_idle_device", kilobytes, "KB, 1,000 to 5,000", Target::AtMost(34.0)),
        Row::new("connected_per_core", ours.connections_per_core, "devices", Target::AtLeast(50_000.0)),
        Row::new("enroll_per_cpu_second", enrolled_per_second, "devices", Target::AtLeast(1000.0)),
        Row::new("idle_bytes_nat", per_hour, "KB/device-hour", Target::AtMost(19.0)),
        Row::new("reconnect_bytes", greeting, "B, the longer way", Target::AtMost(48.0)),
    ];
    if bench.with_peers {
        add_peers(bench, &mut rows);
    }
    Ok(rows.into())
}

/// Adds what brokers and goosebit pay to the first three rows.
fn add_peers(bench: &Bench, rows: &mut [Row; 5]) {
    let [ram, connected, enrolled, ..] = rows;
    for broker in Broker::ALL {
        let paid = broker.name().and_then(|name| {
            let (process, mut clients) = broker.start(&bench.workshop, &bench.shell)?;
            Ok((name, Paid::measure(&process, &mut clients)?))
        });
        let told = |value: fn(&Paid) -> f64| match &paid {
            Ok((name, paid)) => Peer::measured(name, value(paid)),
            Err(error) => Peer::skipped(broker.package(), error),
        };
        ram.peers.push(told(|paid| paid.bytes_per_connection / 1000.0));
        connected.peers.push(told(|paid| paid.connections_per_core));
    }
    match goosebit::measure(bench, ARTIFACT_BYTES) {
        Ok((name, paid)) => {
            let as_fresh = format!("{name}, a poll each 25 s");
            connected.peers.push(Peer::measured(&as_fresh, KEEP_ALIVE.as_secs_f64() / paid.check_in));
            enrolled.peers.push(Peer::measured(&format!("{name}, no identity"), 1.0 / paid.register));
        }
        Err(error) => {
            [connected, enrolled].into_iter().for_each(|row| row.peers.push(Peer::skipped(goosebit::PACKAGE, &error)))
        }
    }
}

/// `idle_bytes_lan`.
pub(super) fn lan(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let server = Server::found(&bench.workshop, "lan")?;
    let mut devices = server.devices("devices", ON_LAN, &["--lan"])?;
    devices.live(ON_LAN, PATIENCE)?;
    std::thread::sleep(SETTLED);
    let before = devices.ask("look")?.traffic.datagram_bytes();
    std::thread::sleep(KEEP_ALIVE_LAN);
    let carried = devices.ask("look")?.traffic.datagram_bytes() - before;
    let per_hour = carried / 1000.0 / f64::from(ON_LAN) * 3600.0 / KEEP_ALIVE_LAN.as_secs_f64();
    Ok(vec![Row::new("idle_bytes_lan", per_hour, "KB/device-hour", Target::AtMost(2.0))])
}
