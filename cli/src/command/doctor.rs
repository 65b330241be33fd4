//! `doctor`: everything between here and the server, and the server itself, each with its remedy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fleetd_proto::fleetd::access::v1::WhoAmIRequest;
use fleetd_proto::fleetd::support::v1::{self as support, ExamineServerRequest};
use fleetd_server::examine::{Premises, examine_address, examine_folder};
use fleetd_server::support::finding_json;
use fleetd_sync_core::finding::{self, Finding, State};
use serde_json::json;

use super::{Session, login, wording};
use crate::client::login::{Introduction, introduce};
use crate::client::{FleetClient, Target};
use crate::error::{CommandError, chain};
use crate::output::Moment;

/// A clock that is further off confuses whoever compares times, and expiries begin to matter.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// Check everything between here and the server, and say what to do
///
/// From here it tries the API and, by UDP, the port that devices dial. With `--server` the server looks at itself too:
/// keys, disk, store, artifacts, backup; that needs an admin's token. Where no server comes up, `--data` looks at its
/// folder on its own machine.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd doctor
  fleetd doctor --server
  fleetd doctor --data /srv/fleet
  fleetd doctor --context shop --json | jq -r '.findings[] | select(.state == \"fail\").remedy'")]
pub struct Doctor {
    /// Have the server look at itself too
    #[arg(long, conflicts_with = "data")]
    pub server: bool,
    /// Where the server is on this machine, whether it runs or not
    #[command(flatten)]
    pub folder: ServerFolder,
}

/// A server's folder on this machine, and where the server listens.
#[derive(Args, Clone, Debug)]
pub struct ServerFolder {
    /// Look at this folder of a server on this machine, whether the server runs or not
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Where that server's API listens
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:4800", requires = "data")]
    pub api_address: SocketAddr,
    /// Where devices sync with it
    #[arg(long, value_name = "IP:PORT", default_value = "0.0.0.0:4433", requires = "data")]
    pub sync_address: SocketAddr,
}

impl ServerFolder {
    /// The server that is meant, if one on this machine is.
    #[must_use]
    pub fn premises(&self) -> Option<Premises> {
        let data = self.data.clone()?;
        // A path that cannot be made absolute is looked at as it is, and then is not there.
        let data = std::path::absolute(&data).unwrap_or(data);
        Some(Premises { data, api_address: self.api_address, sync_address: self.sync_address })
    }
}

fn failed(check: &'static str, error: &CommandError) -> Finding {
    let remedy = error.next_command.as_deref().unwrap_or("see the cause").to_owned();
    Finding::fail(check, chain(error), remedy)
}

impl Doctor {
    /// Runs the command.
    ///
    /// # Errors
    /// When something is not as it should be; what was found is printed all the same.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let findings = match self.folder.premises() {
            Some(premises) => of_folder(&premises).await?,
            None => {
                let mut findings = examine(session).await;
                if self.server {
                    findings.extend(ask_server(session).await);
                }
                findings
            }
        };
        let failed = finding::failed(&findings);
        let list: Vec<_> = findings.iter().map(finding_json).collect();
        session.output.answer(&json!({ "findings": list, "failed": failed }), || finding::text(&findings))?;
        if failed.is_empty() {
            return Ok(());
        }
        Err(CommandError::new("doctor.unwell", format!("not as it should be: {}", failed.join(", "))))
    }
}

/// What the doctor finds in a server's folder.
///
/// # Errors
/// When the operating system has no randomness, without which nobody can be asked.
pub async fn of_folder(premises: &Premises) -> Result<Vec<Finding>, CommandError> {
    let findings = examine_folder(premises).await;
    findings.map_err(|error| CommandError::new("process.runtime", "no server can be asked").caused_by(&error))
}

/// What the server finds of itself.
async fn ask_server(session: &Session<'_>) -> Vec<Finding> {
    let asked = async {
        let client = session.client().await?;
        Ok::<_, CommandError>(client.examine_server(ExamineServerRequest {}).await?)
    };
    match asked.await {
        Ok(answer) => answer.findings.into_iter().map(told).collect(),
        Err(error) => vec![failed("the server itself", &error)],
    }
}

/// A finding of a server, whose words are its own.
fn told(finding: support::Finding) -> Finding {
    let state = match finding.state() {
        support::FindingState::Ok => State::Ok,
        support::FindingState::Warn | support::FindingState::Unspecified => State::Warn,
        support::FindingState::Fail => State::Fail,
    };
    // Several checks have the same names here and there.
    let check = format!("server: {}", finding.check).into();
    Finding { check, state, found: finding.found, remedy: finding.remedy }
}

async fn examine(session: &Session<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let target = match session.target() {
        Ok(target) => target,
        Err(error) => return vec![failed("context", &error)],
    };
    findings.push(Finding::ok("context", format!("{} of {}", target.url(), target.fleet())));
    // The address is tried alone first, so that a wall in between is not taken for a wrong certificate.
    let address = (target.url().host().to_owned(), target.url().port());
    match tokio::time::timeout(Duration::from_secs(5), tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => findings.push(Finding::ok("server", format!("{} takes connections", target.url()))),
        Ok(Err(error)) => {
            let remedy =
                "on the server: fleetd doctor --data DIR; here check the address, the port and what stands between";
            findings.push(Finding::fail("server", format!("{}: {error}", target.url()), remedy));
            return findings;
        }
        Err(_) => {
            let remedy =
                "on the server: fleetd doctor --data DIR; here check the address, and whether a wall drops the port";
            findings.push(Finding::fail("server", format!("{} does not answer", target.url()), remedy));
            return findings;
        }
    }
    match introduce(target.url(), target.fleet()).await {
        Ok(introduction) => {
            findings.push(Finding::ok("fleet", format!("the server proves to serve {}", target.fleet())));
            findings.extend([clock(&introduction), sync_address(&introduction).await]);
        }
        Err(error) => findings.push(failed("fleet", &error.into())),
    }
    findings.extend(credential(&target).await);
    findings
}

fn clock(introduction: &Introduction) -> Finding {
    let server = wording::moment(introduction.answer.server_time.as_ref());
    match server.distance(Moment::now()) {
        None => Finding::fail("clock", "the server does not tell its time", "update the server"),
        Some(skew) if skew > CLOCK_SKEW_MAX => Finding::fail(
            "clock",
            format!("this machine and the server are {} s apart", skew.as_secs()),
            "on the one that is wrong: timedatectl set-ntp true",
        ),
        Some(skew) => Finding::ok("clock", format!("{} ms from the server's", skew.as_millis())),
    }
}

/// Reaches the server by UDP, as devices do.
async fn sync_address(introduction: &Introduction) -> Finding {
    let (check, address) = ("sync address", &introduction.answer.sync_address);
    let remedy = "start the server with an address that devices can dial: fleetd serve --advertise HOST:PORT";
    if address.is_empty() {
        return Finding::fail(check, "the server names none", remedy);
    }
    if address.parse().is_ok_and(|address: SocketAddr| address.ip().is_unspecified()) {
        return Finding::fail(check, format!("{address} is no address that a device can dial"), remedy);
    }
    match examine_address(address, introduction.fleet, &introduction.answer.root_records).await {
        Ok(finding) => finding,
        Err(error) => Finding::fail(check, error.to_string(), "see the cause"),
    }
}

async fn credential(target: &Target) -> Vec<Finding> {
    let client = match FleetClient::connect(target).await {
        Ok(client) => client,
        Err(error) => return vec![failed("certificate", &error.into())],
    };
    let mut findings = vec![Finding::ok("certificate", "comes from the fleet's CA")];
    let login = format!("fleetd login {} --fleet {}", target.url(), target.fleet());
    if !target.has_token() {
        findings.push(Finding::fail("token", "there is none", login));
        return findings;
    }
    findings.push(match client.who_am_i(WhoAmIRequest {}).await {
        Ok(answer) => Finding::ok("token", login::render_who(&answer, Moment::now()).trim_end()),
        Err(error) => Finding::fail("token", chain(&CommandError::from(error)), login),
    });
    findings
}
