//! `rollout stop`: stopping one rollout, or the whole fleet at once, and ending that.

use clap::Args;
use fleetd_proto::fleetd::rollout::v1::{
    FleetStop, GetFleetStopsRequest, LiftFleetStopRequest, PauseRolloutRequest, StopFleetRequest,
};
use serde_json::json;

use super::steer;
use crate::client::FleetClient;
use crate::client::json::json as message_json;
use crate::client::request_id;
use crate::command::{Session, login, wording};
use crate::error::CommandError;
use crate::output::Moment;

/// Stop a rollout, or the whole fleet at once.
///
/// A stop of the whole fleet is a hold over every device and every rollout: whoever has not switched goes back to what it
/// ran, whoever is away is held when it is next heard, and so is whoever joins later. Nothing is started until it is lifted.
/// What is healthy stays.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd rollout stop rol_6b8d0f2h4k6n8q0s --reason 'shop 7 called'
  fleetd rollout stop --all --reason 'tills reboot'
  fleetd rollout stop --lift hld_3f5h7k9n1q3s5v7x")]
pub struct Stop {
    /// The rollout (`rol_…`), which `rollout resume` lets go on
    #[arg(required_unless_present_any = ["all", "lift"], conflicts_with_all = ["all", "lift"])]
    pub rollout: Option<String>,
    /// The whole fleet: every rollout and every device, also those that are away or join later
    #[arg(long, conflicts_with = "lift")]
    pub all: bool,
    /// End a stop of the whole fleet, by its hold: rollouts that it stopped go on
    #[arg(long, value_name = "HOLD", conflicts_with = "reason")]
    pub lift: Option<String>,
    /// Why, for those who look later
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
}

impl Stop {
    pub(super) async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        if let Some(hold_id) = self.lift {
            let request = LiftFleetStopRequest { request_id: request_id(), hold_id: hold_id.clone() };
            let stops = client.lift_fleet_stop(request).await?.stops;
            let object = json!({ "stops": stops.iter().map(message_json).collect::<Vec<_>>() });
            let rest = match stops.as_slice() {
                [] => "rollouts that it stopped go on".to_owned(),
                _ => sentences(&stops),
            };
            return session.output.answer(&object, || format!("{hold_id} is lifted\n{rest}"));
        }
        if let Some(rollout_id) = self.rollout {
            let request = PauseRolloutRequest { request_id: request_id(), rollout_id, reason: self.reason };
            return steer::answer(session, client.pause_rollout(request).await?.rollout);
        }
        let request = StopFleetRequest { request_id: request_id(), reason: self.reason };
        let stop = login::need(client.stop_fleet(request).await?.stop, "stop")?;
        session.output.answer(&message_json(&stop), || {
            let hold = &stop.hold_id;
            format!(
                "the whole fleet is stopped by {hold}: no rollout goes on, none is started, and no device changes\n\
                 who is away is held when it is next heard, and so is who joins later\n\
                 end it: fleetd rollout stop --lift {hold}"
            )
        })
    }
}

/// The stops of the whole fleet that stand.
pub(super) async fn standing(client: &FleetClient) -> Result<Vec<FleetStop>, CommandError> {
    Ok(client.get_fleet_stops(GetFleetStopsRequest {}).await?.stops)
}

/// Says that what is planned can be started once no stop of the whole fleet stands any more.
pub(super) fn before_a_start(stops: &[FleetStop]) -> String {
    match stops {
        [] => String::new(),
        _ => sentences(stops) + "Nothing is started until then.\n",
    }
}

/// Says which stops of the whole fleet stand, and how they end.
pub(super) fn sentences(stops: &[FleetStop]) -> String {
    let sentence = |stop: &FleetStop| {
        let reason = if stop.reason.is_empty() { String::new() } else { format!(": {}", stop.reason) };
        let since = wording::moment(stop.created_at.as_ref()).relative(Moment::now());
        let hold = &stop.hold_id;
        format!("The whole fleet is stopped{reason} ({hold}, {since}). End it: fleetd rollout stop --lift {hold}\n")
    };
    stops.iter().map(sentence).collect()
}
