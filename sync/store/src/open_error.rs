//! Why a store does not open, so that the caller can tell what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process has it open: wait, or find out who.
    #[error("the store in {path} is in use by another process")]
    Locked {
        /// Where it is.
        path: PathBuf,
    },
    /// A newer program wrote it: run that one.
    #[error("the store in {path} has format {found}, this program knows formats up to {supported}")]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this program knows.
        supported: u32,
    },
    /// This user may not open it: a matter of the operating system's.
    #[error("the store in {path} may not be opened by this user")]
    Permission {
        /// Where it is.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
    /// It is not what was written: quarantine it and start again.
    #[error("the store in {path} is damaged: {cause}")]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// How it shows.
        cause: String,
    },
    /// The operating system failed for another reason (no space, no file handles): try again later.
    #[error("the store in {path} cannot be opened")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// The operating system's word.
        source: io::Error,
    },
}

impl OpenStoreError {
    /// Says whether quarantining the store and starting an empty one is the way on.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// Opens a store. A damaged one is put aside, and an empty one takes its place: what is missing comes again from
/// others. Says where the former one is, if so.
///
/// # Errors
/// Why neither opens, or why the damaged one cannot be put aside.
pub fn open_or_put_aside<S, A, E: From<OpenStoreError>>(
    open: impl Fn() -> Result<S, OpenStoreError>,
    put_aside: impl FnOnce(&OpenStoreError) -> Result<A, E>,
) -> Result<(S, Option<A>), E> {
    match open() {
        Err(error) if error.is_damage() => {
            let aside = put_aside(&error)?;
            Ok((open()?, Some(aside)))
        }
        opened => Ok((opened?, None)),
    }
}

/// Linux's number for an error of the medium itself, which has no portable name.
pub(crate) const EIO: i32 = 5;

/// Says whether an error means that what was stored is not there or not whole, rather than that the operating
/// system would not serve us now.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(error.kind(), AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof)
        || error.raw_os_error() == Some(EIO)
}

/// Names an error of the operating system that kept a store from opening.
pub(crate) fn open_error(path: &Path, error: io::Error) -> OpenStoreError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenStoreError::Permission { path, source: error }
        }
        io::ErrorKind::WouldBlock => OpenStoreError::Locked { path },
        _ if is_damage(&error) => OpenStoreError::Damaged { path, cause: error.to_string() },
        _ => OpenStoreError::Io { path, source: error },
    }
}
