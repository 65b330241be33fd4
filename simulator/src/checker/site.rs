//! Where a site's devices switch together, nobody switches before enough of them could: how many have laid the release out
//! the checker counts by what each of them has stored itself, and it knows nothing of what they and the server told each
//! other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetd_actors::rollout::plan::{Plan, PlannedDevice, Verdict};
use fleetd_actors::workload::{Install, Step, WorkloadRecord};
use fleetd_sync_core::id::{LocalId, RolloutId};

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene, device_number};
use crate::fleet::SERVER;

/// Remembers who has laid out what a rollout brings.
#[derive(Debug, Default)]
pub(super) struct SiteChecker {
    laid_out: BTreeMap<RolloutId, BTreeSet<LocalId>>,
}

impl SiteChecker {
    fn on_submitted(&mut self, scene: &Scene<'_>, node: &Arc<str>, after: &WorkloadRecord) -> Result<(), Broken> {
        let Some(Install { target, step }) = &after.install else { return Ok(()) };
        let device = device_number(node).and_then(|number| scene.fleet.devices.get(number));
        let (Some(rollout), Some(device)) = (target.rollout, device) else { return Ok(()) };
        if !matches!(step, Step::Wait(_) | Step::Switch(_)) {
            return Ok(());
        }
        let laid_out = self.laid_out.entry(rollout).or_default();
        laid_out.insert(device.local());
        let server: Arc<str> = SERVER.into();
        let Some(held) = scene.ledger.node(&server) else { return Ok(()) };
        let plan = held.plan_of(rollout);
        let (Step::Switch(_), Some(plan)) = (step, plan) else { return Ok(()) };
        let Some((site, needed, members)) = site_of(plan, device.local()) else { return Ok(()) };
        let ready = members.iter().filter(|member| laid_out.contains(*member)).count();
        if ready < needed {
            return Broken::on(node, format!("it switches with {ready} of {site} ready, and {needed} have to be"));
        }
        scene.marks.reach("a device switched with its site");
        Ok(())
    }
}

/// The site that switches with a device, how many of it have to be ready, and who it is.
fn site_of(plan: &Plan, device: LocalId) -> Option<(&str, usize, Vec<LocalId>)> {
    let percent = usize::try_from(plan.strategy.site_quorum?).ok()?;
    let site = plan.devices.iter().find(|planned| planned.local == device)?.site.as_str();
    let is_meant = |planned: &&PlannedDevice| planned.site == site && planned.verdict != Verdict::Unchanged;
    let meant: Vec<_> = plan.devices.iter().filter(is_meant).map(|planned| planned.local).collect();
    let needed = (1..=meant.len()).find(|ready| ready * 100 >= percent * meant.len())?;
    (!site.is_empty()).then_some((site, needed, meant))
}

impl Inspector for SiteChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "sites"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Submitted(Part::Workload { record, .. }) => self.on_submitted(scene, node, record),
            _ => Ok(()),
        }
    }
}
