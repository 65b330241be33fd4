//! A disk in memory that loses what was not synced.
//!
//! It keeps two versions of everything: what a program sees, and what a power cut leaves. A sync makes them equal,
//! for one file's content or one directory's names. A cut keeps some of what was not synced, drawn from entropy as
//! real disks do it: names change in their order up to some point, and a file has its old content, its new one, or
//! a torn one. It can be told to write down the order of operations, and to fail from the n-th one on.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleetd_sync_core::entropy::Entropy;

use super::{Disk, DiskError, FileMode};

/// The directory that every disk in memory has from the start, as the product's installation makes one.
pub const DATA_DIRECTORY: &str = "/data";

/// A disk in memory that loses what was not synced. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// One operation that changed the disk or made a change durable, as the disk saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// A file's content changed.
    Write(PathBuf),
    /// A file's content became durable.
    SyncFile(PathBuf),
    /// A directory's names became durable.
    SyncDirectory(PathBuf),
    /// A name changed: created, linked, moved here, or removed.
    Name(PathBuf),
}

impl fmt::Display for DiskOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, path) = match self {
            Self::Write(path) => ("write", path),
            Self::SyncFile(path) => ("sync file", path),
            Self::SyncDirectory(path) => ("sync directory", path),
            Self::Name(path) => ("name", path),
        };
        write!(f, "{verb} {}", path.display())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Inode(u64);

const ROOT: Inode = Inode(0);
const DATA: Inode = Inode(1);

type Names = BTreeMap<String, Inode>;

#[derive(Clone, Debug)]
enum Node {
    /// What is synced is shared between the two, until it is written again.
    File {
        content: Arc<Vec<u8>>,
        durable: Arc<Vec<u8>>,
        mode: FileMode,
    },
    Directory {
        names: Names,
        durable: Names,
    },
    Link {
        target: PathBuf,
    },
}

impl Node {
    fn directory() -> Self {
        Self::Directory { names: Names::new(), durable: Names::new() }
    }
}

/// Names that change together: a rename takes one away and gives another in the same instant.
#[derive(Clone, Debug)]
struct NameChange(Vec<(Inode, String, Option<Inode>)>);

#[derive(Clone, Debug)]
struct State {
    nodes: BTreeMap<Inode, Node>,
    next_inode: u64,
    pending: Vec<NameChange>,
    capacity_bytes: u64,
    /// What is written down, once somebody wants it.
    operations: Option<Vec<DiskOperation>>,
    operations_left: Option<u64>,
    hard_links: bool,
    /// Whether a name went since it was last seen to what is still reached.
    has_lost_names: bool,
}

/// How many operations are written down before the oldest half is forgotten: enough for any one test.
const OPERATIONS_KEPT: usize = 4096;

impl MemoryDisk {
    /// A disk of this size with an empty [`DATA_DIRECTORY`].
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        let names = Names::from([(DATA_DIRECTORY.trim_start_matches('/').to_owned(), DATA)]);
        let root = Node::Directory { names: names.clone(), durable: names };
        let state = State {
            nodes: BTreeMap::from([(ROOT, root), (DATA, Node::directory())]),
            next_inode: 2,
            pending: Vec::new(),
            capacity_bytes,
            operations: None,
            operations_left: None,
            hard_links: true,
            has_lost_names: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power: what was not synced is lost, kept or torn as `entropy` draws it. The disk then works again.
    pub fn cut_power(&self, entropy: &mut Entropy) {
        self.state().cut_power(entropy);
    }

    /// Lets `operations` more changes happen; from then on every operation fails until the power has been cut.
    pub fn fail_after(&self, operations: u64) {
        self.state().operations_left = Some(operations);
    }

    /// Says whether every operation fails until the power has been cut.
    #[must_use]
    pub fn is_out_of_power(&self) -> bool {
        self.state().operations_left == Some(0)
    }

    /// Another disk with the same content, as somebody gets who copies an SD card.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copied = self.state().clone();
        Self { state: Arc::new(Mutex::new(copied)) }
    }

    /// Takes over the content of another disk, durably.
    pub fn restore(&self, other: &Self) {
        let copied = other.state().clone();
        *self.state() = State { operations: None, operations_left: None, ..copied };
    }

    /// Writes down what changes and is synced from now on.
    pub fn note_operations(&self) {
        self.state().operations = Some(Vec::new());
    }

    /// What changed and was synced since that was asked for, in order.
    #[must_use]
    pub fn operations(&self) -> Vec<DiskOperation> {
        self.state().operations.clone().unwrap_or_default()
    }

    /// Changes one byte of a file behind everybody's back, durably: flash that forgets.
    pub fn flip_byte(&self, path: &Path, offset: usize) {
        let mut state = self.state();
        if let Ok(inode) = state.find(path)
            && let Some(Node::File { content, durable, .. }) = state.nodes.get_mut(&inode)
        {
            for bytes in [content, durable] {
                if let Some(byte) = Arc::make_mut(bytes).get_mut(offset) {
                    *byte ^= 1;
                }
            }
        }
    }

    /// Makes it a file system on which a file has one name only.
    pub fn forbid_hard_links(&self) {
        self.state().hard_links = false;
    }

    /// Makes it a file system on which a file may have several names, which it is from the start.
    pub fn allow_hard_links(&self) {
        self.state().hard_links = true;
    }

    /// Changes the size of the disk.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.state().capacity_bytes = capacity_bytes;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in a test's own thread leaves the disk as a crash would.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(
        &self,
        action: &'static str,
        path: &Path,
        operation: fn(PathBuf) -> DiskOperation,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let mut state = self.state();
        let outcome = state.spend_operation().and_then(|()| change(&mut state));
        if let (Ok(_), Some(operations)) = (&outcome, &mut state.operations) {
            if operations.len() >= OPERATIONS_KEPT {
                operations.drain(..OPERATIONS_KEPT / 2);
            }
            operations.push(operation(path.to_owned()));
        }
        outcome.map_err(|source| DiskError { action, path: path.to_owned(), source })
    }

    fn look<T>(
        &self,
        action: &'static str,
        path: &Path,
        look: impl FnOnce(&State) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let state = self.state();
        state.check_power().and_then(|()| look(&state)).map_err(|source| DiskError {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

fn steps(path: &Path) -> impl Iterator<Item = Cow<'_, str>> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    })
}

fn kind(kind: io::ErrorKind) -> io::Error {
    io::Error::from(kind)
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        if self.operations_left == Some(0) { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn spend_operation(&mut self) -> io::Result<()> {
        self.check_power()?;
        if let Some(left) = &mut self.operations_left {
            *left -= 1;
        }
        Ok(())
    }

    fn names(&self, directory: Inode) -> io::Result<&Names> {
        match self.nodes.get(&directory) {
            Some(Node::Directory { names, .. }) => Ok(names),
            Some(_) => Err(kind(io::ErrorKind::NotADirectory)),
            None => Err(kind(io::ErrorKind::NotFound)),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        steps(path).try_fold(ROOT, |directory, name| self.find_in(directory, &name))
    }

    fn find_in(&self, directory: Inode, name: &str) -> io::Result<Inode> {
        self.names(directory)?.get(name).copied().ok_or_else(|| kind(io::ErrorKind::NotFound))
    }

    fn find_parent(&self, path: &Path) -> io::Result<(Inode, String)> {
        let (mut parent, mut names) = (ROOT, steps(path));
        let mut name = names.next().ok_or_else(|| kind(io::ErrorKind::InvalidInput))?;
        for next in names {
            parent = self.find_in(parent, &name)?;
            name = next;
        }
        self.names(parent)?;
        Ok((parent, name.into_owned()))
    }

    fn insert(&mut self, node: Node) -> Inode {
        let inode = Inode(self.next_inode);
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        inode
    }

    fn rename_all(&mut self, change: NameChange) {
        self.apply(&change, false);
        self.pending.push(change);
    }

    fn apply(&mut self, change: &NameChange, to_durable: bool) {
        for (directory, name, inode) in &change.0 {
            let Some(Node::Directory { names, durable }) = self.nodes.get_mut(directory) else {
                self.has_lost_names = true;
                continue;
            };
            let names = if to_durable { durable } else { names };
            let lost = match inode {
                Some(inode) => names.insert(name.clone(), *inode),
                None => names.remove(name),
            };
            self.has_lost_names |= lost.is_some();
        }
    }

    fn write(&mut self, path: &Path, offset: Option<u64>, bytes: &[u8], mode: Option<FileMode>) -> io::Result<()> {
        let (parent, name) = self.find_parent(path)?;
        if self.used_bytes().saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX)) > self.capacity_bytes {
            return Err(kind(io::ErrorKind::StorageFull));
        }
        let inode = match self.names(parent)?.get(&name) {
            Some(inode) => *inode,
            None => {
                let file = Node::File { content: Arc::default(), durable: Arc::default(), mode: FileMode::Private };
                let inode = self.insert(file);
                self.rename_all(NameChange(vec![(parent, name, Some(inode))]));
                inode
            }
        };
        let Some(Node::File { content, mode: file_mode, .. }) = self.nodes.get_mut(&inode) else {
            return Err(kind(io::ErrorKind::IsADirectory));
        };
        *file_mode = mode.unwrap_or(*file_mode);
        if offset.is_none() {
            *content = Arc::default();
        }
        let start = match offset {
            Some(offset) => usize::try_from(offset).map_err(|_error| kind(io::ErrorKind::FileTooLarge))?,
            None => 0,
        };
        let content = Arc::make_mut(content);
        content.resize(content.len().max(start + bytes.len()), 0);
        content.splice(start..start + bytes.len(), bytes.iter().copied());
        Ok(())
    }

    fn used_bytes(&self) -> u64 {
        self.nodes
            .values()
            .map(|node| match node {
                Node::File { content, .. } => u64::try_from(content.len()).unwrap_or(u64::MAX),
                Node::Directory { .. } | Node::Link { .. } => 0,
            })
            .sum()
    }

    fn sync_directory(&mut self, directory: Inode) {
        let (synced, rest) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| change.0.iter().any(|(touched, ..)| *touched == directory));
        self.pending = rest;
        let synced: Vec<NameChange> = synced;
        for change in &synced {
            self.apply(change, true);
        }
        // While no name goes, whatever was reached still is.
        if self.has_lost_names {
            self.forget_unreachable();
        }
    }

    fn cut_power(&mut self, entropy: &mut Entropy) {
        let pending = std::mem::take(&mut self.pending);
        let kept = entropy.below(u64::try_from(pending.len()).unwrap_or(0) + 1);
        for change in pending.iter().take(usize::try_from(kept).unwrap_or(0)) {
            self.apply(change, true);
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::File { content, durable, .. } => {
                    if content != durable {
                        tear(Arc::make_mut(content), durable, entropy);
                    }
                    durable.clone_from(content);
                }
                Node::Directory { names, durable } => names.clone_from(durable),
                Node::Link { .. } => {}
            }
        }
        self.operations_left = None;
        self.forget_unreachable();
    }

    /// Frees what no name reaches, neither before nor after a cut.
    fn forget_unreachable(&mut self) {
        self.has_lost_names = false;
        let mut reached = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        todo.extend(self.pending.iter().flat_map(|change| change.0.iter().filter_map(|(.., inode)| *inode)));
        while let Some(inode) = todo.pop() {
            reached.insert(inode);
            if let Some(Node::Directory { names, durable }) = self.nodes.get(&inode) {
                todo.extend(names.values().chain(durable.values()).filter(|inode| !reached.contains(inode)));
            }
        }
        self.nodes.retain(|inode, _node| reached.contains(inode));
    }
}

/// Leaves a file as a cut in the middle of its writing may: the old content, the new one, or a mix with zeroes.
fn tear(content: &mut Vec<u8>, durable: &[u8], entropy: &mut Entropy) {
    match entropy.below(3) {
        0 => durable.clone_into(content),
        1 => {}
        _ => {
            let length = u64::try_from(content.len()).unwrap_or(0);
            let good = usize::try_from(entropy.below(length + 1)).unwrap_or(0);
            for (index, byte) in content.iter_mut().enumerate().skip(good) {
                *byte = durable.get(index).copied().unwrap_or(0);
            }
        }
    }
}

impl Disk for MemoryDisk {
    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.change("create directory", path, DiskOperation::Name, |state| {
            let mut at = ROOT;
            for name in steps(path) {
                at = match state.names(at)?.get(&*name) {
                    Some(inode) => *inode,
                    None => {
                        let inode = state.insert(Node::directory());
                        state.rename_all(NameChange(vec![(at, name.into_owned(), Some(inode))]));
                        inode
                    }
                };
            }
            state.names(at).map(|_names| ())
        })
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: FileMode) -> Result<(), DiskError> {
        self.change("write", path, DiskOperation::Write, |state| state.write(path, None, bytes, Some(mode)))
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.change("write", path, DiskOperation::Write, |state| state.write(path, Some(offset), bytes, None))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
        self.look("read", path, |state| match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(inode) => match state.nodes.get(&inode) {
                Some(Node::File { content, .. }) => Ok(Some(content.to_vec())),
                _ => Err(kind(io::ErrorKind::IsADirectory)),
            },
        })
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        self.look("read", path, |state| match state.nodes.get(&state.find(path)?) {
            Some(Node::File { content, .. }) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                Ok(content.iter().skip(start).take(length).copied().collect())
            }
            _ => Err(kind(io::ErrorKind::IsADirectory)),
        })
    }

    fn is_there(&self, path: &Path) -> Result<bool, DiskError> {
        self.look("look at", path, |state| match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|_inode| true),
        })
    }

    fn length(&self, path: &Path) -> Result<Option<u64>, DiskError> {
        self.look("read", path, |state| match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(inode) => match state.nodes.get(&inode) {
                Some(Node::File { content, .. }) => Ok(Some(u64::try_from(content.len()).unwrap_or(u64::MAX))),
                _ => Err(kind(io::ErrorKind::IsADirectory)),
            },
        })
    }

    fn sync_file(&self, path: &Path) -> Result<(), DiskError> {
        self.change("sync", path, DiskOperation::SyncFile, |state| {
            let inode = state.find(path)?;
            match state.nodes.get_mut(&inode) {
                Some(Node::File { content, durable, .. }) => {
                    durable.clone_from(content);
                    Ok(())
                }
                _ => Err(kind(io::ErrorKind::InvalidInput)),
            }
        })
    }

    fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.change("sync", path, DiskOperation::SyncDirectory, |state| {
            let inode = state.find(path)?;
            state.names(inode)?;
            state.sync_directory(inode);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.change("rename to", to, DiskOperation::Name, |state| {
            let inode = state.find(from)?;
            let (from_parent, from_name) = state.find_parent(from)?;
            let (to_parent, to_name) = state.find_parent(to)?;
            if let Some(Node::Directory { names, .. }) = state.find(to).ok().and_then(|old| state.nodes.get(&old))
                && !names.is_empty()
            {
                return Err(kind(io::ErrorKind::DirectoryNotEmpty));
            }
            state.rename_all(NameChange(vec![(from_parent, from_name, None), (to_parent, to_name, Some(inode))]));
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool, DiskError> {
        if !self.state().hard_links {
            return Ok(false);
        }
        self.change("link to", to, DiskOperation::Name, |state| {
            let inode = state.find(from)?;
            let (parent, name) = state.find_parent(to)?;
            if state.names(parent)?.contains_key(&name) {
                return Err(kind(io::ErrorKind::AlreadyExists));
            }
            state.rename_all(NameChange(vec![(parent, name, Some(inode))]));
            Ok(true)
        })
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let bytes = self.read(from)?.ok_or_else(|| DiskError {
            action: "copy to",
            path: to.to_owned(),
            source: kind(io::ErrorKind::NotFound),
        })?;
        self.write(to, &bytes, FileMode::Private)
    }

    fn set_mode(&self, path: &Path, mode: FileMode) -> Result<(), DiskError> {
        self.change("set the mode of", path, DiskOperation::Write, |state| {
            let inode = state.find(path)?;
            if let Some(Node::File { mode: file_mode, .. }) = state.nodes.get_mut(&inode) {
                *file_mode = mode;
            }
            Ok(())
        })
    }

    fn symlink(&self, target: &Path, link: &Path) -> Result<(), DiskError> {
        self.change("create link", link, DiskOperation::Name, |state| {
            let (parent, name) = state.find_parent(link)?;
            if state.names(parent)?.contains_key(&name) {
                return Err(kind(io::ErrorKind::AlreadyExists));
            }
            let inode = state.insert(Node::Link { target: target.to_owned() });
            state.rename_all(NameChange(vec![(parent, name, Some(inode))]));
            Ok(())
        })
    }

    fn read_link(&self, path: &Path) -> Result<Option<PathBuf>, DiskError> {
        self.look("read link", path, |state| match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(inode) => match state.nodes.get(&inode) {
                Some(Node::Link { target }) => Ok(Some(target.clone())),
                _ => Err(kind(io::ErrorKind::InvalidInput)),
            },
        })
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, DiskError> {
        self.look("list", path, |state| match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(inode) => Ok(state.names(inode)?.keys().cloned().collect()),
        })
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        self.remove(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.remove(path)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, DiskError> {
        self.look("measure the free space of", path, |state| {
            Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
        })
    }
}

impl MemoryDisk {
    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.change("remove", path, DiskOperation::Name, |state| {
            let Ok((parent, name)) = state.find_parent(path) else { return Ok(()) };
            if state.names(parent)?.contains_key(&name) {
                state.rename_all(NameChange(vec![(parent, name, None)]));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_a_cut_and_the_rest_may_not() {
        let mut lost = 0;
        for seed in 0..32_u8 {
            let disk = MemoryDisk::new(1 << 20);
            disk.create_directory(Path::new("/d")).unwrap();
            disk.sync_directory(Path::new("/")).unwrap();
            disk.write(Path::new("/d/kept"), b"kept", FileMode::Private).unwrap();
            disk.sync_file(Path::new("/d/kept")).unwrap();
            disk.sync_directory(Path::new("/d")).unwrap();
            disk.write(Path::new("/d/risky"), b"risky", FileMode::Private).unwrap();
            disk.cut_power(&mut Entropy::from_seed([seed; 32]));
            assert_eq!(disk.read(Path::new("/d/kept")).unwrap().as_deref(), Some(&b"kept"[..]));
            lost += u32::from(disk.read(Path::new("/d/risky")).unwrap().as_deref() != Some(b"risky"));
        }
        assert!((1..32).contains(&lost), "{lost} of 32 lost: a cut must be able to lose and to keep");
    }

    #[test]
    fn a_full_disk_refuses_and_a_removed_file_gives_its_room_back() {
        let disk = MemoryDisk::new(10);
        disk.write(Path::new("/a"), &[0; 8], FileMode::Private).unwrap();
        assert!(disk.write(Path::new("/b"), &[0; 8], FileMode::Private).unwrap_err().is_full());
        disk.remove_file(Path::new("/a")).unwrap();
        disk.sync_directory(Path::new("/")).unwrap();
        disk.write(Path::new("/b"), &[0; 8], FileMode::Private).unwrap();
    }

    #[test]
    fn a_failing_disk_fails_until_the_cut() {
        let disk = MemoryDisk::new(1 << 20);
        disk.fail_after(1);
        disk.write(Path::new("/a"), b"a", FileMode::Private).unwrap();
        assert!(disk.sync_file(Path::new("/a")).is_err());
        assert!(disk.read(Path::new("/a")).is_err());
        disk.cut_power(&mut Entropy::from_seed([0; 32]));
        disk.write(Path::new("/a"), b"b", FileMode::Private).unwrap();
    }
}
