//! A few bytes that must survive any power cut and the loss of the database: two slots, written in turn.
//!
//! Each slot holds a generation, the bytes and a BLAKE3 hash over both. Writing replaces the older slot, so that a
//! torn write leaves the newer one untouched; reading takes the newest that is whole. The first write fills both
//! slots, so that from then on two slots that are both torn mean damage, and never "nothing was written yet".

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Begins a slot; the last byte is its layout's number.
const MAGIC: [u8; 8] = *b"fleetab\x01";
/// Bytes that a slot can hold: a root chain is the largest thing that lies in one.
pub const AB_FILE_BYTES_MAX: usize = 4 << 20;
/// Keys lie in such files.
const MODE: u32 = 0o600;

/// Why an A/B file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadAbFileError {
    /// Both slots are there and neither is whole.
    #[error("both slots of {path} are damaged")]
    Damaged {
        /// The file, without its slot's suffix.
        path: PathBuf,
    },
    /// The operating system failed.
    #[error("{path} cannot be read")]
    Io {
        /// The slot.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
}

/// Why an A/B file could not be written. What was stored before is still there.
#[derive(Debug, thiserror::Error)]
pub enum StoreAbFileError {
    /// More bytes than a slot may hold.
    #[error("{found} bytes do not fit a slot of {limit}")]
    TooLarge {
        /// How many were given.
        found: usize,
        /// How many fit.
        limit: usize,
    },
    /// What is there cannot be read, so it is not known which slot is the older.
    #[error("what is stored cannot be read")]
    Load(#[from] LoadAbFileError),
    /// The operating system failed.
    #[error("{path} cannot be written")]
    Io {
        /// The slot.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
}

/// A file in two slots, `NAME.a` and `NAME.b`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbFile {
    path: PathBuf,
}

/// A slot as it is found.
enum Slot {
    Absent,
    Torn,
    Whole { generation: u64, bytes: Vec<u8> },
}

impl Slot {
    fn generation(&self) -> Option<u64> {
        match self {
            Self::Whole { generation, .. } => Some(*generation),
            Self::Absent | Self::Torn => None,
        }
    }
}

impl AbFile {
    /// Names a file; nothing is read or written yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads the file at `path`; `None` when nothing was ever stored there.
    ///
    /// # Errors
    /// [`LoadAbFileError::Damaged`]: both slots are there and neither is whole. [`LoadAbFileError::Io`]: the
    /// operating system failed.
    pub fn load(path: impl Into<PathBuf>) -> Result<Option<Vec<u8>>, LoadAbFileError> {
        Self::new(path).read()
    }

    /// Reads the newest bytes that were stored; `None` when nothing ever was.
    ///
    /// # Errors
    /// Those of [`AbFile::load`].
    pub fn read(&self) -> Result<Option<Vec<u8>>, LoadAbFileError> {
        let slots = self.slots()?;
        if slots.iter().all(|slot| matches!(slot, Slot::Torn)) {
            return Err(LoadAbFileError::Damaged { path: self.path.clone() });
        }
        let newest = slots.into_iter().filter_map(|slot| match slot {
            Slot::Whole { generation, bytes } => Some((generation, bytes)),
            Slot::Absent | Slot::Torn => None,
        });
        Ok(newest.max_by_key(|(generation, _)| *generation).map(|(_, bytes)| bytes))
    }

    /// Stores `bytes`, durably, in place of the older slot.
    ///
    /// # Errors
    /// [`StoreAbFileError`]: too many bytes, or the operating system failed; what was stored before is still there.
    pub fn store(&self, bytes: &[u8]) -> Result<(), StoreAbFileError> {
        if bytes.len() > AB_FILE_BYTES_MAX {
            return Err(StoreAbFileError::TooLarge { found: bytes.len(), limit: AB_FILE_BYTES_MAX });
        }
        let [a, b] = self.slots()?;
        let next = |newest: u64| newest.saturating_add(1);
        match (a.generation(), b.generation()) {
            (Some(a), Some(b)) if b > a => self.write_slot("a", next(b), bytes),
            (Some(a), _) => self.write_slot("b", next(a), bytes),
            (None, Some(b)) => self.write_slot("a", next(b), bytes),
            (None, None) => {
                // Two torn slots are replaced, too: whoever stores has decided what shall hold from now on.
                self.write_slot("a", 1, bytes)?;
                self.write_slot("b", 1, bytes)
            }
        }
    }

    /// Stores `bytes` in both slots, so that what stood before is nowhere any more.
    ///
    /// # Errors
    /// Those of [`AbFile::store`].
    pub fn replace(&self, bytes: &[u8]) -> Result<(), StoreAbFileError> {
        self.store(bytes)?;
        self.store(bytes)
    }

    fn slot_path(&self, slot: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(slot);
        self.path.with_file_name(name)
    }

    fn slots(&self) -> Result<[Slot; 2], LoadAbFileError> {
        Ok([self.read_slot("a")?, self.read_slot("b")?])
    }

    fn read_slot(&self, slot: &str) -> Result<Slot, LoadAbFileError> {
        let path = self.slot_path(slot);
        match fs::read(&path) {
            Ok(bytes) => Ok(decode(&bytes)),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Slot::Absent),
            Err(source) => Err(LoadAbFileError::Io { path, source }),
        }
    }

    fn write_slot(&self, slot: &str, generation: u64, bytes: &[u8]) -> Result<(), StoreAbFileError> {
        let path = self.slot_path(slot);
        write_synced(&path, &encode(generation, bytes)).map_err(|source| StoreAbFileError::Io { path, source })
    }
}

fn encode(generation: u64, bytes: &[u8]) -> Vec<u8> {
    let mut slot = Vec::with_capacity(MAGIC.len() + 8 + bytes.len() + blake3::OUT_LEN);
    slot.extend_from_slice(&MAGIC);
    slot.extend_from_slice(&generation.to_le_bytes());
    slot.extend_from_slice(bytes);
    let hash = blake3::hash(&slot);
    slot.extend_from_slice(hash.as_bytes());
    slot
}

fn decode(slot: &[u8]) -> Slot {
    let whole = || {
        let (content, hash) = slot.split_last_chunk::<{ blake3::OUT_LEN }>()?;
        let (generation, bytes) = content.strip_prefix(&MAGIC)?.split_first_chunk::<8>()?;
        let is_whole = blake3::hash(content) == blake3::Hash::from_bytes(*hash);
        is_whole.then(|| Slot::Whole { generation: u64::from_le_bytes(*generation), bytes: bytes.to_vec() })
    };
    whole().unwrap_or(Slot::Torn)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // The parent of a relative name is the empty path.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod fuzz {
    //! A slot: whatever a torn write, flash or a stranger left in it.

    use super::*;

    /// The first byte says whether the hash behind the rest is put right.
    fn check(bytes: &[u8]) -> bool {
        let Some((kind, rest)) = bytes.split_first() else { return false };
        let slot = match kind {
            0 => [rest, blake3::hash(rest).as_bytes()].concat(),
            _ => rest.to_vec(),
        };
        let Slot::Whole { generation, bytes } = decode(&slot) else { return false };
        assert_eq!(encode(generation, &bytes), slot, "a slot has one encoding");
        true
    }

    #[test]
    fn every_sample_of_a_slot_is_one() {
        let slot = encode(7, b"a floor");
        assert!(check(&[&[1], slot.as_slice()].concat()));
        assert!(check(&[&[0], &slot[..slot.len() - blake3::OUT_LEN]].concat()));
    }

    #[test]
    fn any_bytes_are_one_slot_or_torn() {
        bolero::check!(name = "ab_file").with_iterations(2000).for_each(|bytes| {
            check(bytes);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir) -> AbFile {
        AbFile::new(folder.path().join("key"))
    }

    /// Leaves a slot as a power cut would that met a write of `bytes` after `length` of them.
    fn tear(file: &AbFile, slot: &str, bytes: &[u8], length: usize) {
        fs::write(file.slot_path(slot), &bytes[..length]).unwrap();
    }

    #[test]
    fn a_write_torn_at_any_byte_leaves_what_was_stored_before() {
        let folder = tempfile::tempdir().unwrap();
        for stored in 1..=3_u64 {
            let file = file(&folder);
            for generation in 1..=stored {
                file.store(format!("value {generation}").as_bytes()).unwrap();
            }
            let before = file.read().unwrap().unwrap();
            assert_eq!(before, format!("value {stored}").as_bytes());
            let images: Vec<Vec<u8>> = ["a", "b"].map(|slot| fs::read(file.slot_path(slot)).unwrap()).into();
            file.store(b"the next").unwrap();
            let next: Vec<Vec<u8>> = ["a", "b"].map(|slot| fs::read(file.slot_path(slot)).unwrap()).into();
            let written = if images[0] == next[0] { 1 } else { 0 };
            assert_eq!(images[1 - written], next[1 - written], "one slot is written at a time");
            for length in 0..next[written].len() {
                tear(&file, ["a", "b"][written], &next[written], length);
                assert_eq!(file.read().unwrap().unwrap(), before, "cut at {length}");
            }
            tear(&file, ["a", "b"][written], &next[written], next[written].len());
            assert_eq!(file.read().unwrap().unwrap(), b"the next");
            fs::remove_file(file.slot_path("a")).unwrap();
            fs::remove_file(file.slot_path("b")).unwrap();
        }
    }

    #[test]
    fn a_first_write_torn_at_any_byte_was_never_stored_and_can_be_done_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        assert_eq!(file.read().unwrap(), None);
        let slot = encode(1, b"key");
        for length in 0..slot.len() {
            tear(&file, "a", &slot, length);
            assert_eq!(file.read().unwrap(), None, "cut at {length}");
            // Then the second slot: the first one is whole.
            tear(&file, "a", &slot, slot.len());
            tear(&file, "b", &slot, length);
            assert_eq!(file.read().unwrap().unwrap(), b"key", "cut at {length}");
            fs::remove_file(file.slot_path("b")).unwrap();
        }
        tear(&file, "a", &slot, 3);
        file.store(b"key").unwrap();
        assert_eq!(file.read().unwrap().unwrap(), b"key");
    }

    #[test]
    fn two_damaged_slots_are_an_error_and_not_an_empty_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        file.store(b"key").unwrap();
        for slot in ["a", "b"] {
            let mut bytes = fs::read(file.slot_path(slot)).unwrap();
            bytes[20] ^= 1;
            fs::write(file.slot_path(slot), bytes).unwrap();
        }
        assert!(matches!(file.read(), Err(LoadAbFileError::Damaged { .. })));
    }

    #[test]
    fn any_flipped_bit_of_the_newer_slot_gives_the_older() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        file.store(b"old").unwrap();
        file.store(b"new").unwrap();
        let whole = fs::read(file.slot_path("b")).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(file.slot_path("b"), flipped).unwrap();
            assert_eq!(file.read().unwrap().unwrap(), b"old", "bit {bit}");
        }
    }

    #[test]
    fn only_the_owner_may_read_a_slot_and_replaced_bytes_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder);
        file.store(b"a secret that must go").unwrap();
        file.replace(b"nothing").unwrap();
        for slot in ["a", "b"] {
            let path = file.slot_path(slot);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(8).any(|window| window == b"a secret"));
        }
        assert!(matches!(file.store(&vec![0; AB_FILE_BYTES_MAX + 1]), Err(StoreAbFileError::TooLarge { .. })));
    }
}
