//! What a rehearsal of three waves over ten thousand devices costs the operator's machine.

use super::server::Server;
use super::{Bench, PATIENCE, rollout};
use crate::bench::{Row, Target};

const DEVICES: u32 = 10_000;
const WAVES: [&str; 8] = ["--wave", "100", "--wave", "10%", "--wave", "rest", "--bake", "10m"];

/// `rehearse_10k`.
pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let server = Server::found(&bench.workshop, "rehearsal")?;
    let mut devices = server.devices("devices", DEVICES, &[])?;
    devices.live(DEVICES, PATIENCE)?;
    let release = rollout::push(&server)?;
    let out = server.path("plan.json").display().to_string();
    let plan: Vec<&str> = ["rollout", "plan", &release, "--all", "--out", &out].into_iter().chain(WAVES).collect();
    server.operate_to_the_end(&plan)?;
    let (paid, report) = server.operate_and_pay(&["rollout", "rehearse", &out, "--seeds", "1"])?;
    anyhow::ensure!(report.is_object(), "the rehearsal reports nothing: {report}");
    Ok(vec![Row::new("rehearse_10k", paid, "CPU-s, 3 waves, one seed", Target::AtMost(30.0))])
}
