//! Plans and rollouts as people read them.

use fleetd_proto::fleetd::rollout::v1::{
    Plan, PlanCounts, PlannedDevice, Rollout, RolloutCounts, RolloutDevice, RolloutDeviceState, Strategy,
    UndecidedDevices, Verdict,
};

use fleetd_sync_core::counted::Counted;

use crate::command::device::view::percent;
use crate::command::wording;
use crate::output::{Moment, bytes, table};

/// Devices of one kind that a plan names before it counts the rest.
const DEVICES_NAMED: usize = 20;

/// Draws what a rollout would do.
#[must_use]
pub fn plan(plan: &Plan, devices: &[PlannedDevice], now: Moment) -> String {
    let counts = plan.counts.unwrap_or_default();
    let brought = wording::with_configuration(&plan.version, &plan.configuration);
    let mut text = format!("{} {brought}: {}\n", plan.workload, plan_counts(&counts));
    if !plan.rollback_of.is_empty() {
        text.push_str(&format!("back from {}\n", plan.rollback_of));
    }
    if plan.sites.iter().any(|site| !site.site.is_empty()) {
        text.push_str("by site\n");
        for site in &plan.sites {
            let name = if site.site.is_empty() { "(none)" } else { &site.site };
            let counts = plan_counts(&site.counts.unwrap_or_default());
            text.push_str(&format!("  {name:<16} {counts}, {}\n", bytes(site.traffic_bytes)));
        }
    }
    text.push_str(&waves(plan, devices));
    text.push_str(&windows(plan));
    let is = |verdict: Verdict| move |device: &&PlannedDevice| device.verdict == i32::from(verdict);
    section(
        &mut text,
        "blocked",
        devices.iter().filter(is(Verdict::Blocked)).map(|device| {
            let word = wording::blocked_reason(device.blocked_reason);
            let said = if device.reason.starts_with(&word) { String::new() } else { format!("{word}: ") };
            format!("{:<20} {said}{}", device.name, device.reason)
        }),
    );
    section(
        &mut text,
        "update",
        devices.iter().filter(is(Verdict::Update)).map(|device| {
            let from = wording::with_configuration(&device.from_version, &device.from_configuration);
            format!("{:<20} {from} -> {brought}{}{}", device.name, taken_over(device), offline(device, now))
        }),
    );
    section(
        &mut text,
        "install",
        devices
            .iter()
            .filter(is(Verdict::Install))
            .map(|device| format!("{:<20} {brought}{}{}", device.name, taken_over(device), offline(device, now))),
    );
    section(
        &mut text,
        "not meant, since the condition cannot be decided",
        plan.undecided.iter().map(|undecided| {
            let UndecidedDevices { reason, devices, example } = undecided;
            format!(
                "{:<20} {reason} ({example})",
                Counted(usize::try_from(*devices).unwrap_or(usize::MAX), "device").to_string()
            )
        }),
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
pub fn outlook(plan: &Plan, start: &str) -> String {
    let counts = plan.counts.unwrap_or_default();
    let brought = wording::with_configuration(&plan.version, &plan.configuration);
    if is_blocked(plan) {
        return format!(
            "It cannot be started: no device would get {brought}, and each that lacks it is blocked, as is said above.\n"
        );
    }
    if counts.update + counts.install == 0 {
        return format!(
            "Nothing would change: each device runs {brought} already. Started, it is done at once: fleetd rollout start \
             {start}\n"
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

/// Draws when devices may switch, by whose clock, and when those of each zone may begin.
pub(super) fn windows(plan: &Plan) -> String {
    let strategy = plan.strategy.clone().unwrap_or_default();
    if plan.openings.is_empty() {
        return String::new();
    }
    let zone = match strategy.window_zone.as_str() {
        "device" => "each device's own time".to_owned(),
        zone => format!("the time of {zone}"),
    };
    let mut text = format!("windows, in {zone}\n");
    if strategy.windows.is_empty() {
        text.push_str("  always\n");
    }
    strategy.windows.iter().for_each(|window| text.push_str(&format!("  {window}\n")));
    strategy.blackouts.iter().for_each(|days| text.push_str(&format!("  not on {days}\n")));
    for opening in &plan.openings {
        let zone = match opening.zone.as_str() {
            "" => "zone unknown, UTC",
            zone => zone,
        };
        let devices = devices_of(opening.devices);
        text.push_str(&format!("  {zone:<20} {devices:<12} from {}\n", opening.opens_local));
    }
    text
}

/// Devices of a wave that are named: who goes first.
const FIRST_NAMED: usize = 5;

/// Draws a plan's waves, and who goes first in each; one in which all devices begin at once is not worth a word.
fn waves(plan: &Plan, devices: &[PlannedDevice]) -> String {
    let strategy = plan.strategy.clone().unwrap_or_default();
    let is_in_turn = strategy.unavailable_max > 0 || strategy.unavailable_per_site_max > 0;
    if plan.waves.len() < 2 && strategy.canary_selector.is_empty() && strategy.waves.len() < 2 && !is_in_turn {
        return limits(&strategy);
    }
    let mut text = "waves\n".to_owned();
    for wave in &plan.waves {
        let counts = wave.counts.unwrap_or_default();
        let mut first: Vec<_> = devices.iter().filter(|device| device.wave == wave.number).collect();
        first.sort_by_key(|device| device.place);
        let mut named: Vec<_> = first.iter().take(FIRST_NAMED).map(|device| device.name.as_str()).collect();
        if first.len() > FIRST_NAMED {
            named.push("…");
        }
        let offline = if counts.offline > 0 { format!(" ({} offline)", counts.offline) } else { String::new() };
        let size = format!("{}{offline}", devices_of(counts.matched));
        let opens = match wave.opens_local.as_str() {
            "" => String::new(),
            opens => format!(" from {opens}"),
        };
        text.push_str(&format!(
            "  {:<3} {size:<24} {:<10} {}{opens}\n",
            wave.number,
            bytes(wave.traffic_bytes),
            named.join(", ")
        ));
    }
    text + &limits(&strategy)
}

fn devices_of(count: u32) -> String {
    format!("{count} device{}", if count == 1 { "" } else { "s" })
}

/// Says what stands between the waves, and when the rollout stops itself.
pub(super) fn limits(strategy: &Strategy) -> String {
    let mut parts = Vec::new();
    let span = |span: Option<prost_types::Duration>| {
        let span = std::time::Duration::try_from(span.unwrap_or_default()).unwrap_or_default();
        humantime::format_duration(span).to_string()
    };
    if strategy.bake.is_some_and(|bake| bake != prost_types::Duration::default()) {
        parts.push(format!("bake {}", span(strategy.bake)));
    }
    if strategy.approve_waves {
        parts.push("each wave but the first is approved".to_owned());
    }
    if strategy.deadline.is_some() {
        parts.push(format!("{} for each wave", span(strategy.deadline)));
    }
    let count = strategy.failed_max.map(|count| count.to_string());
    let percent = strategy.failed_percent_max.map(|percent| format!("{percent}% of those reached"));
    let may: Vec<_> = count.into_iter().chain(percent).collect();
    if !may.is_empty() {
        parts.push(format!("halts when more than {} fail", may.join(" or ")));
    }
    if strategy.unavailable_max > 0 {
        parts.push(format!("at most {} at once", strategy.unavailable_max));
    }
    if strategy.unavailable_per_site_max > 0 {
        parts.push(format!("at most {} of a site at once", strategy.unavailable_per_site_max));
    }
    if strategy.site_quorum_percent > 0 {
        let share = strategy.site_quorum_percent;
        parts.push(format!("each site switches together, once {share}% of it are ready, or not at all"));
    }
    if strategy.priority != Some(PRIORITY_DEFAULT) {
        parts.extend(strategy.priority.map(|priority| format!("priority {priority}")));
    }
    if parts.is_empty() { String::new() } else { format!("{}\n", parts.join(", ")) }
}

/// How urgent a rollout is that nobody said anything about.
const PRIORITY_DEFAULT: u32 = 5;

/// Says how urgent a rollout is, where somebody said it.
fn urgency(rollout: &Rollout) -> String {
    let priority = rollout.strategy.as_ref().and_then(|strategy| strategy.priority);
    let said = priority.filter(|priority| *priority != PRIORITY_DEFAULT);
    said.map(|priority| format!(", priority {priority}")).unwrap_or_default()
}

/// Says from which rollout a plan takes a device over.
pub(super) fn taken_over(device: &PlannedDevice) -> String {
    if device.supersedes.is_empty() { String::new() } else { format!("  taken over from {}", device.supersedes) }
}

/// Says why a rollout stands where it stands.
#[must_use]
pub fn explanation(rollout: &Rollout) -> String {
    rollout.explanation.iter().map(|line| format!("{line}\n")).collect()
}

pub(super) fn offline(device: &PlannedDevice, now: Moment) -> String {
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
            format!("{} {}", rollout.workload, wording::with_configuration(&rollout.version, &rollout.configuration)),
            state_words(rollout),
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
        wording::with_configuration(&rollout.version, &rollout.configuration),
        state_words(rollout),
        counts(&rollout.counts.unwrap_or_default()),
    )
}

/// Says where a rollout stands, and in which wave while that may still change.
fn state_words(rollout: &Rollout) -> String {
    let state = wording::rollout_state(rollout.state);
    let in_waves = rollout.ended_at.is_none() && rollout.waves.len() > 1;
    let waves = if in_waves { format!(", {}", wave_words(rollout)) } else { String::new() };
    let urgency = if rollout.ended_at.is_none() { urgency(rollout) } else { String::new() };
    state + &waves + &urgency
}

/// Says in which wave a rollout is, and what that waits for.
fn wave_words(rollout: &Rollout) -> String {
    let state = rollout.waves.iter().find(|wave| wave.number == rollout.wave).map_or(0, |wave| wave.state);
    format!("wave {} of {} {}", rollout.wave, rollout.waves.len(), wording::rollout_wave_state(state))
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
        (counts.installing.saturating_sub(counts.in_queue), "installing"),
        (counts.in_queue, "in the queue of their device"),
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
    if !rollout.rollback_of.is_empty() {
        text.push_str(&format!("back from {}\n", rollout.rollback_of));
    }
    text.push_str(&format!(
        "plan {}, attempt {}, started {}, ended {}\n",
        rollout.plan_id,
        rollout.attempt,
        started.absolute(),
        ended.absolute()
    ));
    text.push_str(&explanation(rollout));
    if rollout.waves.len() > 1 {
        let rows = rollout.waves.iter().map(|wave| {
            [
                wave.number.to_string(),
                wording::rollout_wave_state(wave.state),
                counts(&wave.counts.unwrap_or_default()),
                wording::moment(wave.since.as_ref()).relative(now),
            ]
        });
        text.push_str(&format!("\n{}", table(["WAVE", "STATE", "DEVICES", "SINCE"], rows)));
    }
    text.push('\n');
    let in_waves = rollout.waves.len() > 1;
    let rows = devices.iter().map(|device| {
        let mut row = vec![
            device.name.clone(),
            wording::rollout_device_state(device.state),
            phase(device),
            wording::moment(device.changed_at.as_ref()).relative(now),
            wording::or_dash(&why(device, now)),
        ];
        if in_waves {
            let wave = if device.wave == 0 { "-".to_owned() } else { device.wave.to_string() };
            row.insert(1, wave);
        }
        row
    });
    let rows: Vec<Vec<String>> = rows.collect();
    text.push_str(&devices_table(in_waves, rows));
    text
}

fn devices_table(in_waves: bool, rows: Vec<Vec<String>>) -> String {
    if in_waves {
        let rows = rows.into_iter().filter_map(|row| <[String; 6]>::try_from(row).ok());
        table(["DEVICE", "WAVE", "STATE", "PHASE", "SINCE", "WHY"], rows)
    } else {
        let rows = rows.into_iter().filter_map(|row| <[String; 5]>::try_from(row).ok());
        table(["DEVICE", "STATE", "PHASE", "SINCE", "WHY"], rows)
    }
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
