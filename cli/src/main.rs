//! The entry of `fleetd`: parse, run, report, and leave with the exit code that says what happened.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;
use fleetd::command::{Cli, Command, Options, Program};
use fleetd::error::CommandError;
use fleetd::exit::Exit;
use fleetd::output::Output;
use fleetd_agent::command::Invocation;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let Cli { options, program } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let command = match program {
        Program::Operate(command) => command,
        // The agent has threads and a log of its own, as its configuration says, and a shim has neither.
        Program::Agent(command) => {
            return fleetd_agent::command::run(command, &Invocation::within_fleetd(options.json));
        }
    };
    start_tracing();
    let output = Output::for_process(options.json);
    match run(command, options, &output) {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            output.report(&error);
            error.exit.into()
        }
    }
}

fn run(command: Command, options: Options, output: &Output) -> Result<(), CommandError> {
    // Both ring and another provider may be linked in, and then rustls cannot choose by itself. A provider that is
    // installed already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        CommandError::new("process.runtime", "the process could not start its threads").caused_by(&error)
    })?;
    let result = runtime.block_on(fleetd::command::run(command, options, output));
    // A read of standard input cannot be taken back; waiting for it would keep the terminal.
    runtime.shutdown_background();
    result
}

/// Writes events to standard error, as `FLEETD_LOG` asks for them (`debug`, `fleetd_server=trace,warn`).
fn start_tracing() {
    let asked: Option<Targets> = std::env::var("FLEETD_LOG").ok().and_then(|asked| asked.parse().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let events = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    // A log that cannot be written must end nobody: telling of it on standard error again would be a panic.
    let events = events.log_internal_errors(false);
    events.with_ansi(std::io::stderr().is_terminal()).finish().with(filter).init();
}

/// Reports what clap did not understand. `--help` and `--version` come this way too, and are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    let asks_for_json = std::env::args_os().any(|argument| argument == "--json");
    if asks_for_json && error.use_stderr() {
        Output::for_process(true).report(&CommandError::usage(error));
        return Exit::Usage.into();
    }
    // Nothing can be said when the terminal is gone.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
}
