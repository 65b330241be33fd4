//! `rollout`: bringing releases to devices.

pub mod diff;
mod markdown;
mod plan;
mod rehearse;
mod rollback;
mod start;
mod steer;
mod stop;
mod strategy;
pub mod view;
pub mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use fleetd_proto::fleetd::rollout::v1::{
    AbortRolloutRequest, GetRolloutRequest, ListRolloutsRequest, RolloutDeviceState,
};
use fleetd_sync_core::name::ConfigurationName;
use serde_json::json;

use super::value::{self, Meant, ReleaseName};
use super::{Session, login};
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::confirm::Confirm;
use crate::error::CommandError;
use crate::output::Moment;

/// Bringing releases to devices.
#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Show what a rollout would do, and save that as a plan
    Plan(Box<Plan>),
    /// Rehearse a plan on a copy of the fleet, before it is started
    Rehearse(rehearse::Rehearse),
    /// Say what has changed since a plan was made, or how two plans differ
    Diff(diff::Diff),
    /// Start what was planned
    Start(Start),
    /// Follow a rollout to its end
    Watch(Watch),
    /// Show a rollout and its devices
    Show(Show),
    /// List rollouts, the newest first
    List(List),
    /// Stop a rollout for now: nobody else begins, and who has not switched is held
    Pause(steer::Pause),
    /// Stop a rollout, or the whole fleet at once, and end that
    Stop(stop::Stop),
    /// Let a rollout go on that was paused, or that halted
    Resume(steer::Resume),
    /// Let the next wave begin, where that waits for somebody's word
    Approve(steer::Approve),
    /// Say why a rollout stands where it stands, and what would bring it on
    Why(steer::Why),
    /// Give devices back what they ran before a rollout
    Rollback(rollback::Rollback),
    /// End a rollout: devices that have not begun keep what they run
    Abort(Abort),
}

/// Show what a rollout would do, and save that as a plan.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout plan coffee@1.8.0 -l shop=7
  fleetd rollout plan coffee@1.8.0 -l 'channel in (stable, beta)' --out p.json
  fleetd rollout plan coffee@1.8.0 --all --canary channel=canary --wave 12 --wave 10% --wave rest --bake 30m
  fleetd rollout plan coffee@1.8.0 --all --window '0 2 * * * 3h' --blackout 2026-12-24..2026-12-26 --veto-limit 2h
  fleetd rollout plan coffee@1.8.0 --all --max-failed 2% --max-unavailable-per-site 1
  fleetd rollout plan coffee@1.8.0 -l channel=stable --where 'facts.memory_bytes >= 536870912'
  fleetd rollout plan coffee@1.8.0 --config roast-2 --all
  fleetd rollout plan coffee@1.8.0 --group canaries --device brisk-otter
  fleetd rollout plan coffee@1.8.0 --all --json | jq .plan.counts")]
pub struct Plan {
    /// The release
    #[arg(value_name = "WORKLOAD@VERSION")]
    pub release: ReleaseName,
    /// The configuration that goes with it; without one, devices that have one lose it
    #[arg(long = "config", value_name = "NAME")]
    pub configuration: Option<ConfigurationName>,
    /// Which devices are meant.
    #[command(flatten)]
    pub meant: Meant,
    /// In which waves, and when it stops itself.
    #[command(flatten)]
    pub strategy: strategy::StrategyArgs,
    /// Also write the plan to a file, for `rollout start`
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// Also add the plan in Markdown to the end of a file, such as "$GITHUB_STEP_SUMMARY"
    #[arg(long, value_name = "PATH")]
    pub markdown: Option<PathBuf>,
}

/// Start what was planned.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout start pln_9d1f3h5k7n9q1s3v
  fleetd rollout start p.json --wait=30m
  fleetd rollout start p.json --wait --json
  fleetd rollout start p.json --only-planned")]
pub struct Start {
    /// The plan: its id (`pln_…`), or the file that `rollout plan --out` wrote
    #[arg(value_name = "PLAN")]
    pub plan: String,
    /// Follow it to its end, at most for this long; Ctrl-C leaves, and the rollout goes on
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "365d",
          value_parser = value::duration)]
    pub wait: Option<Duration>,
    /// Start though the fleet has changed, with only the planned devices for which the plan still holds
    #[arg(long)]
    pub only_planned: bool,
}

/// Follow a rollout to its end.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout watch rol_6b8d0f2h4k6n8q0s
  fleetd rollout watch rol_6b8d0f2h4k6n8q0s --timeout 10m --json")]
pub struct Watch {
    /// The rollout (`rol_…`)
    pub rollout: String,
    /// At most for this long
    #[arg(long, value_name = "DURATION", value_parser = value::duration)]
    pub timeout: Option<Duration>,
}

/// Show a rollout and its devices.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout show rol_6b8d0f2h4k6n8q0s
  fleetd rollout show rol_6b8d0f2h4k6n8q0s --state failed
  fleetd rollout show rol_6b8d0f2h4k6n8q0s --json | jq -r '.devices[] | select(.reason != \"\").name'")]
pub struct Show {
    /// The rollout (`rol_…`)
    pub rollout: String,
    /// Only devices of this state
    #[arg(long)]
    pub state: Option<DeviceState>,
}

/// How far a rollout is with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceState {
    /// Its turn is to come, or it cannot be reached
    Waiting,
    /// It is at work
    Installing,
    /// It runs the release well
    Healthy,
    /// It went back to the release before
    Restored,
    /// It failed
    Failed,
    /// It is left as it is
    Skipped,
}

impl From<DeviceState> for RolloutDeviceState {
    fn from(state: DeviceState) -> Self {
        match state {
            DeviceState::Waiting => Self::Waiting,
            DeviceState::Installing => Self::Installing,
            DeviceState::Healthy => Self::Healthy,
            DeviceState::Restored => Self::Restored,
            DeviceState::Failed => Self::Failed,
            DeviceState::Skipped => Self::Skipped,
        }
    }
}

/// List rollouts, the newest first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout list
  fleetd rollout list --workload coffee")]
pub struct List {
    /// Only those of this workload
    #[arg(long, default_value = "", hide_default_value = true)]
    pub workload: String,
}

/// End a rollout.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout abort rol_6b8d0f2h4k6n8q0s --reason 'wrong shop' --yes")]
pub struct Abort {
    /// The rollout (`rol_…`)
    pub rollout: String,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// The answer beforehand.
    #[command(flatten)]
    pub confirm: Confirm,
}

impl Rollout {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses, or when the rollout does not end well.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::Plan(command) => command.run(session).await,
            Self::Rehearse(command) => command.run(session).await,
            Self::Diff(command) => command.run(session).await,
            Self::Start(command) => command.run(session).await,
            Self::Watch(command) => {
                let client = session.client().await?;
                watch::follow(session, &client, &command.rollout, command.timeout).await
            }
            Self::Show(command) => command.run(session).await,
            Self::List(command) => {
                let request = ListRolloutsRequest { workload: command.workload, ..Default::default() };
                let client = session.client().await?;
                let rollouts = client.all_rollouts(request).await?;
                let stops = stop::standing(&client).await?;
                let object = json!({
                    "rollouts": rollouts.iter().map(message_json).collect::<Vec<_>>(),
                    "fleetStops": stops.iter().map(message_json).collect::<Vec<_>>(),
                });
                session.output.answer(&object, || stop::sentences(&stops) + &view::rollouts(&rollouts, Moment::now()))
            }
            Self::Pause(command) => command.run(session).await,
            Self::Stop(command) => command.run(session).await,
            Self::Resume(command) => command.run(session).await,
            Self::Approve(command) => command.run(session).await,
            Self::Why(command) => command.run(session).await,
            Self::Rollback(command) => command.run(session).await,
            Self::Abort(command) => command.run(session).await,
        }
    }
}

impl Show {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let state = self.state.map_or(RolloutDeviceState::Unspecified, Into::into).into();
        let request = GetRolloutRequest { rollout_id: self.rollout, state, ..Default::default() };
        let answer = client.get_rollout(request.clone()).await?;
        let rollout = login::need(answer.rollout, "rollout")?;
        let devices = client.all_rollout_devices(request).await?;
        let object = json!({
            "rollout": message_json(&rollout),
            "devices": devices.iter().map(message_json).collect::<Vec<_>>(),
        });
        session.output.answer(&object, || view::rollout(&rollout, &devices, Moment::now()))
    }
}

impl Abort {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        // What is not there, or has ended, is not asked about.
        let request = GetRolloutRequest { rollout_id: self.rollout.clone(), page_size: 1, ..Default::default() };
        let rollout = login::need(client.get_rollout(request).await?.rollout, "rollout")?;
        if rollout.ended_at.is_none() {
            let brought = super::wording::with_configuration(&rollout.version, &rollout.configuration);
            let release = format!("{} {brought}", rollout.workload);
            let what = format!("abort {} of {release}: devices that have not begun keep what they run", self.rollout);
            self.confirm.ask(session.output, &what)?;
        }
        let request = AbortRolloutRequest { request_id: request_id(), rollout_id: self.rollout, reason: self.reason };
        let answer = client.abort_rollout(request).await?;
        let rollout = login::need(answer.rollout, "rollout")?;
        session.output.answer(&message_json(&rollout), || view::summary(&rollout))
    }
}
