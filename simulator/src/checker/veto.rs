//! Invariant 6, of "not now": whoever is at the device, or the workload itself, puts a switch off until the rollout's limit is
//! used up. Who does so the checker hears from whoever said it, and how long that may count from the rollout's plan.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleetd_actors::window::VETO_LIMIT_DEFAULT;
use fleetd_actors::workload::{Step, WorkloadRecord};
use fleetd_agent::disk::Disk as _;
use fleetd_agent::install::Installer as _;
use fleetd_agent::install::memory::MemoryInstaller;
use fleetd_sync_core::id::{ArtifactDigest, RolloutId};
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Monotonic;

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene, device_number};
use crate::fleet::SERVER;
use crate::observation::Observation;

/// Time from a look at the device until the switch that comes of it is handed over: a commit, or several.
const LOOKED_WITHIN: Duration = Duration::from_secs(15);
/// By how much a device that starts anew may count more of the limit than was used.
const COUNTED_AHEAD: Duration = Duration::from_mins(5);

/// Remembers who put what off.
#[derive(Debug, Default)]
pub(super) struct VetoChecker {
    workloads: BTreeMap<(Arc<str>, WorkloadName), Said>,
    /// How often each device was started.
    starts: BTreeMap<Arc<str>, u32>,
}

/// What is said of a workload's updates on a device.
#[derive(Debug, Default)]
struct Said {
    /// Since when somebody puts them off, and until when.
    put_off: Option<(Monotonic, Monotonic)>,
    /// Since when its lock is there.
    locked: Option<Monotonic>,
    /// What waits to be switched to, since when, and how often the device had been started by then.
    waits: Option<((ArtifactDigest, Option<RolloutId>), Monotonic, u32)>,
}

impl VetoChecker {
    fn on_submitted(
        &mut self,
        scene: &Scene<'_>,
        node: &Arc<str>,
        workload: &WorkloadName,
        after: &WorkloadRecord,
    ) -> Result<(), Broken> {
        let starts = self.starts.get(node).copied().unwrap_or(0);
        let Some(install) = &after.install else { return Ok(()) };
        let said = self.workloads.entry((Arc::clone(node), workload.clone())).or_default();
        let what = (install.target.digest(), install.target.rollout);
        if matches!(install.step, Step::Wait(_)) && said.waits.is_none_or(|(known, ..)| known != what) {
            said.waits = Some((what, scene.at, starts));
        }
        if scene.begins_to_switch(node, workload, after).is_none() {
            return Ok(());
        }
        let since = said.put_off.filter(|(_, until)| *until > scene.at).map(|(since, _)| since);
        let since = since.or_else(|| said.locked.filter(|_| is_locked(scene, node, workload)));
        let Some(limit) = since
            .filter(|since| scene.at.since(*since) > LOOKED_WITHIN)
            .and_then(|_| limit_of(scene, install.target.rollout))
        else {
            return Ok(());
        };
        let waited = said.waits.filter(|(known, ..)| *known == what);
        let counted = waited.map_or(Duration::ZERO, |(_, since, begun)| {
            scene.at.since(since) + COUNTED_AHEAD * starts.saturating_sub(begun)
        });
        if counted + LOOKED_WITHIN < limit {
            let seen = format!("it switches {workload} that was put off, after {counted:?} of {limit:?}");
            return Broken::on(node, seen);
        }
        scene.marks.reach("a device switched whose limit was used up");
        Ok(())
    }
}

/// How long a rollout lets a device put its switch off; nothing, where sites have the last word.
fn limit_of(scene: &Scene<'_>, rollout: Option<RolloutId>) -> Option<Duration> {
    let Some(rollout) = rollout else { return Some(VETO_LIMIT_DEFAULT) };
    let plan = scene.ledger.node(SERVER)?.plan_of(rollout)?;
    plan.strategy.site_quorum.is_none().then_some(plan.strategy.terms.veto_limit)
}

fn is_locked(scene: &Scene<'_>, node: &str, workload: &WorkloadName) -> bool {
    let device = device_number(node).and_then(|number| scene.fleet.devices.get(number));
    device.is_some_and(|device| {
        let lock = MemoryInstaller::on(&device.disk).update_lock(workload);
        device.disk.is_there(&lock).unwrap_or(false)
    })
}

impl Inspector for VetoChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "vetoes"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Submitted(Part::Workload { workload, record }) => {
                self.on_submitted(scene, node, workload, record)?;
            }
            Fact::Seen(Observation::PutOff { workload, lasting, .. }) => {
                let said = self.workloads.entry((Arc::clone(node), workload.clone())).or_default();
                said.put_off = Some((scene.at, scene.at + *lasting));
                scene.marks.reach("somebody at a device put its updates off");
            }
            Fact::Seen(Observation::Locked { workload, .. }) => {
                let said = self.workloads.entry((Arc::clone(node), workload.clone())).or_default();
                said.locked = Some(scene.at);
            }
            // What was said goes with the store that was to remember it.
            Fact::Seen(Observation::Restored { .. }) => {
                self.workloads.retain(|(of, _), _| of != node);
            }
            Fact::Opened => *self.starts.entry(Arc::clone(node)).or_default() += 1,
            _ => {}
        }
        Ok(())
    }
}
