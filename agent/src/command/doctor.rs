//! `doctor`: everything that the agent needs, each with what to do when it is wrong.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use fleetd_sync_core::counted::Counted;
use fleetd_sync_store::disk::{DiskStore, Profile};
use fleetd_sync_store::open_error::OpenStoreError;
use serde::Serialize;

use super::answer::{CommandError, answer, columns};
use super::run::STORE_DIRECTORY;
use super::{Invocation, block_on};
use crate::cause::cause_of;
use crate::config::{Config, ConfigArguments, process_environment};
use crate::identity_files::IdentityFiles;
use crate::local_api::{AskAgentError, LocalClient, ShownFailure, ShownStatus};

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Good,
    Note,
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    what: &'static str,
    health: Health,
    detail: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl Finding {
    fn good(what: &'static str, detail: impl Into<String>) -> Self {
        Self { what, health: Health::Good, detail: detail.into(), remedy: String::new() }
    }

    fn note(what: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, health: Health::Note, detail: detail.into(), remedy: remedy.into() }
    }

    fn bad(what: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, health: Health::Bad, detail: detail.into(), remedy: remedy.into() }
    }
}

/// What a support bundle says of it.
pub(super) fn to_json(config: &Config, invocation: &Invocation) -> Result<serde_json::Value, CommandError> {
    Ok(report(&examine(config, invocation)?))
}

fn report(findings: &[Finding]) -> serde_json::Value {
    serde_json::json!({ "findings": findings, "bad": bad(findings) })
}

fn bad(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.health == Health::Bad).count()
}

pub(super) fn run(arguments: &ConfigArguments, invocation: &Invocation) -> Result<(), CommandError> {
    let findings = match Config::read(arguments, &process_environment()) {
        Ok(config) => examine(&config, invocation)?,
        Err(error) => vec![Finding::bad("configuration", cause_of(&error), "correct the value that is named")],
    };
    answer(invocation.json, &report(&findings), &text(&findings))?;
    match bad(&findings) {
        0 => Ok(()),
        bad => Err(CommandError::new("agent.unwell", format!("{bad} of {} things are wrong", findings.len()))),
    }
}

fn examine(config: &Config, invocation: &Invocation) -> Result<Vec<Finding>, CommandError> {
    let data = &config.data_directory.value;
    let asked = block_on(async { Ok(ask(&config.socket.value).await) })?;
    let mut findings = vec![
        Finding::good("configuration", format!("{} values, none of them wrong", config.show().len())),
        directory("data directory", data),
        directory("run directory", &config.run_directory.value),
        identity(&data.join("identity")),
        store(&data.join(STORE_DIRECTORY), asked.is_ok()),
    ];
    findings.extend(agent(&asked, config.has_token(), invocation));
    Ok(findings)
}

fn directory(what: &'static str, path: &Path) -> Finding {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::note(what, format!("{} is not there yet", path.display()), "the agent makes it");
        }
        Err(error) => {
            return Finding::bad(what, format!("{}: {error}", path.display()), "run this as the agent's user, or root");
        }
    };
    let (mode, owner, own) = (metadata.permissions().mode() & 0o777, metadata.uid(), nix::unistd::geteuid().as_raw());
    if !metadata.is_dir() {
        return Finding::bad(what, format!("{} is no directory", path.display()), "move it away");
    }
    if owner != own && own != 0 {
        let detail = format!("{} belongs to user {owner}, this is user {own}", path.display());
        return Finding::bad(what, detail, "run this as the agent's user, or root");
    }
    if mode & 0o077 != 0 {
        let detail = format!("{} has mode {mode:04o}, so that others can look into it", path.display());
        return Finding::bad(what, detail, format!("chmod 700 {}", path.display()));
    }
    Finding::good(what, path.display().to_string())
}

fn identity(path: &Path) -> Finding {
    let what = "identity";
    if !path.exists() {
        return Finding::note(what, "the device has no key yet", "the agent makes one when it first runs");
    }
    let key = IdentityFiles::open(path).map_err(|error| cause_of(&error));
    match key.and_then(|files| files.stored_device_key().map_err(|error| cause_of(&error))) {
        Ok(Some(_)) => Finding::good(what, format!("the device's key is in {}", path.display())),
        Ok(None) => Finding::note(what, "the device has no key yet", "the agent makes one when it first runs"),
        Err(cause) => {
            Finding::bad(what, cause, "restore the directory from a backup, or remove it: that is a new device")
        }
    }
}

fn store(path: &Path, agent_runs: bool) -> Finding {
    let what = "store";
    if !path.exists() {
        return Finding::note(what, "there is no store yet", "the agent makes one when it first runs");
    }
    if agent_runs {
        return Finding::good(what, format!("{} is open in the agent", path.display()));
    }
    match DiskStore::open(path, Profile::Agent) {
        Ok(_) => Finding::good(what, format!("every record in {} can be read", path.display())),
        Err(error @ OpenStoreError::Damaged { .. }) => {
            let remedy = "none: the agent sets it aside at its next start and syncs again; workloads run on";
            Finding::bad(what, cause_of(&error), remedy)
        }
        Err(error @ OpenStoreError::Newer { .. }) => {
            Finding::bad(what, cause_of(&error), "run the newer program that wrote it")
        }
        Err(error @ OpenStoreError::Locked { .. }) => {
            Finding::bad(what, cause_of(&error), "another agent uses it: stop that one, or give its --socket")
        }
        Err(error) => Finding::bad(what, cause_of(&error), "run this as the agent's user, and look at the disk"),
    }
}

async fn ask(socket: &Path) -> Result<ShownStatus, AskAgentError> {
    LocalClient::connect(socket).await?.status().await
}

fn agent(asked: &Result<ShownStatus, AskAgentError>, has_token: bool, invocation: &Invocation) -> Vec<Finding> {
    let status = match asked {
        Ok(status) => status,
        Err(error) => {
            let remedy = format!("{} run", invocation.program);
            return vec![Finding::bad("agent", cause_of(error), remedy)];
        }
    };
    let link = match (status.link.as_str(), status.link_reason.as_str()) {
        ("live", _) => Finding::good("link", "the server has all that this device has"),
        ("unconfigured", _) if !has_token => {
            Finding::note("link", "no server is known", "set enroll-token, from `fleetd enroll token create`")
        }
        ("idle" | "dial", reason) if status.last_failure.as_ref().is_some_and(is_of_network) => {
            Finding::note("link", format!("not connected now: {reason}"), "check the network and the address")
        }
        (_, reason) if !reason.is_empty() => {
            Finding::bad("link", reason, "ask the operator: `fleetd device list`, `fleetd enroll approve`")
        }
        (word, _) => Finding::note("link", format!("not connected now: {word}"), "check the network and the address"),
    };
    let workloads = Counted(status.workloads.len(), "workload");
    vec![Finding::good("agent", format!("{} runs {workloads}", status.local_id)), link]
}

/// Says whether it may mend itself, and a person can only look at cables and addresses.
fn is_of_network(failure: &ShownFailure) -> bool {
    matches!(failure.code.as_str(), "unreachable" | "timeout" | "broken" | "busy")
}

fn text(findings: &[Finding]) -> String {
    let health = |finding: &Finding| match finding.health {
        Health::Good => "ok",
        Health::Note => "note",
        Health::Bad => "wrong",
    };
    let rows = findings.iter().map(|finding| vec![health(finding).to_owned(), finding.what.to_owned()]);
    let heads = columns(&rows.collect::<Vec<_>>());
    let width = heads.lines().map(str::len).max().unwrap_or(0);
    let lines = heads.lines().zip(findings).map(|(head, finding)| {
        let line = format!("{head:<width$}  {}", finding.detail);
        if finding.remedy.is_empty() { line } else { format!("{line}\n{:<width$}  -> {}", "", finding.remedy) }
    });
    lines.collect::<Vec<_>>().join("\n")
}
