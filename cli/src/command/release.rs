//! `release`: signed versions of workloads.
//!
//! A release is put together and signed here. The server checks the signature and keeps it; it could not make one.

mod artifact;
mod manifest;
mod push;
mod verify;
pub mod view;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use fleetd_proto::fleetd::release::v1::{
    AllowReleaseRequest, DenyReleaseRequest, GetReleaseRequest, ListReleasesRequest,
};
use serde_json::json;

pub use artifact::ArtifactArgument;
pub use manifest::{EnvironmentArgument, ProbeArgument};

use super::value::{self, ReleaseName};
use super::{Session, login};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::error::CommandError;
use crate::output::Moment;

/// Signed versions of workloads.
#[derive(Debug, Subcommand)]
pub enum Release {
    /// Sign a release and send it with its artifacts
    Push(Push),
    /// List releases, the newest first
    List(List),
    /// Show one release
    Show(Show),
    /// Check a release's signature and digests here, without taking the server's word
    Verify(Verify),
    /// Keep a release from every device that does not run it
    Deny(Deny),
    /// Let a denied release be rolled out again
    Allow(Allow),
}

/// Sign a release and send it with its artifacts.
///
/// Bytes that the server has are not sent again; a push that was cut goes on where it was.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd release push coffee@1.8.0 --artifact ./coffee --key ci.key
  fleetd release push coffee@1.8.0 --artifact linux/amd64=./x --artifact linux/arm64=./y --key ci.key
  fleetd release push coffee@1.8.0 --artifact ./coffee.sh --key ci.key \\
    --arg --port=80 --env MODE=prod --env SHOP --probe http:80/health --grace 30s --user coffee")]
pub struct Push {
    /// The release's name
    #[arg(value_name = "WORKLOAD@VERSION")]
    pub release: ReleaseName,
    /// A program, and the platform that it is for; an ELF header or `#!` says it otherwise (repeat for more)
    #[arg(long = "artifact", value_name = "[PLATFORM=]PATH", required = true)]
    pub artifacts: Vec<ArtifactArgument>,
    /// The secret key to sign with, which root has delegated for this workload
    #[arg(long, value_name = "PATH")]
    pub key: PathBuf,
    /// An argument of the program (repeat for more)
    #[arg(long = "arg", value_name = "TEXT", allow_hyphen_values = true)]
    pub arguments: Vec<String>,
    /// An environment variable: NAME=VALUE, or NAME to let the device's configuration fill it (repeat for more)
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    pub environment: Vec<EnvironmentArgument>,
    /// How a device tells that it is well: alive, notify, tcp:PORT, http:PORT/PATH or `exec:COMMAND ARGUMENT…`
    #[arg(long, value_name = "PROBE", default_value = "alive")]
    pub probe: ProbeArgument,
    /// Time after the start in which it must become well
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = value::duration)]
    pub grace: Duration,
    /// Time between TERM and KILL when it is stopped
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = value::duration)]
    pub stop_grace: Duration,
    /// The user that it runs as; the agent's own when left out
    #[arg(long)]
    pub user: Option<String>,
}

/// List releases, the newest first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd release list
  fleetd release list coffee --json | jq -r '.releases[0].version'")]
pub struct List {
    /// Only those of this workload
    #[arg(value_name = "WORKLOAD", default_value = "", hide_default_value = true)]
    pub workload: String,
}

/// Show one release.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd release show coffee@1.8.0")]
pub struct Show {
    /// The release's name
    #[arg(value_name = "WORKLOAD@VERSION")]
    pub release: ReleaseName,
}

/// Check a release's signature and digests here, without taking the server's word.
///
/// The signature is checked against the root chain, and the chain against the fleet id. Artifacts are fetched and
/// measured, or those of --artifact are compared.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd release verify coffee@1.8.0
  fleetd release verify coffee@1.8.0 --artifact linux/arm64=./coffee")]
pub struct Verify {
    /// The release's name
    #[arg(value_name = "WORKLOAD@VERSION")]
    pub release: ReleaseName,
    /// A file that must be the release's artifact, in place of fetching it (repeat for more)
    #[arg(long = "artifact", value_name = "[PLATFORM=]PATH")]
    pub artifacts: Vec<ArtifactArgument>,
}

/// Keep a release from every device that does not run it.
///
/// Plans leave it out, rollouts of it stop, and whoever is assigned it and has not switched goes back to what it ran, also
/// when it is away now. Devices on which it is healthy keep it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd release deny coffee@1.8.0 --reason 'leaks memory'")]
pub struct Deny {
    /// The release's name
    #[arg(value_name = "WORKLOAD@VERSION")]
    pub release: ReleaseName,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// Let a denied release be rolled out again; rollouts that the denial stopped go on.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd release allow coffee@1.8.0")]
pub struct Allow {
    /// The release's name
    #[arg(value_name = "WORKLOAD@VERSION")]
    pub release: ReleaseName,
}

impl Release {
    /// Runs the command.
    ///
    /// # Errors
    /// When a file cannot be used, or the server cannot be reached or refuses.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Push(command) => command.run(session).await,
            Self::List(command) => {
                let request = ListReleasesRequest { workload: command.workload, ..Default::default() };
                let releases = session.client().await?.all_releases(request).await?;
                let object = json!({ "releases": releases.iter().map(message_json).collect::<Vec<_>>() });
                session.output.answer(&object, || view::releases(&releases, Moment::now()))
            }
            Self::Show(command) => {
                let request = GetReleaseRequest {
                    workload: command.release.workload.to_string(),
                    version: command.release.version.to_string(),
                };
                let answer = session.client().await?.get_release(request).await?;
                let release = login::need(answer.release, "release")?;
                session.output.answer(&message_json(&release), || view::release(&release, Moment::now()))
            }
            Self::Verify(command) => command.run(session).await,
            Self::Deny(command) => command.run(session).await,
            Self::Allow(command) => command.run(session).await,
        }
    }
}

impl Deny {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let (workload, version) = (self.release.workload.to_string(), self.release.version.to_string());
        let request = DenyReleaseRequest { request_id: request_id(), workload, version, reason: self.reason };
        let answer = session.client().await?.deny_release(request).await?;
        let release = login::need(answer.release, "release")?;
        session.output.answer(&message_json(&release), || {
            let name = format!("{}@{}", release.workload, release.version);
            format!("{name} is denied: nobody gets it who does not run it\nallow it: fleetd release allow {name}")
        })
    }
}

impl Allow {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let (workload, version) = (self.release.workload.to_string(), self.release.version.to_string());
        let request = AllowReleaseRequest { request_id: request_id(), workload, version };
        let answer = session.client().await?.allow_release(request).await?;
        let release = login::need(answer.release, "release")?;
        session.output.answer(&message_json(&release), || {
            format!("{}@{} is allowed; rollouts that its denial stopped go on", release.workload, release.version)
        })
    }
}
