//! Nobody switches outside its window: which that is, the checker reads from the rollout's plan and from where the device
//! is, by a naive reader of its own; what time it is, from the device's own clock, which may be wrong.

use std::sync::Arc;

use fleetd_actors::workload::WorkloadRecord;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::{Clock as _, ClockQuality};

use super::ledger::Part;
use super::{Broken, Fact, Inspector, Scene, device_number};
use crate::fleet::SERVER;
use crate::reference::window::{self, Windows};

/// Holds devices to their windows.
#[derive(Debug)]
pub(super) struct WindowChecker;

impl WindowChecker {
    fn on_submitted(
        scene: &Scene<'_>,
        node: &Arc<str>,
        workload: &WorkloadName,
        after: &WorkloadRecord,
    ) -> Result<(), Broken> {
        let Some((target, _)) = scene.begins_to_switch(node, workload, after) else { return Ok(()) };
        let server: Arc<str> = SERVER.into();
        let held = scene.ledger.node(&server);
        let plan = held.zip(target.rollout).and_then(|(held, rollout)| held.plan_of(rollout));
        let device = device_number(node).and_then(|number| scene.fleet.devices.get(number));
        let (Some(plan), Some(device)) = (plan, device) else { return Ok(()) };
        let terms = &plan.strategy.terms;
        if terms.windows.is_empty() && terms.blackouts.is_empty() {
            return Ok(());
        }
        let now = device.clock.now();
        if now.quality == ClockQuality::None {
            return Broken::on(node, "it switches in a window, and does not know the date");
        }
        let windows: Vec<_> = terms.windows.iter().map(ToString::to_string).collect();
        let blackouts: Vec<_> = terms.blackouts.iter().map(ToString::to_string).collect();
        let zone = device.fact("timezone").unwrap_or("UTC");
        let asked = Windows { zone, windows: &windows, blackouts: &blackouts };
        match window::is_open(asked, now.wall) {
            Ok(true) => {
                scene.marks.reach("a device switched in its window");
                Ok(())
            }
            Ok(false) => Broken::on(node, format!("it switches {workload} outside its window, of {zone}")),
            Err(cause) => Broken::on(node, cause),
        }
    }
}

impl Inspector for WindowChecker {
    fn invariant(&self) -> u8 {
        6
    }

    fn name(&self) -> &'static str {
        "windows"
    }

    fn learn(&mut self, scene: &Scene<'_>, node: &Arc<str>, fact: Fact<'_>) -> Result<(), Broken> {
        match fact {
            Fact::Submitted(Part::Workload { workload, record }) => Self::on_submitted(scene, node, workload, record),
            _ => Ok(()),
        }
    }
}
