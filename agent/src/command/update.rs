//! `update defer` and `update allow`: "not now", from the device itself.

use std::time::Duration;

use clap::Subcommand;
use fleetd_actors::window::spell;
use fleetd_actors::workload::Command;
use fleetd_sync_core::name::WorkloadName;

use super::answer::{CommandError, answer};
use super::{Invocation, workload};
use crate::config::ConfigArguments;

/// What there is to do with updates.
#[derive(Debug, Subcommand)]
pub enum UpdateCommand {
    /// Leave a workload at its release for a while: it is not switched to another one until then
    ///
    /// How long that works in all is the rollout's to say (`fleetd rollout plan --veto-limit`); its fleet sees who put it
    /// off, and why. A workload does the same by itself with a file at the path in $FLEETD_UPDATE_LOCK.
    #[command(after_help = "\
Examples:
  fleetd agent update defer coffee --for 30m --reason 'a customer waits'")]
    Defer {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
        /// Which workload
        workload: WorkloadName,
        /// For how long, from now (`30m`, `2h`); at most 31 days
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        length: Duration,
        /// Why, for those who wait for the update
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Let a workload be updated again
    #[command(after_help = "\
Examples:
  fleetd agent update allow coffee")]
    Allow {
        /// Where everything is.
        #[command(flatten)]
        config: ConfigArguments,
        /// Which workload
        workload: WorkloadName,
    },
}

pub(super) fn run(command: UpdateCommand, invocation: &Invocation) -> Result<(), CommandError> {
    match command {
        UpdateCommand::Defer { config, workload, length, reason } => {
            let shown = workload::ask(&config, &workload, Command::Defer { length, reason }, invocation)?;
            let deferred = shown.as_ref().and_then(|shown| shown.deferred_until.as_ref());
            let until = deferred.map(|until| format!(" until {until}")).unwrap_or_default();
            let limit = match shown.as_ref().and_then(|shown| shown.veto_limit_seconds) {
                Some(0) => "; the rollout that is at work on it lets it wait for nobody".to_owned(),
                Some(limit) => {
                    let limit = spell(Duration::from_secs(limit));
                    format!("; the rollout that is at work on it lets it wait {limit} in all")
                }
                None => String::new(),
            };
            let json = serde_json::json!({ "workload": shown });
            answer(invocation.json, &json, &format!("{workload} is not updated{until}{limit}"))
        }
        UpdateCommand::Allow { config, workload } => {
            let shown = workload::ask(&config, &workload, Command::Allow, invocation)?;
            let json = serde_json::json!({ "workload": shown });
            answer(invocation.json, &json, &format!("{workload} may be updated"))
        }
    }
}
