//! The folder of a store: its format, how it is made in one step, how it is put aside.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fleetd_sync_core::commit::Revision;

use super::fjall_table::{FjallTable, io_error};
use super::profile::Profile;
use crate::open_error::{OpenStoreError, open_error};
use crate::record;
use crate::segment_log::SegmentLogs;
use crate::segment_log::files::OsFiles;
use crate::table::Table;

/// The format that this program writes. A change that older programs cannot read raises it, and adds a migration
/// from the one before to [`check_format`].
const FORMAT: u32 = 1;
/// The first line of a `FORMAT` file: other programs' folders are not ours to open.
const MAGIC: &str = "fleetd store";
const FORMAT_FILE: &str = "FORMAT";
/// Names the newest commit at the last orderly close.
const CLOSED_FILE: &str = "CLOSED";
/// Quarantined stores that are kept beside a store: one to look at, and the one before.
const QUARANTINED_KEPT: usize = 2;

/// Where the database lies.
pub(super) fn records_path(store: &Path) -> PathBuf {
    store.join("records")
}

/// Where the logs lie.
pub(super) fn logs_path(store: &Path) -> PathBuf {
    store.join("logs")
}

fn beside(store: &Path, suffix: &str) -> PathBuf {
    let mut name = store.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    store.with_file_name(name)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    // The parent of a relative name is the empty path.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync_folder)
}

fn is_missing(store: &Path) -> io::Result<bool> {
    match fs::read_dir(store) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Makes an empty store where there is none. It is made beside its place and renamed when it is whole, so that a
/// store that is there was whole once.
pub(super) fn create_if_missing(store: &Path, profile: Profile) -> Result<(), OpenStoreError> {
    let made = is_missing(store).and_then(|is_missing| if is_missing { create(store, profile) } else { Ok(()) });
    made.map_err(|error| open_error(store, error))
}

fn create(store: &Path, profile: Profile) -> io::Result<()> {
    create_with(store, profile, |table, _| {
        let revision = record::encode(record::REVISION_KEY, Revision(0), &[]);
        table.commit(vec![(record::REVISION_KEY.to_vec(), Some(revision))])
    })
}

/// Makes a store with what `fill` puts into it, beside its place, and renames it when it is whole.
pub(super) fn create_with<E: From<io::Error>>(
    store: &Path,
    profile: Profile,
    fill: impl FnOnce(&FjallTable, &SegmentLogs<OsFiles>) -> Result<(), E>,
) -> Result<(), E> {
    let making = beside(store, ".creating");
    if making.exists() {
        // Left by a power cut: nothing in it was ever acknowledged.
        fs::remove_dir_all(&making)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(&making)?;
    let table = FjallTable::create(&records_path(&making), profile).map_err(io_error)?;
    fs::create_dir(logs_path(&making))?;
    let filled = fill(&table, &SegmentLogs::new(OsFiles::new(logs_path(&making))));
    drop(table);
    if let Err(error) = filled {
        let _ = fs::remove_dir_all(&making); // The next start removes it when it is still there.
        return Err(error);
    }
    write_whole(&making.join(FORMAT_FILE), &format!("{MAGIC}\nformat {FORMAT}\n"))?;
    fs::rename(&making, store)?;
    Ok(sync_parent(store)?)
}

/// Says whether there is a store, or anything else, in its place.
pub(super) fn is_free(store: &Path) -> io::Result<bool> {
    is_missing(store)
}

/// Writes a small file so that after a power cut it is there whole or as it was before.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let writing = beside(path, ".writing");
    let mut file = File::create(&writing)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&writing, path)?;
    sync_parent(path)
}

/// Checks that this program can read the store; a migration of an older format would happen here.
pub(super) fn check_format(store: &Path) -> Result<(), OpenStoreError> {
    let damaged = |cause: &str| OpenStoreError::Damaged { path: store.to_owned(), cause: cause.to_owned() };
    let text = match fs::read(store.join(FORMAT_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged("it has no FORMAT file")),
        read => String::from_utf8_lossy(&read.map_err(|error| open_error(store, error))?).into_owned(),
    };
    let number = text.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix("\nformat ")).map(str::trim_end);
    match number.and_then(|number| number.parse::<u32>().ok()) {
        Some(FORMAT) => Ok(()),
        Some(found) if found > FORMAT => {
            Err(OpenStoreError::Newer { path: store.to_owned(), found, supported: FORMAT })
        }
        _ => Err(damaged("its FORMAT file names no format")),
    }
}

/// Writes down the newest commit at an orderly close: a database that comes back with fewer has lost some to
/// damage, which fjall takes for a torn tail.
pub(super) fn note_close(store: &Path, revision: Revision) -> io::Result<()> {
    write_whole(&store.join(CLOSED_FILE), &format!("{}\n", revision.0))
}

/// The newest commit at the last orderly close, if there was one.
pub(super) fn closed_at(store: &Path) -> io::Result<Revision> {
    match fs::read_to_string(store.join(CLOSED_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Revision::default()),
        // A file that is no number tells nothing; the database has its own checks.
        read => Ok(Revision(read?.trim_end().parse().unwrap_or(0))),
    }
}

/// Puts a store aside as `NAME.quarantined-N` for somebody to look at, so that an empty one can be opened in its
/// place. The oldest of those is removed when there are too many: a medium must not fill with them.
pub(super) fn quarantine(store: &Path) -> io::Result<PathBuf> {
    let mut kept = quarantined(store)?;
    let number = kept.last().map_or(1, |(number, _)| number + 1);
    let aside = beside(store, &format!(".quarantined-{number}"));
    fs::rename(store, &aside)?;
    sync_parent(store)?;
    kept.push((number, aside.clone()));
    let excess = kept.len().saturating_sub(QUARANTINED_KEPT);
    for (_, path) in kept.drain(..excess) {
        fs::remove_dir_all(path)?;
    }
    Ok(aside)
}

/// The quarantined stores beside a store, oldest first.
fn quarantined(store: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let parent = store.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = beside(store, ".quarantined-");
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(number) = name.strip_prefix(&prefix).and_then(|number| number.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
