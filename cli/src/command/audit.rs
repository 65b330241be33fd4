//! `audit`: who did what.
//!
//! Nothing that the server says of an entry is believed: what is shown and what is verified is read from the entry's own
//! bytes, which are what the chain of hashes is made of.

mod verify;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use fleetd_proto::fleetd::audit::v1::{
    AuditEntry, AuditFilter, ListAuditEntriesRequest, ListAuditEntriesResponse, WatchAuditEntriesRequest,
};
use fleetd_sync_core::audit::{By, Entry, Outcome, Stage};
use serde_json::json;

use super::{Session, value, wording};
use crate::client::FleetClient;
use crate::client::json::json as message_json;
use crate::client::watch::Told;
use crate::error::CommandError;
use crate::output::{Moment, table};

pub use verify::{Head, Verify, check};

/// Entries of one page: their longest ones fit a message of 4 MiB.
const PAGE_SIZE: u32 = 400;

/// Who did what.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List calls, the newest last
    List(List),
    /// Compute the chain of hashes again on this machine, and tell its head
    Verify(Verify),
    /// Show the number and hash of the newest entry, to note elsewhere
    #[command(after_help = "\
Examples:
  fleetd audit head
  fleetd audit head | tee -a audit-heads.txt")]
    Head,
}

/// List calls, the newest last
///
/// Each call that changed something, and what devices and the server did by themselves. A call that has no outcome yet is
/// under way.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd audit list
  fleetd audit list --since 7d --by ana
  fleetd audit list --on brisk-otter --action RevokeDevice
  fleetd audit list -f --json | tee -a audit.jsonl")]
pub struct List {
    /// Only from then on: how long ago (`7d`) or when (`2026-03-01T12:00:00Z`)
    #[arg(long, value_name = "TIME", value_parser = value::past)]
    pub since: Option<Moment>,
    /// Only before then
    #[arg(long, value_name = "TIME", value_parser = value::past)]
    pub until: Option<Moment>,
    /// Only what this caller did: a token's name or id, a device's local id, or `server`
    #[arg(long, value_name = "WHO", default_value = "", hide_default_value = true)]
    pub by: String,
    /// Only what is about this: a device, a release, a rollout, a key, a token …
    #[arg(long, value_name = "WHAT", default_value = "", hide_default_value = true)]
    pub on: String,
    /// Only this: an RPC (`RevokeDevice`), or what the server did (`server/start`)
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub action: String,
    /// The newest so many entries; 0 for all
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub last: usize,
    /// Go on with entries that come
    #[arg(long, short = 'f')]
    pub follow: bool,
}

impl Audit {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses, and when the log is not what it should be.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        match self {
            Self::List(command) => command.run(session).await,
            Self::Verify(command) => command.run(session).await,
            Self::Head => {
                let request = ListAuditEntriesRequest { page_size: 1, ..ListAuditEntriesRequest::default() };
                let page = session.client().await?.list_audit_entries(request).await?;
                let object = json!({ "number": page.last_number.to_string(), "hash": page.head_hash });
                session.output.answer(&object, || format!("{}:{}", page.last_number, page.head_hash))
            }
        }
    }
}

impl List {
    async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let (entries, last) = self.past(&client).await?;
        if !self.follow {
            let object = json!({ "auditEntries": entries.iter().map(message_json).collect::<Vec<_>>() });
            return session.output.answer(&object, || render(&entries));
        }
        let mut calls = Calls::default();
        for entry in &entries {
            tell(session, &mut calls, entry)?;
        }
        let request =
            WatchAuditEntriesRequest { filter: Some(self.filter()), after_number: last, resume_token: String::new() };
        let mut watch = client.follow(request);
        loop {
            match watch.next().await? {
                Told::Entry(response) => {
                    if let Some(entry) = &response.audit_entry {
                        tell(session, &mut calls, entry)?;
                    }
                }
                Told::Lost(error) => session.output.note(&format!("{error}; connecting again")),
                Told::End => return Ok(()),
            }
        }
    }

    fn filter(&self) -> AuditFilter {
        AuditFilter {
            by: self.by.clone(),
            action: self.action.clone(),
            subject: self.on.clone(),
            since: self.since.and_then(wording::timestamp),
            until: self.until.and_then(wording::timestamp),
        }
    }

    /// The entries that are meant, the oldest first, and the number of the newest of all.
    async fn past(&self, client: &FleetClient) -> Result<(Vec<AuditEntry>, u64), CommandError> {
        let (mut entries, mut newest) = (Vec::new(), None);
        let mut page_token = String::new();
        loop {
            let filter = Some(self.filter());
            let request = ListAuditEntriesRequest { page_size: PAGE_SIZE, page_token, filter, oldest_first: false };
            let page: ListAuditEntriesResponse = client.list_audit_entries(request).await?;
            newest.get_or_insert(page.last_number);
            entries.extend(page.audit_entries);
            let is_enough = self.last > 0 && entries.len() >= self.last;
            page_token = page.next_page_token;
            if page_token.is_empty() || is_enough {
                break;
            }
        }
        if self.last > 0 {
            entries.truncate(self.last);
        }
        entries.reverse();
        Ok((entries, newest.unwrap_or_default()))
    }
}

/// Tells of one entry: programs of each, people of each call when it has ended.
fn tell(session: &Session<'_>, calls: &mut Calls, entry: &AuditEntry) -> Result<(), CommandError> {
    if session.output.is_json() {
        return session.output.answer(&message_json(entry), String::new);
    }
    match calls.take(entry) {
        Some(row) if !row.is_under_way => session.output.answer(&serde_json::Value::Null, || row.cells.join("  ")),
        _ => Ok(()),
    }
}

/// One call, as a row.
struct Row {
    is_under_way: bool,
    cells: [String; 6],
}

/// Calls whose intent was seen, with what they asked, until their outcome is.
#[derive(Default)]
struct Calls(BTreeMap<u64, String>);

impl Calls {
    /// Says what an entry adds: a call that has ended, or one that is under way.
    fn take(&mut self, shown: &AuditEntry) -> Option<Row> {
        let number = shown.number;
        let Ok(entry) = Entry::decode(&shown.encoded) else {
            let cells = [number.to_string(), "-".into(), "-".into(), "-".into(), "-".into(), "unreadable".into()];
            return Some(Row { is_under_way: false, cells });
        };
        let (number, outcome) = match &entry.stage {
            Stage::Intent { .. } => {
                self.0.insert(number, String::new());
                (number, None)
            }
            Stage::Outcome { intent, outcome } => {
                self.0.remove(intent);
                (*intent, Some(outcome))
            }
            Stage::Whole { outcome, .. } => (number, Some(outcome)),
        };
        let (seconds, nanos) = (entry.at.0.div_euclid(1000), 0);
        let cells = [
            number.to_string(),
            Moment::from_parts(Some((seconds, nanos))).absolute(),
            who(&entry.by),
            harmless(entry.action.rsplit_once("Service/").map_or(entry.action.as_str(), |(_, last)| last)),
            harmless(&about(&entry)),
            outcome.map_or_else(|| "under way".to_owned(), said),
        ];
        Some(Row { is_under_way: outcome.is_none(), cells })
    }
}

/// What an entry is about; of what has no subject, what was done.
fn about(entry: &Entry) -> String {
    match &entry.stage {
        Stage::Whole { request, .. } if matches!(entry.by, By::Server) => {
            [entry.subjects.join(" "), request.clone()].join(" ").trim().to_owned()
        }
        _ if entry.subjects.is_empty() => "-".to_owned(),
        _ => entry.subjects.join(" "),
    }
}

fn who(by: &By) -> String {
    match by {
        By::Server => "server".to_owned(),
        By::Token { name, role, .. } => format!("{} ({})", harmless(name), harmless(role)),
        By::Device { .. } => "device".to_owned(),
    }
}

fn said(outcome: &Outcome) -> String {
    harmless(&outcome.to_string())
}

/// Callers choose these characters, and must not steer the terminal that shows them.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Draws calls, each where it ended, and those that are under way at the end.
#[must_use]
pub fn render(entries: &[AuditEntry]) -> String {
    let mut calls = Calls::default();
    let mut rows: Vec<Row> = entries.iter().filter_map(|entry| calls.take(entry)).collect();
    // An intent is drawn only where no outcome is.
    rows.retain(|row| !row.is_under_way || row.cells[0].parse().is_ok_and(|number| calls.0.contains_key(&number)));
    rows.sort_by_key(|row| row.is_under_way);
    table(["NUMBER", "TIME", "WHO", "WHAT", "ON", "OUTCOME"], rows.into_iter().map(|row| row.cells))
}
