//! What one change costs on its way to a device, and when the device acts on it: the product's own nodes and QUIC, on
//! a link of the world on which a packet takes 50 ms one way. Prints one line of JSON for `cargo xtask bench main`.
//!
//! The change is an operator's wish that a workload stops. It is applied when the device's agent asks the program to
//! end. Time is the world's: what the processors do takes none of it, so that what is left are ways of the link.

#![expect(clippy::print_stdout, reason = "it answers who started it")]

use std::error::Error;
use std::time::Duration;

use fleetd_simulator::engine::EngineKind;
use fleetd_simulator::fleet::{Fleet, Wish};
use fleetd_simulator::observation::Observation;
use fleetd_simulator::world::World;
use fleetd_sync_core::resolve::Run;

/// How long a packet takes one way.
const LATENCY: Duration = Duration::from_millis(50);
/// The device, as the world calls it.
const DEVICE: &str = "device-0";
/// Time in which everything that an earlier step leads to has happened.
const SETTLED: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let mut fleet = Fleet::on(EngineKind::Quic, World::new(7), LATENCY)?;
    fleet.add_device()?;
    let enrolled = |fleet: &Fleet| {
        fleet.devices.iter().all(|device| device.node().is_some_and(|node| node.status().agent.device.is_some()))
    };
    fleet.wait_until("the device to enrol", enrolled)?;
    let release = fleet.push("1.0.0", b"coffee one")?;
    fleet.roll_out(&release)?;
    fleet.wait_until("1.0.0 to be healthy", |fleet| fleet.is_healthy(0, "1.0.0"))?;
    // A server opens its lane with a snapshot, after each of its starts; what is measured is a change like any other.
    fleet.want(Wish::Run { device: 0, run: Run::Stopped })?;
    fleet.world.run_for(SETTLED);
    fleet.want(Wish::Run { device: 0, run: Run::Running })?;
    fleet.world.run_for(SETTLED);

    fleet.tap.open();
    let _earlier = fleet.tap.drain();
    let (begin, (packets, bytes)) = (fleet.world.monotonic(), fleet.network.traffic());
    fleet.want(Wish::Run { device: 0, run: Run::Stopped })?;
    let mut frame_bytes = 0;
    fleet.wait_until("the program to be asked to end", |fleet| {
        fleet.tap.drain().into_iter().any(|observation| match observation {
            Observation::Sent { node, frame, .. } if &*node == "server" => {
                // A length below 128 takes one byte, and no frame of a change is longer than two can tell.
                frame_bytes += frame.len() + 1 + usize::from(frame.len() > 127);
                false
            }
            Observation::Stopped { node, .. } => &*node == DEVICE,
            _ => false,
        })
    })?;
    let took = fleet.world.monotonic().since(begin);
    let (packets_after, bytes_after) = fleet.network.traffic();
    // The headers of IPv4 and UDP.
    let datagram_bytes = bytes_after - bytes + (packets_after - packets) * 28;
    let json = serde_json::json!({
        "latencyMs": took.as_secs_f64() * 1000.0,
        "frameBytes": frame_bytes,
        "datagramBytes": datagram_bytes,
        "datagrams": packets_after - packets,
    });
    println!("{json}");
    Ok(())
}
