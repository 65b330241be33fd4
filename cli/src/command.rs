//! The commands: what there is, and how each begins.
//!
//! A command is a noun and a verb (`rollout start`); its file holds its flags, the request that it makes and what it
//! prints. [`Session`] is what all of them share.

pub mod access;
pub mod audit;
pub mod backup;
pub mod completion;
pub mod config;
pub mod context;
pub mod demo;
pub mod device;
pub mod doctor;
pub mod enroll;
pub mod explain;
pub mod group;
pub mod key;
pub mod login;
pub mod logs;
pub mod release;
pub mod rollout;
pub mod serve;
pub mod sim;
pub mod support;
pub mod trust;
pub mod value;
pub mod wording;

use clap::{Args, Parser, Subcommand};

use crate::client::{FleetClient, Target};
use crate::context::{ContextFile, TOKEN_VARIABLE};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::Output;

/// Ship software to devices that nobody can touch
///
/// One program for all of it: it serves a fleet, operates it, and runs on its devices.
#[derive(Debug, Parser)]
#[command(name = "fleetd", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "\
Exit codes: 0 ok, 1 error, 2 usage, 4 auth, 5 rollout halted or failed, 6 stale plan, 7 wait expired, 130 Ctrl-C
Environment: FLEETD_CONTEXT, FLEETD_TOKEN, FLEETD_CONFIG_DIR, FLEETD_LOG (events on standard error), NO_COLOR")]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub options: Options,
    /// What to do.
    #[command(subcommand)]
    pub program: Program,
}

/// What this program is when it runs.
#[derive(Debug, Subcommand)]
pub enum Program {
    /// An operator's tool, or a server.
    #[command(flatten)]
    Operate(Command),
    /// What runs on a device, and its local commands: all of fleetd-agent
    #[command(subcommand)]
    Agent(fleetd_agent::command::Command),
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Answer in JSON: one object, or one a line for streams; errors too, on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// The server to talk to, by the name that `context list` shows
    #[arg(long, global = true, env = "FLEETD_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub context: Option<String>,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Get to know a server, and keep a credential for it
    Login(login::Login),
    /// Forget a server and the credential for it
    Logout(login::Logout),
    /// Say who is calling, and whom
    Whoami(login::Whoami),
    /// The servers that are known here
    #[command(subcommand)]
    Context(context::Context),
    /// The devices of the fleet
    #[command(subcommand)]
    Device(device::Device),
    /// Devices that are meant by one name
    #[command(subcommand)]
    Group(group::Group),
    /// Who may join the fleet
    #[command(subcommand)]
    Enroll(enroll::Enroll),
    /// Who may call the API
    #[command(subcommand)]
    Access(access::Access),
    /// Who did what
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Keys of one's own
    #[command(subcommand)]
    Key(key::Key),
    /// Whose word counts in the fleet
    #[command(subcommand)]
    Trust(trust::Trust),
    /// Signed versions of workloads
    #[command(subcommand)]
    Release(release::Release),
    /// What fills the names that releases leave open
    #[command(subcommand)]
    Config(config::Config),
    /// Bringing releases to devices
    #[command(subcommand)]
    Rollout(rollout::Rollout),
    /// Read what workloads write
    Logs(logs::Logs),
    /// Check everything between here and the server, and say what to do
    Doctor(doctor::Doctor),
    /// Explain an error by its code
    Explain(explain::Explain),
    /// Serve a fleet from this machine
    Serve(serve::Serve),
    /// Write all that a server keeps into one file, while it serves
    Backup(backup::Backup),
    /// Make the store of a server from a backup
    Restore(backup::Restore),
    /// Play a whole fleet on this machine: a server, three devices, good and bad releases, a cut link
    Demo(demo::Demo),
    /// Rehearse in a simulated world: the product's own nodes, on virtual time, under faults
    #[command(subcommand)]
    Sim(sim::Sim),
    /// Help from afar, with what a device or a server wrote down of itself
    #[command(subcommand)]
    Support(support::Support),
    /// Write a completion script for a shell
    Completion(completion::Completion),
}

/// What every command needs: where to write, whom to call, and whether somebody has lost patience.
#[derive(Debug)]
pub struct Session<'a> {
    /// Where its words go.
    pub output: &'a Output,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// The context that was asked for.
    pub context: Option<String>,
}

impl Session<'_> {
    /// Reads the server that is meant, and the credential for it.
    ///
    /// # Errors
    /// When there is no such context, or it cannot be read.
    pub fn target(&self) -> Result<Target, CommandError> {
        let file = ContextFile::open()?;
        let (name, context) = file.select(self.context.as_deref())?;
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let token = token.or_else(|| context.token.clone());
        Target::new(&context.url, &context.fleet, &context.ca_certificate_pem, token).map_err(|error| {
            CommandError::new("context.invalid", format!("context {name:?} of {} is unusable", file.path().display()))
                .caused_by(&error)
                .next_command(format!("fleetd login {} --fleet flt_…", context.url))
        })
    }

    /// Connects to the server that is meant.
    ///
    /// # Errors
    /// Those of [`Session::target`], and when it cannot be reached or is not believed.
    pub async fn client(&self) -> Result<FleetClient, CommandError> {
        let target = self.target()?;
        if !target.has_token() {
            return Err(CommandError::new("auth.no_token", format!("there is no token for {}", target.url()))
                .next_command(format!("fleetd login {} --fleet {}", target.url(), target.fleet()))
                .exit(Exit::Unauthenticated));
        }
        Ok(FleetClient::connect(&target).await?)
    }
}

/// Runs one command.
///
/// # Errors
/// [`CommandError`] says what went wrong and how the process should end.
pub async fn run(command: Command, options: Options, output: &Output) -> Result<(), CommandError> {
    let interrupt = Interrupt::listen();
    let session = Session { output, interrupt: interrupt.clone(), context: options.context };
    if let Command::Serve(command) = command {
        // It ends in order when it is told to, and is not cut off meanwhile.
        return command.run(&session).await;
    }
    if let Command::Sim(command) = command {
        // It stops its runs, and tells what they came to.
        return command.run(&session).await;
    }
    if let Command::Rollout(rollout::Rollout::Rehearse(command)) = command {
        // So does this one.
        return command.run(&session).await;
    }
    // A command that waits for something that goes on without it says so itself.
    interrupt.heeded_by(dispatch(command, &session)).await
}

async fn dispatch(command: Command, session: &Session<'_>) -> Result<(), CommandError> {
    match command {
        Command::Login(command) => command.run(session).await,
        Command::Logout(command) => command.run(session),
        Command::Whoami(command) => command.run(session).await,
        Command::Context(command) => command.run(session),
        Command::Device(command) => command.run(session).await,
        Command::Enroll(command) => command.run(session).await,
        Command::Group(command) => command.run(session).await,
        Command::Access(command) => command.run(session).await,
        Command::Audit(command) => command.run(session).await,
        Command::Key(command) => command.run(session),
        Command::Trust(command) => command.run(session).await,
        Command::Release(command) => command.run(session).await,
        Command::Config(command) => command.run(session).await,
        Command::Rollout(command) => command.run(session).await,
        Command::Logs(command) => command.run(session).await,
        Command::Doctor(command) => command.run(session).await,
        Command::Explain(command) => command.run(session),
        Command::Backup(command) => command.run(session).await,
        Command::Restore(command) => command.run(session).await,
        Command::Demo(command) => command.run(session).await,
        Command::Serve(command) => command.run(session).await,
        Command::Sim(command) => command.run(session).await,
        Command::Support(command) => command.run(session).await,
        Command::Completion(command) => command.run(session),
    }
}
