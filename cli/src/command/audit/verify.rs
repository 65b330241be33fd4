//! `audit verify`: the chain of hashes, computed again on the operator's machine.

use std::str::FromStr;

use clap::Args;
use fleetd_proto::fleetd::audit::v1::{AuditEntry, ListAuditEntriesRequest};
use fleetd_sync_core::audit::{BreakError, Chain, Entry, EntryHash, ParseEntryHashError, origin};
use fleetd_sync_core::id::FleetId;
use serde_json::json;

use super::PAGE_SIZE;
use crate::command::Session;
use crate::error::CommandError;

/// Compute the chain of hashes again on this machine, and tell its head
///
/// Each entry holds the hash of the one before, and the first one that of the fleet. What it does not tell alone is
/// whether all of it was written anew: for that, give the head that was noted elsewhere before.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  fleetd audit verify
  fleetd audit verify --head 812:9111c048cc8f9b2b840efd1cdf275b6e303b9ec5a283b132e5febbc1db62fff7")]
pub struct Verify {
    /// A head that was noted before: the log must still hold that entry, unchanged
    #[arg(long, value_name = "NUMBER:HASH")]
    pub head: Option<Head>,
}

/// An entry's number and hash, as somebody noted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number.
    pub number: u64,
    /// The hash.
    pub hash: EntryHash,
}

/// Why a text is no head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseHeadError {
    /// It has another form.
    #[error("{0:?} is no NUMBER:HASH")]
    Form(String),
    /// The hash is none.
    #[error(transparent)]
    Hash(#[from] ParseEntryHashError),
}

impl FromStr for Head {
    type Err = ParseHeadError;

    fn from_str(text: &str) -> Result<Self, ParseHeadError> {
        let form = || ParseHeadError::Form(text.to_owned());
        let (number, hash) = text.split_once(':').ok_or_else(form)?;
        Ok(Self { number: number.parse().map_err(|_| form())?, hash: hash.parse()? })
    }
}

/// A log that is being followed.
struct Following {
    fleet: FleetId,
    noted: Option<Head>,
    /// The chain so far; nothing before the first entry.
    chain: Option<Chain>,
    first: u64,
    /// Where the server says that the log begins.
    begins_at: Option<u64>,
    /// What the server said of its head when it was first asked.
    claimed: Option<Head>,
}

impl Following {
    fn take(&mut self, shown: &AuditEntry) -> Result<(), CommandError> {
        let mut chain = match self.chain {
            Some(chain) => chain,
            None => self.begin(shown)?,
        };
        chain.follow(&shown.encoded).map_err(|error| broken(&error))?;
        self.chain = Some(chain);
        self.compare(chain)
    }

    /// Begins above what the log has forgotten. A log that has forgotten nothing begins with its fleet.
    fn begin(&mut self, shown: &AuditEntry) -> Result<Chain, CommandError> {
        self.first = shown.number;
        if let Some(expected) = self.begins_at.filter(|begins_at| *begins_at != shown.number) {
            return Err(broken(&BreakError::Number { expected, found: shown.number }));
        }
        let before = shown.number.saturating_sub(1);
        if before == 0 {
            return Ok(Chain::after(0, origin(self.fleet)));
        }
        let number = shown.number;
        let entry =
            Entry::decode(&shown.encoded).map_err(|source| broken(&BreakError::Unreadable { number, source }))?;
        let chain = Chain::after(before, entry.previous);
        self.compare(chain)?;
        Ok(chain)
    }

    /// Compares what was noted, and what the server claims, where the chain comes by it.
    fn compare(&self, chain: Chain) -> Result<(), CommandError> {
        let is_other = |head: &Head| head.number == chain.last() && head.hash != chain.head();
        if let Some(noted) = self.noted.filter(is_other) {
            let message = format!("entry {} is not the one that was noted", noted.number);
            return Err(CommandError::new("audit.rewritten", message).cause(format!(
                "its hash is {}, not {}: what lies up to it was written anew",
                chain.head(),
                noted.hash
            )));
        }
        if let Some(claimed) = self.claimed.filter(is_other) {
            let message = format!("the server claims another head than entry {} has", claimed.number);
            return Err(CommandError::new("audit.broken", message).cause(format!(
                "the hash is {}, and the server says {}",
                chain.head(),
                claimed.hash
            )));
        }
        Ok(())
    }

    fn end(self) -> Result<Chain, CommandError> {
        let chain = self.chain.unwrap_or_else(|| Chain::after(0, origin(self.fleet)));
        self.compare(chain)?;
        let ends_before = |head: &Head| head.number > chain.last();
        if let Some(noted) = self.noted.filter(ends_before) {
            let message = format!("the log ends with entry {}, before the one that was noted", chain.last());
            return Err(CommandError::new("audit.rewritten", message).cause(format!(
                "entry {} was there once: the end was cut off, or an old backup came back",
                noted.number
            )));
        }
        if let Some(claimed) = self.claimed.filter(ends_before) {
            let message = format!("entry {} is missing, and all after it", chain.last().saturating_add(1));
            return Err(CommandError::new("audit.broken", message)
                .cause(format!("the server says that the last entry is {}", claimed.number)));
        }
        if let Some(noted) = self.noted.filter(|noted| noted.number < self.first.saturating_sub(1)) {
            let message = format!("entry {} is not kept any more", noted.number);
            return Err(CommandError::new("audit.not_kept", message).cause(format!(
                "the log is one chain from entry {} on; what it was before cannot be told",
                self.first
            )));
        }
        Ok(chain)
    }
}

fn broken(error: &BreakError) -> CommandError {
    CommandError::new("audit.broken", error.to_string()).caused_by_source(error)
}

/// Follows a log from its first entry to its last.
///
/// # Errors
/// When it is no chain, or not the one that was noted or claimed.
pub fn check<'a>(
    fleet: FleetId,
    (noted, begins_at, claimed): (Option<Head>, Option<u64>, Option<Head>),
    entries: impl IntoIterator<Item = &'a AuditEntry>,
) -> Result<(u64, Head), CommandError> {
    let mut following = Following { fleet, noted, chain: None, first: 1, begins_at, claimed };
    entries.into_iter().try_for_each(|entry| following.take(entry))?;
    let first = following.first;
    let chain = following.end()?;
    Ok((first, Head { number: chain.last(), hash: chain.head() }))
}

impl Verify {
    /// Runs the command.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses, and when the log is not the chain that it should be.
    pub async fn run(self, session: &Session<'_>) -> Result<(), CommandError> {
        let client = session.client().await?;
        let mut following = Following {
            fleet: client.fleet(),
            noted: self.head,
            chain: None,
            first: 1,
            begins_at: None,
            claimed: None,
        };
        let mut page_token = String::new();
        loop {
            let request = ListAuditEntriesRequest {
                page_size: PAGE_SIZE,
                page_token,
                oldest_first: true,
                ..ListAuditEntriesRequest::default()
            };
            let page = client.list_audit_entries(request).await?;
            if following.claimed.is_none() {
                let hash = page.head_hash.parse().map_err(|error: ParseEntryHashError| {
                    CommandError::new("audit.broken", "the server claims a head that is none").caused_by(&error)
                })?;
                following.claimed = Some(Head { number: page.last_number, hash });
                following.begins_at = Some(page.first_number);
            }
            page.audit_entries.iter().try_for_each(|entry| following.take(entry))?;
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let first = following.first;
        let chain = following.end()?;
        let (last, hash) = (chain.last(), chain.head());
        let object = json!({ "first": first.to_string(), "last": last.to_string(), "hash": hash.to_string() });
        session.output.answer(&object, || {
            let noted = if self.head.is_some() { "\nthe head that was noted is in it" } else { "" };
            format!("entries {first} to {last} are one chain{noted}\nhead {last}:{hash}")
        })
    }
}
