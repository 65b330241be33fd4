//! Which devices are meant, and what a plan sees of a device.

use std::collections::BTreeSet;

use fleetd_actors::device::record::{DeviceRecord, Membership};
use fleetd_actors::report::{FaultKind, Phase};
use fleetd_actors::rollout::plan::{DeviceRow, PresentRelease, Targets};
use fleetd_actors::selector::Selector;
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_sync_core::commit::Revision;

use super::super::call_error::CallError;
use super::device::last_heard;
use crate::connection_table::Connection;

/// Reads targets of a request. What is left out never means all devices.
pub(crate) fn read(targets: Option<&common::Targets>) -> Result<Targets, CallError> {
    let targets = targets.ok_or(CallError::Missing { field: "targets" })?;
    let names_some = !targets.selector.is_empty() || !targets.devices.is_empty();
    match (targets.all, names_some) {
        (true, false) => Ok(Targets::All),
        (true, true) => {
            let cause = "all devices are meant, and some are named besides".to_owned();
            Err(CallError::Invalid { field: "targets", cause })
        }
        (false, false) => Err(CallError::Missing { field: "targets" }),
        (false, true) => {
            let devices: BTreeSet<String> = targets.devices.iter().cloned().collect();
            if devices.iter().any(String::is_empty) {
                return Err(CallError::Missing { field: "targets.devices" });
            }
            Ok(Targets::Some { selector: selector(&targets.selector)?, devices })
        }
    }
}

/// Reads a selector that may be left out. One that is only blank is not left out.
pub(crate) fn selector(text: &str) -> Result<Option<Selector>, CallError> {
    if text.is_empty() { Ok(None) } else { Ok(Some(text.parse()?)) }
}

/// Says whether a selector matches a device.
pub(crate) fn matches(selector: &Selector, record: &DeviceRecord) -> bool {
    let row = row(record, Revision::default(), None);
    let id = row.device.to_string();
    selector.matches(|key| if key == "id" { Some(&id) } else { row.value_of(key) })
}

/// Targets as the API shows them.
pub(crate) fn show(targets: &Targets) -> common::Targets {
    match targets {
        Targets::All => common::Targets { all: true, ..common::Targets::default() },
        Targets::Some { selector, devices } => common::Targets {
            selector: selector.as_ref().map(ToString::to_string).unwrap_or_default(),
            devices: devices.iter().cloned().collect(),
            all: false,
        },
    }
}

/// What a plan sees of a device; the rollouts at work on it are its caller's to add.
pub(crate) fn row(record: &DeviceRecord, revision: Revision, connection: Option<&Connection>) -> DeviceRow {
    let fact = |name: &str| record.facts.get(name);
    let releases = record.reports.iter().filter_map(|(name, report)| {
        let (version, manifest) = (report.release.clone()?, report.digest?);
        Some((name.clone(), PresentRelease { version, manifest, healthy: report.phase == Some(Phase::Healthy) }))
    });
    let conflicts = record
        .reports
        .iter()
        .filter(|(_, report)| report.error.as_ref().is_some_and(|fault| fault.kind == FaultKind::Conflict));
    let offline_since = match connection {
        Some(_) => None,
        None => Some(last_heard(record, None).unwrap_or(record.registered_at)),
    };
    DeviceRow {
        local: record.local,
        device: record.device,
        name: record.name.clone(),
        site: record.site.clone(),
        labels: record.labels.clone(),
        facts: record.facts.clone(),
        platform: fact("platform").and_then(|platform| platform.parse().ok()),
        free_bytes: fact("disk_free_bytes").and_then(|bytes| bytes.parse().ok()),
        releases: releases.collect(),
        barred: barred(record),
        holds: record.holds.values().map(|hold| (hold.workload.clone(), hold.reason.clone())).collect(),
        conflicts: conflicts.map(|(name, _)| name.clone()).collect(),
        rollouts: std::collections::BTreeMap::new(),
        offline_since,
        revision,
    }
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
