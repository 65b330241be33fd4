//! The operating system's disk.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::{Disk, DiskError, FileMode};

/// The operating system's disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

const fn mode_bits(mode: FileMode) -> u32 {
    match mode {
        FileMode::Private => 0o600,
        FileMode::Executable => 0o755,
        FileMode::Readable => 0o444,
    }
}

/// Names the operation and the path in an error of the operating system.
fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |source| DiskError { action, path: path.to_owned(), source }
}

/// Turns "there is none" into `None`.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Widens a number whose type differs from platform to platform.
fn widen(number: impl Into<u64>) -> u64 {
    number.into()
}

impl Disk for OsDisk {
    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        // 0711: a workload of another user must be able to reach its own program, and to list nothing.
        DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(failed("create directory", path))
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: FileMode) -> Result<(), DiskError> {
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(mode_bits(mode)).open(path)?;
            // The mode given at creation passes through the umask, and a file that was there keeps its own.
            file.set_permissions(Permissions::from_mode(mode_bits(mode)))?;
            file.write_all(bytes)
        };
        write().map_err(failed("write", path))
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode_bits(FileMode::Private))
            .open(path)
            .and_then(|file| file.write_all_at(bytes, offset))
            .map_err(failed("write", path))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
        found(fs::read(path)).map_err(failed("read", path))
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        let read = || {
            let mut file = File::open(path)?;
            io::Seek::seek(&mut file, io::SeekFrom::Start(offset))?;
            let mut bytes = Vec::with_capacity(length);
            file.take(u64::try_from(length).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(failed("read", path))
    }

    fn is_there(&self, path: &Path) -> Result<bool, DiskError> {
        // Not through a link: whoever made it may not look at what it leads to.
        Ok(found(fs::symlink_metadata(path)).map_err(failed("look at", path))?.is_some())
    }

    fn length(&self, path: &Path) -> Result<Option<u64>, DiskError> {
        Ok(found(fs::metadata(path)).map_err(failed("look at", path))?.map(|metadata| metadata.len()))
    }

    fn sync_file(&self, path: &Path) -> Result<(), DiskError> {
        File::open(path).and_then(|file| file.sync_all()).map_err(failed("sync", path))
    }

    fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::rename(from, to).map_err(failed("rename to", to))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<bool, DiskError> {
        match fs::hard_link(from, to) {
            Ok(()) => Ok(true),
            // Another file system, one without hard links (vfat), or too many of them.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::CrossesDevices
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::Unsupported
                        | io::ErrorKind::TooManyLinks
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed("link to", to)(error)),
        }
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        fs::copy(from, to).map(|_bytes| ()).map_err(failed("copy to", to))
    }

    fn set_mode(&self, path: &Path, mode: FileMode) -> Result<(), DiskError> {
        fs::set_permissions(path, Permissions::from_mode(mode_bits(mode))).map_err(failed("set the mode of", path))
    }

    fn symlink(&self, target: &Path, link: &Path) -> Result<(), DiskError> {
        std::os::unix::fs::symlink(target, link).map_err(failed("create link", link))
    }

    fn read_link(&self, path: &Path) -> Result<Option<PathBuf>, DiskError> {
        found(fs::read_link(path)).map_err(failed("read link", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, DiskError> {
        let list = || {
            let Some(entries) = found(fs::read_dir(path))? else { return Ok(Vec::new()) };
            let mut names = Vec::new();
            for entry in entries {
                // A name that is not UTF-8 is none of ours.
                if let Ok(name) = entry?.file_name().into_string() {
                    names.push(name);
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(failed("list", path))
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        found(fs::remove_file(path)).map(|_removed| ()).map_err(failed("remove", path))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        found(fs::remove_dir_all(path)).map(|_removed| ()).map_err(failed("remove", path))
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, DiskError> {
        let status = nix::sys::statvfs::statvfs(path)
            .map_err(io::Error::from)
            .map_err(failed("measure the free space of", path))?;
        Ok(widen(status.blocks_available()).saturating_mul(widen(status.fragment_size())))
    }
}
