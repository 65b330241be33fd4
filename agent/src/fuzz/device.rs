//! What an agent keeps and takes up again: its records, its lines, its configuration, and recordings out of bundles.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;

use fleetd_actors::agent::record::{AgentRecord, Membership, TrustFloor};
use fleetd_sync_core::codec::{Reader, Writer};
use fleetd_sync_core::id::{DeviceId, FleetId};
use fleetd_sync_core::limit;
use fleetd_sync_core::name::WorkloadName;
use fleetd_sync_core::time::{ClockFloor, Wall};

use super::CASES;
use crate::config::{Config, ConfigArguments, Environment};
use crate::record;
use crate::shim::{acknowledge_lines, last_position, read_lines};
use crate::support_bundle::{read_flights, read_parts};

/// Bytes of lines that are read at once.
const LINES_BYTES: usize = 1 << 10;
/// Pages of lines that are read: each has one line or gap at least.
const PAGES_MAX: usize = 4096;
/// Number, time and flags of a line, before its text.
const LINE_HEAD_BYTES: usize = 17;

thread_local! {
    static FOLDER: RefCell<tempfile::TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    })
}

/// A record that can be read is written and read again.
macro_rules! again {
    ($decode:expr, $encode:expr, $bytes:expr) => {
        match $decode($bytes) {
            Ok(value) => {
                let written = $encode(&value);
                assert_eq!($decode(written.as_slice()).ok().as_ref(), Some(&value), "what is written is read again");
                true
            }
            Err(_) => false,
        }
    };
}

fn config(text: &[u8]) -> bool {
    let path = file("agent.toml", text);
    let arguments = ConfigArguments { config: Some(path), ..ConfigArguments::default() };
    match Config::read(&arguments, &Environment::new()) {
        Ok(config) => {
            assert!(config.data_directory.value.is_absolute() && config.socket.value.is_absolute());
            !config.show().is_empty()
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Every line of a log is read once, in order, with gaps between.
fn lines(bytes: &[u8]) -> bool {
    let path = file("lines/00000000000000000001.lines", bytes);
    let directory = path.parent().unwrap();
    let Ok(Some(last)) = last_position(directory) else { return false };
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let batch = read_lines(directory, after, LINES_BYTES).unwrap();
        let Some(position) = batch.through() else { break };
        assert!(after.is_none_or(|after| position > after), "{position:?} after {after:?}");
        after = Some(position);
    }
    acknowledge_lines(directory, last).unwrap();
    true
}

/// Lines as a shim writes them: each body behind its length, and the checksum that no random change gets right.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut log = b"FLLINES1\x07\0\0\0\0\0\0\0".to_vec();
    let mut reader = Reader::new(bytes);
    while let Ok(body) = reader.bytes("body", limit::LOG_LINE_BYTES_MAX) {
        let length = u32::try_from(body.len().saturating_sub(LINE_HEAD_BYTES)).unwrap();
        log.extend_from_slice(&length.to_le_bytes());
        log.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        log.extend_from_slice(body);
    }
    log
}

/// The first byte says what the rest is taken for.
fn check(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else { return false };
    let coffee: WorkloadName = "coffee".parse().unwrap();
    match kind {
        0 => again!(record::decode_agent, record::encode_agent, rest),
        1 => again!(record::decode_workload, record::encode_workload, rest),
        2 => again!(record::decode_workload_floor, record::encode_workload_floor, rest),
        3 => again!(record::decode_flight, record::encode_flight, rest),
        4 => again!(record::decode_trust_floor, record::encode_trust_floor, rest),
        5 => again!(record::decode_kept, record::encode_kept, rest),
        6 => again!(record::decode_clock_floor, |floor: &ClockFloor| record::encode_clock_floor(*floor), rest),
        7 => match record::decode_spool(&coffee, rest) {
            Ok((spool, next)) => {
                let written = record::encode_spool(&spool, next);
                assert_eq!(record::decode_spool(&coffee, &written).ok(), Some((spool, next)));
                true
            }
            Err(_) => false,
        },
        8 => match record::decode_spool_entry(&coffee, rest) {
            Some((stream, batch)) => {
                assert_eq!(record::encode_spool_entry(&stream, &batch), rest, "an entry has one encoding");
                let _ = record::index_spool_entry(&coffee, 1, rest);
                true
            }
            None => false,
        },
        9 => record::decode_spool_row(&coffee, 1, rest).is_some(),
        10 => record::decode_root_chain(rest).is_ok(),
        b'c' => config(rest),
        b'l' => lines(rest),
        b'L' => lines(&with_checksums(rest)),
        _ => {
            let path = file("bundle.tar", rest);
            read_parts(&path).is_ok_and(|parts| read_flights(&path, &parts).is_ok())
        }
    }
}

fn samples() -> Vec<Vec<u8>> {
    let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let fleet = FleetId::from_bytes([1; 16]);
    let membership = Membership::Enrolled {
        fleet,
        device: DeviceId::from_bytes([2; 10]),
        name: "brisk-otter".parse().unwrap(),
        certificates: vec![vec![3; 20]],
    };
    let agent = AgentRecord { membership, dial_failures: 3, address: Some("fleet.example.com:4433".to_owned()) };
    let kept = [(vec![1_u8], vec![2_u8]), (vec![3], vec![])].into();
    let mut line = Vec::new();
    line.extend_from_slice(&1_u64.to_le_bytes());
    line.extend_from_slice(&1_764_000_000_000_i64.to_le_bytes());
    line.push(1);
    line.extend_from_slice(b"brewing");
    let mut log = b"FLLINES1".to_vec();
    log.extend_from_slice(&7_u64.to_le_bytes());
    log.extend_from_slice(&7_u32.to_le_bytes());
    log.extend_from_slice(&crc32fast::hash(&line).to_le_bytes());
    log.extend_from_slice(&line);
    let mut bodies = Writer::new();
    bodies.bytes(&line).bytes(&[[9_u8, 0, 0, 0, 0, 0, 0, 0].as_slice(), &line[8..]].concat());
    let toml = "data-directory = \"/data\"\nservers = [\"fleet.example:4433\"]\nspool-bytes-max = 2_000_000\n\
        [workload.coffee.environment]\nCUPS = \"7\"\n";
    vec![
        of(0, &record::encode_agent(&agent)),
        of(4, &record::encode_trust_floor(&TrustFloor { fleet, version: 7 })),
        of(5, &record::encode_kept(&kept)),
        of(6, &record::encode_clock_floor(ClockFloor(Wall(-1)))),
        of(1, &[]),
        of(2, &[]),
        of(b'c', toml.as_bytes()),
        of(b'l', &log),
        of(b'L', &bodies.finish()),
    ]
}

#[test]
fn every_sample_of_a_devices_files_is_one() {
    for (index, sample) in samples().iter().enumerate() {
        assert!(check(sample), "sample {index}");
    }
}

#[test]
fn any_bytes_are_a_devices_file_or_none() {
    bolero::check!(name = "device").with_iterations(CASES).for_each(|bytes| {
        check(bytes);
    });
}
