//! `status`: what this device runs, and how it stands with its server.

use super::answer::{CommandError, answer, columns};
use super::{Invocation, ask_error, block_on, connect, read_config};
use crate::config::ConfigArguments;
use crate::local_api::{AskAgentError, ShownFailure, ShownStatus, ShownWorkload};

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
    let mut head = vec![["device", &device], ["local id", &status.local_id], ["link", &link]];
    let failure = status.last_failure.as_ref().map(|failure| of_failure(failure, &status.link_reason));
    head.extend(failure.as_ref().map(|failure| ["last failure", failure]));
    let next = status.next_dial_at.as_ref().map(ToString::to_string);
    head.extend(next.as_ref().map(|next| ["next dial", next]));
    let head: Vec<_> = head.into_iter().map(|row| row.map(str::to_owned).to_vec()).collect();
    let head = columns(&head);
    if status.workloads.is_empty() {
        return format!("{head}\n\nno workloads");
    }
    let title = ["WORKLOAD", "VERSION", "RUN", "PHASE", "PID", "RESTARTS", ""].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(title).chain(status.workloads.iter().map(row)).collect();
    format!("{head}\n\n{}", columns(&rows))
}

/// What failed, with its words where the link's reason are others.
fn of_failure(failure: &ShownFailure, link_reason: &str) -> String {
    let mut text = failure.code.clone();
    if failure.message != link_reason {
        text.push_str(&format!(": {}", failure.message));
    }
    if !failure.server_address.is_empty() {
        text.push_str(&format!(" at {}", failure.server_address));
    }
    if let Some(at) = &failure.failed_at {
        text.push_str(&format!(", {at}"));
    }
    text
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
    if let (Some(until), true) = (&workload.deferred_until, workload.reason.is_empty()) {
        notes.push(format!("not updated until {until}"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local_api::ShownMoment;

    fn status() -> ShownStatus {
        ShownStatus {
            local_id: "loc_1".to_owned(),
            device_id: "dev_1".to_owned(),
            name: "brisk-otter".to_owned(),
            link: "live".to_owned(),
            server_address: "fleet.example.com:4433".to_owned(),
            link_reason: String::new(),
            last_failure: None,
            next_dial_at: None,
            fleet_id: "flt_1".to_owned(),
            trust_version: 2,
            workloads: Vec::new(),
        }
    }

    #[test]
    fn a_device_that_is_cut_off_says_why_and_when_it_dials_again() {
        assert_eq!(text(&status()), "device    brisk-otter (dev_1)\nlocal id  loc_1\nlink      live\n\nno workloads");
        let at = |text: &str| Some(ShownMoment::of(text.parse().unwrap()));
        let cut_off = ShownStatus {
            link: "idle".to_owned(),
            link_reason: "the server does not answer in time".to_owned(),
            last_failure: Some(ShownFailure {
                code: "timeout".to_owned(),
                message: "the server does not answer in time".to_owned(),
                server_address: "fleet.example.com:4433".to_owned(),
                failed_at: at("2026-11-03T08:15:00.123Z"),
            }),
            next_dial_at: at("2026-11-03T08:15:20Z"),
            ..status()
        };
        assert_eq!(
            text(&cut_off),
            "device        brisk-otter (dev_1)\n\
             local id      loc_1\n\
             link          idle: the server does not answer in time\n\
             last failure  timeout at fleet.example.com:4433, 2026-11-03T08:15:00Z\n\
             next dial     2026-11-03T08:15:20Z\n\n\
             no workloads"
        );
        let json = serde_json::to_value(&cut_off).unwrap();
        assert_eq!(json["lastFailure"]["code"], "timeout");
        assert_eq!(json["lastFailure"]["failedAt"], "2026-11-03T08:15:00Z");
        assert_eq!(json["nextDialAt"], "2026-11-03T08:15:20Z");
    }

    #[test]
    fn a_failure_is_told_in_full_where_the_link_has_another_reason() {
        let failure = ShownFailure {
            code: "impostor".to_owned(),
            message: "the server cannot prove itself".to_owned(),
            server_address: String::new(),
            failed_at: None,
        };
        let link_reason = "an operator must approve this device".to_owned();
        let text = text(&ShownStatus { last_failure: Some(failure), link_reason, ..status() });
        assert!(text.contains("last failure  impostor: the server cannot prove itself\n"), "{text}");
    }
}
