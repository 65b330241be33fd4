//! What a server gives to those who help from afar: how it is, and what its rollouts did last.
//!
//! A bundle has no keys, no tokens and no log lines. The names of devices and workloads are in it, and the faults that
//! devices reported. [`crate::flights`] says why only rollouts are recorded.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;

use fleetd_actors::rollout::status::DeviceProgress;
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::finding::Finding;
use fleetd_sync_core::id::{FleetId, LocalId, RolloutId};
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::disk::{DiskStore, Profile};
use fleetd_sync_store::state_store::{KeyRange, ReadError, StateStore};
use fleetd_sync_transport::examine::date;
use serde_json::{Value, json};

use crate::examine::Premises;
use crate::keys::Keys;
use crate::record;
use crate::record::rollout_flight::{RolloutFlight, encode_flight};

/// Where recordings lie in a bundle, and how they end.
pub const FLIGHTS: &str = "rollout/";
/// How a recording's name ends.
pub const FLIGHT_SUFFIX: &str = ".pb";
/// Rollouts that are listed: the newest.
const ROLLOUTS_MAX: usize = 50;
/// Events that are listed: the newest.
const EVENTS_MAX: usize = 500;

/// One file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

impl Part {
    /// A document.
    #[must_use]
    pub fn json(name: &str, value: &Value) -> Self {
        Self { name: format!("{name}.json"), content: format!("{value:#}\n").into_bytes() }
    }

    /// A rollout's recording.
    #[must_use]
    pub fn flight(flight: &RolloutFlight) -> Self {
        Self { name: format!("{FLIGHTS}{}{FLIGHT_SUFFIX}", flight.rollout), content: encode_flight(flight) }
    }
}

/// Which server a bundle is of, and when it was written.
#[must_use]
pub fn about(fleet: Option<FleetId>, at: Wall, is_running: bool) -> Part {
    let fleet = fleet.map(|fleet| fleet.to_string());
    let value = json!({
        "fleetId": fleet, "version": env!("CARGO_PKG_VERSION"), "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH, "writtenAt": date(at), "serverRuns": is_running,
    });
    Part::json("about", &value)
}

/// What the doctor found.
#[must_use]
pub fn doctor(findings: &[Finding]) -> Part {
    let findings: Vec<_> = findings.iter().map(finding_json).collect();
    Part::json("doctor", &json!({ "findings": findings }))
}

/// A finding, as programs read it.
#[must_use]
pub fn finding_json(finding: &Finding) -> Value {
    json!({
        "check": finding.check, "state": finding.state.as_str(), "found": finding.found, "remedy": finding.remedy,
    })
}

/// What there is of a server that does not run: its folder, and what the doctor found there.
#[must_use]
pub fn of_folder(premises: &Premises, findings: &[Finding], at: Wall) -> Vec<Part> {
    let fleet = Keys::fleet_in(&premises.data.join("keys")).ok().flatten();
    let mut parts = vec![about(fleet, at, false), doctor(findings), premises.configuration()];
    let path = premises.data.join("store");
    // One that does not open, or is another's, is told by what the doctor found.
    let owned = fs::metadata(&path).is_ok_and(|found| found.uid() == fleetd_sync_store::examine::own_user());
    if owned && let Ok(store) = DiskStore::open(&path, Profile::Server) {
        parts.extend(of_store(&store, None).unwrap_or_default());
    }
    parts
}

/// What is stored, counted, and what happened last.
///
/// # Errors
/// [`ReadError`] when the store cannot be read.
pub fn of_store(store: &dyn StateStore, connected: Option<usize>) -> Result<Vec<Part>, ReadError> {
    let mut counts = BTreeMap::new();
    let counted = [
        ("devices", Space::Device),
        ("pendingDevices", Space::PendingDevice),
        ("releases", Space::Release),
        ("configurations", Space::Configuration),
        ("plans", Space::Plan),
        ("rollouts", Space::Rollout),
        ("groups", Space::Group),
        ("enrolmentTokens", Space::EnrolmentToken),
        ("accessTokens", Space::AccessToken),
        ("rootRecords", Space::RootRecord),
    ];
    for (name, space) in counted {
        let mut count = 0_usize;
        store.visit(space, KeyRange::all(), &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        counts.insert(name, count);
    }
    let status = json!({
        "revision": store.revision().0, "failure": store.failure(), "connected": connected, "counts": counts,
        "rollouts": rollouts(store)?,
    });
    Ok(vec![Part::json("status", &status), Part::json("events", &events(store)?)])
}

fn rollouts(store: &dyn StateStore) -> Result<Vec<Value>, ReadError> {
    let mut headers = Vec::new();
    store.visit(Space::Rollout, KeyRange::all(), &mut |_, found| {
        headers.extend(record::rollout::decode_header(&found.value).ok());
        ControlFlow::Continue(())
    })?;
    headers.sort_by_key(|header| Reverse(header.created_at));
    let shown = headers.iter().take(ROLLOUTS_MAX).map(|header| {
        json!({
            "rolloutId": header.rollout.to_string(), "planId": header.plan.to_string(),
            "phase": header.phase.to_string(), "reason": header.reason, "open": header.is_open,
            "createdAt": date(header.created_at), "endedAt": header.ended_at.map(date),
        })
    });
    Ok(shown.collect())
}

/// How devices came along in rollouts, the newest first.
fn events(store: &dyn StateStore) -> Result<Value, ReadError> {
    let names = names(store)?;
    let mut newest = BTreeMap::<(Reverse<Wall>, RolloutId, LocalId), DeviceProgress>::new();
    store.visit(Space::Assignment, KeyRange::all(), &mut |key, found| {
        let rollout = key.get(..RolloutId::LENGTH).and_then(RolloutId::from_slice);
        if let (Some(rollout), Ok((device, progress))) = (rollout, record::rollout::decode_progress(&found.value)) {
            newest.insert((Reverse(progress.changed_at), rollout, device), progress);
            if newest.len() > EVENTS_MAX {
                newest.pop_last();
            }
        }
        ControlFlow::Continue(())
    })?;
    let events = newest.into_iter().map(|((Reverse(at), rollout, device), progress)| {
        json!({
            "at": date(at), "rolloutId": rollout.to_string(), "device": names.get(&device),
            "localId": device.to_string(), "status": progress.status.to_string(), "reason": progress.status.reason(),
            "offlineSince": progress.offline_since.map(date),
        })
    });
    Ok(json!({ "events": events.collect::<Vec<_>>() }))
}

fn names(store: &dyn StateStore) -> Result<BTreeMap<LocalId, String>, ReadError> {
    let mut names = BTreeMap::new();
    store.visit(Space::Device, KeyRange::all(), &mut |_, found| {
        if let Ok(record) = record::device::decode(&found.value) {
            names.insert(record.local, record.name.to_string());
        }
        ControlFlow::Continue(())
    })?;
    Ok(names)
}
