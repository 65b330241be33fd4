//! `RolloutService`: plans rollouts, starts them, and shows how far they have come.

mod planning;
mod rollback;
mod standing;
mod steer;
mod watch;

use std::sync::Arc;

use fleetd_actors::rollout;
use fleetd_actors::rollout::plan::{Plan, Rollback};
use fleetd_proto::fleetd::rollout::v1 as api;
use fleetd_proto::fleetd::rollout::v1::rollout_service_server::RolloutService;
use fleetd_proto::fleetd::rollout::v1::start_rollout_request;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::{OperationId, PlanId, RolloutId};
use fleetd_sync_core::name::{ConfigurationName, Version, WorkloadName};
use fleetd_sync_store::state_store::KeyRange;
use tonic::{Request, Response, Status};

use self::standing::Standing;
use self::steer::Steering;
use super::backend::{ask, caller};
use super::call_error::{CallError, optional, parsed, reason};
use super::convert::{self, targets};
use super::follower::Messages;
use super::page::{newest_first, page};
use super::request_log::Kept;
use crate::edge::authenticate::Caller;
use crate::receipt::with_receipt;
use crate::record;

/// A request by which somebody steers a rollout, of the names that all of them have.
macro_rules! steering {
    ($caller:ident, $asked:ident, goes_on: $goes_on:literal) => {
        Steering {
            caller: &$caller,
            request_id: &$asked.request_id,
            rollout_id: &$asked.rollout_id,
            asked: &$asked,
            goes_on: $goes_on,
        }
    };
}

super::service!(
    /// Plans rollouts, starts them, and shows how far they have come.
    Rollouts
);

impl Rollouts {
    async fn ask(
        &self,
        rollout: RolloutId,
        input: impl FnOnce(OperationId) -> rollout::Input,
    ) -> Result<(), CallError> {
        let answers = &self.backend.shared().rollout_answers;
        let send = |operation| self.backend.node.actors.rollouts.send(&rollout, input(operation));
        Ok(ask(answers, send).await??)
    }

    /// The saved plan that a request means.
    fn plan_of(&self, asked: Option<&start_rollout_request::Plan>) -> Result<Plan, CallError> {
        match asked {
            Some(start_rollout_request::Plan::PlanId(id)) => {
                Ok(Plan::clone(self.backend.catalog.plan(parsed(id, "plan_id")?)?.plan()))
            }
            Some(start_rollout_request::Plan::Document(document)) => planning::read_document(&self.backend, document),
            None => Err(CallError::Missing { field: "plan" }),
        }
    }

    /// A rollout as it stands now.
    fn shown(&self, rollout: RolloutId) -> Result<api::Rollout, CallError> {
        Ok(Standing::load(&self.backend, rollout)?.rollout(self.backend.now()))
    }

    /// Takes a rollout back as a whole, before the way back starts: nobody gets its release meanwhile, nor later, also when
    /// it has ended and some were to follow. A start that is cut off between the two is repeated, and finds that done: the
    /// request's receipt comes with the start.
    async fn end_for_rollback(&self, caller: &Caller, of: RolloutId) -> Result<(), CallError> {
        let reason = by("rolled back", caller, "");
        let take_back = self.ask(of, |operation| rollout::Input::TakeBack { operation, reason });
        with_receipt(Vec::new(), take_back).await
    }

    /// Has other rollouts of the workload give devices over, before the new one starts: none of them brings its release to
    /// them meanwhile, nor later. A start that is cut off between the two is repeated, and finds that done: the request's
    /// receipt comes with the start.
    async fn take_over(&self, by: RolloutId, plan: &Plan) -> Result<(), CallError> {
        for (other, devices) in planning::overlaps(&self.backend, plan)? {
            let devices = Arc::new(devices);
            let give_over = self.ask(other, |operation| rollout::Input::Supersede { operation, by, devices });
            with_receipt(Vec::new(), give_over).await?;
        }
        Ok(())
    }

    async fn start(
        &self,
        caller: &Caller,
        mut plan: Plan,
        is_only_planned: bool,
    ) -> Result<api::StartRolloutResponse, CallError> {
        let _turn = self.backend.planning.lock().await;
        let mut left_out = Vec::new();
        if is_only_planned {
            (plan, left_out) = planning::only_planned(&self.backend, &plan).await?;
        } else {
            planning::check_start(&self.backend, &plan).await?;
        }
        if let Some(Rollback { of, is_whole: true }) = plan.rollback {
            self.end_for_rollback(caller, of).await?;
        }
        let rollout = RolloutId::random(&mut self.backend.shared().entropy());
        self.take_over(rollout, &plan).await?;
        let (caller, plan) = (caller.id.to_string(), Arc::new(plan));
        self.ask(rollout, |operation| rollout::Input::Start { operation, caller, plan }).await?;
        let rollout = Some(self.shown(rollout)?);
        Ok(api::StartRolloutResponse { rollout, left_out: left_out.iter().map(ToString::to_string).collect() })
    }
}

#[tonic::async_trait]
impl RolloutService for Rollouts {
    async fn plan_rollout(
        &self,
        request: Request<api::PlanRolloutRequest>,
    ) -> Result<Response<api::PlanRolloutResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let planned = async {
            let (workload, version): (WorkloadName, Version) =
                (parsed(&asked.workload, "workload")?, parsed(&asked.version, "version")?);
            let configuration = optional::<ConfigurationName>(&asked.configuration, "configuration")?;
            let targets = targets::read(&self.backend, asked.targets.as_ref())?;
            let strategy = convert::strategy::read(asked.strategy.as_ref())?;
            let _turn = self.backend.planning.lock().await;
            let known = planning::plan(
                &self.backend,
                &caller,
                (&workload, &version, configuration.as_ref()),
                targets,
                strategy,
            )
            .await?;
            let document = planning::document(&self.backend, &known).await?;
            let (devices, next_page_token) = known.page(api::Verdict::Unspecified, 0, "")?;
            Ok(api::PlanRolloutResponse { plan: Some(known.shown()), devices, next_page_token, document })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, planned).await
    }

    async fn plan_rollback(
        &self,
        request: Request<api::PlanRollbackRequest>,
    ) -> Result<Response<api::PlanRollbackResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let planned = rollback::plan(&self.backend, &caller, &asked);
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, planned).await
    }

    async fn get_plan(&self, request: Request<api::GetPlanRequest>) -> Result<Response<api::GetPlanResponse>, Status> {
        let asked = request.into_inner();
        let id: PlanId = parsed(&asked.plan_id, "plan_id")?;
        let known = self.backend.catalog.plan(id)?;
        let document = planning::document(&self.backend, &known).await?;
        let (devices, next_page_token) = known.page(asked.verdict(), asked.page_size, &asked.page_token)?;
        Ok(Response::new(api::GetPlanResponse { plan: Some(known.shown()), devices, next_page_token, document }))
    }

    async fn check_plan(
        &self,
        request: Request<api::CheckPlanRequest>,
    ) -> Result<Response<api::CheckPlanResponse>, Status> {
        use api::check_plan_request::Plan as Checked;
        let asked = request.into_inner().plan.map(|plan| match plan {
            Checked::PlanId(id) => start_rollout_request::Plan::PlanId(id),
            Checked::Document(document) => start_rollout_request::Plan::Document(document),
        });
        let plan = self.plan_of(asked.as_ref())?;
        let rollout = planning::rollout_of(&self.backend, &plan)?;
        let changes = match rollout {
            Some(_) => Vec::new(),
            None => planning::changes(&self.backend, &plan).await?,
        };
        Ok(Response::new(api::CheckPlanResponse {
            plan_id: plan.id.to_string(),
            changes: changes.iter().map(ToString::to_string).collect(),
            rollout_id: rollout.map(|rollout| rollout.to_string()).unwrap_or_default(),
        }))
    }

    async fn start_rollout(
        &self,
        request: Request<api::StartRolloutRequest>,
    ) -> Result<Response<api::StartRolloutResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let started = async {
            let plan = self.plan_of(asked.plan.as_ref())?;
            self.start(&caller, plan, asked.only_planned).await
        };
        let again = || {
            let plan = self.plan_of(asked.plan.as_ref())?;
            let lost = || CallError::AnswerLost { request_id: asked.request_id.clone() };
            let rollout = planning::rollout_of(&self.backend, &plan)?.ok_or_else(lost)?;
            let rollout = Some(self.shown(rollout)?);
            Ok(api::StartRolloutResponse { rollout, left_out: Vec::new() })
        };
        self.backend.once_or((&caller, Kept::Whole), &asked.request_id, &asked, started, again).await
    }

    async fn get_rollout(
        &self,
        request: Request<api::GetRolloutRequest>,
    ) -> Result<Response<api::GetRolloutResponse>, Status> {
        let asked = request.into_inner();
        let standing = Standing::load(&self.backend, parsed(&asked.rollout_id, "rollout_id")?)?;
        let (devices, next_page_token) = page(standing.devices(asked.state()), asked.page_size, &asked.page_token)?;
        let rollout = Some(standing.rollout(self.backend.now()));
        Ok(Response::new(api::GetRolloutResponse { rollout, devices, next_page_token }))
    }

    async fn list_rollouts(
        &self,
        request: Request<api::ListRolloutsRequest>,
    ) -> Result<Response<api::ListRolloutsResponse>, Status> {
        let asked = request.into_inner();
        let workload: Option<WorkloadName> = optional(&asked.workload, "workload")?;
        let mut found = Vec::new();
        self.backend.visit(Space::Rollout, KeyRange::all(), |_, value, _| {
            let header = record::rollout::decode_header(value)?;
            let state = record::rollout::state(header.phase);
            let is_meant = asked.state() == api::RolloutState::Unspecified || asked.state() == state;
            let is_of = |workload: &WorkloadName| {
                Ok::<_, CallError>(self.backend.catalog.plan(header.plan)?.plan().release.workload == *workload)
            };
            if is_meant && workload.as_ref().map_or(Ok(true), is_of)? {
                found.push((newest_first(header.created_at.0, header.rollout.as_bytes()), header.rollout));
            }
            Ok(())
        })?;
        found.sort_unstable();
        let (found, next_page_token) = page(found, asked.page_size, &asked.page_token)?;
        let shown = found.into_iter().map(|rollout| self.shown(rollout));
        let rollouts = shown.collect::<Result<_, CallError>>()?;
        Ok(Response::new(api::ListRolloutsResponse { rollouts, next_page_token }))
    }

    type WatchRolloutStream = Messages<api::WatchRolloutResponse>;

    async fn watch_rollout(
        &self,
        request: Request<api::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        Ok(Response::new(watch::watch(&self.backend, request.get_ref())?))
    }

    async fn abort_rollout(
        &self,
        request: Request<api::AbortRolloutRequest>,
    ) -> Result<Response<api::AbortRolloutResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let reason = by("aborted", &caller, &reason(&asked.reason)?);
        let abort = |operation| rollout::Input::Abort { operation, reason };
        self.steer(steering!(caller, asked, goes_on: false), abort, |rollout| api::AbortRolloutResponse { rollout })
            .await
    }

    async fn pause_rollout(
        &self,
        request: Request<api::PauseRolloutRequest>,
    ) -> Result<Response<api::PauseRolloutResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let reason = by("paused", &caller, &reason(&asked.reason)?);
        let pause = |operation| rollout::Input::Pause { operation, reason };
        self.steer(steering!(caller, asked, goes_on: false), pause, |rollout| api::PauseRolloutResponse { rollout })
            .await
    }

    async fn resume_rollout(
        &self,
        request: Request<api::ResumeRolloutRequest>,
    ) -> Result<Response<api::ResumeRolloutResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let resume = |operation| rollout::Input::Resume { operation };
        self.steer(steering!(caller, asked, goes_on: true), resume, |rollout| api::ResumeRolloutResponse { rollout })
            .await
    }

    async fn approve_rollout(
        &self,
        request: Request<api::ApproveRolloutRequest>,
    ) -> Result<Response<api::ApproveRolloutResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let wave = asked.wave.checked_sub(1);
        let approve = |operation| rollout::Input::Approve { operation, wave };
        self.steer(steering!(caller, asked, goes_on: true), approve, |rollout| api::ApproveRolloutResponse { rollout })
            .await
    }

    async fn stop_fleet(
        &self,
        request: Request<api::StopFleetRequest>,
    ) -> Result<Response<api::StopFleetResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let stopped = async {
            let stop = self.stop_all(&caller, reason(&asked.reason)?).await?;
            Ok(api::StopFleetResponse { stop: Some(stop) })
        };
        self.backend.once((&caller, Kept::Whole), &asked.request_id, &asked, stopped).await
    }

    async fn lift_fleet_stop(
        &self,
        request: Request<api::LiftFleetStopRequest>,
    ) -> Result<Response<api::LiftFleetStopResponse>, Status> {
        let caller = caller(&request)?;
        let asked = request.into_inner();
        let lifted = async { Ok(api::LiftFleetStopResponse { stops: self.lift_stop(&asked.hold_id).await? }) };
        let again = || Ok(api::LiftFleetStopResponse { stops: self.stops() });
        self.backend.once_or((&caller, Kept::Whole), &asked.request_id, &asked, lifted, again).await
    }

    async fn get_fleet_stops(
        &self,
        _request: Request<api::GetFleetStopsRequest>,
    ) -> Result<Response<api::GetFleetStopsResponse>, Status> {
        Ok(Response::new(api::GetFleetStopsResponse { stops: self.stops() }))
    }
}

/// Who stopped a rollout, and why.
fn by(what: &str, caller: &Caller, reason: &str) -> String {
    match reason {
        "" => format!("{what} by {}", caller.name),
        reason => format!("{what} by {}: {reason}", caller.name),
    }
}
