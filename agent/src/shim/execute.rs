//! The shim's second stage: becomes the workload.
//!
//! A fresh process takes upon itself what only a process itself can take (user, limits, death signal) and then
//! executes the program in its place. Its connection to the shim closes by itself in that very instant, which tells
//! the shim that the workload runs; if anything fails before, it says so on that connection.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{self, Gid, Uid, User};

use super::protocol::{Request, encode_line};
use super::run_directory::{RunDirectory, read_json};
use super::spec::ShimSpec;
use super::{RUN_VARIABLE, ShimArguments};

/// Where programs are looked for by a workload whose manifest does not say.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What the shell says of a program that it cannot execute; nobody sees it unless the shim is gone.
const CANNOT_EXECUTE: u8 = 126;
/// Tries to execute a program that somebody still has open for writing: a process forked from the agent while it
/// wrote the file holds it until it executes something itself, within milliseconds.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Why a workload was not executed.
#[derive(Debug, thiserror::Error)]
enum ExecuteError {
    #[error("the spec cannot be read: {0}")]
    Spec(io::Error),
    #[error("the spec is another run's")]
    OtherRun,
    #[error("there is no user {0:?}")]
    User(String),
    #[error("cannot become user {user:?}: {cause}")]
    BecomeUser { user: String, cause: nix::errno::Errno },
    #[error("cannot enter {directory}: {cause}")]
    Directory { directory: String, cause: io::Error },
    #[error("cannot limit {what} to {limit}: {cause}")]
    Limit { what: &'static str, limit: u64, cause: nix::errno::Errno },
    #[error("the shim has ended")]
    Orphaned,
    #[error("{0}")]
    Execute(io::Error),
}

/// Becomes the workload, or says why not.
pub(super) fn run(arguments: &ShimArguments, holder: u32) -> ExitCode {
    let directory = RunDirectory::at(&arguments.directory);
    // Without its shim nobody would hold what runs here.
    let Ok(mut shim) = UnixStream::connect(directory.socket()) else { return ExitCode::from(CANNOT_EXECUTE) };
    if shim.write_all(&encode_line(&Request::Executing)).is_ok()
        && let Err(error) = execute(arguments, &directory, holder)
    {
        let said = shim.write_all(&encode_line(&Request::ExecuteFailed { cause: error.to_string() }));
        // Until the shim hangs up it may not have understood.
        let _heard = said.and_then(|()| io::copy(&mut shim, &mut io::sink()));
    }
    ExitCode::from(CANNOT_EXECUTE)
}

/// Returns only if it fails.
fn execute(arguments: &ShimArguments, directory: &RunDirectory, holder: u32) -> Result<(), ExecuteError> {
    let spec: ShimSpec =
        read_json(&directory.spec_file()).map_err(ExecuteError::Spec)?.ok_or(ExecuteError::OtherRun)?;
    let run = arguments.run.to_string();
    if spec.run != run {
        return Err(ExecuteError::OtherRun);
    }
    limit("open files", Resource::RLIMIT_NOFILE, spec.open_files_max)?;
    limit("core files", Resource::RLIMIT_CORE, Some(0))?;
    if let Some(user) = &spec.user {
        become_user(user, &spec.directory)?;
    }
    std::env::set_current_dir(&spec.directory)
        .map_err(|cause| ExecuteError::Directory { directory: spec.directory.display().to_string(), cause })?;
    // After the user: the kernel forgets the death signal when a process changes its user.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| ExecuteError::Execute(errno.into()))?;
    // The shim may have ended just before that.
    if u32::try_from(unistd::getppid().as_raw()) != Ok(holder) {
        return Err(ExecuteError::Orphaned);
    }
    // Last, for it limits this stage too.
    limit("memory", Resource::RLIMIT_AS, spec.memory_bytes_max)?;
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.arguments)
        .env_clear()
        .env("PATH", DEFAULT_PATH)
        .envs(spec.environment.iter().map(|(name, value)| (name, value)))
        .env(RUN_VARIABLE, &run)
        .env("NOTIFY_SOCKET", directory.notify_socket());
    for _try in 0..BUSY_TRIES {
        let error = command.exec();
        if error.kind() != io::ErrorKind::ExecutableFileBusy {
            return Err(ExecuteError::Execute(error));
        }
        std::thread::sleep(BUSY_PAUSE);
    }
    Err(ExecuteError::Execute(io::ErrorKind::ExecutableFileBusy.into()))
}

fn limit(what: &'static str, resource: Resource, limit: Option<u64>) -> Result<(), ExecuteError> {
    match limit {
        Some(limit) => setrlimit(resource, limit, limit).map_err(|cause| ExecuteError::Limit { what, limit, cause }),
        None => Ok(()),
    }
}

/// Who a workload is to be.
struct Identity {
    uid: Uid,
    gid: Gid,
    /// The name, if there is one: other groups are looked up by it.
    name: Option<String>,
}

/// Looks up a workload's user and its group.
pub(crate) fn find_user(text: &str) -> Option<(u32, u32)> {
    find_identity(text).map(|identity| (identity.uid.as_raw(), identity.gid.as_raw()))
}

fn find_identity(text: &str) -> Option<Identity> {
    if let Some((uid, gid)) = text.split_once(':') {
        let (uid, gid) = (Uid::from_raw(uid.parse().ok()?), Gid::from_raw(gid.parse().ok()?));
        return Some(Identity { uid, gid, name: None });
    }
    let user = match text.parse() {
        Ok(uid) => {
            let uid = Uid::from_raw(uid);
            match User::from_uid(uid).ok()? {
                Some(user) => user,
                None => return Some(Identity { uid, gid: Gid::from_raw(uid.as_raw()), name: None }),
            }
        }
        Err(_error) => User::from_name(text).ok()??,
    };
    Some(Identity { uid: user.uid, gid: user.gid, name: Some(user.name) })
}

fn become_user(text: &str, directory: &Path) -> Result<(), ExecuteError> {
    let identity = find_identity(text).ok_or_else(|| ExecuteError::User(text.to_owned()))?;
    if identity.uid == unistd::geteuid() && identity.gid == unistd::getegid() {
        return Ok(());
    }
    give_directory(directory, &identity)?;
    let failed = |cause| ExecuteError::BecomeUser { user: text.to_owned(), cause };
    match identity.name.and_then(|name| CString::new(name).ok()) {
        Some(name) => unistd::initgroups(&name, identity.gid).map_err(failed)?,
        None => unistd::setgroups(&[]).map_err(failed)?,
    }
    unistd::setgid(identity.gid).map_err(failed)?;
    unistd::setuid(identity.uid).map_err(failed)
}

/// Lets the workload's user own the directory in which it keeps its files; what is in it is its own affair.
fn give_directory(directory: &Path, identity: &Identity) -> Result<(), ExecuteError> {
    let give = || {
        let owner = fs::metadata(directory)?.uid();
        // Only what the agent made: a workload that runs in somebody else's directory gets no right to it.
        if owner != unistd::geteuid().as_raw() || owner == identity.uid.as_raw() {
            return Ok(());
        }
        chown(directory, Some(identity.uid.as_raw()), Some(identity.gid.as_raw()))
    };
    give().map_err(|cause| ExecuteError::Directory { directory: directory.display().to_string(), cause })
}
