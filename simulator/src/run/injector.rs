//! Makes faults begin and end in a fleet.

use std::time::Duration;

use fleetd_sync_core::id::HoldId;
use fleetd_sync_core::resolve::Run;
use fleetd_sync_core::time::Wall;

use crate::fault::{Fault, FaultKind, Target};
use crate::fleet::{End, Fleet, SERVER, ScenarioError, Wish};
use crate::network::Trouble;

/// Lets a fault begin. `id` is the fault's own.
pub(super) fn begin(fleet: &mut Fleet, id: u64, fault: &Fault) -> Result<(), ScenarioError> {
    for node in nodes(fleet, fault.on) {
        if fault.kind == FaultKind::HostileMutates {
            fleet.note_hostile(&node);
        }
        if let Some(trouble) = trouble(fault) {
            fleet.network.impose(&node, id, trouble);
            if trouble == Trouble::Cut {
                // A copy of a fleet begins with devices that are cut off: from here on this fault holds them.
                fleet.network.hand_over(&node);
            }
            continue;
        }
        match fault.kind {
            FaultKind::LinkReset => fleet.network.reset(&node),
            FaultKind::LinkRebind => fleet.network.rebind(&node),
            FaultKind::PowerCut if fault.value > 0 => fleet.light_fuse(&node, End::PowerCut, fault.value),
            FaultKind::Crash if fault.value > 0 => fleet.light_fuse(&node, End::Crash, fault.value),
            // Nobody changes a disk under programs that run from it.
            FaultKind::PowerCut | FaultKind::SiteOutage | FaultKind::StoreOldImage => {
                fleet.begin_outage(&node, End::PowerCut);
            }
            FaultKind::Crash | FaultKind::StoreLost => fleet.begin_outage(&node, End::Crash),
            FaultKind::Death => fleet.die(&node),
            FaultKind::StoreFails => fleet.fail_store(&node),
            FaultKind::StoreFull => fleet.fill_disk(&node, true),
            FaultKind::StoreSlow => fleet.slow_disk(&node, fault.value),
            FaultKind::StoreTorn => fleet.cut_power_within(&node, fault.value),
            FaultKind::StoreRots => fleet.rot(&node, id),
            FaultKind::ClockJump | FaultKind::ClockAhead | FaultKind::ClockBehind | FaultKind::ClockDrifts => {
                set_clock(fleet, &node, fault);
            }
            _ => begin_on_device(fleet, id, &node, fault)?,
        }
    }
    match fault.kind {
        FaultKind::StoreLost => nodes(fleet, fault.on).iter().for_each(|node| fleet.refuse_to_open(node)),
        FaultKind::StoreOldImage => fleet.restore_images(id),
        FaultKind::OperatorAborts => fleet.want(Wish::Abort)?,
        FaultKind::OperatorPauses => fleet.want(Wish::Pause)?,
        FaultKind::OperatorRollsBack => fleet.want(Wish::RollBack)?,
        FaultKind::OperatorStopsAll => fleet.want(Wish::StopAll { hold: hold_on_all(fleet, id) })?,
        FaultKind::OperatorDenies => fleet.want(Wish::Deny { hold: hold_on_all(fleet, id) })?,
        FaultKind::HostileStranger => fleet.let_stranger_in(id, fault.value),
        _ => {}
    }
    Ok(())
}

/// What a fault does to a link for as long as it lasts.
fn trouble(fault: &Fault) -> Option<Trouble> {
    Some(match fault.kind {
        FaultKind::LinkCut | FaultKind::LinkFlaps => Trouble::Cut,
        FaultKind::LinkCutOneWay => Trouble::Mute,
        FaultKind::LinkDeaf => Trouble::Deaf,
        FaultKind::LinkSlow => Trouble::Slow(Duration::from_millis(fault.value)),
        FaultKind::LinkJitter => Trouble::Jitter(Duration::from_millis(fault.value)),
        FaultKind::LinkLossy => Trouble::Lossy { percent: fault.value },
        FaultKind::LinkStall => Trouble::Swallows { bytes: usize::try_from(fault.value).unwrap_or(usize::MAX) },
        FaultKind::LinkNarrow => Trouble::Narrow { bytes_per_second: fault.value },
        FaultKind::HostileMutates => Trouble::Mangles { percent: fault.value },
        _ => return None,
    })
}

/// Lets a link that flaps be cut, or whole.
pub(super) fn flap(fleet: &Fleet, id: u64, fault: &Fault, is_cut: bool) {
    for node in nodes(fleet, fault.on) {
        if is_cut {
            fleet.network.impose(&node, id, Trouble::Cut);
        } else {
            fleet.network.relieve(&node, id);
        }
    }
}

fn set_clock(fleet: &Fleet, node: &str, fault: &Fault) {
    let Some(clock) = fleet.clock(node) else { return };
    let value = i64::try_from(fault.value).unwrap_or(i64::MAX);
    match fault.kind {
        FaultKind::ClockJump => clock.jump(Wall(value.saturating_mul(1000))),
        FaultKind::ClockAhead => clock.shift(value.saturating_mul(1000)),
        FaultKind::ClockBehind => clock.shift(value.saturating_mul(-1000)),
        _ => clock.drift(value),
    }
}

/// Lets a fault begin that only a device can have.
fn begin_on_device(fleet: &mut Fleet, id: u64, node: &str, fault: &Fault) -> Result<(), ScenarioError> {
    let Some(device) = fleet.number(node) else { return Ok(()) };
    match fault.kind {
        FaultKind::ProgramDies => fleet.end_programs(device),
        FaultKind::HostileFloods => fleet.flood_from(device, id, fault.value),
        FaultKind::HostileClone => fleet.clone_device(device)?,
        FaultKind::HostileLies => fleet.let_lie(device),
        FaultKind::UserDefers => fleet.put_off(device, fault.lasting),
        FaultKind::ProgramLocks => fleet.lock_updates(device),
        FaultKind::OperatorHolds => fleet.want(Wish::Hold { device, hold: hold(fleet, id, device) })?,
        FaultKind::OperatorStops => fleet.want(Wish::Run { device, run: Run::Stopped })?,
        FaultKind::OperatorRestarts => fleet.want(Wish::Restart { device })?,
        FaultKind::OperatorRelabels => fleet.want(Wish::Relabel { device, value: id })?,
        FaultKind::OperatorRenames => fleet.want(Wish::Rename { device, value: id })?,
        FaultKind::OperatorRevokes => fleet.want(Wish::Revoke { device })?,
        _ => {}
    }
    Ok(())
}

/// Lets a fault end that lasts.
pub(super) fn end(fleet: &mut Fleet, id: u64, fault: &Fault) -> Result<(), ScenarioError> {
    let nodes = nodes(fleet, fault.on);
    for node in &nodes {
        if trouble(fault).is_some() {
            fleet.network.relieve(node, id);
            // What was mangled last is missed only by the next Hello: whoever exchanges the memory starts it again.
            if fault.kind == FaultKind::HostileMutates {
                fleet.start_anew(node)?;
            }
            continue;
        }
        match fault.kind {
            FaultKind::PowerCut | FaultKind::Crash if fault.value > 0 => fleet.put_out_fuse(node)?,
            FaultKind::StoreTorn => fleet.put_out_fuse(node)?,
            FaultKind::PowerCut
            | FaultKind::Crash
            | FaultKind::SiteOutage
            | FaultKind::StoreLost
            | FaultKind::StoreOldImage => fleet.end_outage(node)?,
            FaultKind::StoreRots => fleet.start_anew(node)?,
            FaultKind::StoreFull => fleet.fill_disk(node, false),
            FaultKind::StoreSlow => fleet.slow_disk(node, 0),
            FaultKind::ClockJump | FaultKind::ClockAhead | FaultKind::ClockBehind | FaultKind::ClockDrifts => {
                if let Some(clock) = fleet.clock(node) {
                    clock.set_right();
                }
            }
            FaultKind::HostileFloods | FaultKind::HostileStranger => fleet.calm(id),
            FaultKind::OperatorPauses => fleet.want(Wish::Resume)?,
            FaultKind::OperatorStopsAll => fleet.want(Wish::LiftAll { hold: hold_on_all(fleet, id) })?,
            FaultKind::OperatorDenies => fleet.want(Wish::Allow { hold: hold_on_all(fleet, id) })?,
            _ => {}
        }
        let Some(device) = fleet.number(node) else { continue };
        match fault.kind {
            FaultKind::ProgramLocks => fleet.unlock_updates(device)?,
            FaultKind::OperatorHolds => fleet.want(Wish::Lift { device, hold: hold(fleet, id, device) })?,
            FaultKind::OperatorStops => fleet.want(Wish::Run { device, run: Run::Running })?,
            _ => {}
        }
    }
    Ok(())
}

/// The hold that a fault puts on a device.
fn hold(fleet: &Fleet, id: u64, device: usize) -> HoldId {
    HoldId::random(&mut fleet.world.entropy("holds").stream(&format!("{id} on {device}")))
}

/// The hold of an order over the whole fleet.
fn hold_on_all(fleet: &Fleet, id: u64) -> HoldId {
    HoldId::random(&mut fleet.world.entropy("holds").stream(&format!("{id} on all")))
}

/// The names of a target's nodes.
pub(super) fn nodes(fleet: &Fleet, target: Target) -> Vec<String> {
    let named = match target {
        Target::Server => vec![SERVER.to_owned()],
        Target::Device(number) => vec![format!("device-{number}")],
        Target::Site(site) => fleet.devices_of_site(site).map(|number| format!("device-{number}")).collect(),
    };
    named.into_iter().filter(|node| fleet.has_node(node)).collect()
}
