//! Steering a rollout that was started, and the whole fleet.

use fleetd_actors::orders::{self, FleetStop};
use fleetd_actors::rollout;
use fleetd_proto::fleetd::rollout::v1 as api;
use fleetd_sync_core::id::{HoldId, OperationId, RolloutId};
use prost::{Message, Name};
use tonic::{Response, Status};

use super::super::call_error::{CallError, parsed};
use super::super::request_log::Kept;
use super::Rollouts;
use super::standing::Standing;
use crate::edge::authenticate::Caller;
use crate::record::timestamp;

/// A request by which somebody steers a rollout.
pub(super) struct Steering<'a, Q> {
    pub(super) caller: &'a Caller,
    pub(super) request_id: &'a str,
    pub(super) rollout_id: &'a str,
    pub(super) asked: &'a Q,
    /// Whether the rollout is to go on: an order over the whole fleet forbids that.
    pub(super) goes_on: bool,
}

impl Rollouts {
    /// Has a rollout do something, once, and answers with the rollout as it is then.
    pub(super) async fn steer<Q: Message + Name, R: Message + Default>(
        &self,
        steering: Steering<'_, Q>,
        input: impl FnOnce(OperationId) -> rollout::Input,
        answer: impl Fn(Option<api::Rollout>) -> R,
    ) -> Result<Response<R>, Status> {
        let Steering { caller, request_id, rollout_id, asked, goes_on } = steering;
        let steered = async {
            let rollout: RolloutId = parsed(rollout_id, "rollout_id")?;
            let standing = Standing::load(&self.backend, rollout)?;
            if goes_on && let Some(standstill) = standing.standstill(&self.backend) {
                return Err(CallError::Standstill(standstill));
            }
            self.ask(rollout, input).await?;
            Ok(answer(Some(self.shown(rollout)?)))
        };
        let again = || Ok(answer(Some(self.shown(parsed(rollout_id, "rollout_id")?)?)));
        self.backend.once_or((caller, Kept::Whole), request_id, asked, steered, again).await
    }

    /// Stops the whole fleet. Nothing is planned or started in between, so that no rollout escapes it.
    pub(super) async fn stop_all(&self, caller: &Caller, reason: String) -> Result<api::FleetStop, CallError> {
        let _turn = self.backend.planning.lock().await;
        let hold = HoldId::random(&mut self.backend.shared().entropy());
        let (created_by, created_at) = (caller.id.to_string(), self.backend.now());
        let stop = FleetStop { hold, reason, created_by, created_at };
        let asked = Box::new(stop.clone());
        self.backend.order(|operation| orders::Input::Stop { operation, stop: asked }).await?;
        Ok(show_stop(&stop))
    }

    /// Ends a stop of the whole fleet.
    pub(super) async fn lift_stop(&self, hold_id: &str) -> Result<Vec<api::FleetStop>, CallError> {
        let hold: HoldId = parsed(hold_id, "hold_id")?;
        let _turn = self.backend.planning.lock().await;
        self.backend.order(|operation| orders::Input::Lift { operation, hold }).await?;
        Ok(self.stops())
    }

    /// The stops that stand, the oldest first.
    pub(super) fn stops(&self) -> Vec<api::FleetStop> {
        let orders = self.backend.shared().orders();
        let mut stops: Vec<&FleetStop> = orders.stops.values().collect();
        stops.sort_by_key(|stop| (stop.created_at, stop.hold));
        stops.into_iter().map(show_stop).collect()
    }
}

fn show_stop(stop: &FleetStop) -> api::FleetStop {
    api::FleetStop {
        hold_id: stop.hold.to_string(),
        reason: stop.reason.clone(),
        created_by: stop.created_by.clone(),
        created_at: Some(timestamp(stop.created_at)),
    }
}
