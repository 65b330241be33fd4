//! `AuditService`: who did what.

use std::sync::Arc;

use fleetd_actors::audit::Standing;
use fleetd_proto::fleetd::audit::v1 as audit;
use fleetd_proto::fleetd::audit::v1::audit_service_server::AuditService;
use fleetd_sync_core::audit::{By, Entry};
use fleetd_sync_core::commit::Space;
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::KeyRange;
use tonic::{Request, Response, Status};

use super::backend::Backend;
use super::call_error::CallError;
use super::convert;
use super::follower::{Follower, Messages, Outlet, StreamEnd, stream};
use super::page::{Places, decode_token, encode_token, page_size};
use crate::record::audit::{entry_key, standing};
use crate::record::wall;

/// Entries that are read at once.
const READ_ENTRIES: u64 = 256;
/// Entries that are looked at for one page: where few of them are meant, the page ends early.
const LOOKED_AT_MAX: u64 = 16_384;

super::service!(
    /// Shows the audit log.
    AuditLog
);

/// Which entries are meant.
#[derive(Default)]
struct Filter {
    by: String,
    action: String,
    subject: String,
    since: Option<Wall>,
    until: Option<Wall>,
}

impl Filter {
    fn read(filter: Option<audit::AuditFilter>) -> Self {
        let audit::AuditFilter { by, action, subject, since, until } = filter.unwrap_or_default();
        Self { by, action, subject, since: since.as_ref().map(wall), until: until.as_ref().map(wall) }
    }

    /// Says whether an entry is meant. One that cannot be read is ruled out by nothing.
    fn takes(&self, bytes: &[u8]) -> bool {
        let Ok(entry) = Entry::decode(bytes) else { return true };
        let is_by = match &entry.by {
            By::Server => self.by == "server",
            By::Token { id, name, .. } => self.by == *name || self.by == id.to_string(),
            By::Device { local, .. } => self.by == local.to_string(),
        };
        let last_part = entry.action.rsplit('/').next();
        (self.by.is_empty() || is_by)
            && (self.action.is_empty() || self.action == entry.action || Some(self.action.as_str()) == last_part)
            && (self.subject.is_empty() || entry.subjects.contains(&self.subject))
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
    }
}

/// Reads the entries of a range of numbers, each as it lies in the store.
fn entries(backend: &Backend, first: u64, last: u64) -> Result<Vec<(u64, Vec<u8>)>, CallError> {
    let limit = usize::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(usize::MAX);
    let range = KeyRange::between(&entry_key(first), &entry_key(last.saturating_add(1)));
    let found = backend.store().scan(Space::AuditEntry, range, limit)?;
    let number = |key: Vec<u8>| Some(u64::from_be_bytes(key.as_slice().try_into().ok()?));
    Ok(found.into_iter().filter_map(|(key, found)| Some((number(key)?, found.value))).collect())
}

fn log_standing(backend: &Backend) -> Result<Standing, CallError> {
    let fleet = backend.shared().trust().chain.fleet();
    standing(backend.store(), fleet).map_err(|error| CallError::Internal { cause: error.to_string() })
}

fn read_number(token: &str, field: &'static str) -> Result<Option<u64>, CallError> {
    let Some(bytes) = decode_token(token, field)? else { return Ok(None) };
    let number = bytes.as_slice().try_into().map(u64::from_be_bytes);
    let invalid = |_| CallError::Invalid { field, cause: "it is no place in the audit log".to_owned() };
    number.map(Some).map_err(invalid)
}

/// One page of the log: what it holds, and the number at which the next one begins.
fn read_page(
    backend: &Backend,
    standing: &Standing,
    filter: &Filter,
    (size, begin, is_oldest_first): (usize, Option<u64>, bool),
) -> Result<(Vec<audit::AuditEntry>, Option<u64>), CallError> {
    let (first, last) = (standing.first, standing.last);
    let mut at = begin.unwrap_or(if is_oldest_first { first } else { last });
    let (mut page, mut looked_at) = (Vec::new(), 0);
    while (first..=last).contains(&at) {
        if looked_at >= LOOKED_AT_MAX {
            return Ok((page, Some(at)));
        }
        looked_at += READ_ENTRIES;
        let (from, to) = if is_oldest_first {
            (at, last.min(at.saturating_add(READ_ENTRIES - 1)))
        } else {
            (first.max(at.saturating_sub(READ_ENTRIES - 1)), at)
        };
        let mut found = entries(backend, from, to)?;
        if !is_oldest_first {
            found.reverse();
        }
        for (number, bytes) in found.into_iter().filter(|(_, bytes)| filter.takes(bytes)) {
            if page.len() == size {
                return Ok((page, Some(number)));
            }
            page.push(convert::audit::show(number, bytes));
        }
        at = if is_oldest_first { to.saturating_add(1) } else { from.saturating_sub(1) };
    }
    Ok((page, None))
}

#[tonic::async_trait]
impl AuditService for AuditLog {
    async fn list_audit_entries(
        &self,
        request: Request<audit::ListAuditEntriesRequest>,
    ) -> Result<Response<audit::ListAuditEntriesResponse>, Status> {
        let asked = request.into_inner();
        let wanted = (page_size(asked.page_size)?, read_number(&asked.page_token, "page_token")?, asked.oldest_first);
        let (filter, standing) = (Filter::read(asked.filter), log_standing(&self.backend)?);
        let (audit_entries, next) = read_page(&self.backend, &standing, &filter, wanted)?;
        Ok(Response::new(audit::ListAuditEntriesResponse {
            audit_entries,
            next_page_token: next.map(|number| encode_token(&number.to_be_bytes())).unwrap_or_default(),
            first_number: standing.first,
            last_number: standing.last,
            head_hash: standing.head.to_string(),
        }))
    }

    type WatchAuditEntriesStream = Messages<audit::WatchAuditEntriesResponse>;

    async fn watch_audit_entries(
        &self,
        request: Request<audit::WatchAuditEntriesRequest>,
    ) -> Result<Response<Self::WatchAuditEntriesStream>, Status> {
        let asked = request.into_inner();
        let standing = log_standing(&self.backend)?;
        let places = Places::of_log(self.backend.store(), standing.last)?;
        let after = first_told(&standing, &places, &asked)?;
        let (backend, filter) = (Arc::clone(&self.backend), Filter::read(asked.filter));
        Ok(Response::new(stream(move |outlet| follow(backend, filter, (places, after), outlet))))
    }
}

/// The entry above which a watch begins.
fn first_told(standing: &Standing, places: &Places, asked: &audit::WatchAuditEntriesRequest) -> Result<u64, CallError> {
    if !asked.resume_token.is_empty() {
        // The log of a restored server has other entries by the same numbers: all of it is told.
        return Ok(places.read(&asked.resume_token)?.unwrap_or(standing.first.saturating_sub(1)));
    }
    match asked.after_number {
        0 => Ok(standing.last),
        after if after <= standing.last => Ok(after),
        after => {
            let cause = format!("there is no entry {after}: the last one is {}", standing.last);
            Err(CallError::Invalid { field: "after_number", cause })
        }
    }
}

/// Gives each entry above `last`, as it is written.
async fn follow(
    backend: Arc<Backend>,
    filter: Filter,
    (places, mut last): (Places, u64),
    outlet: Outlet<audit::WatchAuditEntriesResponse>,
) -> Result<(), StreamEnd> {
    let mut follower = Follower::start(Arc::clone(&backend.shared().seams.store));
    loop {
        let standing = log_standing(&backend)?;
        last = last.max(standing.first.saturating_sub(1));
        while last < standing.last {
            let to = standing.last.min(last.saturating_add(READ_ENTRIES));
            for (number, bytes) in entries(&backend, last.saturating_add(1), to)? {
                if filter.takes(&bytes) {
                    let audit_entry = Some(convert::audit::show(number, bytes));
                    let resume_token = places.write(number);
                    outlet.send(audit::WatchAuditEntriesResponse { audit_entry, resume_token }).await?;
                }
            }
            last = to;
        }
        // Whatever has changed, and whether changes were missed: the next look at the log finds all of it.
        drop(outlet.next_changes(&mut follower).await?);
    }
}
