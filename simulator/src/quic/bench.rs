//! What handshakes cost: devices that connect to a server, both ends in this process, and say a word each.
//!
//! Everything is as the product has it (windows, timeouts, certificates that both ends show and check), but that devices
//! may share one socket: a socket has a buffer and tables of its own, of which a device has one and a process that
//! stands for a thousand devices would have a thousand.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fleetd_sync_core::entropy::Entropy;
use fleetd_sync_core::id::{ConnectionId, FleetId};
use fleetd_sync_core::key::SecretKey;
use fleetd_sync_core::session::Class;
use fleetd_sync_transport::endpoint::Settings;
use fleetd_sync_transport::identity::CertificateAuthority;
use fleetd_sync_transport::link::{Accept, DialIdentity, Link, LinkEvent, LinkEvents, ListenIdentity, Listener};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use super::link::PacketLink;
use super::network::{Traced, UdpNetwork};
use crate::clock::new_year_2026;
use crate::engine::actors::Director;
use crate::world::World;

/// What the server is called.
const SERVER: &str = "server:4443";
/// How long a packet takes one way.
const LATENCY: Duration = Duration::from_millis(15);
/// Time between one device's dial and the next one's: as many as the server lets shake hands at once.
const DIAL_INTERVAL: Duration = Duration::from_millis(5);
/// Virtual time after the last dial in which every device must have been answered.
const PATIENCE: Duration = Duration::from_secs(30);
/// A word: as long as the shortest Hello.
const WORD: &[u8] = &[7; 48];

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Handshakes {
    /// Devices that dialled.
    pub connections: u32,
    /// Those that were answered.
    pub connected: u32,
    /// Processor time, of user and system, from the first dial to the last answer.
    pub cpu_seconds: f64,
    /// Devices that were answered for each of these seconds.
    pub per_cpu_second: f64,
    /// By how much the process grew for each of them, both ends together, in KiB.
    pub rss_kib_per_pair: f64,
    /// Packets that were sent.
    pub packets: u64,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[error("the endpoints cannot be set up: {0}")]
pub struct MeasureError(String);

fn failed(error: impl std::fmt::Display) -> MeasureError {
    MeasureError(error.to_string())
}

/// Lets so many devices connect, and measures what it costs. The process should do nothing else meanwhile.
///
/// # Errors
/// [`MeasureError`] when an endpoint or an identity cannot be made, or the operating system does not tell.
pub fn measure_handshakes(connections: u32, seed: u64, own_sockets: bool) -> Result<Handshakes, MeasureError> {
    let world = World::new(seed);
    let director = Director::of(&world).map_err(failed)?;
    let network = UdpNetwork::new(world.clone(), director.handle(), LATENCY, Traced::Sizes);
    let mut fleet = BenchFleet::new(world.entropy("bench"))?;
    let _listener = fleet.listen(&network)?;
    let shared = network.link("devices", Settings::default());
    let answered = Arc::new(AtomicU32::new(0));
    for number in 0..connections {
        let identity = fleet.device()?;
        let own = own_sockets.then(|| network.link(&format!("device-{number}"), Settings::default()));
        let (link, answered) = (own.unwrap_or_else(|| Arc::clone(&shared)), Arc::clone(&answered));
        let connection = ConnectionId::from_bytes(u64::from(number).to_le_bytes());
        world.schedule(DIAL_INTERVAL * number, "bench", b"dial", move || {
            let events = device_events(&link, answered);
            link.dial(connection, SERVER, identity, events);
        });
    }
    let (memory, cpu) = (memory_kib().map_err(failed)?, cpu_seconds()?);
    world.run_until(DIAL_INTERVAL * connections + PATIENCE, || answered.load(Ordering::Relaxed) == connections);
    let cpu_seconds = cpu_seconds()? - cpu;
    let memory = memory_kib().map_err(failed)?.saturating_sub(memory);
    let connected = answered.load(Ordering::Relaxed);
    Ok(Handshakes {
        connections,
        connected,
        cpu_seconds,
        per_cpu_second: f64::from(connected) / cpu_seconds.max(f64::EPSILON),
        rss_kib_per_pair: f64::from(u32::try_from(memory).unwrap_or(u32::MAX)) / f64::from(connected.max(1)),
        packets: network.traffic().0,
    })
}

/// Says a word when it is connected, and counts the answer.
fn device_events(link: &Arc<PacketLink>, answered: Arc<AtomicU32>) -> LinkEvents {
    let link = Arc::clone(link);
    Arc::new(move |connection, event| match event {
        LinkEvent::Up { .. } => drop(link.send(connection, Class::Control, Bytes::from_static(WORD))),
        LinkEvent::Frame { .. } => drop(answered.fetch_add(1, Ordering::Relaxed)),
        LinkEvent::Down { .. } => {}
    })
}

/// Whoever takes part.
struct BenchFleet {
    authority: CertificateAuthority,
    entropy: Entropy,
}

impl BenchFleet {
    fn new(mut entropy: Entropy) -> Result<Self, MeasureError> {
        let fleet = FleetId::random(&mut entropy);
        let authority = CertificateAuthority::new(fleet, &SecretKey::generate(&mut entropy)).map_err(failed)?;
        Ok(Self { authority, entropy })
    }

    fn device(&mut self) -> Result<DialIdentity, MeasureError> {
        let key = SecretKey::generate(&mut self.entropy);
        let issued = self.authority.issue_device(&key.public(), new_year_2026(), &mut self.entropy).map_err(failed)?;
        Ok(DialIdentity { key, certificates: issued.chain })
    }

    /// Starts a server that answers a word with a word.
    fn listen(&mut self, network: &UdpNetwork) -> Result<Box<dyn Listener>, MeasureError> {
        let key = SecretKey::generate(&mut self.entropy);
        let today = new_year_2026();
        let issued = self.authority.issue_server(&key.public(), &[], today, &mut self.entropy).map_err(failed)?;
        let authorities = vec![self.authority.certificate().to_vec()];
        let identity = ListenIdentity { certificates: issued.chain, key, authorities };
        let server = network.link("server", Settings::server());
        let listening = Arc::clone(&server);
        let accept: Accept = Arc::new(move |_, _, _| {
            let server = Arc::clone(&server);
            Arc::new(move |connection, event| {
                if let LinkEvent::Frame { class, bytes } = event {
                    drop(server.send(connection, class, bytes));
                    server.grant(connection, 1);
                }
            })
        });
        listening.listen(&network.listen_address(SERVER), identity, accept).map_err(failed)
    }
}

/// Processor time of this process so far.
fn cpu_seconds() -> Result<f64, MeasureError> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(failed)?;
    let seconds = |time: nix::sys::time::TimeVal| {
        let (whole, rest) = (time.tv_sec(), time.tv_usec());
        Duration::from_secs(u64::try_from(whole).unwrap_or(0)) + Duration::from_micros(u64::try_from(rest).unwrap_or(0))
    };
    Ok((seconds(usage.user_time()) + seconds(usage.system_time())).as_secs_f64())
}

/// Memory of this process that is in use now.
fn memory_kib() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
