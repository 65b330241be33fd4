//! The project's own tools: `cargo xtask tidy`, `cargo xtask codegen`, `cargo xtask ci`, `cargo xtask bench`,
//! `cargo xtask soak`, `cargo xtask findability`, `cargo xtask fuzz`.
//!
//! They use nothing but cargo and what the workspace builds, so that a fresh clone can run them. Where to start
//! reading: [`tidy`] for what the tree must look like, [`ci`] for what a change must pass.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool talks to its user")]

mod bench;
mod ci;
mod codegen;
mod findability;
mod fuzz;
mod oracles;
mod python;
mod soak;
mod source;
mod tidy;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The tools of the fleetd workspace")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the shape of the tree: dependency edges, names, lengths, purity, documents.
    Tidy,
    /// Write the Rust of the schemas in `proto/` to `proto/src/gen`.
    Codegen {
        /// Change nothing, and fail when what is committed differs from the schemas.
        #[arg(long)]
        check: bool,
    },
    /// Run everything that a change must pass, in order, and print the minutes of each step.
    Ci {
        /// Run only these steps, in their usual order.
        #[arg(value_name = "STEP")]
        steps: Vec<String>,
    },
    /// Measure the design's numbers on a release build, and print each beside its target.
    Bench {
        /// What.
        #[arg(value_enum)]
        what: bench::What,
        /// Only these rows.
        #[arg(value_name = "ROW")]
        rows: Vec<String>,
        /// One JSON object a row.
        #[arg(long)]
        json: bool,
        /// Leave the peers out, which take two thirds of the time.
        #[arg(long)]
        without_peers: bool,
    },
    /// Plant each known bug in turn, and measure how soon the simulator finds it.
    Findability {
        /// Only these bugs.
        #[arg(value_name = "BUG")]
        bugs: Vec<String>,
    },
    /// Run one fuzz target for long, led by the coverage that its inputs reach.
    Fuzz {
        /// Which; without it they are listed.
        target: Option<String>,
        /// List the targets, and what each of them reads.
        #[arg(long)]
        list: bool,
        /// For how long.
        #[arg(long = "for", value_name = "DURATION", default_value = "20m")]
        duration: String,
        /// Look for nothing; commit in place of the corpus the fewest inputs that reach all that was reached.
        #[arg(long)]
        reduce: bool,
    },
    /// Run one thing for long, with inputs that nobody has seen before.
    Soak {
        /// What.
        #[arg(value_enum)]
        what: soak::What,
        /// For how long.
        #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
        duration: String,
    },
}

fn main() -> ExitCode {
    if let Err(error) = forget_package() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let outcome = match Arguments::parse().task {
        Task::Tidy => tidy::run(),
        Task::Codegen { check } => codegen::run(check),
        Task::Ci { steps } => ci::run(&steps),
        Task::Bench { what, rows, json, without_peers } => bench::run(what, &rows, json, !without_peers),
        Task::Findability { bugs } => findability::run(&bugs),
        Task::Fuzz { target, list, duration, reduce } => fuzz::run(target.as_deref(), list, &duration, reduce),
        Task::Soak { what, duration } => soak::run(what, &duration),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again without what `cargo run` says of its package. Build scripts that look at that would run
/// once for each cargo below this one, and again for each in a shell: `ring`, and all that stands on it, for minutes.
fn forget_package() -> anyhow::Result<()> {
    let is_of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    let names: Vec<_> =
        std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_str().is_some_and(is_of_package)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1));
    names.iter().for_each(|name| _ = again.env_remove(name));
    // It returns only when it fails.
    Err(again.exec().into())
}
