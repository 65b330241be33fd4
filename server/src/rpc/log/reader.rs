//! One workload's log on the way to a caller, and the places from which a reading goes on.

use std::collections::{BTreeMap, VecDeque};

use fleetd_actors::log_record::LogRecord;
use fleetd_proto::fleetd::log::v1::{self as log, LogGapReason, read_logs_response::Entry};
use fleetd_sync_core::codec::{ReadError as ReadCodecError, Reader, Writer};
use fleetd_sync_core::time::Wall;
use fleetd_sync_store::state_store::{LogPart, ReadError, StateStore};

use super::super::call_error::CallError;
use super::super::convert::log::{Origin, entry as entry_of};
use super::super::page::{decode_token, encode_token};
use crate::driver::LogStoreKey;
use crate::record::log::{decode_entry, log_name};

/// Bytes of a log that are read at once.
const READ_BYTES: usize = 256 << 10;
/// Bytes of a log's name in a token.
const NAME_BYTES_MAX: usize = 128;
/// Logs in one token.
const PLACES_MAX: usize = 100_000;

/// A place in a log: so many records of this entry have been given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    entry: u64,
    records: u64,
}

/// A record, ready to be given.
pub(super) struct ReadRecord {
    /// Its log.
    pub(super) log: String,
    /// When it was written.
    at: Wall,
    /// The place behind it.
    pub(super) place: Place,
    /// What the API says of it.
    pub(super) entry: Entry,
}

/// One workload's log on the way to a caller.
pub(super) struct LogReader {
    key: LogStoreKey,
    name: String,
    origin: Origin,
    /// Where to read on.
    next: Place,
    /// How far the caller was given it.
    pub(super) given: Place,
    read: VecDeque<ReadRecord>,
    /// The time of the last line: that of gaps behind it.
    last_at: Wall,
}

impl LogReader {
    pub(super) fn new(key: LogStoreKey, origin: Origin, place: Place) -> Self {
        let name = log_name(&key);
        Self { key, name, origin, next: place, given: place, read: VecDeque::new(), last_at: Wall(i64::MIN) }
    }

    /// Leaves out what cannot be among the last records: each entry has one at least.
    pub(super) fn skip_to_last(&mut self, store: &dyn StateStore, records: usize) -> Result<(), ReadError> {
        if let Some((first, last)) = store.log_range(&self.name)? {
            let records = u64::try_from(records).unwrap_or(u64::MAX);
            let entry = (last + 1).saturating_sub(records).max(first);
            self.next = Place { entry, records: 0 };
            self.given = self.next;
        }
        Ok(())
    }

    /// When the next record was written, if there is one.
    pub(super) fn peek(&mut self, store: &dyn StateStore) -> Result<Option<Wall>, ReadError> {
        while self.read.is_empty() {
            let parts = store.read_log(&self.name, self.next.entry, READ_BYTES)?;
            if parts.is_empty() {
                return Ok(None);
            }
            parts.into_iter().for_each(|part| self.take_part(part));
        }
        Ok(self.read.front().map(|read| read.at))
    }

    /// Takes the record that was seen.
    pub(super) fn take(&mut self) -> Option<ReadRecord> {
        self.read.pop_front()
    }

    fn take_part(&mut self, part: LogPart) {
        match part {
            LogPart::Entry { sequence, entry } => {
                let given = if sequence == self.next.entry { self.next.records } else { 0 };
                match decode_entry(&entry) {
                    Ok((stream, batch)) => {
                        let mut number = batch.sequence_first;
                        for (index, record) in (1..).zip(&batch.records) {
                            if let LogRecord::Line(line) = record {
                                self.last_at = line.time;
                            }
                            if index > given {
                                let entry = entry_of(&self.origin, &stream, number, record);
                                self.push(Place { entry: sequence, records: index }, entry);
                            }
                            number = number.saturating_add(record.span());
                        }
                    }
                    Err(error) => self.lose(sequence, &error),
                }
                self.next = Place { entry: sequence + 1, records: 0 };
            }
            LogPart::Gap { first, last } => {
                tracing::error!(log = self.name, first, last, "entries of a log were lost to damage");
                self.push_gap(Place { entry: last + 1, records: 0 });
                self.next = Place { entry: last + 1, records: 0 };
            }
        }
    }

    fn lose(&mut self, sequence: u64, error: &ReadCodecError) {
        tracing::error!(log = self.name, entry = sequence, %error, "an entry of a log cannot be read");
        self.push_gap(Place { entry: sequence + 1, records: 0 });
    }

    /// Says that lines are missing whose numbers nobody knows any more.
    fn push_gap(&mut self, place: Place) {
        let gap = log::LogGap {
            device_id: self.origin.device_id.clone(),
            device_name: self.origin.device_name.clone(),
            workload: self.key.workload.to_string(),
            reason: LogGapReason::Damaged.into(),
            ..log::LogGap::default()
        };
        self.push(place, Entry::Gap(gap));
    }

    fn push(&mut self, place: Place, entry: Entry) {
        self.read.push_back(ReadRecord { log: self.name.clone(), at: self.last_at, place, entry });
    }
}

/// Writes the places of several logs.
pub(super) fn write_places<'a>(places: impl ExactSizeIterator<Item = (&'a str, Place)>) -> String {
    let mut writer = Writer::new();
    writer.count(places.len());
    for (name, place) in places {
        writer.text(name).varint(place.entry).varint(place.records);
    }
    encode_token(&writer.finish())
}

/// Reads the places of several logs; none from an empty token.
pub(super) fn read_places(token: &str) -> Result<BTreeMap<String, Place>, CallError> {
    let field = "resume_token";
    let Some(bytes) = decode_token(token, field)? else { return Ok(BTreeMap::new()) };
    let invalid = |error: ReadCodecError| CallError::Invalid { field, cause: error.to_string() };
    let mut reader = Reader::new(&bytes);
    let mut places = BTreeMap::new();
    for _ in 0..reader.count("places", PLACES_MAX).map_err(invalid)? {
        let name = reader.text("log", NAME_BYTES_MAX).map_err(invalid)?.to_owned();
        let entry = reader.varint("entry").map_err(invalid)?;
        places.insert(name, Place { entry, records: reader.varint("records").map_err(invalid)? });
    }
    reader.finish().map_err(invalid)?;
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_survive_their_token() {
        let places = BTreeMap::from([
            ("loc_1.coffee".to_owned(), Place { entry: 7, records: 300 }),
            ("loc_2.tea".to_owned(), Place::default()),
        ]);
        let token = write_places(places.iter().map(|(name, place)| (name.as_str(), *place)));
        assert_eq!(read_places(&token).unwrap(), places);
        assert_eq!(read_places("").unwrap(), BTreeMap::new());
        assert!(matches!(read_places(&token[..6]), Err(CallError::Invalid { field: "resume_token", .. })));
    }
}
