//! `doctor`: everything that the agent needs, each with what to do when it is wrong.
//!
//! It works with an agent that runs and without one, and with no network at all: what cannot be asked says so. Who the
//! device is and whose server it looks for it reads from the identity's files, which an agent that runs keeps whole.

mod identity;
mod workload;

use std::path::Path;
use std::sync::Arc;

use fleetd_sync_core::counted::Counted;
use fleetd_sync_core::finding::{self, Finding, State};
use fleetd_sync_core::time::Clock;
use fleetd_sync_store::disk::Profile;
use fleetd_sync_store::examine::{Room, StoreRemedies, StoreUse, private_files, private_folder, room, store};
use fleetd_sync_transport::clock::{SystemClock, system_entropy};
use fleetd_sync_transport::examine::{ClockDuty, Viewpoint, clock, server};
use fleetd_sync_transport::reach::{Reach, reach};

use super::answer::{CommandError, answer};
use super::run::STORE_DIRECTORY;
use super::{Invocation, block_on};
use crate::cause::cause_of;
use crate::config::{Config, ConfigArguments, process_environment};
use crate::install::FREE_BYTES_RESERVE;
use crate::local_api::{APPROVAL_AWAITED, AskAgentError, LocalClient, ShownFailure, ShownStatus};
use identity::Identity;
use workload::Installed;

/// Room in the run directory below which no workload starts: sockets, a specification, a file of lines.
const RUN_ROOM: Room = Room { needed_bytes: 256 << 10, wanted_bytes: 4 << 20, what_for: "a workload's run needs" };
/// What there is to do where what the agent makes is not there yet.
const AGENT_MAKES_IT: &str = "the agent makes it when it first runs";

/// What a support bundle says of it.
pub(super) fn to_json(config: &Config, invocation: &Invocation) -> Result<serde_json::Value, CommandError> {
    Ok(report(&examine(config, invocation)?))
}

fn report(findings: &[Finding]) -> serde_json::Value {
    let one = |finding: &Finding| {
        serde_json::json!({
            "check": finding.check, "state": finding.state.as_str(), "found": finding.found, "remedy": finding.remedy,
        })
    };
    serde_json::json!({
        "findings": findings.iter().map(one).collect::<Vec<_>>(), "failed": finding::failed(findings),
    })
}

pub(super) fn run(arguments: &ConfigArguments, invocation: &Invocation) -> Result<(), CommandError> {
    let findings = match Config::read(arguments, &process_environment()) {
        Ok(config) => examine(&config, invocation)?,
        Err(error) => {
            let remedy = format!("correct the value that is named; {} config show --origin", invocation.program);
            vec![Finding::fail("configuration", cause_of(&error), remedy)]
        }
    };
    answer(invocation.json, &report(&findings), &finding::text(&findings))?;
    match finding::failed(&findings).as_slice() {
        [] => Ok(()),
        failed => {
            let message = format!("{} of {} checks failed: {}", failed.len(), findings.len(), failed.join(", "));
            Err(CommandError::new("agent.unwell", message))
        }
    }
}

fn examine(config: &Config, invocation: &Invocation) -> Result<Vec<Finding>, CommandError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    block_on(async { Ok(look(config, invocation, &clock).await) })
}

/// Looks at everything, by this clock.
async fn look(config: &Config, invocation: &Invocation, clock_now: &Arc<dyn Clock>) -> Vec<Finding> {
    let data = &config.data_directory.value;
    let now = clock_now.now();
    let asked = ask(&config.socket.value).await;
    let identity = Identity::read(&data.join("identity"), config);
    let (of_servers, servers_certificate) = servers(&identity, clock_now).await;
    let used = if asked.is_ok() { StoreUse::Running("agent") } else { StoreUse::Nobody };
    let (of_store, opened) = store(&data.join(STORE_DIRECTORY), Profile::Agent, used, &remedies(invocation));
    let installed = Installed::read(data, opened.as_ref());
    drop(opened);

    let values = format!("{} values, none of them wrong", config.show().len());
    let mut findings = vec![
        Finding::ok("configuration", values),
        clock(now, identity.clock_floor, servers_certificate, ClockDuty::Tells),
        private_folder("data directory", data, AGENT_MAKES_IT),
        private_folder("run directory", &config.run_directory.value, AGENT_MAKES_IT),
        private_files("key files", &data.join("identity")),
        room("disk", data, disk_room(&installed)),
        room("run disk", &config.run_directory.value, RUN_ROOM),
        of_store,
    ];
    findings.extend(identity.findings(now));
    findings.extend(agent(&asked, config, invocation));
    findings.extend(of_servers);
    findings.extend(installed.findings());
    findings.extend(workload::shims(&config.run_directory.value, asked.as_ref().ok(), invocation).await);
    findings
}

/// What the disk must have room for: an install that is under way, and a release as large as the largest one here,
/// which lies there twice while it comes in where it cannot be linked.
fn disk_room(installed: &Installed) -> Room {
    let needed_bytes = FREE_BYTES_RESERVE.saturating_add(installed.awaited_bytes);
    let largest = installed.largest_bytes.saturating_mul(2).saturating_add(FREE_BYTES_RESERVE);
    let what_for = if installed.awaited_bytes > 0 { "the next release needs" } else { "whatever comes next needs" };
    Room { needed_bytes, wanted_bytes: largest.max(needed_bytes), what_for }
}

fn remedies(invocation: &Invocation) -> StoreRemedies {
    let program = invocation.program;
    StoreRemedies {
        absent: AGENT_MAKES_IT.into(),
        damaged: format!("{program} run: it sets the store aside and syncs again; workloads run on").into(),
        locked: format!("another agent has it: stop that one, or ask it: {program} doctor --socket PATH").into(),
    }
}

async fn ask(socket: &Path) -> Result<ShownStatus, AskAgentError> {
    LocalClient::connect(socket).await?.status().await
}

/// Tries every address that the agent would dial; gives too when the certificate of one that answered ends.
async fn servers(identity: &Identity, clock: &Arc<dyn Clock>) -> (Vec<Finding>, Option<fleetd_sync_core::time::Wall>) {
    let Ok(mut entropy) = system_entropy() else { return (Vec::new(), None) };
    let (mut findings, mut certificate) = (Vec::new(), None);
    for address in &identity.addresses {
        let reached = reach(address, identity.expected.as_ref(), clock, &mut entropy).await;
        let fleet = identity.expected.as_ref().map(|expected| expected.fleet);
        let check = format!("server {address}");
        findings
            .push((server(check, address, &reached, fleet, Viewpoint::Device), matches!(reached, Reach::Answered(_))));
        if let Reach::Answered(answered) = reached
            && answered.is_proven
        {
            certificate = certificate.or(Some(answered.not_after));
        }
    }
    if findings.is_empty() {
        let remedy = "set enroll-token, from `fleetd enroll token create`";
        return (vec![Finding::warn("server", "no address is known", remedy)], None);
    }
    // One address that answers is enough: what is wrong with another is no failure then.
    let one_answers = findings.iter().any(|(_, answers)| *answers);
    let softened = |(finding, answers): (Finding, bool)| match finding.state {
        State::Fail if one_answers && !answers => Finding { state: State::Warn, ..finding },
        _ => finding,
    };
    (findings.into_iter().map(softened).collect(), certificate)
}

fn agent(asked: &Result<ShownStatus, AskAgentError>, config: &Config, invocation: &Invocation) -> Vec<Finding> {
    let (program, socket) = (invocation.program, config.socket.value.display());
    let status = match asked {
        Ok(status) => status,
        Err(error @ AskAgentError::Forbidden { .. }) => {
            let remedy = format!("run this as the agent's user: sudo {program} doctor");
            return vec![Finding::fail("socket", cause_of(error), remedy)];
        }
        Err(error @ AskAgentError::NoAgent { .. }) => {
            return vec![Finding::fail("agent", cause_of(error), format!("{program} run"))];
        }
        Err(error) => {
            let remedy = format!("look at what the agent logs, and start it again: {program} run");
            return vec![Finding::fail("agent", cause_of(error), remedy)];
        }
    };
    let workloads = Counted(status.workloads.len(), "workload");
    let answers = Finding::ok("agent", format!("{} runs {workloads}, and answers on {socket}", status.local_id));
    vec![answers, link(status, config.has_token())]
}

fn link(status: &ShownStatus, has_token: bool) -> Finding {
    match (status.link.as_str(), status.link_reason.as_str()) {
        ("live", _) => Finding::ok("link", "the server has all that this device has"),
        ("unconfigured", _) if !has_token => {
            Finding::warn("link", "no server is known", "set enroll-token, from `fleetd enroll token create`")
        }
        ("idle" | "dial", reason) if status.last_failure.as_ref().is_some_and(is_of_network) => {
            Finding::warn("link", format!("not connected now: {reason}"), "see what is said of each server here")
        }
        (_, APPROVAL_AWAITED) => {
            Finding::fail("link", APPROVAL_AWAITED, "ask the operator: fleetd enroll approve DEVICE")
        }
        (_, reason) if !reason.is_empty() => {
            let remedy = "ask the operator: fleetd device list; one that was sent away needs a new token, and one that \
                was revoked a new identity, too";
            Finding::fail("link", reason, remedy)
        }
        (word, _) => {
            Finding::warn("link", format!("not connected now: {word}"), "see what is said of each server here")
        }
    }
}

/// Says whether it may mend itself, and a person can only look at cables and addresses.
fn is_of_network(failure: &ShownFailure) -> bool {
    matches!(failure.code.as_str(), "unreachable" | "timeout" | "broken" | "busy")
}

#[cfg(test)]
mod tests;
