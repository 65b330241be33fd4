//! What a plan sees of a device: its record, and whether it is connected.

use std::collections::BTreeMap;

use fleetd_actors::device::record::{DeviceRecord, Membership};
use fleetd_actors::device::room;
use fleetd_actors::orders::Orders;
use fleetd_actors::report::{FaultKind, Phase};
use fleetd_actors::rollout::plan::{Blocked, PlannedRelease};
use fleetd_actors::targeting::{DeviceRow, PresentRelease};
use fleetd_sync_core::commit::Revision;
use fleetd_sync_core::limit;
use fleetd_sync_core::time::Wall;

use crate::connection_table::Connection;

/// What a plan sees of a device; the rollouts at work on it are its caller's to add, and why
/// it is refused what is planned.
#[must_use]
pub fn of(record: &DeviceRecord, revision: Revision, connection: Option<&Connection>) -> DeviceRow {
    let row = bare(record, revision, connection);
    DeviceRow { labels: record.labels.clone(), facts: record.facts.clone(), ..row }
}

/// The same of a record that nobody needs any more.
#[must_use]
pub fn moved(record: DeviceRecord, revision: Revision, connection: Option<&Connection>) -> DeviceRow {
    let row = bare(&record, revision, connection);
    DeviceRow { labels: record.labels, facts: record.facts, ..row }
}

/// All but labels and facts, which are most of it.
fn bare(record: &DeviceRecord, revision: Revision, connection: Option<&Connection>) -> DeviceRow {
    let fact = |name: &str| record.facts.get(name);
    let releases = record.reports.iter().filter_map(|(name, report)| {
        let (version, manifest) = (report.release.clone()?, report.digest?);
        let configuration = report.configuration.clone();
        let healthy = report.phase == Some(Phase::Healthy);
        Some((name.clone(), PresentRelease { version, manifest, configuration, healthy }))
    });
    let conflicts = record
        .reports
        .iter()
        .filter(|(_, report)| report.error.as_ref().is_some_and(|fault| fault.kind == FaultKind::Conflict));
    // What stops a rollout stops no other one: whether it gives the device over is a matter of priorities.
    let holds = record.holds.values().filter(|hold| !hold.is_of_rollout());
    let offline_since = match connection {
        Some(_) => None,
        None => Some(last_heard(record, None).unwrap_or(record.registered_at)),
    };
    DeviceRow {
        local: record.local,
        device: record.device,
        name: record.name.clone(),
        site: record.site.clone(),
        labels: BTreeMap::new(),
        facts: BTreeMap::new(),
        platform: fact("platform").and_then(|platform| platform.parse().ok()),
        free_bytes: fact("disk_free_bytes").and_then(|bytes| bytes.parse().ok()),
        releases: releases.collect(),
        barred: barred(record),
        refused: None,
        holds: holds.map(|hold| (hold.workload.clone(), hold.reason.clone())).collect(),
        conflicts: conflicts.map(|(name, _)| name.clone()).collect(),
        rollouts: BTreeMap::new(),
        offline_since,
        revision,
    }
}

/// Why a device does not get a release, whose assignment takes so many bytes of its document, whatever state it is in.
#[must_use]
pub fn refused(
    record: &DeviceRecord,
    release: &PlannedRelease,
    bytes: usize,
    orders: &Orders,
) -> Option<(Blocked, String)> {
    if let Some(denial) = orders.denials.get(&release.manifest) {
        let cause = if denial.reason.is_empty() { String::new() } else { format!(": {}", denial.reason) };
        return Some((Blocked::Denied, format!("denied{cause}")));
    }
    if let Some(pin) = record.pins.get(&release.workload).filter(|pin| pin.version != release.version) {
        return Some((Blocked::Pinned, pin.sentence()));
    }
    let missing = room::missing_bytes(&record.wanted, &release.workload, bytes)?;
    let bytes_max = limit::ASSIGNED_BYTES_MAX;
    Some((Blocked::Room, format!("with its other workloads it would be {missing} bytes over the {bytes_max} for all")))
}

fn barred(record: &DeviceRecord) -> Option<String> {
    match record.membership {
        Membership::Enrolled => None,
        Membership::Recovered => {
            Some(format!("it came back after its record was lost: fleetd enroll approve {}", record.name))
        }
        Membership::Quarantined => Some("two hold its key".to_owned()),
        Membership::Revoked => Some("its key is revoked".to_owned()),
    }
}

/// When a device was last heard.
pub(crate) fn last_heard(record: &DeviceRecord, connection: Option<&Connection>) -> Option<Wall> {
    connection.map(|connection| connection.heard_at).max(record.last_heard_at)
}
