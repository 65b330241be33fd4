//! The way back from a rollout, as `fleetd rollout rollback` plans it: to what its own plan saw on each device.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_actors::device::wanted;
use fleetd_actors::rollout::plan::{Plan, PlannedDevice, PlannedRelease, Rollback, Verdict, plan};
use fleetd_actors::rollout::strategy::{FailureBudget, Strategy};
use fleetd_actors::targeting::{Chosen, Targets};
use fleetd_server::{node as server_node, record};
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::id::{LocalId, PlanId, RolloutId};
use fleetd_sync_core::name::{ConfigurationName, Version, WorkloadName};
use fleetd_sync_store::state_store::StateStore as _;

use super::{Errand, Fleet, ScenarioError};

impl Fleet {
    /// Takes the newest rollout back, and ends it first where all of it goes; says whether there is a way back.
    pub(super) fn roll_back(
        &mut self,
        server: &server_node::Node,
        errand: &Errand,
        number: u64,
    ) -> Result<bool, ScenarioError> {
        let Some(of) = self.operator.newest_rollout else { return Ok(false) };
        let Some(plan) = self.way_back(of)? else { return Ok(false) };
        if server.shared.orders().standstill(plan.release.manifest).is_some() {
            return Ok(false);
        }
        let is_whole = plan.rollback.is_some_and(|rollback| rollback.is_whole);
        self.start_over_others(server, errand, number, Arc::new(plan), is_whole.then_some(of));
        Ok(true)
    }

    /// The plan of it, for the devices that go back to one release: those of the release to which most of them go.
    fn way_back(&mut self, of: RolloutId) -> Result<Option<Plan>, ScenarioError> {
        let Some(taken_back) = self.plan_of(of) else { return Ok(None) };
        let mut back_to: BTreeMap<(Version, Option<ConfigurationName>), BTreeSet<String>> = BTreeMap::new();
        for device in taken_back.assigned() {
            let Verdict::Update { from, configuration } = &device.verdict else { continue };
            if self.has_come_to(of, device, &taken_back.release.workload) {
                back_to.entry((from.clone(), configuration.clone())).or_default().insert(device.local.to_string());
            }
        }
        let all: usize = back_to.values().map(BTreeSet::len).sum();
        let Some(((version, configuration), devices)) = back_to.into_iter().max_by_key(|(_, devices)| devices.len())
        else {
            return Ok(None);
        };
        let workload = &taken_back.release.workload;
        let place = self.operator.place_of(workload, version.as_str());
        let Some(known) = place.and_then(|place| self.operator.releases.get_mut(place)) else { return Ok(None) };
        known.attempts += 1;
        let (release, attempt) = (PlannedRelease::of(known.signed.claims(), known.signed.digest()), known.attempts);
        let configuration = configuration.map(|name| self.configuration_called(workload.clone(), name)).transpose()?;
        let release = PlannedRelease { configuration, ..release };
        let is_whole = devices.len() == all;
        // One that cannot go back holds nobody else up.
        let budget = FailureBudget { count: None, percent: Some(100) };
        let strategy = Strategy { budget, ..Strategy::default() };
        let targets = Targets::Some(Chosen { devices, ..Chosen::default() });
        let id = PlanId::random(&mut self.operator.entropy);
        // Who is gone meanwhile goes nowhere.
        let Ok(planned) = plan(id, release, targets, attempt, strategy, &self.rows()?) else { return Ok(None) };
        Ok(Some(Plan { rollback: Some(Rollback { of, is_whole }), ..planned }))
    }

    /// Says whether a rollout has come to a device, and no other one since.
    fn has_come_to(&self, of: RolloutId, device: &PlannedDevice, workload: &WorkloadName) -> bool {
        let Some(record) = self.record_of(device.local) else { return false };
        let reported = record.reports.get(workload).and_then(|report| report.rollout);
        match wanted::assigned_rollout(&record.wanted, workload) {
            Some(assigned) => assigned == of,
            None => reported == Some(of),
        }
    }

    fn record_of(&self, local: LocalId) -> Option<fleetd_actors::device::record::DeviceRecord> {
        let found = self.server.store.get(Space::Device, local.as_bytes()).ok()??;
        record::device::decode(&found.value).ok()
    }

    /// The plan that a rollout carries out.
    pub(super) fn plan_of(&self, rollout: RolloutId) -> Option<Plan> {
        let header = self.rollout(rollout)?;
        let found = self.server.store.get(Space::Plan, header.plan.as_bytes()).ok()??;
        record::rollout::decode_plan(&found.value).ok().map(|(plan, ..)| Arc::unwrap_or_clone(plan))
    }
}
