//! What a server keeps and takes up again: its records, out of a store or somebody's backup of one.

use fleetd_actors::log_record::{GapReason, LogBatch, LogRecord};
use fleetd_actors::orders::Orders;
use fleetd_server::record;
use fleetd_sync_core::commit::Mutation;
use fleetd_sync_core::id::{BootId, Stamp};
use fleetd_sync_core::session::LogStream;
use fleetd_sync_store::copy::Piece;

use super::CASES;

/// Every record, by the first byte; those of several fields of bytes are written again and compared.
fn check(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else { return false };
    match kind {
        0 => record::access::decode(bytes).is_ok(),
        1 => record::device::decode(bytes).is_ok_and(|device| {
            let mut mutations = Vec::new();
            record::device::put(&device, &mut mutations);
            let value = mutations.iter().find_map(|mutation| match mutation {
                Mutation::Put { value, .. } => Some(value),
                _ => None,
            });
            value.is_none_or(|value| record::device::decode(value).is_ok_and(|again| again == device))
        }),
        2 => record::release::decode(bytes).is_ok(),
        3 => record::request::decode(bytes).is_ok(),
        4 => record::rollout::decode_plan(bytes).is_ok(),
        5 => record::rollout::decode_plan_try(bytes).is_ok(),
        6 => record::rollout::decode_header(bytes).is_ok(),
        7 => record::rollout::decode_progress(bytes).is_ok(),
        8 => match record::log::decode_entry(bytes) {
            Ok((stream, batch)) => {
                let again = record::log::encode_entry(&stream, &batch);
                assert_eq!(record::log::decode_entry(&again).ok(), Some((stream, batch)));
                true
            }
            Err(_) => false,
        },
        10 => record::group::decode(bytes).is_ok(),
        11 => {
            let mut orders = Orders::default();
            let is_read = record::order::read(bytes, &mut orders).is_ok();
            assert_eq!(is_read, orders.stops.len() + orders.denials.len() == 1);
            is_read
        }
        12 => match record::rollout_flight::decode_flight(bytes) {
            Ok(flight) => {
                let again = record::rollout_flight::encode_flight(&flight);
                assert_eq!(record::rollout_flight::decode_flight(&again).ok(), Some(flight));
                true
            }
            Err(_) => false,
        },
        13 => record::configuration::decode(bytes).is_ok_and(|found| {
            let Mutation::Put { value, .. } = record::configuration::put(&found) else { return false };
            record::configuration::decode(&value).is_ok_and(|again| again == found)
        }),
        _ => {
            let mut rest = bytes;
            let Ok(piece) = record::backup::decode_piece(&mut rest) else { return false };
            let mut again = Vec::new();
            record::backup::encode_piece(piece.clone(), &mut again);
            assert_eq!(record::backup::decode_piece(&mut again.as_slice()).ok(), Some(piece));
            true
        }
    }
}

fn samples() -> Vec<Vec<u8>> {
    let stream =
        LogStream { workload: "coffee".parse().expect("a name"), boot: BootId::from_bytes([1; 16]), stamp: Stamp(7) };
    let gap = LogRecord::Gap { count: 3, reason: GapReason::Rate };
    let entry = record::log::encode_entry(&stream, &LogBatch { sequence_first: 7, records: vec![gap] });
    let mut pieces = Vec::new();
    record::backup::encode_piece(Piece::Record { key: vec![1, 2], value: vec![3] }, &mut pieces);
    record::backup::encode_piece(
        Piece::Entry { log: "log".to_owned(), sequence: 7, entry: entry.clone() },
        &mut pieces,
    );
    vec![[&[8], entry.as_slice()].concat(), [&[9], pieces.as_slice()].concat()]
}

#[test]
fn every_sample_of_a_record_is_one() {
    assert!(samples().iter().all(|sample| check(sample)));
}

#[test]
fn any_bytes_are_a_record_or_none() {
    bolero::check!(name = "server_record").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
