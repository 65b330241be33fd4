//! Many devices in one process, for measuring a server: `cargo xtask bench main` steers it.
//!
//! A device here is the agent's own node: its machines, its session, its QUIC and its certificates. What is not real
//! is what no server sees: disk and store lie in memory, and programs only claim to run.
//!
//! It reads commands from standard input, a line each, and answers each with a line of JSON: how many devices are
//! there, run and are live, and what went over the network so far.
//!
//! - `start N`: starts devices, the oldest first, until `N` run; those that there are not yet are made.
//! - `stop`: switches every device off.
//! - `look`: does nothing.
//!
//! It ends with its input.

#![expect(clippy::print_stdout, reason = "it answers who steers it")]

mod device;
mod meter;
mod program;

use std::io::BufRead as _;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use fleetd_sync_core::enrolment::EnrolmentToken;
use fleetd_sync_transport::endpoint::Settings;

use device::{Device, Surroundings};
use meter::Traffic;

/// Whatever ends the program: who steers it reads it.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Devices that are started in a row before the next pause.
const START_TOGETHER: usize = 16;
/// The pause: a server lets so many shake hands at once, and what is measured is no storm.
const START_PAUSE: Duration = Duration::from_millis(50);

#[derive(Parser)]
struct Arguments {
    /// The token that all of them enrol with.
    #[arg(long)]
    token: EnrolmentToken,
    /// Keep the connection alive as on a LAN, not as behind a NAT.
    #[arg(long)]
    lan: bool,
    /// On every so-manyth device programs end as soon as they are started.
    #[arg(long)]
    failing_every: Option<NonZeroUsize>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let surroundings = Surroundings {
        runtime: runtime.handle().clone(),
        token: arguments.token,
        settings: if arguments.lan { Settings::lan() } else { Settings::default() },
        platform: "linux/amd64".parse()?,
        failing_every: arguments.failing_every,
        traffic: Arc::<Traffic>::default(),
    };
    let mut devices: Vec<Device> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["start", count] => start(&mut devices, count.parse()?, &surroundings)?,
            ["stop"] => stop(&mut devices, &surroundings)?,
            ["look"] => {}
            _ => return Err(format!("`{line}` is no command").into()),
        }
        println!("{}", answer(&devices, &surroundings));
    }
    Ok(())
}

fn start(devices: &mut Vec<Device>, count: usize, surroundings: &Surroundings) -> Result<(), Failure> {
    while devices.len() < count {
        let number = devices.len() + 1;
        let is_failing = surroundings.failing_every.is_some_and(|every| number.is_multiple_of(every.get()));
        devices.push(Device::new(is_failing)?);
    }
    let asleep = devices.iter_mut().take(count).filter(|device| !device.is_running());
    for (number, device) in asleep.enumerate() {
        if number % START_TOGETHER == START_TOGETHER - 1 {
            std::thread::sleep(START_PAUSE);
        }
        device.start(surroundings)?;
    }
    Ok(())
}

fn stop(devices: &mut [Device], surroundings: &Surroundings) -> Result<(), Failure> {
    let ending: Vec<_> = devices.iter_mut().filter_map(|device| device.stop(surroundings)).collect();
    surroundings.runtime.block_on(async {
        for end in ending {
            end.await?;
        }
        Ok(())
    })
}

fn answer(devices: &[Device], surroundings: &Surroundings) -> serde_json::Value {
    let running = devices.iter().filter(|device| device.is_running()).count();
    let live = devices.iter().filter(|device| device.is_live()).count();
    let traffic = surroundings.traffic.show();
    serde_json::json!({ "devices": devices.len(), "running": running, "live": live, "traffic": traffic })
}
