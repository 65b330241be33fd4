//! `start`, `stop` and `restart`: what somebody at the device wants of a workload.

use fleetd_actors::workload::Command;
use fleetd_sync_core::id::RequestId;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_transport::clock::system_entropy;

use super::answer::{CommandError, answer};
use super::{Invocation, ask_error, block_on, connect, read_config};
use crate::config::ConfigArguments;
use crate::local_api::ShownWorkload;

pub(super) fn start(
    arguments: &ConfigArguments,
    workload: &WorkloadName,
    invocation: &Invocation,
) -> Result<(), CommandError> {
    give(arguments, workload, Command::Start, invocation)
}

pub(super) fn stop(
    arguments: &ConfigArguments,
    workload: &WorkloadName,
    invocation: &Invocation,
) -> Result<(), CommandError> {
    give(arguments, workload, Command::Stop, invocation)
}

pub(super) fn restart(
    arguments: &ConfigArguments,
    workload: &WorkloadName,
    invocation: &Invocation,
) -> Result<(), CommandError> {
    give(arguments, workload, Command::Restart, invocation)
}

fn give(
    arguments: &ConfigArguments,
    workload: &WorkloadName,
    command: Command,
    invocation: &Invocation,
) -> Result<(), CommandError> {
    let verb = match command {
        Command::Stop => "is stopped, and stays so until it is started again",
        Command::Restart => "is restarted",
        _ => "is started",
    };
    let json = serde_json::json!({ "workload": ask(arguments, workload, command, invocation)? });
    answer(invocation.json, &json, &format!("{workload} {verb}"))
}

/// Gives the agent that runs a command for a workload.
pub(super) fn ask(
    arguments: &ConfigArguments,
    workload: &WorkloadName,
    command: Command,
    invocation: &Invocation,
) -> Result<Option<ShownWorkload>, CommandError> {
    let config = read_config(arguments, invocation)?;
    let entropy = system_entropy();
    let mut entropy = entropy.map_err(|error| CommandError::new("agent.process", "no request id").caused_by(&error))?;
    let request = RequestId::random(&mut entropy);
    block_on(async {
        let mut client = connect(&config, invocation).await?;
        client.command(request, workload, command).await.map_err(|error| ask_error(&error, invocation))
    })
}
