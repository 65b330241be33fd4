//! `fleetd-agent`: the agent as a program of its own, for devices that carry nothing else of fleetd.

use std::process::ExitCode;

use clap::Parser;
use fleetd_agent::command::{self, Command, Invocation};

/// Runs a device's workloads and keeps them as its fleet wants them
#[derive(Debug, Parser)]
#[command(name = "fleetd-agent", version, max_term_width = 100)]
struct CommandLine {
    /// Answer in JSON: one object, or one a line for streams; errors too, on standard error
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let CommandLine { json, command } = CommandLine::parse();
    command::run(command, &Invocation::standalone(json))
}
