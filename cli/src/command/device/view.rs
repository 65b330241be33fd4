//! Devices as people read them.

use fleetd_proto::fleetd::device::v1::{
    self as device, Device, DeviceChange, DeviceWorkload, Explanation, Presence, WatchDevicesResponse,
};

use crate::command::wording;
use crate::output::{Moment, bytes, table};

/// Draws a list of devices.
#[must_use]
pub fn devices(devices: &[Device], now: Moment) -> String {
    let rows = devices.iter().map(|device| {
        let platform = device.facts.as_ref().map(|facts| facts.platform.as_str()).unwrap_or_default();
        [
            device.name.clone(),
            standing(device, now),
            wording::or_dash(platform),
            wording::or_dash(&device.workloads.iter().map(workload).collect::<Vec<_>>().join(", ")),
            wording::labels(&device.labels),
            device.id.clone(),
        ]
    });
    table(["NAME", "STATE", "PLATFORM", "WORKLOADS", "LABELS", "ID"], rows)
}

/// Where a device stands: online, since when not, or why it does not belong.
#[must_use]
pub fn standing(device: &Device, now: Moment) -> String {
    if device.state != i32::from(device::DeviceState::Enrolled) {
        return wording::device_state(device.state);
    }
    let held = if device.holds.is_empty() { "" } else { ", held" };
    match Presence::try_from(device.presence) {
        Ok(Presence::Offline) => {
            let elapsed = wording::moment(device.last_heard_at.as_ref()).elapsed(now);
            format!("offline {elapsed}{held}")
        }
        _ => format!("{}{held}", wording::presence(device.presence)),
    }
}

/// Says what one workload runs and should run.
#[must_use]
pub fn workload(workload: &DeviceWorkload) -> String {
    let actual = wording::with_configuration(&workload.actual_release, &workload.actual_configuration);
    let desired = wording::with_configuration(&workload.desired_release, &workload.desired_configuration);
    let mut text = format!("{} {}", workload.name, wording::or_dash(&actual));
    if !workload.desired_release.is_empty() && desired != actual {
        text.push_str(&format!(" -> {desired}"));
    }
    let fetching = workload.size_bytes > 0 && workload.fetched_bytes < workload.size_bytes;
    text.push_str(&format!(" {}", wording::phase(workload.phase)));
    if fetching {
        text.push_str(&format!(" {}", percent(workload.fetched_bytes, workload.size_bytes)));
    }
    let run_state = wording::run_state(workload.run_state);
    if !matches!(run_state.as_str(), "running" | "-") {
        text.push_str(&format!(" ({run_state})"));
    }
    if workload.conflict {
        text.push_str(" (conflict)");
    }
    text
}

/// Says how much of the whole is there.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    format!("{percent} %")
}

/// Draws one device.
#[must_use]
pub fn device(device: &Device, now: Moment) -> String {
    let facts = device.facts.clone().unwrap_or_default();
    let mut text = format!("{}  {}\n", device.name, standing(device, now));
    let heard = wording::moment(device.last_heard_at.as_ref());
    let lines = [
        ("id", device.id.clone()),
        ("local id", device.local_id.clone()),
        ("labels", wording::labels(&device.labels)),
        ("site", wording::or_dash(&device.site)),
        ("last heard", format!("{} ({})", heard.relative(now), heard.absolute())),
        ("registered", wording::moment(device.registered_at.as_ref()).absolute()),
        ("platform", format!("{}, {}, kernel {}", facts.platform, facts.os, facts.kernel)),
        ("hardware", hardware(&facts)),
        ("agent", wording::or_dash(&facts.agent_version)),
    ];
    for (name, value) in lines {
        text.push_str(&format!("  {name:<11} {value}\n"));
    }
    for entry in &device.workloads {
        text.push_str(&format!("workload {}\n", workload(entry)));
        if !entry.reason.is_empty() {
            text.push_str(&format!("  {}\n", entry.reason));
        }
    }
    for hold in &device.holds {
        let what = if hold.workload.is_empty() { "all of it" } else { &hold.workload };
        let since = wording::moment(hold.created_at.as_ref()).relative(now);
        text.push_str(&format!("hold {} on {what}, {since}: {}\n", hold.id, wording::or_dash(&hold.reason)));
    }
    for pin in &device.pins {
        let since = wording::moment(pin.created_at.as_ref()).relative(now);
        let (workload, version) = (&pin.workload, &pin.version);
        text.push_str(&format!("{workload} pinned at {version}, {since}: {}\n", wording::or_dash(&pin.reason)));
    }
    text
}

fn hardware(facts: &fleetd_proto::fleetd::common::v1::Facts) -> String {
    format!(
        "{}, {} cores of {}, {} memory, {} of {} disk free",
        wording::or_dash(&facts.model),
        facts.cpu_cores,
        wording::or_dash(&facts.cpu),
        bytes(facts.memory_bytes),
        bytes(facts.disk_free_bytes),
        bytes(facts.disk_bytes),
    )
}

/// Draws why a device is as it is.
#[must_use]
pub fn explanation(explanation: &Explanation, now: Moment) -> String {
    let name = explanation.device.as_ref().map(|device| device.name.as_str()).unwrap_or_default();
    let mut text = format!("{name}: {}\n", explanation.summary);
    for reason in &explanation.reasons {
        let subject = if reason.workload.is_empty() { String::new() } else { format!("{}: ", reason.workload) };
        let since = match wording::moment(reason.since.as_ref()).elapsed(now) {
            unknown if unknown == "-" => String::new(),
            elapsed => format!(" (for {elapsed})"),
        };
        let kind = wording::reason_kind(reason.kind);
        text.push_str(&format!("  {kind}: {subject}{}{since}\n", reason.message));
        if !reason.next_command.is_empty() {
            text.push_str(&format!("    help: {}\n", reason.next_command));
        }
    }
    if let Some(device) = &explanation.device {
        for entry in &device.workloads {
            text.push_str(&format!("workload {}\n", workload(entry)));
        }
    }
    if !explanation.events.is_empty() {
        text.push('\n');
        let rows = explanation.events.iter().map(|event| {
            let at = wording::moment(event.at.as_ref()).absolute();
            [at, wording::or_dash(&event.workload), event.kind.clone(), event.message.clone()]
        });
        text.push_str(&table(["TIME", "WORKLOAD", "EVENT", ""], rows));
    }
    match &explanation.connected_at {
        Some(since) => text.push_str(&format!(
            "\nconnected {} from {}, root record {}\n",
            wording::moment(Some(since)).elapsed(now),
            wording::or_dash(&explanation.address),
            explanation.trust_version
        )),
        None => text.push_str("\nnot connected\n"),
    }
    if let Some(certificate) = &explanation.certificate {
        let until = wording::moment(certificate.not_after.as_ref()).absolute();
        text.push_str(&format!("certificate until {until}, renewed by itself from its half-life on\n"));
    }
    for lane in explanation.lanes.iter().filter(|lane| !lane.parked.is_empty()) {
        text.push_str(&format!("lane {} of {} is {}\n", lane.lane, lane.document, lane.parked));
    }
    text
}

/// Draws what a watcher is told; nothing for the end of the snapshot.
#[must_use]
pub fn change(response: &WatchDevicesResponse, now: Moment) -> Option<String> {
    let device = response.device.as_ref()?;
    let workloads = device.workloads.iter().map(workload).collect::<Vec<_>>().join(", ");
    let what = match DeviceChange::try_from(response.change) {
        Ok(DeviceChange::Removed) => "removed".to_owned(),
        _ => format!("{}  {}", standing(device, now), wording::or_dash(&workloads)),
    };
    Some(format!("{} {:<20} {what}", now.absolute(), device.name))
}
