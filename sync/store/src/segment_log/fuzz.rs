//! Segments of logs: what flash, a backup or a stranger's disk may hold in their place.

use fleetd_sync_core::codec::{Reader, Writer};

use super::frame::{frames, push_frame, resum, seal, unseal};
use super::is_log_name;

/// Inputs that are tried at random in every run of the tests, after the corpus.
const CASES: usize = 2000;

/// An open segment: whatever lies between its frames is passed over, and what was read is written as it lay there.
fn open_segment(next: u64, bytes: &[u8]) -> usize {
    let read = frames(bytes, next);
    let mut last = None;
    for frame in &read {
        assert!(frame.sequence < next && last.is_none_or(|last| last < frame.sequence));
        last = Some(frame.sequence);
        let mut again = Vec::new();
        push_frame(&mut again, frame.sequence, frame.entry).unwrap();
        assert_eq!(bytes.get(frame.end - again.len()..frame.end), Some(again.as_slice()));
    }
    read.len()
}

/// A sealed segment: what it unpacks to is sealed again without loss.
fn sealed_segment(count: u64, bytes: &[u8]) -> usize {
    let Some(entries) = unseal(bytes, count) else { return 0 };
    assert_eq!(entries.len() as u64, count);
    let again = seal(entries.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(unseal(&again, count).as_ref(), Some(&entries));
    entries.len()
}

/// Entries, each behind its length, in both kinds of segment.
fn entries(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes);
    let (mut given, mut open) = (Vec::new(), Vec::new());
    while let Ok(entry) = reader.bytes("entry", bytes.len()) {
        push_frame(&mut open, given.len() as u64, entry).unwrap();
        given.push(entry);
    }
    let count = given.len() as u64;
    assert!(frames(&open, count).iter().map(|frame| frame.entry).eq(given.iter().copied()));
    assert_eq!(unseal(&seal(given.iter().copied()).unwrap(), count).unwrap(), given);
    given.len()
}

/// The first byte says what the rest is taken for; checksums are put right, since no random change gets them right.
fn check(bytes: &[u8]) -> usize {
    let mut reader = Reader::new(bytes);
    let (Ok(kind), Ok(number)) = (reader.u8("kind"), reader.varint("number")) else { return 0 };
    let rest = reader.take("rest", reader.left()).unwrap_or_default();
    match kind {
        0 => open_segment(number, rest),
        1 => sealed_segment(number, rest),
        2 => sealed_segment(number, &resum(rest)),
        3 => entries(rest),
        _ => std::str::from_utf8(rest).map_or(0, |name| {
            let is_one = is_log_name(name);
            assert!(!is_one || !name.contains(['/', '\0']) && name != "..", "{name:?} leaves its folder");
            usize::from(is_one)
        }),
    }
}

fn samples() -> Vec<Vec<u8>> {
    let mut open = Vec::new();
    for (sequence, entry) in [(5, b"first".as_slice()), (6, b"second"), (7, b"third")] {
        push_frame(&mut open, sequence, entry).unwrap();
    }
    let sealed = seal([b"one".as_slice(), b"", &[7; 300], b"four"].into_iter()).unwrap();
    let mut three = Writer::new();
    three.bytes(b"one").bytes(b"").bytes(&[3; 40]);
    let of = |kind: u8, number: u8, bytes: &[u8]| [&[kind, number], bytes].concat();
    vec![
        of(0, 8, &open),
        of(0, 7, &[b"noise".as_slice(), &open].concat()),
        of(1, 4, &sealed),
        of(2, 4, &[sealed.get(4..8).unwrap(), sealed.get(12..).unwrap()].concat()),
        of(3, 0, &three.finish()),
        of(4, 0, b"log-coffee.1"),
    ]
}

#[test]
fn every_sample_of_a_segment_is_one() {
    assert!(samples().iter().all(|sample| check(sample) > 0));
}

#[test]
fn any_bytes_are_one_segment_or_damage() {
    bolero::check!(name = "segment").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
