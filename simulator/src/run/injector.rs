//! Makes faults begin and end in a fleet.

use crate::fault::{Fault, FaultKind, Target};
use crate::fleet::{Fleet, ScenarioError};

/// Lets a fault begin.
pub(super) fn begin(fleet: &mut Fleet, fault: &Fault) -> Result<(), ScenarioError> {
    for node in nodes(fleet, fault.on) {
        match fault.kind {
            FaultKind::LinkCut => fleet.network.cut(&node),
            FaultKind::LinkReset => fleet.network.reset(&node),
            FaultKind::PowerCut => fleet.cut_power(&node),
            FaultKind::Crash => fleet.crash(&node),
            _ => return Err(ScenarioError::new(format!("the fault {:?} is not built yet", fault.kind))),
        }
    }
    Ok(())
}

/// Lets a fault end that lasts.
pub(super) fn end(fleet: &mut Fleet, fault: &Fault) -> Result<(), ScenarioError> {
    for node in nodes(fleet, fault.on) {
        match fault.kind {
            FaultKind::LinkCut => fleet.network.heal(&node),
            FaultKind::PowerCut | FaultKind::Crash => fleet.start(&node)?,
            _ => {}
        }
    }
    Ok(())
}

fn nodes(fleet: &Fleet, target: Target) -> Vec<String> {
    match target {
        Target::Server => vec!["server".to_owned()],
        Target::Device(number) => vec![format!("device-{number}")],
        Target::Site(site) => fleet.devices_of_site(site).map(|number| format!("device-{number}")).collect(),
    }
}
