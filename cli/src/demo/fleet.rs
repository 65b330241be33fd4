//! The fleet as its public API shows it: nothing in the demo counts as seen unless it is seen here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::failure::StepError;
use super::story::Story;
use crate::client::api::common::v1::{RunState, Targets, WorkloadPhase};
use crate::client::api::device::v1::{Device, DeviceState, DeviceWorkload, ListDevicesRequest, Presence};
use crate::client::api::log::v1::ReadLogsRequest;
use crate::client::api::log::v1::read_logs_response::Entry;
use crate::client::api::rollout::v1::watch_rollout_response::Event;
use crate::client::api::rollout::v1::{
    GetRolloutRequest, Plan, PlanRolloutRequest, Rollout, RolloutCounts, RolloutDevice, RolloutState,
    StartRolloutRequest, Strategy, WatchRolloutRequest, start_rollout_request,
};
use crate::client::watch::Told;
use crate::client::{CallError, FleetClient, request_id};
use crate::output::{Moment, bytes};

/// The workload that the demo ships.
pub(super) const WORKLOAD: &str = "coffee";
/// Between two looks at what takes its time.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Lines of each device that are shown.
const LINES_SHOWN: usize = 2;

/// The API of the demo's fleet, and where its story is told.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    pub(super) client: FleetClient,
    pub(super) story: &'a Story<'a>,
}

impl Fleet<'_> {
    /// Every device, in the order of their names.
    pub(super) async fn devices(&self) -> Result<Vec<Device>, StepError> {
        Ok(self.client.all_devices(ListDevicesRequest::default()).await?)
    }

    /// Looks at all devices until they are as they should be.
    pub(super) async fn until(
        &self,
        awaited: &str,
        is_so: impl Fn(&[Device]) -> bool,
    ) -> Result<Vec<Device>, StepError> {
        loop {
            let devices = self.devices().await?;
            if is_so(&devices) {
                return Ok(devices);
            }
            let seen: Vec<String> = devices.iter().map(describe).collect();
            self.story.awaits(format!("{awaited}; last seen: {}", seen.join("; ")));
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Plans to bring a version to every device, of which so many may fail.
    pub(super) async fn plan(&self, version: &str, failed_max: u32) -> Result<Plan, StepError> {
        let targets = Targets { all: true, ..Targets::default() };
        let request = PlanRolloutRequest {
            request_id: request_id(),
            workload: WORKLOAD.to_owned(),
            version: version.to_owned(),
            configuration: String::new(),
            targets: Some(targets),
            strategy: Some(Strategy { failed_max: Some(failed_max), ..Strategy::default() }),
        };
        let answer = self.client.plan_rollout(request).await?;
        let plan = answer.plan.ok_or(CallError::Incomplete { field: "plan" })?;
        let counts = plan.counts.unwrap_or_default();
        self.story.tell(&format!(
            "plan {}: {} matched, {} install, {} update, {} unchanged, {} blocked, {} offline; {} to send",
            plan.id,
            counts.matched,
            counts.install,
            counts.update,
            counts.unchanged,
            counts.blocked,
            counts.offline,
            bytes(plan.traffic_bytes),
        ));
        Ok(plan)
    }

    /// Starts what was planned.
    pub(super) async fn start(&self, plan: &Plan) -> Result<Rollout, StepError> {
        let request = StartRolloutRequest {
            request_id: request_id(),
            plan: Some(start_rollout_request::Plan::PlanId(plan.id.clone())),
            only_planned: false,
        };
        let answer = self.client.start_rollout(request).await?;
        let rollout = answer.rollout.ok_or(CallError::Incomplete { field: "rollout" })?;
        self.story.tell(&format!("rollout {} of {} {} started", rollout.id, rollout.workload, rollout.version));
        Ok(rollout)
    }

    /// Follows a rollout, and tells each change, until it has ended.
    pub(super) async fn watch(&self, rollout_id: &str) -> Result<RolloutState, StepError> {
        let request = WatchRolloutRequest { rollout_id: rollout_id.to_owned(), ..Default::default() };
        let mut watch = self.client.follow(request);
        let line = self.story.live_line();
        let mut told = BTreeMap::new();
        let mut counted = None;
        loop {
            let response = match watch.next().await? {
                Told::Entry(response) => response,
                Told::Lost(error) => {
                    line.suspend(|| self.story.tell(&format!("{error}; connecting again")));
                    continue;
                }
                Told::End => return Ok(self.rollout(rollout_id).await?.state()),
            };
            match response.event {
                Some(Event::Device(device)) => {
                    let text = progress(&device);
                    if told.insert(device.device_id.clone(), text.clone()).as_ref() != Some(&text) {
                        line.suspend(|| self.story.tell(&format!("{}: {text}", device.name)));
                    }
                }
                Some(Event::Rollout(rollout)) => {
                    let counts = rollout.counts.unwrap_or_default();
                    line.set(&summary(&counts), u64::from(counts.healthy), u64::from(total(&counts)));
                    if counted.replace((rollout.state, counts)) != Some((rollout.state, counts)) {
                        self.story.awaits(format!("the end of the rollout; last seen: {}", summary(&counts)));
                        line.suspend(|| self.story.tell(&format!("{}: {}", state_word(&rollout), summary(&counts))));
                    }
                    if !matches!(rollout.state(), RolloutState::Unspecified | RolloutState::Running) {
                        return Ok(rollout.state());
                    }
                }
                Some(Event::SnapshotComplete(_)) | None => {}
            }
        }
    }

    /// A rollout as it is now.
    pub(super) async fn rollout(&self, rollout_id: &str) -> Result<Rollout, StepError> {
        let request = GetRolloutRequest { rollout_id: rollout_id.to_owned(), ..Default::default() };
        let answer = self.client.get_rollout(request).await?;
        Ok(answer.rollout.ok_or(CallError::Incomplete { field: "rollout" })?)
    }

    /// Looks at a rollout until it counts its devices as it should.
    pub(super) async fn counts(
        &self,
        rollout_id: &str,
        awaited: &str,
        is_so: impl Fn(&RolloutCounts) -> bool,
    ) -> Result<RolloutCounts, StepError> {
        loop {
            let counts = self.rollout(rollout_id).await?.counts.unwrap_or_default();
            if is_so(&counts) {
                return Ok(counts);
            }
            self.story.awaits(format!("{awaited}; last seen: {}", summary(&counts)));
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Follows the workload's lines until each of `devices` has written `count` that contain `part`.
    pub(super) async fn read_lines(
        &self,
        devices: &[Device],
        since: Option<Moment>,
        part: &str,
        count: usize,
    ) -> Result<(), StepError> {
        let mut watch = self.client.follow(ReadLogsRequest {
            targets: Some(Targets {
                devices: devices.iter().map(|device| device.id.clone()).collect(),
                ..Targets::default()
            }),
            workload: WORKLOAD.to_owned(),
            since: since.and_then(Moment::parts).map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
            follow: true,
            ..ReadLogsRequest::default()
        });
        let mut seen: BTreeMap<String, BTreeSet<(String, u64, u64)>> =
            devices.iter().map(|device| (device.id.clone(), BTreeSet::new())).collect();
        while seen.values().any(|lines| lines.len() < count) {
            let so_far: Vec<String> = devices
                .iter()
                .map(|device| format!("{} {}", device.name, seen.get(&device.id).map_or(0, BTreeSet::len)))
                .collect();
            self.story.awaits(format!("{count} lines with {part:?} of each device; so far {}", so_far.join(", ")));
            let Told::Entry(response) = watch.next().await? else { continue };
            let Some(Entry::Line(line)) = response.entry else { continue };
            let Some(lines) = seen.get_mut(&line.device_id).filter(|_| line.line.contains(part)) else { continue };
            // A line that was shown ahead of its turn comes again, under the same number.
            if lines.insert((line.boot, line.stamp, line.sequence)) && lines.len() <= LINES_SHOWN {
                self.story.tell(&format!("{}/{} | {}", line.device_name, line.workload, line.line));
            }
        }
        Ok(())
    }
}

/// The demo's workload on a device; an empty one where there is none.
pub(super) fn workload(device: &Device) -> DeviceWorkload {
    device.workloads.iter().find(|workload| workload.name == WORKLOAD).cloned().unwrap_or_default()
}

/// Whether a device is a member that answers.
pub(super) fn is_online(device: &Device) -> bool {
    device.state() == DeviceState::Enrolled && device.presence() == Presence::Online
}

/// Whether a device runs a version of the workload.
pub(super) fn runs(device: &Device, version: &str) -> bool {
    let workload = workload(device);
    workload.actual_release == version && workload.run_state() == RunState::Running
}

fn describe(device: &Device) -> String {
    let workload = workload(device);
    let release = if workload.actual_release.is_empty() { "nothing" } else { workload.actual_release.as_str() };
    format!(
        "{} is {} and {}, has {release} ({}, {})",
        device.name,
        word(device.state().as_str_name(), "DEVICE_STATE_"),
        word(device.presence().as_str_name(), "PRESENCE_"),
        word(workload.phase().as_str_name(), "WORKLOAD_PHASE_"),
        word(workload.run_state().as_str_name(), "RUN_STATE_"),
    )
}

/// How far a device has come, in words that change when something does.
fn progress(device: &RolloutDevice) -> String {
    let mut text = word(device.state().as_str_name(), "ROLLOUT_DEVICE_STATE_");
    let phase = word(device.phase().as_str_name(), "WORKLOAD_PHASE_");
    if device.phase() != WorkloadPhase::Unspecified && phase != text {
        text = format!("{text}, {phase}");
    }
    if device.phase() == WorkloadPhase::Download && device.size_bytes > 0 {
        text = format!("{text} {}/{}", bytes(device.fetched_bytes), bytes(device.size_bytes));
    }
    if device.offline_since.is_some() {
        text.push_str(", offline");
    }
    if device.reason.is_empty() { text } else { format!("{text} ({})", device.reason) }
}

fn state_word(rollout: &Rollout) -> String {
    let state = word(rollout.state().as_str_name(), "ROLLOUT_STATE_");
    if rollout.reason.is_empty() { state } else { format!("{state} ({})", rollout.reason) }
}

/// How a rollout's devices stand.
pub(super) fn summary(counts: &RolloutCounts) -> String {
    let parts = [
        (counts.waiting, "waiting"),
        (counts.installing, "installing"),
        (counts.healthy, "healthy"),
        (counts.restored, "restored"),
        (counts.failed, "failed"),
        (counts.skipped, "skipped"),
    ];
    let mut words: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if counts.offline > 0 {
        words.push(format!("{} of the waiting offline", counts.offline));
    }
    words.join(", ")
}

const fn total(counts: &RolloutCounts) -> u32 {
    counts.waiting + counts.installing + counts.healthy + counts.restored + counts.failed + counts.skipped
}

fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', " ")
}
