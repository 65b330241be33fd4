//! What a server pays for a hundred thousand devices that are registered and away: nothing while nothing happens, and a
//! plan.

use std::time::Duration;

use super::server::Server;
use super::{Bench, PATIENCE, rollout};
use crate::bench::{Row, Target};

/// Devices register in processes of so many, one after the other.
const TOGETHER: u32 = 10_000;
const PROCESSES: u32 = 10;
/// Time after which nothing is left of a start.
const SETTLED: Duration = Duration::from_secs(30);
/// What is watched of a server at rest.
const WATCHED: Duration = Duration::from_secs(60);

/// `idle_100k`, `plan_100k_first` and `plan_100k`.
pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut server = Server::found(&bench.workshop, "registered")?;
    for number in 0..PROCESSES {
        let mut devices = server.devices(&format!("devices-{number}"), TOGETHER, &[])?;
        devices.live(TOGETHER, PATIENCE)?;
        devices.ask("stop")?;
    }
    // What registering left in memory is gone; devices are not woken by a start.
    server.restart()?;
    std::thread::sleep(SETTLED);
    let paid = |server: &Server, act: &dyn Fn() -> anyhow::Result<()>| -> anyhow::Result<f64> {
        let before = server.process()?.cpu_seconds()?;
        act()?;
        Ok(server.process()?.cpu_seconds()? - before)
    };
    let at_rest = paid(&server, &|| {
        std::thread::sleep(WATCHED);
        Ok(())
    })?;
    let release = rollout::push(&server)?;
    let plan = || -> anyhow::Result<()> {
        let planned = server.operate(&["rollout", "plan", &release, "--all"])?;
        let matched = planned.pointer("/plan/counts/matched").and_then(serde_json::Value::as_u64);
        let registered = u64::from(TOGETHER * PROCESSES);
        anyhow::ensure!(matched == Some(registered), "the plan means {matched:?} devices, not {registered}");
        Ok(())
    };
    let (first, second) = (paid(&server, &plan)?, paid(&server, &plan)?);
    let memory = server.process()?.memory_bytes_at_most()? / 1e6;
    let of_core = at_rest / WATCHED.as_secs_f64() * 100.0;
    let mut rows = vec![
        Row::new("idle_100k", of_core, "% of a core, all away", Target::AtMost(0.1)),
        Row::new("plan_100k_first", first, "CPU-s, after a start", Target::AtMost(2.0)),
        Row::new("plan_100k", second, "CPU-s", Target::AtMost(1.0)),
    ];
    rows.iter_mut().for_each(|row| row.rss_mb = Some(memory));
    Ok(rows)
}
