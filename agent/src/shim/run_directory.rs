//! The directory that a shim and the agent share: where its files are, and how they are written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use fleetd_sync_core::name::WorkloadName;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest path that a Unix socket's address holds.
///
/// # Units
/// Bytes: `sun_path` has 108, of which the last is a zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The directory of one workload's runs, below the agent's run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Names the directory of a workload.
    #[must_use]
    pub fn of(run_directory: &Path, workload: &WorkloadName) -> Self {
        Self { path: run_directory.join("shims").join(workload.as_str()) }
    }

    /// Takes a directory as it was given on the command line.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Names the workloads that have a directory, sorted.
    #[must_use]
    pub fn workloads(run_directory: &Path) -> Vec<WorkloadName> {
        let entries = fs::read_dir(run_directory.join("shims")).into_iter().flatten().flatten();
        let mut workloads: Vec<WorkloadName> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        workloads.sort_unstable();
        workloads
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shim's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    /// The socket to which the workload sends sd_notify messages.
    #[must_use]
    pub fn notify_socket(&self) -> PathBuf {
        self.path.join("notify")
    }

    /// The lines that the workload wrote.
    #[must_use]
    pub fn lines(&self) -> PathBuf {
        self.path.join("lines")
    }

    pub(crate) fn spec_file(&self) -> PathBuf {
        self.path.join("spec.json")
    }

    pub(crate) fn run_file(&self) -> PathBuf {
        self.path.join("run.json")
    }

    /// Creates the directory, and checks that its sockets can have addresses.
    pub(crate) fn create(&self) -> io::Result<()> {
        let socket = self.notify_socket();
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidFilename,
                format!(
                    "{} has {} bytes; a socket's path may have {SOCKET_PATH_BYTES_MAX}: use a shorter run directory",
                    socket.display(),
                    socket.as_os_str().len()
                ),
            ));
        }
        // 0711: the workload, which may have a user of its own, must reach its notify socket and nothing else.
        DirBuilder::new().recursive(true).mode(0o711).create(&self.path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(self.lines())
    }

    /// Takes the lock that a shim holds for its whole life; `None` when another process has it.
    pub(crate) fn try_lock(&self) -> io::Result<Option<Flock<File>>> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.path.join("lock"))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_file, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_file, errno)) => Err(errno.into()),
        }
    }

    /// Says whether a shim holds this directory.
    pub(crate) fn is_held(&self) -> io::Result<bool> {
        match self.try_lock() {
            Ok(lock) => Ok(lock.is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Replaces a file by a new content: readers see the old one or the new one, also after a power cut.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    let bytes = serde_json::to_vec(value)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads a file that [`write_json`] wrote; `None` when there is none, or none that can be understood.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
