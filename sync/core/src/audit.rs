//! The audit log: who did what, in entries of which each holds the hash of the one before.
//!
//! A call leaves an [`Stage::Intent`] before it acts and a [`Stage::Outcome`] after it; what a device or the server
//! itself decides leaves one [`Stage::Whole`]. Whoever has noted the number and hash of one entry can tell later
//! whether anything up to it was changed, taken out or put in: [`Chain`] computes it again.
//!
//! An entry has one encoding, which is what lies in the store, travels and is hashed:
//!
//! | field | bytes | what |
//! |---|---|---|
//! | version | 1 | 1 |
//! | number | varint | from 1, without holes |
//! | previous | 32 | the hash of the entry before; of entry 1, [`origin`] |
//! | wall | signed varint | milliseconds since 1970 |
//! | quality | 1 | 0 nothing is known of the clock, 1 above its floor, 2 beacon, 3 synchronized |
//! | by | 1, fields | 0 the server; 1 a token: its id (10), and as text its name and role; 2 a device: its local id (16), then 0, or 1 and its enrolment token's id (10) |
//! | action | text | the RPC, `package.Service/Method`, or what the server did, `server/start` |
//! | subjects | count, text each | what it is about |
//! | stage | 1, fields | 0 intent: request id and request as text; 1 outcome: the number of its intent, an outcome; 2 whole: request as text, an outcome |
//!
//! An outcome is one byte, 0 done, 1 refused, 2 made, 3 unknown, and after a 1 the error's code as text. Text and counts
//! stand behind their length. The hash is BLAKE3 over `fleetd/audit-entry/1`, a NUL, and the encoding.

use std::fmt;

use crate::codec::{ReadError, Reader, Writer};
use crate::id::{AccessId, FleetId, LocalId, TokenId};
use crate::limit::{
    ACCESS_NAME_CHARS_MAX, AUDIT_REQUEST_BYTES_MAX, AUDIT_SUBJECT_BYTES_MAX, AUDIT_SUBJECTS_MAX, REQUEST_ID_CHARS_MAX,
};
use crate::time::{ClockQuality, Wall};

/// The version of the layout.
const VERSION: u8 = 1;
/// Bytes of a name of an action, a role or an error's code: all of them are ours, and shorter.
const NAME_BYTES_MAX: usize = 128;
/// Bytes that one character takes at most.
const CHAR_BYTES_MAX: usize = 4;
/// Ends a text that was cut.
const CUT: &str = "…";

/// The hash of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryHash([u8; 32]);

impl EntryHash {
    /// Takes the hash's bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of an encoded entry.
    #[must_use]
    pub fn of(entry: &[u8]) -> Self {
        Self(*blake3::Hasher::new().update(b"fleetd/audit-entry/1\0").update(entry).finalize().as_bytes())
    }
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no hash of an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not 64 hexadecimal digits")]
pub struct ParseEntryHashError {
    text: String,
}

impl std::str::FromStr for EntryHash {
    type Err = ParseEntryHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
        let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| ParseEntryHashError { text: text.to_owned() })
    }
}

/// What stands before the first entry of a fleet's log.
#[must_use]
pub fn origin(fleet: FleetId) -> EntryHash {
    EntryHash(*blake3::Hasher::new().update(b"fleetd/audit-origin/1\0").update(fleet.as_bytes()).finalize().as_bytes())
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The server, by itself.
    Server,
    /// A caller of the API.
    Token {
        /// The id of the access token.
        id: AccessId,
        /// Whose or what it is for.
        name: String,
        /// What it allowed at that time.
        role: String,
    },
    /// A device, which has proved its key.
    Device {
        /// The device.
        local: LocalId,
        /// The enrolment token that it showed, if it needed one.
        token: Option<TokenId>,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused or failed, and its caller was told this code.
    Refused(String),
    /// It was done, and its caller was not told: the caller had gone, or the server ended.
    Made,
    /// Nobody was told how it ended, and the store has no receipt of it.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Refused(code) => code,
            Self::Made => "made, not answered",
            Self::Unknown => "unknown, not answered",
        })
    }
}

/// Which part of a call an entry tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is about to act.
    Intent {
        /// What identifies the request across repetitions; may be empty.
        request_id: String,
        /// What was asked, without secrets.
        request: String,
    },
    /// It has ended.
    Outcome {
        /// The entry of its intent.
        intent: u64,
        /// How.
        outcome: Outcome,
    },
    /// All of it: it was decided, and nothing that could refuse it comes after.
    Whole {
        /// What was asked or done, without secrets.
        request: String,
        /// How it ended.
        outcome: Outcome,
    },
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// The hash of the entry before.
    pub previous: EntryHash,
    /// When it was written.
    pub at: Wall,
    /// How far that can be trusted.
    pub quality: ClockQuality,
    /// Who did it.
    pub by: By,
    /// What was called, or done.
    pub action: String,
    /// What it is about.
    pub subjects: Vec<String>,
    /// Which part of it this tells.
    pub stage: Stage,
}

/// Cuts a text to `bytes_max`, and says so at its end.
#[must_use]
pub fn shortened(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max.saturating_sub(CUT.len())));
        text.push_str(CUT);
    }
    text
}

impl Entry {
    /// Writes the entry. Texts that are too long are cut.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(VERSION).varint(self.number).array(&self.previous.0).signed(self.at.0).u8(quality(self.quality));
        write_by(&self.by, &mut writer);
        writer.text(&cut(&self.action, NAME_BYTES_MAX));
        let subjects = || self.subjects.iter().take(AUDIT_SUBJECTS_MAX);
        writer.count(subjects().count());
        for subject in subjects() {
            writer.text(&cut(subject, AUDIT_SUBJECT_BYTES_MAX));
        }
        match &self.stage {
            Stage::Intent { request_id, request } => {
                writer.u8(0).text(&cut(request_id, REQUEST_ID_CHARS_MAX * CHAR_BYTES_MAX));
                writer.text(&cut(request, AUDIT_REQUEST_BYTES_MAX));
            }
            Stage::Outcome { intent, outcome } => write_outcome(outcome, writer.u8(1).varint(*intent)),
            Stage::Whole { request, outcome } => {
                write_outcome(outcome, writer.u8(2).text(&cut(request, AUDIT_REQUEST_BYTES_MAX)));
            }
        }
        writer.finish()
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`ReadError`] when the bytes are none, or are not the one encoding that it has.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(ReadError::Value { what: "version", value: version.into() });
        }
        let number = reader.varint("number")?;
        let previous = EntryHash(reader.array("previous")?);
        let at = Wall(reader.signed("wall")?);
        let quality = read_quality(&mut reader)?;
        let by = read_by(&mut reader)?;
        let action = reader.text("action", NAME_BYTES_MAX)?.to_owned();
        let count = reader.count("subjects", AUDIT_SUBJECTS_MAX)?;
        let mut subjects = Vec::with_capacity(count);
        for _ in 0..count {
            subjects.push(reader.text("subject", AUDIT_SUBJECT_BYTES_MAX)?.to_owned());
        }
        let request = |reader: &mut Reader<'_>| Ok(reader.text("request", AUDIT_REQUEST_BYTES_MAX)?.to_owned());
        let stage = match reader.u8("stage")? {
            0 => {
                let request_id = reader.text("request id", REQUEST_ID_CHARS_MAX * CHAR_BYTES_MAX)?.to_owned();
                Stage::Intent { request_id, request: request(&mut reader)? }
            }
            1 => Stage::Outcome { intent: reader.varint("intent")?, outcome: read_outcome(&mut reader)? },
            2 => Stage::Whole { request: request(&mut reader)?, outcome: read_outcome(&mut reader)? },
            other => return Err(ReadError::Value { what: "stage", value: other.into() }),
        };
        reader.finish()?;
        Ok(Self { number, previous, at, quality, by, action, subjects, stage })
    }
}

fn cut(text: &str, bytes_max: usize) -> String {
    shortened(text.to_owned(), bytes_max)
}

const fn quality(quality: ClockQuality) -> u8 {
    match quality {
        ClockQuality::None => 0,
        ClockQuality::Floor => 1,
        ClockQuality::Beacon => 2,
        ClockQuality::Synced => 3,
    }
}

fn read_quality(reader: &mut Reader<'_>) -> Result<ClockQuality, ReadError> {
    Ok(match reader.u8("quality")? {
        0 => ClockQuality::None,
        1 => ClockQuality::Floor,
        2 => ClockQuality::Beacon,
        3 => ClockQuality::Synced,
        other => return Err(ReadError::Value { what: "quality", value: other.into() }),
    })
}

fn write_by(by: &By, writer: &mut Writer) {
    match by {
        By::Server => {
            writer.u8(0);
        }
        By::Token { id, name, role } => {
            writer.u8(1).array(id.as_bytes()).text(&cut(name, ACCESS_NAME_CHARS_MAX * CHAR_BYTES_MAX));
            writer.text(&cut(role, NAME_BYTES_MAX));
        }
        By::Device { local, token } => {
            writer.u8(2).array(local.as_bytes()).boolean(token.is_some());
            if let Some(token) = token {
                writer.array(token.as_bytes());
            }
        }
    }
}

fn read_by(reader: &mut Reader<'_>) -> Result<By, ReadError> {
    Ok(match reader.u8("by")? {
        0 => By::Server,
        1 => By::Token {
            id: AccessId::from_bytes(reader.array("access id")?),
            name: reader.text("name", ACCESS_NAME_CHARS_MAX * CHAR_BYTES_MAX)?.to_owned(),
            role: reader.text("role", NAME_BYTES_MAX)?.to_owned(),
        },
        2 => {
            let local = LocalId::from_bytes(reader.array("local id")?);
            let token = match reader.boolean("has token")? {
                true => Some(TokenId::from_bytes(reader.array("token id")?)),
                false => None,
            };
            By::Device { local, token }
        }
        other => return Err(ReadError::Value { what: "by", value: other.into() }),
    })
}

fn write_outcome(outcome: &Outcome, writer: &mut Writer) {
    match outcome {
        Outcome::Done => writer.u8(0),
        Outcome::Refused(code) => writer.u8(1).text(&cut(code, NAME_BYTES_MAX)),
        Outcome::Made => writer.u8(2),
        Outcome::Unknown => writer.u8(3),
    };
}

fn read_outcome(reader: &mut Reader<'_>) -> Result<Outcome, ReadError> {
    Ok(match reader.u8("outcome")? {
        0 => Outcome::Done,
        1 => Outcome::Refused(reader.text("code", NAME_BYTES_MAX)?.to_owned()),
        2 => Outcome::Made,
        3 => Outcome::Unknown,
        other => return Err(ReadError::Value { what: "outcome", value: other.into() }),
    })
}

/// Why an entry does not follow those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakError {
    /// It is no entry.
    #[error("what stands for entry {number} cannot be read")]
    Unreadable {
        /// Which one was expected.
        number: u64,
        /// What is wrong with it.
        source: ReadError,
    },
    /// Another number was expected.
    #[error("entry {expected} is missing: entry {found} comes in its place")]
    Number {
        /// Which one was expected.
        expected: u64,
        /// Which one came.
        found: u64,
    },
    /// It was written above another entry.
    #[error("entry {number} was written above another entry {before} than the one that is there")]
    Previous {
        /// Which one.
        number: u64,
        /// The number of the one before.
        before: u64,
    },
}

/// A chain of entries, as far as it was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    last: u64,
    head: EntryHash,
}

impl Chain {
    /// Begins behind the entry `last`, whose hash is `head`: behind entry 0 is the beginning.
    #[must_use]
    pub const fn after(last: u64, head: EntryHash) -> Self {
        Self { last, head }
    }

    /// The last entry's number.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The last entry's hash.
    #[must_use]
    pub const fn head(&self) -> EntryHash {
        self.head
    }

    /// Takes the next entry, when it follows.
    ///
    /// # Errors
    /// [`BreakError`]; the chain is as before then.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<Entry, BreakError> {
        let number = self.last.saturating_add(1);
        let entry = Entry::decode(bytes).map_err(|source| BreakError::Unreadable { number, source })?;
        if entry.number != number {
            return Err(BreakError::Number { expected: number, found: entry.number });
        }
        if entry.previous != self.head {
            return Err(BreakError::Previous { number, before: self.last });
        }
        (self.last, self.head) = (number, EntryHash::of(bytes));
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(number: u64, previous: EntryHash, stage: Stage) -> Entry {
        Entry {
            number,
            previous,
            at: Wall(1_800_000_000_000),
            quality: ClockQuality::Synced,
            by: By::Token { id: AccessId::from_bytes([3; 10]), name: "ana".to_owned(), role: "admin".to_owned() },
            action: "fleetd.device.v1.DeviceService/RevokeDevice".to_owned(),
            subjects: vec!["kitchen".to_owned()],
            stage,
        }
    }

    fn chain_of_three() -> (EntryHash, Vec<Vec<u8>>) {
        let origin = origin(FleetId::from_bytes([7; 16]));
        let intent = Stage::Intent { request_id: "r1".to_owned(), request: r#"{"device":"kitchen"}"#.to_owned() };
        let first = entry(1, origin, intent).encode();
        let second = Stage::Outcome { intent: 1, outcome: Outcome::Refused("device.unknown".to_owned()) };
        let second = entry(2, EntryHash::of(&first), second).encode();
        let whole = Stage::Whole { request: String::new(), outcome: Outcome::Done };
        let mut third = entry(3, EntryHash::of(&second), whole);
        third.by = By::Device { local: LocalId::from_bytes([9; 16]), token: Some(TokenId::from_bytes([4; 10])) };
        (origin, vec![first, second, third.encode()])
    }

    #[test]
    fn entries_have_the_layout_that_is_written_down() {
        let (_, entries) = chain_of_three();
        let text = entries.iter().map(|entry| data_encoding::HEXLOWER.encode(entry) + "\n").collect::<String>();
        let hashes = entries.iter().map(|entry| format!("{}\n", EntryHash::of(entry))).collect::<String>();
        expect_test::expect_file!["../tests/golden/audit.txt"].assert_eq(&(text + &hashes));
    }

    #[test]
    fn a_chain_is_followed_and_nothing_else() {
        let (origin, entries) = chain_of_three();
        let mut chain = Chain::after(0, origin);
        for bytes in &entries {
            let read = chain.follow(bytes).unwrap();
            assert_eq!(&read.encode(), bytes);
        }
        assert_eq!((chain.last(), chain.head()), (3, EntryHash::of(&entries[2])));

        let follow_all = |entries: &[Vec<u8>]| {
            let mut chain = Chain::after(0, origin);
            entries.iter().map(|bytes| chain.follow(bytes)).find_map(Result::err)
        };
        let mut changed = entries.clone();
        let at = changed[0].windows(7).position(|window| window == b"kitchen").unwrap();
        changed[0][at] = b'K';
        assert_eq!(follow_all(&changed), Some(BreakError::Previous { number: 2, before: 1 }));
        let taken_out = [entries[0].clone(), entries[2].clone()];
        assert_eq!(follow_all(&taken_out), Some(BreakError::Number { expected: 2, found: 3 }));
        let cut = [entries[0].clone(), entries[1][1..].to_vec()];
        assert!(matches!(follow_all(&cut), Some(BreakError::Unreadable { number: 2, .. })));
    }

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = EntryHash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for text in ["", "12", &"g".repeat(64), &"a".repeat(63)] {
            assert!(text.parse::<EntryHash>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_noted_is_read_again(name in ".{0,80}", subject in ".{0,200}", request in ".{0,3000}", number: u64, at: i64) {
            let stage = Stage::Whole { request, outcome: Outcome::Refused(subject.clone()) };
            let mut entry = entry(number, EntryHash::of(b""), stage);
            (entry.at, entry.action) = (Wall(at), name.clone());
            entry.subjects = vec![subject; 6];
            entry.by = By::Token { id: AccessId::from_bytes([0; 10]), name, role: "viewer".to_owned() };
            let bytes = entry.encode();
            prop_assert!(bytes.len() < 4096, "{}", bytes.len());
            prop_assert_eq!(Entry::decode(&bytes).unwrap().encode(), bytes);
        }

        #[test]
        fn bytes_that_are_read_are_the_only_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }
    }
}
