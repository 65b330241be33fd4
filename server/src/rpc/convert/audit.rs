//! Entries of the audit log, as the API shows them.

use fleetd_proto::fleetd::audit::v1 as audit;
use fleetd_proto::fleetd::audit::v1::audit_entry;
use fleetd_sync_core::audit::{By, Entry, EntryHash, Outcome, Stage};
use fleetd_sync_core::time::ClockQuality;

use crate::record::timestamp;

/// An entry that lies under a number. Of one that cannot be read there is nothing but its bytes.
pub(crate) fn show(number: u64, encoded: Vec<u8>) -> audit::AuditEntry {
    let hash = EntryHash::of(&encoded).to_string();
    let entry = Entry::decode(&encoded);
    let bare = audit::AuditEntry { number, encoded, hash, ..audit::AuditEntry::default() };
    let Ok(entry) = entry else { return bare };
    let mut shown = audit::AuditEntry {
        written_at: Some(timestamp(entry.at)),
        clock_quality: quality(entry.quality).into(),
        by: Some(by(entry.by)),
        action: entry.action,
        subjects: entry.subjects,
        ..bare
    };
    match entry.stage {
        Stage::Intent { request_id, request } => {
            (shown.request_id, shown.request) = (request_id, request);
            shown.stage = audit::Stage::Intent.into();
        }
        Stage::Outcome { intent, outcome } => {
            shown.intent_number = intent;
            shown.stage = audit::Stage::Outcome.into();
            show_outcome(&mut shown, outcome);
        }
        Stage::Whole { request, outcome } => {
            shown.request = request;
            shown.stage = audit::Stage::Whole.into();
            show_outcome(&mut shown, outcome);
        }
    }
    shown
}

fn by(by: By) -> audit_entry::By {
    match by {
        By::Server => audit_entry::By::Server(audit::ServerItself {}),
        By::Token { id, name, role } => {
            audit_entry::By::Token(audit::TokenCaller { access_id: id.to_string(), name, role })
        }
        By::Device { local, token } => {
            let token_id = token.map(|token| token.to_string()).unwrap_or_default();
            audit_entry::By::Device(audit::DeviceCaller { local_id: local.to_string(), token_id })
        }
    }
}

fn show_outcome(shown: &mut audit::AuditEntry, outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Done => audit::Outcome::Done,
        Outcome::Refused(code) => {
            shown.error_code = code;
            audit::Outcome::Refused
        }
        Outcome::Made => audit::Outcome::Made,
        Outcome::Unknown => audit::Outcome::Unknown,
    };
    shown.outcome = outcome.into();
}

const fn quality(quality: ClockQuality) -> audit::ClockQuality {
    match quality {
        ClockQuality::None => audit::ClockQuality::Unspecified,
        ClockQuality::Floor => audit::ClockQuality::Floor,
        ClockQuality::Beacon => audit::ClockQuality::Beacon,
        ClockQuality::Synced => audit::ClockQuality::Synced,
    }
}
