//! Plans and rollouts as people read them.

use fleetd_proto::fleetd::rollout::v1::{
    Plan, PlanCounts, PlannedDevice, Rollout, RolloutCounts, RolloutDevice, RolloutDeviceState, Verdict,
};

use crate::command::device::view::percent;
use crate::command::wording;
use crate::output::{Moment, bytes, table};

/// Devices of one kind that a plan names before it counts the rest.
const DEVICES_NAMED: usize = 20;

/// Draws what a rollout would do.
#[must_use]
pub fn plan(plan: &Plan, devices: &[PlannedDevice], now: Moment) -> String {
    let counts = plan.counts.unwrap_or_default();
    let mut text = format!("{} {}: {}\n", plan.workload, plan.version, plan_counts(&counts));
    if plan.sites.iter().any(|site| !site.site.is_empty()) {
        text.push_str("by site\n");
        for site in &plan.sites {
            let name = if site.site.is_empty() { "(none)" } else { &site.site };
            let counts = plan_counts(&site.counts.unwrap_or_default());
            text.push_str(&format!("  {name:<16} {counts}, {}\n", bytes(site.traffic_bytes)));
        }
    }
    let is = |verdict: Verdict| move |device: &&PlannedDevice| device.verdict == i32::from(verdict);
    section(
        &mut text,
        "blocked",
        devices.iter().filter(is(Verdict::Blocked)).map(|device| {
            let word = format!("{}: ", wording::blocked_reason(device.blocked_reason));
            format!("{:<20} {word}{}", device.name, device.reason.strip_prefix(&word).unwrap_or(&device.reason))
        }),
    );
    section(
        &mut text,
        "update",
        devices.iter().filter(is(Verdict::Update)).map(|device| {
            format!("{:<20} {} -> {}{}", device.name, device.from_version, plan.version, offline(device, now))
        }),
    );
    section(
        &mut text,
        "install",
        devices
            .iter()
            .filter(is(Verdict::Install))
            .map(|device| format!("{:<20} {}{}", device.name, plan.version, offline(device, now))),
    );
    text.push_str(&format!("traffic {} in all\n", bytes(plan.traffic_bytes)));
    text.push_str(&format!("Plan {} (attempt {}) is saved.\n", plan.id, plan.attempt));
    text
}

/// Says whether a plan cannot be started: no device would get the release, and some that lack it are blocked.
#[must_use]
pub fn is_blocked(plan: &Plan) -> bool {
    let counts = plan.counts.unwrap_or_default();
    counts.update + counts.install == 0 && counts.blocked > 0
}

/// Says what a start of a plan would come to, and how to start it, if it can be started.
#[must_use]
pub fn outlook(plan: &Plan, devices: &[PlannedDevice], start: &str) -> String {
    let counts = plan.counts.unwrap_or_default();
    if is_blocked(plan) {
        let blocked = devices.iter().find(|device| device.verdict == i32::from(Verdict::Blocked));
        let name = blocked.map_or("DEVICE", |device| &device.name);
        return format!(
            "It cannot be started: no device would get {}, and each that lacks it is blocked.\nSee why: fleetd device \
             why {name}\n",
            plan.version
        );
    }
    if counts.update + counts.install == 0 {
        return format!(
            "Nothing would change: each device runs {} already. Started, it is done at once: fleetd rollout start \
             {start}\n",
            plan.version
        );
    }
    format!("Start it: fleetd rollout start {start}\n")
}

fn plan_counts(counts: &PlanCounts) -> String {
    let offline = match counts.offline {
        0 => "0 offline".to_owned(),
        1 => "1 offline, follows later".to_owned(),
        offline => format!("{offline} offline, follow later"),
    };
    format!(
        "{} matched   ~ {} update   + {} install   = {} unchanged   ! {} blocked   ({offline})",
        counts.matched, counts.update, counts.install, counts.unchanged, counts.blocked
    )
}

fn offline(device: &PlannedDevice, now: Moment) -> String {
    match wording::moment(device.offline_since.as_ref()).elapsed(now) {
        online if online == "-" => String::new(),
        elapsed => format!("  offline for {elapsed}, follows later"),
    }
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        return;
    }
    text.push_str(&format!("{title}\n"));
    for line in lines.iter().take(DEVICES_NAMED) {
        text.push_str(&format!("  {line}\n"));
    }
    if lines.len() > DEVICES_NAMED {
        text.push_str(&format!("  and {} more (--json names all)\n", lines.len() - DEVICES_NAMED));
    }
}

/// Draws a list of rollouts.
#[must_use]
pub fn rollouts(rollouts: &[Rollout], now: Moment) -> String {
    let rows = rollouts.iter().map(|rollout| {
        [
            rollout.id.clone(),
            format!("{} {}", rollout.workload, rollout.version),
            wording::rollout_state(rollout.state),
            counts(&rollout.counts.unwrap_or_default()),
            wording::moment(rollout.created_at.as_ref()).relative(now),
            wording::or_dash(&rollout.reason),
        ]
    });
    table(["ID", "RELEASE", "STATE", "DEVICES", "STARTED", "REASON"], rows)
}

/// Draws a rollout in one line.
#[must_use]
pub fn summary(rollout: &Rollout) -> String {
    let reason = if rollout.reason.is_empty() { String::new() } else { format!(" ({})", rollout.reason) };
    format!(
        "{} {} {} {}{reason}: {}\n",
        rollout.id,
        rollout.workload,
        rollout.version,
        wording::rollout_state(rollout.state),
        counts(&rollout.counts.unwrap_or_default()),
    )
}

/// How many devices a rollout has.
#[must_use]
pub fn device_count(counts: &RolloutCounts) -> u64 {
    [counts.waiting, counts.installing, counts.healthy, counts.restored, counts.failed, counts.skipped]
        .into_iter()
        .map(u64::from)
        .sum()
}

fn counts(counts: &RolloutCounts) -> String {
    let mut text = format!("{}/{} healthy", counts.healthy, device_count(counts));
    let parts = [
        (counts.installing, "installing"),
        (counts.waiting.saturating_sub(counts.offline), "waiting"),
        (counts.offline, "offline"),
        (counts.restored, "restored"),
        (counts.failed, "failed"),
        (counts.skipped, "skipped"),
    ];
    for (count, word) in parts {
        if count > 0 {
            text.push_str(&format!(", {count} {word}"));
        }
    }
    text
}

/// Draws a rollout and its devices.
#[must_use]
pub fn rollout(rollout: &Rollout, devices: &[RolloutDevice], now: Moment) -> String {
    let mut text = summary(rollout);
    let started = wording::moment(rollout.created_at.as_ref());
    let ended = wording::moment(rollout.ended_at.as_ref());
    text.push_str(&format!(
        "plan {}, attempt {}, started {}, ended {}\n\n",
        rollout.plan_id,
        rollout.attempt,
        started.absolute(),
        ended.absolute()
    ));
    let rows = devices.iter().map(|device| {
        [
            device.name.clone(),
            wording::rollout_device_state(device.state),
            phase(device),
            wording::moment(device.changed_at.as_ref()).relative(now),
            wording::or_dash(&why(device, now)),
        ]
    });
    text.push_str(&table(["DEVICE", "STATE", "PHASE", "SINCE", "WHY"], rows));
    text
}

/// Draws one device of a rollout in one line.
#[must_use]
pub fn device(device: &RolloutDevice, now: Moment) -> String {
    let state = wording::rollout_device_state(device.state);
    let why = why(device, now);
    let why = if why.is_empty() { why } else { format!("  {why}") };
    let phase = match phase(device) {
        phase if phase == state || phase == "-" => String::new(),
        phase => format!(" ({phase})"),
    };
    format!("{:<20} {state}{phase}{why}", device.name)
}

/// Says in one line what went wrong on a device.
#[must_use]
pub fn failed(device: &RolloutDevice) -> String {
    let state = wording::rollout_device_state(device.state);
    if device.reason.is_empty() {
        format!("{} {state}", device.name)
    } else {
        format!("{} {state}: {}", device.name, device.reason)
    }
}

fn phase(device: &RolloutDevice) -> String {
    let phase = wording::phase(device.phase);
    let is_fetching = device.state == i32::from(RolloutDeviceState::Installing)
        && device.size_bytes > 0
        && device.fetched_bytes < device.size_bytes;
    if is_fetching { format!("{phase} {}", percent(device.fetched_bytes, device.size_bytes)) } else { phase }
}

fn why(device: &RolloutDevice, now: Moment) -> String {
    match (wording::moment(device.offline_since.as_ref()).elapsed(now), device.reason.as_str()) {
        (online, reason) if online == "-" => reason.to_owned(),
        (elapsed, "") => format!("offline for {elapsed}"),
        (elapsed, reason) => format!("offline for {elapsed}; {reason}"),
    }
}
