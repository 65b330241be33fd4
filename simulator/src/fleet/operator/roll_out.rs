//! Rolling a release out: planned when it is started, or before, and then refused where the fleet has changed since.

use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::rollout::plan::{Plan, check_fence};
use fleetd_actors::rollout::status::{RolloutPhase, Stage};
use fleetd_actors::rollout::strategy::Strategy;
use fleetd_actors::targeting::{Chosen, Targets};
use fleetd_server::node as server_node;
use fleetd_sync_core::id::RolloutId;
use fleetd_sync_core::name::WorkloadName;

use super::{Errand, Fleet, ScenarioError, answered, failed};
use crate::fleet::SERVER;
use crate::observation::Observation;
use crate::scenario::Act;

impl Fleet {
    /// Plans what an act starts later. Where the server is down, it is planned when it is started.
    ///
    /// # Errors
    /// [`ScenarioError`] when the release cannot be made.
    pub(crate) fn plan_ahead(&mut self, act: &Act) -> Result<(), ScenarioError> {
        if self.is_serving()
            && let Ok(plan) = self.planned(act)?
        {
            self.operator.saved.insert(key_of(act), Arc::new(plan));
        }
        Ok(())
    }

    /// A plan for all devices that there are now, or why there is none.
    fn planned(&mut self, act: &Act) -> Result<Result<Plan, ScenarioError>, ScenarioError> {
        let strategy = act.strategy.as_ref().map(|strategy| strategy.read().map_err(failed)).transpose()?;
        let place = self.release_of(act)?;
        let Some(known) = self.operator.releases.get_mut(place) else { return Err(failed("there is no such release")) };
        known.attempts += 1;
        let (signed, attempt) = (known.signed.clone(), known.attempts);
        let name = act.config.as_ref().map(|name| name.parse().map_err(failed)).transpose()?;
        let configuration = name.map(|name| self.configuration_called(act.workload(), name)).transpose()?;
        let release = (&signed, configuration);
        Ok(self.plan(release, targets(act)?, attempt, strategy.unwrap_or_else(Strategy::default)))
    }

    /// Starts a rollout, as `fleetd rollout plan` and `start` do.
    pub(super) fn try_roll_out(
        &mut self,
        server: &server_node::Node,
        number: u64,
        errand: &Errand,
        act: &Act,
    ) -> Result<(), ScenarioError> {
        let agenda = self.agenda.clone();
        let refuse = |refusal: &str| answered::<(), &str>(&errand.answer, &agenda, number)(Err(refusal));
        let place = self.release_of(act)?;
        let manifest = self.operator.releases.get(place).map(|known| known.signed.digest());
        if let Some(standstill) = manifest.and_then(|manifest| server.shared.orders().standstill(manifest)) {
            refuse(&standstill.reason);
            return Ok(());
        }
        let plan = match self.still_good(act)? {
            Some(plan) => Ok(plan),
            None => self.planned(act)?.map(Arc::new),
        };
        match plan {
            Ok(plan) => self.start_over_others(server, errand, number, plan, None),
            Err(error) => refuse(&error.to_string()),
        }
        Ok(())
    }

    /// Approves the wave that a rollout waits with, once it has waited for as long as an operator takes.
    pub(super) fn approve_waves(&mut self, rollout: RolloutId, after: Duration) -> Result<(), ScenarioError> {
        let Some(header) = self.rollout(rollout) else { return Ok(()) };
        let (now, next) = (self.world.monotonic(), header.wave.number.saturating_add(1));
        if header.phase != RolloutPhase::Running || header.wave.stage != Stage::AwaitingApproval {
            return Ok(());
        }
        let since = *self.operator.awaiting.entry((rollout, next)).or_insert(now);
        if now.since(since) >= after { self.approve_wave(rollout, next) } else { Ok(()) }
    }

    /// The plan that was made for an act before, if the product lets it start. A stale one is thrown away.
    fn still_good(&mut self, act: &Act) -> Result<Option<Arc<Plan>>, ScenarioError> {
        let Some(plan) = self.operator.saved.get(&key_of(act)).cloned() else { return Ok(None) };
        let rows = self.rows()?;
        let is_started = check_fence(&plan, &rows).is_ok();
        let judged = Arc::clone(&plan);
        self.tap.note(|| Observation::PlanJudged { node: SERVER.into(), plan: judged, rows: rows.into(), is_started });
        if !is_started {
            self.operator.saved.remove(&key_of(act));
        }
        Ok(is_started.then_some(plan))
    }
}

/// By what a plan of before is found again: when an act takes place, and what it brings.
fn key_of(act: &Act) -> (Duration, WorkloadName, String) {
    (act.at, act.workload(), act.roll_out.clone())
}

/// The devices that an act means.
fn targets(act: &Act) -> Result<Targets, ScenarioError> {
    if act.sites.is_empty() {
        return Ok(Targets::All);
    }
    let sites: Vec<_> = act.sites.iter().map(|site| format!("site-{site}")).collect();
    let selector = format!("site in ({})", sites.join(",")).parse().map_err(failed)?;
    Ok(Targets::Some(Chosen { selector: Some(selector), ..Chosen::default() }))
}
