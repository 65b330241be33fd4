//! `status`: what this device runs, and how it stands with its server.

use super::answer::{CommandError, answer, columns};
use super::{Invocation, ask_error, block_on, connect, read_config};
use crate::config::ConfigArguments;
use crate::local_api::{AskAgentError, ShownStatus, ShownWorkload};

/// What ends a watch.
enum WatchEnd {
    Agent(AskAgentError),
    Output(CommandError),
}

impl From<AskAgentError> for WatchEnd {
    fn from(error: AskAgentError) -> Self {
        Self::Agent(error)
    }
}

pub(super) fn run(arguments: &ConfigArguments, watch: bool, invocation: &Invocation) -> Result<(), CommandError> {
    let config = read_config(arguments, invocation)?;
    block_on(async {
        let mut client = connect(&config, invocation).await?;
        if !watch {
            let status = client.status().await.map_err(|error| ask_error(&error, invocation))?;
            return show(&status, invocation.json);
        }
        let watched = client.watch(|status| show(&status, invocation.json).map_err(WatchEnd::Output)).await;
        match watched {
            Ok(()) => Ok(()),
            Err(WatchEnd::Agent(error)) => Err(ask_error(&error, invocation)),
            Err(WatchEnd::Output(error)) => Err(error),
        }
    })
}

fn show(status: &ShownStatus, json: bool) -> Result<(), CommandError> {
    let value = serde_json::to_value(status)
        .map_err(|error| CommandError::new("output.failed", "the status cannot be written").caused_by(&error))?;
    answer(json, &value, &text(status))
}

fn text(status: &ShownStatus) -> String {
    let device = if status.name.is_empty() {
        "not enrolled".to_owned()
    } else {
        format!("{} ({})", status.name, status.device_id)
    };
    let link = match status.link_reason.as_str() {
        "" => status.link.clone(),
        reason => format!("{}: {reason}", status.link),
    };
    let head = [["device", &device], ["local id", &status.local_id], ["link", &link]];
    let head = columns(&head.map(|row| row.map(str::to_owned).to_vec()));
    if status.workloads.is_empty() {
        return format!("{head}\n\nno workloads");
    }
    let title = ["WORKLOAD", "VERSION", "RUN", "PHASE", "PID", "RESTARTS", ""].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(title).chain(status.workloads.iter().map(row)).collect();
    format!("{head}\n\n{}", columns(&rows))
}

fn row(workload: &ShownWorkload) -> Vec<String> {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let version = if workload.next_version.is_empty() {
        or_dash(&workload.version)
    } else {
        format!("{} -> {}", or_dash(&workload.version), workload.next_version)
    };
    let mut notes = Vec::new();
    if workload.stopped_locally {
        notes.push("stopped here".to_owned());
    }
    if workload.held {
        notes.push("held".to_owned());
    }
    notes.extend(Some(workload.reason.clone()).filter(|reason| !reason.is_empty()));
    vec![
        workload.name.clone(),
        version,
        or_dash(&workload.run),
        or_dash(&workload.phase),
        workload.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        workload.restarts.to_string(),
        notes.join("; "),
    ]
}
