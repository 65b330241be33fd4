//! What a rehearsal copies: the plan, and the fleet as the API shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fleetd_proto::fleetd::common::v1::WorkloadPhase;
use fleetd_proto::fleetd::configuration::v1::ListConfigurationsRequest;
use fleetd_proto::fleetd::device::v1::{Device, DeviceState, DeviceWorkload, Hold, ListDevicesRequest, Presence};
use fleetd_proto::fleetd::release::v1::{GetReleaseRequest, ListReleasesRequest};
use fleetd_proto::fleetd::rollout::v1::{
    GetPlanRequest, GetRolloutRequest, ListRolloutsRequest, RolloutDevice, RolloutDeviceState, RolloutState,
};
use fleetd_simulator::rehearsal::{
    Barred, CopiedDevice, CopiedHold, CopiedProbe, CopiedRefusal, CopiedRelease, PlanHead, Refused, Rehearsal,
    RehearsalError,
};
use fleetd_sync_core::configuration::pair_digest;
use fleetd_sync_core::id::{ArtifactDigest, PlanId, RolloutId};

use super::super::plan::document;
use super::super::stop;
use crate::client::FleetClient;
use crate::command::{Session, login, wording};
use crate::error::CommandError;
use crate::exit::Exit;
use crate::output::Moment;

/// Differences between a plan and its fleet that an error names.
const STALE_NAMED: usize = 10;

/// Reads the plan and the fleet.
pub(super) async fn read(session: &Session<'_>, asked: &str) -> Result<Rehearsal, CommandError> {
    let given = if asked.parse::<PlanId>().is_ok() { None } else { Some(read_file(asked)?) };
    let client = session.client().await?;
    let (plan, head) = saved_plan(&client, asked, given).await?;
    let request = GetReleaseRequest { workload: head.workload.clone(), version: head.version.clone() };
    let release = login::need(client.get_release(request).await?.release, "release")?;
    let signed = login::need(release.signed_manifest, "signed_manifest")?;
    let releases = ListReleasesRequest { workload: head.workload.clone(), ..Default::default() };
    let manifests = client.all_releases(releases).await?.into_iter();
    let manifests: BTreeMap<String, String> =
        manifests.map(|release| (release.version, release.manifest_digest)).collect();
    let asked = ListConfigurationsRequest { workload: head.workload.clone(), ..Default::default() };
    let configurations = client.all_configurations(asked).await?.into_iter();
    let configurations = configurations.map(|found| (found.name, found.digest)).collect();
    let denied = release.denied_at.is_some().then(|| CopiedRefusal {
        by: Refused::Denied,
        reason: ["denied", release.denied_reason.as_str()].join(": ").trim_end_matches(": ").to_owned(),
    });
    // What a stop of the whole fleet keeps from happening is what the rehearsal is about.
    let stops = stop::standing(&client).await?;
    if !stops.is_empty() {
        session.output.note(&format!("{}It is rehearsed what comes once that is over.", stop::sentences(&stops)));
    }
    let seen = Seen {
        known: Known { manifests, configurations },
        busy: busy(&client, &head.workload).await?,
        denied,
        stops: stops.into_iter().map(|stop| stop.hold_id).collect(),
        head,
    };
    let devices = client.all_devices(ListDevicesRequest::default()).await?;
    let devices = devices.into_iter().filter_map(|device| seen.copied(device)).collect();
    let probe = CopiedProbe::of_manifest(&signed.manifest).map_err(|error| refused(&error))?;
    Ok(Rehearsal::new(plan, milliseconds(Moment::now()).unwrap_or_default(), probe, devices))
}

fn read_file(asked: &str) -> Result<(String, PlanHead), CommandError> {
    let next = "fleetd rollout plan WORKLOAD@VERSION … --out p.json";
    let unreadable = |message: String| CommandError::new("rollout.plan_unreadable", message).next_command(next);
    let text = std::fs::read_to_string(Path::new(asked)).map_err(|error| {
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => format!("{asked:?} is neither a plan's id nor a file"),
            _ => format!("{asked:?} cannot be read"),
        };
        unreadable(message).caused_by(&error)
    })?;
    let head = PlanHead::read(&text)
        .map_err(|error| unreadable(format!("{asked:?} is no plan that can be rehearsed")).caused_by(&error))?;
    Ok((text, head))
}

/// The plan as the server saved it: what somebody made of it since is not what a start would carry out.
async fn saved_plan(
    client: &FleetClient,
    asked: &str,
    given: Option<(String, PlanHead)>,
) -> Result<(String, PlanHead), CommandError> {
    let plan_id = given.as_ref().map_or_else(|| asked.to_owned(), |(_, head)| head.plan.clone());
    let answer = client.get_plan(GetPlanRequest { plan_id, page_size: 1, ..Default::default() }).await?;
    let plan = login::need(answer.plan, "plan")?;
    if let Some((text, head)) = given {
        if ArtifactDigest::of(text.as_bytes()).to_string() != plan.document_digest {
            return Err(CommandError::new(
                "rollout.plan_edited",
                format!("{asked:?} is not {} as it was saved", plan.id),
            )
            .cause("somebody changed it, and made a digest that fits")
            .next_command(format!("fleetd rollout rehearse {}", plan.id)));
        }
        return Ok((text, head));
    }
    let unreadable = |error: &dyn std::error::Error| {
        CommandError::new("rollout.plan_unreadable", format!("{} cannot be read", plan.id)).caused_by(error)
    };
    let text =
        String::from_utf8(document(client, &plan, answer.document).await?).map_err(|error| unreadable(&error))?;
    let head = PlanHead::read(&text).map_err(|error| unreadable(&error))?;
    Ok((text, head))
}

/// The most urgent rollout of a workload that has not ended with a device, and its priority, by device id.
async fn busy(client: &FleetClient, workload: &str) -> Result<BTreeMap<String, (u32, String)>, CommandError> {
    let request = ListRolloutsRequest { workload: workload.to_owned(), ..Default::default() };
    let mut busy = BTreeMap::<String, (u32, String)>::new();
    for rollout in client.all_rollouts(request).await? {
        let at_work = [RolloutState::Running, RolloutState::Paused, RolloutState::Halted].map(i32::from);
        if !at_work.contains(&rollout.state) {
            continue;
        }
        let request = GetRolloutRequest { rollout_id: rollout.id.clone(), ..Default::default() };
        let devices = client.all_rollout_devices(request).await?;
        let priority = rollout.strategy.as_ref().and_then(|strategy| strategy.priority).unwrap_or_default();
        for device in devices.into_iter().filter(is_at_work) {
            let of_device = (priority, rollout.id.clone());
            let known = busy.entry(device.device_id).or_insert_with(|| of_device.clone());
            if known.0 < priority {
                *known = of_device;
            }
        }
    }
    Ok(busy)
}

/// Says whether a rollout has not ended with a device.
fn is_at_work(device: &RolloutDevice) -> bool {
    let state = RolloutDeviceState::try_from(device.state);
    matches!(state, Ok(RolloutDeviceState::Installing | RolloutDeviceState::Waiting))
}

/// What the server has of the workload.
struct Known {
    /// The digests of its releases, by version.
    manifests: BTreeMap<String, String>,
    /// The digests of its configurations, by name.
    configurations: BTreeMap<String, String>,
}

/// What of the server is looked at for each device.
struct Seen {
    head: PlanHead,
    known: Known,
    /// The rollouts that are at work, by device id.
    busy: BTreeMap<String, (u32, String)>,
    /// Why nobody gets the release, if it is denied.
    denied: Option<CopiedRefusal>,
    /// The holds of stops of the whole fleet.
    stops: BTreeSet<String>,
}

impl Seen {
    /// A device of the copy; nothing for one that is no member yet, or no more.
    fn copied(&self, device: Device) -> Option<CopiedDevice> {
        let barred = match DeviceState::try_from(device.state) {
            Ok(DeviceState::Enrolled) => None,
            Ok(DeviceState::Recovered) => Some(Barred::Recovered),
            Ok(DeviceState::Quarantined) => Some(Barred::Quarantined),
            Ok(DeviceState::Revoked) => Some(Barred::Revoked),
            _ => return None,
        };
        let crowded = self.head.crowded.get(&device.local_id).cloned();
        let crowded = crowded.map(|reason| CopiedRefusal { by: Refused::Room, reason });
        let refused = self.denied.clone().or_else(|| self.pinned(&device)).or(crowded);
        let running = device.workloads.iter().find(|found| found.name == self.head.workload);
        let is_away = device.presence != i32::from(Presence::Online);
        // One that was never connected is away since it registered.
        let heard = device.last_heard_at.as_ref().or(device.registered_at.as_ref());
        let facts = device.facts.unwrap_or_default();
        // A rollout's own hold is in no other one's way.
        let counts = |hold: &Hold| !self.stops.contains(&hold.id) && hold.created_by.parse::<RolloutId>().is_err();
        let holds = device.holds.into_iter().filter(counts);
        let holds = holds.map(|hold| CopiedHold {
            workload: Some(hold.workload).filter(|workload| !workload.is_empty()),
            reason: hold.reason,
        });
        Some(CopiedDevice {
            busy: self.busy.get(&device.id).map(|(_, rollout)| rollout.clone()),
            busy_priority: self.busy.get(&device.id).map(|(priority, _)| *priority),
            name: device.name,
            id: device.id,
            local: device.local_id,
            site: device.site,
            platform: Some(facts.platform).filter(|platform| !platform.is_empty()),
            // A device may say anything, and a scenario's file has no number above.
            disk_free_bytes: Some(facts.disk_free_bytes.min(i64::MAX.unsigned_abs())).filter(|free| *free > 0),
            barred,
            refused,
            conflict: running.is_some_and(|running| running.conflict),
            stopped: running.is_some_and(|running| running.desired_stopped),
            offline_since_ms: heard.filter(|_| is_away).and_then(|heard| milliseconds(wording::moment(Some(heard)))),
            labels: device.labels.into_iter().collect(),
            present: running.and_then(|running| present(running, &self.known)),
            holds: holds.collect(),
        })
    }

    /// Why a device keeps the version that it has, if somebody pinned it there.
    fn pinned(&self, device: &Device) -> Option<CopiedRefusal> {
        let (workload, version) = (&self.head.workload, &self.head.version);
        let pin = device.pins.iter().find(|pin| pin.workload == *workload && pin.version != *version)?;
        let cause = if pin.reason.is_empty() { String::new() } else { format!(": {}", pin.reason) };
        Some(CopiedRefusal { by: Refused::Pinned, reason: format!("pinned at {}{cause}", pin.version) })
    }
}

fn present(running: &DeviceWorkload, known: &Known) -> Option<CopiedRelease> {
    let version = Some(running.actual_release.clone()).filter(|version| !version.is_empty())?;
    let healthy = running.phase == i32::from(WorkloadPhase::Healthy);
    let manifest = known.manifests.get(&version).cloned();
    let Some(name) = Some(&running.actual_configuration).filter(|name| !name.is_empty()) else {
        return Some(CopiedRelease { manifest, configuration: None, version, healthy });
    };
    // What the server does not have is nothing that it could plan.
    let configuration = known.configurations.get(name);
    let both = manifest.zip(configuration).and_then(|(manifest, configuration)| {
        Some(pair_digest(manifest.parse().ok()?, Some(configuration.parse().ok()?)).to_string())
    });
    let configuration = configuration.map(|digest| format!("{name} {digest}"));
    Some(CopiedRelease { manifest: both, configuration, version, healthy })
}

fn milliseconds(moment: Moment) -> Option<i64> {
    let (seconds, nanos) = moment.parts()?;
    Some(seconds.saturating_mul(1000).saturating_add(i64::from(nanos) / 1_000_000))
}

/// Says why a plan is not rehearsed, as a start of it would.
pub(super) fn refused(error: &RehearsalError) -> CommandError {
    let plan_again = "fleetd rollout plan …";
    match error {
        RehearsalError::Stale { reasons } => {
            let mut lines: Vec<String> = reasons.iter().take(STALE_NAMED).cloned().collect();
            if reasons.len() > STALE_NAMED {
                lines.push(format!("and {} more", reasons.len() - STALE_NAMED));
            }
            CommandError::new("rollout.plan_stale", error.to_string())
                .cause(lines.join("\n"))
                .next_command(plan_again)
                .exit(Exit::StalePlan)
        }
        RehearsalError::Blocked { blocked } => {
            let lines: Vec<String> =
                blocked.iter().take(STALE_NAMED).map(|(name, reason)| format!("{name}: {reason}")).collect();
            let first = blocked.first().map_or("DEVICE", |(name, _)| name.as_str());
            CommandError::new("rollout.plan_blocked", error.to_string())
                .cause(lines.join("\n"))
                .next_command(format!("fleetd device why {first}"))
        }
        RehearsalError::Plan(_)
        | RehearsalError::Manifest { .. }
        | RehearsalError::Device { .. }
        | RehearsalError::Copy(_)
        | RehearsalError::Differs { .. }
        | RehearsalError::Scenario { .. } => {
            CommandError::new("rehearsal.copy", "the fleet cannot be copied").caused_by(error).next_command(plan_again)
        }
    }
}
