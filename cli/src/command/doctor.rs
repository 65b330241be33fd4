//! `doctor`: everything between here and the server, checked one after the other, each with its remedy.

use std::time::Duration;

use clap::Args;
use fleetd_proto::fleetd::access::v1::WhoAmIRequest;
use serde_json::json;

use super::{Session, login, wording};
use crate::client::login::{Introduction, introduce};
use crate::client::{FleetClient, Target};
use crate::error::{CommandError, chain};
use crate::output::Moment;

/// A clock that is further off confuses whoever compares times, and expiries begin to matter.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// Check everything between here and the server, and say what to do.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd doctor
  fleetd doctor --context shop --json | jq -r '.checks[] | select(.ok | not).remedy'")]
pub struct Doctor {}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub is_ok: bool,
    /// What was seen.
    pub found: String,
    /// What to do, where it is not as it should be.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, is_ok: true, found: found.into(), remedy: None }
    }

    fn bad(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, is_ok: false, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn failed(name: &'static str, error: &CommandError) -> Self {
        let remedy = error.next_command.as_deref().unwrap_or("see the cause").to_owned();
        Self::bad(name, chain(error), remedy)
    }
}

impl Doctor {
    /// Runs the command.
    ///
    /// # Errors
    /// When something is not as it should be; the checks are printed all the same.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let checks = examine(session).await;
        let list: Vec<_> = checks
            .iter()
            .map(|check| json!({ "name": check.name, "ok": check.is_ok, "found": check.found, "remedy": check.remedy }))
            .collect();
        session.output.answer(&json!({ "checks": list }), || render(&checks))?;
        match checks.iter().filter(|check| !check.is_ok).collect::<Vec<_>>().as_slice() {
            [] => Ok(()),
            bad => {
                let names: Vec<&str> = bad.iter().map(|check| check.name).collect();
                Err(CommandError::new("doctor.unwell", format!("not as it should be: {}", names.join(", "))))
            }
        }
    }
}

async fn examine(session: &Session<'_>) -> Vec<Check> {
    let mut checks = Vec::new();
    let target = match session.target() {
        Ok(target) => target,
        Err(error) => return vec![Check::failed("context", &error)],
    };
    checks.push(Check::ok("context", format!("{} of {}", target.url(), target.fleet())));
    // The address is tried alone first, so that a wall in between is not taken for a wrong certificate.
    let address = (target.url().host().to_owned(), target.url().port());
    match tokio::time::timeout(Duration::from_secs(5), tokio::net::TcpStream::connect(address)).await {
        Ok(Ok(_)) => checks.push(Check::ok("server", format!("{} takes connections", target.url()))),
        Ok(Err(error)) => {
            let remedy = "start it with `fleetd serve`, or check the address, the port and what stands between";
            checks.push(Check::bad("server", format!("{}: {error}", target.url()), remedy));
            return checks;
        }
        Err(_) => {
            let remedy = "check the address, and whether a firewall drops the port";
            checks.push(Check::bad("server", format!("{} does not answer", target.url()), remedy));
            return checks;
        }
    }
    match introduce(target.url(), target.fleet()).await {
        Ok(introduction) => {
            checks.push(Check::ok("fleet", format!("the server proves to serve {}", target.fleet())));
            checks.extend([clock(&introduction), sync_address(&introduction).await]);
        }
        Err(error) => checks.push(Check::failed("fleet", &error.into())),
    }
    checks.extend(credential(&target).await);
    checks
}

fn clock(introduction: &Introduction) -> Check {
    let server = wording::moment(introduction.answer.server_time.as_ref());
    match server.distance(Moment::now()) {
        None => Check::bad("clock", "the server does not tell its time", "update the server"),
        Some(skew) if skew > CLOCK_SKEW_MAX => Check::bad(
            "clock",
            format!("this machine and the server are {} s apart", skew.as_secs()),
            "set the clock that is wrong, by NTP if you can",
        ),
        Some(skew) => Check::ok("clock", format!("{} ms from the server's", skew.as_millis())),
    }
}

async fn sync_address(introduction: &Introduction) -> Check {
    let address = &introduction.answer.sync_address;
    if address.is_empty() {
        return Check::bad(
            "sync address",
            "the server names none",
            "start it with `fleetd serve --advertise HOST:PORT`",
        );
    }
    let remedy = "devices dial it by UDP: start the server with `--advertise HOST:PORT` that they can resolve";
    match tokio::net::lookup_host(address).await.map(|mut addresses| addresses.next()) {
        Ok(Some(resolved)) if resolved.ip().is_unspecified() => {
            Check::bad("sync address", format!("{address} is no address that a device can dial"), remedy)
        }
        Ok(Some(resolved)) => Check::ok("sync address", format!("{address} (UDP, {resolved})")),
        Ok(None) => Check::bad("sync address", format!("{address} has no address"), remedy),
        Err(error) => Check::bad("sync address", format!("{address}: {error}"), remedy),
    }
}

async fn credential(target: &Target) -> Vec<Check> {
    let client = match FleetClient::connect(target).await {
        Ok(client) => client,
        Err(error) => return vec![Check::failed("certificate", &error.into())],
    };
    let mut checks = vec![Check::ok("certificate", "comes from the fleet's CA")];
    let login = format!("fleetd login {} --fleet {}", target.url(), target.fleet());
    if !target.has_token() {
        checks.push(Check::bad("token", "there is none", login));
        return checks;
    }
    checks.push(match client.who_am_i(WhoAmIRequest {}).await {
        Ok(answer) => Check::ok("token", login::render_who(&answer, Moment::now()).trim_end()),
        Err(error) => Check::bad("token", chain(&CommandError::from(error)), login),
    });
    checks
}

/// Draws what was checked.
#[must_use]
pub fn render(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = if check.is_ok { "ok " } else { "BAD" };
        text.push_str(&format!("{mark}  {:<13} {}\n", check.name, check.found));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("     {:<13} help: {remedy}\n", ""));
        }
    }
    text
}
