//! Entries of the audit log, as they come from a server to whoever checks them.

use fleetd_sync_core::audit::{BreakError, By, Chain, Entry, EntryHash, Outcome, Stage, origin};
use fleetd_sync_core::codec::{Reader, Writer};
use fleetd_sync_core::id::{AccessId, FleetId, LocalId, TokenId};
use fleetd_sync_core::limit::{AUDIT_REQUEST_BYTES_MAX, AUDIT_SUBJECTS_MAX};
use fleetd_sync_core::time::{ClockQuality, Wall};

use super::CASES;

const FLEET: FleetId = FleetId::from_bytes([1; 16]);

fn entry(bytes: &[u8]) -> bool {
    let Ok(entry) = Entry::decode(bytes) else { return false };
    assert_eq!(entry.encode(), bytes, "an entry has one encoding");
    assert!(entry.subjects.len() <= AUDIT_SUBJECTS_MAX);
    if let Stage::Intent { request, .. } | Stage::Whole { request, .. } = &entry.stage {
        assert!(request.len() <= AUDIT_REQUEST_BYTES_MAX);
    }
    // Whatever stands in it, it follows only the entry that it names.
    let mut chain = Chain::after(entry.number.saturating_sub(1), entry.previous);
    assert_eq!(chain.follow(bytes).is_ok(), entry.number > 0);
    let mut other = Chain::after(entry.number.saturating_sub(1), EntryHash::of(bytes));
    assert!(other.follow(bytes).is_err(), "an entry does not hold its own hash");
    true
}

/// Entries, each behind its length: a chain stands still where one does not follow.
fn chain(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let mut chain = Chain::after(0, origin(FLEET));
    while let Ok(bytes) = reader.bytes("entry", bytes.len()) {
        let before = chain;
        match chain.follow(bytes) {
            Ok(entry) => {
                assert_eq!((chain.last(), chain.head()), (before.last() + 1, EntryHash::of(bytes)));
                assert_eq!((entry.number, entry.previous), (chain.last(), before.head()));
            }
            Err(error) => {
                assert_eq!(chain, before);
                assert!(!matches!(error, BreakError::Number { expected, found } if expected == found));
            }
        }
    }
    chain.last() > 0
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((0, rest)) => entry(rest),
        Some((_, rest)) => chain(rest),
        None => false,
    }
}

fn entries() -> Vec<Entry> {
    let token = By::Token { id: AccessId::from_bytes([2; 10]), name: "ci".to_owned(), role: "deployer".to_owned() };
    let device = |token| By::Device { local: LocalId::from_bytes([3; 16]), token };
    let intent = Stage::Intent { request_id: "r-1".to_owned(), request: "{\"name\":\"brisk-otter\"}".to_owned() };
    let whole = |outcome| Stage::Whole { request: "{}".to_owned(), outcome };
    let refused = Outcome::Refused("device.not_found".to_owned());
    [
        (By::Server, ClockQuality::None, whole(Outcome::Unknown)),
        (token.clone(), ClockQuality::Synced, intent),
        (token, ClockQuality::Floor, Stage::Outcome { intent: 2, outcome: refused }),
        (device(None), ClockQuality::Beacon, whole(Outcome::Done)),
        (device(Some(TokenId::from_bytes([4; 10]))), ClockQuality::Synced, whole(Outcome::Made)),
    ]
    .into_iter()
    .zip(1..)
    .map(|((by, quality, stage), number)| Entry {
        number,
        previous: origin(FLEET),
        at: Wall(-1),
        quality,
        by,
        action: "fleetd.device.v1.DeviceService/RenameDevice".to_owned(),
        subjects: vec!["dev_1".to_owned(), "é".to_owned()],
        stage,
    })
    .collect()
}

fn samples() -> Vec<Vec<u8>> {
    let mut linked = vec![1];
    let mut head = origin(FLEET);
    for mut entry in entries() {
        entry.previous = head;
        let bytes = entry.encode();
        head = EntryHash::of(&bytes);
        let mut writer = Writer::new();
        writer.bytes(&bytes);
        linked.extend(writer.finish());
    }
    entries().iter().map(|entry| [&[0], entry.encode().as_slice()].concat()).chain([linked]).collect()
}

#[test]
fn every_sample_of_an_audit_log_is_one() {
    assert!(samples().iter().all(|sample| check(sample)));
}

#[test]
fn any_bytes_are_one_entry_or_none() {
    bolero::check!(name = "audit").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
