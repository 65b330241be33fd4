//! The commands of `fleetd-agent`, which are those of `fleetd agent` too.
//!
//! `run` is the agent itself. The others ask the one that runs, over the socket in its run directory; what they need
//! no agent for they do without.

mod answer;
mod config;
mod doctor;
mod run;
mod status;
mod support_bundle;
mod update;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use fleetd_sync_core::name::WorkloadName;

use crate::config::{Config, ConfigArguments, process_environment};
use crate::local_api::{AskAgentError, LocalClient};
use crate::shim::{self, ShimArguments};
pub use answer::CommandError;
pub use update::UpdateCommand;

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this device's workloads, and keep them as their fleet wants them
    ///
    /// Without a token the device stays unconfigured: it runs what it has, and answers `status`. What no flag says is
    /// taken from the environment (FLEETD_AGENT_DATA_DIRECTORY and so on), then from the file, where a path is absolute.
    #[command(after_help = "\
Examples:
  fleetd agent run --config ./agent.toml
  fleetd agent run --enroll-token-file ./token --data-directory /srv/fleetd")]
    Run {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
    },
    /// Show what this device runs, and how it stands with its server
    #[command(after_help = "\
Examples:
  fleetd agent status
  fleetd agent status --watch --json")]
    Status {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
        /// Show it again whenever it changes, until Ctrl-C
        #[arg(long, short)]
        watch: bool,
    },
    /// Start a workload that was stopped here
    #[command(after_help = "\
Examples:
  fleetd agent start coffee")]
    Start {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
        /// Which workload
        workload: WorkloadName,
    },
    /// Stop a workload; it stays stopped across reboots, and its fleet sees that
    #[command(after_help = "\
Examples:
  fleetd agent stop coffee")]
    Stop {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
        /// Which workload
        workload: WorkloadName,
    },
    /// Stop a workload and start it again
    #[command(after_help = "\
Examples:
  fleetd agent restart coffee")]
    Restart {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
        /// Which workload
        workload: WorkloadName,
    },
    /// Put updates off: not now, or now again
    #[command(subcommand)]
    Update(UpdateCommand),
    /// The configuration, and where each value comes from
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check everything that the agent needs, and say what to do
    #[command(after_help = "\
Examples:
  fleetd agent doctor
  fleetd agent doctor --config ./agent.toml --json")]
    Doctor {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
    },
    /// Write a file for those who help from afar: how the device is, and its workloads' last steps
    ///
    /// The file is a tar of texts and recordings. Neither keys nor tokens nor log lines are in it; the names of
    /// workloads, their manifests and the device's configuration are.
    #[command(after_help = "\
Examples:
  fleetd agent support-bundle
  fleetd agent support-bundle --out /tmp/broken.tar
  fleetd support replay /tmp/broken.tar")]
    SupportBundle {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
        /// The file to write; it must not be there yet [default: fleetd-support-DEVICE.tar]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Hold one workload; started by the agent
    #[command(hide = true)]
    Shim(ShimArguments),
}

/// What there is to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show every value: of the agent that runs, or as one would read them
    #[command(after_help = "\
Examples:
  fleetd agent config show --origin")]
    Show {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
    },
}

/// How the program was called.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Whether answers and errors are JSON.
    pub json: bool,
    /// What stands before a command, for advice (`fleetd-agent`).
    pub program: &'static str,
    /// What selects the shim on this program's command line.
    pub shim: &'static [&'static str],
    /// What explains an error by its code, where this program can.
    pub explain: Option<&'static str>,
}

impl Invocation {
    /// As `fleetd-agent`.
    #[must_use]
    pub const fn standalone(json: bool) -> Self {
        Self { json, program: "fleetd-agent", shim: &["shim"], explain: None }
    }

    /// As `fleetd agent`.
    #[must_use]
    pub const fn within_fleetd(json: bool) -> Self {
        Self { json, program: "fleetd agent", shim: &["agent", "shim"], explain: Some("fleetd explain") }
    }
}

/// Runs one command to its end, and reports what went wrong. Called outside any async runtime: it makes its own.
#[must_use]
pub fn run(command: Command, invocation: &Invocation) -> ExitCode {
    let result = match command {
        Command::Shim(arguments) => return shim::run(&arguments),
        Command::Run { config } => run::run(&config, invocation),
        Command::Status { config, watch } => status::run(&config, watch, invocation),
        Command::Start { config, workload } => workload::start(&config, &workload, invocation),
        Command::Stop { config, workload } => workload::stop(&config, &workload, invocation),
        Command::Restart { config, workload } => workload::restart(&config, &workload, invocation),
        Command::Update(command) => update::run(command, invocation),
        Command::Config(ConfigCommand::Show { config, origin }) => config::show(&config, origin, invocation),
        Command::Doctor { config } => doctor::run(&config, invocation),
        Command::SupportBundle { config, out } => support_bundle::run(&config, out.as_deref(), invocation),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report(invocation);
            ExitCode::FAILURE
        }
    }
}

fn read_config(arguments: &ConfigArguments, invocation: &Invocation) -> Result<Config, CommandError> {
    Config::read(arguments, &process_environment()).map_err(|error| {
        CommandError::new("agent.config", "the configuration cannot be used")
            .caused_by(&error)
            .next_command(format!("correct it, and see what counts then: {} config show --origin", invocation.program))
    })
}

/// Runs what asks an agent, on this thread.
fn block_on<T>(asking: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::new("agent.process", "cannot wait").caused_by(&error))?;
    runtime.block_on(asking)
}

async fn connect(config: &Config, invocation: &Invocation) -> Result<LocalClient, CommandError> {
    LocalClient::connect(&config.socket.value).await.map_err(|error| ask_error(&error, invocation))
}

/// What to say when an agent's answer was not had.
fn ask_error(error: &AskAgentError, invocation: &Invocation) -> CommandError {
    let program = invocation.program;
    let (code, advice) = match error {
        AskAgentError::NoAgent { .. } => ("agent.not_running", format!("{program} run")),
        AskAgentError::Forbidden { .. } => ("agent.forbidden", format!("sudo {program} …")),
        AskAgentError::Connection { .. } => ("agent.connection", format!("{program} doctor")),
        AskAgentError::Refused { is_unknown: true, .. } => ("agent.workload_unknown", format!("{program} status")),
        AskAgentError::Refused { .. } => ("agent.refused", format!("{program} doctor")),
    };
    CommandError::new(code, error.to_string()).caused_by_source(error).next_command(advice)
}
