//! Keys in files: the secret one for its owner only, the public one beside it for everybody.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fleetd_sync_core::key::{PublicKey, SecretKey};
use fleetd_sync_core::trust::{Armoured as _, ReadArmourError, read_armour};

use crate::error::CommandError;

/// What was tried when a file is not there to be read.
const READ: &str = "read";

/// Why a key's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system refuses.
    #[error("{} cannot be {verb}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Writing it would destroy a key.
    #[error("{} is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others could have read the secret key.
    #[error("{} has mode {mode:03o}: others can read the secret key in it", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It holds no such key.
    #[error("{} holds no usable key", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadArmourError,
    },
}

impl From<KeyFileError> for CommandError {
    fn from(error: KeyFileError) -> Self {
        let (code, next) = match &error {
            KeyFileError::Io { path, verb: READ, .. } => {
                ("key.unreadable", format!("fleetd key create '{}'", path.display()))
            }
            KeyFileError::Io { .. } => ("key.unreadable", "name a file in a folder that you may write to".to_owned()),
            KeyFileError::Exists { .. } => ("key.exists", "choose another name, or move the file away".to_owned()),
            KeyFileError::Permissions { path, .. } => ("key.permissions", format!("chmod 600 '{}'", path.display())),
            KeyFileError::Content { .. } => ("key.malformed", "fleetd key create NAME".to_owned()),
        };
        let cause = std::error::Error::source(&error).map(crate::error::chain).unwrap_or_default();
        Self::new(code, error.to_string()).cause(cause).next_command(next)
    }
}

/// Writes a new key: the secret one at `path`, the public one beside it at the path that is returned.
///
/// # Errors
/// [`KeyFileError::Exists`] when one of the files is there, [`KeyFileError::Io`] when one cannot be written.
pub fn create(path: &Path, key: &SecretKey) -> Result<PathBuf, KeyFileError> {
    let public = path.with_extension("pub");
    for path in [path, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(KeyFileError::Exists { path: path.to_owned() });
        }
    }
    write_new(path, 0o600, &key.to_armour())?;
    write_new(&public, 0o644, &key.public().to_armour())?;
    Ok(public)
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), KeyFileError> {
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| KeyFileError::Io { path: path.to_owned(), verb: "written", source })
}

/// Reads a secret key.
///
/// # Errors
/// [`KeyFileError::Permissions`] when others could have read it too, and those of reading.
pub fn read_secret(path: &Path) -> Result<SecretKey, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_owned(), verb: READ, source };
    let mode = std::fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode });
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    read_armour(&text).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}

/// Reads a public key.
///
/// # Errors
/// [`KeyFileError::Io`] and [`KeyFileError::Content`].
pub fn read_public(path: &Path) -> Result<PublicKey, KeyFileError> {
    let text = std::fs::read_to_string(path).map_err(|source| KeyFileError::Io {
        path: path.to_owned(),
        verb: READ,
        source,
    })?;
    read_armour(&text).map_err(|source| KeyFileError::Content { path: path.to_owned(), source })
}
