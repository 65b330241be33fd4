//! What a rehearsal came to, as a person reads it.

use std::time::Duration;

use fleetd_simulator::rehearsal::gates::{Extent, WaveFigures};
use fleetd_simulator::rehearsal::summary::{Late, RehearsalReport, Spread};
use fleetd_simulator::run::Outcome;
use fleetd_sync_core::counted::Counted;

use crate::command::sim::build::this_build;
use crate::output::{Moment, bytes};

/// Blocked devices of one kind that are named.
const BLOCKED_NAMED: usize = 10;
/// Devices that are named as late.
const LATE_NAMED: usize = 5;

/// A span of virtual time, in its two largest units.
pub(super) fn moment(milliseconds: u64) -> String {
    let rounded = if milliseconds < 10_000 { milliseconds / 10 * 10 } else { milliseconds / 1000 * 1000 };
    let text = humantime::format_duration(Duration::from_millis(rounded)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// One seed in a line.
pub(super) fn line(run: &Outcome) -> String {
    if let Some(failure) = &run.violation {
        return format!("seed {}: FAILED: {failure}", run.seed);
    }
    let Some(rehearsed) = run.rehearsed.as_ref().filter(|_| !run.is_partial) else {
        return format!("seed {}: stopped", run.seed);
    };
    let healthy = rehearsed.devices.iter().filter(|course| course.end.is_healthy()).count();
    let ended = rehearsed.ended_ms.map_or_else(|| "not ended".to_owned(), |ended| format!("after {}", moment(ended)));
    format!("seed {}: {} {ended}, {} updated", run.seed, rehearsed.phase, Counted(healthy, "device"))
}

/// The whole answer.
pub(super) fn text(report: &RehearsalReport) -> String {
    let mut lines = Vec::new();
    for failure in &report.failures {
        let device = failure.device.as_ref().map_or_else(String::new, |device| format!(", which is {device}"));
        lines.push(format!("{}\n  {}{device}", failure.replay, failure.failure));
    }
    lines.push(headline(report));
    lines.push(starts(report));
    if report.seeds > 0 {
        lines.extend(updates(report));
        lines.push(ending(report));
        lines.extend(gates(report));
        lines.extend(stopped(report));
        lines.extend(following(report));
        lines.extend(bad(report));
        lines.extend(traffic(report));
        lines.extend(late(&report.late, report));
    }
    lines.extend(blocked(report));
    lines.extend(report.advice.iter().map(|advice| format!("\n{advice}")));
    lines.join("\n") + "\n"
}

fn headline(report: &RehearsalReport) -> String {
    let (workload, version, devices) = (&report.workload, &report.version, Counted(report.devices, "device"));
    let seeds = if report.seeds == report.seeds_asked {
        Counted(report.seeds, "seed").to_string()
    } else {
        format!("{} of {}", report.seeds, Counted(report.seeds_asked, "seed"))
    };
    let partial = if report.is_partial { "; it was stopped before its end" } else { "" };
    format!("{workload} {version} on a copy of {devices}, {seeds}, build {}{partial}", this_build())
}

fn entry(name: &str, text: &str) -> String {
    format!("{name:<11} {text}")
}

/// When it starts: windows and nights are those after that.
fn starts(report: &RehearsalReport) -> String {
    let assumed = &report.assumed;
    let nanos = i32::try_from(assumed.starts_at_ms.rem_euclid(1000) * 1_000_000).unwrap_or(0);
    let at = Moment::from_parts(Some((assumed.starts_at_ms.div_euclid(1000), nanos))).absolute();
    let approved = match assumed.approve_after_ms {
        None => String::new(),
        Some(0) => "; each wave is approved at once".to_owned(),
        Some(after) => format!("; each wave is approved after {}", moment(after)),
    };
    entry("starts", &format!("{at}{approved}"))
}

/// How likely each gate is to halt, and how far a release comes before it does.
fn gates(report: &RehearsalReport) -> Vec<String> {
    let (seeds, halted) = (Counted(report.seeds, "seed"), report.halts.seeds);
    let reach = report.halts.reach.map_or_else(String::new, |reach| {
        let crashed = if report.bad.is_some() {
            format!(", and had crashed on {}", extent(reach.crashed))
        } else {
            String::new()
        };
        format!("; the release ran on {} by then{crashed}", devices(reach.ran))
    });
    let mut lines = vec![entry("gates", &format!("halted in {halted} of {seeds}{reach}"))];
    if report.waves.len() > 1 {
        lines.extend(report.waves.iter().map(wave));
    }
    lines
}

/// What an operator's stop comes to.
fn stopped(report: &RehearsalReport) -> Option<String> {
    let after = moment(report.assumed.stop_after_ms?);
    let Some(stopped) = &report.stopped else {
        return Some(entry("stop", &format!("after {after} there was nothing to stop any more")));
    };
    let (before, more, quiet) = (devices(stopped.ran_before), extent(stopped.ran_after), stopped.quiet_after_ms);
    let quiet = if quiet.worst == 0 { String::new() } else { format!(", the last after {}", moment(quiet.worst)) };
    let of = if stopped.seeds == report.seeds { String::new() } else { format!(", in {} of the seeds", stopped.seeds) };
    Some(entry("stop", &format!("after {after}{of}: the release ran on {before} by then, and on {more} more{quiet}")))
}

fn wave(wave: &WaveFigures) -> String {
    let mut text = format!("{}: halts in {} of {}", Counted(wave.devices, "device"), wave.halted, wave.began);
    if let Some(reach) = wave.reach {
        text.push_str(&format!(", after {}", devices(reach.ran)));
    }
    if let Some(extent) = wave.takes_ms {
        let [median, worst] = [extent.median, extent.worst].map(moment);
        let worst = if worst == median { String::new() } else { format!(" (at worst {worst})") };
        text.push_str(&format!("; takes {median}{worst}"));
    }
    match wave.began - wave.passed - wave.halted {
        0 => {}
        open => text.push_str(&format!("; not over in {open}")),
    }
    entry(&format!("  wave {}", wave.wave), &text)
}

fn devices(Extent { median, worst }: Extent) -> String {
    let counted = Counted(usize::try_from(median).unwrap_or(usize::MAX), "device");
    if worst == median { counted.to_string() } else { format!("{counted} (at worst {worst})") }
}

fn extent(Extent { median, worst }: Extent) -> String {
    if worst == median { median.to_string() } else { format!("{median} (at worst {worst})") }
}

fn updates(report: &RehearsalReport) -> Vec<String> {
    let (assigned, update) = (report.assigned(), &report.update);
    let unchanged = match report.counts.unchanged {
        0 => String::new(),
        unchanged => format!("; {} it already", has(unchanged)),
    };
    if assigned == 0 {
        return vec![entry("update", &format!("nobody is to get it{unchanged}"))];
    }
    let within = |share: &str, time: u64| format!("{share} within {}", moment(time));
    let half = update.median_ms.map(|time| within("half of them", time));
    // Where not so many have it, as many as have it.
    let at_the_end = || format!("{}% after {}", update.percent, moment(report.assumed.for_ms));
    let most = update.p95_ms.map_or_else(at_the_end, |time| within("95%", time));
    let when = half.into_iter().chain([most]).collect::<Vec<_>>().join(", ");
    let healthy = spread(update.healthy, &|count| count.to_string());
    vec![
        entry("update", &format!("{healthy} of {} get it{unchanged}", Counted(assigned, "device"))),
        entry("when", &format!("{when}, of virtual time")),
    ]
}

fn has(count: usize) -> String {
    if count == 1 { "1 device has".to_owned() } else { format!("{count} devices have") }
}

fn ending(report: &RehearsalReport) -> String {
    let ended = report.ended_ms.map_or_else(String::new, |ended| format!(", after {}", spread(ended, &moment)));
    let words: Vec<String> = report
        .ends
        .iter()
        .map(|end| {
            let reason = if end.reason.is_empty() { String::new() } else { format!(" ({})", end.reason) };
            format!("{} in {} of {}{reason}", end.phase, end.seeds, Counted(report.seeds, "seed"))
        })
        .collect();
    entry("rollout", &format!("{}{ended}", words.join(", ")))
}

fn following(report: &RehearsalReport) -> Option<String> {
    let (following, silent, stopped) = (report.update.following, report.update.silent, report.update.stopped);
    let mut parts = Vec::new();
    if following.high > 0 {
        let within = moment(report.assumed.for_ms);
        let count = spread(following, &|count| count.to_string());
        parts.push(format!(
            "{count} still without it after at most {within}; whoever was away followed once it was back"
        ));
    }
    if silent.high > 0 {
        let count = spread(silent, &|count| count.to_string());
        parts.push(format!("{count} went away while at work: the rollout waits for each, and counts it as failed"));
    }
    if stopped.high > 0 {
        let count = spread(stopped, &|count| count.to_string());
        parts.push(format!("{count} held or stopped: they go on when an operator lets them"));
    }
    (!parts.is_empty()).then(|| entry("later", &parts.join(&format!("\n{}", entry("", "")))))
}

fn bad(report: &RehearsalReport) -> Option<String> {
    let bad = report.bad.as_ref()?;
    let count = |spread_of: Spread| spread(spread_of, &|count| count.to_string());
    if bad.ran.high == 0 {
        return Some(entry("bad release", &format!("with {} it ran badly on no device", report.assumed.fail)));
    }
    let mut text = format!("{} ran it, {} of them at once", count(bad.ran), count(bad.at_once));
    if let Some(exposed) = bad.exposed_ms {
        text.push_str(&format!("; the release before it was back within {}", spread(exposed, &moment)));
    }
    if bad.broken.high > 0 {
        text.push_str(&format!("; {} had none before it", count(bad.broken)));
    }
    Some(entry("bad release", &text))
}

fn traffic(report: &RehearsalReport) -> Vec<String> {
    let traffic = &report.traffic;
    let link = report
        .assumed
        .bandwidth
        .map_or_else(|| "links without a limit".to_owned(), |bandwidth| format!("{}/s a link", bytes(bandwidth)));
    vec![entry(
        "traffic",
        &format!(
            "{} in all, {} in the busiest minute ({link})",
            spread(traffic.total_bytes, &bytes),
            spread(traffic.busiest_minute_bytes, &bytes)
        ),
    )]
}

fn late(late: &[Late], report: &RehearsalReport) -> Option<String> {
    let is_late = |device: &&Late| device.seeds < device.of || device.median_ms > report.update.p95_ms;
    let told = late.iter().filter(is_late).take(LATE_NAMED).map(|device| {
        let when = match (device.seeds, device.median_ms) {
            (0, _) | (_, None) => "in no seed".to_owned(),
            (seeds, Some(median)) => format!("after {} in {seeds} of {} seeds", moment(median), device.of),
        };
        let away = device.away_ms.map_or_else(String::new, |away| format!(", away for {} now", moment(away)));
        let site = if device.site.is_empty() { String::new() } else { format!(" ({})", device.site) };
        format!("  {:<20} has it {when}{away}{site}", device.name)
    });
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| format!("{}\n{}", entry("latest", "these devices come last"), told.join("\n")))
}

fn blocked(report: &RehearsalReport) -> Option<String> {
    let blocked = &report.blocked;
    if blocked.is_empty() {
        return None;
    }
    let named = blocked.iter().take(BLOCKED_NAMED);
    let mut lines: Vec<String> = named
        .map(|device| {
            let word = format!("{}: ", device.by);
            format!("  {:<20} {word}{}", device.name, device.reason.strip_prefix(&word).unwrap_or(&device.reason))
        })
        .collect();
    if blocked.len() > BLOCKED_NAMED {
        lines.push(format!("  and {} more (--json names all)", blocked.len() - BLOCKED_NAMED));
    }
    Some(format!("{}\n{}", entry("blocked", &format!("{} left out", is(blocked.len()))), lines.join("\n")))
}

fn is(count: usize) -> String {
    if count == 1 { "1 device is".to_owned() } else { format!("{count} devices are") }
}

/// A number in many seeds, once where all of them say the same.
fn spread(spread: Spread, told: &dyn Fn(u64) -> String) -> String {
    let [low, median, high] = [spread.low, spread.median, spread.high].map(told);
    if low == high { median } else { format!("{median} ({low} to {high})") }
}

#[cfg(test)]
mod tests {
    use fleetd_simulator::rehearsal::gates::Reach;

    use super::*;

    #[test]
    fn a_number_that_is_the_same_everywhere_is_said_once() {
        let told = |count: u64| count.to_string();
        assert_eq!(spread(Spread { low: 3, median: 3, high: 3 }, &told), "3");
        assert_eq!(spread(Spread { low: 3, median: 5, high: 9 }, &told), "5 (3 to 9)");
    }

    #[test]
    fn a_wave_says_how_often_it_halts_and_how_long_it_takes() {
        let figures = WaveFigures {
            wave: 2,
            devices: 12,
            began: 17,
            passed: 13,
            halted: 3,
            takes_ms: Some(Extent { median: 4000, worst: 612_000 }),
            passed_at_ms: None,
            reach: Some(Reach { ran: Extent { median: 14, worst: 15 }, crashed: Extent::default() }),
        };
        let told = "  wave 2    12 devices: halts in 3 of 17, after 14 devices (at worst 15); takes 4s (at worst 10m 12s); \
                    not over in 1";
        assert_eq!(wave(&figures), told);
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!([0, 1234, 61_234, 3_661_000].map(moment), ["0s", "1s 230ms", "1m 1s", "1h 1m"]);
    }
}
