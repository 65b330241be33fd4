//! What the twin's store lies on: a table and files that forget what was not synced when the power goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use fleetd_sync_core::entropy::Entropy;

use crate::segment_log::files::Files;
use crate::table::{Table, Visit, Write};
use crate::unpoison::Unpoison;

/// How a commit is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The medium fails (EIO): the store takes no more commits until it is opened again.
    Io,
    /// No space is left (ENOSPC): later commits may succeed.
    Full,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::other("input/output error"),
            Self::Full => io::Error::from(io::ErrorKind::StorageFull),
        }
    }
}

/// Durable state, as a backup would copy it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    table: BTreeMap<Vec<u8>, Vec<u8>>,
    files: BTreeMap<Name, Vec<u8>>,
}

#[cfg(test)]
impl Image {
    /// An image that no store has written.
    pub(super) fn of(table: BTreeMap<Vec<u8>, Vec<u8>>, files: BTreeMap<Name, Vec<u8>>) -> Self {
        Self { table, files }
    }

    /// Its records.
    pub(super) fn table(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.table.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }

    /// The names of its files in their logs, and what they hold.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|((_, name), bytes)| (name.as_str(), bytes.as_slice()))
    }
}

/// A log and a file in its folder.
type Name = (String, String);

#[derive(Clone, Debug, Default)]
struct FileContent {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// What was synced has since been cut or written over, rather than appended to.
    is_changed: bool,
}

impl FileContent {
    fn new(bytes: Vec<u8>) -> Self {
        Self { synced: bytes.clone(), written: bytes, is_changed: false }
    }

    fn sync(&mut self) {
        if self.is_changed {
            self.synced.clone_from(&self.written);
        } else {
            self.synced.extend(self.written.iter().skip(self.synced.len()));
        }
        self.is_changed = false;
    }
}

/// A table and files with their layers of durability, and the faults that were ordered.
#[derive(Debug, Default)]
pub(super) struct Medium {
    table: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A commit that was written and not synced when the power failed.
    table_unsynced: Option<Vec<Write>>,
    contents: BTreeMap<u64, FileContent>,
    next_content: u64,
    /// Names as a running process sees them.
    names: BTreeMap<Name, u64>,
    /// Names as a power cut leaves them.
    names_synced: BTreeMap<Name, u64>,
    /// Counts openings; operations of any but the present one fail.
    pub(super) opening: u64,
    pub(super) is_open: bool,
    pub(super) will_not_open: bool,
    pub(super) commit_fault: Option<Fault>,
    pub(super) append_fault: Option<Fault>,
    /// Writing operations left until the power fails.
    pub(super) operations_left: Option<u64>,
    failure: Option<String>,
}

impl Medium {
    pub(super) fn from_image(image: &Image) -> Self {
        let mut medium = Self::default();
        medium.restore(image);
        medium
    }

    pub(super) fn restore(&mut self, image: &Image) {
        *self = Self { opening: self.opening, is_open: self.is_open, ..Self::default() };
        self.table = image.table.clone();
        for (name, bytes) in &image.files {
            let id = self.add_content(FileContent::new(bytes.clone()));
            self.names.insert(name.clone(), id);
        }
        self.names_synced = self.names.clone();
    }

    pub(super) fn image(&self) -> Image {
        let content = |id: &u64| self.contents.get(id).map(|content| content.synced.clone()).unwrap_or_default();
        let files = self.names_synced.iter().map(|(name, id)| (name.clone(), content(id))).collect();
        Image { table: self.table.clone(), files }
    }

    /// Opens a new session on the medium.
    pub(super) fn open(&mut self) -> u64 {
        self.opening += 1;
        self.is_open = true;
        self.failure = None;
        self.operations_left = None;
        self.opening
    }

    /// The process is gone; the operating system still writes what it was given.
    pub(super) fn kill(&mut self) {
        self.is_open = false;
        if let Some(writes) = self.table_unsynced.take() {
            self.write_table(writes);
        }
        for content in self.contents.values_mut() {
            content.sync();
        }
        self.names_synced = self.names.clone();
    }

    /// The power is gone: of what was not synced, `entropy` decides what reached the medium.
    pub(super) fn crash(&mut self, entropy: &mut Entropy) {
        self.is_open = false;
        if let Some(writes) = self.table_unsynced.take()
            && entropy.below(2) == 0
        {
            self.write_table(writes);
        }
        for content in self.contents.values_mut() {
            *content = FileContent::new(torn(content, entropy));
        }
        let all: BTreeSet<Name> = self.names.keys().chain(self.names_synced.keys()).cloned().collect();
        for name in all {
            let (new, old) = (self.names.get(&name).copied(), self.names_synced.get(&name).copied());
            if new != old && entropy.below(2) == 0 {
                match new {
                    Some(id) => drop(self.names_synced.insert(name, id)),
                    None => drop(self.names_synced.remove(&name)),
                }
            }
        }
        self.names = self.names_synced.clone();
        let used: BTreeSet<u64> = self.names.values().copied().collect();
        self.contents.retain(|id, _| used.contains(id));
    }

    /// Changes one bit of a value, or of a file.
    pub(super) fn rot(&mut self, entropy: &mut Entropy) -> bool {
        let (values, files) = (self.table.len() as u64, self.contents.len() as u64);
        if values + files == 0 {
            return false;
        }
        let place = entropy.below(values + files);
        let nth = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(value) = self.table.values_mut().nth(nth(place)) {
            flip_bit(value, entropy);
        } else if let Some(content) = self.contents.values_mut().nth(nth(place - values)) {
            flip_bit(&mut content.written, entropy);
            content.synced.clone_from(&content.written);
        }
        true
    }

    fn write_table(&mut self, writes: Vec<Write>) {
        for (key, value) in writes {
            match value {
                Some(value) => drop(self.table.insert(key, value)),
                None => drop(self.table.remove(&key)),
            }
        }
    }

    fn add_content(&mut self, content: FileContent) -> u64 {
        let id = self.next_content;
        self.next_content += 1;
        self.contents.insert(id, content);
        id
    }

    /// Counts one writing operation; fails when the power is gone.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn content(&mut self, log: &str, file: &str) -> io::Result<&mut FileContent> {
        let id = self.names.get(&(log.to_owned(), file.to_owned()));
        let content = id.and_then(|id| self.contents.get_mut(id));
        content.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn commit(&mut self, writes: Vec<Write>) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        if let Some(fault) = self.commit_fault.take() {
            let error = fault.error();
            if fault == Fault::Io {
                self.failure = Some(error.to_string());
            }
            return Err(error);
        }
        self.operate()?;
        self.table_unsynced = Some(writes);
        self.operate()?;
        if let Some(writes) = self.table_unsynced.take() {
            self.write_table(writes);
        }
        Ok(())
    }
}

fn flip_bit(bytes: &mut [u8], entropy: &mut Entropy) {
    let place = usize::try_from(entropy.below(bytes.len() as u64)).unwrap_or(usize::MAX);
    let bit = entropy.below(8);
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= 1 << bit;
    }
}

/// What a power cut leaves of a file: what was synced, and of what was written since a part that may be torn.
fn torn(content: &FileContent, entropy: &mut Entropy) -> Vec<u8> {
    let Some(added) = content.written.strip_prefix(content.synced.as_slice()) else {
        return if entropy.below(2) == 0 { content.written.clone() } else { content.synced.clone() };
    };
    let kept = usize::try_from(entropy.below(added.len() as u64 + 1)).unwrap_or(0);
    let mut bytes = content.synced.clone();
    bytes.extend(added.iter().take(kept));
    if entropy.below(2) == 0 {
        // The length reached the medium before the content did.
        let garbage = usize::try_from(entropy.below((added.len() - kept) as u64 + 1)).unwrap_or(0);
        bytes.resize(bytes.len() + garbage, 0);
    }
    bytes
}

/// One session's hold on a medium: a table and files whose operations end with the session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) medium: Arc<Mutex<Medium>>,
    pub(super) opening: u64,
}

impl Session {
    /// The table as it is now.
    pub(super) fn table(&self) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        Ok(self.enter()?.table.clone())
    }

    pub(super) fn is_alive(&self) -> bool {
        self.enter().is_ok()
    }

    fn enter(&self) -> io::Result<MutexGuard<'_, Medium>> {
        let medium = self.medium.lock().unpoison();
        if medium.is_open && medium.opening == self.opening {
            Ok(medium)
        } else {
            Err(io::Error::other("the store was closed"))
        }
    }

    fn enter_to_write(&self) -> io::Result<MutexGuard<'_, Medium>> {
        let mut medium = self.enter()?;
        medium.operate()?;
        Ok(medium)
    }
}

impl Table for Session {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.enter()?.table.get(key).cloned())
    }

    fn range(&self, from: Bound<&[u8]>, to: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
        // The map panics on a range whose ends cross, which a reader's page may ask for.
        let is_crossed = match from {
            Bound::Included(from) | Bound::Excluded(from) => from >= to,
            Bound::Unbounded => false,
        };
        if is_crossed {
            return Ok(());
        }
        for (key, value) in self.enter()?.table.range::<[u8], _>((from, Bound::Excluded(to))) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, writes: Vec<Write>) -> io::Result<()> {
        self.enter()?.commit(writes)
    }

    fn failure(&self) -> Option<String> {
        match self.enter() {
            Ok(medium) => medium.failure.clone(),
            Err(error) => Some(error.to_string()),
        }
    }
}

impl Files for Session {
    fn logs(&self) -> io::Result<Vec<String>> {
        let logs: BTreeSet<String> = self.enter()?.names.keys().map(|(log, _)| log.clone()).collect();
        Ok(logs.into_iter().collect())
    }

    fn list(&self, log: &str) -> io::Result<Vec<String>> {
        let medium = self.enter()?;
        let names = medium.names.range((log.to_owned(), String::new())..).take_while(|((folder, _), _)| folder == log);
        Ok(names.map(|((_, file), _)| file.clone()).collect())
    }

    fn read(&self, log: &str, file: &str) -> io::Result<Vec<u8>> {
        Ok(self.enter()?.content(log, file)?.written.clone())
    }

    fn write_at(&self, log: &str, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut medium = self.enter_to_write()?;
        let fault = medium.append_fault.take();
        let name = (log.to_owned(), file.to_owned());
        if !medium.names.contains_key(&name) {
            let id = medium.add_content(FileContent::default());
            medium.names.insert(name, id);
        }
        let content = medium.content(log, file)?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        content.is_changed |= offset < content.synced.len();
        let written = &mut content.written;
        // A write that fails has still written its first half.
        let kept = if fault.is_some() { bytes.len() / 2 } else { bytes.len() };
        let bytes = bytes.get(..kept).unwrap_or_default();
        let end = offset + bytes.len();
        if written.len() < end {
            written.resize(end, 0);
        }
        if let Some(place) = written.get_mut(offset..end) {
            place.copy_from_slice(bytes);
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn truncate(&self, log: &str, file: &str, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mut medium = self.enter_to_write()?;
        let content = medium.content(log, file)?;
        content.is_changed |= length < content.synced.len();
        content.written.truncate(length);
        Ok(())
    }

    fn sync(&self, log: &str, file: &str) -> io::Result<()> {
        self.enter_to_write()?.content(log, file)?.sync();
        Ok(())
    }

    fn sync_names(&self, log: &str) -> io::Result<()> {
        let mut medium = self.enter_to_write()?;
        medium.names_synced.retain(|(folder, _), _| folder != log);
        let names: Vec<(Name, u64)> = medium
            .names
            .iter()
            .filter(|((folder, _), _)| folder == log)
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        medium.names_synced.extend(names);
        Ok(())
    }

    fn rename(&self, log: &str, from: &str, to: &str) -> io::Result<()> {
        let mut medium = self.enter_to_write()?;
        let id = medium.names.remove(&(log.to_owned(), from.to_owned()));
        let id = id.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        medium.names.insert((log.to_owned(), to.to_owned()), id);
        Ok(())
    }

    fn remove(&self, log: &str, file: &str) -> io::Result<()> {
        let removed = self.enter_to_write()?.names.remove(&(log.to_owned(), file.to_owned()));
        removed.map(drop).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn remove_log(&self, log: &str) -> io::Result<()> {
        self.enter_to_write()?.names.retain(|(folder, _), _| folder != log);
        Ok(())
    }
}
