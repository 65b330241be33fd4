//! The audit log, verified by somebody who does not believe the server.

use fleetd::client::api::audit::v1::AuditEntry;
use fleetd::command::audit::{Head, check, render};
use fleetd_sync_core::audit::{By, Entry, EntryHash, Outcome, Stage, origin};
use fleetd_sync_core::id::{AccessId, FleetId};
use fleetd_sync_core::time::{ClockQuality, Wall};

fn fleet() -> FleetId {
    FleetId::from_bytes([7; 16])
}

/// A log of calls, each with its outcome, whose subjects begin with `what`.
fn log(what: &str, calls: u64) -> Vec<AuditEntry> {
    let (mut entries, mut previous) = (Vec::new(), origin(fleet()));
    for number in 1..=2 * calls {
        let stage = if number % 2 == 1 {
            Stage::Intent { request_id: "r".to_owned(), request: "{}".to_owned() }
        } else {
            Stage::Outcome { intent: number - 1, outcome: Outcome::Done }
        };
        let entry = Entry {
            number,
            previous,
            at: Wall(1_800_000_000_000 + i64::try_from(number).unwrap() * 1000),
            quality: ClockQuality::Synced,
            by: By::Token { id: AccessId::from_bytes([1; 10]), name: "ana".to_owned(), role: "admin".to_owned() },
            action: "fleetd.device.v1.DeviceService/HoldDevice".to_owned(),
            subjects: vec![format!("{what}-{number}")],
            stage,
        };
        let encoded = entry.encode();
        previous = EntryHash::of(&encoded);
        entries.push(AuditEntry { number, encoded, ..AuditEntry::default() });
    }
    entries
}

fn head(log: &[AuditEntry], number: usize) -> Head {
    let entry = &log[number - 1];
    Head { number: entry.number, hash: EntryHash::of(&entry.encoded) }
}

fn code(noted: Option<Head>, begins_at: u64, claimed: Option<Head>, entries: &[AuditEntry]) -> String {
    match check(fleet(), (noted, Some(begins_at), claimed), entries) {
        Ok(_) => "whole".to_owned(),
        Err(error) => error.code.to_string(),
    }
}

#[test]
fn a_whole_log_is_one_chain_to_its_head() {
    let log = log("x", 5);
    let end = head(&log, 10);
    assert_eq!(check(fleet(), (None, Some(1), Some(end)), &log).unwrap(), (1, end));
    assert_eq!(code(Some(head(&log, 4)), 1, Some(end), &log), "whole");
    assert!(check(FleetId::from_bytes([8; 16]), (None, Some(1), None), &log).is_err(), "it is another fleet's");
    assert_eq!(end.hash.to_string().len(), 64);
    assert_eq!(format!("10:{}", end.hash).parse(), Ok(end));
    assert!("10".parse::<Head>().is_err() && "10:12".parse::<Head>().is_err());
}

#[test]
fn a_log_that_was_tampered_with_is_no_chain() {
    let (whole, other) = (log("x", 5), log("y", 5));
    let end = Some(head(&whole, 10));
    for index in 0..10 {
        let taken_out = [&whole[..index], &whole[index + 1..]].concat();
        assert_eq!(code(None, 1, end, &taken_out), "audit.broken", "without entry {}", index + 1);
        let mut changed = whole.clone();
        changed[index] = other[index].clone();
        assert_eq!(code(None, 1, end, &changed), "audit.broken", "with another entry {}", index + 1);
    }
}

#[test]
fn a_log_that_was_written_anew_has_another_head_than_the_one_that_was_noted() {
    let (whole, other) = (log("x", 5), log("y", 5));
    let claimed = Some(head(&other, 10));
    assert_eq!(code(None, 1, claimed, &other), "whole", "alone it does not show");
    assert_eq!(code(Some(head(&whole, 4)), 1, claimed, &other), "audit.rewritten");
    assert_eq!(code(Some(head(&whole, 10)), 1, Some(head(&whole, 6)), &whole[..6]), "audit.rewritten", "it was cut");
}

#[test]
fn a_log_that_forgot_its_beginning_is_verified_from_there() {
    let whole = log("x", 5);
    let end = Some(head(&whole, 10));
    assert_eq!(code(None, 5, end, &whole[4..]), "whole");
    assert_eq!(code(None, 4, end, &whole[4..]), "audit.broken", "more is missing than was forgotten");
    assert_eq!(code(Some(head(&whole, 4)), 5, end, &whole[4..]), "whole", "the first entry holds its hash");
    assert_eq!(code(Some(head(&log("y", 5), 4)), 5, end, &whole[4..]), "audit.rewritten");
    assert_eq!(code(Some(head(&whole, 3)), 5, end, &whole[4..]), "audit.not_kept");
}

#[test]
fn a_call_is_one_row_and_cannot_steer_the_terminal() {
    let mut log = log("x\u{1b}[31m", 2);
    log.pop();
    let text = render(&log);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(rows.len(), 2, "{text}");
    assert!(rows[0].contains("HoldDevice") && rows[0].trim_end().ends_with("done"), "{text}");
    assert!(rows[1].starts_with('3') && rows[1].trim_end().ends_with("under way"), "{text}");
}
