//! What a server asks of a device beyond its own rows: the holds that follow from orders over the whole fleet, and from
//! the versions that the device's workloads are pinned at.
//!
//! They are worked out whenever the device's lane is written, and stand in no row: nothing has to be changed for each
//! device when an order comes or goes, and none is forgotten that joins, or is assigned something, later.

use std::borrow::Cow;
use std::sync::Arc;

use fleetd_sync_core::envelope::Value;
use fleetd_sync_core::id::HoldId;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::resolve;
use fleetd_sync_core::time::{Now, Wall};

use super::record::DeviceRecord;
use super::wanted::{self, Wanted};
use super::{Device, DeviceTurn};
use crate::orders::{Denial, Orders};
use crate::report::Phase;

/// A hold on a device that no row of it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandingHold {
    /// Its id.
    pub hold: HoldId,
    /// The one workload that it stops; all of them without one.
    pub workload: Option<WorkloadName>,
    /// Why, for people.
    pub reason: String,
    /// The command that ends it.
    pub lift: String,
    /// Since when.
    pub since: Wall,
}

/// The holds on a device that follow from what stands over the fleet, and from its pins.
#[must_use]
pub fn standing_holds(record: &DeviceRecord, orders: &Orders) -> Vec<StandingHold> {
    let stops = orders.stops.values().map(|stop| StandingHold {
        hold: stop.hold,
        workload: None,
        reason: stop.reason(),
        lift: stop.lift(),
        since: stop.created_at,
    });
    let denials = orders.denials.values().filter(|denial| is_kept_from(record, denial)).map(|denial| StandingHold {
        hold: denial.hold,
        workload: Some(denial.workload.clone()),
        reason: denial.reason(),
        lift: denial.lift(),
        since: denial.created_at,
    });
    let pins = record.pins.iter().filter_map(|(workload, pin)| {
        let (assigned, _) = wanted::assigned_release(&record.wanted, workload)?;
        (assigned != pin.version).then(|| StandingHold {
            hold: pin.hold,
            workload: Some(workload.clone()),
            reason: pin.sentence(),
            lift: format!("fleetd device unpin {} {workload}", record.name),
            since: pin.created_at,
        })
    });
    stops.chain(denials).chain(pins).collect()
}

/// Says whether a device is assigned a denied release that has not proven itself there: what runs well stays.
fn is_kept_from(record: &DeviceRecord, denial: &Denial) -> bool {
    let manifest = record.wanted.get(&resolve::workload_path(&denial.workload, "manifest"));
    let is_assigned = manifest == Some(&Value::Bytes(denial.manifest.as_bytes().to_vec()));
    let report = record.reports.get(&denial.workload);
    let assigned = wanted::assigned_digest(&record.wanted, &denial.workload);
    let is_well = report.is_some_and(|report| report.digest == assigned && report.phase == Some(Phase::Healthy));
    is_assigned && !is_well
}

/// The rows of a device, with the holds that orders and pins come to.
pub(super) fn asked<'a>(record: &'a DeviceRecord, orders: &Orders) -> Cow<'a, Wanted> {
    let holds = standing_holds(record, orders);
    if holds.is_empty() {
        return Cow::Borrowed(&record.wanted);
    }
    let mut rows = record.wanted.clone();
    for StandingHold { hold, workload, reason, .. } in holds {
        wanted::hold(&mut rows, hold, workload.as_ref(), &reason);
    }
    Cow::Owned(rows)
}

/// Takes the holds of orders and pins out of rows that came back with a lane: they are no rows.
pub(super) fn without_standing(rows: &mut Wanted, record: &DeviceRecord, orders: &Orders) {
    let is_standing = |hold: HoldId| orders.has_hold(hold) || record.pins.values().any(|pin| pin.hold == hold);
    let standing: Vec<_> = wanted::holds(rows).filter(|(hold, ..)| is_standing(*hold)).collect();
    for (hold, workload, _) in standing {
        wanted::lift(rows, hold, workload.as_ref());
    }
}

impl Device {
    pub(super) fn on_orders(&mut self, now: Now, orders: Arc<Orders>, turn: &mut DeviceTurn) {
        self.orders = orders;
        self.mint(now, turn);
    }
}
