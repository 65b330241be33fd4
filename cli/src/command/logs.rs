//! `logs`: what workloads write.

use std::collections::BTreeSet;

use clap::Args;
use fleetd_proto::fleetd::common::v1::Targets;
use fleetd_proto::fleetd::device::v1::{Device, GetDeviceRequest};
use fleetd_proto::fleetd::log::v1::read_logs_response::Entry;
use fleetd_proto::fleetd::log::v1::{LogGap, LogLine, ReadLogsRequest, ReadLogsResponse};

use super::value::{self, Place};
use super::{Session, login, wording};
use crate::client::FleetClient;
use crate::client::json::json as message_json;
use crate::client::watch::Told;
use crate::error::CommandError;
use crate::output::Moment;

/// Previewed lines that are remembered, so that each is shown once.
const PREVIEWS_MAX: usize = 4096;

/// Read what workloads write
///
/// Lines come in the order in which each workload wrote them. Where lines are missing, a gap says how many and why. A
/// workload that the device does not have is an error; with --follow it is waited for.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd logs brisk-otter
  fleetd logs brisk-otter/coffee --since 1h -f
  fleetd logs -l shop=7 --tail 20 --json | jq -r .line.line
  fleetd logs --where 'facts.model == \"till-2\"' --workload coffee")]
pub struct Logs {
    /// The device, by name or id, and one of its workloads
    #[arg(value_name = "DEVICE[/WORKLOAD]", required_unless_present_any = ["selector", "condition", "group"])]
    pub place: Option<Place>,
    /// Devices by their labels, in place of one device
    #[arg(long, short = 'l', conflicts_with = "place", value_parser = value::selector)]
    pub selector: Option<String>,
    /// Devices by what they say of themselves, in CEL; with a selector, both must hold
    #[arg(long = "where", value_name = "CONDITION", conflicts_with = "place", value_parser = value::condition)]
    pub condition: Option<String>,
    /// Also the devices of a group (repeat for more)
    #[arg(long, short = 'g', value_name = "GROUP", conflicts_with = "place")]
    pub group: Vec<String>,
    /// Only this workload's, where several devices are meant
    #[arg(long, conflicts_with = "place")]
    pub workload: Option<String>,
    /// Go on with lines that come
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Only lines from then on, by the device's clock: how long ago (`1h`) or when (`2026-03-01T12:00:00Z`)
    #[arg(long, value_name = "TIME", value_parser = value::past)]
    pub since: Option<Moment>,
    /// Of the past only so many lines
    #[arg(long, value_name = "COUNT", default_value_t = 0, hide_default_value = true)]
    pub tail: u32,
}

impl Logs {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses, and on Ctrl-C.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        if let Some(place) = self.place.as_ref().filter(|place| self.follow && !place.workload.is_empty()) {
            note_absent(session, &client, place).await?;
        }
        let mut watch = client.follow(self.request());
        let mut previews = Previews::default();
        loop {
            match watch.next().await? {
                Told::Entry(entry) if session.output.is_json() => {
                    session.output.answer(&message_json(&entry), String::new)?;
                }
                Told::Entry(entry) => {
                    if let Some(text) = previews.once(&entry).then(|| render(&entry)).flatten() {
                        session.output.answer(&serde_json::Value::Null, || text)?;
                    }
                }
                Told::Lost(error) => session.output.note(&format!("{error}; connecting again")),
                Told::End => return Ok(()),
            }
        }
    }

    fn request(self) -> ReadLogsRequest {
        let (devices, workload) = match self.place {
            Some(place) => (vec![place.device], place.workload),
            None => (Vec::new(), self.workload.unwrap_or_default()),
        };
        ReadLogsRequest {
            targets: Some(Targets {
                selector: self.selector.unwrap_or_default(),
                devices,
                all: false,
                condition: self.condition.unwrap_or_default(),
                groups: self.group,
            }),
            workload,
            since: self.since.and_then(wording::timestamp),
            tail_lines: self.tail,
            follow: self.follow,
            resume_token: String::new(),
        }
    }
}

/// Says that a workload is waited for which the device does not have: its name may be misspelt.
async fn note_absent(session: &Session<'_>, client: &FleetClient, place: &Place) -> Result<(), CommandError> {
    let request = GetDeviceRequest { device: place.device.clone(), ..GetDeviceRequest::default() };
    let device = login::need(client.get_device(request).await?.device, "device")?;
    if let Some(note) = absent(&device, &place.workload) {
        session.output.note(&note);
    }
    Ok(())
}

fn absent(device: &Device, workload: &str) -> Option<String> {
    let names: Vec<&str> = device.workloads.iter().map(|workload| workload.name.as_str()).collect();
    if names.contains(&workload) {
        return None;
    }
    let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Some(format!("{} has no workload {workload} yet (it has {there}); waiting for it", device.name))
}

/// Lines that were shown ahead of their turn, and are not shown again when it comes.
#[derive(Debug, Default)]
struct Previews(BTreeSet<(String, String, String, u64, u64)>);

impl Previews {
    fn once(&mut self, response: &ReadLogsResponse) -> bool {
        let Some(Entry::Line(line)) = &response.entry else { return true };
        let key = (line.device_id.clone(), line.workload.clone(), line.boot.clone(), line.stamp, line.sequence);
        if !line.preview {
            return !self.0.remove(&key);
        }
        if self.0.len() >= PREVIEWS_MAX {
            self.0.pop_first();
        }
        self.0.insert(key)
    }
}

/// Draws one entry; nothing for one of a kind that is not known here.
#[must_use]
pub fn render(response: &ReadLogsResponse) -> Option<String> {
    Some(match response.entry.as_ref()? {
        Entry::Line(line) => render_line(line),
        Entry::Gap(gap) => render_gap(gap),
    })
}

fn render_line(line: &LogLine) -> String {
    // Devices choose these bytes, and must not steer the terminal that shows them.
    let text: String =
        line.line.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect();
    let cut = if line.truncated { " …" } else { "" };
    let time = wording::moment(line.time.as_ref()).absolute();
    format!("{time} {}/{} {text}{cut}", line.device_name, line.workload)
}

fn render_gap(gap: &LogGap) -> String {
    let count = gap.sequence_last.saturating_sub(gap.sequence_first).saturating_add(1);
    let lines = if count == 1 { "line is" } else { "lines are" };
    let reason = wording::gap_reason(gap.reason);
    format!("--- {}/{}: {count} {lines} missing ({reason}) ---", gap.device_name, gap.workload)
}

#[cfg(test)]
mod tests {
    use fleetd_proto::fleetd::device::v1::DeviceWorkload;

    use super::*;

    fn line(sequence: u64, preview: bool) -> ReadLogsResponse {
        let line = LogLine { sequence, preview, ..LogLine::default() };
        ReadLogsResponse { entry: Some(Entry::Line(line)), ..ReadLogsResponse::default() }
    }

    #[test]
    fn whoever_follows_a_workload_that_is_not_there_is_told() {
        let workloads =
            ["coffee", "tea"].map(|name| DeviceWorkload { name: name.to_owned(), ..DeviceWorkload::default() });
        let device = Device { name: "brisk-otter".to_owned(), workloads: workloads.into(), ..Device::default() };
        assert_eq!(absent(&device, "tea"), None);
        let told = absent(&device, "te").unwrap();
        assert_eq!(told, "brisk-otter has no workload te yet (it has coffee, tea); waiting for it");
        assert!(absent(&Device::default(), "te").unwrap().contains("(it has none)"));
    }

    #[test]
    fn a_previewed_line_is_shown_once() {
        let mut previews = Previews::default();
        let shown: Vec<bool> = [line(1, false), line(2, true), line(2, true), line(2, false), line(3, false)]
            .iter()
            .map(|entry| previews.once(entry))
            .collect();
        assert_eq!(shown, [true, true, false, false, true]);
        assert_eq!(previews.0.len(), 0, "what has come is remembered no longer");
    }
}
