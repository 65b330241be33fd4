//! `cargo xtask soak`: one thing for long. And the short form of it that every change must pass.

use std::time::Instant;

use anyhow::Context as _;
use clap::ValueEnum;
use xshell::{Shell, cmd};

use crate::ci::root;

/// What can be run for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Seeds of the simulator's scenarios.
    Sim,
    /// A server that dies again and again while a rollout goes on: at each of its calls in the simulator, then as a
    /// process, in each phase and at random.
    Rollout,
}

/// Seeds of the set that is the same in every run of CI.
const SEEDS_FIXED: &str = "24";
/// Seeds that are drawn afresh, if there is time for all of them.
const SEEDS_FRESH: &str = "200";
/// What the seeds may take, in all: with the check of two processes, three minutes.
const FIXED_WITHIN: &str = "80s";
const FRESH_WITHIN: &str = "60s";
/// Where the page about the fresh seeds is left.
const REPORT: &str = "target/sim.html";

/// Runs something for as long as it is asked to; the first failure ends it with the command that shows it again.
///
/// # Errors
/// When something failed.
pub(crate) fn run(what: What, duration: &str) -> anyhow::Result<()> {
    let shell = shell()?;
    match what {
        What::Sim => {
            cmd!(shell, "cargo run -- sim run --seeds 1000000 --all-marks --within {duration} --report {REPORT}")
                .run()?;
        }
        What::Rollout => {
            let end = Instant::now() + crate::fuzz::duration(duration)?;
            ignored(&shell, "fleetd-simulator")?;
            while {
                ignored(&shell, "fleetd-chaos-tests")?;
                Instant::now() < end
            } {}
        }
    }
    Ok(())
}

/// Runs the long tests of waves of a package, of which there must be some.
fn ignored(shell: &Shell, package: &str) -> anyhow::Result<()> {
    let arguments = ["--package", package, "--test", "runner", "--", "--ignored"];
    let listed = cmd!(shell, "cargo test {arguments...} --list waves::").quiet().read()?;
    anyhow::ensure!(listed.contains(": test"), "`{package}` has no long test of waves:\n{listed}");
    cmd!(shell, "cargo test {arguments...} waves::").run()?;
    Ok(())
}

/// What of the simulator every change must pass.
///
/// # Errors
/// When a seed failed, or was not the same run in two processes.
pub(crate) fn sim_in_ci(shell: &Shell) -> anyhow::Result<()> {
    cmd!(shell, "cargo run -- sim check --determinism --engines --seed 1 --seeds 3").run()?;
    cmd!(shell, "cargo run -- sim check --determinism --engine quic --seed 1 --seeds 2").run()?;
    cmd!(shell, "cargo run -- sim run --seed 1 --seeds {SEEDS_FIXED} --within {FIXED_WITHIN}").run()?;
    // It prints the seed that it begins with.
    cmd!(shell, "cargo run -- sim run --seeds {SEEDS_FRESH} --within {FRESH_WITHIN} --report {REPORT}").run()?;
    Ok(())
}

fn shell() -> anyhow::Result<Shell> {
    let shell = Shell::new().context("find the working folder")?;
    shell.change_dir(root());
    Ok(shell)
}
