//! `fleetd-agent`: the agent as a program of its own, for devices that carry nothing else of fleetd.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fleetd_agent::shim::{self, ShimArguments};

/// Runs a device's workloads and keeps them as its fleet wants them
#[derive(Debug, Parser)]
#[command(name = "fleetd-agent", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Holds one workload; started by the agent
    #[command(hide = true)]
    Shim(ShimArguments),
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Shim(arguments) => shim::run(&arguments),
    }
}
