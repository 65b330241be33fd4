//! What a doctor asks of the disk: folders and files that others must not read, room, and a store that opens.
//!
//! Everything here looks and changes nothing, but for an empty file that [`room`] makes and removes, since only that
//! tells whether a disk can be written.

use std::borrow::Cow;
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fleetd_sync_core::finding::Finding;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Uid, User, geteuid};

use crate::disk::{DiskStore, Profile};
use crate::open_error::OpenStoreError;

/// Inodes below which a disk is called full: an install makes some dozens of files, and a log segment is one.
const FREE_FILES_MIN: u64 = 256;
/// Files that a finding names.
const NAMED_MAX: usize = 4;

/// What a disk must have room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes below which something fails.
    pub needed_bytes: u64,
    /// Bytes below which it soon will.
    pub wanted_bytes: u64,
    /// What they are for, as a sentence goes on after "…, and" (`the next release needs`).
    pub what_for: &'static str,
}

/// The user that this process runs as.
#[must_use]
pub fn own_user() -> u32 {
    geteuid().as_raw()
}

/// A user, as a command line that becomes somebody says it.
fn user_name(user: u32) -> String {
    let known = User::from_uid(Uid::from_raw(user)).ok().flatten();
    known.map_or_else(|| format!("#{user}"), |user| user.name)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// What to do about a path that another user owns.
fn become_owner(path: &Path, owner: u32) -> String {
    format!(
        "run this as its owner: sudo -u '{}' …; or give it to this user: chown -R {} {}",
        user_name(owner),
        geteuid(),
        quoted(path)
    )
}

/// Says whether another user owns something, and this one may not stand in for it.
fn is_foreign(metadata: &Metadata) -> bool {
    let own = geteuid();
    !own.is_root() && metadata.uid() != own.as_raw()
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o777
}

/// Looks at a folder that is for its owner alone. `absent` is what to say where there is none yet.
#[must_use]
pub fn private_folder(check: &'static str, path: &Path, absent: &str) -> Finding {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::warn(check, format!("{} is not there yet", path.display()), absent);
        }
        Err(error) => {
            let remedy = format!("look at each folder on the way: namei -l {}", quoted(path));
            return Finding::fail(check, format!("{}: {error}", path.display()), remedy);
        }
    };
    if !metadata.is_dir() {
        let remedy = format!("mv {0} {0}.old", quoted(path));
        return Finding::fail(check, format!("{} is no directory", path.display()), remedy);
    }
    if is_foreign(&metadata) {
        let owner = metadata.uid();
        let found =
            format!("{} belongs to {}, and this is {}", path.display(), user_name(owner), user_name(own_user()));
        return Finding::fail(check, found, become_owner(path, owner));
    }
    if mode(&metadata) & 0o077 != 0 {
        let found = format!("{} has mode {:04o}, so that others can look into it", path.display(), mode(&metadata));
        return Finding::fail(check, found, format!("chmod 700 {}", quoted(path)));
    }
    Finding::ok(check, format!("{}, for {} alone", path.display(), user_name(metadata.uid())))
}

/// Looks at the files of a folder, each of which is for its owner alone. A folder that is not there has none.
#[must_use]
pub fn private_files(check: &'static str, folder: &Path) -> Finding {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::ok(check, format!("there are none in {}", folder.display()));
        }
        Err(error) => {
            let remedy = format!("look at each folder on the way: namei -l {}", quoted(folder));
            return Finding::fail(check, format!("{}: {error}", folder.display()), remedy);
        }
    };
    let (mut count, mut open, mut foreign) = (0_usize, Vec::new(), Vec::new());
    for entry in entries.flatten() {
        // What goes while it is looked at was replaced by another, as files of this kind are.
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        count += 1;
        let name = entry.file_name().to_string_lossy().into_owned();
        if mode(&metadata) & 0o077 != 0 {
            open.push(format!("{name} has mode {:04o}", mode(&metadata)));
        } else if is_foreign(&metadata) {
            foreign.push((name, metadata.uid()));
        }
    }
    open.sort_unstable();
    foreign.sort_unstable();
    if !open.is_empty() {
        let found = format!("in {} others can read what is secret: {}", folder.display(), named(&open));
        return Finding::fail(check, found, format!("chmod go-rwx {}/*", quoted(folder)));
    }
    if let Some((_, owner)) = foreign.first() {
        let names: Vec<_> = foreign.iter().map(|(name, _)| name.clone()).collect();
        let found = format!("in {} another user owns {}", folder.display(), named(&names));
        return Finding::fail(check, found, become_owner(folder, *owner));
    }
    Finding::ok(check, format!("{count} in {}, each for its owner alone", folder.display()))
}

fn named(names: &[String]) -> String {
    let shown = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMED_MAX) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}

/// A size as people read it.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let divisor = 1_u64 << (10 * unit);
    let tenths = bytes % divisor * 10 / divisor;
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} {name}") } else { format!("{}.{tenths} {name}", bytes / divisor) }
}

/// What the operating system counts in `u64` here and in `u32` on devices of 32 bits.
fn wide(count: impl Into<u64>) -> u64 {
    count.into()
}

/// Looks at the disk under a folder: whether it can be written, and whether it has room. Looks at the nearest folder
/// above where there is none yet.
#[must_use]
pub fn room(check: &'static str, folder: &Path, room: Room) -> Finding {
    let folder = nearest(folder);
    let (path, shown) = (quoted(&folder), folder.display());
    let status = match statvfs(&folder) {
        Ok(status) => status,
        Err(errno) => return Finding::fail(check, format!("{shown}: {errno}"), format!("df -h {path}")),
    };
    if status.flags().contains(FsFlags::ST_RDONLY) {
        let remedy = format!(
            "mount -o remount,rw \"$(stat -c %m {path})\"; a disk that fails goes there by itself: dmesg | tail"
        );
        return Finding::fail(check, format!("{shown} lies on a disk that is mounted for reading only"), remedy);
    }
    let free_bytes = wide(status.blocks_available()).saturating_mul(wide(status.fragment_size()));
    let bigger = format!("du -xh {path} | sort -h | tail; then remove what nobody needs, or give it a larger disk");
    let have = format!("{} are free at {shown}, and {} {}", size(free_bytes), room.what_for, size(room.needed_bytes));
    if free_bytes < room.needed_bytes {
        return Finding::fail(check, have, bigger);
    }
    let (files, free_files) = (wide(status.files()), wide(status.files_available()));
    // A file system that makes inodes as it goes says that it has none at all.
    if files > 0 && free_files < FREE_FILES_MIN {
        let found = format!("{shown} lies on a disk with room for {free_files} more files, of {files}");
        return Finding::fail(
            check,
            found,
            format!("df -i {path}; then find what made so many files, and remove them"),
        );
    }
    if let Err(error) = try_write(&folder) {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => bigger,
            io::ErrorKind::PermissionDenied => format!("chown {} {path}, or run this as its owner", geteuid()),
            _ => "look at what the kernel says of the disk: dmesg | tail".to_owned(),
        };
        return Finding::fail(check, format!("{shown} cannot be written: {error}"), remedy);
    }
    if free_bytes < room.wanted_bytes {
        let found = format!("{have}; below {} it soon will not do", size(room.wanted_bytes));
        return Finding::warn(check, found, bigger);
    }
    Finding::ok(check, have)
}

fn nearest(folder: &Path) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let there = folder.ancestors().find(|path| path.is_dir());
    there.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// Makes a file, and removes it.
fn try_write(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    made?.sync_all()?;
    fs::remove_file(&path)
}

/// Who has a store open while a doctor looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreUse {
    /// The program that it belongs to, which has read every record of it.
    Running(&'static str),
    /// Nobody, as far as the caller knows.
    Nobody,
}

/// What to say of a store by way of remedy, where that depends on whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRemedies {
    /// There is none yet.
    pub absent: Cow<'static, str>,
    /// It is damaged.
    pub damaged: Cow<'static, str>,
    /// Another process has it.
    pub locked: Cow<'static, str>,
}

/// Looks at a store. One that nobody has open is opened, which reads every record; that is left to its owner, since
/// opening makes files. Gives the store too, where it opened.
pub fn store(path: &Path, profile: Profile, used: StoreUse, remedies: &StoreRemedies) -> (Finding, Option<DiskStore>) {
    let check = "store";
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let found = format!("{} is not there yet", path.display());
            return (Finding::warn(check, found, remedies.absent.as_ref()), None);
        }
        Err(error) => {
            let remedy = format!("look at each folder on the way: namei -l {}", quoted(path));
            return (Finding::fail(check, format!("{}: {error}", path.display()), remedy), None);
        }
    };
    if let StoreUse::Running(program) = used {
        return (Finding::ok(check, format!("{} is open in the {program}", path.display())), None);
    }
    if metadata.uid() != own_user() {
        let owner = user_name(metadata.uid());
        let found = format!("{} belongs to {owner}, who alone should open it; it was not read", path.display());
        return (Finding::warn(check, found, format!("run this as its owner: sudo -u '{owner}' …")), None);
    }
    match DiskStore::open(path, profile) {
        Ok(store) => (Finding::ok(check, format!("every record in {} can be read", path.display())), Some(store)),
        Err(error) => {
            let remedy = match &error {
                OpenStoreError::Damaged { .. } => remedies.damaged.as_ref(),
                OpenStoreError::Newer { .. } => "run the newer program that wrote it: an older one must not touch it",
                OpenStoreError::Locked { .. } => remedies.locked.as_ref(),
                OpenStoreError::Permission { .. } => {
                    "run this as its owner, and give it back what somebody else made: chown -R"
                }
                OpenStoreError::Io { .. } => "look at the disk: df -h; dmesg | tail",
            };
            let cause = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            (Finding::fail(check, format!("{error}{cause}"), remedy), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use fleetd_sync_core::finding::State;

    use super::*;

    const ROOM: Room = Room { needed_bytes: 1, wanted_bytes: 1, what_for: "a test needs" };

    fn remedies() -> StoreRemedies {
        StoreRemedies { absent: "start".into(), damaged: "put it aside".into(), locked: "stop that one".into() }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_enter_is_named_with_the_command_that_closes_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("data");
        assert_eq!(private_folder("data", &folder, "wait").state, State::Warn);
        fs::create_dir(&folder).unwrap();
        set_mode(&folder, 0o700);
        assert_eq!(private_folder("data", &folder, "wait").state, State::Ok);
        set_mode(&folder, 0o750);
        let finding = private_folder("data", &folder, "wait");
        assert_eq!((finding.state, finding.remedy), (State::Fail, format!("chmod 700 {}", folder.display())));
        assert!(finding.found.contains("0750"), "{}", finding.found);
        fs::write(home.path().join("file"), "").unwrap();
        assert_eq!(private_folder("data", &home.path().join("file"), "wait").state, State::Fail);
    }

    #[test]
    fn each_secret_that_others_can_read_is_named() {
        let home = tempfile::tempdir().unwrap();
        for name in ["ca.key", "root.key"] {
            fs::write(home.path().join(name), "secret").unwrap();
            set_mode(&home.path().join(name), 0o600);
        }
        assert_eq!(private_files("keys", home.path()).state, State::Ok);
        set_mode(&home.path().join("ca.key"), 0o644);
        let finding = private_files("keys", home.path());
        assert!(finding.state == State::Fail && finding.found.ends_with("ca.key has mode 0644"), "{finding:?}");
        assert_eq!(finding.remedy, format!("chmod go-rwx {}/*", home.path().display()));
    }

    #[test]
    fn a_disk_with_too_little_room_fails_and_one_with_little_warns() {
        let home = tempfile::tempdir().unwrap();
        let state = |needed_bytes, wanted_bytes| {
            let folder = home.path().join("not/there/yet");
            room("disk", &folder, Room { needed_bytes, wanted_bytes, ..ROOM }).state
        };
        assert_eq!(state(1, 1), State::Ok);
        assert_eq!(state(1, u64::MAX), State::Warn);
        assert_eq!(state(u64::MAX, u64::MAX), State::Fail);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "what was tried is gone");
    }

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        let sizes = [0, 1023, 1024, 1536, 5 << 20, u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "16777215.9 TiB"]);
    }

    #[test]
    fn a_store_says_why_it_does_not_open_and_who_has_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("store");
        let look = |used| store(&path, Profile::Agent, used, &remedies());
        assert_eq!((look(StoreUse::Nobody).0.state, path.exists()), (State::Warn, false));
        let held = DiskStore::open(&path, Profile::Agent).unwrap();
        let (finding, opened) = look(StoreUse::Nobody);
        assert!(finding.state == State::Fail && finding.remedy == "stop that one" && opened.is_none(), "{finding:?}");
        assert_eq!(look(StoreUse::Running("agent")).0.state, State::Ok);
        drop(held);
        let (finding, opened) = look(StoreUse::Nobody);
        assert!(finding.state == State::Ok && opened.is_some(), "{finding:?}");
        drop(opened);
        let format = fs::read_to_string(path.join("FORMAT")).unwrap();
        fs::write(path.join("FORMAT"), format.replace(" 1", " 99")).unwrap();
        let (finding, _) = look(StoreUse::Nobody);
        assert!(finding.state == State::Fail && finding.remedy.contains("newer program"), "{format} {finding:?}");
        fs::write(path.join("FORMAT"), "something else").unwrap();
        let (finding, _) = look(StoreUse::Nobody);
        assert!(finding.state == State::Fail && finding.remedy == "put it aside", "{finding:?}");
    }
}
