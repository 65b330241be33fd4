//! How one value lies in the database: its key, a version byte, a checksum, the revision that wrote it.
//!
//! The database's own checksums cover blocks and journal batches, and a damaged journal can still open with values
//! missing or replaced. So each value proves itself: the checksum covers its key, too, and a value that lies under
//! a key it was not written for does not pass.

use fleetd_sync_core::commit::{Revision, Space};

use crate::state_store::{ReadError, Versioned};

/// Layout of a value that this code writes. The number is on disk: append a reader, never renumber.
const VALUE_VERSION: u8 = 1;
/// Version byte, checksum and revision.
const HEADER_BYTES: usize = 1 + 4 + 8;
/// Keys of log states begin with this byte, which no space has.
const LOG_PREFIX: u8 = 0xFE;
/// Keys of the store's own facts begin with this byte, which no space has.
const STORE_PREFIX: u8 = 0xFF;

/// The key under which the number of the newest commit lies.
pub(crate) const REVISION_KEY: &[u8] = &[STORE_PREFIX, b'r'];

/// The key of a record: its space's number, then its own key.
pub(crate) fn record_key(space: Space, key: &[u8]) -> Vec<u8> {
    prefixed(space as u8, key)
}

/// The first key after all of a space's.
pub(crate) fn space_end(space: Space) -> Vec<u8> {
    vec![space as u8 + 1]
}

/// The key of a log's state.
pub(crate) fn log_key(log: &str) -> Vec<u8> {
    prefixed(LOG_PREFIX, log.as_bytes())
}

/// The first key after all log states.
pub(crate) const LOGS_END: &[u8] = &[STORE_PREFIX];

/// The first key after everything.
pub(crate) const STORE_END: &[u8] = &[STORE_PREFIX, u8::MAX];

/// The log that a state's key names.
pub(crate) fn log_of_key(raw_key: &[u8]) -> Option<&str> {
    match raw_key.split_first() {
        Some((&LOG_PREFIX, name)) => std::str::from_utf8(name).ok(),
        _ => None,
    }
}

fn prefixed(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut raw_key = Vec::with_capacity(key.len() + 1);
    raw_key.push(prefix);
    raw_key.extend_from_slice(key);
    raw_key
}

fn checksum(raw_key: &[u8], revision: Revision, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(raw_key);
    hasher.update(&revision.0.to_le_bytes());
    hasher.update(value);
    hasher.finalize()
}

/// Frames a value for `raw_key`.
pub(crate) fn encode(raw_key: &[u8], revision: Revision, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + value.len());
    bytes.push(VALUE_VERSION);
    bytes.extend_from_slice(&checksum(raw_key, revision, value).to_le_bytes());
    bytes.extend_from_slice(&revision.0.to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// Reads a framed value that lies under `raw_key`.
pub(crate) fn decode(raw_key: &[u8], bytes: &[u8]) -> Result<Versioned, ReadError> {
    let damaged = |problem: &'static str| ReadError::Damaged { place: describe(raw_key), problem };
    let (&version, rest) = bytes.split_first().ok_or_else(|| damaged("the value is empty"))?;
    if version != VALUE_VERSION {
        return Err(damaged("the value has a version that this code does not know"));
    }
    let (sum, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("the value is cut"))?;
    let (revision, value) = rest.split_first_chunk::<8>().ok_or_else(|| damaged("the value is cut"))?;
    let revision = Revision(u64::from_le_bytes(*revision));
    if u32::from_le_bytes(*sum) != checksum(raw_key, revision, value) {
        return Err(damaged("the checksum does not match"));
    }
    Ok(Versioned { value: value.to_vec(), revision })
}

/// Names the place of a key for people.
fn describe(raw_key: &[u8]) -> String {
    match raw_key.split_first() {
        Some((&LOG_PREFIX, name)) => format!("the state of log {}", name.escape_ascii()),
        Some((&STORE_PREFIX, name)) => format!("the store's own {}", name.escape_ascii()),
        Some((&number, key)) => {
            let space = Space::ALL.into_iter().find(|space| *space as u8 == number);
            match space {
                Some(space) => format!("{space:?} {}", key.escape_ascii()),
                None => format!("unknown space {number} {}", key.escape_ascii()),
            }
        }
        None => "the empty key".to_owned(),
    }
}

/// Where a log stands: what was not yet forgotten, and what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogState {
    /// The first entry that was not forgotten.
    pub(crate) first: u64,
    /// The number of the entry after the last.
    pub(crate) next: u64,
}

impl LogState {
    /// The state as a value.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (first, next) = bytes.split_at_mut(8);
        first.copy_from_slice(&self.first.to_le_bytes());
        next.copy_from_slice(&self.next.to_le_bytes());
        bytes
    }

    /// Reads the framed state that lies under `raw_key`.
    pub(crate) fn decode(raw_key: &[u8], bytes: &[u8]) -> Result<Self, ReadError> {
        let value = decode(raw_key, bytes)?.value;
        let state = value.split_first_chunk::<8>().and_then(|(first, next)| {
            let next: [u8; 8] = next.try_into().ok()?;
            Some(Self { first: u64::from_le_bytes(*first), next: u64::from_le_bytes(next) })
        });
        state.ok_or_else(|| ReadError::Damaged { place: describe(raw_key), problem: "the value is no log state" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flipped_bit_of_a_value_passes() {
        let key = record_key(Space::Device, b"loc_1");
        let bytes = encode(&key, Revision(7), b"brisk-otter");
        assert_eq!(decode(&key, &bytes), Ok(Versioned { value: b"brisk-otter".to_vec(), revision: Revision(7) }));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&key, &flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&key, &bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_value_under_a_foreign_key_does_not_pass() {
        let bytes = encode(&record_key(Space::Device, b"loc_1"), Revision(7), b"brisk-otter");
        let error = decode(&record_key(Space::Device, b"loc_2"), &bytes).unwrap_err();
        assert_eq!(error.to_string(), "Device loc_2 is damaged: the checksum does not match");
    }

    #[test]
    fn no_space_reaches_the_stores_own_keys() {
        assert!(Space::ALL.into_iter().all(|space| (space as u8) < LOG_PREFIX - 1));
    }
}
