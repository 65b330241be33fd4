//! Fewer devices, and fewer sites.

use std::collections::BTreeMap;

use super::{Over, Shrinking};
use crate::fault::{Fault, Target};
use crate::run::RunPlan;

/// Sizes of the fleet that are tried at once.
const SIZES_TRIED: u32 = 8;

impl Shrinking<'_> {
    /// Takes devices away: the highest numbers first, and by giving those that a fault names the lowest numbers.
    pub(super) fn devices(&mut self) -> Result<(), Over> {
        // A plan names its devices: it fits no smaller copy of its fleet.
        if self.best.plan.scenario.rehearsal.is_some() {
            return Ok(());
        }
        loop {
            let plan = self.best.plan.clone();
            let mut candidates = Vec::new();
            for devices in sizes(plan.scenario.devices) {
                candidates.extend(renumbered(&plan, devices));
                candidates.push(cropped(&plan, devices));
            }
            if candidates.is_empty() || self.take(candidates)?.is_none() {
                break;
            }
        }
        self.sites()
    }

    fn sites(&mut self) -> Result<(), Over> {
        let plan = self.best.plan.clone();
        if plan.scenario.sites > 1 {
            let mut smaller = plan;
            smaller.scenario.sites = 1;
            for fault in &mut smaller.faults {
                if let Target::Site(site) = &mut fault.on {
                    *site = 0;
                }
            }
            self.take(vec![smaller])?;
        }
        Ok(())
    }
}

/// Sizes below the present one, the smallest first: all of them, or some evenly spread.
fn sizes(devices: u32) -> Vec<u32> {
    let below = devices.saturating_sub(1);
    let mut sizes: Vec<u32> = (1..=SIZES_TRIED).map(|step| (below * step).div_ceil(SIZES_TRIED)).collect();
    sizes.retain(|size| *size > 0);
    sizes.dedup();
    sizes
}

/// The first devices only; faults of the others are gone with them.
fn cropped(plan: &RunPlan, devices: u32) -> RunPlan {
    let mut smaller = plan.clone();
    resize(&mut smaller, devices);
    let sites = smaller.scenario.sites;
    smaller.faults.retain(|fault| match fault.on {
        Target::Server => true,
        Target::Site(site) => is_below(site, sites),
        Target::Device(device) => is_below(device, devices),
    });
    smaller
}

/// The devices that faults name take the lowest numbers. Nothing when they have them already, or are too many.
fn renumbered(plan: &RunPlan, devices: u32) -> Option<RunPlan> {
    let named = plan.faults.iter().filter_map(|fault| match fault.on {
        Target::Device(device) => Some(device),
        Target::Server | Target::Site(_) => None,
    });
    let mut numbers: BTreeMap<usize, usize> = named.map(|device| (device, 0)).collect();
    let are_too_many = !is_below(numbers.len(), devices.saturating_add(1));
    for (number, (_, new)) in numbers.iter_mut().enumerate() {
        *new = number;
    }
    if are_too_many || numbers.iter().all(|(old, new)| old == new) {
        return None;
    }
    let mut smaller = plan.clone();
    resize(&mut smaller, devices);
    let rename = |fault: &Fault| match fault.on {
        Target::Device(device) => {
            Fault { on: Target::Device(*numbers.get(&device).unwrap_or(&device)), ..fault.clone() }
        }
        Target::Server | Target::Site(_) => fault.clone(),
    };
    smaller.faults = plan.faults.iter().map(rename).collect();
    Some(smaller)
}

fn resize(plan: &mut RunPlan, devices: u32) {
    plan.scenario.devices = devices;
    plan.scenario.sites = plan.scenario.sites.min(devices);
    plan.scenario.late_devices = plan.scenario.late_devices.min(devices.saturating_sub(1));
}

fn is_below(number: usize, bound: u32) -> bool {
    u32::try_from(number).is_ok_and(|number| number < bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_and_end_just_below_the_present_one() {
        assert_eq!(sizes(1), Vec::<u32>::new());
        assert_eq!(sizes(4), [1, 2, 3]);
        assert_eq!(sizes(1000).len(), 8);
        assert_eq!((sizes(1000)[0], sizes(1000)[7]), (125, 999));
    }
}
