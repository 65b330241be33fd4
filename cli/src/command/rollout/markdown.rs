//! A plan in Markdown, for the page on which a CI job sums up what it did.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use fleetd_proto::fleetd::rollout::v1::{Plan, PlanCounts, PlannedDevice, Verdict};

use super::view;
use crate::command::wording;
use crate::error::CommandError;
use crate::output::{Moment, bytes, markdown, markdown_table};

/// Devices of one kind that are named before the rest is counted.
const DEVICES_NAMED: usize = 50;
/// Devices of a wave that are named: who goes first.
const FIRST_NAMED: usize = 3;

/// Draws what a rollout would do.
#[must_use]
pub(super) fn plan(plan: &Plan, devices: &[PlannedDevice], now: Moment) -> String {
    let counts = plan.counts.unwrap_or_default();
    let brought = wording::with_configuration(&plan.version, &plan.configuration);
    let mut text = format!("### {} {}\n\n", markdown(&plan.workload), markdown(&brought));
    if !plan.rollback_of.is_empty() {
        text.push_str(&format!("Back from {}.\n\n", plan.rollback_of));
    }
    text.push_str(&markdown_table(
        ["", "matched", "update", "install", "unchanged", "blocked", "offline", "traffic"],
        [("all devices", counts, plan.traffic_bytes)]
            .into_iter()
            .chain(
                plan.sites
                    .iter()
                    .filter(|site| !site.site.is_empty())
                    .map(|site| (site.site.as_str(), site.counts.unwrap_or_default(), site.traffic_bytes)),
            )
            .map(|(name, counts, traffic)| counts_row(name, &counts, traffic)),
    ));
    if plan.waves.len() > 1 {
        text.push('\n');
        text.push_str(&markdown_table(
            ["wave", "devices", "offline", "traffic", "first"],
            plan.waves.iter().map(|wave| {
                let counts = wave.counts.unwrap_or_default();
                let mut first: Vec<_> = devices.iter().filter(|device| device.wave == wave.number).collect();
                first.sort_by_key(|device| device.place);
                let first: Vec<_> = first.iter().take(FIRST_NAMED).map(|device| device.name.as_str()).collect();
                [
                    wave.number.to_string(),
                    counts.matched.to_string(),
                    counts.offline.to_string(),
                    bytes(wave.traffic_bytes).to_string(),
                    first.join(", "),
                ]
            }),
        ));
    }
    let limits = view::limits(&plan.strategy.clone().unwrap_or_default());
    if !limits.is_empty() {
        text.push_str(&format!("\n{}", markdown(limits.trim_end())));
        text.push('\n');
    }
    let windows = view::windows(plan);
    if !windows.is_empty() {
        let lines = windows.lines().map(|line| format!("{}\n", markdown(line.trim())));
        text.push_str(&format!("\n{}", lines.collect::<Vec<_>>().join("\n")));
    }
    text.push_str(&section(plan, devices, Verdict::Blocked, "Blocked", &|device| {
        format!("{}: {}", wording::blocked_reason(device.blocked_reason), device.reason)
    }));
    text.push_str(&section(plan, devices, Verdict::Update, "Update", &|device| {
        let from = wording::with_configuration(&device.from_version, &device.from_configuration);
        format!("from {from}{}{}", view::taken_over(device), view::offline(device, now))
    }));
    text.push_str(&section(plan, devices, Verdict::Install, "Install", &|device| {
        format!("{}{}", view::taken_over(device), view::offline(device, now)).trim_start().to_owned()
    }));
    if !plan.undecided.is_empty() {
        text.push_str("\nNot meant, since the condition cannot be decided:\n\n");
        text.push_str(&markdown_table(
            ["devices", "one of them", ""],
            plan.undecided
                .iter()
                .map(|undecided| [undecided.devices.to_string(), undecided.example.clone(), undecided.reason.clone()]),
        ));
    }
    text.push_str(&format!("\nPlan `{}`, attempt {}.\n", plan.id, plan.attempt));
    text
}

/// Adds a plan to the end of a file: a CI job's page may have more on it.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn append(path: &Path, text: &str) -> Result<(), CommandError> {
    let mut file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.as_mut().map_err(|error| std::io::Error::new(error.kind(), error.to_string()));
    written.and_then(|file| file.write_all(text.as_bytes())).map_err(|error| {
        CommandError::new("rollout.plan_unwritten", format!("{} cannot be written", path.display())).caused_by(&error)
    })
}

fn counts_row(name: &str, counts: &PlanCounts, traffic_bytes: u64) -> [String; 8] {
    let PlanCounts { matched, update, install, unchanged, blocked, offline, .. } = *counts;
    let [matched, update, install] = [matched, update, install].map(|count| count.to_string());
    let [unchanged, blocked, offline] = [unchanged, blocked, offline].map(|count| count.to_string());
    [name.to_owned(), matched, update, install, unchanged, blocked, offline, bytes(traffic_bytes).to_string()]
}

/// The devices of one kind, folded away.
fn section(
    plan: &Plan,
    devices: &[PlannedDevice],
    verdict: Verdict,
    title: &str,
    word: &dyn Fn(&PlannedDevice) -> String,
) -> String {
    let of_kind: Vec<_> = devices.iter().filter(|device| device.verdict == i32::from(verdict)).collect();
    if of_kind.is_empty() {
        return String::new();
    }
    let named = of_kind.iter().take(DEVICES_NAMED);
    let rows = named.map(|device| [device.name.clone(), device.site.clone(), word(device)]);
    let table = markdown_table(["device", "site", ""], rows);
    let more = match of_kind.len().saturating_sub(DEVICES_NAMED) {
        0 => String::new(),
        more => format!("\nand {more} more: `fleetd rollout plan … --json`, or plan `{}`\n", plan.id),
    };
    format!("\n<details><summary>{title}: {}</summary>\n\n{table}{more}\n</details>\n", of_kind.len())
}

#[cfg(test)]
mod tests {
    use fleetd_proto::fleetd::rollout::v1::{PlanWave, Strategy, UndecidedDevices};

    use super::*;

    fn device(name: &str, verdict: Verdict, wave: u32) -> PlannedDevice {
        PlannedDevice { name: name.to_owned(), verdict: verdict.into(), wave, place: 1, ..Default::default() }
    }

    #[test]
    fn a_plan_is_tables_and_nothing_in_a_name_breaks_them() {
        let counts = PlanCounts { matched: 3, update: 2, blocked: 1, ..Default::default() };
        let waves = [1, 2].map(|number| PlanWave {
            number,
            counts: Some(PlanCounts { matched: 1, ..Default::default() }),
            ..Default::default()
        });
        let planned = Plan {
            id: "pln_x".to_owned(),
            workload: "coffee".to_owned(),
            version: "1.8.0".to_owned(),
            counts: Some(counts),
            waves: waves.to_vec(),
            strategy: Some(Strategy { blackouts: vec!["2026-12-24".to_owned()], ..Default::default() }),
            openings: vec![Default::default()],
            undecided: vec![UndecidedDevices {
                devices: 2,
                example: "otter-9".to_owned(),
                reason: "it has no facts.model".to_owned(),
            }],
            ..Default::default()
        };
        let mut blocked = device("c", Verdict::Blocked, 0);
        blocked.reason = "a | <b>hold</b>".to_owned();
        let mut taken = device("a", Verdict::Update, 1);
        taken.supersedes = "rol_y".to_owned();
        let devices = [taken, device("b", Verdict::Update, 2), blocked];
        let text = plan(&planned, &devices, Moment::now());
        assert!(text.starts_with("### coffee 1.8.0\n\n"), "{text}");
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).map(str::to_owned);
        let cells =
            |line: Option<String>| line.unwrap().split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(cells(line("| all devices"))[2..7], ["3", "2", "0", "0", "1"]);
        assert_eq!(cells(line("| 2"))[5], "b");
        for told in ["not on 2026-12-24", "taken over from rol\\_y", "| 2       | otter-9"] {
            assert!(text.contains(told), "{told} is missing in\n{text}");
        }
        assert!(text.contains("a \\| \\<b\\>hold\\</b\\>"), "{text}");
        assert!(text.contains("<summary>Update: 2</summary>") && text.contains("Plan `pln_x`"), "{text}");
    }
}
