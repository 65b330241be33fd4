//! `cargo xtask findability`: plants each known bug in turn, and measures how soon the simulator finds it.
//!
//! The program with the bugs is built into a folder of its own, so that it is never taken for the real one. Each seed
//! is a process, and what it costs is CPU time: the machine may be busy with something else.

use std::fmt::Write as _;

use anyhow::Context as _;
use xshell::{Shell, cmd};

use crate::ci::root;

/// Where the program with the bugs is built.
const TARGET: &str = "target/planted";
/// The document that has the table, between the two lines.
const DOCUMENT: &str = "docs/simulator.md";
const TABLE_BEGINS: &str = "<!-- findability begins: written by `cargo xtask findability` -->";
const TABLE_ENDS: &str = "<!-- findability ends -->";
/// What a bug may cost before it counts as not found.
const CPU_SECONDS_MAX: f64 = 60.0;
/// Ticks of the kernel's CPU accounts in a second.
///
/// # Source
/// proc(5): `sysconf(_SC_CLK_TCK)`, which is 100 on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// A bug, the scenario in which it is looked for, and what it does.
struct Planted {
    name: &'static str,
    scenario: &'static str,
    what: &'static str,
}

const fn planted(name: &'static str, what: &'static str) -> Planted {
    Planted { name, scenario: "simulator/scenarios/planted.toml", what }
}

const fn in_waves(name: &'static str, what: &'static str) -> Planted {
    Planted { name, scenario: "waves", what }
}

const fn under_orders(name: &'static str, what: &'static str) -> Planted {
    Planted { name, scenario: "orders", what }
}

const fn contended(name: &'static str, what: &'static str) -> Planted {
    Planted { name, scenario: "contended", what }
}

/// Every bug of `sync/core/src/planted.rs`.
const BUGS: [Planted; 31] = [
    planted("record_dropped", "a workload does not remember the run that it starts"),
    planted("effect_before_record", "effects happen before their records are durable"),
    planted("ack_before_append", "log records are acknowledged before they are durable"),
    planted("stale_accepted", "a lane takes a branch below its head"),
    planted("signature_unchecked", "an envelope's signature is not looked at"),
    planted("snapshot_not_refolded", "an opener is laid over the state below it"),
    planted("stamp_kept", "a writer that starts goes on under its old stamp"),
    planted("hold_lost", "`resolve` overlooks every hold"),
    planted("double_start", "a restarted agent starts what already runs"),
    planted("deadline_lost", "a restarted agent watches without a deadline"),
    planted("restore_skipped", "what failed is not replaced by the release before it"),
    planted("health_assumed", "a rollout takes a release on watch for healthy"),
    planted("forgotten_unacked", "a spool forgets records that were not acknowledged"),
    planted("stored_twice", "a server stores records again that it has"),
    planted("revoked_let_in", "a server serves a device whose key is revoked"),
    in_waves("gate_off_by_one", "one more device may fail than a rollout's budget allows"),
    in_waves("offline_failed", "a rollout counts a device that never acknowledged as failed"),
    in_waves("wave_twice", "what is assigned a second time is a new try"),
    Planted {
        name: "hold_overtaken",
        scenario: "simulator/scenarios/planted-stops.toml",
        what: "a stopped rollout still sends assignments that were on their way",
    },
    in_waves("wave_deadline_lost", "a restarted rollout does not know when its wave or its bake ends"),
    Planted {
        name: "window_zone",
        scenario: "windows",
        what: "a device reads its windows as if they were of another time zone",
    },
    under_orders("superseded_returns", "a rollout takes a device back that another one took over"),
    under_orders("denied_offered", "a device that connects is not told which releases are denied"),
    under_orders("stop_forgotten", "a device that connects is not told that the whole fleet is stopped"),
    under_orders("stale_plan_started", "a plan is started that does not fit its fleet any more"),
    Planted {
        name: "site_split",
        scenario: "sites",
        what: "a site whose devices switch together does so as soon as one of them is ready",
    },
    contended("deferral_lost", "a restarted agent does not know that somebody put updates off"),
    contended("turn_skipped", "a workload switches while another of its device has not proven itself"),
    contended("place_off_by_one", "one more device begins than may be at work at the same time"),
    contended("approval_skipped", "a wave that has baked is followed by the next without anybody's word"),
    Planted {
        name: "configuration_kept",
        scenario: "configurations",
        what: "a release that is restored keeps the configuration of the one that failed",
    },
];

/// How a bug was found, or that it was not.
struct Found {
    seeds: u32,
    cpu_seconds: f64,
    /// The first line about the failure; `None` when there was none within the budget.
    by: Option<String>,
}

/// Looks for each bug, or for those that are named, and writes the table when all were looked for.
///
/// # Errors
/// When the program does not build, a bug is not known, or one was not found.
pub(crate) fn run(only: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = only.iter().find(|name| BUGS.iter().all(|bug| bug.name != **name)) {
        anyhow::bail!("there is no bug `{unknown}` to plant");
    }
    let shell = Shell::new().context("find the working folder")?;
    shell.change_dir(root());
    cmd!(shell, "cargo build --package fleetd --bin fleetd --features planted-bugs --target-dir {TARGET}").run()?;
    let mut table = String::from("| bug | what is wrong | seeds | CPU-seconds | found by |\n|---|---|---|---|---|\n");
    let mut missed = Vec::new();
    for bug in BUGS.iter().filter(|bug| only.is_empty() || only.iter().any(|name| bug.name == name)) {
        let Found { seeds, cpu_seconds, by } = look_for(&shell, bug)?;
        let by_words = by.as_deref().unwrap_or("**not found**");
        println!("{}: {seeds} seeds, {cpu_seconds:.1} CPU-seconds, {by_words}", bug.name);
        writeln!(table, "| `{}` | {} | {seeds} | {cpu_seconds:.1} | {by_words} |", bug.name, bug.what)?;
        if by.is_none() {
            missed.push(bug.name);
        }
    }
    if only.is_empty() {
        write_table(&shell, &table)?;
    }
    anyhow::ensure!(missed.is_empty(), "not found within {CPU_SECONDS_MAX} CPU-seconds: {}", missed.join(", "));
    Ok(())
}

fn look_for(shell: &Shell, bug: &Planted) -> anyhow::Result<Found> {
    let (program, scenario) = (format!("{TARGET}/debug/fleetd"), bug.scenario);
    let _planted = shell.push_env("FLEETD_PLANTED", bug.name);
    let begin = cpu_seconds_of_children()?;
    let mut seeds = 0_u32;
    loop {
        seeds += 1;
        let seed = seeds.to_string();
        let command = cmd!(shell, "{program} sim run --scenario {scenario} --seed {seed} --seeds 1 --jobs 1").quiet();
        let output = command.ignore_status().output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let by = said.lines().find_map(|line| line.split_once("FAILED: ").map(|(_, by)| by)).and_then(finder);
        anyhow::ensure!(by.is_some() || output.status.success(), "seed {seed} of {}: {said}", bug.name);
        let cpu_seconds = cpu_seconds_of_children()? - begin;
        if by.is_some() || cpu_seconds > CPU_SECONDS_MAX {
            return Ok(Found { seeds, cpu_seconds, by });
        }
    }
}

/// The checker that a failure names: `invariant 7 (logs)`.
fn finder(failure: &str) -> Option<String> {
    failure.split_once(") ").map(|(finder, _)| format!("{finder})"))
}

/// The CPU time of all processes that this one started and that have ended.
fn cpu_seconds_of_children() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read what the kernel says of this process")?;
    // The second field is a name in brackets, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| -> anyhow::Result<f64> {
        let text = fields.get(field).context("the kernel says less than it should")?;
        text.parse().context("the kernel says what is no number")
    };
    Ok((ticks(13)? + ticks(14)?) / TICKS_A_SECOND)
}

fn write_table(shell: &Shell, table: &str) -> anyhow::Result<()> {
    let text = shell.read_file(DOCUMENT)?;
    let (before, rest) = text.split_once(TABLE_BEGINS).context("the document has no place for the table")?;
    let (_, after) = rest.split_once(TABLE_ENDS).context("the table in the document has no end")?;
    shell.write_file(DOCUMENT, format!("{before}{TABLE_BEGINS}\n{table}{TABLE_ENDS}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_that_can_be_planted_is_looked_for() {
        let source = std::fs::read_to_string(root().join("sync/core/src/planted.rs")).unwrap();
        let names: Vec<&str> = source
            .lines()
            .filter_map(|line| line.split_once("=> \"")?.1.split_once('"'))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, BUGS.iter().map(|bug| bug.name).collect::<Vec<_>>());
    }

    #[test]
    fn a_failure_is_told_by_its_checker() {
        let failure = "invariant 7 (logs) does not hold on server: it acknowledges (at 3m, event 7)";
        assert_eq!(finder(failure).as_deref(), Some("invariant 7 (logs)"));
    }
}
