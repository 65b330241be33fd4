//! Why a device is as it is: what stands between what should be and what is, the most decisive first.

use std::collections::BTreeMap;

use fleetd_actors::device::record::{DeviceEvent, DeviceRecord, Membership};
use fleetd_actors::device::standing::{StandingHold, standing_holds};
use fleetd_actors::device::wanted;
use fleetd_actors::orders::Orders;
use fleetd_actors::report::{FaultKind, Phase, RunState, WorkloadReport};
use fleetd_actors::window::Zone;
use fleetd_proto::fleetd::common::v1 as common;
use fleetd_proto::fleetd::device::v1::{self as device, Reason, ReasonKind};
use fleetd_sync_core::id::KeyId;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::Wall;

use super::device::workloads;
use crate::connection_table::Connection;
use crate::device_row::last_heard;
use crate::record::timestamp;

/// What is looked at.
pub(crate) struct Looked<'a> {
    /// The device's record.
    pub(crate) record: &'a DeviceRecord,
    /// Its connection, if it has one.
    pub(crate) connection: Option<&'a Connection>,
    /// The one workload that is asked about, or all.
    pub(crate) workload: Option<&'a WorkloadName>,
    /// What stands over the whole fleet.
    pub(crate) orders: &'a Orders,
    /// The workloads that run what a key signed that is compromised, with that key.
    pub(crate) compromised: &'a BTreeMap<WorkloadName, KeyId>,
}

impl Looked<'_> {
    /// What stands between desired and actual, the most decisive first; that nothing does is a reason of its own.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        reasons.extend(self.membership());
        reasons.extend(self.standing_holds());
        reasons.extend(self.holds());
        let names: Vec<_> = workloads(self.record).into_iter().filter(|name| self.is_asked(Some(name))).collect();
        for name in &names {
            reasons.extend(self.workload_reasons(name));
        }
        reasons.extend(self.offline());
        reasons.sort_by_key(|reason| rank(reason.kind()));
        if reasons.is_empty() {
            let message = match names.len() {
                0 => "nothing is assigned to it".to_owned(),
                _ => "it runs what it should".to_owned(),
            };
            reasons.push(reason(ReasonKind::Converged, None, message, None, String::new()));
        }
        reasons
    }

    /// What happened, the newest first.
    pub(crate) fn events(&self, events_max: usize) -> Vec<device::DeviceEvent> {
        let asked = self.record.events.iter().rev().filter(|event| self.is_asked(event.workload.as_ref()));
        asked.take(events_max).map(event).collect()
    }

    fn is_asked(&self, workload: Option<&WorkloadName>) -> bool {
        self.workload.is_none() || workload.is_none() || self.workload == workload
    }

    fn membership(&self) -> Option<Reason> {
        let name = &self.record.name;
        let (message, next) = match self.record.membership {
            Membership::Enrolled => return None,
            Membership::Recovered => (
                "it came back after the server lost its record, and waits for an operator's word",
                format!("fleetd enroll approve {name}"),
            ),
            Membership::Quarantined => {
                ("two hold its key: nothing more is taken from it", format!("fleetd device revoke {name}"))
            }
            Membership::Revoked => ("its key is revoked for ever", String::new()),
        };
        let since = self.since(None, &["revoked", "forked", "recovered"]);
        Some(reason(ReasonKind::Membership, None, message.to_owned(), since, next))
    }

    /// The holds of stops of the whole fleet, of denied releases, and of pins.
    fn standing_holds(&self) -> Vec<Reason> {
        let holds = standing_holds(self.record, self.orders).into_iter();
        let asked = holds.filter(|hold| self.is_asked(hold.workload.as_ref()));
        let reason = |hold: StandingHold| {
            let message = format!("it is kept as it is: {}", hold.reason);
            reason(ReasonKind::Held, hold.workload.as_ref(), message, Some(hold.since), hold.lift)
        };
        asked.map(reason).collect()
    }

    fn holds(&self) -> impl Iterator<Item = Reason> {
        let asked = self.record.holds.iter().filter(|(_, hold)| self.is_asked(hold.workload.as_ref()));
        asked.map(|(id, hold)| {
            let why = if hold.reason.is_empty() { String::new() } else { format!(": {}", hold.reason) };
            let next = format!("fleetd device lift {} {id}", self.record.name);
            let (workload, since) = (hold.workload.as_ref(), Some(hold.created_at));
            reason(ReasonKind::Held, workload, format!("a hold keeps it as it is{why}"), since, next)
        })
    }

    fn offline(&self) -> Option<Reason> {
        if self.connection.is_some() || self.record.membership == Membership::Revoked {
            return None;
        }
        let heard = last_heard(self.record, None);
        let message = match heard {
            Some(_) => "it cannot be reached; it follows by itself when it is next heard",
            None => "it has never connected",
        };
        let next = format!("fleetd device show {} --probe", self.record.name);
        Some(reason(ReasonKind::Offline, None, message.to_owned(), heard, next))
    }

    fn workload_reasons(&self, name: &WorkloadName) -> Vec<Reason> {
        let nothing = WorkloadReport::default();
        let report = self.record.reports.get(name).unwrap_or(&nothing);
        let place = format!("{}/{name}", self.record.name);
        let logs = format!("fleetd logs {place}");
        let mut reasons = Vec::new();
        let mut add = |kind, message: String, events: &[&str], next: &str| {
            reasons.push(reason(kind, Some(name), message, self.since(Some(name), events), next.to_owned()));
        };
        let fault = report.error.as_ref().map(|fault| (fault, fault.to_string()));
        match &fault {
            Some((fault, text)) if fault.kind.is_refusal() => {
                let (kind, next) = refusal(&fault.kind);
                add(kind, format!("the device says {text}"), &[], next);
            }
            _ => {}
        }
        if let (Some(key), Some(version)) = (self.compromised.get(name), &report.release) {
            let message =
                format!("it runs {version}, which {key} signed, and that key is compromised: it is never restored");
            add(ReasonKind::Signature, message, &[], "fleetd release list");
        }
        let cause = fault.as_ref().map(|(_, text)| format!(" ({text})")).unwrap_or_default();
        match report.phase {
            // It was refused before anything was changed, as is said above.
            Some(Phase::Restored | Phase::Failed)
                if fault.as_ref().is_some_and(|(fault, _)| fault.kind.is_refusal()) => {}
            Some(Phase::Restored) => {
                let now = report.installed();
                let message =
                    format!("the release failed here{cause}, and {now} runs again; it waits for a new rollout");
                add(ReasonKind::Restored, message, &["restored"], &logs);
            }
            Some(Phase::Failed) => {
                let message =
                    format!("the release failed here{cause}, and none took its place; it waits for a new rollout");
                add(ReasonKind::Restored, message, &["failed"], &logs);
            }
            _ => {}
        }
        if report.run == Some(RunState::CrashLoop) {
            let exit = report.exit.map(|exit| format!(", last with {exit}")).unwrap_or_default();
            add(ReasonKind::CrashLoop, format!("the program keeps ending{exit}"), &[], &logs);
        }
        if report.stopped_locally {
            let message = "somebody stopped it at the device".to_owned();
            add(
                ReasonKind::StoppedLocally,
                message,
                &["stopped_locally"],
                &format!("fleetd agent start {name}   (at the device)"),
            );
        } else if wanted::is_stopped(&self.record.wanted, name) {
            let message = "an operator stopped it".to_owned();
            add(ReasonKind::Stopped, message, &["stop"], &format!("fleetd device start {place}"));
        }
        if let Some(message) = self.progress(name, report) {
            add(ReasonKind::InProgress, message, &["assigned"], &format!("fleetd device show {}", self.record.name));
        }
        reasons
    }

    /// Says how far the device is, when it is on its way to what it should run.
    fn progress(&self, name: &WorkloadName, report: &WorkloadReport) -> Option<String> {
        let (version, attempt) = wanted::assigned_release(&self.record.wanted, name)?;
        let configuration = wanted::assigned_configuration(&self.record.wanted, name);
        let with = configuration.map(|configuration| format!(" with {}", configuration.name())).unwrap_or_default();
        let assigned = format!("{name}@{version}{with}");
        let rollout = wanted::assigned_rollout(&self.record.wanted, name);
        let is_about = report.rollout == rollout && report.attempt == attempt;
        match report.phase {
            Some(phase) if is_about && phase.is_final() => None,
            Some(Phase::Wait) if is_about => {
                let waits = report.waits.as_ref().map(|waits| waits.sentence(&self.zone_of(name)));
                let waits = waits.unwrap_or_else(|| "it waits for a time at which to switch".to_owned());
                Some(format!("{assigned} is laid out; {waits}"))
            }
            Some(phase) if is_about => {
                // What it tries again and again, and why that fails.
                let again = report.error.as_ref().filter(|fault| !fault.kind.is_refusal());
                let again = again.map(|fault| format!(", and tries again after {fault}")).unwrap_or_default();
                Some(format!("{assigned} is in phase {phase}{again}"))
            }
            _ if self.connection.is_some() => Some(format!("{assigned} is assigned; the device has yet to begin")),
            _ => Some(format!("{assigned} is assigned, and waits for the device")),
        }
    }

    /// The zone by which the device has its windows, or else that in which it says that it is.
    fn zone_of(&self, name: &WorkloadName) -> Zone {
        let terms = wanted::assigned_terms(&self.record.wanted, name).filter(|terms| terms.calendar.is_bounded());
        let own = || self.record.facts.get("timezone").and_then(|zone| zone.parse().ok());
        terms.map(|terms| terms.calendar.zone).or_else(own).unwrap_or_default()
    }

    fn since(&self, workload: Option<&WorkloadName>, kinds: &[&str]) -> Option<Wall> {
        let about = |event: &&DeviceEvent| event.workload.as_ref() == workload && kinds.contains(&event.kind.as_str());
        self.record.events.iter().rev().find(about).map(|event| event.at)
    }
}

fn reason(
    kind: ReasonKind,
    workload: Option<&WorkloadName>,
    message: String,
    since: Option<Wall>,
    next_command: String,
) -> Reason {
    Reason {
        kind: kind.into(),
        workload: workload.map(ToString::to_string).unwrap_or_default(),
        message,
        since: since.map(timestamp),
        next_command,
    }
}

/// The answer to "why?" in one sentence.
pub(crate) fn summary(reasons: &[Reason]) -> String {
    let Some(first) = reasons.first() else { return String::new() };
    let subject = if first.workload.is_empty() { String::new() } else { format!("{}: ", first.workload) };
    format!("{subject}{}", first.message)
}

/// What decides comes first: what no time will change, then what somebody must do, then what passes by itself.
const fn rank(kind: ReasonKind) -> u8 {
    match kind {
        ReasonKind::Membership => 0,
        ReasonKind::Held => 1,
        ReasonKind::Conflict => 2,
        ReasonKind::NeedsAgent => 3,
        ReasonKind::Signature => 4,
        ReasonKind::Platform => 5,
        ReasonKind::Storage => 6,
        ReasonKind::Restored => 7,
        ReasonKind::CrashLoop => 8,
        ReasonKind::StoppedLocally => 9,
        ReasonKind::Stopped => 10,
        ReasonKind::Offline => 11,
        ReasonKind::InProgress => 12,
        ReasonKind::Converged | ReasonKind::Unspecified => 13,
    }
}

/// Says whether a fault keeps the device from even trying; the others belong to a phase.
const fn refusal(kind: &FaultKind) -> (ReasonKind, &'static str) {
    match kind {
        FaultKind::Held => (ReasonKind::Held, "fleetd device show DEVICE"),
        FaultKind::Conflict => (ReasonKind::Conflict, "fleetd trust show"),
        FaultKind::NoSpace => (ReasonKind::Storage, ""),
        FaultKind::Config => (ReasonKind::Signature, "fleetd config list WORKLOAD"),
        FaultKind::Platform => (ReasonKind::Platform, "fleetd release push … --artifact PLATFORM=PATH"),
        _ => (ReasonKind::Signature, "fleetd release verify WORKLOAD@VERSION"),
    }
}

fn event(event: &DeviceEvent) -> device::DeviceEvent {
    device::DeviceEvent {
        at: Some(timestamp(event.at)),
        quality: common::ClockQuality::Unspecified.into(),
        kind: event.kind.clone(),
        workload: event.workload.as_ref().map(ToString::to_string).unwrap_or_default(),
        message: event.message.clone(),
        caused_by: event.caused_by.clone(),
    }
}
